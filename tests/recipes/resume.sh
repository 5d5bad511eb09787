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

# GRPO has more to lose: a reference copy, a window that moves with the step, two updates of one rollout.
grpo=(--quiet --set method=grpo --set steps=12)
"$syz" run $recipe "${grpo[@]}" --out "$folder/grpo" >/dev/null
"$syz" run $recipe "${grpo[@]}" --out "$folder/grpo-killed" >/dev/null 2>&1 &
for _ in $(seq 200); do
  [ -d "$folder/grpo-killed/checkpoints" ] && [ -n "$(ls "$folder/grpo-killed/checkpoints")" ] && break
  sleep 0.02
done
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
"$syz" run $recipe "${grpo[@]}" --out "$folder/grpo-killed" --resume >/dev/null || fail "resume of grpo"
[ "$(weights "$folder/grpo-killed")" = "$(weights "$folder/grpo")" ] || fail "the resumed weights of grpo differ"
cmp -s "$folder/grpo-killed/ledger.jsonl" "$folder/grpo/ledger.jsonl" || fail "the resumed ledger of grpo differs"

# LoRA with a moving average: the adapters, their average and the moments; the weights beside them stay where they are.
lora=(--quiet --set rank=3 --set ema=0.8 --set steps=12)
"$syz" run $recipe "${lora[@]}" --out "$folder/lora" >/dev/null
for signal in KILL TERM; do
  out=$folder/lora-$signal
  "$syz" run $recipe "${lora[@]}" --out "$out" >/dev/null 2>&1 &
  for _ in $(seq 200); do
    [ -d "$out/checkpoints" ] && [ -n "$(ls "$out/checkpoints")" ] && break
    sleep 0.02
  done
  kill -$signal $! 2>/dev/null || true
  wait $! 2>/dev/null || true
  "$syz" run $recipe "${lora[@]}" --out "$out" --resume >/dev/null || fail "resume of LoRA after $signal"
  [ -s "$out/model/lora/pytorch_lora_weights.safetensors" ] || fail "the resumed run left no adapters"
  [ "$(weights "$out")" = "$(weights "$folder/lora")" ] || fail "the resumed adapters differ after $signal"
done

# bf16 weights with their remainders, 8-bit moments and an average that is finer than bf16.
half=(--quiet --set dtype=bf16 --set moments=8bit --set ema=0.8 --set save=f32 --set steps=12)
"$syz" run $recipe "${half[@]}" --out "$folder/half" >/dev/null
"$syz" run $recipe "${half[@]}" --out "$folder/half-killed" >/dev/null 2>&1 &
for _ in $(seq 200); do
  [ -d "$folder/half-killed/checkpoints" ] && [ -n "$(ls "$folder/half-killed/checkpoints")" ] && break
  sleep 0.02
done
kill -9 $! 2>/dev/null || true
wait $! 2>/dev/null || true
"$syz" run $recipe "${half[@]}" --out "$folder/half-killed" --resume >/dev/null || fail "resume in bf16"
[ "$(weights "$folder/half-killed")" = "$(weights "$folder/half")" ] || fail "the resumed weights differ in bf16"

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
