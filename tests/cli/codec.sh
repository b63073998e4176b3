#!/bin/sh
# Sound to codes and back: viv encode, viv decode.
. tests/cli/lib.inc
encodec=tests/goldens/encodec/hf-24khz-tiny
snac=tests/goldens/snac/24khz-tiny
stereo=tests/goldens/encodec/hf-48khz-tiny
mimi=tests/goldens/mimi/tiny
wav=$encodec/audio.wav

trip() {
  exits 0 "$viv" encode "$1" "$wav" -o "$tmp/a.$2" --codebooks 2 || return 1
  exits 0 "$viv" decode "$1" "$tmp/a.$2" -o "$tmp/$2.wav" --format f32
}

# Every kind of file holds the same codes: the same sound comes back.
same() {
  trip "$1" vtok && trip "$1" json || return 1
  cmp "$tmp/vtok.wav" "$tmp/json.wav" || return 1
  [ "$1" = "$encodec" ] || return 0
  trip "$1" npy || return 1
  [ "$(wc -c <"$tmp/npy.wav")" -ge "$(wc -c <"$tmp/vtok.wav")" ]
}
for model in "$encodec" "$snac" "$stereo" "$mimi"; do
  check "$model: codes as .vtok and .json give the same sound" same "$model"
done

length() {
  trip "$encodec" vtok || return 1
  exits 0 "$viv" decode "$encodec" "$tmp/a.vtok" -o - --format f32 || return 1
  [ "$(wc -c <"$tmp/out")" -eq $((1213 * 4)) ] # the samples of audio.wav
}
check "the sound is as long as it was" length

piped() {
  exits 0 "$viv" encode "$encodec" "$wav" -o "$tmp/file.json" --codebooks 2 || return 1
  tail -c $((1213 * 2)) "$wav" | "$viv" encode "$encodec" - --pcm s16 --rate 24000 -o - \
    --codebooks 2 >"$tmp/pipe.vtok" 2>"$tmp/err" || { cat "$tmp/err"; return 1; }
  "$viv" decode "$encodec" - -o "$tmp/pipe.wav" <"$tmp/pipe.vtok" 2>"$tmp/err" || return 1
  exits 0 "$viv" decode "$encodec" "$tmp/file.json" -o "$tmp/file.wav" || return 1
  cmp "$tmp/pipe.wav" "$tmp/file.wav"
}
check "through pipes as through files" piped

flac() {
  trip "$encodec" vtok && exits 0 "$viv" decode "$encodec" "$tmp/a.vtok" -o "$tmp/a.flac" || return 1
  exits 0 "$viv" encode "$encodec" "$tmp/a.flac" -o "$tmp/b.vtok"
}
check "FLAC out and in" flac

bitrate() {
  exits 0 "$viv" encode "$encodec" "$wav" -o "$tmp/a.vtok" --bitrate 7 --json || return 1
  says '"codebooks":2' && says '"kbps":6,' || return 1
  exits 5 "$viv" encode "$encodec" "$wav" -o "$tmp/a.vtok" --bitrate 1
}
check "--bitrate takes as many code books as fit" bitrate

bad() {
  trip "$encodec" vtok || return 1
  exits 5 "$viv" decode "$mimi" "$tmp/a.vtok" -o "$tmp/b.wav" && complains "codes of encodec" || return 1
  exits 5 "$viv" decode tests/goldens/encodec/original-24khz-tiny "$tmp/a.vtok" -o "$tmp/b.wav" || return 1
  head -c 200 "$tmp/a.vtok" >"$tmp/cut.vtok"
  exits 5 "$viv" decode "$encodec" "$tmp/cut.vtok" -o "$tmp/b.wav" && complains "cut short" || return 1
  exits 5 "$viv" decode "$encodec" "$wav" -o "$tmp/b.wav" || return 1
  sed 's/"codes":\[\[[0-9]*/"codes":[[77/' "$tmp/file.json" >"$tmp/outside.json"
  exits 5 "$viv" decode "$encodec" "$tmp/outside.json" -o "$tmp/b.wav" && complains "code 77" || return 1
  exits 5 "$viv" encode "$encodec" - --pcm s16 --rate 1 -o "$tmp/c.vtok" && complains "1000 to" || return 1
  exits 5 "$viv" encode "$encodec" - --pcm s16 --rate 10000000 -o "$tmp/c.vtok" || return 1
  exits 5 "$viv" encode "$encodec" - --pcm s16 --rate 24000 --channels 65 -o "$tmp/c.vtok" || return 1
  exits 5 "$viv" encode "$encodec" - --pcm s16 --rate 24000 -o "$tmp/c.vtok" && complains "no samples" || return 1
  exits 2 "$viv" encode "$encodec" "$wav" -o "$tmp/c.mp3" || return 1
  exits 3 "$viv" encode "$snac" "$wav" -o "$tmp/c.npy" && complains "no table" || return 1
  exits 3 "$viv" encode "$stories" "$wav" -o "$tmp/c.vtok" && complains "no audio codec" || return 1
  [ ! -e "$tmp/b.wav" ] && [ ! -e "$tmp/c.vtok" ]
}
check "what can't be is refused with the reason, and leaves no file" bad

