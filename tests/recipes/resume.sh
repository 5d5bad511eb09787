#!/usr/bin/env bash
# A run that is killed at any moment and resumed ends with the same weights as one that was not; a run stopped by SIGTERM
# exits with 75; a reward that is NaN ends the run with one line. Usage: resume.sh SYZ
set -euo pipefail
syz=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
recipe=tests/recipes/tiny.lua
weights() { (cd "$1/model" && find . -name '*.safetensors' -print0 | sort -z | xargs -0 sha256sum); }
fail() { echo "FAILED: $*" >&2; exit 1; }

"$syz" run $recipe --quiet --out "$folder/whole" >/dev/null
whole=$(weights "$folder/whole")
[ -n "$whole" ] || fail "the run saved no model"
grep -q '"before"' "$folder/whole/summary.json" || fail "summary.json has no before/after"

for delay in 0.3 0.6 0.9 1.3; do
  out=$folder/killed-$delay
  "$syz" run $recipe --quiet --out "$out" >/dev/null 2>&1 &
  sleep "$delay"
  kill -9 $! 2>/dev/null || true
  wait $! 2>/dev/null || true
  [ -d "$out" ] || continue
  "$syz" run $recipe --quiet --out "$out" --resume >/dev/null || fail "resume after $delay s"
  [ "$(weights "$out")" = "$whole" ] || fail "the resumed weights differ (killed after $delay s)"
  cmp -s <(grep -o '"step": *[0-9]*' "$out/metrics.jsonl") <(grep -o '"step": *[0-9]*' "$folder/whole/metrics.jsonl") ||
    fail "the metrics of the resumed run list other steps (killed after $delay s)"
done

"$syz" run $recipe --quiet --set steps=500 --out "$folder/terminated" >/dev/null 2>&1 &
sleep 1.5
kill -TERM $!
code=0
wait $! || code=$?
[ "$code" = 75 ] || fail "SIGTERM gave exit code $code, not 75"

code=0
message=$("$syz" run $recipe --quiet --set poison=1 --out "$folder/poisoned" 2>&1 >/dev/null) || code=$?
[ "$code" = 1 ] || fail "a NaN reward gave exit code $code, not 1"
grep -q 'no finite loss' <<<"$message" || fail "a NaN reward said: $message"
echo "resumed runs equal the uninterrupted one"
