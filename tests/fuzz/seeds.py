#!/usr/bin/env python3
"""Writes the seed files of tests/fuzz/corpus/: images by Pillow and by hand, weights, pickles, YAML and tar files.

The image files are also the reference of tests/unit/image.c, which knows the formula of `pixel`. Needs Pillow.
Run: python3 tests/fuzz/seeds.py
"""

import base64
import io
import json
import pathlib
import struct
import tarfile
import zipfile
import zlib

from PIL import Image

CORPUS = pathlib.Path(__file__).parent / "corpus"
WIDTH, HEIGHT = 5, 4


def pixel(x, y):
    return (40 * x + 10, 60 * y + 5, 200 - 10 * x * y)


def grey(x, y):
    return 50 * x + 10 * y


def save(folder, name, data):
    path = CORPUS / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth, color, rows, interlaced=False, extra=b""):
    """A PNG from packed rows, filter 0 everywhere."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, color, 0, 0, int(interlaced))
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def grid(function, xs=range(WIDTH), ys=range(HEIGHT)):
    return [b"".join(function(x, y) for x in xs) for y in ys]


def images():
    rgb = Image.new("RGB", (WIDTH, HEIGHT))
    rgba = Image.new("RGBA", (WIDTH, HEIGHT))
    level = Image.new("L", (WIDTH, HEIGHT))
    for y in range(HEIGHT):
        for x in range(WIDTH):
            rgb.putpixel((x, y), pixel(x, y))
            rgba.putpixel((x, y), pixel(x, y) + (60 * x,))
            level.putpixel((x, y), grey(x, y))

    def encoded(image, **options):
        out = io.BytesIO()
        image.save(out, **options)
        return out.getvalue()

    save("image", "rgb.png", encoded(rgb, format="PNG"))
    save("image", "rgba.png", encoded(rgba, format="PNG"))
    save("image", "grey.png", encoded(level, format="PNG"))
    save("image", "rgb16.png", png(16, 2, grid(lambda x, y: struct.pack(">3H", *(257 * c for c in pixel(x, y))))))
    save("image", "grey_alpha.png", png(8, 4, grid(lambda x, y: bytes([grey(x, y), 60 * x]))))
    adam7 = [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)]
    rows = []
    for x0, dx, y0, dy in adam7:
        xs, ys = range(x0, WIDTH, dx), range(y0, HEIGHT, dy)
        if len(xs):
            rows += grid(lambda x, y: bytes(pixel(x, y) + (60 * x,)), xs, ys)
    save("image", "interlaced.png", png(8, 6, rows, interlaced=True))
    palette = b"".join(bytes(pixel(i, 0)) for i in range(WIDTH))
    extra = chunk(b"PLTE", palette) + chunk(b"tRNS", bytes(60 * i for i in range(WIDTH)))
    save("image", "palette.png", png(8, 3, grid(lambda x, y: bytes([x])), extra=extra))
    save("image", "bits.png", png(1, 0, [bytes([0b10101000]), bytes([0b01010000])] * 2))
    smooth = Image.new("RGB", (24, 16))
    for y in range(16):
        for x in range(24):
            smooth.putpixel((x, y), (4 * x + 60, 6 * y + 40, 120))
    save("image", "smooth.jpg", encoded(smooth, format="JPEG", quality=95, subsampling=0))
    save("image", "progressive.jpg", encoded(smooth, format="JPEG", quality=95, progressive=True))
    save("image", "grey.jpg", encoded(smooth.convert("L"), format="JPEG", quality=95))
    save("image", "cmyk.jpg", encoded(smooth.convert("CMYK"), format="JPEG"))


def weights(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def safetensors():
    entry = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    half = {"dtype": "BF16", "shape": [], "data_offsets": [24, 26]}
    empty = {"dtype": "I64", "shape": [0, 4], "data_offsets": [26, 26]}
    save("safetensors", "empty", weights({}, b""))
    save("safetensors", "one", weights({"a": entry}, bytes(24)))
    header = {"__metadata__": {"format": "pt"}, "a.weight": entry, "b": half, "none": empty}
    save("safetensors", "three", weights(header, bytes(26)))
    save("safetensors", "short", weights({"a": entry}, bytes(23)))


def torch():
    """The real files of tests/unit/data/torch, and the pickles in them: the target puts those into an archive.

    found-* are not made here: a search by coverage found them."""
    for path in sorted((CORPUS.parents[1] / "unit/data/torch").glob("*.pt")):
        save("torch", path.name, path.read_bytes())
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
                save("torch", path.stem + ".pkl", archive.read(name))
    save("torch", "system.pkl", b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.")
    save("torch", "itself.pkl", b"\x80\x02]q\0h\0a.")


def yaml():
    save("yaml", "config", b"model: examples/emoji\nlr: 1.0e-5\nwindow: [5, 25]\nkappa:\n  denoise: [0.1, 0.25]\n"
                           b"flags: {a: true, b: ~}\ntext: |\n  two\n  lines\nlist:\n- 0x1F\n- .inf\n- 'it''s'\n")
    save("yaml", "alias", b"a: &x [1, 2]\nb: *x\n")
    save("yaml", "duplicate", b"a: 1\na: 2\n")
    save("yaml", "deep", b"[" * 70 + b"]" * 70)
    save("yaml", "quoted", b"\"a\\tb\\u00e9\": \"\\x41\"\n? [x]\n: y\n")


def webdataset():
    def archive(kind, names):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
            for name, data in names:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return out.getvalue()

    files = [("a/0001.png", b"image one"), ("a/0001.json", b"{}"), ("a/0002.png", b""), ("a/0002.seg.png", b"x" * 600)]
    save("webdataset", "ustar.tar", archive(tarfile.USTAR_FORMAT, files))
    long_files = [("folder/" + "n" * 150 + ".txt", b"long name"), ("z.txt", b"end")]
    save("webdataset", "gnu.tar", archive(tarfile.GNU_FORMAT, long_files))
    save("webdataset", "pax.tar", archive(tarfile.PAX_FORMAT, long_files + [("\u00e9.txt", b"accent")]))


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """A field of a protocol buffer: bytes, a float or an integer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def charsmap():
    """A double array in which "A" leads to "a"."""
    units = [0] * 840
    units[0] = 256 << 10
    units[256 ^ ord("A")] = 512 << 10 | 1 << 8 | ord("A")
    units[256 ^ ord("A") ^ 512] = 1 << 31
    return struct.pack("<I840I", 840 * 4, *units) + b"a\0"


