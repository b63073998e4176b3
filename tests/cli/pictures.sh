#!/bin/sh
# run and eval on pictures: the test plugin "picture" finds what is red, green and blue.
. tests/cli/lib.inc
VIV_PLUGIN_PATH=$build/badplugins
export VIV_PLUGIN_PATH
model=$tmp/model
mkdir "$model" "$tmp/pics"
echo '{"model_type":"test-picture","id2label":{"0":"rose","1":"leaf","2":"sky"}}' >"$model/config.json"

# A picture of WIDTH x HEIGHT, GROUND bright, with a red box from X0,Y0 to X1,Y1 and a blue one of 8 x 8
# at 0,0 unless the fifth coordinate says no.
paint() {
  awk -v w="$1" -v h="$2" -v x0="$3" -v y0="$4" -v x1="$5" -v y1="$6" -v ground="${7:-0}" 'BEGIN {
    print "P3", w, h, 255
    for (y = 0; y < h; y++) for (x = 0; x < w; x++)
      if (x >= x0 && x < x1 && y >= y0 && y < y1) print "255 0 0"
      else if (x < 8 && y < 8) print "0 0 255"
      else print ground, ground, ground
  }'
}
paint 40 30 10 5 30 25 >"$tmp/pics/a.ppm"
paint 24 20 12 10 20 18 250 >"$tmp/pics/b.ppm"
a=$tmp/pics/a.ppm b=$tmp/pics/b.ppm

# ---- one picture ----
check "a picture" exits 0 "$viv" run "$model" "$a"
check "gives a JSON line" json 'length == 1 and .[0].width == 40 and .[0].height == 30'
check "with names, scores and boxes in pixels" json \
  '.[0].objects == [{"label":"rose","class":0,"score":1,"box":[10,5,30,25]},
                    {"label":"sky","class":2,"score":1,"box":[0,0,8,8]}]'
check "the task is the model's first" json '.[0].task == "detect"'
check "pose" exits 0 "$viv" run "$model" "$a" --task pose
check "has named keypoints" json '.[0].objects[0].keypoints | length == 17 and .[9].name == "left wrist"'
check "relations" exits 0 "$viv" run "$model" "$a" --task relations
check "say who does what to whom" json \
  '.[0].relations[0] | .subject.label == "rose" and .predicate == "right of" and .object.label == "sky"'
check "segment" exits 0 "$viv" run "$model" "$a" --task segment
check "has masks as run lengths" json \
  '.[0].objects[0] | .area == 400 and .box == [10,5,30,25] and .mask.size == [30,40]'
check "a map of classes" exits 0 "$viv" run "$model" "$a" --task segment -p map=true
check "counts pixels" json '.[0].classes | map(select(.class == 1))[0].pixels == 400'
check "depth" exits 0 "$viv" run "$model" "$b" --task depth
check "has a range" json '.[0].depth | .width == 24 and .min == 0 and (.max - 0.980392 | fabs) < 1e-6'
check "classify" exits 0 "$viv" run "$model" "$a" --task classify
check "is sorted" json '.[0].classes[0].label == "rose"'
check "embed" exits 0 "$viv" run "$model" "$a" --task embed
check "is a vector" json '.[0].embedding | length == 3'
check "a threshold" exits 0 "$viv" run "$model" "$a" --threshold 1.5
check "leaves out" json '.[0].objects == []'

# ---- boxes: by hand, and of a detector ----
check "a box" exits 0 "$viv" run "$model" "$a" --task pose --box 3,4,23,24
check "is where the pose is" json '.[0].objects | length == 1 and .[0].box == [3,4,23,24]'
check "two boxes" exits 0 "$viv" run "$model" "$a" --task pose --box 3,4,23,24 --box 0,0,8,8
check "are two poses" json '.[0].objects | map(.box) == [[3,4,23,24],[0,0,8,8]]'
check "a box that is none" exits 5 "$viv" run "$model" "$a" --task pose --box 3,4,23
check "a point for a model of boxes" exits 3 "$viv" run "$model" "$a" --point 3,4
persons=$tmp/persons
mkdir "$persons"
echo '{"model_type":"test-picture","id2label":{"0":"Person","1":"leaf","2":"sky"}}' >"$persons/config.json"
check "a detector" exits 0 "$viv" run "$model" "$a" --task pose --detector "$persons"
check "gives the persons it finds" json '.[0].objects | length == 1 and .[0].box == [10,5,30,25]'
check "another class" exits 0 "$viv" run "$model" "$a" --task pose --detector "$persons" --detect sky
check "gives its boxes" json '.[0].objects | map(.box) == [[0,0,8,8]]'
check "by number too" exits 0 "$viv" run "$model" "$a" --task pose --detector "$persons" --detect 2
check "the same" json '.[0].objects | map(.box) == [[0,0,8,8]]'
check "what is not found" exits 0 "$viv" run "$model" "$a" --task pose --detector "$persons" \
  --detect leaf --draw "$tmp/empty.png"
