#!/bin/sh
# The zoo's segmenter by click on a photograph: clicks on the thing and beside it, a drawing, a box.
. tests/cli/lib.inc

model=click-segmenter photo=tests/data/clicks/dahlia.jpg
check "the model is at most 12 MB" test "$(cat zoo/models/$model/* | wc -c)" -le 12000000

check "a click on a flower" exits 0 "$viv" run $model $photo --point 308,221
check "is one thing" json '.[0].objects | length == 1'
check "a second one beside it, drawn" exits 0 "$viv" run $model $photo --point 308,221 --point 320,388,0 \
  --draw "$tmp/drawn.png"
check "leaves what lies where the flower does" json '.[0].objects | length == 1 and (.[0].box |
  .[0] > 140 and .[0] < 190 and .[1] > 60 and .[1] < 110 and .[2] > 420 and .[2] < 480 and .[3] > 330 and .[3] < 385)'
check "the drawing has the photograph's size" exits 0 "$viv" run people-detector "$tmp/drawn.png"
check "is seen" json '.[0].width == 640 and .[0].height == 427'

area() { jq -s '.[0].objects[0].area' "$tmp/out"; }
check "a box around it" exits 0 "$viv" run $model $photo --box 168,84,447,361
box=$(area)
check "fills more than half of the box" test "${box:-0}" -gt 38600
check "and not much beyond" test "${box:-0}" -lt 85000
finish
