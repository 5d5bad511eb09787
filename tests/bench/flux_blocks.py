"""One double and one single block of FLUX.1 at full width, Syzygy beside PyTorch on this CPU, as a Markdown table.

  PYTHON tests/bench/flux_blocks.py [--threads 2] [--size 720] [--rounds 2] [--repeats 2] [--dtype bfloat16 float32]

PYTHON has tests/oracle/requirements.txt installed. Random weights in f32 with products in bf16 (PyTorch: autocast), or
f32 throughout; 512 text tokens and the image tokens of that size. The two run in turn, each in processes of its own; a
figure is the median over rounds of the medians of one process.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = 512
CONFIG = dict(in_channels=64, num_layers=1, num_single_layers=1, num_attention_heads=24, attention_head_dim=128,
              joint_attention_dim=4096, pooled_projection_dim=768, axes_dims_rope=[16, 56, 56], guidance_embeds=True)


def run(command, args):
    environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), LUA_PATH=f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;",
                       LUA_CPATH=f"{ROOT}/build/release/lua/?.so;;")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(args, dtype, image):
    config = json.dumps(CONFIG | {"_class_name": "FluxTransformer2DModel"})
    return run(["luajit", "tests/bench/flux_blocks.lua", str(args.threads), str(args.repeats), str(image), str(TEXT), dtype,
                config], args)


def theirs(args, dtype, image):
    return run([sys.executable, __file__, "--torch", dtype, "--image", str(image), "--threads", str(args.threads),
                "--repeats", str(args.repeats)], args)


def run_torch(args):
    sys.path.insert(0, str(ROOT / "tests/oracle"))
    import common  # noqa: F401  hides torchvision, whose wheel is easily mismatched with a CPU-only torch
    import torch
    from diffusers import FluxTransformer2DModel
    torch.set_num_threads(args.threads)
    model = FluxTransformer2DModel(**CONFIG)
    values = dict(hidden_states=torch.randn(1, args.image, 64), encoder_hidden_states=torch.randn(1, TEXT, 4096),
                  pooled_projections=torch.randn(1, 768), timestep=torch.tensor([0.5]), guidance=torch.tensor([3.5]),
                  img_ids=torch.zeros(args.image, 3), txt_ids=torch.zeros(TEXT, 3))

    def velocity():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.torch == "bfloat16"):
            return model(**values).sample

    def forward():
        with torch.inference_mode():
            velocity()

    def step():
        model.zero_grad(set_to_none=True)
        velocity().float().square().mean().backward()

    def median(function):
        times = []
        for _ in range(args.repeats + 1):
            began = time.perf_counter()
            function()
            times.append(1e3 * (time.perf_counter() - began))
        return statistics.median(times[1:])

    print(json.dumps({"forward": median(forward), "step": median(step)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=720)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    parser.add_argument("--image", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch:
        return run_torch(args)
    image = (args.size // 16) ** 2
    print("| | Syzygy, s | PyTorch, s | ratio | Syzygy, GFLOP/s |\n|---|---|---|---|---|")
    for dtype in args.dtype:
        rounds = [(ours(args, dtype, image), theirs(args, dtype, image)) for _ in range(args.rounds)]
        for what, factor, title in (("forward", 1, "forward"), ("step", None, "forward and backward")):
            a, b = (statistics.median(pair[side][what] for pair in rounds) for side in (0, 1))
            rate = f"{rounds[0][0]['flops'] / a / 1e6:.0f}" if factor else ""
            print(f"| {title}, {dtype} | {a / 1e3:.2f} | {b / 1e3:.2f} | {b / a:.2f} | {rate} |", flush=True)


if __name__ == "__main__":
    main()
