#!/bin/bash
# From a fresh Debian 12 to a running Gabion: installs packages, builds Release, starts gabiond, runs the tour and
# leaves gabiond running. Asks nothing; can be run again at once.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/lib.sh

usage() {
  cat <<'END'
Usage: deploy/quickstart.sh [--no-tour]

Environment:
  GABION_DATA   gabiond's data directory: images, metadata, sockets, log (default: gabion-data in the source tree)
END
}

tour=yes
while (($# > 0)); do
  case $1 in
    --no-tour) tour=no ;;
    --help | -h)
      usage
      exit 0
      ;;
    *) fail "unknown argument '$1'; see --help" ;;
  esac
  shift
done

build=build/quickstart
gabiond=$PWD/$build/bin/gabiond
gabionctl=$PWD/$build/bin/gabionctl
data=$(realpath -m "${GABION_DATA:-$PWD/gabion-data}")
socket=$data/gabiond.sock
pid_file=$data/quickstart.pid
log=$data/quickstart.log

# The kernel takes at most 107 bytes for the path of a Unix socket.
((${#socket} <= 107)) ||
  fail "the data directory's path is too long for a Unix socket in it (107 bytes): $data; set GABION_DATA to another"

# The program that the process of an earlier run executes; nothing if it is gone or the file was replaced meanwhile.
running_program() {
  local pid
  pid=$(cat "$pid_file" 2>/dev/null) || return 0
  [[ $pid =~ ^[1-9][0-9]*$ ]] || return 0
  readlink "/proc/$pid/exe" || true
}

gone() { [[ ! -e /proc/$1/exe ]] || ! readlink "/proc/$1/exe" >/dev/null; }

serves() { "$gabionctl" --server "unix:$socket" call ServerService/GetServerInfo '{}'; }

serves_or_died() { gone "$1" || serves; }

# Ends the gabiond of an earlier run if its program is not the one just built; says whether one goes on running.
keep_or_stop_earlier() {
  local program pid
  program=$(running_program 2>/dev/null)
  case $program in
    "$gabiond")
      echo "gabiond of an earlier run is up to date: process $(cat "$pid_file")."
      return 0
      ;;
    "$gabiond (deleted)")
      pid=$(cat "$pid_file")
      echo "gabiond was built anew: stopping the earlier process $pid."
      kill -TERM "$pid"
      wait_until 60 gone "$pid" || fail "process $pid did not end within 60 seconds of SIGTERM; its log: $log"
      ;;
  esac
  return 1
}

start() {
  mkdir -p "$data"
  say "Starting gabiond --data-dir $data"
  setsid "$gabiond" --data-dir "$data" >>"$log" 2>&1 </dev/null &
  echo $! >"$pid_file"
}

say "Packages"
install_packages build tour

say "Configuring and compiling (optimized, without the tests) into $build"
run cmake --preset release -B "$build" -DBUILD_TESTING=OFF -DGABION_SERVICE=ON --log-level=WARNING
run cmake --build "$build" -j "$(nproc)" --target gabiond gabionctl

keep_or_stop_earlier || start
pid=$(cat "$pid_file")
wait_until 60 serves_or_died "$pid" || fail "gabiond does not answer on $socket after 60 seconds; its log: $log"
if gone "$pid"; then
  tail -n 20 "$log" >&2
  fail "gabiond ended at start; the end of its log, $log, is above"
fi
echo "gabiond serves: gRPC on $socket, NBD on $data/nbd.sock."

if [[ $tour == yes ]]; then
  deploy/tour.sh "$gabionctl" "$data"
fi

say "gabiond goes on running"
cat <<END
  call it    $gabionctl --server unix:$socket call ImageService/ListImages '{}'
  its log    $log
  stop it    kill $pid
  start it   deploy/quickstart.sh --no-tour
END
