#!/usr/bin/env bash
# registers.sh [NVCC [ARCHITECTURE]]: registers, spilled bytes, stack and shared memory of every CUDA kernel, from ptxas.
# Needs the CUDA toolkit, no GPU. Fails when a kernel spills registers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
nvcc=${1-nvcc} arch=${2-sm_90a}
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

printf '%9s %7s %6s %7s  kernel\n' registers spilled stack shared
for source in kernels/*.cu; do
  "$nvcc" -std=c++17 -Werror all-warnings -I. -Iengine -DSYZ_CUDA_ARCHITECTURES='"native"' -arch="$arch" -Xptxas -v \
    -cubin -o "$scratch/cubin" "$source" >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; exit 1; }
  awk -v source="$source" '
    /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
    /bytes stack frame/ { stack = $1; spilled = $5 + $9 }
    /Used [0-9]+ registers/ {
      match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5)
      shared = 0
      if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART, RLENGTH) + 0
      printf "%9d %7d %6d %7d  %s\n", registers, spilled, stack, shared, name
    }' "$scratch/log"
done | c++filt | sed -E 's/\(anonymous namespace\)::|syz_cuda:://g; s/^(.{34})void /\1/; s/\(.*//' >"$scratch/table"
cat "$scratch/table"
awk '{ bad += $2 > 0; most = $1 > most ? $1 : most } END {
  printf "%d kernels, at most %d registers, %d that spill\n", NR, most, bad; exit bad > 0 || NR == 0 }' "$scratch/table"
