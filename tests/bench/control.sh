#!/bin/bash
# The control plane under load: calls per second, restart, memory, lists. Builds gabiond optimized, then measures.
# --help lists the options. Not part of the tests: what it prints depends on the machine and on what else runs there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/lib.sh

build=build/release
if [[ " $* " != *" --help "* && " $* " != *" -h "* ]]; then
  install_packages build tour test
  run cmake --preset release -DBUILD_TESTING=ON -DGABION_SERVICE=ON --log-level=WARNING
  run cmake --build "$build" -j "$(nproc)" --target gabiond gabionctl control_load
fi
exec /usr/bin/python3 -B tests/bench/control.py --build "$build" "$@"
