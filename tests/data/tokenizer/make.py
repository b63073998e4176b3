"""Makes the small tokenizer.json files of this folder and what the tokenizers library says to them.

    python3 -m pip install tokenizers==0.23.3 && python3 make.py

NAME.json is the tokenizer, NAME.cases.json a list of texts with the ids (special: the template was
applied, parse: literal special tokens became their ids) and their decoding with and without special
tokens. Trained on /usr/share/common-licenses and the lines below. stories260K.* is that model's own
tokenizer and what its reference implementation says.
"""
import glob
import json
import os
import random

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

HERE = os.path.dirname(os.path.abspath(__file__))
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = WORDS + r"\p{N}{1,3}" + REST
QWEN2 = WORDS + r"\p{N}" + REST
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
PRE = r"[^\r\n\p{L}\p{N}]?"
O200K = (PRE + UP + "*" + LOW + "+" + ENDS + PRE + UP + "+" + LOW + "*" + ENDS +
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

LINES = [
    "Привет, мир! Как дела? Всё хорошо.", "日本語のテキストと漢字。東京は大きい。", "안녕하세요 세계",
    "naïve café Ünïcode señor Straße ÉCOLE", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया", "ไทยแลนด์",
    "😀 👩‍👩‍👧 🏳️‍🌈 ❤️ emoji 🙂🙂", "def f(x):\n    return x + 1\n\n\tif x == 10:\n",
    "I'm sure they've said it's 12345 and 6789.", "HTTPServer getElementById snake_case XMLHttp",
]

ATOMS = [
    " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", " \n", "\n ", "\u00a0", "\u3000", "\u2028",
    "\x0b", "\x85", "\u200b", "\u200d", "\ufeff", "a", "A", "the", " the", "The", "THE", "and",
    " of", "ing", "'s", "'S", "'\u017f", "'t", "'re", "'RE", "'Ll", "'ve", "'m", "'d", "'", "''",
    "\u2019s", "0", "1", "12", "123", "1234", "12345678", "\u0661\u0662\u0663", "\u00bd", "\u2167",
    "\u00b2", "!", "?!", "...", "/", "//", "!/\n", ".\r\n", "-", "--", "_", "__", "#", "<", ">",
    "<|", "|>", "(", ")", "[", "@", "\\", "\"", "\u20ac", "\u2014", "\u2581", "\u2581\u2581",
    "\u0120", "\u00e9", "e\u0301", "\u0301", "\u0301\u0302", "\u0345", "A\u030a", "\u212b",
    "\u1e9b\u0323", "\u0958", "\u00df", "\u1e9e", "\u0130", "\u01c5", "\u01c6", "\u02b0", "\u02bc",
    "\u00aa", "\u4e2d", "\u6587\u5b57", "\u3042", "\u30c6\u30b9\u30c8", "\uac00", "\ud55c\uad6d",
    "\u1112\u1161\u11ab", "\u0435\u0436", "\u041f\u0420\u0418", "\u0645\u0631\u062d\u0628\u0627",
    "\u05e2\u05b4\u05d1", "\u0928\u092e\u0938\u094d", "\u0e44\u0e17\u0e22", "\U0001f600",
    "\U0001f469\u200d\U0001f467", "\U0001f3f3\ufe0f", "\u2764\ufe0f", "\U0001d49c", "\U00010400",
    "\U00020000", "\ufffd", "\ue000", "\uffff", "\x01", "\x7f", "\x1b", "aB", "ABc", "AbC",
    "camelCase", "XMLHttp", "don't", "I'LL", "x=1;", "def f(x):\n    return", "<0x41>", "<0x0A>",
    "<0xE4>", "https://a.b/c?d=e", "\u0600", "\u17b4", "\U000e0101",
]


def texts(seed, n, specials):
    rng = random.Random(seed)
    out = ["", " ", "  ", "a", " a", "a ", "\n", "Hello, world!"]
    while len(out) < n:
        kind = rng.random()
        if kind < 0.75:
            pool = ATOMS + specials * 3
            out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 14))))
        elif kind < 0.85:
            out.append("".join(rng.choice(" \n\t\r\u00a0'a1A") for _ in range(rng.randint(1, 20))))
        elif kind < 0.95:
            out.append("".join(scalar(rng) for _ in range(rng.randint(1, 12))))
        else:
            out.append(rng.choice(LINES) + rng.choice(specials or [""]) + rng.choice(LINES))
    return [t for t in out if "\0" not in t]


def scalar(rng):
    top = rng.choice([0x80, 0x250, 0x800, 0x3000, 0x10000, 0x20000, 0x110000])
    cp = rng.randrange(top)
    return "x" if 0xD800 <= cp < 0xE000 else chr(cp)


def corpus():
    for name in sorted(glob.glob("/usr/share/common-licenses/*")):
        if not os.path.islink(name):
            with open(name, encoding="utf-8", errors="replace") as f:
                yield f.read()
    for _ in range(30):
        yield from LINES


def special(*names, **options):
    return [AddedToken(n, special=True, normalized=False, **options) for n in names]


