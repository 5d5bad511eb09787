"""Forward passes of encoders of published sizes, Syzygy beside PyTorch on this CPU, as a Markdown table.

  PYTHON tests/bench/encoders.py [--threads 1] [--rounds 3] [--repeats 5]

PYTHON has tests/oracle/requirements.txt installed. Weights are random, f32, without gradients. The two run in turn; every
figure is the median over rounds of the medians of one process. Ratios bear a shared machine better than milliseconds do.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
T5 = dict(d_model=512, d_kv=64, num_heads=8, d_ff=2048, num_layers=6, vocab_size=32128, feed_forward_proj="relu")
TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, vocab_size=49408,
            projection_dim=768, eos_token_id=2)
VISION = dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224,
              patch_size=14, projection_dim=768)
CASES = {
    "T5-small, 512 tokens": ("T5EncoderModel", T5, "forward", [[1, 512], "ids"]),
    "CLIP-L text, 77 tokens": ("CLIPTextModel", TEXT, "forward", [[1, 77], "ids"]),
    "CLIP-L vision, 224²": ("CLIPVisionModelWithProjection", VISION, "image_features", [[1, 224, 224, 3], "pixels"]),
}


def ours(threads, repeats):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({name: {"config": config | {"architectures": [cls]}, "method": method, "input": made}
                   for name, (cls, config, method, made) in CASES.items()}, file)
        file.flush()
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), LUA_PATH=f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;",
                           LUA_CPATH=f"{ROOT}/build/release/lua/?.so;;")
        done = subprocess.run(["luajit", "tests/bench/encoders.lua", str(threads), str(repeats), file.name], cwd=ROOT,
                              env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def theirs(threads, repeats):
    """In a process of its own too: this program calls itself."""
    done = subprocess.run([sys.executable, __file__, "--torch", "--threads", str(threads), "--repeats", str(repeats)],
                          env=dict(os.environ, OMP_NUM_THREADS=str(threads)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_torch(threads, repeats):
    sys.path.insert(0, str(ROOT / "tests/oracle"))
    import common  # noqa: F401  hides torchvision, whose wheel is easily mismatched with a CPU-only torch
    import torch
    import transformers
    torch.set_num_threads(threads)
    configs = {"T5EncoderModel": transformers.T5Config, "CLIPTextModel": transformers.CLIPTextConfig,
               "CLIPVisionModelWithProjection": transformers.CLIPVisionConfig}
    result = {}
    with torch.inference_mode():
        for name, (cls, config, _, (shape, kind)) in CASES.items():
            model = getattr(transformers, cls)(configs[cls](**config)).eval()
            if kind == "ids":
                inputs = {"input_ids": torch.randint(3, 1000, shape)}
            else:
                inputs = {"pixel_values": torch.randn(shape).permute(0, 3, 1, 2).contiguous()}
            times = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                model(**inputs)
                times.append(1e3 * (time.perf_counter() - began))
            result[name] = statistics.median(times[1:])
    print(json.dumps(result))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--torch", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.torch:
        return run_torch(args.threads, args.repeats)
    rounds = [(ours(args.threads, args.repeats), theirs(args.threads, args.repeats)) for _ in range(args.rounds)]
    print("| forward, f32 | Syzygy, ms | PyTorch, ms | ratio |\n|---|---|---|---|")
    for name in CASES:
        a, b = (statistics.median(pair[side][name] for pair in rounds) for side in (0, 1))
        print(f"| {name} | {a:.0f} | {b:.0f} | {b / a:.2f} |")


if __name__ == "__main__":
    main()
