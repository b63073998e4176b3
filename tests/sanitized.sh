#!/bin/sh
# Runs what was built with a sanitizer: asan the unit tests and goldens, tsan the stress program.
set -u
build=$1
export VIV_TEST_PLUGINS=$build/plugins VIV_TEST_BAD=$build/badplugins VIV_TEST_BUILD=$build
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS="halt_on_error=0 exitcode=66 die_after_fork=0"
XDG_CACHE_HOME=$(mktemp -d)
export XDG_CACHE_HOME
log=$(mktemp)
# Criterion keeps a few bytes of its own when it runs tests side by side.
echo leak:libcriterion > "$XDG_CACHE_HOME/lsan"
export LSAN_OPTIONS=suppressions=$XDG_CACHE_HOME/lsan:print_suppressions=0
trap 'rm -rf "$XDG_CACHE_HOME" "$log"' EXIT
passed=0 failed=0
one() {
  name=$1
  shift
  if timeout 400 "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok: $name"
  else
    tail -c 6000 "$log"
    failed=$((failed + 1))
    echo "FAILED: $name"
  fi
}
if [ "$2" = tsan ]; then
  one "tsan stress" "$build/bench/stress" tests/models/stories260K 4
  one "tsan stress reasoner" "$build/bench/stress" zoo/models/sambay-reasoner 4
else
  # The validator's and the misbehaving plugins' tests break memory on purpose.
  for source in tests/unit/*.c; do
    name=$(basename "$source" .c)
    case $name in golden_ops | test_misbehave | test_validate) continue ;; esac
    one "$2 $name" "$build/tests/$name"
  done
  for case in tests/goldens/sambay/full-8-layers tests/goldens/llama/*; do
    case $case in */real-*) continue ;; esac # minutes, and nothing that the small ones leave out
    [ -d "$case" ] && one "$2 golden $case" "$build/viv" golden --quiet "$case"
  done
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
