"""CLIP token ids of transformers and open_clip over 12,000 prompts -> tests/text/data/clip_*.

The merges are CLIP's own 48,894, read from open_clip's package; the vocabulary is built the standard way:
256 byte symbols, the same 256 with </w>, one entry a merge, <|startoftext|> = 49406, <|endoftext|> = 49407.

  clip_prompts.jsonl   one prompt a line: {"text", "clip", "open_clip", "ftfy"}
                       clip: CRC-32 (8 hex digits) of the ids that transformers' CLIPTokenizer gives;
                       open_clip: the same of open_clip's SimpleTokenizer, left out where the ids are equal;
                       ftfy: true where open_clip's ids depend on ftfy's repairs beyond NFC
  clip_tokens.jsonl    a readable sample: {"text", "ids", "open_clip" (where it differs), "ftfy"}
  clip_sums.json       SHA-256 of the ids per 1000 prompts: "clip" over all of them, "open_clip" without
                       those marked ftfy

Ids are complete, <|startoftext|> and <|endoftext|> included and nothing cut at 77. What is hashed is their
decimal text with one space between; for SHA-256 with a newline after each prompt. The prompts are stored, so
a test needs nothing from here. prompts.txt, the input, holds the prompts of HPDv2's test set (Apache-2.0) and
of GenEval (MIT). Prompts that look like mis-decoded text are left out: repairing them is ftfy's guesswork.
"""
import gzip
import hashlib
import importlib.util
import json
import random
import re
import unicodedata
import zlib
from pathlib import Path

from common import ROOT, report, write_json

import ftfy
from transformers import CLIPTokenizer

OUT = ROOT / "tests/text/data"
COUNT = 12000
PACKAGE = Path(importlib.util.find_spec("open_clip").origin).parent
START, END = "<|startoftext|>", "<|endoftext|>"


def open_clip_module():
    """open_clip's tokenizer alone: the package itself asks for torchvision."""
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", PACKAGE / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPEN_CLIP = open_clip_module()


def merges_and_vocab():
    """-> list of pairs, dict of symbol to id."""
    with gzip.open(PACKAGE / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1:49152 - 256 - 2 + 1]
    merges = [tuple(line.split()) for line in lines]
    symbols = list(OPEN_CLIP.bytes_to_unicode().values())
    symbols += [symbol + "</w>" for symbol in symbols] + ["".join(pair) for pair in merges] + [START, END]
    return merges, {symbol: index for index, symbol in enumerate(symbols)}


class References:
    """The two implementations that people's checkpoints were trained with."""

    def __init__(self):
        merges, vocab = merges_and_vocab()
        self.hugging = CLIPTokenizer(vocab=vocab, merges=merges)
        self.simple = OPEN_CLIP.SimpleTokenizer(str(PACKAGE / "bpe_simple_vocab_16e6.txt.gz"))
        self.start, self.end = vocab[START], vocab[END]

    def clip(self, text):
        return self.hugging(text).input_ids

    def open_clip(self, text):
        return [self.start, *self.simple.encode(text), self.end]

    def open_clip_without_ftfy(self, text):
        repair, ftfy.fix_text = ftfy.fix_text, lambda value: unicodedata.normalize("NFC", value)
        try:
            return self.open_clip(text)
        finally:
            ftfy.fix_text = repair


ALPHABETS = [(0xA1, 0x17F), (0x180, 0x24F), (0x386, 0x3CE), (0x410, 0x45F), (0x531, 0x586), (0x5D0, 0x5EA),
             (0x621, 0x64A), (0x904, 0x939), (0xE01, 0xE3A), (0x10D0, 0x10F0), (0x1E00, 0x1EF9), (0x1F00, 0x1FFC),
             (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF01, 0xFF5E),
             (0x2070, 0x209C), (0x2150, 0x218B), (0x1D400, 0x1D7FF), (0x660, 0x669), (0x966, 0x96F)]
EMOJI = [(0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6C5), (0x1F900, 0x1F9FF), (0x2600, 0x27BF)]
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u200b", "\u3000", "\u2028", "\u0085", "\v", "\f",
          "\u202f", "\u1680", "\ufeff"]
