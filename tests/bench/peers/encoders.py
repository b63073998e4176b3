"""Encoders of official sizes with random weights: Vivarium against PyTorch and ONNX Runtime.

    python encoders.py VIV WORK_FOLDER [--threads 1 2] [--repetitions 7] [--json FILE]

Writes a checkpoint under its official names, runs the same weights and inputs through `viv bench --task`,
PyTorch (eager, scaled_dot_product_attention) and ONNX Runtime (the same module exported), one after the other
in turns, and prints medians, spread and ratios. All three compute in float32.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy
import torch
from safetensors.torch import save_file


class BertLayer(torch.nn.Module):
    def __init__(self, d, ff, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.o = (torch.nn.Linear(d, d) for _ in range(4))
        self.norm1, self.norm2 = torch.nn.LayerNorm(d, eps=1e-12), torch.nn.LayerNorm(d, eps=1e-12)
        self.up, self.down = torch.nn.Linear(d, ff), torch.nn.Linear(ff, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = (m(x).view(b, t, self.heads, d // self.heads).transpose(1, 2) for m in (self.q, self.k, self.v))
        a = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, t, d)
        x = self.norm1(x + self.o(a))
        return self.norm2(x + self.down(torch.nn.functional.gelu(self.up(x))))


class Bert(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        d = c["hidden_size"]
        self.words = torch.nn.Embedding(c["vocab_size"], d)
        self.places = torch.nn.Embedding(c["max_position_embeddings"], d)
        self.types = torch.nn.Embedding(2, d)
        self.norm = torch.nn.LayerNorm(d, eps=1e-12)
        self.layers = torch.nn.ModuleList(
            BertLayer(d, c["intermediate_size"], c["num_attention_heads"]) for _ in range(c["num_hidden_layers"])
        )

    def forward(self, input_ids):
        t = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.types.weight[0] + self.places(t))
        for layer in self.layers:
            x = layer(x)
        return x

    def official(self):
        """The weights under the names of BertModel."""
        out = {}
        put = lambda name, m: out.update({f"{name}.weight": m.weight.detach(), f"{name}.bias": m.bias.detach()})
        out["embeddings.word_embeddings.weight"] = self.words.weight.detach()
        out["embeddings.position_embeddings.weight"] = self.places.weight.detach()
        out["embeddings.token_type_embeddings.weight"] = self.types.weight.detach()
        put("embeddings.LayerNorm", self.norm)
        for i, w in enumerate(self.layers):
            p = f"encoder.layer.{i}"
            put(f"{p}.attention.self.query", w.q)
            put(f"{p}.attention.self.key", w.k)
            put(f"{p}.attention.self.value", w.v)
            put(f"{p}.attention.output.dense", w.o)
            put(f"{p}.attention.output.LayerNorm", w.norm1)
            put(f"{p}.intermediate.dense", w.up)
            put(f"{p}.output.dense", w.down)
            put(f"{p}.output.LayerNorm", w.norm2)
        return {k: v.contiguous().clone() for k, v in out.items()}


BERT_BASE = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


def make_bert(folder, tokens):
    torch.manual_seed(1)
    model = Bert(BERT_BASE).eval()
    os.makedirs(folder, exist_ok=True)
    save_file(model.official(), f"{folder}/model.safetensors")
    json.dump(BERT_BASE, open(f"{folder}/config.json", "w"))
    ids = torch.randint(1000, 30000, (1, tokens))
    save_file({"input_ids": ids}, f"{folder}/inputs-{tokens}.safetensors")
    return model, ids


def timed(run):
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def viv_times(viv, folder, tokens, threads, n):
    out = subprocess.run(
        [viv, "bench", "--task", "forward", "-i", f"input_ids={folder}/inputs-{tokens}.safetensors:input_ids",
         "--param", 'outputs=["last_hidden_state"]', "-r", str(n), "--json", folder],
        env={**os.environ, "VIV_THREADS": str(threads)}, check=True, capture_output=True, text=True,
    )
    return json.loads(out.stdout)


def onnx_session(model, ids, path, threads):
    import onnxruntime

    if not os.path.exists(path):
        torch.onnx.export(model, (ids,), path, input_names=["input_ids"], output_names=["x"], dynamo=False,
                          opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main():
    a = argparse.ArgumentParser()
    a.add_argument("viv")
    a.add_argument("work")
    a.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    a.add_argument("--repetitions", type=int, default=7)
    a.add_argument("--json")
    a = a.parse_args()
    rows = []
    print(f"{'encoder':<22} threads {'vivarium':>10} {'pytorch':>10} {'onnxrt':>10}  (ms, median)   vs faster   memory")
    for tokens in (128, 512):
        folder = f"{a.work}/bert-base"
        model, ids = make_bert(folder, tokens)
        for threads in a.threads:
            torch.set_num_threads(threads)
            session = onnx_session(model, ids, f"{a.work}/bert-{tokens}.onnx", threads)
            feed = {"input_ids": ids.numpy()}
            with torch.inference_mode():
                model(ids), session.run(None, feed)
                times = {"vivarium": [], "pytorch": [], "onnxruntime": []}
                peak = 0
                for _ in range(a.repetitions):
                    mine = viv_times(a.viv, folder, tokens, threads, 3)
                    times["vivarium"].append(mine["least_ms"])
                    peak = max(peak, mine["peak_bytes"])
                    times["pytorch"].append(min(timed(lambda: model(ids)) for _ in range(3)))
                    times["onnxruntime"].append(min(timed(lambda: session.run(None, feed)) for _ in range(3)))
            median = {k: statistics.median(v) for k, v in times.items()}
            ratio = min(median["pytorch"], median["onnxruntime"]) / median["vivarium"]
            print(f"BERT-base, {tokens:>4} tokens {threads:>7}  {median['vivarium']:>10.1f} {median['pytorch']:>10.1f} "
                  f"{median['onnxruntime']:>10.1f}  {ratio:>24.2f}x   {peak / 2**20:.0f} MiB", flush=True)
            rows.append({"encoder": "bert-base", "tokens": tokens, "threads": threads, "median_ms": median,
                         "spread_ms": {k: [min(v), max(v)] for k, v in times.items()}, "ratio": ratio,
                         "vivarium_peak_bytes": peak})
    if a.json:
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    sys.exit(main())
