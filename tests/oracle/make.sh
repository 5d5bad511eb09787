#!/bin/sh
# Writes every reference file of the tests anew: tests/oracle/make.sh [PYTHON]
# Without PYTHON, a virtual environment with the pinned versions is made in build/oracle.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${1:-$root/build/oracle/bin/python}
if [ $# -eq 0 ] && [ ! -x "$python" ]; then
    python3 -m venv "$root/build/oracle"
    "$python" -m pip install --quiet -r "$here/requirements.txt"
fi
export PYTHONDONTWRITEBYTECODE=1
for script in flux vae clip ops tokenizer tokenizer_kinds pipeline; do
    "$python" "$here/$script.py"
done
cd "$root" && git status --short -- tests