check "is an empty answer" json '.[0].objects == []'
check "a high threshold" exits 0 "$viv" run "$model" "$a" --task pose --detector "$persons" \
  --detector-threshold 1.1
check "leaves no box" json '.[0].objects == []'
check "a class that it does not know" exits 5 "$viv" run "$model" "$a" --task pose --detector "$persons" \
  --detect dog
check "is told what it knows" complains 'no class "dog", but Person, leaf, sky'
check "a detector of no persons" exits 5 "$viv" run "$model" "$a" --task pose --detector "$model"
check "says so" complains 'no class "person", but rose, leaf, sky; name one with --detect'
check "no such detector" exits 3 "$viv" run "$model" "$a" --task pose --detector "$tmp/nothing"
check "a detector and boxes by hand" exits 5 "$viv" run "$model" "$a" --task pose --detector "$persons" \
  --box 1,2,3,4
check "a class for no detector" exits 2 "$viv" run "$model" "$a" --task pose --detect sky
check "a folder, as COCO's results, drawn" exits 0 "$viv" run "$model" "$tmp/pics" --task pose \
  --detector "$persons" --format coco --draw "$tmp/joined"
check "a person in each" json '.[0] | map(.image_id) == [1,2] and .[1].bbox == [12,10,8,8]'
check "both are drawn" test -s "$tmp/joined/a.png" -a -s "$tmp/joined/b.png"
real=tests/goldens/vitpose/simple
check "ViTPose after RT-DETR" exits 0 env VIV_PLUGIN_PATH="$build/plugins" "$viv" run $real \
  $real/image0.png --detector tests/goldens/rt-detr/basic --detect class1 --threshold -1
check "has a pose in each box" json '.[0].objects | length > 0 and all(.keypoints | length == 5)'
check "RT-DETR takes no boxes" exits 3 env VIV_PLUGIN_PATH="$build/plugins" "$viv" run \
  tests/goldens/rt-detr/basic $real/image0.png --detector tests/goldens/rt-detr/basic
net=${VIV_WEIGHTS:-build/weights}/package/models
if [ -f "$net/movenet-lightning.json" ]; then
  check "MoveNet on a photo" exits 0 env VIV_PLUGIN_PATH="$build/plugins" "$viv" run \
    "$net/movenet-lightning.json" tests/goldens/movenet/real-lightning-astronaut/astronaut_192.png
  check "sees the astronaut's nose" json \
    '.[0].objects[0].keypoints[0] | .name == "nose" and (.x - 83 | fabs) < 3 and (.y - 45 | fabs) < 3'
fi
printf '\377\0\0\377\0\0\0\0\0\0\0\0' >"$tmp/raw"
check "frames of a pipe" sh -c \
  "'$viv' run '$model' - --frames 2x1 --task pose --detector '$persons' <'$tmp/raw' >'$tmp/out'"
check "each by itself" json 'map(.objects | length) == [1,0]'

# ---- labels ----
printf 'one\ntwo\nthree\n' >"$tmp/labels"
check "names from a file" exits 0 "$viv" run "$model" "$a" --labels "$tmp/labels"
check "are used" json '.[0].objects[1].label == "three"'
printf 'one\n' >"$tmp/labels"
check "a labels file that is too short" exits 5 "$viv" run "$model" "$a" --labels "$tmp/labels"
check "is told before the first picture" complains 'names 1 classes, but the model has 3'
check "with no answer" test ! -s "$tmp/out"
mkdir "$tmp/nameless"
echo '{"model_type":"test-picture"}' >"$tmp/nameless/config.json"
check "where the model does not say how many it has" exits 5 "$viv" run "$tmp/nameless" "$a" \
  --labels "$tmp/labels"
