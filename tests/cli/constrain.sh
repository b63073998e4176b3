#!/bin/sh
# Answers by a schema or a grammar, log probabilities, beams, seeds; and the listed golden cases.
. tests/cli/lib.inc
model=$stories

check "the kept lists hold" exits 0 "$viv" golden --quiet tests/goldens/sampling/* \
  tests/goldens/grammar/* tests/goldens/strategies/*
cp -r tests/goldens/grammar/json-schema "$tmp/changed"
chmod -R u+w "$tmp/changed"
jq '.cases[0].accept += ["5"] | .cases[1].reject += ["7"]' tests/goldens/grammar/json-schema/cases.json \
  >"$tmp/changed/cases.json"
check "a changed one does not" exits 1 "$viv" golden "$tmp/changed"
check "the entry, expected and got are shown" says 'cases\[0\] .*5: expected accepted got refused'

cat >"$tmp/schema.json" <<'X'
{"type": "object", "properties": {"name": {"type": "string", "maxLength": 8},
 "n": {"type": "integer", "minimum": 3, "maximum": 20}}, "required": ["name", "n"]}
X
for strategy in $(jq -r '.strategies[]' plugins/strategies/manifest.json); do
  for seed in 5 6; do
    check "an answer by a schema, $strategy, seed $seed" sh -c \
      "'$viv' run --strategy $strategy --temp 1 --seed $seed --schema '$tmp/schema.json' $model Once >'$tmp/out'"
    check "parses and is valid" jq -e \
      '(.name | type == "string" and length <= 8) and .n >= 3 and .n <= 20' "$tmp/out"
  done
done
check "greedy under a schema" exits 0 "$viv" run --schema "$tmp/schema.json" $model Once
cp "$tmp/out" "$tmp/greedy"
check "drafts under a schema" exits 0 "$viv" run --strategy prompt-lookup --schema "$tmp/schema.json" $model Once
check "are lossless" cmp "$tmp/greedy" "$tmp/out"
check "two beams" exits 0 "$viv" run -p num_beams=2 --schema "$tmp/schema.json" $model Once
check "answer by the schema" jq -e '.n >= 3 and .n <= 20' "$tmp/out"
check "beams with too few tokens are an error" exits 5 "$viv" run -n 3 -p num_beams=4 --schema "$tmp/schema.json" $model Once
check "by name, too" complains "max_new_tokens"
check "a stop text would cut the answer" exits 5 "$viv" run --stop , --schema "$tmp/schema.json" $model Once
check "and is refused" complains "at stop"
check "too few tokens are an error" exits 5 "$viv" run -n 3 --schema "$tmp/schema.json" $model Once
check "by name" complains "max_new_tokens"
echo '{"type": "strng"}' >"$tmp/bad.json"
check "no schema" exits 5 "$viv" run --schema "$tmp/bad.json" $model Once
check "is refused by keyword" complains "at type"
echo 'root ::= [A-Z] [a-z]{3,5} " is " ("big" | "small") "."' >"$tmp/rule.gbnf"
check "an answer by a grammar" sh -c "'$viv' run --grammar '$tmp/rule.gbnf' $model Once >'$tmp/out'"
check "obeys it" grep -Eqx '[A-Z][a-z]{3,5} is (big|small)\.' "$tmp/out"
echo 'root ::= root "a" | "b"' >"$tmp/left.gbnf"
check "left recursion is refused" exits 5 "$viv" run --grammar "$tmp/left.gbnf" $model Once
for end in "" --ignore-eos; do
  check "beams by a grammar $end" exits 0 "$viv" run $end -p num_beams=4 --grammar "$tmp/rule.gbnf" $model Once
  check "obey it" grep -Eqx '[A-Z][a-z]{3,5} is (big|small)\.' "$tmp/out"
done
# One seed, one text: on every set of kernels that this machine has.
check "a seed" sh -c "'$viv' run --temp 0.9 --seed 42 -n 60 $model 'Once upon' >'$tmp/seeded'"
for cpu in portable avx2 avx512; do
  VIV_CPU=$cpu "$viv" run --temp 0.9 --seed 42 -n 60 $model 'Once upon' >"$tmp/out" 2>"$tmp/err" ||
    { complains "instruction set" >/dev/null && continue; }
  check "gives the same text with $cpu" cmp "$tmp/seeded" "$tmp/out"
done
check "another seed" sh -c "'$viv' run --temp 0.9 --seed 43 -n 60 $model 'Once upon' >'$tmp/out'"
check "another one" sh -c "! cmp -s '$tmp/seeded' '$tmp/out'"
check "top log probabilities" sh -c \
  "'$viv' run --json -n 3 -p top_logprobs=2 $model Once | jq -s '.' >'$tmp/out'"
check "are there for every token" jq -e '[.[] | select(.name == "top_logprobs")][0]
  | .shape == [1, 3, 2] and (.data | map(. <= 0) | all)' "$tmp/out"
finish
