"""Names and shapes of published checkpoints -> tests/models/keys/NAME.txt (its README has the format).

Each list comes from the reference class at its published configuration (lua/syz/published/NAME.json), built on the meta
device, where tensors have shapes and no memory. NAME.original is the same model in the names of its first repository.
    keys.py [NAME ...]    only these
"""
import itertools
import json
import re
import sys

from common import ROOT
from layouts import flux_original, vae_original

import torch
import diffusers
import transformers

PUBLISHED = ROOT / "lua/syz/published"
KEYS = ROOT / "tests/models/keys"


def of_diffusers(config):
    return getattr(diffusers, config["_class_name"]).from_config(config).state_dict()


def of_transformers(config):
    cls = getattr(transformers, config["architectures"][0])
    return cls(cls.config_class(**config)).state_dict()


def clip_text(config):
    """Published files have the tower's name in front, which the class of today leaves out."""
    return {name if name.startswith("text_model.") else f"text_model.{name}": value
            for name, value in of_transformers(config).items()}


def t5_encoder(config):
    """The embedding stands once in the file, under the name that the encoder shares."""
    return {name: value for name, value in of_transformers(config).items() if name != "encoder.embed_tokens.weight"}


LISTS = {
    "flux.1-dev": of_diffusers,
    "flux.1-schnell": of_diffusers,
    "flux.1-dev.original": lambda config: flux_original(of_diffusers(config)),
    "flux.1-schnell.original": lambda config: flux_original(of_diffusers(config)),
    "flux.1-vae": of_diffusers,
    "flux.1-vae.original": lambda config: vae_original(of_diffusers(config)),
    "t5-xxl": t5_encoder,
    "clip-l-text": clip_text,
    "clip-l": of_transformers,
    "clip-h": of_transformers,
}


def ranges(numbers):
    """[0, 1, 2] -> {0..2}; None when some are missing in between"""
    first, last = min(numbers), max(numbers)
    if len(numbers) != last - first + 1:
        return None
    return str(first) if first == last else f"{{{first}..{last}}}"


def collapse(pattern, numbers):
    """The names that tuples of numbers make of a pattern, as few as ranges can say."""
    columns = [sorted(set(column)) for column in zip(*numbers)]
    texts = [ranges(column) for column in columns]
    whole = all(texts) and len(numbers) == len(list(itertools.product(*columns)))
    if whole:
        return [pattern.format(*texts)]
    at = max(k for k, column in enumerate(columns) if len(column) > 1)
    at = next((k for k, column in enumerate(columns) if len(column) > 1 and k < at), at)
    return [line for value in columns[at]
            for line in collapse(pattern, [tuple_ for tuple_ in numbers if tuple_[at] == value])]


def lines(tensors):
    groups = {}
    for name, value in tensors.items():
        parts = re.split(r"(?<![^.])(\d+)(?![^.])", name)
        key = ("{}".join(parts[::2]), tuple(value.shape))
        groups.setdefault(key, []).append(tuple(map(int, parts[1::2])))
    return [f"{name}  {list(shape)}" for (pattern, shape), numbers in groups.items()
            for name in collapse(pattern, numbers)]


def expand(text):
    found = re.search(r"\{(\d+)\.\.(\d+)\}", text)
    if not found:
        return [text]
    return [name for n in range(int(found[1]), int(found[2]) + 1)
            for name in expand(f"{text[:found.start()]}{n}{text[found.end():]}")]


def write(name, tensors):
    text = lines(tensors)
    again = [(key, line.split("  ")[1]) for line in text for key in expand(line.split("  ")[0])]
    assert sorted(again) == sorted((key, str(list(value.shape))) for key, value in tensors.items()), name
    (KEYS / f"{name}.txt").write_text("\n".join(text) + "\n")
    count = sum(value.numel() for value in tensors.values())
    print(f"{name}: {len(tensors)} tensors in {len(text)} lines, {count / 1e6:.1f} M parameters")


if __name__ == "__main__":
    for name in sys.argv[1:] or LISTS:
        config = json.loads((PUBLISHED / f"{name.removesuffix('.original')}.json").read_text())
        with torch.device("meta"):
            write(name, LISTS[name](config))