check "the class is named" complains 'names 1 classes, but the model gave class 2'
check "a detector without names" exits 5 "$viv" run "$model" "$a" --task pose --detector "$tmp/nameless"
check "wants a number" complains 'which number "person" has'
check "a labels file that is not there" exits 3 "$viv" run "$model" "$a" --labels "$tmp/nothing"

# ---- explanations ----
vit=tests/goldens/vit/classify
export VIV_PLUGIN_PATH="$build/plugins"
check "why" exits 0 "$viv" run $vit "$a" --task explain --draw "$tmp/why.png" --json
check "the classes and the map's range" json '.[0] | .heat.max > .heat.min and (.classes | length > 0)'
check "drawn over the picture" sh -c "! cmp -s '$tmp/why.png' '$a'"
check "by another formula, as numbers" exits 0 "$viv" run $vit "$a" --task explain -p 'explain="occlusion"' \
  -o "$tmp/why.npy"
check "a file of numbers" test -s "$tmp/why.npy"
person=tests/data/people/0000.jpg
check "a photograph" exits 0 "$viv" run $vit $person --task explain --draw "$tmp/why.png"
check "how good the map is" exits 0 "$viv" run $vit $person --task explain -p curves=true -p cells=4 --json \
  --draw "$tmp/curves.png"
check "both curves and their areas" json '.[0] | (.deletion.curve | length == 17) and
  (.insertion.curve | length == 17) and .deletion.area > 0 and .insertion.area < 1 and
  .deletion.curve[0] == .insertion.curve[16]'
check "drawn beside the map" sh -c "! cmp -s '$tmp/why.png' '$tmp/curves.png'"
check "a network of concepts" exits 0 "$viv" run tests/goldens/explain/senn "$a" --task explain --json
check "what each gives to the class, the most first" json '.[0].concepts | length == 7 and
  ([.[].contribution | fabs] as $c | $c == ($c | sort | reverse))'
check "a kind that the model has not" exits 5 "$viv" run $vit "$a" --task explain -p 'explain="cam"'
check "it says which it has" complains "attention_rollout, occlusion"
export VIV_PLUGIN_PATH="$build/badplugins"

# ---- polygons ----
# The test plugin's masks are the coloured boxes: an exact outline has four corners.
check "masks as polygons" exits 0 "$viv" run "$model" "$a" --task segment --polygons 0 --json
check "boxes have four corners" json \
  '.[0].objects | length > 0 and all(.polygons == [[.box[0], .box[1], .box[2], .box[1], .box[2], .box[3], .box[0], .box[3]]])'
check "no holes, no run lengths" json '.[0].objects | all(.holes == [] and has("mask") == false)'
check "for COCO" exits 0 "$viv" run "$model" "$a" --task segment --polygons 1 --format coco
check "as its annotations have them" json '.[0] | all(.segmentation[0] | length == 8)'
check "less than exact is nothing" exits 5 "$viv" run "$model" "$a" --task segment --polygons -1

# ---- drawing ----
check "draw" exits 0 "$viv" run "$model" "$a" --draw "$tmp/a.png"
check "a PNG" sh -c "head -c 4 '$tmp/a.png' | tail -c 3 | grep -q PNG"
check "it can be read again" exits 0 "$viv" run "$model" "$tmp/a.png" --task embed
check "and is as large" json '.[0].width == 40 and .[0].height == 30'
check "a folder of drawings" exits 0 "$viv" run "$model" "$tmp/pics" --draw "$tmp/drawn" --task pose
check "one for each" test -s "$tmp/drawn/a.png" -a -s "$tmp/drawn/b.png"
check "several into one file" exits 5 "$viv" run "$model" "$a" "$b" --draw "$tmp/x.png"
for task in relations segment depth classify; do
  check "draw $task" exits 0 "$viv" run "$model" "$a" --task $task --draw "$tmp/$task.png"
done
check "an embedding can't be drawn" exits 3 "$viv" run "$model" "$a" --task embed --draw "$tmp/x.png"
for way in kitty sixel blocks; do
  check "preview as $way" exits 0 "$viv" run "$model" "$a" --preview --preview-as $way
