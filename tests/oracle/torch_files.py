"""Files of torch.save, real ones -> tests/unit/data/torch/NAME.pt, each with its tensors as NAME.safetensors.

  types      every dtype that the engine has, a 0-dim and an empty tensor, Parameters
  views      tensors that share storages: slices, offsets, transposed and channels-last ones
  nested     dictionaries, lists and tuples of tensors; numbers, strings, dtypes and devices between them
  training   a checkpoint of a trainer: the weights in "state_dict", beside them counters (a numpy scalar too), settings in
             an argparse.Namespace, an optimizer's moments
  parallel   {"model": ...} of DistributedDataParallel: every name begins with "module."
  protocol4  the tensors of `parallel` in pickle protocol 4, as some libraries ask for
  legacy     the stream from before PyTorch 1.6, two tensors of one storage, one transposed
  model/     a small CLIP text tower as transformers saved it before safetensors: config.json and pytorch_model.bin
  shard-*    two shards in the layout of transformers, with their index
  float8     types that the engine lists and cannot compute with: they have no safetensors file
  compressed the archive of `parallel`, compressed by somebody

The names in the safetensors files are those that the engine gives the tensors (docs/design/weights.md).
"""
import argparse
import io
import json
import pickle
import pickletools
import struct
import zipfile

import common

import numpy
import torch
import transformers
from safetensors.torch import save

DATA = common.ROOT / "tests/unit/data/torch"


