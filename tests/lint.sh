#!/bin/bash
# Runs clang-tidy, with the checks of .clang-tidy, over the sources that the release preset compiles; any finding is an
# error. Takes minutes, so it is not part of tests/run.sh. tests/lint.sh [REGEX]: only files whose path matches.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/lib.sh

if (($# > 1)) || [[ ${1:-} == -* ]]; then fail "usage: tests/lint.sh [REGEX]"; fi
build=build/release

install_packages build tour test lint
# Generated headers must be there, and the flags are those of the compilation.
run cmake --preset release -DBUILD_TESTING=ON -DGABION_SERVICE=ON --log-level=WARNING
run cmake --build "$build" -j "$(nproc)"

# clang-tidy 14 compiles with Clang against GCC's standard library: tell both, and Asio, that there are coroutines, and
# let the options pass that only GCC knows.
arguments=()
for flag in -Wno-unknown-warning-option -DASIO_HAS_CO_AWAIT -DASIO_HAS_STD_COROUTINE \
  -D__cpp_impl_coroutine=201902L -D__cpp_coroutines; do
  arguments+=("-extra-arg=$flag")
done
mapfile -t files < <(jq -r '.[].file' "$build/compile_commands.json" | sort -u |
  awk -v root="$PWD/" -v wanted="${1:-}" '
    index($0, root) == 1 { path = substr($0, length(root) + 1)
                           if (path ~ /^(engine|service|tests)\// && path ~ wanted) print path }')
((${#files[@]} > 0)) || fail "no compiled source matches '${1:-}'"

say "clang-tidy over ${#files[@]} files"
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" clang-tidy -p "$build" --quiet --warnings-as-errors='*' "${arguments[@]}" \
    2> >(grep -vE '^([0-9]+ warnings? generated\.|Suppressed |Use -header-filter)' >&2) ||
  fail "clang-tidy found something, above"
echo "clang-tidy: nothing found."
