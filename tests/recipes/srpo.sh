#!/usr/bin/env bash
# The README's main job with the committed weights, two steps of it: every file of a run is there, the summary holds each
# metric before and after, and the starting model draws what it is asked for. Usage: srpo.sh SYZ
set -euo pipefail
syz=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

out=$folder/run
"$syz" run recipes/srpo.lua --quiet --out "$out" --set steps=2 --set batch=4 >/dev/null
for file in recipe.lua config.yaml env.json metrics.jsonl ledger.jsonl summary.json report.html before-after.png \
  samples/before.png samples/after.png model/transformer/diffusion_pytorch_model.safetensors; do
  [ -s "$out/$file" ] || fail "the run left no $file"
done
compgen -G "$out/events.out.tfevents.*" >/dev/null || fail "the run left no TensorBoard events"
grep -q '"step":2' "$out/metrics.jsonl" || fail "metrics.jsonl has no step 2"

# number SECTION FIELD: e.g. judge_subject_accuracy before
number() { grep -A3 "\"$1\"" "$out/summary.json" | grep -o "\"$2\": *[-0-9.e]*" | head -n 1 | sed 's/.*: *//'; }
for metric in judge_style_probability judge_subject_accuracy sgp; do
  for side in before after; do [ -n "$(number "$metric" "$side")" ] || fail "summary.json has no $metric $side"; done
done
grep -q '"seconds"' "$out/summary.json" || fail "summary.json has no seconds"
awk -v x="$(number judge_subject_accuracy before)" 'BEGIN { exit !(x > 0.8) }' ||
  fail "the judge recognises only $(number judge_subject_accuracy before) of the subjects before training"
echo "the main job runs"
