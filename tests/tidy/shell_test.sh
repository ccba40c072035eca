#!/bin/bash
# The scripts pass shellcheck, and those that are to be run can be.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v shellcheck >/dev/null; then
  echo "skipped: shellcheck is missing"
  exit 77
fi
mapfile -t scripts < <(find .ci deploy engine service tests -type f \( -name '*.sh' -o -path .ci/run \) | sort)
shellcheck --external-sources "${scripts[@]}"
status=0
for script in "${scripts[@]}"; do
  if [[ $(head -c 2 "$script") == '#!' && ! -x $script ]]; then
    echo "$script begins with #! and is not executable"
    status=1
  fi
done
exit "$status"