done
check "blocks are blocks" says '▀'
check "a preview without a terminal" exits 3 "$viv" run "$model" "$a" --preview
check "an unknown way" exits 5 "$viv" run "$model" "$a" --preview --preview-as print

printf 'Füße\nBäume\nHimmel\n' >"$tmp/labels"
check "draw names that are not ASCII" exits 0 "$viv" run "$model" "$a" --labels "$tmp/labels" \
  --draw "$tmp/x.png"

# ---- files as they are in the world ----
corpus=tests/fuzz/corpus/picture
check "a photo that was turned" exits 0 "$viv" run "$model" $corpus/jpeg-turned --task depth
check "is turned back" json '.[0] | .width == 8 and .height == 16 and .depth.width == 8'
check "unless not wanted" exits 0 "$viv" run "$model" $corpus/jpeg-turned --task depth \
  -p exif_orientation=false
check "then it is as stored" json '.[0] | .width == 16 and .depth.width == 16'
check "an animation" exits 0 "$viv" run "$model" $corpus/webp-animated --task embed
check "is said to be one" complains 'animated; its first frame'
check "in the answer too" json '.[0].animated == true'
check "a palette, interlaced" exits 0 "$viv" run "$model" $corpus/png-palette-adam7 --task embed
check "in its colours" json '.[0].embedding | [.[0] - 0.442203548, .[1] - 0.557796452, .[2] - 0.082913165] | map(fabs) | max < 1e-6'
check "CMYK" exits 0 "$viv" run "$model" $corpus/jpeg-cmyk --task embed
check "a damaged file" exits 5 "$viv" run "$model" $corpus/png-cut --task embed
check "limits as parameters" exits 5 "$viv" run "$model" "$a" -p max_pixels=100

# ---- batches ----
check "a folder" exits 0 "$viv" run "$model" "$tmp/pics"
check "a line for each, by name" json 'map(.file | split("/")[-1]) == ["a.ppm", "b.ppm"]'
check "a glob" exits 0 "$viv" run "$model" "$tmp/pics/?.ppm"
check "finds both" json 'length == 2'
check "a glob that finds nothing" exits 3 "$viv" run "$model" "$tmp/pics/*.png" --task detect
head -c 60 "$a" >"$tmp/pics/cut.ppm"
printf 'GIF89a' >"$tmp/pics/movie.gif"
check "two bad ones of four" exits 12 "$viv" run "$model" "$tmp/pics"
check "the others are done" json 'map(select(.objects)) | length == 2'
check "the bad ones say why" json 'map(select(.error)) | length == 2 and all(.error.message | length > 10)'
check "and how many" complains '2 of 4 pictures failed'
check "a single bad one" exits 5 "$viv" run "$model" "$tmp/pics/cut.ppm"
check "a kind that is not read" exits 3 "$viv" run "$model" "$tmp/pics/movie.gif"
check "is named" complains 'GIF'
check "one that is not there" exits 3 "$viv" run "$model" "$tmp/none.png"
rm "$tmp/pics/cut.ppm" "$tmp/pics/movie.gif"
printf 'P6\n20000 20000\n255\n' >"$tmp/huge.ppm"
check "20000 x 20000" exits 5 "$viv" run "$model" "$tmp/huge.ppm"
check "is refused by its header" complains '400000000 in all'
printf 'P6\n0 0\n255\n' >"$tmp/none.ppm"
check "0 x 0" exits 5 "$viv" run "$model" "$tmp/none.ppm"
printf 'P6\n1 1\n255\n\377\0\0' >"$tmp/dot.ppm"
check "1 x 1" exits 0 "$viv" run "$model" "$tmp/dot.ppm" --draw "$tmp/dot.png"
check "is a picture" json '.[0].objects[0].box == [0,0,1,1]'
check "to a file" exits 0 "$viv" run "$model" "$tmp/pics" -o "$tmp/out.jsonl"
check "the lines are there" test "$(wc -l <"$tmp/out.jsonl")" -eq 2

