"""The parts of bench.lua in PyTorch on the same card: the same shapes, the same work, bf16.

  python3 tests/gpu/peer.py --device cuda --size full [--compile] [--parts NAME ...]
  PYTHON  tests/gpu/peer.py --check       against diffusers and transformers (tests/oracle/requirements.txt), on the CPU
  PYTHON  tests/gpu/peer.py --count FILE  operations of each part against those in FILE, which check.sh --tiny left

Prints one JSON object a line, as bench.lua does. What PyTorch's documentation recommends is on: bf16 weights, scaled dot
product attention with cuDNN's before others, channels_last, no_grad in the rollout, frozen towers without weight
gradients, fused AdamW, and with --compile torch.compile of each kind of block. Its optimizer keeps bf16 weights and
moments, which is less than a master copy in f32.
"""
import argparse
import contextlib
import gc
import json
import pathlib
import statistics
import sys
import time

import torch
from torch.nn import functional as F

sys.dont_write_bytecode = True  # no folder of its own beside the sources
import peer_models as models  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
WARM_UP = 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def read(path):
    return json.loads((ROOT / path).read_text())


def attention_backends():
    """cuDNN's attention first, then what else there is."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    return sdpa_kernel(order, set_priority=True)


class Bench:
    def __init__(self, args):
        self.device, self.sizes, self.compiled = args.device, read("tests/gpu/sizes.json")[args.size], args.compile
        self.gpu, self.parts = args.device != "cpu", args.parts
        self.dtype = torch.bfloat16 if self.gpu else torch.float32
        self.configs = {name: read(self.sizes[name]) for name in ("transformer", "vae", "reward")}
        torch.manual_seed(0)

    # ---- measuring ----

    def synchronize(self):
        if self.gpu:
            torch.cuda.synchronize()

    def sample(self, run, prepare, after):
        prepare()
        self.synchronize()
        began = time.perf_counter()
        run()
        self.synchronize()
        seconds = time.perf_counter() - began
        after()
        return seconds

    def measured(self, name, run, prepare, after, samples, size):
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()
        first = self.sample(run, prepare, after)
        for _ in range(min(WARM_UP, samples) - 1):
            self.sample(run, prepare, after)
        began, times = time.perf_counter(), []
        while len(times) < samples and (not times or time.perf_counter() - began < self.sizes["seconds"]):
            times.append(self.sample(run, prepare, after))
        return {"part": name, "ms": 1e3 * statistics.median(times), "low": 1e3 * min(times), "high": 1e3 * max(times),
                "n": len(times), "bytes": size, "first": first,
                "peak": torch.cuda.max_memory_allocated() if self.gpu else None}

    def measure(self, name, run, prepare=lambda: None, after=lambda: None, samples=None, size=None):
        """One part; what it raises is its result. True when it was measured."""
        if self.parts and name not in self.parts:
            return False
        try:
            result = self.measured(name, run, prepare, after, samples or self.sizes["samples"], size)
        except Exception as error:  # out of memory, or a compiler that gave up: the other parts still count
            result = {"part": name, "failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        gc.collect()
        if self.gpu:
            torch.cuda.empty_cache()
        print(json.dumps(result), flush=True)
        return "ms" in result

    # ---- models ----

    def make(self, kind, name):
        with torch.device("meta"):
            model = kind(self.configs[name])
        model = model.to(self.dtype).to_empty(device=self.device).requires_grad_(False)
        for key, values in model.named_parameters():
            values.normal_(0, 0.02)
            if values.dim() == 1 and key.endswith(".weight"):
                values.add_(1)
        return model

    def randn(self, *shape):
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def build(self):
        self.transformer, self.decoder, self.tower = (
            self.make(kind, name) for kind, name in
            ((models.Flux, "transformer"), (models.Decoder, "vae"), (models.Tower, "reward")))
        self.decoder.to(memory_format=torch.channels_last)
        if self.compiled:
            torch._dynamo.config.cache_size_limit = 64
            torch._dynamo.config.accumulated_cache_size_limit = 1024
            for part in (*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks,
                         *self.tower.vision_model.encoder.layers, self.decoder):
                part.compile(dynamic=False)
        flux, length = self.configs["transformer"], self.sizes["text"]
        self.hidden = self.randn(1, length, flux["joint_attention_dim"])
        self.pooled = self.randn(1, flux["pooled_projection_dim"])
        self.text_ids = torch.zeros(length, 3, device=self.device)
        self.direction = F.normalize(self.randn(1, self.configs["reward"]["projection_dim"]), dim=1)
        self.mean, self.std = (torch.tensor(x, device=self.device, dtype=self.dtype).view(1, 3, 1, 1) for x in (MEAN, STD))

    def grid(self, side):
        return side // (2 * 2 ** (len(self.configs["vae"]["block_out_channels"]) - 1))

    def noise(self, side):
        return self.randn(1, self.grid(side) ** 2, self.configs["transformer"]["in_channels"])

    def image_ids(self, side):
        n = self.grid(side)
        k = torch.arange(n * n, device=self.device)
        return torch.stack([0 * k, k // n, k % n], 1).float()

    def velocity(self, x, level, ids, guidance=3.5):
        full = (torch.full((len(x),), value, device=self.device) for value in (level, guidance))
        return self.transformer(x, self.hidden, self.pooled, *full, ids, self.text_ids)

    def decode(self, x, side):
        n, vae = self.grid(side), self.configs["vae"]
        z = x.view(len(x), n, n, -1, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(len(x), -1, 2 * n, 2 * n)
        z = (z / vae["scaling_factor"] + vae["shift_factor"]).to(memory_format=torch.channels_last)
        return (self.decoder(z) * 0.5 + 0.5).clamp(0, 1)

    def score(self, images):
        side = self.configs["reward"]["vision_config"]["image_size"]
        if images.shape[-1] != side:
            images = F.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True,
                                   align_corners=False).to(self.dtype)
        features = F.normalize(self.tower((images - self.mean) / self.std), dim=1)
        return (features * self.direction).sum(1)

    # ---- parts ----

    def train(self, what):
        """As in bench.lua: "none", "first" (the first layer alone) or "all"."""
        self.forget()
        self.transformer.requires_grad_(what == "all")
        if what == "first":
            self.transformer.x_embedder.weight.requires_grad_(True)

    def forget(self):
        self.transformer.zero_grad(set_to_none=True)

    def iteration(self):
        side, steps = self.sizes["iteration"], self.sizes["rollout"]
        ids, noise = self.image_ids(side), self.noise(side)
        levels = [3 * t / (1 + 2 * t) for t in (1 - i / steps for i in range(steps + 1))]

        def branch(x0, high, low):
            x = (1 - high) * x0 + high * noise
            y = x + (low - high) * self.velocity(x, high, ids)
            s = self.score(self.decode((y - low * noise) / (1 - low), side))
            (-(1.2 * s - 0.5 * s).mean()).backward()

        def run():
            with torch.no_grad():
                x = noise
                for high, low in zip(levels, levels[1:]):
                    x = x + (low - high) * self.velocity(x, high, ids, 1.0)
            branch(x, 0.9, 0.8)
            branch(x, 0.7, 0.8)

        return run

    def transformer_parts(self, side):
        """A function that measures one of "forward", "inputs" and "weights"."""
        ids, x = self.image_ids(side), self.noise(side)

        def forward():
            with torch.no_grad():
                self.velocity(x, 0.5, ids)

        def backward():
            self.velocity(x, 0.5, ids).float().square().mean().backward()

        def measure(kind):
            self.train({"forward": "none", "inputs": "first", "weights": "all"}[kind])
            self.measure(f"{kind}/{side}", forward if kind == "forward" else backward, after=self.forget)

        return measure, backward

    def tower_parts(self, side):
        size = self.configs["reward"]["vision_config"]["image_size"]
        latents, pixels = self.noise(side).requires_grad_(), self.randn(1, 3, size, size).requires_grad_()

        def forget():
            latents.grad = pixels.grad = None

        self.measure(f"vae/{side}", lambda: self.decode(latents, side).mean().backward(), after=forget)
        self.measure("reward", lambda: F.normalize(self.tower(pixels), dim=1).mean().backward(), after=forget)

    def update_part(self, backward):
        self.train("all")
        parameters = list(self.transformer.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=1e-9, weight_decay=1e-4, fused=True)

        def update():
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        # gradients read twice, weights and both moments read and written
        size = (2 + 2 * 3) * sum(p.numel() * p.element_size() for p in parameters)
        self.measure(f"optimizer/{self.sizes['iteration']}", update, prepare=backward,
                     samples=min(5, self.sizes["samples"]), size=size)
        self.train("none")

    def rates(self):
        n, piece = self.sizes["product"], self.randn(1, 65536)
        a, b, long = self.randn(n, n), self.randn(n, n), piece.repeat(self.sizes["copied"] // 65536, 1)
        self.measure("product", lambda: a @ b)
        self.measure("copy", lambda: long.clone(), size=2 * long.numel() * long.element_size())

    def run(self):
        """What matters most comes first, and what needs no further compilation before what does."""
        side = self.sizes["iteration"]
        self.rates()
        self.build()
        measure, backward = self.transformer_parts(side)
        measure("forward")
        run = self.iteration()
        self.train("all")
        whole = self.measure(f"iteration/{side}", run, after=self.forget, samples=3)
        if not whole:  # the gradients of all weights do not fit
            self.train("first")
            self.measure(f"frozen-iteration/{side}", run, after=self.forget, samples=3)
        measure("weights")
        self.tower_parts(side)
        measure("inputs")
        if whole and not self.compiled:
            self.train("first")
            self.measure(f"frozen-iteration/{side}", run, after=self.forget, samples=2)
        for other in self.sizes["sides"]:
            if other != side:
                more, _ = self.transformer_parts(other)
                for kind in ("forward", "inputs", "weights"):
                    more(kind)
        if not self.compiled:
            self.update_part(backward)


# ---- the models against the libraries they are written after ----

def worst(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check():
    import transformers
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    torch.manual_seed(1)
    flux, vae, clip = (read(f"tests/models/data/{name}/config.json") for name in ("flux_b", "vae_a", "clip_a"))
    errors = {}

    theirs = FluxTransformer2DModel.from_config(flux).eval()
    ours = models.Flux(flux)
    ours.load_state_dict(theirs.state_dict())
    ids = torch.tensor([[0.0, i // 3, i % 3] for i in range(9)])
    inputs = [torch.randn(2, 9, flux["in_channels"]), torch.randn(2, 7, flux["joint_attention_dim"]),
              torch.randn(2, flux["pooled_projection_dim"]), torch.tensor([0.3, 0.9]), torch.tensor([3.5, 1.0]), ids,
              torch.zeros(7, 3)]
    names = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "guidance", "img_ids", "txt_ids")
    errors["transformer"] = worst(ours(*inputs), theirs(**dict(zip(names, inputs))).sample)

    theirs = AutoencoderKL.from_config(vae).eval()
    ours = models.Decoder(vae)
    ours.load_state_dict(theirs.decoder.state_dict())
    z = torch.randn(2, vae["latent_channels"], 5, 6)
    errors["decoder"] = worst(ours(z), theirs.decode(z).sample)

    theirs = transformers.CLIPModel(transformers.CLIPConfig.from_dict(clip)).eval()
    ours = models.Tower(clip)
    state = {k: v for k, v in theirs.state_dict().items() if k.startswith("vis") and "position_ids" not in k}
    ours.load_state_dict(state)
    size = clip["vision_config"]["image_size"]
    pixels = torch.randn(2, 3, size, size)
    pooled = theirs.vision_model(pixel_values=pixels).pooler_output
    errors["tower"] = worst(ours(pixels), theirs.visual_projection(pooled))

    for name, error in errors.items():
        print(f"{name}: largest difference {error:.1e} of the largest value")
    return 0 if all(error <= 1e-5 for error in errors.values()) else 1


def count(path):
    """Operations of every part, as PyTorch counts them, against bench.lua's: 1 when one differs."""
    from torch.utils.flop_counter import FlopCounterMode
    lines = (json.loads(line) for line in pathlib.Path(path).read_text().splitlines())
    ours = {line["part"]: line["flops"] for line in lines if "flops" in line}
    aten, bad = torch.ops.aten, 0

    def products(many):
        def formula(*shapes, **_):
            q, k = shapes[many == 5:][:2]  # the backward's first is the gradient
            return 2 * many * q[0] * q[1] * q[2] * k[2] * q[3]
        return formula

    attention = {aten._scaled_dot_product_flash_attention_for_cpu: products(2),
                 aten._scaled_dot_product_flash_attention_for_cpu_backward: products(5)}

    def measure(name, run, prepare=lambda: None, after=lambda: None, **_):
        nonlocal bad
        prepare()
        with FlopCounterMode(display=False, custom_mapping=attention) as counter:
            run()
        after()
        found = counter.get_total_flops()
        if found or name in ours and not name.startswith("optimizer"):
            bad += found != ours.get(name)
            print(f"{name}: {found}, ours {ours.get(name)}")
        return True

    bench = Bench(argparse.Namespace(device="cpu", size="tiny", compile=False, parts=None))
    bench.measure = measure
    bench.run()
    return min(bad, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--size", default="full", choices=["full", "tiny"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--parts", nargs="+", help="of bench.lua's names, such as forward/720")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--count", metavar="FILE")
    args = parser.parse_args()
    if args.count:
        torch.set_num_threads(1)
        return count(args.count)
    if args.check:
        sys.path.insert(0, str(ROOT / "tests/oracle"))
        import common  # noqa: F401  hides torchvision, whose wheel is easily mismatched with a CPU-only torch
        return check()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")
    if args.device == "cpu":
        torch.set_num_threads(1)
    about = {"side": "compiled" if args.compile else "eager", "version": torch.__version__, "device": args.device,
             "size": args.size, "cudnn": torch.backends.cudnn.version()}
    print(json.dumps({"about": about}), flush=True)
    with attention_backends() if args.device == "cuda" else contextlib.nullcontext():
        Bench(args).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