def byte_level(pre, size, first=(), normalizer=None, model=None):
    t = Tokenizer(models.BPE(**(model or {})))
    t.pre_tokenizer, t.decoder = pre, decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(first), initial_alphabet=alphabet,
        show_progress=False))
    return t


def split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def template(before, t):
    return processors.TemplateProcessing(single=f"{before} $A", pair=f"{before} $A $B",
                                         special_tokens=[(before, t.token_to_id(before))])


def spiece(size, pre=None, normalizer=None, decoder=None, fallback=True, **model):
    names = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] * fallback
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=fallback, **model))
    # Pieces are trained with \u2581 in front of words, whatever the file does later.
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, special_tokens=names, limit_alphabet=90, show_progress=False))
    j = json.loads(t.to_str())
    j["added_tokens"] = j["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(j))
    if pre:
        t.pre_tokenizer = pre
    else:
        t = without(t, "pre_tokenizer")
    if normalizer:
        t.normalizer = normalizer
    t.decoder = decoder or decoders.Sequence([
        decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    return t


def without(t, key):
    j = json.loads(t.to_str())
    j[key] = None
    return Tokenizer.from_str(json.dumps(j))


def make():
    """Yields name, tokenizer, special spellings."""
    pre = pre_tokenizers
    t = byte_level(pre.ByteLevel(add_prefix_space=False), 600, special("<|endoftext|>"))
    yield "gpt2", t, ["<|endoftext|>"]
    t = byte_level(pre.Sequence([pre.Digits(True), pre.ByteLevel(add_prefix_space=False)]), 600,
                   special("<|endoftext|>", "<fim_prefix>"))
    yield "starcoder", t, ["<|endoftext|>", "<fim_prefix>"]
    t = byte_level(split(CL100K), 700, special("<|begin|>", "<|end|>"),
                   model={"ignore_merges": True})
    t.post_processor = processors.Sequence([processors.ByteLevel(), template("<|begin|>", t)])
    yield "cl100k", t, ["<|begin|>", "<|end|>"]
    t = byte_level(split(O200K), 700)
    t.add_special_tokens(special("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"))
    yield "o200k", t, ["<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>"]
    t = byte_level(split(QWEN2), 600, normalizer=normalizers.NFC())
    t.add_special_tokens(special("<|im_start|>", "<|im_end|>"))
    t.add_tokens([AddedToken("<think>", normalized=False),
                  AddedToken("caf\u00e9", normalized=True)])
    yield "qwen2", t, ["<|im_start|>", "<|im_end|>", "<think>", "caf\u00e9", "cafe\u0301"]
    t = byte_level(pre.ByteLevel(add_prefix_space=True), 600, special("<s>", "</s>"))
    t.add_special_tokens(special("<mask>", lstrip=True))
    t.add_tokens([AddedToken("word", single_word=True), AddedToken("<r>", rstrip=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    yield "roberta", t, ["<s>", "</s>", "<mask>", " <mask>", "word", " word ", "<r>", "<r>  "]
    t = spiece(800, normalizer=normalizers.Sequence([normalizers.Prepend("\u2581"),
                                                     normalizers.Replace(" ", "\u2581")]),
               fuse_unk=True)
    t.post_processor = template("<s>", t)
    yield "llama2", t, ["<s>", "</s>", "<unk>"]
    t = spiece(800, pre.Metaspace(prepend_scheme="first", split=False), fuse_unk=True)
    t.add_special_tokens(special("[INST]", "[/INST]"))
    t.post_processor = template("<s>", t)
    yield "mistral", t, ["<s>", "[INST]", "[/INST]"]
    t = spiece(500, pre.Metaspace(), decoder=decoders.Metaspace(), fallback=False, fuse_unk=False)
    yield "unk", t, ["<s>", "<unk>"]
    t = spiece(500, pre.Metaspace(), decoder=decoders.Metaspace(), fallback=False, fuse_unk=True)
    yield "unk-fused", t, ["<s>", "<unk>"]


def expectations(t, all_texts, seed):
    rng = random.Random(seed)
    for text in all_texts:
        add, parse = rng.random() < 0.5, rng.random() < 0.8
        t.encode_special_tokens = not parse
        ids = t.encode(text, add_special_tokens=add).ids
        yield {"text": text, "special": add, "parse": parse, "ids": ids,
               "decoded": t.decode(ids, skip_special_tokens=False),
               "skipped": t.decode(ids, skip_special_tokens=True)}


if __name__ == "__main__":
    for name, t, specials in make():
        with open(f"{HERE}/{name}.json", "w", encoding="utf-8") as f:
            f.write(t.to_str())
        cases = list(expectations(t, texts(name, 100, specials), name))
        with open(f"{HERE}/{name}.cases.json", "w", encoding="utf-8") as f:
            rows = [json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases]
            f.write("[\n" + ",\n".join(rows) + "\n]\n")
        print(name, t.get_vocab_size(), os.path.getsize(f"{HERE}/{name}.json"))
