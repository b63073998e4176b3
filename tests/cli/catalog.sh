#!/bin/sh
# viv list, and the README table that is made from it.
. tests/cli/lib.inc

check "list" exits 0 "$viv" list
check "it names SambaY" says "SambaY"
check "71 systems" sh -c "test \$(grep -c '^ *[0-9][0-9]*  ' '$tmp/out') -eq 71"
check "list --state verified" exits 0 "$viv" list --state verified
check "SambaY is verified" says "SambaY.*verified"
check "planned ones are left out" sh -c "! grep -q planned '$tmp/out'"
check "list --json" exits 0 "$viv" list --json
check "list --json is the catalogue" json '.[0].systems | length == 71'
check "list --markdown" exits 0 "$viv" list --markdown
check "it is a table" says "^| 1 | SambaY"
check "list --models" exits 0 "$viv" list --models
check "the reasoner is in the zoo" says "^sambay-reasoner "
check "list --models --json" exits 0 "$viv" list --models --json
check "it holds paths" json '.[0] | map(.path) | length >= 1'

printf 'a\n<!-- catalogue -->\nold\n<!-- /catalogue -->\nb\n' >"$tmp/readme"
check "table.sh fills a file" sh zoo/table.sh "$viv" "$tmp/readme"
check "what was there is replaced" sh -c "! grep -q old '$tmp/readme' && grep -q SambaY '$tmp/readme'"
check "the rest stays" sh -c "head -1 '$tmp/readme' | grep -q a && tail -1 '$tmp/readme' | grep -q b"
check "table.sh --check agrees" sh zoo/table.sh "$viv" --check "$tmp/readme"
printf 'nothing\n' >"$tmp/plain"
check "a file without marks is refused" sh -c "! sh zoo/table.sh '$viv' '$tmp/plain' 2>/dev/null"
mkdir "$tmp/empty"
if [ ! -e /usr/local/share/vivarium/catalog.json ]; then # an installed one would be found
  check "without a catalogue: not found" sh -c \
    "cp '$viv' '$tmp/empty/viv'; VIV_ZOO='$tmp/empty' '$tmp/empty/viv' list 2>'$tmp/err'; test \$? -eq 3"
  check "it says where it looked" complains "$tmp/empty/catalog.json"
fi
finish
