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
finish
