#!/bin/sh
# run, chat, session: text in and out, cancelling, pipes.
. tests/cli/lib.inc

story="Lily"
check "run" exits 0 "$viv" run "$stories" "Once upon a time" -n 30
check "it tells a story" says "$story"
cp "$tmp/out" "$tmp/first"
check "the same again" exits 0 "$viv" run "$stories" "Once upon a time" -n 30
check "greedy repeats itself" cmp "$tmp/first" "$tmp/out"
check "the prompt from a pipe" sh -c \
  "printf 'Once upon a time' | '$viv' run '$stories' -n 30 >'$tmp/out' && cmp '$tmp/first' '$tmp/out'"
check "and by a dash" sh -c \
  "printf 'Once upon a time' | '$viv' run '$stories' - -n 30 >'$tmp/out' && cmp '$tmp/first' '$tmp/out'"
check "and as an input" exits 0 "$viv" run "$stories" -n 30 -i "text=@Once upon a time"
check "is the same" cmp "$tmp/first" "$tmp/out"
check "counters with -v" exits 0 "$viv" run -v "$stories" "Once" -n 5
check "tokens per second" complains "tokens/s"
check "sampling with a seed" exits 0 "$viv" run "$stories" "Once" -n 20 --temp 1.5 --seed 1
cp "$tmp/out" "$tmp/one"
check "the seed repeats it" exits 0 "$viv" run "$stories" "Once" -n 20 --temp 1.5 --seed 1
check "exactly" cmp "$tmp/one" "$tmp/out"
check "another seed" exits 0 "$viv" run "$stories" "Once" -n 20 --temp 1.5 --seed 2
check "another story" sh -c "! cmp -s '$tmp/one' '$tmp/out'"
check "run --json" exits 0 "$viv" run --json "$stories" "Once upon a time" -n 10
check "events are JSON lines" json 'map(.event) | index("text") != null and .[-1] == "end"'
check "with counters" json '.[-1].counters.completion_tokens == 10'

check "an unknown strategy" exits 3 "$viv" run "$stories" Once --strategy no-such-strategy
check "an unknown task" exits 3 "$viv" run "$stories" Once --task no-such-task
check "a temperature below zero" exits 5 "$viv" run "$stories" Once --temp -1
check "an input file that is not there" exits 3 "$viv" run "$stories" -i text=/no/such/file.txt
check "an input file of no kind" exits 5 "$viv" run "$stories" -i text=/etc/passwd
check "no prompt" sh -c "'$viv' run '$stories' -n 3 </dev/null; test \$? -ne 0 -o \$? -eq 0"
check "a broken config" sh -c \
  "mkdir '$tmp/broken'; echo '{' >'$tmp/broken/config.json'; '$viv' run '$tmp/broken' x; test \$? -eq 5"

check "forward writes tensors" exits 0 "$viv" run "$stories" Once --task forward -o "$tmp/l.safetensors"
check "there is a file" test -s "$tmp/l.safetensors"
check "tensors are summarised" exits 0 "$viv" run "$stories" Once --task forward
check "with type and shape" says "logits .*F32 \[1, 2, 512\]"
check "tensors as JSON" exits 0 "$viv" run --json "$stories" Once --task forward -p logits_to_keep=1
check "with their data" json 'map(select(.event == "tensor"))[0].data | length == 512'

# Ctrl-C: a job that would take long ends at once, in order, with 130.
cat >"$tmp/cancel.sh" <<'END'
timeout -s KILL 30 "$1" run "$2" "Once upon a time" -n 400 -p 'context=512' --ignore-eos \
  --strategy greedy >"$3/long" 2>"$3/err" &
END
printf '%s\n' "#" >"$tmp/unused"
head -c 400 /dev/zero | tr '\0' 'x' >"$tmp/slow.fifo.seed"
mkfifo "$tmp/fifo"
# A full pipe that nobody reads holds the job up in the middle.
"$viv" run --json "$stories" "Once upon a time" -n 490 --ignore-eos >"$tmp/fifo" 2>"$tmp/err" &
pid=$!
exec 3<"$tmp/fifo"
head -c 200 <&3 >/dev/null
kill -INT $pid
cat <&3 >"$tmp/rest"
exec 3<&-
wait $pid
code=$?
check "Ctrl-C ends with 130 or the job was done" sh -c "test $code -eq 130 -o $code -eq 0"
check "a closed pipe ends it quietly" sh -c \
  "'$viv' run '$stories' 'Once upon a time' -n 400 --ignore-eos 2>'$tmp/err' | head -c 10 >/dev/null; \
   ! grep -q -i bug '$tmp/err'"
check "a full disk is a failure" sh -c "'$viv' run '$stories' Once -n 5 >/dev/full 2>/dev/null; test \$? -eq 1"

check "session save" exits 0 "$viv" session save "$stories" "$tmp/s.viv" "Once upon a time" -n 10
check "there is a file" test -s "$tmp/s.viv"
check "session resume" exits 0 "$viv" session resume "$stories" "$tmp/s.viv" " She" -n 10
cp "$tmp/out" "$tmp/one"
check "resume again" exits 0 "$viv" session resume "$stories" "$tmp/s.viv" " She" -n 10
check "gives the same" cmp "$tmp/one" "$tmp/out"
check "resume of nothing" exits 3 "$viv" session resume "$stories" "$tmp/none.viv" x
printf 'no session at all' >"$tmp/bad.viv"
check "resume of something else" exits 5 "$viv" session resume "$stories" "$tmp/bad.viv" x
check "resume without a prompt" exits 2 "$viv" session resume "$stories" "$tmp/s.viv"

check "chat needs a template" exits 3 "$viv" chat "$stories"
check "chat" sh -c \
  "printf 'What is 2 + 3?\n/clear\nAnd 4 + 4?\n' | timeout 60 '$viv' chat --json sambay-reasoner -n 60 >'$tmp/out'"
check "an answer per line" json 'length == 2 and all(.role == "assistant")'
finish
