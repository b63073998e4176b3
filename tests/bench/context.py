#!/usr/bin/env python3
"""What SambaY is for: a long context beside a full-attention Llama of the same size, in this runtime.

    tests/bench/context.py BUILD [--lengths 2048 8192 32768] [--layers 8] [--width 256] [--rounds 3]

Two checkpoints with random weights (bf16) are written to BUILD/context, alike in layers, width, heads and
vocabulary; the Llama's MLP is widened until it has as many parameters. For each length: time of the prompt,
tokens per second after it, bytes of state. Medians of the rounds; JSON in BUILD/bench/context.json.
"""

import argparse
import json
import math
import os
import statistics
import struct
import subprocess

VOCAB, WINDOW, STATES, TAPS, EXPAND = 8192, 512, 16, 4, 2
HIGH = bytes(0x3C | (i & 0x80) for i in range(256))  # sign and exponent: magnitudes of 1/128 to 1/64
LOW = bytes(i & 0x7F for i in range(256))


def noise(n):
    both = bytearray(2 * n)
    both[0::2] = os.urandom(n).translate(LOW)
    both[1::2] = os.urandom(n).translate(HIGH)
    return bytes(both)


def save(folder, config, tensors):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(config, f)
    header, at = {}, 0
    for name, (shape, _) in tensors.items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{folder}/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for shape, kind in tensors.values():
            n = math.prod(shape)
            f.write(noise(n) if kind == "noise" else (b"\x80\x3f" if kind == "one" else b"\0\0") * n)
    return sum(math.prod(s) for s, _ in tensors.values())


def sambay(layers, d, heads, kv_heads, context):
    head, inner, rank, ff, half = d // heads, EXPAND * d, (d + 15) // 16, 4 * d, layers // 2
    kv = kv_heads * head
    t = {"model.embed_tokens.weight": ([VOCAB, d], "noise")}

    def norm(name):
        t[name + ".weight"], t[name + ".bias"] = ([d], "one"), ([d], "zero")

    for i in range(layers):
        at = f"model.layers.{i}."
        norm(at + "input_layernorm")
        norm(at + "post_attention_layernorm")
        t[at + "mlp.fc1.weight"], t[at + "mlp.fc2.weight"] = ([2 * ff, d], "noise"), ([d, ff], "noise")
        at += "attn."
        if i % 2:
            wide = d + 2 * kv if i <= half + 1 else d
            t[at + "Wqkv.weight"], t[at + "Wqkv.bias"] = ([wide, d], "noise"), ([wide], "zero")
            t[at + "out_proj.weight"], t[at + "out_proj.bias"] = ([d, d], "noise"), ([d], "zero")
            for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
                t[at + "inner_cross_attn." + name] = ([head], "zero")
            t[at + "inner_cross_attn.subln.weight"] = ([2 * head], "one")
            continue
        t[at + "out_proj.weight"] = ([d, inner], "noise")
        if i > half:
            t[at + "in_proj.weight"] = ([inner, d], "noise")
            continue
        t[at + "in_proj.weight"] = ([2 * inner, d], "noise")
        t[at + "conv1d.weight"], t[at + "conv1d.bias"] = ([inner, 1, TAPS], "noise"), ([inner], "zero")
        t[at + "x_proj.weight"] = ([rank + 2 * STATES, inner], "noise")
        t[at + "dt_proj.weight"], t[at + "dt_proj.bias"] = ([inner, rank], "noise"), ([inner], "zero")
        t[at + "A_log"], t[at + "D"] = ([inner, STATES], "zero"), ([inner], "one")
    norm("model.final_layernorm")
    config = {
        "model_type": "phi4flash", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "sliding_window": WINDOW, "mb_per_layer": 2,
        "mamba_d_state": STATES, "mamba_d_conv": TAPS, "mamba_expand": EXPAND, "mamba_dt_rank": rank,
        "tie_word_embeddings": True, "hidden_act": "silu", "layer_norm_eps": 1e-5,
        "max_position_embeddings": context, "vocab_size": VOCAB, "eos_token_id": 2, "bos_token_id": 1,
    }  # fmt: skip
    return config, t


