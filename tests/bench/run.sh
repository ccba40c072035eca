#!/bin/bash
# Gabion and its peers in one run, as ratios, with CPU cost per request: builds gabiond optimized, then measures. --help
# lists the options. Not part of the tests: what it prints depends on the machine and on what else runs there.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/lib.sh

build=build/release
needs_gabion=yes
arguments=("$@")
while (($# > 0)); do
  case $1 in
    --help | -h) needs_gabion=no ;;
    --build) build=${2:?--build needs a value} needs_gabion=no ;;
    --only) if [[ ",${2:?--only needs a value}," =~ ,(qemu-nbd|qemu-storage-daemon|nbdkit), && ",$2," != *,gabion,* ]]; then
        needs_gabion=no
      fi ;;
  esac
  shift
done

if [[ $needs_gabion == yes ]]; then
  install_packages build tour test bench
  run cmake --preset release -DGABION_SERVICE=ON --log-level=WARNING
  run cmake --build "$build" -j "$(nproc)" --target gabiond gabionctl
fi
exec /usr/bin/python3 -B tests/bench/bench.py "${arguments[@]}"
