#!/bin/bash
# The tour: an image whose size is a multiple of nothing, exported under four block-size contracts, read by clients
# that know nothing of Gabion. Prints each command as an administrator would type it, with its output, checks what
# came out, and fails at the first thing that is not as it should be. Deletes and creates anew what it made before.
set -euo pipefail

if (($# != 2)); then
  echo "Usage: deploy/tour.sh GABIONCTL DATA_DIR (of a running gabiond)" >&2
  exit 2
fi
programs=$(cd "$(dirname "$1")" && pwd)
PATH=$programs:$PATH
data=$(realpath "$2")
socket=$data/gabiond.sock
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
image_bytes=1000300

fail() {
  printf '\nThe tour failed: %s\n' "$*" >&2
  exit 1
}
chapter() { printf '\n-- %s\n' "$*"; }

for tool in jq nbdinfo nbdcopy qemu-img cmp; do
  command -v "$tool" >/dev/null || fail "$tool is missing; deploy/packages.txt says which package has it"
done

# shown COMMAND...: prints the command and its output; the output stays in $work/output.
shown() {
  printf '$'
  quoted "$@"
  "$@" 2>&1 | tee "$work/output" || fail "the command above did not succeed"
}

# Prints words so that a shell reads them back; single quotes where any are needed.
quoted() {
  local word
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=,+-]+$ ]]; then
      printf ' %s' "$word"
    else
      printf " '%s'" "${word//\'/\'\\\'\'}"
    fi
  done
  printf '\n'
}

export GABION_SERVER=unix:$socket
# shellcheck disable=SC2016  # the reader's shell expands it
printf '$ export PATH=%q:$PATH\n' "$programs"
printf '$ export GABION_SERVER=%q\n' "$GABION_SERVER"
ctl() { gabionctl call "$@"; }

print_call() {
  printf '$ gabionctl call'
  quoted "$@"
  printf '# '
  ctl --print-grpcurl "$@"
}

# call METHOD JSON: the reply must be OK; it stays in $work/output.
call() {
  print_call "$@"
  ctl "$@" 2>&1 | tee "$work/output" || fail "$1 should have succeeded"
}

# refused METHOD JSON: the reply must be an error; it stays in $work/output.
refused() {
  print_call "$@"
  if ctl "$@" 2>&1 | tee "$work/output"; then fail "$1 should have been refused"; fi
}

# expect WHAT JQ-EXPRESSION: of the last output.
expect() { jq -e "$2" "$work/output" >/dev/null || fail "expected $1, in the output above"; }
# expect_extents UNIT BYTES: the stream of messages in the last output covers BYTES in multiples of UNIT, without gaps.
expect_extents() {
  jq -s -e "[.[].extents[] | {offset: (.offset // 0 | tonumber), length: (.length | tonumber)}]
    | reduce .[] as \$extent (0; if . == \$extent.offset and \$extent.length > 0 and \$extent.length % $1 == 0
                                 then . + \$extent.length else -1 end) | . == $2" "$work/output" >/dev/null ||
    fail "expected extents in multiples of $1 that cover $2 bytes without gaps, in the output above"
}
# expect_text WORD...: in the last output.
expect_text() {
  local word
  for word in "$@"; do
    grep -qF -- "$word" "$work/output" || fail "expected '$word' in the output above"
  done
}

# delete_if_there METHOD NAME: what an earlier tour left; that there is nothing is no failure.
delete_if_there() {
  ctl "$1" "{\"name\": \"$2\"}" >"$work/output" 2>&1 || grep -qF RESOURCE_NOT_FOUND "$work/output" ||
    fail "cannot delete $2 of an earlier tour: $(cat "$work/output")"
}

delete_earlier() {
  local name
  for name in tour-exact tour-pad-512 tour-pad-4096 tour-refuse; do
    delete_if_there ExportService/DeleteExport "exports/$name"
  done
  delete_if_there ImageService/DeleteImage images/tour
}

