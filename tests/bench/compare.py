"""Syzygy against PyTorch on this CPU: one SRPO iteration of the embedded model and its parts, as a Markdown table.

  PYTHON tests/bench/compare.py [--threads 1 2] [--dtype f32 bf16] [--rounds 5] [--compile]

PYTHON has tests/oracle/requirements.txt installed. The two programs run in turn, each a process of its own with the same
number of threads and the same precision; every figure is the median over rounds of the medians of one process. Nothing
else should run on the machine; ratios bear a shared machine better than the milliseconds do.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = {"f32": "float32", "bf16": "bfloat16"}


def run(command, threads):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads),
                       LUA_PATH=f"{ROOT}/lua/?.lua;{ROOT}/lua/?/init.lua;;",
                       LUA_CPATH=f"{ROOT}/build/release/lua/?.so;;")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def ours(threads, dtype, repeats):
    return run(["luajit", "tests/bench/srpo.lua", str(threads), dtype, str(repeats)], threads)


def theirs(threads, dtype, repeats, compiled):
    return run([sys.executable, "tests/oracle/bench_srpo.py", "--threads", str(threads), "--dtype", NAMES[dtype],
                "--repeats", str(repeats)] + ["--compile"] * compiled, threads)


def processor():
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[2])
    parser.add_argument("--dtype", nargs="+", default=["f32", "bf16"], choices=list(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compile", action="store_true", help="torch.compile, which takes a minute to warm up")
    args = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores; {args.rounds} rounds of {args.repeats} repeats each\n")
    for threads in args.threads:
        for dtype in args.dtype:
            rounds = [(ours(threads, dtype, args.repeats), theirs(threads, dtype, args.repeats, args.compile))
                      for _ in range(args.rounds)]
            print(f"{dtype}, {threads} thread{'s' * (threads > 1)}\n")
            print("| part | Syzygy ms | PyTorch ms | ratio |\n|---|---|---|---|")
            for part in rounds[0][1]:
                a, b = (statistics.median(r[k][part] for r in rounds) for k in (0, 1))
                print(f"| {part} | {a:.1f} | {b:.1f} | {b / a:.2f} |")
            print(flush=True)


if __name__ == "__main__":
    main()
