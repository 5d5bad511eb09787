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
for script in flux lora vae tiling layouts keys reward_keys clip clip_layout siglip aesthetic preprocess t5 bf16 ops \
    tokenizer tokenizer_kinds pipeline flux_pipeline torch_files; do
    "$python" "$here/$script.py"
done
# ImageReward's classes do not import with current transformers.
blip=$root/build/oracle-blip/bin/python
if [ ! -x "$blip" ]; then
    python3 -m venv "$root/build/oracle-blip"
    "$blip" -m pip install --quiet -r "$here/requirements-blip.txt"
    "$blip" -m pip install --quiet --no-deps image-reward==1.5
fi
"$blip" "$here/blip.py"
cd "$root" && git status --short -- tests
