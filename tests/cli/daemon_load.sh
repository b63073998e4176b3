#!/bin/sh
# The daemon under load and accidents at small sizes: every job has its one end, results are right, nothing
# leaks. Times are printed; none decides. VIV_BENCH_SCALE=10 takes the sizes of the goals.
. tests/cli/lib.inc

if nm "$build/vivd" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - the daemon under load # skipped: sanitized daemon"
  exit 0
fi
for row in mixed cancels cycles reload workers daemons overload silent; do
  check "the daemon under load: $row" \
    sh -c "VIV_TEST_BUILD='$build' timeout 120 '$build/bench/bench_daemon_load' $row >'$tmp/$row'"
  sed 's/^/#   /' "$tmp/$row"
done
finish
