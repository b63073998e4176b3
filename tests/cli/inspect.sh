#!/bin/sh
# show, why, plugins, doctor, tokenize: what a model is, before and after loading.
. tests/cli/lib.inc

check "show" exits 0 "$viv" show "$stories"
check "it counts the parameters" says "260.0 K"
check "it has a memory plan" says "per token of a sequence"
check "show --json" exits 0 "$viv" show --json "$stories"
check "show --json is JSON" json '.[0].weights.parameters > 250000 and .[0].plan != null'
check "show of nothing is not found" exits 3 "$viv" show no-such-model
check "it says where it looked" complains "zoo/models"
check "show of a missing path" exits 3 "$viv" show ./no/such/path
check "errors are JSON too" sh -c "'$viv' show --json no-such-model 2>/dev/null | jq -e .error.message"

check "why" exits 0 "$viv" why "$stories"
check "an arrow marks the plugin" says "^-> llama"
check "others have a reason" says "sambay .*architecture"
check "why --json" exits 0 "$viv" why --json "$stories"
check "why --json is JSON" json '.[0] | tostring | test("llama")'
mkdir "$tmp/alien"
echo '{"model_type": "alien", "architectures": ["Alien"]}' >"$tmp/alien/config.json"
check "why of a model that nobody serves" exits 3 "$viv" why "$tmp/alien"
check "run of it" exits 3 "$viv" run "$tmp/alien" hello
mkdir "$tmp/bare"
check "why without a config.json" exits 3 "$viv" why "$tmp/bare"

check "plugins" exits 0 "$viv" plugins
check "llama is there" says "^llama "
check "plugins --json" exits 0 "$viv" plugins --json
check "plugins --json is JSON" json '.[0] | tostring | test("sambay")'

check "doctor is content" exits 0 "$viv" doctor
check "it names the kernels" says "kernels"
check "it names the plugin folders" says "plugin folders"
check "doctor --json" exits 0 "$viv" doctor --json
check "doctor --json lists no problem" json '.[0].problems == []'
check "doctor without plugins" sh -c \
  "mkdir '$tmp/alone'; cp '$viv' '$tmp/alone/viv'; VIV_PLUGIN_PATH='$tmp/bare' '$tmp/alone/viv' doctor \
   >'$tmp/out'; test \$? -eq 1"
check "says what to do" says "VIV_PLUGIN_PATH"

check "tokenize" exits 0 "$viv" tokenize "$stories" "Once upon a time"
check "tokens and places are shown" says '403  0-4 .*Once"'
check "tokenize --json" exits 0 "$viv" tokenize --json "$stories" "Once upon a time"
check "the ids are right" json '.[0].ids == [1, 403, 407, 261, 378]'
check "without special tokens" exits 0 "$viv" tokenize --json --no-special "$stories" "Once upon a time"
check "no BOS then" json '.[0].ids == [403, 407, 261, 378]'
check "decode" exits 0 "$viv" tokenize --decode "$stories" "403, 407, 261 378"
check "it is the text" says "Once upon a time"
check "decode of words" exits 5 "$viv" tokenize --decode "$stories" "one two"
check "decode of an id beyond the vocabulary" exits 5 "$viv" tokenize --decode "$stories" 99999
check "a text from a pipe" sh -c "printf 'Once' | '$viv' tokenize --json '$stories' | jq -e '.ids[1] == 403'"
finish