ENTITIES = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&#x27;", "&eacute;", "&nbsp;", "&amp;amp;", "&amp;lt;",
            "&#8217;", "&hellip;", "&notit;", "&copy", "&#xD800;", "&#0;", "&bogus;", "&#x1F600;", "&#128;", "&"]
CONTRACTIONS = ["don't", "it's", "we're", "I've", "I'm", "she'll", "he'd", "rock'n'roll", "'tis", "dogs'", "O'Neil",
                "they'D", "IT'S", "y'all'd've", "l'eau", "don\u2019t", "\u2018quoted\u2019", "''s", "'s", "'re'"]
STYLES = ["3D render", "Flat", "Sticker", "Natural-lighting", "Detailed", "Oil", "Anime", "Concept art", "8k", "f/1.8",
          "masterpiece, best quality", "(red:1.3)", "--ar 16:9", "trending on artstation", "50mm", "cinematic lighting"]


def assigned(rng, ranges):
    """A character of the ranges that Unicode assigned so long ago that every table knows it."""
    while True:
        low, high = rng.choice(ranges)
        char = chr(rng.randint(low, high))
        old = unicodedata.ucd_3_2_0.category(char) not in ("Cn", "Co", "Cs", "Cc")
        if old or (0x1F300 <= ord(char) < 0x1F970 and unicodedata.category(char) == "So"):
            return char


def mixed_case(rng, text):
    return rng.choice([str.lower, str.upper, str.title, str.swapcase, str])(text)


def kinds(words):
    """name -> function(rng) -> prompt, with its share of the prompts."""
    def english(rng):
        parts = [mixed_case(rng, rng.choice(words)) for _ in range(rng.randint(1, 14))]
        joined = rng.choice([" ", " ", " ", ", ", "-", "_", "/"]).join(parts)
        front = rng.choice(STYLES) + ". " if rng.random() < 0.5 else ""
        return front + joined + rng.choice(["", ".", "!", "?!", "..."])

    def numbers(rng):
        forms = ["{}", "{:,}", "0x{:x}", "{}th", "{}%", "${}.99", "{}:30pm", "1/{}", "x{}", "{}e-5", "\u2116{}",
                 "v{}.0.1"]
        return " ".join(rng.choice(forms).format(rng.randint(0, 10 ** rng.randint(1, 9)))
                        for _ in range(rng.randint(1, 6))) + " " + rng.choice(words)

    def contractions(rng):
        return " ".join(rng.choice([rng.choice(CONTRACTIONS), mixed_case(rng, rng.choice(words))])
                        for _ in range(rng.randint(1, 9)))

    def ascii_noise(rng):
        return "".join(chr(rng.randint(32, 126)) for _ in range(rng.randint(1, 60)))

    def spaces(rng):
        return "".join(rng.choice([rng.choice(SPACES), rng.choice(words)]) for _ in range(rng.randint(1, 16)))

    def entities(rng):
        return rng.choice(["", " "]).join(rng.choice([rng.choice(ENTITIES), rng.choice(words)])
                                          for _ in range(rng.randint(1, 9)))

    def scripts(rng):
        ranges = rng.sample(ALPHABETS, rng.randint(1, 2))
        return " ".join("".join(assigned(rng, ranges) for _ in range(rng.randint(1, 7)))
                        for _ in range(rng.randint(1, 6)))

    def emoji(rng):
        def one():
            char = assigned(rng, EMOJI)
            return rng.choice([char, char, char + "\ufe0f", char + chr(rng.randint(0x1F3FB, 0x1F3FF)),
                               "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA", "5\ufe0f\u20e3"])
        return "".join(rng.choice([one(), one(), " ", rng.choice(words)]) for _ in range(rng.randint(1, 8)))

    def combining(rng):
        letters = "aeioucnszyAEIOUCNSZ\u0391\u0395\u0415\u0418\u304b\u1112"
        marks = "\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u0323\u0342\u3099\u1161\u11ab"
        return "".join(rng.choice(letters) + "".join(rng.choice(marks) for _ in range(rng.randint(0, 3)))
                       for _ in range(rng.randint(1, 12)))

    def code(rng):
        return rng.choice(["https://{}.com/{}?q={}&x=1", "{}_{}({})", "<b>{}</b> {} <{}>", "{}@{}.{}", "#{} @{} ~{}",
                           "[{}] {{{}}} |{}|", "{}\\{}\\{}", "{}\u2014{}\u2026 \u201c{}\u201d",
                           "{}\u00a9 {}\u2122 \ufb01{}"]
                          ).format(*(mixed_case(rng, rng.choice(words)) for _ in range(3)))

    return [(english, 40), (numbers, 8), (contractions, 10), (ascii_noise, 8), (spaces, 6), (entities, 6),
            (scripts, 10), (emoji, 7), (combining, 3), (code, 5)]


