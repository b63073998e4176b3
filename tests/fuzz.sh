#!/bin/sh
# Runs each fuzzer for the given seconds on a copy of its kept corpus. A finding is left in the build
# folder, named after the fuzzer, and fails the run.
set -u
build=$1 seconds=$2
passed=0 failed=0
for fuzzer in "$build"/fuzz/fuzz_*; do
  [ -x "$fuzzer" ] && [ -f "$fuzzer" ] || continue
  case $fuzzer in *.*) continue ;; esac
  name=$(basename "$fuzzer")
  corpus=$build/fuzz/corpus-$name
  mkdir -p "$corpus"
  cp -r tests/fuzz/corpus/"${name#fuzz_}"/. "$corpus"/ 2>/dev/null
  if "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 \
    -artifact_prefix="$build/fuzz/$name-" "$corpus" >"$build/fuzz/$name.log" 2>&1; then
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
