#!/bin/sh
# run on medical volumes: NIfTI in, labels out in the same place of the patient.
. tests/cli/lib.inc
model=tests/goldens/unet3d/sliding-window

# A NIfTI-1 file FILE of X x Y x Z bytes; its first axis runs to the left.
put() {
  printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
volume() {
  head -c 352 /dev/zero >"$1"
  put "$1" 0 '\134\001'
  put "$1" 40 "\003\000\\$(printf %03o "$2")\000\\$(printf %03o "$3")\000\\$(printf %03o "$4")\000\001\000\001\000\001\000\001\000"
  put "$1" 70 '\002\000\010\000'
  put "$1" 76 '\000\000\200\077\000\000\200\077\000\000\000\100\000\000\200\077'
  put "$1" 108 '\000\000\260\103'
  put "$1" 344 'n+1\000'
  head -c $(($2 * $3 * $4)) "$viv" | tr '\000-\377' '\001-\377\000' >>"$1"
}
volume "$tmp/scan.nii" 19 14 9
volume "$tmp/other.nii" 12 14 9

check "a volume" exits 0 "$viv" run "$model" "$tmp/scan.nii" -o "$tmp/labels.nii" -p 'roi_size=[16,12,8]'
check "gives its size, spacing and classes" json \
  '.[0] | .size == [19,14,9] and .spacing == [1,2,1] and .task == "segment3d" and
          ([.classes[].voxels] | add) == 2394 and (([.classes[].ml] | add) - 4.788 | fabs) < 1e-9'
check "labels are bytes with a header" test "$(wc -c <"$tmp/labels.nii")" -eq $((352 + 2394))
check "on the scan's grid" test "$(od -An -td2 -j40 -N8 "$tmp/labels.nii" | tr -s ' ')" = " 3 19 14 9"
gzip -k "$tmp/scan.nii"
check "a compressed one" exits 0 "$viv" run "$model" "$tmp/scan.nii.gz" -o "$tmp/labels.nii.gz" -p 'roi_size=[16,12,8]'
check "has the same labels" sh -c "gzip -dc '$tmp/labels.nii.gz' | cmp -s - '$tmp/labels.nii'"
check "the model's own CT rule" exits 0 "$viv" run "$model" "$tmp/scan.nii" -o "$tmp/ct.nii" \
  -p 'roi_size=[16,12,8]' -p 'intensity="ct"' -p 'mode="gaussian"'
check "two channels for a network of one" exits 5 "$viv" run "$model" "$tmp/scan.nii" "$tmp/scan.nii"
check "are named" complains "volume"
check "volumes of two grids" exits 5 "$viv" run "$model" "$tmp/scan.nii" "$tmp/other.nii"
check "are named with their sizes" complains "12 x 14 x 9"
check "labels in a picture's file" exits 5 "$viv" run "$model" "$tmp/scan.nii" -o "$tmp/labels.png"
head -c 1000 "$tmp/scan.nii" >"$tmp/torn.nii"
check "a torn file" exits 5 "$viv" run "$model" "$tmp/torn.nii"
check "says where it ends" complains "ends after 1000 of 2746"
volume "$tmp/holes.nii" 4 4 4
put "$tmp/holes.nii" 70 '\020\000\040\000' # 64 floats: the bytes that follow are some of them
for i in 1 2 3 4 5 6; do printf '\000\000\300\177\000\000\300\177\000\000\300\177\000\000\300\177' >>"$tmp/holes.nii"; done
head -c 96 /dev/zero >>"$tmp/holes.nii"
check "a scan with holes" exits 0 "$viv" run "$model" "$tmp/holes.nii" -p 'roi_size=[16,12,8]'
check "says so" complains "voxels are no numbers, and count as 0"
check "a file that is not there" exits 3 "$viv" run "$model" "$tmp/no.nii"
check "a model of pictures" exits 3 "$viv" run tests/goldens/daf-stack/full-png "$tmp/scan.nii"
check "says so" complains "segment3d"
finish
