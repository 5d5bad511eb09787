#!/usr/bin/env bash
# check.sh [--quick] [--python python3] [--out FOLDER] [BUILD]: is the CUDA backend right, and how fast is it on this card?
#
# BUILD is the folder of a CUDA build (build/cuda). One command, less than 8 minutes; a table at the end, and the same as a
# page FOLDER/gpu-CARD.md (FOLDER: runs/gpu). Fails when a part about correctness does; what misses a target or is not
# finished in its time is said in the table. docs/results/gpu.md tells what is measured and how.
#
#   --quick          without PyTorch: less than 5 minutes
#   --python PYTHON  the one that has PyTorch with CUDA (python3); no other package is needed
#   --tiny           tiny models on the CPU, half a minute: does this script work? PyTorch only with --python
#   --device NAME    with --tiny, where they are instead (cuda, or what stands in for it)
#
# Lua files run under LUAJIT (luajit). Libraries that the build needs must be where the loader finds them.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
command="tests/gpu/check.sh${*:+ $*}"
device='' size=full quick='' python='' out=$root/runs/gpu build=''
usage() { sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '/^set/d'; }
misuse() { echo "check.sh: $* (--help shows how it is used)" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=1 ;;
    --tiny) size=tiny ;;
    --python | --out | --device) [ $# -gt 1 ] || misuse "$1 needs a value"
      declare "${1#--}=$2"
      shift ;;
    -h | --help) usage; exit 0 ;;
    -*) misuse "unknown flag $1" ;;
    *) [ -z "$build" ] || misuse "one build folder, not $build and $1"
      build=$1 ;;
  esac
  shift
done
build=$(realpath -m "${build:-$root/build/cuda}") out=$(realpath -m "$out") luajit=${LUAJIT:-luajit}
[ $size = tiny ] || [ -z "$device" ] || misuse "--device goes with --tiny"
if [ $size = full ]; then device=cuda python=${python:-python3}; else device=${device:-cpu}; fi
cd "$root" || exit 2
[ -x "$build/syz" ] || misuse "$build holds no build: cmake --preset cuda && cmake --build build/cuda"
command -v "$luajit" >/dev/null || misuse "no $luajit: install LuaJIT, or name it in LUAJIT"
export LD_LIBRARY_PATH="$build${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" # a build that was moved finds its own library
export LUA_PATH="$root/lua/?.lua;$root/lua/?/init.lua;;" LUA_CPATH="$build/lua/?.so;;" SYZ_LUA=$root/lua
if [ "$device" != cpu ]; then
  obstacle=$("$luajit" -e 'io.write(require("syz.cuda").obstacle() or "")') || exit 2
  [ -z "$obstacle" ] || { echo "check.sh: no GPU can be used: $obstacle" >&2; exit 2; }
fi
rm -rf "$out/logs" && mkdir -p "$out/logs" || exit 2
rm -f "$out"/*.jsonl "$out/correctness.tsv"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The plan of seconds: 470 together, which leaves 10 for the table. A CPU may be busy with other things.
programs_limit=65 models_limit=25 curve_limit=45 ours_limit=120 eager_limit=70 compiled_limit=145
[ $size = full ] || programs_limit=600 models_limit=600 curve_limit=600 ours_limit=600

began=$SECONDS
say() { printf '%4d s  %s\n' $((SECONDS - began)) "$*"; }
record() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >>"$out/correctness.tsv"; say "$1: $2: $3"; }

# part WHAT SECONDS LOG COMMAND...: a part about correctness, whose last line of output is its detail.
part() {
  local what=$1 limit=$2 log=$out/logs/$3.log code
  shift 3
  timeout -k 5 "$limit" "$@" >"$log" 2>&1
  code=$?
  case $code in
    0) record PASS "$what" "$(tail -n 1 "$log")" ;;
    124 | 137) record "not finished" "$what" "within $limit s; $log" ;;
    *) record FAIL "$what" "$(grep -m 1 FAIL "$log" || tail -n 1 "$log"); $log" ;;
  esac
}

# timings WHAT SECONDS FILE COMMAND...: lines of JSON; those that are there when the time is over count.
timings() {
  local what=$1 limit=$2 file=$3 code
  shift 3
  timeout -k 5 "$limit" "$@" >"$out/$file.jsonl" 2>"$out/logs/$file.log"
  code=$?
  case $code in
    0) say "timings: $what" ;;
    124 | 137) say "timings: $what: not finished within $limit s" ;;
    *) say "timings: $what: $(tail -n 1 "$out/logs/$file.log")" ;;
  esac
}

# The C tests of operations, forward and backward. With SYZ_TEST_DEVICE they run there, and say so in a line "device NAME";
# a program that does not has tested the CPU.
one_program() {
  local name=$1 log=$out/logs/test_$1.log
  "$build/tests/test_$name" >"$log" 2>&1 || { echo "FAIL $name"; return; }
  if [ "$device" = cpu ] || grep -q "^device $device" "$log"; then echo "ok $name"; else echo "FAIL $name: ran on the CPU"; fi
}
programs() {
  local names
  if [ "$device" != cpu ]; then
    names=$(basename -a -s .c tests/ops/*.c)
  else
    names='norm matmul'
  fi
  if [ "$device" = cpu ]; then unset SYZ_TEST_DEVICE; else export SYZ_TEST_DEVICE=$device; fi
  # shellcheck disable=SC2086
  printf '%s\n' $names | xargs -P 4 -I{} bash -c 'one_program {}' | sort
  echo "$(wc -w <<<"$names") programs"
}
checked_programs() { programs | tee "$scratch/programs"; ! grep -q FAIL "$scratch/programs"; }
export -f one_program programs checked_programs
export build device out scratch

part "operations in C" $programs_limit programs bash -c checked_programs
part "models against committed tensors" $models_limit models "$luajit" tests/gpu/models.lua "$device" "$scratch"
if [ $size = full ]; then curve=(steps=8 batch=8 rollout=6); else curve=(steps=3 batch=4 rollout=3); fi
part "loss curve of SRPO" $curve_limit curve "$luajit" tests/gpu/curve.lua "$build/syz" "$device" "$scratch" \
  "${curve[@]}"
timings "this engine" $ours_limit ours "$luajit" tests/gpu/bench.lua "$device" $size "$scratch"
if [ -z "$python" ] || [ -n "$quick" ]; then
  say "timings: PyTorch: skipped"
elif ! "$python" -c 'import torch' 2>"$out/logs/torch.log"; then
  say "timings: PyTorch: skipped, since $python has no module torch"
else
  timings "PyTorch" $eager_limit eager "$python" tests/gpu/peer.py --device "$device" --size $size
  timings "PyTorch, compiled" $compiled_limit compiled "$python" tests/gpu/peer.py --device "$device" --size $size --compile
fi
"$luajit" tests/gpu/table.lua "$out" "$command"
code=$?
say "done"
exit $code