# ---- the result itself as a file ----
check "depth as PNG" exits 0 "$viv" run "$model" "$b" --task depth -o "$tmp/depth.png"
check "of 16 bits" test "$(od -An -tu1 -j24 -N2 "$tmp/depth.png" | tr -d ' ')" = 160
check "as PFM" exits 0 "$viv" run "$model" "$b" --task depth -o "$tmp/depth.pfm"
check "with its header" test "$(head -n 2 "$tmp/depth.pfm" | tr '\n' ' ')" = "Pf 24 20 "
check "as NPY" exits 0 "$viv" run "$model" "$b" --task depth -o "$tmp/depth.npy"
check "with its shape" sh -c "head -c 80 '$tmp/depth.npy' | grep -a -q \"'<f4'.*(20, 24, )\""
check "of the right length" test "$(wc -c <"$tmp/depth.npy")" -eq $((128 + 20 * 24 * 4))
check "as points" exits 0 "$viv" run "$model" "$b" --task depth -o "$tmp/depth.ply" --intrinsics 20,20,12,10
points=$(grep -a '^element vertex' "$tmp/depth.ply" | cut -d' ' -f3)
head=$(grep -a -b -m1 end_header "$tmp/depth.ply" | cut -d: -f1)
check "one for each pixel that has a depth" test "$points" -gt 300
check "of 15 bytes" test "$(wc -c <"$tmp/depth.ply")" -eq $((head + 11 + 15 * points))
check "points need a camera" exits 5 "$viv" run "$model" "$b" --task depth -o "$tmp/none.ply"
check "which is named" complains "intrinsics FX,FY,CX,CY"
check "a camera of four numbers" exits 5 "$viv" run "$model" "$b" --task depth -o "$tmp/none.ply" --intrinsics 20,20,12
check "with focal lengths" exits 5 "$viv" run "$model" "$b" --task depth -o "$tmp/none.ply" --intrinsics 0,20,12,10
check "a camera without points" exits 5 "$viv" run "$model" "$b" --task depth --intrinsics 20,20,12,10
check "boxes are no points" exits 3 "$viv" run "$model" "$b" -o "$tmp/none.ply" --intrinsics 20,20,12,10
check "a map as PNG" exits 0 "$viv" run "$model" "$b" --task segment -p map=true -o "$tmp/map.png"
check "masks as PNG" exits 0 "$viv" run "$model" "$b" --task segment -o "$tmp/masks.png"
check "of 8 bits" test "$(od -An -tu1 -j24 -N2 "$tmp/masks.png" | tr -d ' ')" = 80
check "tensors" exits 0 "$viv" run "$model" "$b" -o "$tmp/found.safetensors"
check "are there" grep -a -q boxes.0 "$tmp/found.safetensors"
check "boxes are no PNG" exits 3 "$viv" run "$model" "$b" -o "$tmp/boxes.png"
check "several results in one file" exits 5 "$viv" run "$model" "$a" "$b" --task depth -o "$tmp/d.png"

# ---- pipes ----
cat "$tmp/a.png" "$tmp/a.png" "$tmp/dot.png" >"$tmp/frames"
check "PNG frames" sh -c "'$viv' run '$model' - --task detect <'$tmp/frames' >'$tmp/out'"
check "are numbered" json 'map(.frame) == [1,2,3] and .[2].width == 1'
check "without a task" sh -c "'$viv' run '$model' - <'$tmp/frames' >'$tmp/out'"
check "too" json 'length == 3'
printf '\377\0\0\377\0\0\0\0\0\0\0\0' >"$tmp/raw"
check "raw frames" sh -c "'$viv' run '$model' - --frames 2x1 <'$tmp/raw' >'$tmp/out'"
check "of that size" json 'length == 2 and .[0].objects[0].box == [0,0,2,1] and .[1].objects == []'
check "a pipe that ends in a frame" sh -c \
  "head -c 10 '$tmp/raw' | '$viv' run '$model' - --frames 2x1 >'$tmp/out' 2>'$tmp/err'; test \$? -eq 11"
check "keeps the whole frames" json 'map(select(.objects)) | length == 1'
check "and says so" complains 'in the middle of a frame: 4 of 6 bytes'
check "a pipe of something else" sh -c \
  "echo hello | '$viv' run '$model' - 2>'$tmp/err'; test \$? -eq 5"
check "is told what fits" complains '--frames'
check "a wrong size" sh -c "'$viv' run '$model' - --frames 0x3 <'$tmp/raw' 2>'$tmp/err'; test \$? -eq 5"

