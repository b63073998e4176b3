#!/bin/sh
# Three questions for the reasoner, whose steps stream as they are made; clicks on a photograph; people in a picture: a
# detector finds them, a pose network says how they stand; then where somebody speaks in a recording
# (synthesised English, tests/goldens/silero-vad), and what a codec of 3 kbit/s leaves of it.
set -eu
build=$1
viv=$build/viv
model=zoo/models/sambay-reasoner
for question in "What is 345 + 1278?" "What weekday was 14 March 1987?" "Write 1994 as a Roman numeral."; do
  printf '\n> %s\n' "$question"
  "$viv" run -v "$model" "$question"
done

mkdir -p "$build/demo"
photo=tests/data/clicks/dahlia.jpg
printf '\n> What lies at 308,221 in %s, and not at 320,388?\n' "$photo"
"$viv" run zoo/models/click-segmenter "$photo" --point 308,221 --point 320,388,0 \
  --draw "$build/demo/click.png" --out "$build/demo/click.jsonl"
printf 'drawn: %s\n' "$build/demo/click.png"

photo=tests/data/people/0005.jpg
cp "$photo" "$build/demo/people.jpg"
printf '\n> Who is in %s, and how do they stand?\n' "$photo"
"$viv" run zoo/models/people-pose "$photo" --detector zoo/models/people-detector \
  --draw "$build/demo/people-drawn.png" --out "$build/demo/people.jsonl"
printf '%s, drawn: %s\n' "$build/demo/people.jpg" "$build/demo/people-drawn.png"

speech=tests/goldens/silero-vad/speech-en-jit/audio.wav
cp "$speech" "$build/demo/speech.wav"
printf '\n> Who speaks when in %s?\n' "$speech"
"$viv" run zoo/models/silero-vad "$speech" --draw "$build/demo/speech.png"
printf 'drawn: %s\n' "$build/demo/speech.png"

codec=zoo/models/speech-codec
printf '\n> How does it sound after 3 kbit/s?\n'
"$viv" encode "$codec" "$speech" -o "$build/demo/speech.vtok" --bitrate 3
"$viv" decode "$codec" "$build/demo/speech.vtok" -o "$build/demo/speech-decoded.wav"
"$viv" run --task encode -p n_quantizers=6 "$codec" "$speech" --draw "$build/demo/codes.png" >/dev/null
printf '%s, decoded: %s, the codes drawn: %s\n' "$build/demo/speech.wav" "$build/demo/speech-decoded.wav" \
  "$build/demo/codes.png"