def llama(layers, d, heads, kv_heads, ff, context):
    kv = kv_heads * (d // heads)
    t = {"model.embed_tokens.weight": ([VOCAB, d], "noise"), "model.norm.weight": ([d], "one")}
    for i in range(layers):
        at = f"model.layers.{i}."
        t[at + "input_layernorm.weight"] = t[at + "post_attention_layernorm.weight"] = ([d], "one")
        for name, rows in (("q", d), ("k", kv), ("v", kv), ("o", d)):
            t[at + f"self_attn.{name}_proj.weight"] = ([rows, d], "noise")
        t[at + "mlp.gate_proj.weight"] = t[at + "mlp.up_proj.weight"] = ([ff, d], "noise")
        t[at + "mlp.down_proj.weight"] = ([d, ff], "noise")
    config = {
        "model_type": "llama", "hidden_size": d, "intermediate_size": ff, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5, "max_position_embeddings": context, "vocab_size": VOCAB, "eos_token_id": 2,
        "bos_token_id": 1,
    }  # fmt: skip
    return config, t


def count(tensors):
    return sum(math.prod(s) for s, _ in tensors.values())


def measure(build, folder, lengths):
    done = subprocess.run(
        [f"{build}/bench/bench_context", folder, *map(str, lengths)],
        env={**os.environ, "VIV_TEST_BUILD": build},
        stdout=subprocess.PIPE,
        check=True,
    )
    out = {}
    for line in done.stdout.decode().splitlines():
        r = json.loads(line)
        c = r["counters"]
        out[r["length"]] = (c["prefill_ms"] / 1e3, (r["new"] - 1) / c["decode_ms"] * 1e3)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--lengths", type=int, nargs="+", default=[2048, 8192, 32768])
    p.add_argument("--layers", type=int, default=8)
    p.add_argument("--width", type=int, default=256)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    heads, kv_heads, context = a.width // 32, a.width // 64, max(a.lengths) + 64
    head = a.width // heads
    config, tensors = sambay(a.layers, a.width, heads, kv_heads, context)
    own = count(tensors)
    ff = 32
    while count(llama(a.layers, a.width, heads, kv_heads, ff + 32, context)[1]) <= own:
        ff += 32
    plain = llama(a.layers, a.width, heads, kv_heads, ff, context)
    models = {"SambaY": f"{a.build}/context/sambay", "Llama": f"{a.build}/context/llama"}
    save(models["SambaY"], config, tensors)
    save(models["Llama"], *plain)
    print(f"{a.layers} layers of {a.width}; SambaY {own / 1e6:.1f} M, Llama {count(plain[1]) / 1e6:.1f} M parameters")

    # Keys and values in f32. SambaY: one full layer, windows below half, a state and a tail for each scan.
    row = 2 * kv_heads * head * 4
    inner = EXPAND * a.width
    fixed = (a.layers // 4 + 1) * inner * (STATES + TAPS - 1) * 4
    state = {
        "SambaY": lambda n: n * row + a.layers // 4 * min(n, WINDOW) * row + fixed,
        "Llama": lambda n: n * row * a.layers,
    }
    rounds = [{name: measure(a.build, folder, a.lengths) for name, folder in models.items()} for _ in range(a.rounds)]
    rows = []
    print("| tokens | | prompt, s | generation, tokens/s | state, KiB | bytes a token |\n|---|---|---|---|---|---|")
    for n in a.lengths:
        for name in models:
            prompt = statistics.median(r[name][n][0] for r in rounds)
            speed = statistics.median(r[name][n][1] for r in rounds)
            held = state[name](n)
            rows.append({"tokens": n, "model": name, "prompt_s": prompt, "tokens_per_second": speed, "state": held})
            print(f"| {n} | {name} | {prompt:.2f} | {speed:.0f} | {held / 1024:.0f} | {held / n:.0f} |", flush=True)
    os.makedirs(f"{a.build}/bench", exist_ok=True)
    with open(f"{a.build}/bench/context.json", "w") as f:
        json.dump({"layers": a.layers, "width": a.width, "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
