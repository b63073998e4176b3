#!/bin/sh
# The reasoner's card stays true: at least 95 % of the held-out questions overall and in every task.
. tests/cli/lib.inc

folder=zoo/models/sambay-reasoner
"$viv" eval --json $folder $folder/eval.jsonl >"$tmp/eval.json"
check "it was asked at least 2,000 questions" jq -e '.asked >= 2000 and .failed == 0' "$tmp/eval.json"
check "at least 95 % are right" jq -e '.accuracy >= 0.95' "$tmp/eval.json"
check "in every task" jq -e 'all(.tasks[]; .accuracy >= 0.95)' "$tmp/eval.json"
check "prompt-lookup answers the same" sh -c "
  for q in 'What is 345 + 1278?' 'What weekday was 14 March 1987?' '812 x 37 = ?'; do
    [ \"\$('$viv' run $folder \"\$q\")\" = \"\$('$viv' run --strategy prompt-lookup $folder \"\$q\")\" ] || exit 1
  done"
finish
