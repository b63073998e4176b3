#!/bin/sh
# What a null job (a tensor of one number comes back) costs through each language's package, in this process:
# languages.sh BUILD. bench_overhead has the same in C.
set -eu
build=$(cd "$1" && pwd)
model=$(mktemp -d)
trap 'rm -rf "$model"' EXIT
echo '{"model_type": "test-good"}' >"$model/config.json"
sh tests/languages/build.sh "$build" >/dev/null
export VIV_LIBRARY="$build/libvivarium.so" LD_LIBRARY_PATH="$build" VIV_PLUGIN_PATH="$build/badplugins"
n=${VIV_BENCH_JOBS:-20000} here=tests/bench/null_jobs
PYTHONPATH=abi/python PYTHONDONTWRITEBYTECODE=1 python3 $here/null_jobs.py "$model" "$n"
LUA_PATH=abi/lua/?.lua luajit $here/null_jobs.lua "$model" "$n"
"$build/rust/release/null_jobs" "$model" "$n"
"$build/go/null_jobs" "$model" "$n"
