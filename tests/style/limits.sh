#!/usr/bin/env bash
# limits.sh: fails on a source file of more than 600 lines or a function of more than 60. A function that must be longer
# says why in a comment above it that begins with "Long:".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

find . \( -path ./build -o -path ./runs -o -path './.git' \) -prune -o \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.[ch]pp' -o -name '*.lua' -o -name '*.sh' -o -name '*.py' \) \
  -print0 | sort -z | xargs -0 awk '
  function complain(text) { print text; bad = 1 }
  function finish_file() { if (lines > 600) complain(name ": " lines " lines, 600 are allowed") }
  FNR == 1 { finish_file(); start = 0; name = FILENAME; lua = name ~ /\.lua$/; c = name ~ /\.([ch](pp)?|cuh?)$/; excused = 0 }
  { lines = FNR }
  /^(\/\*| \*|--) ?Long:/ { excused = 1 }
  # formatted code: a function opens in the first column (its head may wrap) and closes there
  !start && lua && /^(local )?function / && !/ end$/ { start = FNR; head = $0 }
  !start && c && /^[a-zA-Z_]/ { opened = FNR; head = $0 }
  !start && c && /\) \{$/ { start = opened }
  start && (lua ? /^end/ : /^}/) {
    if (FNR - start + 1 > 60 && !excused)
      complain(name ":" start ": " FNR - start + 1 " lines, 60 are allowed: " head)
    start = 0; excused = 0
  }
  END { finish_file(); exit bad }'
