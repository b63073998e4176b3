#!/bin/sh
# eval and bench.
. tests/cli/lib.inc

model=sambay-reasoner
cat >"$tmp/q.jsonl" <<'END'
{"task": "sum", "question": "12 + 30 = ?", "answer": "42"}
{"task": "sum", "question": "7 + 8 = ?", "answer": "15"}

{"task": "other", "question": "5 + 5 = ?", "answer": "surely not this"}
END
check "eval" exits 0 "$viv" eval $model "$tmp/q.jsonl" -n 60
check "it has a row per task" says "^other  *1  *0 "
check "and the sum" says "^all  *3 "
check "and tokens per second" says "tokens/s generated"
check "eval --json" exits 0 "$viv" eval --json $model "$tmp/q.jsonl" -n 60 --jobs 2
check "eval --json counts" json '.[0].asked == 3 and .[0].tasks.other.right == 0'
check "eval --limit" exits 0 "$viv" eval --json $model "$tmp/q.jsonl" -n 60 --limit 1
check "asks one" json '.[0].asked == 1'
check "wrong answers with -v" exits 0 "$viv" eval -v $model "$tmp/q.jsonl" -n 60
check "are shown" complains 'expected "surely not this"'
check "one job or many give the same" sh -c \
  "'$viv' eval --json $model '$tmp/q.jsonl' -n 60 -j 1 | jq '[.right, .completion_tokens]' >'$tmp/a'; \
   '$viv' eval --json $model '$tmp/q.jsonl' -n 60 -j 8 | jq '[.right, .completion_tokens]' >'$tmp/b'; \
   cmp '$tmp/a' '$tmp/b'"
check "a file that is not there" exits 3 "$viv" eval $model "$tmp/none.jsonl"
echo '{"question": "no answer"}' >"$tmp/bad.jsonl"
check "a line without an answer" exits 5 "$viv" eval $model "$tmp/bad.jsonl"
check "the line is named" complains "line 1"
: >"$tmp/empty.jsonl"
check "a file without questions" exits 5 "$viv" eval $model "$tmp/empty.jsonl"

for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat "$tmp/q.jsonl"; done >"$tmp/many.jsonl"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  cat "$tmp/many.jsonl" "$tmp/many.jsonl" "$tmp/many.jsonl"
done >"$tmp/long.jsonl"
timeout --foreground --preserve-status -s INT -k 20 0.5 "$viv" eval $model "$tmp/long.jsonl" --ignore-eos -n 400 \
  -j 4 >"$tmp/out" 2>"$tmp/err" </dev/null
code=$?
check "Ctrl-C ends eval with 130" test $code -eq 130
check "it says how far it came" complains "cancelled after"

check "bench" exits 0 "$viv" bench "$stories" -r 2 --prompt 64 --generate 8
check "prompt processing" says "| *pp128 |"
check "generation" says "| *tg8 |"
check "mean and deviation" says " ± "
check "bench --json" exits 0 "$viv" bench --json "$stories" -r 2 --prompt 64 --generate 8
check "bench --json has three tests" json '.[0].tests | map(.test) == ["pp128", "pp64", "tg8"]'
check "bench of nothing" exits 3 "$viv" bench no-such-model
finish
