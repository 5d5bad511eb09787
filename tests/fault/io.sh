#!/usr/bin/env bash
# Writes, fsyncs and renames of a run fail, one at a time and from some point on. Whatever happens, the program ends with
# 0, or with 1 or 2 and a line; the checkpoints that it left can be read; and the resumed run ends with the weights of one
# in which nothing failed. Usage: io.sh SYZ libfault.so [STRIDE]
set -euo pipefail
syz=$1 shim=$2 stride=${3:-7}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
recipe=tests/recipes/tiny.lua
export SYZ_DISK_WAIT=0
weights() { (cd "$1/model" && find . -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum); }
fail() { echo "FAILED: $*" >&2; cat "$folder/err" >&2; exit 1; }
run() { "$syz" run $recipe --quiet --set steps=4 "$@" >/dev/null 2>"$folder/err"; }

LD_PRELOAD=$shim SYZ_IO_COUNT=$folder/count run --out "$folder/whole"
whole=$(weights "$folder/whole")
count() { awk -v call="$1" '$1 == call { print $2 }' "$folder/count"; }
tried=0 refused=0 warned=0

attempt() { # CALL N CODE MODE
  local out=$folder/run code=0 what="$1:$2:$3$4"
  rm -rf "$out"
  LD_PRELOAD=$shim SYZ_IO_FAULT=$what run --out "$out" || code=$?
  [ "$code" -le 2 ] || fail "$what gave exit code $code"
  [ "$code" = 0 ] || grep -q '^error: ' "$folder/err" || fail "$what ended with $code and said nothing"
  [ "$(grep -c '^error: ' "$folder/err" || true)" -le 1 ] || fail "$what said more than one error"
  tried=$((tried + 1))
  [ "$code" = 0 ] || refused=$((refused + 1))
  if grep -q "^warning: " "$folder/err"; then warned=$((warned + 1)); fi
  if [ "$code" = 0 ] && [ -f "$out/summary.json" ]; then
    [ "$(weights "$out")" = "$whole" ] || fail "$what: exit code 0, but other weights"
    return
  fi
  if [ -f "$out/run.json" ]; then
    run --out "$out" --resume || fail "resume after $what"
    [ "$(weights "$out")" = "$whole" ] || fail "$what: the resumed run has other weights"
  fi
}

for call in write short fsync rename; do
  made=$(count ${call/short/write})
  for ((n = 0; n < made; n += stride)); do
    attempt "$call" "$n" EIO ""
    attempt "$call" "$n" ENOSPC ":on"
  done
done
[ "$refused" -gt 0 ] && [ "$warned" -gt 0 ] || fail "no fault had an effect"
echo "$tried runs with a failing write, fsync or rename: $refused ended with an error, $warned with a warning, and each" \
  "could be resumed to the same weights"
