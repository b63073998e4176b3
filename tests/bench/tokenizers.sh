#!/bin/sh
# Tokenizers side by side with the tokenizers library, one thread each, in alternation:
#   sh tests/bench/tokenizers.sh [BUILD] [TEXT]
# Makes a Python environment of its own, trains a byte-level BPE of 128,000 tokens, a WordPiece and a
# Unigram model on TEXT (default: Debian's licences and manuals) and on made-up words, and prints the
# megabytes per second of both and their ratio. Needs network for pip; nothing of it is kept.
set -eu
build=${1:-build} text=${2:-}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" -q install tokenizers==0.23.3
[ -n "$text" ] && cp "$text" "$dir/text" || cat /usr/share/common-licenses/* \
  $(find /usr/share/perl /usr/share/doc -name '*.pod' -o -name '*.txt' 2>/dev/null | sort | head -300) \
  2>/dev/null | iconv -c -f utf8 -t utf8 | head -c 3000000 >"$dir/text"
cat >"$dir/bench.py" <<'P'
import os, random, subprocess, sys, time
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre
folder, ours = sys.argv[1:]
text = open(folder + "/text", encoding="utf8").read()
size = len(text.encode())
cl100k = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
random.seed(3)
syllables = [a + b + c for a in "bcdfghjklmnprstvwz" for b in "aeiou" for c in ("", *"nrstl")]
words = [" " + "".join(random.choices(syllables, k=random.randint(2, 5))) for _ in range(220000)]
parts = [text[i:i + 5000] for i in range(0, len(text), 5000)]
made_up = ["".join(words[i:i + 500]) for i in range(0, len(words), 500)]
byte = pre.Sequence([pre.Split(Regex(cl100k), "isolated"),
                     pre.ByteLevel(add_prefix_space=False, use_regex=False)])
kinds = {
    "bpe-128k": (models.BPE(), byte, None, parts + made_up, trainers.BpeTrainer(
        vocab_size=128000, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False)),
    "wordpiece-30k": (models.WordPiece(unk_token="[UNK]"), pre.BertPreTokenizer(),
                      normalizers.BertNormalizer(), parts, trainers.WordPieceTrainer(
        vocab_size=30000, special_tokens=["[UNK]"], show_progress=False)),
    "unigram-16k": (models.Unigram(), pre.Metaspace(), normalizers.NFKC(), parts[:400],
                    trainers.UnigramTrainer(vocab_size=16000, unk_token="<unk>",
                                            special_tokens=["<unk>"], show_progress=False)),
}
for name, (model, cut, normal, source, trainer) in kinds.items():
    t = Tokenizer(model)
    t.pre_tokenizer = cut
    if normal:
        t.normalizer = normal
    t.train_from_iterator(source, trainer)
    file = f"{folder}/{name}.json"
    t.save(file)
    t = Tokenizer.from_file(file)
    best, line = 1e9, ""
    for _ in range(3):
        start = time.time()
        n = len(t.encode(text).ids)
        best = min(best, time.time() - start)
        line = subprocess.run([ours, file, folder + "/text"], capture_output=True, text=True).stdout
    rate = float(line.split("encode ")[1].split()[0])
    theirs = size / best / 1e6
    assert int(line.split()[-2]) == n, "the ids differ"
    print(f"{name:14} ours {rate:7.2f} MB/s   library {theirs:6.2f} MB/s   ratio {rate / theirs:5.1f}"
          f"   {line.split('  ')[0]}")
P
"$dir/venv/bin/python" "$dir/bench.py" "$dir" "$build/bench/bench_tokenizer"