def store(name, value, expected=None, **options):
    """Writes NAME.pt and, unless the tensors are none of the engine's, NAME.safetensors."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    DATA.mkdir(parents=True, exist_ok=True)
    (DATA / f"{name}.pt").write_bytes(buffer.getvalue())
    if expected is not None:
        # clone() keeps the strides of channels-last tensors, contiguous() does not
        tensors = {key: tensor.detach().contiguous().clone() for key, tensor in sorted(expected.items())}
        (DATA / f"{name}.safetensors").write_bytes(save(tensors))


def types(gen):
    x = torch.randn(3, 5, generator=gen)
    value = {"f32": x, "f64": x.double() / 3, "f16": x.half(), "bf16": x.bfloat16(), "i64": (x * 1e12).long(),
             "i32": (x * 1e6).int(), "u8": (x * 20).abs().byte(), "bool": x > 0, "scalar": torch.tensor(-2.5),
             "empty": torch.zeros(4, 0, 2), "parameter": torch.nn.Parameter(x[0].clone()),
             "frozen": torch.nn.Parameter(x[1].clone(), requires_grad=False)}
    store("types", value, value)


def views(gen):
    x, image = torch.randn(6, 4, generator=gen), torch.randn(2, 3, 4, 5, generator=gen)
    value = {"whole": x, "again": x, "rows": x[2:5], "transposed": x.t(), "columns": x[:, 1:3], "every_other": x[::2, 1],
             "last": x[5, 3], "permuted": x.reshape(2, 3, 4).permute(2, 0, 1),
             "channels_last": image.contiguous(memory_format=torch.channels_last), "side_of_one": x[:1].t()}
    store("views", value, value)


def nested(gen):
    a, b, c = (torch.randn(n, generator=gen) for n in (2, 3, 4))
    value = {"a": {"weight": a, "note": "text", "n": -7, "big": 1 << 80, "rate": 0.5, "none": None, "flag": True},
             "list": [b, (c, "x", [])], 3: {"deep": a.reshape(2, 1)}, "dtype": torch.bfloat16, "set": {1, 2},
             "device": torch.device("cpu"), "size": torch.Size([2, 3]), "empty": {}, "long": "n" * 300}
    store("nested", value, {"a.weight": a, "list.0": b, "list.1.0": c, "3.deep": a.reshape(2, 1)})


def training(gen):
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    common.randomise(model, gen)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3, generator=gen)).sum().backward()
    optimizer.step()
    state = model.state_dict()
    value = {"epoch": 3, "best": numpy.float64(0.25), "name": "run", "args": argparse.Namespace(lr=1e-3, betas=(0.9, 0.99)),
             "state_dict": state, "optimizer": optimizer.state_dict(), "rng_state": torch.arange(5).byte()}
    store("training", value, state)


def parallel(gen):
    weights = {"encoder.weight": torch.randn(2, 3, generator=gen), "encoder.bias": torch.randn(2, generator=gen)}
    value = {"model": {f"module.{key}": tensor for key, tensor in weights.items()}, "iteration": 100000}
    store("parallel", value, weights)
    store("protocol4", value, weights, pickle_protocol=4)
    source = zipfile.ZipFile(DATA / "parallel.pt")
    with zipfile.ZipFile(DATA / "compressed.pt", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(zipfile.ZipInfo(entry.filename), source.read(entry), zipfile.ZIP_DEFLATED)


class Keys(pickle.Unpickler):
    """Notes the persistent ids and makes nothing of them."""

    def __init__(self, file):
        super().__init__(file)
        self.sizes = {}

    def find_class(self, module, name):
        return (lambda *arguments: {}) if name != "OrderedDict" else dict

    def persistent_load(self, pid):
        self.sizes[pid[2]] = pid[4]
        return pid


def legacy(gen):
    """Storages are named by their addresses and ordered by those; here they get numbers of the same length, in the order
    in which the tensors name them, so that the file is the same each time."""
    x, y = torch.randn(3, 4, generator=gen), torch.randn(5, generator=gen)
    value = {"x": x, "tail": x[1:], "transposed": x.t(), "y": y, "scalar": torch.tensor(1.5)}
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    data = buffer.getvalue()
    stream = io.BytesIO(data)
    for _ in range(3):
        list(pickletools.genops(stream))
    start = stream.tell()
    keys = Keys(stream)
    keys.load()
    middle = stream.tell()
    order = pickle.load(stream)
    chunks, at = {}, stream.tell()
    for key in order:
        size = 8 + 4 * keys.sizes[key]  # all are f32
        chunks[key] = data[at:at + size]
        at += size
    assert at == len(data)
    named = data[start:middle]
    new = {key: str(i).rjust(len(key), "0") for i, key in enumerate(keys.sizes)}
    for key in keys.sizes:
        assert len(struct.pack("<I", len(key)) + key.encode()) == 4 + len(key)
        named = named.replace(key.encode(), new[key].encode())
    tail = pickle.dumps(list(new.values()), protocol=2) + b"".join(chunks[key] for key in keys.sizes)
    (DATA / "legacy.pt").write_bytes(data[:start] + named + tail)
    again = torch.load(DATA / "legacy.pt", weights_only=True)
    assert all(torch.equal(again[key], tensor) for key, tensor in value.items())
    (DATA / "legacy.safetensors").write_bytes(save({key: tensor.contiguous().clone() for key, tensor in value.items()}))


def shards(gen):
    weights = {"module.a": torch.randn(4, generator=gen), "module.b": torch.randn(2, 2, generator=gen)}
    names = {"module.a": "shard-00001-of-00002.bin", "module.b": "shard-00002-of-00002.bin"}
    for key, name in names.items():
        torch.save({key: weights[key]}, DATA / name)
    common.write_json(DATA / "shard.bin.index.json", {"metadata": {"total_size": 32}, "weight_map": names})
    (DATA / "shard.safetensors").write_bytes(save(weights))


def model():
    config = transformers.CLIPTextConfig(vocab_size=12, hidden_size=4, intermediate_size=6, num_hidden_layers=1,
                                         num_attention_heads=2, max_position_embeddings=5, projection_dim=3,
                                         bos_token_id=1, eos_token_id=2, pad_token_id=0)
    tower = transformers.CLIPTextModel(config)
    common.randomise(tower, common.generator("model"))
    names = {key if key.startswith("text_model.") else f"text_model.{key}": tensor
             for key, tensor in tower.state_dict().items()}
    folder = DATA / "model"
    common.write_json(folder / "config.json", {**config.to_dict(), "architectures": ["CLIPTextModel"]})
    torch.save(names, folder / "pytorch_model.bin")
    (DATA / "model.safetensors").write_bytes(save({key: tensor.contiguous() for key, tensor in names.items()}))


def float8():
    store("float8", {"f8": torch.ones(3).to(torch.float8_e4m3fn), "u16": torch.ones(2, dtype=torch.uint16),
                     "half": torch.ones(2).half()})


if __name__ == "__main__":
    for make in (types, views, nested, training, parallel, legacy, shards):
        make(common.generator(make.__name__))
    float8()
    model()
    print(json.dumps({path.name: path.stat().st_size for path in sorted(DATA.rglob("*.*"))}))
    common.report(DATA)
