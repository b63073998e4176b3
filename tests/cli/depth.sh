#!/bin/sh
# viv run on pairs of pictures and on frames of a moving camera: depth as files, the camera as JSON.
. tests/cli/lib.inc

stereo=tests/goldens/ccnext/tiny
video=tests/goldens/prodepth/tiny
endo=tests/goldens/endo3dac/tiny
plain=tests/goldens/depth-anything/tiny
left=$stereo/left_0.png
right=$stereo/right_0.png
before=$video/frame_0_-1.png
now=$video/frame_0_0.png

# ---- pairs ----
check "a pair" exits 0 "$viv" run "$stereo" "$left" "$right" -o "$tmp/stereo.npy" --draw "$tmp/stereo.png"
check "is one result" json 'length == 1 and .[0].task == "stereo_depth" and .[0].depth.width == 150'
check "which names both" json '.[0].right | endswith("right_0.png")'
check "with the left picture's size" sh -c "head -c 80 '$tmp/stereo.npy' | grep -a -q '(70, 150, )'"
check "drawn" test -s "$tmp/stereo.png"
check "two pairs" exits 0 "$viv" run "$stereo" "$left" "$right" "$right" "$left"
check "are two results" json 'length == 2 and .[0].depth != .[1].depth'
check "a picture alone" exits 5 "$viv" run "$stereo" "$left"
check "has no right one" complains "left picture without a right one"
check "an odd one stops no other" exits 11 "$viv" run "$stereo" "$left" "$right" "$left"
check "whose result is there" json '.[0].depth.width == 150 and .[1].error.code == "bad input"'
check "a pair takes no boxes" exits 5 "$viv" run "$stereo" "$left" "$right" --detector "$stereo"

# ---- frames ----
lens=54,75,45,30
check "frames" exits 0 "$viv" run "$video" "$before" "$now" --task video_depth --intrinsics $lens \
  --camera "$tmp/camera.json" -o "$tmp/maps/"
check "are a result each" json 'length == 2 and .[1].depth.height == 61'
check "as 16 bits" test "$(od -An -tu1 -j24 -N2 "$tmp/maps/frame_0_0.png" | tr -d ' ')" = 160
cp "$tmp/out" "$tmp/first"
check "the frame before matters" exits 0 "$viv" run "$video" "$now" --task video_depth
check "to depth" sh -c "jq -s -e '.[1].depth.mean' '$tmp/first' >'$tmp/a'; jq -s -e '.[0].depth.mean' '$tmp/out' >'$tmp/b'; ! cmp -s '$tmp/a' '$tmp/b'"
cp "$tmp/camera.json" "$tmp/out"
check "the camera stands still at first" json '.[0].frames[0] | .motion == null and .camera_to_world[0] == [1,0,0,0]'
# motion and camera_to_world undo one another after one step
check "and then moves" json '.[0].frames[1] | .motion as $m | .camera_to_world as $w |
  [range(3) as $i | range(4) as $j | ([range(4) as $k | $m[$i][$k] * $w[$k][$j]] | add) - (if $i == $j then 1 else 0 end) | fabs] | max < 1e-5'
check "points of each frame" exits 0 "$viv" run "$video" "$before" "$now" --task video_depth --intrinsics $lens \
  -o "$tmp/points/" --format ply
check "are there" grep -a -q '^element vertex 5490' "$tmp/points/frame_0_0.ply"
check "frames without a camera" exits 5 "$viv" run "$video" "$before" "$now" --task video_depth
check "say what they need" complains "intrinsics FX,FY,CX,CY"
check "frames of two sizes" exits 11 "$viv" run "$video" "$left" "$now" --task video_depth --intrinsics $lens
check "are refused" complains "frames of one camera have one size"

# ---- motion beside the depth of single pictures ----
check "single pictures" exits 0 "$viv" run "$endo" "$endo/frame_0.png" "$endo/other_0.png" --camera "$tmp/out2"
cp "$tmp/out2" "$tmp/out"
check "have intrinsics in the picture's pixels" json '.[0].frames[1].intrinsics | .fx > 90 and .fx < 110 and .cy > 20 and .cy < 30'
check "points by the model's own camera" exits 0 "$viv" run "$endo" "$endo/frame_0.png" -o "$tmp/own.ply"
check "are there" grep -a -q '^element vertex [1-9]' "$tmp/own.ply"
check "another camera" exits 0 "$viv" run "$endo" "$endo/frame_0.png" -o "$tmp/given.ply" --intrinsics 30,30,5,5
check "sees other points" sh -c "! cmp -s '$tmp/own.ply' '$tmp/given.ply'"
check "a model that knows no camera" exits 5 "$viv" run "$plain" "$now" -o "$tmp/none.ply"
check "asks for one" complains "intrinsics FX,FY,CX,CY"
check "one that sees motion, but no camera" exits 5 "$viv" run "$video" "$now" --task depth -o "$tmp/none.ply"
check "asks too" complains "intrinsics FX,FY,CX,CY"
check "no motion seen" exits 3 "$viv" run "$plain" "$now" --camera "$tmp/none"
check "is said" complains "sees no motion"
check "files want a folder" exits 5 "$viv" run "$plain" "$now" --format pfm
check "kinds are known" exits 5 "$viv" run "$plain" "$now" -o "$tmp/maps/" --format tiff
check "a folder of NPY" exits 0 "$viv" run "$plain" "$now" "$before" -o "$tmp/npy/" --format npy
check "for all" test -s "$tmp/npy/frame_0_0.npy" -a -s "$tmp/npy/frame_0_-1.npy"
finish
