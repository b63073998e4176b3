"""Tokenizers beside the Hugging Face tokenizers library, one thread each, in turns; then the masks of grammars.

    python text.py BUILD WORK_FOLDER [--text FILE] [--rounds 5] [--json FILE]

The vocabularies are trained once by the library on English of this machine (licences, manuals) and on made-up
words: byte-level BPE of 128,000 tokens cut like cl100k, WordPiece of 30,000, Unigram of 16,000. Both
programs encode the same file; the shortest processor time of all rounds counts, and the ids must be equal. The library
is asked in the way that is fastest there (encode_batch_fast, no offsets). One word of 1 MB without any
space shows that nothing is quadratic.
"""

import argparse
import glob
import json
import os
import random
import re
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers  # noqa: E402
from tokenizers import pre_tokenizers as pre  # noqa: E402

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SIZE = 3_000_000
REPEATS = 3  # of a turn


def english():
    """Text that a Debian or Python installation has anyway."""
    files = sorted(glob.glob("/usr/share/common-licenses/*"))
    for pattern in ("/usr/share/perl/*/**/*.pod", "/usr/share/doc/**/*.txt"):
        files += sorted(glob.glob(pattern, recursive=True))
    files += sorted(glob.glob(os.path.dirname(os.__file__) + "/pydoc_data/topics.py"))
    files += sorted(glob.glob(os.path.dirname(os.__file__) + "/*.py"))
    text = ""
    for file in files:
        if len(text) < SIZE:
            text += open(file, encoding="utf8", errors="ignore").read()
    return text[:SIZE]


def made_up_words():
    random.seed(3)
    syllables = [a + b + c for a in "bcdfghjklmnprstvwz" for b in "aeiou" for c in ("", *"nrstl")]
    words = [" " + "".join(random.choices(syllables, k=random.randint(2, 5))) for _ in range(220000)]
    return ["".join(words[i : i + 500]) for i in range(0, len(words), 500)]


def train(folder, text):
    parts = [text[i : i + 5000] for i in range(0, len(text), 5000)]
    byte = pre.Sequence([pre.Split(Regex(CL100K), "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    kinds = {
        "bpe-128k": (models.BPE(), byte, None, decoders.ByteLevel(), parts + made_up_words(), trainers.BpeTrainer(
            vocab_size=128000, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False)),
        "wordpiece-30k": (models.WordPiece(unk_token="[UNK]"), pre.BertPreTokenizer(), normalizers.BertNormalizer(),
                          decoders.WordPiece(), parts, trainers.WordPieceTrainer(
                              vocab_size=30000, special_tokens=["[UNK]"], show_progress=False)),
        "unigram-16k": (models.Unigram(), pre.Metaspace(), normalizers.NFKC(), decoders.Metaspace(), parts[:400],
                        trainers.UnigramTrainer(vocab_size=16000, unk_token="<unk>", special_tokens=["<unk>"],
                                                show_progress=False)),
    }
    for name, (model, cut, normal, back, source, trainer) in kinds.items():
        file = f"{folder}/{name}.json"
        if os.path.exists(file):
            continue
        t = Tokenizer(model)
        t.pre_tokenizer, t.decoder = cut, back
        if normal:
            t.normalizer = normal
        t.train_from_iterator(source, trainer)
        t.save(file)
    return list(kinds)


def theirs(tokenizer, text):
    best = 1e9
    for _ in range(REPEATS):
        start = time.process_time()
        n = len(tokenizer.encode_batch_fast([text])[0].ids)
        best = min(best, time.process_time() - start)
    return best, n


def ours(program, file, text_file):
    line = subprocess.run([program, file, text_file], capture_output=True, text=True, check=True).stdout
    opened, seconds, ids = re.fullmatch(r"open (\S+) s  encode (\S+) s  \S+ MB/s  (\d+) ids\n", line).groups()
    return float(seconds), int(ids), float(opened)


def compare(program, file, text_file, rounds):
    text = open(text_file, encoding="utf8", newline="").read()
    tokenizer = Tokenizer.from_file(file)
    best = {"vivarium": 1e9, "tokenizers": 1e9}
    for _ in range(rounds):
        seconds, n, opened = ours(program, file, text_file)
        best["vivarium"] = min(best["vivarium"], seconds)
        seconds, m = theirs(tokenizer, text)
        best["tokenizers"] = min(best["tokenizers"], seconds)
        assert n == m, f"{file}: {n} ids, the library has {m}"
    return best, len(text.encode()), n, opened


def main():
    a = argparse.ArgumentParser()
    a.add_argument("build")
    a.add_argument("work")
    a.add_argument("--text")
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--json")
    a = a.parse_args()
    os.makedirs(a.work, exist_ok=True)
    text = open(a.text, encoding="utf8").read() if a.text else english()
    files = {"English": f"{a.work}/english.txt", "one word of 1 MB": f"{a.work}/word.txt"}
    random.seed(5)
    word = "".join(random.choices("etaoinshrdlucmfwypvbgkjqxz", k=1_000_000))
    for file, content in zip(files.values(), (text, word)):
        open(file, "w", encoding="utf8", newline="").write(content)
    rows = []
    for name in train(a.work, text):
        for kind, file in files.items():
            best, size, ids, opened = compare(f"{a.build}/bench/bench_tokenizer", f"{a.work}/{name}.json", file, a.rounds)
            ratio = best["tokenizers"] / best["vivarium"]
            rows.append({"tokenizer": name, "text": kind, "seconds": best, "bytes": size, "ids": ids, "ratio": ratio})
            print(f"{name:<14} {kind:<17} vivarium {size / best['vivarium'] / 1e6:7.2f} MB/s ({best['vivarium']:.3f} s)"
                  f"   tokenizers {size / best['tokenizers'] / 1e6:6.2f} MB/s ({best['tokenizers']:.3f} s)"
                  f"   ratio {ratio:6.1f}   opened in {opened:.3f} s", flush=True)
    subprocess.run([f"{a.build}/bench/bench_grammar", f"{a.work}/bpe-128k.json"], check=True)
    if a.json:
        os.makedirs(os.path.dirname(a.json) or ".", exist_ok=True)
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    sys.exit(main())
