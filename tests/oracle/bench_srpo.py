"""How long PyTorch takes for one SRPO iteration of the embedded emoji model, and each of its parts.

  bench_srpo.py [--threads 2] [--dtype float32|bfloat16] [--repeats 5] [--batch 16] [--compile]

The same work as tests/bench/srpo.lua, with diffusers' FluxTransformer2DModel and AutoencoderKL and transformers'
CLIPModel. PyTorch gets what its documentation recommends on a CPU: one OpenMP pool, channels_last for the VAE, frozen
modules without weight gradients, inference_mode in the rollout, foreach AdamW, autocast for bfloat16 over f32 weights.
Prints one JSON object: the median of each part in milliseconds.
"""
import argparse
import json
import statistics
import time

import common

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPConfig, CLIPModel

STEPS = 12
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def config(name):
    with open(common.ROOT / "examples/emoji/configs" / f"{name}.json") as file:
        return json.load(file)


class Bench:
    def __init__(self, args):
        torch.manual_seed(0)
        self.bf16, batch = args.dtype == "bfloat16", args.batch
        self.transformer = FluxTransformer2DModel.from_config(config("transformer"))
        self.vae = AutoencoderKL.from_config(config("vae")).requires_grad_(False).to(memory_format=torch.channels_last)
        self.clip = CLIPModel(CLIPConfig.from_dict(config("reward"))).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(self.transformer.parameters(), lr=1e-9, weight_decay=1e-4)
        self.noise, self.hidden = torch.randn(batch, 16, 64), torch.randn(batch, 16, 256)
        self.pooled, self.level = torch.randn(batch, 256), torch.full((batch,), 0.7)
        self.direction = torch.randn(batch, 128)
        self.mean, self.std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
        ids = torch.zeros(16, 3)
        ids[:, 1], ids[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4
        self.ids, self.text_ids = ids, torch.zeros(16, 3)
        self.call, self.decode, self.tower = self.transformer, self.vae.decoder, self.clip.vision_model
        if args.compile:
            self.call, self.decode, self.tower = map(torch.compile, (self.call, self.decode, self.tower))

    def autocast(self):
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)

    def velocity(self, x):
        with self.autocast():
            return self.call(hidden_states=x, encoder_hidden_states=self.hidden, pooled_projections=self.pooled,
                             timestep=self.level, img_ids=self.ids, txt_ids=self.text_ids).sample.float()

    def rollout(self):
        with torch.inference_mode():
            x = self.noise
            for _ in range(STEPS):
                x = x - self.velocity(x) / STEPS
            return x

    def reward(self, x):
        z = x.view(-1, 4, 4, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 16, 8, 8)
        with self.autocast():
            images = (self.decode(z.to(memory_format=torch.channels_last)).float() * 0.5 + 0.5).clamp(0, 1)
            pooled = self.tower((images - self.mean) / self.std).pooler_output
            features = self.clip.visual_projection(pooled).float()
        return (torch.nn.functional.normalize(features, dim=-1) * self.direction).sum(1)

    def branch(self):
        (-self.reward(self.noise + self.velocity(self.noise) * 0.1).mean()).backward()

    def update(self):
        torch.nn.utils.clip_grad_norm_(self.transformer.parameters(), 0.1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def input_gradient(self):
        x = self.noise.clone().requires_grad_()
        self.reward(x).mean().backward()

    def without_gradient(self, function):
        with torch.inference_mode():
            function(self.noise)

    def iteration(self):
        self.rollout()
        self.branch()
        self.branch()
        self.update()


def median_ms(function, repeats, prepare, after):
    times = []
    for k in range(-2, repeats):
        prepare()
        start = time.perf_counter()
        function()
        if k >= 0:
            times.append(1000 * (time.perf_counter() - start))
        after()
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    b = Bench(args)
    parts = {
        "rollout": b.rollout,
        "transformer forward": lambda: b.without_gradient(b.velocity),
        "transformer forward and backward": lambda: b.velocity(b.noise).mean().backward(),
        "VAE and reward forward": lambda: b.without_gradient(b.reward),
        "VAE and reward forward and input gradient": b.input_gradient,
        "clip and AdamW": b.update,
        "iteration": b.iteration,
    }

    def nothing():
        pass

    def forget():
        b.optimizer.zero_grad(set_to_none=True)

    print(json.dumps({
        name: median_ms(function, args.repeats, b.branch if function == b.update else nothing,
                        nothing if function == b.update else forget)
        for name, function in parts.items()}))


if __name__ == "__main__":
    main()
