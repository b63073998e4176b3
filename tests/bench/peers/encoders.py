"""Encoders of official sizes with random weights: Vivarium against PyTorch and ONNX Runtime.

    python encoders.py VIV WORK_FOLDER [--threads 1 2] [--rounds 5] [--models bert-base-128 ...] [--json FILE]

BERT-base and MiniLM (6 layers of 384) over 128 and 512 tokens, ViT-S/14 at 518 px (DINOv2's), ResNet-50 at 224 px;
with --models vision the classifiers ViT-B, BEiT-B, Swin-T and ConvNeXt-T at 224 px, Depth Anything V2 small at 518 px and
SAM ViT-B's encoder at 1024 px (there Vivarium reads a picture file, the others take the prepared tensor).
Writes a checkpoint under its official names, runs the same weights and inputs through `viv bench --task`,
PyTorch (eager, scaled_dot_product_attention) and ONNX Runtime (the same module exported), one after the other
in turns, and prints medians, spread and ratios. All three compute in float32; the largest difference of
the results, relative to the largest of them, is printed too. With one thread the processor's time of a pass is told besides, which other work on
the machine disturbs less than the clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from safetensors.torch import load_file, save_file


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


BERT = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": 30522,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
SIZES = {
    "bert-base": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "minilm": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12},
}
MODELS = ["bert-base-128", "bert-base-512", "minilm-128", "minilm-512", "vit-s-518", "resnet50-224"]
VISION = ["vit-b-224", "beit-b-224", "swin-t-224", "convnext-t-224", "depth-anything-s-518", "sam-vit-b-1024"]
PASSES = 3  # of a turn; the shortest counts


class Pictures(torch.nn.Module):
    def __init__(self, model, output):
        super().__init__()
        self.model, self.output = model, output

    def forward(self, pixel_values):
        return getattr(self.model(pixel_values=pixel_values), self.output)


def vision(kind):
    """A model of transformers with random weights, and what its answer is called."""
    import transformers as t

    if kind == "vit-s":
        config = t.Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518,
                                patch_size=14, attn_implementation="sdpa")
        return t.Dinov2Model(config), "last_hidden_state"
    if kind == "depth-anything-s":
        backbone = t.Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518,
                                  patch_size=14, out_indices=[3, 6, 9, 12], reshape_hidden_states=False,
                                  apply_layernorm=True)
        config = t.DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=384, fusion_hidden_size=64,
                                       neck_hidden_sizes=[48, 96, 192, 384], patch_size=14)
        return t.DepthAnythingForDepthEstimation(config), "predicted_depth"
    if kind == "sam-vit-b":
        return t.SamModel(t.SamConfig()), "image_embeddings"
    known = {
        "resnet50": (t.ResNetForImageClassification, t.ResNetConfig),
        "vit-b": (t.ViTForImageClassification, t.ViTConfig),
        "beit-b": (t.BeitForImageClassification, lambda: t.BeitConfig(use_relative_position_bias=True)),
        "swin-t": (t.SwinForImageClassification, t.SwinConfig),
        "convnext-t": (t.ConvNextForImageClassification, t.ConvNextConfig),
    }
    cls, config = known[kind]
    return cls(config()), "logits"


class SamEncoder(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.encoder = model.vision_encoder

    def forward(self, pixel_values):
        return self.encoder(pixel_values).last_hidden_state


def square_picture(size, path):
    """A picture of noise as a file, and as SAM's tensor."""
    x = torch.randint(0, 256, (size, size, 3), dtype=torch.uint8)
    with open(path, "wb") as f:
        f.write(b"P6\n%d %d\n255\n" % (size, size))
        f.write(x.numpy().tobytes())
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((x / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()


def make(name, folder):
    """The module, its input, that input's name and the name of the result; checkpoint and input in folder."""
    torch.manual_seed(1)
    os.makedirs(folder, exist_ok=True)
    kind, size = name.rsplit("-", 1)
    size = int(size)
    if kind in SIZES:
        config = {**BERT, **SIZES[kind]}
        model, x = Bert(config).eval(), torch.randint(1000, 30000, (1, size))
        save_file(model.official(), f"{folder}/model.safetensors")
        json.dump(config, open(f"{folder}/config.json", "w"))
        names = "input_ids", "last_hidden_state"
    else:
        model, output = vision(kind)
        model.eval().save_pretrained(folder)
        if kind.startswith("sam"):
            x, model = square_picture(size, f"{folder}/picture.ppm"), SamEncoder(model).eval()
        else:
            x, model = torch.randn(1, 3, size, size), Pictures(model, output).eval()
        names = "pixel_values", output
    save_file({names[0]: x}, f"{folder}/inputs.safetensors")
    return model, x, *names


def timed(run):
    clock, processor = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - clock) * 1e3, (time.process_time() - processor) * 1e3


def turn(run):
    """The least of the clock, the mean of the processor's time."""
    times = [timed(run) for _ in range(PASSES)]
    return min(t[0] for t in times), statistics.mean(t[1] for t in times)


class Vivarium:
    def __init__(self, viv, folder, threads, source, result):
        self.env = {**os.environ, "VIV_THREADS": str(threads)}
        picture = f"{folder}/picture.ppm"
        given = [f"image={picture}"] if os.path.exists(picture) else [f"{source}={folder}/inputs.safetensors:{source}"]
        task = "embed_image" if result == "image_embeddings" else "forward"
        self.arguments = [folder, "--task", task, "-i", *given, "--param", f'outputs=["{result}"]']
        self.viv, self.peak = viv, 0
        self.call("run", "-o", f"{folder}/viv.safetensors")
        self.result = load_file(f"{folder}/viv.safetensors")[result]

    def call(self, *command):
        return subprocess.run([self.viv, command[0], *self.arguments, *command[1:]], env=self.env, check=True,
                              capture_output=True, text=True).stdout

    def turn(self):
        out = json.loads(self.call("bench", "-r", str(PASSES), "--json"))
        self.peak = max(self.peak, out["peak_bytes"])
        return out["least_ms"], out["processor_ms"]


def onnx_session(model, x, source, path, threads):
    import onnxruntime

    if not os.path.exists(path):
        torch.onnx.export(model, (x,), path, input_names=[source], output_names=["y"], dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def compare(name, a, threads):
    folder = f"{a.work}/{name}"
    model, x, source, result = make(name, folder)
    torch.set_num_threads(threads)
    session = onnx_session(model, x, source, f"{folder}.onnx", threads)
    mine, feed = Vivarium(a.viv, folder, threads, source, result), {source: x.numpy()}
    with torch.inference_mode():
        want = model(x)
        results = mine.result, torch.tensor(session.run(None, feed)[0])
        differ = max(float((want - y).abs().max() / want.abs().max()) for y in results)
        turns = {"vivarium": [], "pytorch": [], "onnxruntime": []}
        for _ in range(a.rounds):
            turns["vivarium"].append(mine.turn())
            turns["pytorch"].append(turn(lambda: model(x)))
            turns["onnxruntime"].append(turn(lambda: session.run(None, feed)))
    row = {"model": name, "threads": threads, "largest_difference": differ, "vivarium_peak_bytes": mine.peak}
    for i, clock in enumerate(("clock", "processor") if threads == 1 else ("clock",)):
        ms = {k: [t[i] for t in v] for k, v in turns.items()}
        ratios = [min(p, o) / v for v, p, o in zip(ms["vivarium"], ms["pytorch"], ms["onnxruntime"])]
        row[clock] = {"ms": ms, "ratios": ratios, "ratio": statistics.median(ratios)}
        least = {k: f"{min(v):.1f}" for k, v in ms.items()}
        print(f"| {name} | {threads} | {clock} | {least['vivarium']} | {least['pytorch']} | {least['onnxruntime']} "
              f"| {row[clock]['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {mine.peak / 2**20:.0f} MiB "
              f"| {differ:.0e} |", flush=True)
    return row


def main():
    a = argparse.ArgumentParser()
    a.add_argument("viv")
    a.add_argument("work")
    a.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--models", nargs="*", default=MODELS, choices=[*MODELS, *VISION, "vision"])
    a.add_argument("--json")
    a = a.parse_args()
    print("| encoder | threads | by | Vivarium, ms | PyTorch | ONNX Runtime | of the faster | peak | differs |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [compare(name, a, threads) for name in (VISION if a.models == ["vision"] else a.models) for threads in a.threads]
    if a.json:
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    sys.exit(main())