# The source: texts that every Debian has, at the start and at the very end, with nothing between them.
make_source() {
  local -a texts=(/usr/share/common-licenses/*)
  cat "${texts[@]}" >"$work/text"
  (($(stat -c %s "$work/text") >= 300000)) || fail "/usr/share/common-licenses holds less than 300,000 bytes"
  truncate -s 0 "$work/source"
  head -c 300000 "$work/text" >"$work/source"
  truncate -s $((image_bytes - 200300)) "$work/source"
  head -c 200300 "$work/text" >>"$work/source"
  [[ $(stat -c %s "$work/source") == "$image_bytes" ]] || fail "the source file has a wrong size"
}

uri_of() { printf 'nbd+unix:///%s?socket=%s' "$1" "$data/nbd.sock"; }

# compare FILE BYTES: FILE has so many bytes; they are the source's, and zero where the source has ended.
compare() {
  local bytes
  bytes=$(stat -c %s "$1")
  ((bytes == $2)) || fail "$(basename "$1") should have $2 bytes, and has $bytes"
  cmp -n "$image_bytes" "$work/source" "$1" || fail "$(basename "$1") differs from the source"
  [[ $(tail -c +$((image_bytes + 1)) "$1" | tr -d '\0' | wc -c) == 0 ]] ||
    fail "$(basename "$1") is not zero after the end of the image"
  echo "# equal: $image_bytes bytes of the source, then $((bytes - image_bytes)) zeros"
}

create_export() {  # ID TAIL MINIMUM
  local policy="\"tail\": \"$2\""
  if (($3 > 0)); then policy+=", \"minimumBytes\": $3"; fi
  printf '{"exportId": "%s", "export": {"source": "images/tour", "blockSizes": {%s}}}' "$1" "$policy"
}

# show_export ID BYTES MINIMUM: what clients see of an export and copy from it is what the contract says.
show_export() {
  local uri
  uri=$(uri_of "$1")
  shown nbdinfo "$uri"
  nbdinfo --json "$uri" >"$work/output"
  expect "a size of $2 and a minimum of $3" \
    ".exports[0] | .\"export-size\" == $2 and .block_size_minimum == $3"
  shown nbdinfo --map "$uri"
  nbdinfo --map --json "$uri" >"$work/output"
  expect "extents that are multiples of $3 and cover $2 bytes" \
    "all(.[]; .offset % $3 == 0 and .length % $3 == 0) and (map(.length) | add) == $2"
  shown nbdcopy "$uri" "$work/$1.nbdcopy"
  compare "$work/$1.nbdcopy" "$2"
  shown qemu-img convert -f raw -O raw "$uri" "$work/$1.qemu"
  compare "$work/$1.qemu" $((($2 + 511) / 512 * 512))  # qemu counts in sectors of 512 bytes
}

delete_earlier
make_source

chapter "An image of $image_bytes bytes"
call ImageService/CreateImage \
  "{\"imageId\": \"tour\", \"image\": {\"pool\": \"pools/default\", \"raw\": {}, \"virtualSizeBytes\": \"$image_bytes\"}}"
expect "an operation that is done" '.done == true and (has("error") | not)'
call ImageService/GetImage '{"name": "images/tour"}'
expect "an active image of $image_bytes bytes" \
  ".state == \"STATE_ACTIVE\" and .virtualSizeBytes == \"$image_bytes\""

chapter "Export it to the byte, and fill it from a file"
call ExportService/CreateExport "$(create_export tour-exact TAIL_EXACT 0)"
expect "a minimum of 1 and the image's size" \
  ".effectiveBlockSizes | .minimum.bytes == 1 and .exportSizeBytes == \"$image_bytes\""
shown nbdcopy "$work/source" "$(uri_of tour-exact)"
show_export tour-exact "$image_bytes" 1

for minimum in 512 4096; do
  padded=$(((image_bytes + minimum - 1) / minimum * minimum))
  chapter "Export it in units of $minimum bytes: padded with zeros to $padded bytes"
  call ExportService/CreateExport "$(create_export "tour-pad-$minimum" TAIL_PAD_ZERO "$minimum")"
  expect "a minimum of $minimum, by the policy, and a size of $padded" \
    ".effectiveBlockSizes | .minimum.bytes == $minimum and .minimum.origin == \"ORIGIN_POLICY\"
      and .exportSizeBytes == \"$padded\""
  show_export "tour-pad-$minimum" "$padded" "$minimum"
done

chapter "Ask for a contract that cannot be kept: units of 4096 bytes, no padding"
refused ExportService/CreateExport "$(create_export tour-refuse TAIL_REFUSE 4096)"
expect_text FAILED_PRECONDITION SIZE_NOT_MULTIPLE_OF_MINIMUM "$image_bytes" 4096
refused ExportService/GetExport '{"name": "exports/tour-refuse"}'
expect_text NOT_FOUND RESOURCE_NOT_FOUND

chapter "What the service says about the same bytes: as they are stored, and as clients of the export see them"
call InspectService/Map '{"name": "images/tour"}'
expect_extents 1 "$image_bytes"
call InspectService/Map '{"name": "exports/tour-pad-4096", "asAdvertised": true}'
expect_extents 4096 "$padded"

chapter "The exports stay. To delete one, and then the image, once it has no export:"
for request in 'ExportService/DeleteExport {"name": "exports/tour-exact"}' \
  'ImageService/DeleteImage {"name": "images/tour"}'; do
  print_call "${request%% *}" "${request#* }"
done
