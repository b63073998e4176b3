#!/bin/sh
# viv run on recordings: classes by name, units, text; one object per recording.
. tests/cli/lib.inc

wav=tests/goldens/beats/finetuned-tiny/audio.wav
beats=tests/data/beats/finetuned.pt
check "classes of a recording" exits 0 "$viv" run "$beats" "$wav"
check "by AudioSet's names" says "^0\.[0-9]*  Dog$"
check "the likeliest first" sh -c "sort -rc '$tmp/out'"
check "as JSON" exits 0 "$viv" run --json "$beats" "$wav" "$wav"
check "an object per recording" json 'length == 2 and .[0] == .[1] and .[0].classes[1].label == "Dog"'
check "names from a file" sh -c "printf 'a\nb\nc\n' >'$tmp/names'"
check "are taken" exits 0 "$viv" run --labels "$tmp/names" "$beats" "$wav"
check "instead" says "  b$"
check "into a file" exits 0 "$viv" run -o "$tmp/classes.json" "$beats" "$wav"
check "which is JSON" jq -e '.task == "classify"' "$tmp/classes.json"
check "tensors into a file" exits 0 "$viv" run -o "$tmp/p.safetensors" "$beats" "$wav"
check "which is there" test -s "$tmp/p.safetensors"
check "codes" exits 0 "$viv" run tests/goldens/beats/tokenizer-tiny "$wav"
check "are numbers on a line" sh -c "test \$(wc -l <'$tmp/out') -eq 1 && grep -qE '^[0-9 ]+$' '$tmp/out'"
check "codes as JSON" exits 0 "$viv" run --format json tests/goldens/beats/tokenizer-tiny "$wav"
check "are a list" json '.[0].audio_codes | length == 48'
check "text" exits 0 "$viv" run tests/goldens/wav2vec2/ctc-stable-tiny "$wav"
check "is letters" says "^[A-Z<>/s' ]*$"
cp "$tmp/out" "$tmp/printed"
check "text into a file" exits 0 "$viv" run -o "$tmp/said.txt" tests/goldens/wav2vec2/ctc-stable-tiny "$wav"
check "the same" cmp "$tmp/said.txt" "$tmp/printed"
check "another task by name" exits 0 "$viv" run --task forward tests/goldens/hubert/base-tiny "$wav"
check "gives tensors" says "^last_hidden_state"
check "one of two is missing" exits 11 "$viv" run "$beats" "$wav" "$tmp/none.wav"
check "which is named" complains "none.wav"
printf 'RIFF' >"$tmp/cut.wav"
check "a damaged recording" exits 5 "$viv" run "$beats" "$tmp/cut.wav"
tts=tests/goldens/speecht5/tts vocoder=tests/goldens/hifigan/speecht5-vocoder
said="-i input_ids=$tts/inputs.safetensors:input_ids -i speaker_embeddings=$tts/inputs.safetensors:speaker_embeddings"
check "speech from a text" exits 0 "$viv" run "$tts" $said -p maxlenratio=4 --vocoder "$vocoder" -o "$tmp/said.wav"
check "is a recording" sh -c "head -c 4 '$tmp/said.wav' | grep -q RIFF"
check "of the vocoder's rate" sh -c "od -An -tu4 -j24 -N4 '$tmp/said.wav' | grep -qw 16000"
check "without a vocoder" exits 3 "$viv" run "$tts" $said -p maxlenratio=4 -o "$tmp/none.wav"
check "it is asked for" complains "vocoder"
check "another voice" exits 0 "$viv" run tests/goldens/speecht5/vc "$wav" -p maxlenratio=0.1 \
  -i speaker_embeddings=tests/goldens/speecht5/vc/inputs.safetensors:speaker_embeddings -o "$tmp/vc.safetensors"
