#!/usr/bin/env bash
# format.sh [--fix]: the C, CUDA and C++ files against .clang-format.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mode=(--dry-run -Werror)
if [ "${1-}" = --fix ]; then mode=(-i); fi
find engine kernels tests examples -regex '.*\.\(c\|h\|cu\|cuh\|cpp\|hpp\)' -print0 | xargs -0 clang-format-14 "${mode[@]}"
