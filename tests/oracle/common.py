"""Shared by the oracle scripts: where the files go, random weights, and byte-stable safetensors.

Import this module before torch's companions: unless vision.py brought it in, it hides torchvision, which few of the
reference classes need and whose wheel is easily mismatched with a CPU-only torch.
"""
import json
import os
import sys
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
sys.modules.setdefault("torchvision", None)

import torch  # noqa: E402
from safetensors.torch import save  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/models/data"

# One thread: the order of every reduction, and so the last bit of every reference, is fixed.
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)


def generator(name):
    """A generator seeded by the case's name, so that a case does not depend on those before it."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def randn(gen, *shape, scale=1.0):
    """Normal numbers that f32 represents exactly, returned in f64."""
    return (torch.randn(shape, generator=gen) * scale).double()


def randomise(model, gen):
    """Replaces every parameter: matrices keep activations of order one, gains leave 1, biases leave 0.

    Zero-initialised or identity-initialised parameters would let a wrong formula pass unseen.
    """
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=gen)
        if name.endswith("logit_scale"):
            value = torch.full(parameter.shape, 1.25) + 0.1 * noise
        elif "embedding" in name and parameter.ndim <= 2 and "embedder" not in name:
            value = noise * 0.5
        elif parameter.ndim >= 2:
            value = noise / (parameter[0].numel() ** 0.5)
        elif name.endswith("weight"):
            value = 1 + 0.3 * noise
        else:
            value = 0.3 * noise
        parameter.data = value.to(parameter.dtype)
    return model


def write_tensors(path, tensors):
    """Sorted f32 (or integer) tensors; the same tensors always give the same bytes."""
    ready = {}
    for name in sorted(tensors):
        value = tensors[name].detach()
        if value.is_floating_point():
            value = value.float()
            if not torch.isfinite(value).all():
                raise ValueError(f"{path}: {name} is not finite")
        ready[name] = value.contiguous().clone()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(ready, metadata={"format": "pt"}))


def write_json(path, value):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def report(folder):
    size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
    print(f"{Path(folder).relative_to(ROOT)}: {size / 1024:.0f} KiB")