def tokenizer():
    """The first byte of a seed chooses the name of the file: see tests/fuzz/tokenizer.c."""
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2), ("\u2581a", -3.0, 1), ("b", -4.0, 1),
              ("ab", -1.0, 4)]
    model = b"".join(field(1, field(1, text.encode()) + field(2, score) + field(3, kind))
                     for text, score, kind in pieces)
    model += field(2, field(3, 1) + field(35, 1)) + field(3, field(2, charsmap()) + field(3, 1))
    save("tokenizer", "spiece", b"0" + model)
    added = [{"id": 6, "content": "cat", "normalized": True, "single_word": True, "lstrip": True, "rstrip": True}]
    normalizer = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(charsmap()).decode()}
    unigram = {"added_tokens": added, "normalizer": normalizer,
               "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "always"},
               "model": {"type": "Unigram", "byte_fallback": True, "vocab": [list(piece[:2]) for piece in pieces]}}
    vocab = {text: i for i, text in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##b"])}
    wordpiece = {"added_tokens": added, "normalizer": {"type": "BertNormalizer"},
                 "pre_tokenizer": {"type": "BertPreTokenizer"},
                 "model": {"type": "WordPiece", "max_input_chars_per_word": 9, "vocab": vocab}}
    vocab = {text: i for i, text in enumerate(["a", "b</w>", "ab</w>", "<|startoftext|>", "<|endoftext|>"])}
    bpe = {"model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": vocab, "merges": ["a b</w>"]}}
    for name, value in ("unigram", unigram), ("wordpiece", wordpiece), ("bpe", bpe):
        save("tokenizer", name, b"1" + json.dumps(value, separators=(",", ":")).encode())
    save("tokenizer", "vocabulary", b"2[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##b\n")
    text = ("4A Caf\u00e9 &amp;amp;&EACUTE;&#x80; \u201c\uff21\ufb01\u201d \u039f\u03a3. \x1b[1m e\u0301\u0345"
            "\u4e2d\r\n<end_of_text>[ENC]<|endoftext|>")
    save("tokenizer", "text", text.encode())
    save("tokenizer", "merges", b"3#version: 0.2\na b</w>\nc ab</w>\n")


if __name__ == "__main__":
    images()
    safetensors()
    torch()
    yaml()
    webdataset()
    tokenizer()