FIXED = ["", " ", "\n\t ", "a", "A", "'", "''", "'s", "\u00e9", "e\u0301",
         "\u0130stanbul", "STRASSE stra\u00dfe \u1e9e", "\u039f\u0394\u039f\u03a3 \u039f\u0394\u039f\u03a3.",
         "\u01c4 \u01c5 \u01c6", "\ufb03",
         "\u212b \u00c5 A\u030a", "\u2126 \u03a9", "x\u00b2 \u00bd \u2167", "1234567890",
         "\ud55c\uae00 \u1112\u1161\u11ab", "<|startoftext|>", "<|endoftext|>", "a<|endoftext|>b",
         "<|STARTOFTEXT|>", "<start_of_text>", "\u200d", "\ufe0f", "\U0001F9D1\u200d\U0001F4BB", "a\u00adb",
         "\u0301", "\u1d2c\u02b0", "hello\u200bworld"]


def prompts():
    rng = random.Random(20250911)
    real = (OUT / "prompts.txt").read_text(encoding="utf-8").splitlines()
    # The words people use, and as many that nobody does: a front of one with the back of another.
    words = sorted({word for line in real for word in re.findall("[A-Za-z]{3,}", line)})
    words += [first[:rng.randint(1, 5)] + second[-rng.randint(1, 6):]
              for first, second in zip(words, rng.sample(words, len(words)))]
    functions, shares = zip(*kinds(words))
    english = functions[0]
    for text in FIXED + real:
        yield text
    for length in (400, 1500, 3000, 10000):
        yield " ".join(english(rng) for _ in range(length))[:length]
        yield "a" * length
        yield "\U0001F600" * (length // 10)
    seen = set()
    while True:
        text = rng.choices(functions, shares)[0](rng)
        if text not in seen and ftfy.fix_encoding(text) == text:
            seen.add(text)
            yield text


def ids_text(ids):
    return " ".join(map(str, ids))


def crc(ids):
    return f"{zlib.crc32(ids_text(ids).encode()):08x}"


def dump(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")


def main():
    references = References()
    rows, sample, sums = [], [], {"clip": [], "open_clip": []}
    hashes = {key: hashlib.sha256() for key in sums}
    for index, text in zip(range(COUNT), prompts()):
        clip, open_clip = references.clip(text), references.open_clip(text)
        row, extra = {"text": text, "clip": crc(clip)}, {}
        if open_clip != clip:
            row["open_clip"], extra["open_clip"] = crc(open_clip), open_clip
        if references.open_clip_without_ftfy(text) != open_clip:
            row["ftfy"] = extra["ftfy"] = True
        rows.append(row)
        if len(clip) <= 120 and (index < len(FIXED) + 20 or index % 73 == 0):
            sample.append({"text": text, "ids": clip} | extra)
        hashes["clip"].update((ids_text(clip) + "\n").encode())
        if "ftfy" not in row:
            hashes["open_clip"].update((ids_text(open_clip) + "\n").encode())
        if (index + 1) % 1000 == 0:
            for key, value in hashes.items():
                sums[key].append(value.hexdigest())
                hashes[key] = hashlib.sha256()
    dump(OUT / "clip_prompts.jsonl", rows)
    dump(OUT / "clip_tokens.jsonl", sample)
    write_json(OUT / "clip_sums.json", sums)
    print(f"{len(rows)} prompts, {sum('open_clip' in row for row in rows)} differ between the two,"
          f" {sum('ftfy' in row for row in rows)} depend on ftfy, {len(sample)} in the sample")
    report(OUT)


if __name__ == "__main__":
    main()
