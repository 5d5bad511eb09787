#!/usr/bin/env bash
# SRPO on the emoji pipeline with embeddings in place of its text encoder, which is not even on the disk: the checkpoints
# are those of the run with the text encoder, byte for byte; a prompt that was not embedded is named before the work
# begins, with the command that adds it. Usage: embed.sh SYZ
set -euo pipefail
syz=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }

cp -r examples/emoji/pipeline "$folder/pipeline"
printf 'a red cat\ntwo dogs\n' >"$folder/prompts.txt"
"$syz" embed "$folder/prompts.txt" --model "$folder/pipeline" --out "$folder/embeddings" --shard 2 --quiet >/dev/null
rm -r "$folder/pipeline/text_encoder" "$folder/pipeline/tokenizer"

# run NAME [SETTING...]: the checkpoint's sum
run() {
  local name=$1
  shift
  "$syz" run tests/recipes/tiny.lua --quiet --out "$folder/$name" --set steps=2 --set lr=1e-4 "$@" >/dev/null || return
  cat "$folder/$name/checkpoints/step-000002"/{transformer/*,optimizer}.safetensors | sha256sum
}

if run missing --set model="$folder/pipeline" --set embeddings="$folder/embeddings" 2>"$folder/error"; then
  fail "a prompt without an embedding was trained on"
fi
grep -q 'the prompt "a green hat" has no embedding; add it: syz embed --prompt '"'a green hat'" "$folder/error" ||
  fail "the missing prompt is not named: $(cat "$folder/error")"

# add it: the pipeline's own folder has what the copy has lost
"$syz" embed --prompt "a green hat" --model examples/emoji/pipeline --out "$folder/embeddings" --quiet >/dev/null
with=$(run with --set model="$folder/pipeline" --set embeddings="$folder/embeddings")
without=$(run without --set model=examples/emoji/pipeline)
[ "$with" = "$without" ] || fail "embeddings change the checkpoint: $with, without $without"
grep -q '"role": *"embeddings"' "$folder/with/env.json" || fail "env.json does not tell of the embeddings"
echo "a run with embeddings is the run without"
