#!/bin/sh
# viv score and viv quantize: what they print, what is written, what they refuse.
. tests/cli/lib.inc

# json_of EXPRESSION COMMAND...: the command's output is JSON for which the expression is true.
json_of() {
  expression=$1
  shift
  "$@" | jq -e "$expression" >/dev/null
}
model=tests/models/stories260K
text="Once upon a time there was a little girl named Lily. She liked to play in the park."

check "score says a perplexity" exits 0 "$viv" score $model "$text"
check "in words" says "perplexity"
check "score --json" exits 0 "$viv" score --json $model "$text"
check "is JSON with a guess per token" json '.[0] | (.argmax | length) == .tokens and .perplexity > 1'
cp "$tmp/out" "$tmp/score.json"
check "a text in a file counts the same" sh -c "printf %s '$text' >'$tmp/t' && '$viv' score --json -f '$tmp/t' $model | cmp -s - '$tmp/score.json'"
check "lines are texts of their own" sh -c "printf 'One day\nOne day\n' >'$tmp/t' && test \$('$viv' score --json -f '$tmp/t' --lines $model | jq '.argmax | .[:length/2] == .[length/2:]') = true"
check "an empty text is refused" exits 5 "$viv" score $model ""
check "a window of one token is refused" exits 2 "$viv" score --window 1 $model "$text"

check "quantize writes a checkpoint" exits 0 "$viv" quantize --json --dtype int8 --group row $model "$tmp/q8"
check "it says what it cost" json '.[0] | .perplexity_after / .perplexity_before < 1.05 and .bytes_after < .bytes_before / 3'
check "the tokenizer came along" test -s "$tmp/q8/tokenizer.json"
check "the model is what it was" sh -c "test \$('$viv' show --json '$tmp/q8' | jq .weights.parameters) = \$('$viv' show --json $model | jq .weights.parameters)"
check "its matrices are not" json_of '.weights.dtypes.INT8_ROW > 200000' "$viv" show --json "$tmp/q8"
check "norms are as they were" json_of '.weights.dtypes.F32 > 0' "$viv" show --json "$tmp/q8"
check "it runs" exits 0 "$viv" run -n 20 "$tmp/q8" "Once upon a time"
check "f32 of it is close to the original" sh -c "'$viv' score --json '$tmp/q8' '$text' | jq -e --slurpfile a '$tmp/score.json' '(.mean_nll - \$a[0].mean_nll) | fabs < 0.05'"
check "4 bits" exits 0 "$viv" quantize --json --dtype int4 $model "$tmp/q4"
check "4 bits with calibration" exits 0 sh -c "printf %s '$text' >'$tmp/t' && '$viv' quantize --json --dtype q4_0 --calibrate '$tmp/t' $model '$tmp/q4c'"
check "bf16" exits 0 "$viv" quantize --json --dtype bf16 $model "$tmp/b16"
check "a folder that holds something is left alone" exits 5 "$viv" quantize $model "$tmp/q8"
check "with a word on it" complains "new or empty"
check "there is no int3" exits 5 "$viv" quantize --dtype int3 $model "$tmp/q3"
check "there is no 4-bit row" exits 5 "$viv" quantize --dtype int4 --group row $model "$tmp/q3"
check "an absent model" exits 3 "$viv" quantize no-such-model "$tmp/q3"
check "--dtype of a run" exits 0 "$viv" run -n 5 --dtype int8 $model "Once upon a time"
check "--dtype knows its kinds" exits 5 "$viv" run -n 5 --dtype int3 $model "Once upon a time"
finish
