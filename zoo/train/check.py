"""Checks of the model: logits against a folder of golden vectors (config.json, model.safetensors,
inputs.safetensors, outputs.safetensors), and the compiled kernels' values and gradients against PyTorch's.

    python check.py [GOLDEN_FOLDER]
"""

import json
import sys

import torch
from safetensors.torch import load_file

from model import SambaY
from reasoner import CONFIG


def against_golden(folder):
    model = SambaY(json.load(open(f"{folder}/config.json")))
    weights = load_file(f"{folder}/model.safetensors")
    model.load_state_dict(weights, strict=True)
    inputs, outputs = load_file(f"{folder}/inputs.safetensors"), load_file(f"{folder}/outputs.safetensors")
    ids = inputs["input_ids"].long().reshape(1, -1)
    with torch.no_grad():
        logits = model.logits(model.hidden(ids, fast=False))
    print("golden logits: largest difference", (logits - outputs["logits"].reshape(logits.shape)).abs().max().item())
    wanted = outputs["greedy.ids"].flatten().tolist()
    print("golden greedy ids agree:", model.generate([ids[0].tolist()], len(wanted), -1)[0] == wanted)


def kernels():
    torch.manual_seed(1)
    config = dict(CONFIG, vocab_size=64, sliding_window=9)
    model = SambaY(config)
    for p in model.parameters():
        p.data += torch.randn_like(p) * 0.05
    ids = torch.randint(64, (5, 37))
    target = torch.randint(64, (5 * 37,))
    results = []
    for fast in (False, True):
        model.zero_grad()
        hidden = model.hidden(ids, fast=fast)
        loss = torch.nn.functional.cross_entropy(model.logits(hidden).flatten(0, 1), target)
        loss.backward()
        results.append((hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    (a, ga), (b, gb) = results
    print("kernels: hidden, largest difference", (a - b).abs().max().item())
    worst = max(ga, key=lambda n: ((ga[n] - gb[n]).norm() / (ga[n].norm() + 1e-12)).item())
    print("kernels: worst relative gradient error", ((ga[worst] - gb[worst]).norm() / ga[worst].norm()).item(), worst)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        against_golden(sys.argv[1])
    kernels()
