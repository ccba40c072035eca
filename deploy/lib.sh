# shellcheck shell=bash
# Shared by deploy/*.sh and tests/*.sh: say what is done, install packages, compile. Source it after `set -euo pipefail`.

gabion_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Build trees share what ccache keeps: what quickstart.sh compiled, tests/run.sh does not compile again.
export CCACHE_BASEDIR=${CCACHE_BASEDIR-$gabion_root} CCACHE_NOHASHDIR=${CCACHE_NOHASHDIR-1}

say() { printf '\n== %s\n' "$*"; }

fail() {
  printf '\n%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# Prints a command as it could be typed, then runs it.
run() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
  "$@"
}

# packages_of SECTION...: the packages of these sections, one a line.
packages_of() {
  local line name section=
  while read -r line; do
    name=${line%%#*}
    name=${name%"${name##*[![:space:]]}"}
    case $name in
      '') ;;
      \[*\]) section=${name:1:-1} ;;
      *) [[ " $* " == *" $section "* ]] && printf '%s\n' "$name" ;;
    esac
  done <"$gabion_root/deploy/packages.txt"
  return 0
}

# missing_packages SECTION...: those of them that dpkg does not know as installed, one a line.
missing_packages() {
  local -a wanted
  mapfile -t wanted < <(packages_of "$@")
  # A package that dpkg never heard of is an error on its stderr and absent from its output: missing, too.
  # shellcheck disable=SC2016  # dpkg-query expands these
  dpkg-query -W -f='${Package} ${db:Status-Status}\n' "${wanted[@]}" 2>/dev/null |
    awk -v wanted="${wanted[*]}" '
      $2 == "installed" { have[$1] = 1 }
      END { n = split(wanted, names, " "); for (i = 1; i <= n; i++) if (!(names[i] in have)) print names[i] }'
}

# install_packages SECTION...: installs what is missing and nothing else; asks nothing. Without network or rights it
# matters only if something is missing.
install_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    fail "this script needs a Debian 12 system (dpkg-query and apt-get); the packages it would install: $(packages_of "$@" | tr '\n' ' ')"
  fi
  local -a missing as_root=()
  mapfile -t missing < <(missing_packages "$@")
  if ((${#missing[@]} == 0)); then
    echo "Packages [$*]: all installed."
    return
  fi
  if ((EUID != 0)); then
    if ! sudo -n true >/dev/null 2>&1; then
      fail "these packages are missing, and installing them needs root or sudo without a password: ${missing[*]}"
    fi
    as_root=(sudo -n)
  fi
  say "Installing the packages that are missing: ${missing[*]}"
  as_root+=(env DEBIAN_FRONTEND=noninteractive)
  local log
  log=$(mktemp)
  if ! { "${as_root[@]}" apt-get update -q &&
         "${as_root[@]}" apt-get install -q -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    fail "apt-get could not install: ${missing[*]}"
  fi
  rm -f "$log"
}

# wait_until SECONDS COMMAND...: true as soon as the command succeeds, false when the time is up.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}
