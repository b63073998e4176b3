#!/bin/sh
# The zoo's detector and pose network find the people of pictures that neither was trained on, and their
# cards' numbers stay true.
. tests/cli/lib.inc

detector=people-detector pose=people-pose folder=tests/data/people photo=tests/data/people/0005.jpg
check "both models together are at most 16 MB" test \
  "$(cat zoo/models/people-detector/* zoo/models/people-pose/* | wc -c)" -le 16777216

check "a picture" exits 0 "$viv" run $detector $photo
check "has four people" json '.[0].objects | length == 4 and all(.label == "person")'
check "its poses, drawn" exits 0 "$viv" run $pose $photo --detector $detector --draw "$tmp/drawn.png"
check "are four" json '.[0].objects | length == 4'
# Each annotated person has a pose whose nose, shoulders, hips and knees lie within 8 pixels of their places.
cat >"$tmp/places.jq" <<'END_JQ'
[0, 5, 6, 11, 12, 13, 14] as $points
| .[0].objects as $found
| [$truth[0].annotations[] | select(.image_id == 6) | .keypoints as $k
   | any($found[]; .keypoints as $f
         | all($points[]; (($f[.].x - $k[3 * .]) | fabs) < 8 and (($f[.].y - $k[3 * . + 1]) | fabs) < 8))]
| length == 4 and all
END_JQ
check "nose, shoulders, hips and knees are in their places" jq -s -e --slurpfile truth $folder/annotations.json \
  -f "$tmp/places.jq" "$tmp/out"
check "the drawing is a picture of the same size" exits 0 "$viv" run $detector "$tmp/drawn.png"
check "is seen" json '.[0].width == 256 and .[0].height == 256'

check "boxes of twelve pictures" exits 0 "$viv" eval --json --coco $folder/annotations.json \
  $detector $folder
check "are as good as the card says" json '.[0].AP > 0.6 and .[0].AP50 > 0.85 and .[0].failed == 0'
check "poses of twelve pictures" exits 0 "$viv" eval --json --coco $folder/annotations.json \
  $pose $folder --detector $detector --detector-threshold 0.3
check "are as good as the card says" json '.[0].AP > 0.4 and .[0].AP50 > 0.74'
finish
