#!/bin/sh
# Jobs of a NATS JetStream work queue while the server, the daemon, its bridge and its worker are killed: each
# result once, also those that are objects of several MB. VIV_NATS_JOBS_TOTAL (2000), VIV_NATS_KILLS (8) and
# VIV_NATS_LARGE (3) say how many; the goal is 10000 and 20.
. tests/cli/lib.inc

if nm "$build/vivd" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - jobs through NATS # skipped: sanitized daemon"
  exit 0
fi
PATH=$PATH:/usr/sbin
check "nats-server is installed" command -v nats-server
check "nothing is lost or doubled" \
  sh -c "timeout 290 '$build/tests/nats_jobs' '$build' '${VIV_NATS_JOBS_TOTAL:-2000}' '${VIV_NATS_KILLS:-8}' '${VIV_NATS_LARGE:-3}' >'$tmp/nats'"
sed 's/^/#   /' "$tmp/nats"
check "vivd-nats says how it is run" exits 2 "$build/vivd-nats"
finish
