"""What the trained model is: its configuration, its tokenizer and the layout of a conversation."""

import json
import random
import re

import tasks

SPECIAL = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>", "<think>", "</think>"]

CONFIG = {
    "model_type": "phi4flash", "architectures": ["Phi4FlashForCausalLM"],
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 8,
    "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 64, "mb_per_layer": 2,
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 8,
    "mamba_conv_bias": True, "mamba_proj_bias": False, "mlp_bias": False, "lm_head_bias": False,
    "tie_word_embeddings": True, "hidden_act": "silu", "layer_norm_eps": 1e-5, "max_position_embeddings": 512,
    "attention_dropout": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": 0.02,
    "rope_theta": 10000.0, "use_cache": True, "torch_dtype": "float32",
}

# The layout of Phi-4-mini; `generation prompt` opens the assistant's part.
CHAT_TEMPLATE = ("{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes, in the order of the bytes."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    extra, out = 0, []
    for b in range(256):
        if b in plain:
            out.append(chr(b))
        else:
            out.append(chr(0x100 + extra))
            extra += 1
    return out


PIECES = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def words(seed=1, samples=40000):
    """The whole pieces that become tokens: what the questions and steps are made of, without letters to count,
    Roman numerals and the words that letters are counted in."""
    r = random.Random(seed)
    count = {}
    for _ in range(samples):
        task = r.choice(list(tasks.TASKS))
        _, question, steps, answer = tasks.TASKS[task](r)
        for text in (question, steps, answer):
            for part in re.split(r"(\d)", text):
                for piece in PIECES.findall(part):
                    count[piece] = count.get(piece, 0) + (1 if task not in ("letters", "from_roman", "to_roman") else 0.3)
    lower = set(tasks.WORDS)
    keep = []
    for piece, n in sorted(count.items(), key=lambda x: (-x[1], x[0])):
        bare = piece.strip()
        if len(piece.encode()) < 2 or n < 20 or bare in lower or set(bare) <= set("IVXLCDM") and bare:
            continue
        if bare.islower() and not piece.startswith(" ") and len(bare) > 1 and bare != "swap":
            continue                            # a bare lower-case run is a word being spelled
        if bare.isalpha() and len(bare) == 1 or piece == "=-":
            continue
        keep.append(piece)
    return keep


def build_tokenizer(folder):
    """Writes tokenizer.json, tokenizer_config.json, generation_config.json and config.json.

    The vocabulary is the 256 bytes, then whole pieces.  There are no merges: with `ignore_merges` a piece that is
    in the vocabulary is one token and every other piece is spelled byte by byte, so that a word whose letters are
    to be counted and a Roman numeral arrive letter by letter."""
    vocabulary = {}
    for symbol in byte_alphabet():
        vocabulary[symbol] = len(vocabulary)
    alphabet = byte_alphabet()
    for piece in words():
        vocabulary["".join(alphabet[b] for b in piece.encode())] = len(vocabulary)
    ids = {token: len(vocabulary) + i for i, token in enumerate(SPECIAL)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": "think" not in t} for t, i in ids.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                  "vocab": vocabulary, "merges": []},
    }

    def write(name, value):
        with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=1)
            f.write("\n")

    write("tokenizer.json", tokenizer)
    write("tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": None, "eos_token": "<|end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "add_bos_token": False, "add_eos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False,
        "model_max_length": CONFIG["max_position_embeddings"], "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(i): {"content": t, "lstrip": False, "rstrip": False, "normalized": False,
                                          "single_word": False, "special": "think" not in t} for t, i in ids.items()}})
    end, text = ids["<|end|>"], ids["<|endoftext|>"]
    config = dict(CONFIG, vocab_size=len(vocabulary) + len(ids), bos_token_id=text, eos_token_id=end, pad_token_id=text)
    write("config.json", config)
    write("generation_config.json", {"bos_token_id": text, "eos_token_id": [end, text], "pad_token_id": text,
                                     "do_sample": False, "max_new_tokens": 256})
    return config


def prompt(question):
    return f"<|user|>{question}<|end|><|assistant|>"


def conversation(question, steps, answer):
    return f"{prompt(question)}<think>{steps}</think>{answer}<|end|>"
