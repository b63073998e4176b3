#!/bin/sh
# Calls of the daemon and of its workers that fail: each of them, at many places. The daemon neither crashes nor
# hangs, whoever asks gets an answer or a reason, and the next one is served.
. tests/cli/lib.inc

if nm "$build/vivd" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - calls that fail # skipped: sanitized daemon"
  exit 0
fi
VIV_SOCKET=$tmp/vivd.sock
export VIV_SOCKET
places=${VIV_FAULT_PLACES:-1 5}
answer=$("$viv" run "$stories" Once -n 8 --local)

# attempt SIDE CALL N: one daemon, one fault, two questions. Prints what went wrong.
attempt() {
  rm -rf "$VIV_SOCKET" "$tmp/once" "$tmp/state"
  LD_PRELOAD=$build/tests/faults.so FAULT_ONCE=$tmp/once FAULT_IN=$1 FAULT=$2 FAULT_N=$3 \
    "$build/vivd" --state "$tmp/state" --plugins "$build/plugins" --log error 2>"$tmp/log" &
  server=$!
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -S "$VIV_SOCKET" ] && break
    sleep 0.05
  done
  # A runtime that finds no daemon loads the model itself: only ps would say that it is gone.
  timeout 20 "$viv" run "$stories" Once -n 8 >"$tmp/out" 2>"$tmp/err"
  code=$?
  [ $code -ne 124 ] || echo "$1, $2 at $3: the first question hangs"
  [ $code -lt 126 ] || echo "$1, $2 at $3: the client died: $code"
  [ $code -eq 0 ] || [ -s "$tmp/err" ] || echo "$1, $2 at $3: fails without a reason"
  [ $code -ne 0 ] || [ "$(cat "$tmp/out")" = "$answer" ] || echo "$1, $2 at $3: answers wrongly"
  kill -0 $server 2>/dev/null || echo "$1, $2 at $3: the daemon is gone: $(tail -1 "$tmp/log")"
  for _ in 1 2 3 4 5; do # the worker may be on its way back
    timeout 20 "$viv" run "$stories" Once -n 8 >"$tmp/out" 2>"$tmp/err" && break
    sleep 0.3
  done
  [ "$(cat "$tmp/out")" = "$answer" ] || echo "$1, $2 at $3: the next question fails: $(cat "$tmp/err")"
  # The connection that meets the fault may be this one.
  timeout 20 "$viv" ps >/dev/null 2>&1 || timeout 20 "$viv" ps >/dev/null 2>"$tmp/err" || echo "$1, $2 at $3: ps fails: $(cat "$tmp/err")"
  kill $server 2>/dev/null
  wait $server
  code=$?
  [ $code -lt 126 ] || echo "$1, $2 at $3: the daemon died: $code"
}

# Not read and write: libuv itself ends a process whose wake-up descriptors fail, and a plugin's file that can't be
# read is a plugin that is not there.
for side in daemon worker; do
  for call in malloc calloc realloc recvmsg recvmsg-eintr sendmsg sendmsg-eintr accept4 accept4-eintr mmap \
    read-eintr socketpair pipe2; do
    case $side:$call in worker:accept4* | worker:socketpair | worker:pipe2) continue ;; esac
    for n in $places; do attempt $side $call $n; done >"$tmp/wrong" 2>&1
    check "$side: $call fails" sh -c "! grep . '$tmp/wrong'"
  done
done
finish
