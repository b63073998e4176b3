#!/bin/sh
# Three questions for the reasoner; its steps stream as they are made. Then where somebody speaks in a
# recording (synthesised English, tests/goldens/silero-vad).
set -eu
viv=$1/viv
model=zoo/models/sambay-reasoner
for question in "What is 345 + 1278?" "What weekday was 14 March 1987?" "Write 1994 as a Roman numeral."; do
  printf '\n> %s\n' "$question"
  "$viv" run -v "$model" "$question"
done
speech=tests/goldens/silero-vad/speech-en-jit/audio.wav
printf '\n> who speaks when in %s\n' "$speech"
"$viv" run zoo/models/silero-vad "$speech"
