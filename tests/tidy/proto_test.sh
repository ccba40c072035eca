#!/bin/bash
# The protos keep the rules of proto/buf.yaml.
set -euo pipefail
cd "$(dirname "$0")/../../proto"
if ! command -v buf >/dev/null; then
  echo "skipped: buf is missing"
  exit 77
fi
buf lint
