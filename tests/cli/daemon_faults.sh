#!/bin/sh
# Calls that fail in the daemon, in its workers and in its clients: each of them, at many places. The daemon neither
# crashes nor hangs, whoever asks gets an answer or a reason, and the next one is served. VIV_FAULT_PLACES=all tries
# every place there is, once each (an hour); VIV_FAULT_SIDES and VIV_FAULT_CALLS choose among them.
. tests/cli/lib.inc

if nm "$build/vivd" 2>/dev/null | grep -q -e __asan_init -e __tsan_init; then
  echo "ok - calls that fail # skipped: sanitized daemon"
  exit 0
fi
XDG_CACHE_HOME=$tmp/cache VIV_SOCKET=$tmp/vivd.sock VIV_PLUGIN_PATH=$tmp/plugins FAULT_HIT=$tmp/hit FAULT_ONCE=$tmp/once
export XDG_CACHE_HOME VIV_SOCKET VIV_PLUGIN_PATH FAULT_HIT FAULT_ONCE
mkdir "$tmp/plugins"
for plugin in llama strategies; do
  cp "$build/plugins/$plugin.so" "$build/plugins/$plugin.json" "$tmp/plugins"
done
answer=$("$viv" run "$stories" Once -n 8 --local)

# serve COMMAND...: the daemon, started by it, listens.
serve() {
  rm -rf "$VIV_SOCKET" "$tmp/state"
  "$@" "$build/vivd" --state "$tmp/state" --plugins "$tmp/plugins" --log error 2>"$tmp/log" &
  server=$!
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
    [ ! -S "$VIV_SOCKET" ] || break
    kill -0 $server 2>/dev/null || break
    sleep 0.05
  done
}

# asks: a question that must be answered right, or fail with a reason.
asks() {
  timeout 20 "$@" "$viv" run "$stories" Once -n 8 >"$tmp/out" 2>"$tmp/err"
  code=$?
  [ $code -ne 124 ] || echo "hangs"
  [ $code -eq 124 ] || [ $code -lt 126 ] || echo "the client died: $code"
  [ $code -eq 0 ] || [ -s "$tmp/err" ] || echo "fails without a reason"
  [ $code -ne 0 ] || [ "$(cat "$tmp/out")" = "$answer" ] || echo "answers wrongly: $(cat "$tmp/out")"
}

stops() {
  kill $server 2>/dev/null
  wait $server
  code=$?
  [ $code -lt 126 ] || echo "the daemon died: $code $(tail -1 "$tmp/log")"
}

# attempt SIDE CALL HOW N: one daemon, one fault, some questions. Prints what went wrong.
attempt() {
  rm -f "$tmp/once" "$tmp/hit"
  fault="env LD_PRELOAD=$build/tests/faults.so FAULT_IN=$1 FAULT=$2 $3=$4"
  if [ "$1" = client ]; then
    asks $fault
    kill -0 $server 2>/dev/null || echo "the daemon is gone: $(tail -1 "$tmp/log")"
    return
  fi
  serve $fault
  if ! kill -0 $server 2>/dev/null; then # it may say that it can't start
    wait $server
    code=$?
    # libuv aborts when its first pipe or table can't be made: there is no daemon either way.
    ! grep -q -e uv_loop_init -e uv_poll_start "$tmp/hit" || return
    [ $code -lt 126 ] || echo "it died at its start: $code"
    [ -s "$tmp/log" ] || echo "it does not start and gives no reason"
    return
  fi
  asks # a runtime that finds no daemon loads the model itself: only kill -0 and ps say that it is gone
  kill -0 $server 2>/dev/null || echo "the daemon is gone: $(tail -1 "$tmp/log")"
  for _ in 1 2 3 4 5; do # the worker may be on its way back
    timeout 20 "$viv" run "$stories" Once -n 8 >"$tmp/out" 2>"$tmp/err" && break
    sleep 0.3
  done
  [ "$(cat "$tmp/out")" = "$answer" ] || echo "the next question fails: $(cat "$tmp/err")"
  # The connection that meets the fault may be this one.
  timeout 20 "$viv" ps >/dev/null 2>&1 || timeout 20 "$viv" ps >/dev/null 2>"$tmp/err" || echo "ps fails: $(cat "$tmp/err")"
  stops
}

# places SIDE CALL HOW N...: the faults that are told; for "all", until a place is not reached any more.
places() {
  side=$1 call=$2 how=$3
  shift 3
  [ "$side" != client ] || serve env
  n=0 tried=0
  while :; do
    if [ "$how" = FAULT_SITE ]; then n=$((n + 1)); else
      [ $# -gt 0 ] || break
      n=$1
      shift
    fi
    attempt "$side" "$call" "$how" "$n" >"$tmp/attempt" 2>&1
    grep -v -e Terminated -e '^$' "$tmp/attempt" >"$tmp/found"
    if [ -s "$tmp/found" ]; then
      sed "s/^/$side, $call at $n: /" "$tmp/found"
      sed 's/^/  /' "$tmp/hit" 2>/dev/null
    fi
    [ "$how" != FAULT_SITE ] || [ -s "$tmp/hit" ] || break
    tried=$((tried + 1))
  done >"$tmp/wrong"
  [ "$side" != client ] || stops >>"$tmp/wrong"
  [ "$how" != FAULT_SITE ] || echo "# $side: $call: $tried places"
  check "$side: $call fails" sh -c "! grep . '$tmp/wrong'"
}

calls="malloc calloc realloc open eventfd dup thread read write read-eintr write-eintr recvmsg recvmsg-eintr sendmsg
  sendmsg-eintr mmap memfd_create ftruncate socketpair pipe2 accept4 accept4-eintr"
if [ "${VIV_FAULT_PLACES:-}" = all ]; then
  for side in ${VIV_FAULT_SIDES:-client daemon worker}; do
    for call in ${VIV_FAULT_CALLS:-$calls}; do places $side $call FAULT_SITE; done
  done
  finish
fi
for side in client daemon worker; do
  for call in $calls; do
    # Plain read and write: libuv ends a process whose wake-up descriptors fail, which no kernel does.
    case $side:$call in
    worker:accept4* | worker:socketpair | worker:pipe2 | client:accept4* | client:pipe2 | *:read | *:write) continue ;;
    esac
    places $side $call FAULT_N ${VIV_FAULT_PLACES:-1 5}
  done
  # Storms: every third time.
  for call in read-eintr write-eintr recvmsg-eintr sendmsg-eintr; do places $side $call FAULT_EVERY 3; done
done
finish
