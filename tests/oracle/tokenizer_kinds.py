"""T5's and BERT's token ids of transformers over 13,500 prompts -> tests/text/data/{t5,bert}_*.

The prompts are the 12,000 of clip_prompts.jsonl and 1,500 more in tokenizer_prompts.jsonl, of kinds that these two
kinds of tokenizer treat on their own: control characters, half and full width, ligatures, special tokens and parts of
them, wide white space, marks on everything. The vocabularies are made here, from the same kinds of text:

  t5_nmt.model.gz        sentencepiece, unigram, nmt_nfkc as T5 has it; spiece.model of a folder
  t5_nmt.json.gz         the same as transformers saves it: tokenizer.json
  t5_identity.model.gz   without a normalisation map, and with user-defined symbols
  t5_bytes.json.gz       a Unigram model with byte_fallback
  bert_small.json.gz     WordPiece, uncased, as transformers saves it: tokenizer.json
  bert_added.json.gz     the same with added tokens of every flag, and
  bert_added.config.gz   its tokenizer_config.json
  bert_cased.txt.gz      WordPiece that keeps case and accents: vocab.txt

tokenizer_sums.json holds for each of them, and for the bundled BERT vocabulary, a CRC-32 for every 50 prompts: of the
ids in decimal, one space between, a newline after each prompt. Ids are complete: T5's end with </s>, BERT's stand
between [CLS] and [SEP]. tokenizer_sample.jsonl is a readable sample.
"""
import collections
import contextlib
import gzip
import json
import random
import tempfile
import zlib
from pathlib import Path

from common import ROOT, report, write_json

import sentencepiece
import tokenizer as clip
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AddedToken, BertTokenizer, T5Tokenizer

OUT = ROOT / "tests/text/data"
BERT = ROOT / "lua/syz/vocabularies/bert"
MORE, BLOCK = 1500, 50
SPECIALS = ["<extra_id_0>", "<extra_id_99>", "<extra_id_100>", "<extra_id_", "</s>", "<pad>", "<unk>", "<s>", "[CLS]",
            "[SEP]", "[PAD]", "[UNK]", "[MASK]", "[mask]", "[DEC]", "[ENC]", "[enc]", "</S>", "##s", "##", "[", "<",
            "\u2581", "\u2581a", "<0x41>", "<style>", "  <style>", "cafe", "Caf\u00c9", "photo_", "photo\u0301", "ca",
            "the"]
WIDE = [0x20, 0x09, 0x0a, 0x0d, 0x85, 0xa0, 0x1680, 0x2000, 0x2009, 0x200a, 0x200b, 0x2028, 0x2029, 0x202f, 0x205f,
        0x3000, 0xfeff, 0x180e, 0x2060]
MARKS = [0x300, 0x301, 0x308, 0x327, 0x323, 0x345, 0x591, 0x64b, 0x94d, 0xe34, 0x1ab0, 0x20d0, 0x3099, 0xfe0f, 0x200d,
         0x1f3fb, 0xad, 0x34f]


