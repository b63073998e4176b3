#!/bin/sh
# The daemon from the shell: the same answers as without it, and its own verbs.
. tests/cli/lib.inc

VIV_SOCKET=$tmp/vivd.sock
export VIV_SOCKET
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null; rm -rf "$tmp"' EXIT

# The command succeeds within ten seconds.
soon() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.5
  done
  return 1
}

check "no daemon: ps says so" exits 4 "$viv" ps
check "and where it looked" complains "$VIV_SOCKET"
"$build/vivd" --state "$tmp/state" --plugins "$build/plugins" 2>"$tmp/log" &
server=$!
check "it listens" soon test -S "$VIV_SOCKET"
check "the socket is for the user and the group" sh -c "test \"\$(stat -c %a '$VIV_SOCKET')\" = 660"
check "a second daemon is refused" exits 1 "$build/vivd" --state "$tmp/state"
check "with the reason" complains "another daemon"

check "load" exits 0 "$viv" load sambay-reasoner
check "ps shows it" sh -c "'$viv' ps | grep -q 'sambay-reasoner *ready'"
check "ps --json" exits 0 "$viv" ps --json
check "it tells the sandbox" json '.[0].models[0].sandbox.no_new_privs'
same() {
  "$@" >"$tmp/there" 2>"$tmp/there.err" && "$@" --local >"$tmp/here" 2>"$tmp/here.err" && cmp "$tmp/here" "$tmp/there"
}
check "run answers the same" same "$viv" run sambay-reasoner "What is 345 + 1278?"
check "sampling with a seed too" same "$viv" run "$stories" "Once" --temp 0.8 --seed 3 -n 40
check "score too" same "$viv" score "$stories" "Once upon a time there was a dog."
check "embed too" same "$viv" embed "$stories" "Once upon a time"
# What comes by a pipe, several times as much as is on its way at once.
codec=tests/goldens/encodec/hf-24khz-tiny
i=0
while [ $i -lt 600 ]; do
  tail -c +45 "$codec/audio.wav"
  i=$((i + 1))
done >"$tmp/long.s16"
piped() {
  "$@" <"$tmp/long.s16" >"$tmp/there" 2>/dev/null && "$@" --local <"$tmp/long.s16" >"$tmp/here" 2>/dev/null &&
    test -s "$tmp/here" && cmp "$tmp/here" "$tmp/there"
}
check "sound from a pipe is encoded the same" piped "$viv" encode "$codec" - --pcm s16 --rate 24000 -o -
mv "$tmp/here" "$tmp/codes.vtok"
check "and decoded" same "$viv" decode "$codec" "$tmp/codes.vtok" -o - --format f32
tail -c +45 tests/goldens/silero-vad/speech-en-jit/audio.wav >"$tmp/long.s16"
check "speech is heard the same" piped "$viv" run zoo/models/silero-vad - --pcm s16 --rate 16000
check "they were heard there" sh -c "'$viv' ps --json | jq -e '[.models[] | select(.name == \"hf-24khz-tiny\" or .name == \"silero-vad\") | .done] | add >= 3'"
for verb in "why $stories" "show $stories" "plugins"; do
  # shellcheck disable=SC2086
  check "$verb answers the same" same "$viv" $verb
  # The daemon was told its plugin folders, this process looks in its own.
  check "$verb --json too" sh -c "'$viv' $verb --json | jq 'del(.folders)' >'$tmp/there' && '$viv' $verb --json --local | jq 'del(.folders)' | cmp - '$tmp/there'"
done
check "a worker was asked" sh -c "'$viv' logs | grep -c 'of no model' | xargs test 3 -le"
check "the jobs ran there" sh -c "'$viv' ps --json | jq -e '[.models[].done] | add >= 4'"
check "an error is the same" exits 5 "$viv" run "$stories" "x" -p top_p=7
cp "$tmp/err" "$tmp/err.there"
check "and locally" exits 5 "$viv" run "$stories" "x" -p top_p=7 --local
check "word for word" cmp "$tmp/err" "$tmp/err.there"
check "nothing that is no model is loaded" exits 5 "$viv" load "$tmp"

