"""How fast PyTorch runs the embedded flow transformer on this CPU, f32 and bf16.

  bench_flow.py [--threads 2] [--batch 16 64] [--dtype float32 bfloat16] [--repeat 5]

The model is diffusers' FluxTransformer2DModel with 2 double and 4 single blocks, 4 heads x 64, 16 image and 16 text
tokens. A training step is the flow-matching loss: forward, backward and AdamW on all parameters (foreach; bf16 means
autocast over f32 weights; without AVX512-BF16 or AMX, torch is slower in it than in f32). Prints the median in
milliseconds. PyTorch's one OpenMP pool serves oneDNN and its own loops alike, so `--threads` is the whole count;
compare with the engine's (tests/bench/flow.c) under the same number, one at a time. BENCH_CPU=1 reports processor
time instead of elapsed time: on a busy machine, with one thread, it is the fairer figure.
"""
import argparse
import os
import statistics
import time

import common  # noqa: F401  (hides torchvision)

import torch
from diffusers import FluxTransformer2DModel

CONFIG = dict(in_channels=64, num_layers=2, num_single_layers=4, num_attention_heads=4, attention_head_dim=64,
              joint_attention_dim=256, pooled_projection_dim=256, axes_dims_rope=[16, 24, 24], guidance_embeds=False)


def inputs(batch):
    ids = torch.zeros(16, 3)
    ids[:, 1], ids[:, 2] = torch.arange(16) // 4, torch.arange(16) % 4
    return dict(hidden_states=torch.randn(batch, 16, 64), encoder_hidden_states=torch.randn(batch, 16, 256),
                pooled_projections=torch.randn(batch, 256), timestep=torch.rand(batch), img_ids=ids,
                txt_ids=torch.zeros(16, 3))


def median_ms(function, repeat):
    for _ in range(2):
        function()
    times = []
    clock = time.process_time if os.environ.get("BENCH_CPU") else time.perf_counter
    for _ in range(repeat):
        start = clock()
        function()
        times.append(1000 * (clock() - start))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)
    model = FluxTransformer2DModel(**CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    count = sum(p.numel() for p in model.parameters())
    print(f"torch {torch.__version__}, {args.threads} threads, {count / 1e6:.2f} M parameters")
    for dtype in args.dtype:
        for batch in args.batch:
            values, target = inputs(batch), torch.randn(batch, 16, 64)

            def velocity():
                with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                    return model(**values).sample

            def step():
                optimizer.zero_grad(set_to_none=True)
                torch.nn.functional.mse_loss(velocity().float(), target).backward()
                optimizer.step()

            with torch.no_grad():
                forward = median_ms(velocity, args.repeat)
            training = median_ms(step, args.repeat)
            print(f"{dtype} batch {batch}: forward {forward:.1f} ms, training step {training:.1f} ms")


if __name__ == "__main__":
    main()