def more_kinds(words):
    """Functions(rng) -> prompt."""
    def word(rng):
        return clip.mixed_case(rng, rng.choice(words))

    def specials(rng):
        return rng.choice(["", " ", "  "]).join(rng.choice([rng.choice(SPECIALS), word(rng)])
                                                for _ in range(rng.randint(1, 9)))

    def controls(rng):
        return "".join(rng.choice([chr(rng.choice([*range(1, 32), *range(127, 160), 0xfffd, 0xfffc, 0xe000, 0x200e,
                                                   0x202a, 0x2066, 0xfff9, 0xd7ff, 0x10ffff])), word(rng), " "])
                       for _ in range(rng.randint(1, 12)))

    def widths(rng):
        return "".join(chr(rng.choice([rng.randint(0xff01, 0xff9f), rng.randint(0xfb00, 0xfb06), rng.randint(0x3300,
                           0x33ff), rng.randint(0x2460, 0x24ff), rng.randint(0xfb1d, 0xfdfb), 0xff9e, 0xff9f, 32]))
                       for _ in range(rng.randint(1, 30)))

    def spaces(rng):
        return "".join(rng.choice([chr(rng.choice(WIDE)) * rng.randint(1, 4), word(rng)])
                       for _ in range(rng.randint(1, 14)))

    def marked(rng):
        base = ["a", "E", "1", "\u00e9", "\u0410", "\u05d0", "\u0627", "\u0915", "\uff41", "\u304b", "\uff76", "\u1112",
                "\u212b", " ", "!", "\u0600", "\r", "\n", "\U0001f600", "\u4e00", "\ud55c"]
        return "".join(rng.choice(base) + "".join(chr(rng.choice(MARKS)) for _ in range(rng.choice([0, 0, 1, 1, 2, 5])))
                       for _ in range(rng.randint(1, 14)))

    def ideographs(rng):
        return "".join(rng.choice([chr(rng.choice([rng.randint(0x3400, 0x4dbf), rng.randint(0x4e00, 0x9fa5),
                                                   rng.randint(0x20000, 0x2a6d6), rng.randint(0xf900, 0xfa2d),
                                                   rng.randint(0x3041, 0x3096), rng.randint(0xac00, 0xd7a3)])),
                                   word(rng), "\u3002", "\u300c", "\uff0c"]) for _ in range(rng.randint(1, 20)))

    def punctuation(rng):
        return "".join(rng.choice([word(rng), chr(rng.choice([rng.randint(33, 64), rng.randint(91, 96),
                           rng.randint(123, 126), rng.randint(0xa1, 0xbf), rng.randint(0x2010, 0x2046),
                           rng.randint(0x3001, 0x3020)]))]) for _ in range(rng.randint(1, 20)))

    def long_words(rng):
        return " ".join(word(rng) * rng.randint(1, 40) for _ in range(rng.randint(1, 3)))[:700]

    return [specials, controls, widths, spaces, marked, ideographs, punctuation, long_words]


def training_text():
    rng = random.Random(7)
    lines = (OUT / "prompts.txt").read_text(encoding="utf-8").splitlines()
    words = sorted({word for line in lines for word in line.split()})
    functions, shares = zip(*clip.kinds(words))
    return lines + [rng.choices(functions, shares)[0](rng).replace("\n", " ") for _ in range(4000)], words


def prompts(words):
    with open(OUT / "clip_prompts.jsonl", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    rng, seen = random.Random(20260301), set(texts)
    functions = more_kinds(words)
    more = ["\u2581", " ", "\u3000", "a\r\nb", "\u0600a", "e\u0301" * 50, "\ufdfa", "x" * 101]
    while len(more) < MORE:
        text = functions[len(more) % len(functions)](rng)
        if text not in seen and text == text.encode("utf-8", "ignore").decode() and "\0" not in text:
            seen.add(text)
            more.append(text)
    return texts, more


def write_gz(name, data):
    (OUT / name).write_bytes(gzip.compress(data, 9, mtime=0))


def sentencepiece_model(folder, lines, **options):
    (Path(folder) / "text").write_text("\n".join(lines), encoding="utf-8")
    with contextlib.chdir(folder):  # the model remembers the names of its files
        sentencepiece.SentencePieceTrainer.train(
            input="text", model_prefix="spiece", model_type="unigram", hard_vocab_limit=False, pad_id=0, eos_id=1,
            unk_id=2, bos_id=-1, character_coverage=0.985, num_threads=1, minloglevel=2, **options)
    return (Path(folder) / "spiece.model").read_bytes()


def t5(lines):
    """-> {name: function(text) -> ids}"""
    with tempfile.TemporaryDirectory() as folder:
        model = sentencepiece_model(folder, lines, vocab_size=1500, normalization_rule_name="nmt_nfkc")
        write_gz("t5_nmt.model.gz", model)
        nmt = T5Tokenizer.from_pretrained(folder)
        nmt.save_pretrained(folder + "/saved")
        saved = json.loads((Path(folder) / "saved/tokenizer.json").read_text(encoding="utf-8"))
        write_gz("t5_nmt.json.gz", json.dumps(saved, ensure_ascii=False, separators=(",", ":")).encode())
        again = T5Tokenizer.from_pretrained(folder + "/saved")
    with tempfile.TemporaryDirectory() as folder:
        model = sentencepiece_model(folder, lines, vocab_size=1000, normalization_rule_name="identity",
                                    user_defined_symbols=["cat", "<style>", "--ar"])
        write_gz("t5_identity.model.gz", model)
        identity = T5Tokenizer.from_pretrained(folder)
    whole = byte_fallback(saved)
    write_gz("t5_bytes.json.gz", whole.to_str().encode())
    return {"t5_nmt.model": lambda text: nmt(text).input_ids, "t5_nmt.json": lambda text: again(text).input_ids,
            "t5_identity.model": lambda text: identity(text).input_ids,
            "t5_bytes.json": lambda text: whole.encode(text).ids}


def byte_fallback(saved):
    """The first 400 pieces of a saved model and a piece for every byte but one, read by the tokenizers library."""
    vocabulary = [tuple(entry) for entry in saved["model"]["vocab"][:400]]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256) if byte != 0xf0]
    whole = Tokenizer(models.Unigram(vocabulary, unk_id=2, byte_fallback=True))
    whole.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    whole.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    whole.decoder = decoders.Metaspace()
    whole.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return whole


