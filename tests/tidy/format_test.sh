#!/bin/bash
# The C++ code is as clang-format writes it. To make it so: clang-format -i FILE...
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v clang-format >/dev/null; then
  echo "skipped: clang-format is missing"
  exit 77
fi
find engine service tests -name '*.cc' -o -name '*.h' | sort | xargs -P "$(nproc)" -n 20 clang-format --dry-run -Werror
