#!/usr/bin/env bash
# exports.sh LIBRARY HEADER: the library exports exactly what the header marks SYZ_API.
set -euo pipefail
export LC_ALL=C
exported=$(nm -D --defined-only "$1" | awk '{ print $3 }' | sort)
promised=$(grep -h '^SYZ_API' "$2" | sed -E 's/\(.*//; s/.*[ *]//' | sort)
[ -n "$exported" ] || { echo "$1 exports nothing"; exit 1; }
if ! diff <(echo "$promised") <(echo "$exported"); then
  echo "'<' is declared in $2 but not exported, '>' is exported but not declared"
  exit 1
fi
