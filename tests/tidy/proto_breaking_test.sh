#!/bin/bash
# The protos break no client of the last ones that landed, proto/landed naming their commit, by the rules of
# proto/buf.yaml. Skipped where buf or that commit is missing.
set -euo pipefail
cd "$(dirname "$0")/../.."

skip() {
  echo "skipped: $1"
  exit 77
}

command -v buf >/dev/null || skip "buf is missing"
commit=$(<proto/landed)
git rev-parse --quiet --verify "$commit^{commit}" >/dev/null 2>&1 ||
  skip "there is no git history with the commit $commit that proto/landed names"

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
git archive "$commit" proto | tar -x -C "$place"
buf breaking proto --against "$place/proto"

# That a break would be seen: the landed protos, without one of their fields.
field='uint32 violation_budget = 5;'
cp -r "$place/proto" "$place/broken"
sed -i "/$field/d" "$place/broken/gabion/v1/block_sizes.proto"
if (cd "$place" && buf breaking broken --against proto >"$place/said"); then
  echo "buf let a removed field pass: $field"
  exit 1
fi
grep -q violation_budget "$place/said" || {
  echo "buf did not name the removed field:"
  cat "$place/said"
  exit 1
}
