#!/bin/bash
# What filters cost, as ratios against an export without any: builds gabiond optimized, then measures. --help lists the
# options. Not part of the tests: what it prints depends on the machine and on what else runs there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/lib.sh

if [[ " $* " != *" --help "* && " $* " != *" -h "* && " $* " != *" --build "* ]]; then
  install_packages build tour test bench
  run cmake --preset release -DGABION_SERVICE=ON --log-level=WARNING
  run cmake --build build/release -j "$(nproc)" --target gabiond gabionctl
fi
exec /usr/bin/python3 -B tests/bench/filters.py "$@"
