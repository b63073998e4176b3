#!/bin/sh
# viv chat on a terminal, as a person uses it: lines edited and recalled, messages of several lines,
# commands, Ctrl-C that stops an answer and keeps the session, the rate of tokens.
. tests/cli/lib.inc
command -v python3 >/dev/null || {
  echo "ok - skipped: no python3 to play the terminal"
  finish
}
mkdir "$tmp/story"
for f in "$stories"/*; do ln -s "$(realpath "$f")" "$tmp/story/"; done
echo '{{ messages[-1].content }}' >"$tmp/story/chat_template.jinja"

# A script is a list of steps: send "text", wait for "text", both with escapes as in Python.
cat >"$tmp/terminal.py" <<'END'
import ast, os, pty, select, sys, time
steps = [line.split(" ", 1) for line in open(sys.argv[1]).read().splitlines() if line]
pid, fd = pty.fork()
if not pid:
    os.environ["TERM"] = "xterm"
    os.execv(sys.argv[2], sys.argv[2:])
seen = b""
def until(what, seconds=60):
    global seen
    end = time.time() + seconds
    while what not in seen:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.time()))
        if not ready: sys.exit("no %r in %r" % (what, seen[-2000:]))
        try: seen += os.read(fd, 4096)
        except OSError: sys.exit("ended without %r: %r" % (what, seen[-2000:]))
    seen = seen[seen.index(what) + len(what):]
for action, text in steps:
    text = ast.literal_eval("b" + text)
    if action == "send": os.write(fd, text)
    else: until(text)
end = time.time() + 20
while time.time() < end:
    try: data = os.read(fd, 4096)
    except OSError: break
    if not data: break
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
END
session() { # NAME, viv's arguments; the steps are the standard input
  name=$1
  shift
  cat >"$tmp/steps"
  check "$name" timeout 120 python3 "$tmp/terminal.py" "$tmp/steps" "$viv" chat "$@"
}

session "Ctrl-C stops an answer, the session goes on" --ignore-eos -n 100000 "$tmp/story" <<END
wait "/help lists commands"
wait "> "
send "Once upon a time\r"
wait " the "
send "\x03"
wait "cancelled; the answer so far is kept"
wait "> "
send "/params max_new_tokens=5\r"
wait "max_new_tokens=5"
wait "> "
send "Onec\x7f\x7fce more\r"
wait "[5 tokens, "
wait "tokens/s]"
wait "> "
send "/save $tmp/first.json\r"
wait "saved "
wait "> "
send "\x04"
END
check "with the answer that was cut" jq -e '[.messages[].role] == ["user", "assistant", "user", "assistant"]
  and (.messages[1].content | contains(" the ")) and .messages[2].content == "Once more"
  and .params.max_new_tokens == 5' "$tmp/first.json"

session "lines are recalled, messages have several lines, Ctrl-C drops a line" -n 4 "$tmp/story" <<END
wait "> "
send "Once upon a time\r"
wait "[4 tokens, "
wait "> "
send "a line that is given up\x03"
wait "> "
send "\x1b[A\r"
wait "[4 tokens, "
wait "> "
send "\"\"\"\r"
wait ". "
send "Two\r"
wait ". "
send "lines\"\"\"\r"
wait "[4 tokens, "
wait "> "
send "and a \\\\\r"
wait ". "
send "third\r"
wait "[4 tokens, "
wait "> "
send "/save $tmp/second.json\r"
wait "saved "
wait "> "
send "/exit\r"
END
check "as they were meant" jq -e '[.messages[] | select(.role == "user").content]
  == ["Once upon a time", "Once upon a time", "Two\nlines", "and a \nthird"]' "$tmp/second.json"

session "a saved conversation is resumed" -n 3 "$tmp/story" <<END
wait "> "
send "/resume $tmp/first.json\r"
wait "4 messages"
wait "> "
send "/params\r"
wait "max_new_tokens=5"
wait "> "
send "/undo\r"
wait "> "
send "Once again\r"
wait "[5 tokens, "
wait "> "
send "/resume $tmp/none.json\r"
wait "none.json"
wait "> "
send "/sav $tmp/x.json\r"
wait "/help"
wait "> "
send "/save $tmp/third.json\r"
wait "saved "
wait "> "
send "\x04"
END
check "with what was said" jq -e --slurpfile first "$tmp/first.json" '.messages[:2] == $first[0].messages[:2]
  and .messages[2].content == "Once again" and (.messages | length) == 4' "$tmp/third.json"
finish
