"""CLIP's first 3,582 merges -> examples/emoji/tokenizer, and its ids by transformers -> tests/text/data/emoji_tokens.jsonl.

3,582 merges + 2 * 256 byte symbols + 2 marks = 4,096 tokens: few enough for a small text encoder's embedding, and
enough that captions of the emoji world fit 16 tokens (see examples/emoji/README.md).

  emoji_tokens.jsonl   {"text", "ids"}: every subject of subjects.txt, plain and with each style in front; ids with
                       the two marks, cut to 16, without the padding
"""
import gzip
import json
import shutil

from common import ROOT, report, write_json

from transformers import CLIPTokenizer

MERGES, LENGTH = 3582, 16
EMOJI = ROOT / "examples/emoji"
FOLDER = EMOJI / "tokenizer"
OUT = ROOT / "tests/text/data"
START, END = "<|startoftext|>", "<|endoftext|>"
STYLES = ["", "3D render. ", "Flat. ", "Black and white. ", "Soft shading. ", "Sticker. "]


def byte_symbols():
    """CLIP's order: the printable bytes of Latin-1 first, then 256, 257, ... for the others."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]


def main():
    with gzip.open(ROOT / "lua/syz/vocabularies/clip/merges.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[:MERGES + 1]
    symbols = byte_symbols()
    vocab = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(line.split(" ")) for line in lines[1:]]
    vocab += [START, END]
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    table = json.dumps({token: index for index, token in enumerate(vocab)}, ensure_ascii=False, separators=(",", ":"))
    (FOLDER / "vocab.json").write_text(table + "\n", encoding="utf-8", newline="\n")
    (FOLDER / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    special = {"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}
    write_json(FOLDER / "special_tokens_map.json", special)
    write_json(FOLDER / "tokenizer_config.json",
               special | {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"})

    tokenizer = CLIPTokenizer.from_pretrained(FOLDER)
    assert len(tokenizer) == len(vocab) == 4096 and tokenizer.model_max_length == LENGTH
    rows = []
    for subject in (EMOJI / "subjects.txt").read_text(encoding="utf-8").splitlines():
        for style in STYLES:
            ids = tokenizer(style + subject, truncation=True).input_ids
            rows.append(json.dumps({"text": style + subject, "ids": ids}) + "\n")
    (OUT / "emoji_tokens.jsonl").write_text("".join(rows), encoding="utf-8", newline="\n")
    report(FOLDER)


if __name__ == "__main__":
    main()
