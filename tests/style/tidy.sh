#!/usr/bin/env bash
# tidy.sh [FILE...]: clang-tidy by .clang-tidy over the given C files, or all of engine/ and kernels/. Not part of
# tests/run: it takes minutes, and clang-tidy-14 is not among the packages of packages.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
if [ "$#" = 0 ]; then mapfile -t files < <(find engine kernels -name '*.c' | sort); else files=("$@"); fi
# OpenMP's header comes from gcc, and names an attribute with arguments that clang does not know.
clang-tidy-14 -p build/release --quiet --extra-arg="-idirafter$(gcc -print-file-name=include)" \
  --extra-arg='-D__malloc__(...)=' "${files[@]}"