# ---- COCO ----
check "COCO's format" exits 0 "$viv" run "$model" "$tmp/pics" --format coco -o "$tmp/coco.json"
check "numbers pictures in order" jq -e '.[0] == {"image_id":1,"category_id":0,"bbox":[10,5,20,20],
  "score":1} and .[2].image_id == 2' "$tmp/coco.json"
cp "$a" "$tmp/000139.ppm"
check "or by a file's own number" exits 0 "$viv" run "$model" "$tmp/000139.ppm" --format coco
check "it is used" json '.[0][0].image_id == 139'
check "depth has no such form" exits 3 "$viv" run "$model" "$a" --task depth --format coco
check "an unknown format" exits 5 "$viv" run "$model" "$a" --format xml

for kind in box oks; do
  dir=tests/goldens/detr-ops/op-$kind-ap
  check "eval of $dir" exits 0 "$viv" eval --json --coco "$dir/ground_truth.json" \
    --results "$dir/predictions.json"
  cp "$tmp/out" "$tmp/$kind"
done
# pycocotools 2.0.11's numbers for these files.
check "boxes equal pycocotools" jq -e '[.AP - 0.2628025710582733, .AP50 - 0.3224022388458252,
  .AP_small - 0.12772276997566223, .AR_100 - 0.34904763102531433] | map(fabs) | max < 1e-6' "$tmp/box"
check "keypoints equal pycocotools" jq -e '[.AP - 0.2633954584598541, .AP75 - 0.21256180107593536,
  .AP_large - 0.3366336524486542, .AR - 0.574999988079071] | map(fabs) | max < 1e-6' "$tmp/oks"

cat >"$tmp/truth.json" <<'END'
{"images": [{"id": 1, "file_name": "a.ppm"}, {"id": 2, "file_name": "b.ppm"}],
 "categories": [{"id": 7, "name": "rose"}, {"id": 9, "name": "sky"}],
 "annotations": [
  {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 5, 20, 20], "area": 400, "iscrowd": 0},
  {"id": 2, "image_id": 1, "category_id": 9, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0},
  {"id": 3, "image_id": 2, "category_id": 7, "bbox": [12, 10, 8, 8], "area": 64, "iscrowd": 0},
  {"id": 4, "image_id": 2, "category_id": 9, "bbox": [0, 0, 8, 8], "area": 64, "iscrowd": 0}]}
END
check "eval of a model on a folder" exits 0 "$viv" eval --json --coco "$tmp/truth.json" "$model" \
  "$tmp/pics" -o "$tmp/found.json"
check "categories are met by name" json '.[0].AP == 1 and .[0].kind == "boxes"'
check "speed is told" json '.[0].pictures == 2 and .[0].pictures_per_second > 0'
check "its results" exits 0 "$viv" eval --coco "$tmp/truth.json" --results "$tmp/found.json"
check "give the same" says '^AP  *1.0000'
check "with a detector" exits 0 "$viv" eval --json --coco "$tmp/truth.json" "$model" "$tmp/pics" \
  --task pose --kind boxes --detector "$persons"
check "only its boxes count" json '.[0].results == 2 and .[0].AP == 0.5'
check "a detector for results that are there" exits 2 "$viv" eval --coco "$tmp/truth.json" \
  --results "$tmp/found.json" --detector "$persons"
mv "$b" "$tmp/b.away"
check "a picture is missing" exits 11 "$viv" eval --json --coco "$tmp/truth.json" "$model" "$tmp/pics"
check "it counts as not found" json '.[0].AP < 0.6 and .[0].failed == 1'
sed 's/"image_id": 2, "category_id": 9/"image_id": 5, "category_id": 9/' "$tmp/truth.json" >"$tmp/bad.json"
check "a broken reference" exits 5 "$viv" eval --coco "$tmp/bad.json" --results "$tmp/found.json"
check "is named" complains 'annotation 3 (id 4) names the image 5'
sed 's/"id": 9, "name"/"id": 7, "name"/' "$tmp/truth.json" >"$tmp/bad.json"
check "an id twice" exits 5 "$viv" eval --coco "$tmp/bad.json" --results "$tmp/found.json"
check "is named too" complains 'share the id 7'
check "boxes judged as keypoints" exits 5 "$viv" eval --coco "$tmp/truth.json" \
  --results "$tmp/found.json" --kind keypoints
check "results without annotations" exits 2 "$viv" eval --results "$tmp/found.json"
finish
