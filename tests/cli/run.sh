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
check "the text to a file" exits 0 "$viv" run "$stories" "Once upon a time" -n 30 -o "$tmp/story"
check "it is there" grep -q "$story" "$tmp/story"
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
check "a broken config" sh -c \
  "mkdir '$tmp/broken'; echo '{' >'$tmp/broken/config.json'; '$viv' run '$tmp/broken' x; test \$? -eq 5"

# A tensor input: 1, 403, 407 as I64.
{
  printf '\110\000\000\000\000\000\000\000%-72s' \
    '{"input_ids":{"dtype":"I64","shape":[1,3],"data_offsets":[0,24]}}'
  printf '\001\000\000\000\000\000\000\000\223\001\000\000\000\000\000\000'
  printf '\227\001\000\000\000\000\000\000'
} >"$tmp/ids.safetensors"
forward="run $stories --task forward -i input_ids=$tmp/ids.safetensors"
check "forward writes tensors" exits 0 "$viv" $forward -o "$tmp/l.safetensors"
check "there is a file" test -s "$tmp/l.safetensors"
check "which can be an input again" exits 5 "$viv" run "$stories" --task forward \
  -i "input_ids=$tmp/l.safetensors:logits"
check "tensors are summarised" exits 0 "$viv" $forward
check "with type and shape" says "logits .*F32 \[1, 3, 512\]"
check "tensors as JSON" exits 0 "$viv" $forward --json -p logits_to_keep=1
check "with their data" json 'map(select(.event == "tensor"))[0].data | length == 512'
check "a tensor that the file lacks" exits 5 "$viv" run "$stories" --task forward \
  -i "input_ids=$tmp/ids.safetensors:none"

# Ctrl-C. Standard output is a pipe that is full and that nobody reads, so that the job is surely in
# the middle when the signal comes.
mkfifo "$tmp/fifo"
exec 3<>"$tmp/fifo"
head -c 65536 /dev/zero >&3
timeout --foreground --preserve-status -s INT -k 20 1 "$viv" run "$stories" "Once upon a time" -n 400 \
  --ignore-eos >&3 2>"$tmp/err" </dev/null
code=$?
exec 3>&-
check "Ctrl-C ends with 130" test $code -eq 130
check "it says so" complains cancelled
check "it names no other error" sh -c "test \$(wc -l <'$tmp/err') -eq 1"
check "a closed pipe ends it quietly" sh -c \
  "'$viv' run '$stories' 'Once upon a time' -n 400 --ignore-eos 2>'$tmp/err' | head -c 10 >/dev/null; \
   ! grep -q -i bug '$tmp/err'"
check "a full disk is a failure" sh -c "'$viv' run '$stories' Once -n 5 >/dev/full 2>/dev/null; test \$? -eq 1"

# On a terminal, progress lines must not wipe what was printed.
if command -v script >/dev/null; then
  script -qec "'$viv' run '$stories' 'Once upon a time' -n 8" /dev/null >"$tmp/tty" </dev/null
  check "a terminal shows the text unbroken" grep -q "there was a" "$tmp/tty"
fi

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