# A language model over codes: the story model's weights, whose tokens from 300 on are declared as codes.
speaker=$tmp/speaker
speak() { # its audio_tokens
  mkdir -p "$speaker"
  cp "$stories/model.safetensors" "$speaker/"
  jq --argjson t "$1" '. + {audio_tokens: $t}' "$stories/config.json" >"$speaker/config.json"
}
words() { # what a codec's codes of the recording say of themselves, with more keys
  exits 0 "$viv" encode "$1" "$wav" -o "$tmp/said.json" --codebooks 2 || return 1
  jq -c "del(.codes, .samples, .bits) + $2" "$tmp/said.json"
}
goes_on() {
  speak "$(words "$1" '{offset: 300, begin: 1, end: 2}')" || return 1
  exits 0 "$viv" encode "$1" "$wav" -o "$tmp/said.vtok" --codebooks 2 || return 1
  exits 0 "$viv" run --temp 1 --seed 4 -n 60 "$speaker" "$tmp/said.vtok" -o "$tmp/more.json" || return 1
  exits 0 "$viv" run --temp 1 --seed 4 -n 60 "$speaker" "$tmp/said.vtok" -o "$tmp/more.vtok" || return 1
  # What was said comes first, more follows, and the codec makes sound of it.
  jq -e -s '.[0].codes as $a | .[1].codes as $b | ($a | length) == ($b | length) and
    all(range($a | length); . as $q | ($a[$q] | length) as $n | $b[$q][:$n] == $a[$q]) and
    ([$b[] | length] | add) > ([$a[] | length] | add)' "$tmp/said.json" "$tmp/more.json" || return 1
  exits 0 "$viv" decode "$1" "$tmp/more.vtok" -o "$tmp/more.wav" || return 1
  exits 0 "$viv" decode "$1" "$tmp/more.json" -o "$tmp/again.wav" || return 1
  cmp "$tmp/more.wav" "$tmp/again.wav"
}
check "a language model goes on with codes of EnCodec" goes_on "$encodec"
check "of Mimi" goes_on "$mimi"
check "of SNAC, whose code books run at several rates" goes_on "$snac"
alone() {
  exits 0 "$viv" run --temp 1 --seed 4 -n 40 --ignore-eos "$speaker" -o "$tmp/alone.vtok" &&
    exits 0 "$viv" decode "$snac" "$tmp/alone.vtok" -o "$tmp/alone.wav"
}
check "and begins by itself" alone
check "its codes are numbers on lines" exits 0 "$viv" run --temp 1 --seed 4 -n 60 "$speaker" "$tmp/said.vtok"
check "as many in each as a unit has" sh -c "awk '{ print NF }' '$tmp/out' | sort -u | wc -l | grep -qx 1"
foreign() {
  exits 0 "$viv" encode "$encodec" "$wav" -o "$tmp/other.vtok" --codebooks 2 || return 1
  exits 5 "$viv" run "$speaker" "$tmp/other.vtok" -o "$tmp/none.vtok" && complains "codes of encodec" &&
    ! [ -e "$tmp/none.vtok" ]
}
check "codes of another codec are refused" foreign
beyond() {
  speak "$(words "$encodec" '{offset: 500}')" || return 1
  exits 5 "$viv" run "$speaker" "$tmp/said.vtok" && complains "512"
}
check "so are codes beyond the vocabulary" beyond
cut_prompt() {
  speak "$(words "$encodec" '{offset: 300}')" || return 1
  exits 0 "$viv" encode "$encodec" "$wav" -o "$tmp/whole.vtok" --codebooks 2 || return 1
  head -c 200 "$tmp/whole.vtok" >"$tmp/cut.vtok"
  exits 5 "$viv" run "$speaker" "$tmp/cut.vtok" && complains "cut short"
}
check "and a file that was cut" cut_prompt
no_start() {
  exits 5 "$viv" run "$speaker" -o "$tmp/none.vtok" && complains "begins a stream"
}
check "a model without a first token needs codes" no_start
units() {
  exits 0 "$viv" run tests/goldens/beats/tokenizer-tiny tests/goldens/beats/finetuned-tiny/audio.wav \
    -p token_offset=300 -o "$tmp/units.safetensors" &&
    exits 0 "$viv" run --json -n 5 -p 'token_cycle=[[300,16]]' -i input_ids="$tmp/units.safetensors:audio_codes" \
      "$speaker" && json 'map(select(.name == "ids"))[0].data | length == 5 and all(. >= 300 and . < 316)'
}
check "units of BEATs at their place in a vocabulary, and only such behind them" units
check "ranges outside the vocabulary" exits 5 "$viv" run -n 5 -p 'token_cycle=[[500,16]]' "$stories" "Once"
finish