def wordpieces(lines, lower):
    """A vocabulary of the commonest words, beginnings and ends; the library's own trainer breaks ties by chance."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    words = collections.Counter(word for line in lines
                                for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line)))
    parts, letters = collections.Counter(), collections.Counter()
    for word, count in words.items():
        letters.update({letter: count for letter in word})
        for cut in range(1, len(word)):
            parts[word[:cut]] += count
            parts["##" + word[cut:]] += count
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for counter, size in (letters, 700), (words, 500), (parts, 900):
        vocab += sorted(counter, key=lambda piece: (-counter[piece], piece))[:size]
    vocab += ["##" + letter for letter in sorted(letters, key=lambda piece: (-letters[piece], piece))[:500]]
    return {piece: index for index, piece in enumerate(dict.fromkeys(vocab))}


def bert(lines):
    vocab = wordpieces(lines, True)
    small, added = BertTokenizer(vocab=vocab), BertTokenizer(vocab=vocab)
    added.add_tokens([AddedToken("photo", single_word=True, normalized=False),
                      AddedToken("the", lstrip=True, rstrip=True),
                      AddedToken("of ", rstrip=True, normalized=False),
                      AddedToken("<style>", lstrip=True, special=True),
                      AddedToken("Caf\u00e9", normalized=True), AddedToken("Ca", normalized=True, single_word=True)])
    cased_vocab = wordpieces(lines, False)
    cased = BertTokenizer(vocab=cased_vocab, do_lower_case=False)
    write_gz("bert_cased.txt.gz", "".join(token + "\n" for token in cased_vocab).encode())
    for name, one in ("bert_added", added), ("bert_small", small):
        with tempfile.TemporaryDirectory() as folder:
            one.save_pretrained(folder)
            write_gz(f"{name}.json.gz", (Path(folder) / "tokenizer.json").read_bytes())
            if one is added:
                write_gz(f"{name}.config.gz", (Path(folder) / "tokenizer_config.json").read_bytes())
    real = gzip.decompress((BERT / "vocab.txt.gz").read_bytes()).decode().split("\n")[:-1]
    real = {token: index for index, token in enumerate(real)}
    bundled = BertTokenizer(vocab=real)
    bundled.add_special_tokens({"bos_token": "[DEC]"})  # as ImageReward's init_tokenizer does
    bundled.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
    assert bundled.convert_tokens_to_ids(["[DEC]", "[ENC]"]) == [30522, 30523]
    return {"bert_added.json": lambda text: added(text).input_ids,
            "bert_small.json": lambda text: small(text).input_ids,
            "bert_cased.txt": lambda text: cased(text).input_ids, "bert": lambda text: bundled(text).input_ids}


def sums(encode, texts):
    result, crc = [], 0
    for index, text in enumerate(texts):
        crc = zlib.crc32((clip.ids_text(encode(text)) + "\n").encode(), crc)
        if (index + 1) % BLOCK == 0:
            result.append(f"{crc:08x}")
            crc = 0
    assert len(texts) % BLOCK == 0
    return result


def main():
    lines, words = training_text()
    first, more = prompts(words)
    clip.dump(OUT / "tokenizer_prompts.jsonl", [{"text": text} for text in more])
    encoders = t5(lines) | bert(lines)
    texts = first + more
    write_json(OUT / "tokenizer_sums.json", {name: " ".join(sums(encode, texts)) for name, encode in encoders.items()})
    sample = [text for text in first[:40] + first[40::400] + more[:8] + more[8::25] if len(text) <= 200]
    clip.dump(OUT / "tokenizer_sample.jsonl",
              [{"text": text} | {name: encoders[name](text) for name in ("t5_nmt.model", "bert")} for text in sample])
    print(f"{len(texts)} prompts, {len(encoders)} tokenizers, {len(sample)} in the sample")
    report(OUT)


if __name__ == "__main__":
    main()
