#!/usr/bin/env bash
# exports.sh LIBRARY HEADER...: the library exports exactly what the headers mark SYZ_API.
set -euo pipefail
export LC_ALL=C
library=$1
shift
exported=$(nm -D --defined-only "$library" | awk '{ print $3 }' | sort)
promised=$(grep -h '^SYZ_API' "$@" | sed -E 's/\(.*//; s/.*[ *]//' | sort)
[ -n "$exported" ] || { echo "$library exports nothing"; exit 1; }
if ! diff <(echo "$promised") <(echo "$exported"); then
  echo "'<' is declared in $* but not exported, '>' is exported but not declared"
  exit 1
fi