check "gives a spectrogram" test -s "$tmp/vc.safetensors"
check "speech to text" exits 0 "$viv" run tests/goldens/speecht5/asr "$wav"
heard=$tmp/whisper
mkdir "$heard"
cp tests/goldens/whisper/tiny/*.json tests/goldens/whisper/tiny/model.safetensors tests/data/whisper/tokenizer.json "$heard"
listen="$viv run --json -p max_new_tokens=14 -p language=\"en\" $heard tests/goldens/whisper/tiny/audio.wav"
check "Whisper writes what it hears" exits 0 $listen -p temperature=0 -p return_timestamps=true
check "in segments one after another" json '.[0].segments | length > 0 and
  all(.[]; .text != "" and .end >= .start) and [.[].start] == ([.[].start] | sort)'
check "and says when each word is spoken" exits 0 $listen -p temperature=0 -p word_timestamps=true
# The times and probabilities of these tokens by transformers' median filter and time warping.
check "as transformers does" json '.[0].segments[0].words | map([.word, .start, .end]) ==
  [[";", 0, 0], [";", 0, 0], [";uJ", 0, 0.06], [";UeJIIKe", 0.06, 0.84]] and
  (map(.probability) | (.[0] - 0.068713 | fabs) < 1e-5 and (.[2] - 0.148690 | fabs) < 1e-5)'
cp "$tmp/out" "$tmp/before"
check "told nothing of the window before" exits 0 $listen -p temperature=0 -p word_timestamps=true \
  -p condition_on_previous_text=false
check "it begins the same" json '.[0].segments[0].text == ";;;uJ;UeJIIKe"'
check "and goes on otherwise" sh -c "! cmp -s '$tmp/out' '$tmp/before'"
# Random weights with windows of a second. The tokens are those of transformers' generate over whole recordings.
windows=tests/data/whisper/windows
long() { # whether it is told what was said before
  exits 0 "$viv" run --json -p max_new_tokens=20 -p temperature=0 -p return_timestamps=true -p 'language="en"' \
    -p condition_on_previous_text="$1" "$windows" tests/goldens/silero-vad/speech-en-jit/audio.wav &&
    jq -e --slurpfile e "$windows/expected.json" ".ids == \$e[0].$2" "$tmp/out"
}
check "eight seconds window by window are heard as by transformers" long false alone
check "also when each window is told what was said before" long true told
check "told words that may come" exits 0 $listen -p temperature=0 -p word_timestamps=true -p 'prompt_ids=[3,4,8]'
check "it hears others" json '.[0].segments[0].text != ";;;uJ;UeJIIKe"'
check "an improbable text is tried again" exits 0 $listen -p return_timestamps=true
check "up to temperature 1" json '.[0].segments[0].temperature == 1'
check "one that is good enough is not" exits 0 $listen -p return_timestamps=true -p logprob_threshold=-9
check "at temperature 0" json '.[0].segments[0].temperature == 0'
check "one that repeats itself is" exits 0 $listen -p return_timestamps=true -p logprob_threshold=-9 \
  -p compression_ratio_threshold=0.1
check "as well" json '.[0].segments[0].temperature == 1'
cp "$tmp/out" "$tmp/before"
check "the same seed" exits 0 $listen -p return_timestamps=true -p logprob_threshold=-9 -p compression_ratio_threshold=0.1
check "gives the same text" cmp "$tmp/out" "$tmp/before"
check "another seed" exits 0 $listen -p return_timestamps=true -p logprob_threshold=-9 -p compression_ratio_threshold=0.1 -p seed=5
check "another" sh -c "! cmp -s '$tmp/out' '$tmp/before'"
check "a temperature below 0" exits 5 $listen -p temperature=-1
check "is refused" complains "temperature"
check "a prompt of tokens that are none" exits 5 $listen -p 'prompt_ids=[97]'
check "a format of pictures" exits 5 "$viv" run --format coco "$beats" "$wav"
check "a task that it has not" exits 3 "$viv" run --task detect "$beats" "$wav"
check "why this plugin" exits 0 "$viv" why "$beats"
check "by its tensors" says "^-> beats"
vad=zoo/models/silero-vad speech=tests/goldens/silero-vad/speech-en-jit/audio.wav
check "where somebody speaks" exits 0 "$viv" run "$vad" "$speech"
check "is four times" test "$(grep -c ' s  to ' "$tmp/out")" -eq 4
size_of() { od -An -tu1 -j16 -N8 "$1" | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }'; }
check "drawn" exits 0 "$viv" run "$vad" "$speech" --draw "$tmp/speech.png"
check "as a spectrogram with the chances and four lines below" test "$(size_of "$tmp/speech.png")" = "880 448"
check "classes drawn" exits 0 "$viv" run "$beats" "$wav" --draw "$tmp/classes.png"
check "as three bars" test "$(size_of "$tmp/classes.png")" = "880 354"
check "codes drawn" exits 0 "$viv" run --task encode -p n_quantizers=2 tests/goldens/encodec/hf-24khz-tiny "$wav" \
  --draw "$tmp/codes.png"
check "as a row for each code book" test "$(size_of "$tmp/codes.png")" = "880 316"
check "several into a folder" exits 0 "$viv" run "$vad" "$speech" "$wav" --draw "$tmp/drawn"
check "two of one name" sh -c "test -s '$tmp/drawn/audio.png' && test -s '$tmp/drawn/audio.wav.png'"
check "several into one file" exits 5 "$viv" run "$vad" "$speech" "$wav" --draw "$tmp/one.png"
check "a drawing that is no .png" exits 5 "$viv" run "$vad" "$speech" --draw "$tmp/one.jpg"
check "on the terminal" exits 0 "$viv" run "$vad" "$speech" --preview --preview-as blocks
check "in colours" says "38;[25];"
live() {
  tail -c +45 "$speech" | "$viv" run "$vad" - --pcm s16 --rate 16000 >"$tmp/out" 2>"$tmp/err"
}
check "speech from a pipe" live
check "begins and ends as it is heard" test "$(grep -c ' s  \(speech\|end\)$' "$tmp/out")" -eq 8
check "a rate that can't be" exits 5 "$viv" run "$vad" - --pcm s16 --rate 1
check "a kind of samples that can't be" exits 5 "$viv" run "$vad" - --pcm u8 --rate 16000
finish
