#!/bin/sh
# Verbs, options, help and exit codes of wrong command lines.
. tests/cli/lib.inc

check "no verb is a usage error" exits 2 "$viv"
check "it shows the verbs" complains "Verbs:"
check "an unknown verb is a usage error" exits 2 "$viv" lsit
check "it proposes a near one" complains 'did you mean "list"'
check "--help works" exits 0 "$viv" --help
check "it begins with an example" sh -c "head -1 '$tmp/out' | grep -q Example"
check "--version works" exits 0 "$viv" --version
check "version --json" exits 0 "$viv" version --json
check "version --json is JSON" json '.[0].abi_major == 1'

for verb in run chat list show why plugins tokenize session eval score embed fill classify encode decode quantize bench golden serve ps top load unload stop metrics logs replay doctor version; do
  check "$verb --help" exits 0 "$viv" $verb --help
  check "$verb --help begins with an example" sh -c "head -1 '$tmp/out' | grep -q '^Example:'"
  check "$verb --help names --json" says "--json"
  check "$verb refuses an unknown option" exits 2 "$viv" $verb --no-such-option
  check "$verb says how to go on" complains "viv $verb --help"
done
for verb in run chat show why tokenize session eval score embed fill classify encode decode quantize bench golden load unload; do
  check "$verb needs an argument" exits 2 "$viv" $verb
done
check "an option without its value" exits 2 "$viv" run --max-tokens
check "a number that is none" exits 2 "$viv" run MODEL --temp warm
check "a pair that is none" exits 2 "$viv" run MODEL --param chat
check "a value for a flag" exits 2 "$viv" run MODEL --raw=1
check "an argument too many" exits 2 "$viv" show a b
check "session wants save or resume" exits 2 "$viv" session load MODEL FILE
check "eval --jobs has a range" exits 2 "$viv" eval MODEL FILE --jobs 0
check "list --state knows three" exits 2 "$viv" list --state done
check "the output's failure is a failure" sh -c "'$viv' list >/dev/full 2>/dev/null; test \$? -eq 1"
check "a closed pipe does no harm" sh -c "'$viv' list | head -1 | grep -q system"
finish