check "top looks twice" exits 0 "$viv" top --count 2
check "a header each" test "$(grep -c '^vivd ' "$tmp/out")" -eq 2
check "top --json" exits 0 "$viv" top --count 2 --json
check "a line each, with rates" json '[length == 2, (.[1].models[0] | has("tokens_per_s"))] | all'
check "top refuses nonsense" exits 5 "$viv" top --interval 0
"$viv" run "$stories" "Once" -n 4000 -p ignore_eos=true >/dev/null 2>&1 &
check "top shows tokens while they come" soon sh -c "'$viv' top --count 1 --json | jq -e '[.models[].tokens_per_s] | add > 0'"
wait $!
worker=$("$viv" ps --json | jq '.models[] | select(.name == "stories260K") | .pid')
kill -STOP "$worker"
"$viv" run "$stories" "Once" -n 40 >/dev/null 2>"$tmp/killed" &
check "a job runs" soon sh -c "'$viv' ps --json | jq -e '[.models[] | select(.name == \"stories260K\") | .running] | add > 0'"
kill -9 "$worker"
wait $!
check "the job of a killed worker fails" test $? -ne 0
file=$(sed -n 's/.*viv replay \([^ ]*\.job\).*/\1/p' "$tmp/killed" | head -1)
check "it names a file to run it again" test -s "$file"
check "for its user alone" test "$(stat -c %a "$file")" = 600
check "which says what it is" exits 0 "$viv" replay --show "$file"
check "with the model and the input" says "input text: text of 4 bytes"
check "it runs again" exits 0 "$viv" replay "$file"
cp "$tmp/out" "$tmp/again"
check "it would have said this" sh -c "'$viv' run '$stories' Once -n 40 --local | grep -q -F -f '$tmp/again'"
check "what is no job is refused" exits 5 "$viv" replay "$viv"
check "pin" exits 0 "$viv" load "$stories" --pin
check "ps says pinned" sh -c "'$viv' ps | grep 'stories260K' | grep -q pinned"
check "keep-alive" exits 0 "$viv" load sambay-reasoner --keep-alive 1
check "an idle model leaves" soon sh -c "'$viv' ps | grep -q 'sambay-reasoner *unloaded'"
check "a pinned one stays" sh -c "'$viv' ps | grep -q 'stories260K *ready'"
check "unload" exits 0 "$viv" unload "$stories"
check "it is gone" soon sh -c "'$viv' ps | grep -q 'stories260K *unloaded'"
check "unload knows what is not there" exits 3 "$viv" unload nothing-of-this-name
check "metrics" exits 0 "$viv" metrics
check "they count" says '^vivd_jobs_total{model="sambay-reasoner",id="1",outcome="ok"} 1$'
check "each family is announced once" sh -c "test -z \"\$(grep '^# TYPE' '$tmp/out' | sort | uniq -d)\""
check "logs" exits 0 "$viv" logs
check "every line is JSON" json 'map(.event) | index("listening") != null'
check "the level changes at run time" exits 0 "$viv" logs --level debug
check "to one that exists" exits 5 "$viv" logs --level loud
check "doctor sees it" sh -c "'$viv' doctor --json | jq -e '.daemon.running and .daemon.workers.no_new_privs'"
check "stop" exits 0 "$viv" stop
check "it ends by itself" soon sh -c "! kill -0 $server"
wait "$server"
check "well" test $? -eq 0
server=
check "no socket is left" test ! -e "$VIV_SOCKET"

timeout 60 "$viv" serve --log error 2>"$tmp/log" &
server=$!
check "viv serve listens" soon test -S "$VIV_SOCKET"
check "viv serve serves" exits 0 "$viv" run sambay-reasoner "What is 12 + 30?"
check "with that answer" says 42
check "and stops" exits 0 "$viv" stop
wait "$server"
server=
# What systemd is told: that it serves, that it is alive, that it ends.
python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
s.settimeout(20)
while True:
    told = s.recv(4096).decode()
    print(told, flush=True)
    if "STOPPING" in told: break' "$tmp/notify" >"$tmp/told" 2>/dev/null &
listener=$!
check "somebody listens as systemd does" soon test -S "$tmp/notify"
NOTIFY_SOCKET=$tmp/notify WATCHDOG_USEC=400000 "$build/vivd" --state "$tmp/state" --log error 2>"$tmp/log" &
server=$!
check "it tells when it serves" soon grep -q READY=1 "$tmp/told"
check "it tells that it is alive" soon sh -c "test \$(grep -c WATCHDOG=1 '$tmp/told') -ge 3"
check "it is stopped" exits 0 "$viv" stop
wait "$server"
server=
wait "$listener"
check "it tells that it ends" grep -q STOPPING=1 "$tmp/told"
if command -v systemd-socket-activate >/dev/null; then
  systemd-socket-activate -l "$VIV_SOCKET" "$build/vivd" --state "$tmp/state" 2>"$tmp/log" &
  server=$!
  check "a socket of systemd's is served" soon "$viv" ps
  check "it is said in the log" sh -c "'$viv' logs | grep -q passed"
  check "stop there" exits 0 "$viv" stop
  wait "$server"
  server=
  check "systemd's socket is not removed" test -S "$VIV_SOCKET"
else
  echo "ok - a socket of systemd's is served # skipped: systemd-socket-activate is absent"
fi
finish
