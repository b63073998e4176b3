#!/bin/sh
# Conversations: commands, messages of several lines, files; and the golden cases of chat templates.
# terminal.sh is the same on a terminal.
. tests/cli/lib.inc

check "the kept chat templates hold" exits 0 "$viv" golden --quiet tests/goldens/chat-template/*
cp -r tests/goldens/chat-template/mask "$tmp/mask"
jq '.cases[0].expected |= "x" + . | .cases[1].generation_spans = [[1, 2]]' \
  tests/goldens/chat-template/mask/cases.json >"$tmp/mask/cases.json"
check "a changed one does not" exits 1 "$viv" golden "$tmp/mask"
check "the entry, expected and got are shown" says 'cases\[0\] .*expected "x<user>.* got "<user>'
check "spans too" says 'cases\[1\] .*expected "\[\[1,2\]\]" got "\[\[50,55\]\]"'

talk() {
  printf "$1" | timeout 60 "$viv" chat --json -n 40 sambay-reasoner >"$tmp/out" 2>"$tmp/err"
}
check "a question" talk 'What is 2 + 3?\n'
check "is answered" json '.[0].role == "assistant" and (.[0].content | test("5"))'
check "commands between questions" talk '/params temperature=0 max_new_tokens=40\nWhat is 2 + 3?\n/undo\n/params\nWhat is 4 + 4?\n/save '"$tmp"'/talk.json\n/exit\nnever\n'
check "parameters are shown" complains "^max_new_tokens=40"
check "the file holds what was not taken back" jq -e \
  '.messages | length == 2 and .[0].content == "What is 4 + 4?"' "$tmp/talk.json"
check "a saved conversation goes on" talk "/resume $tmp/talk.json\\nWhat is 1 + 1?\\n/save $tmp/more.json\\n"
check "with all messages" jq -e '.messages | length == 4' "$tmp/more.json"
check "a system message" talk "/system Be brief.\\n/save $tmp/system.json\\n"
check "comes first" jq -e '.messages[0] == {role: "system", content: "Be brief."}' "$tmp/system.json"
check "lines that go on" talk 'What is \\\n2 + 3?\n"""\nWhat is\n2 + 3?\n"""\n/save '"$tmp"'/lines.json\n'
check "are one message" jq -e '[.messages[] | select(.role == "user").content]
  == ["What is \n2 + 3?", "What is\n2 + 3?"]' "$tmp/lines.json"
check "an unknown command" sh -c "printf '/sav x\n' | '$viv' chat sambay-reasoner 2>'$tmp/err'; test \$? -eq 5"
check "is no question" complains "no command /sav"
check "/reset" talk "What is 2 + 3?\\n/reset\\n/save $tmp/reset.json\\n"
check "forgets" jq -e '.messages == []' "$tmp/reset.json"
echo '{"a": 1}' >"$tmp/other.json"
check "another file is refused" sh -c \
  "printf '/resume $tmp/other.json\n' | '$viv' chat sambay-reasoner 2>'$tmp/err'; test \$? -eq 5"
check "by name" complains "no conversation"

# A model without a template, and with a small one of its own.
check "no template" exits 3 "$viv" chat "$stories"
mkdir "$tmp/story"
for f in "$stories"/*; do ln -s "$(realpath "$f")" "$tmp/story/"; done
echo '{{ messages[-1].content }}' >"$tmp/story/chat_template.jinja"
check "chat_template.jinja is read" sh -c \
  "echo 'Once upon a time' | timeout 60 '$viv' chat -n 8 '$tmp/story' >'$tmp/out'"
check "and used" sh -c "test -s '$tmp/out'"
echo '{% include "x" %}' >"$tmp/story/chat_template.jinja"
check "a template that can't be served" exits 3 "$viv" chat "$tmp/story"
check "is refused with its place" complains 'chat_template.jinja, line 1, column 4: .*include'
echo '{{ messages[-1].content }}' >"$tmp/story/chat_template.jinja"
finish
