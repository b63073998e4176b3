#!/bin/sh
# Runs each fuzzer for the given seconds on a copy of its kept corpus. A finding is left in the build
# folder, named after the fuzzer, and fails the run. With a number of runs as third argument the inputs
# are the same each time, so that the same tree gets the same answer; the seconds are then only a limit.
set -u
build=$1 seconds=$2 runs=${3:-}
[ -z "$runs" ] || again="-seed=1 -runs=$runs"
passed=0 failed=0
for fuzzer in "$build"/fuzz/fuzz_*; do
  [ -x "$fuzzer" ] && [ -f "$fuzzer" ] || continue
  case $fuzzer in *.*) continue ;; esac
  name=$(basename "$fuzzer")
  corpus=$build/fuzz/corpus-$name
  [ -z "$runs" ] || rm -rf "$corpus"
  mkdir -p "$corpus"
  cp -r tests/fuzz/corpus/"${name#fuzz_}"/. "$corpus"/ 2>/dev/null
  if "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 \
    ${again:-} -artifact_prefix="$build/fuzz/$name-" "$corpus" >"$build/fuzz/$name.log" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $name: $(grep -c '' "$build/fuzz/$name.log") lines, $(sed -n 's/^Done \([0-9]*\) runs.*/\1 runs/p' "$build/fuzz/$name.log")"
  else
    failed=$((failed + 1))
    tail -40 "$build/fuzz/$name.log"
    echo "FAILED: $name"
  fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
