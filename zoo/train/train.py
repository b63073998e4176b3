"""Trains the model from scratch on questions that are made while it trains.

    python train.py --out MODEL_FOLDER --run RUN_FOLDER --minutes 75

The learning rate follows the clock: a short warm-up, then a cosine to zero at the last minute.  RUN_FOLDER keeps
the state (for --resume) and log.txt; MODEL_FOLDER always holds the newest weights.  A file RUN_FOLDER/mix.json
({"task": weight, ...}) may be written at any time to change the mix of tasks."""

import argparse
import json
import math
import os
import random
import tempfile
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

import ops
import reasoner
import tasks
from model import SambaY
from muon import Muon

# How often each task is drawn; the hard ones more often.
MIX = {"sum": 1.3, "difference": 2.2, "product": 1.6, "weekday": 1.5, "to_roman": 0.5, "from_roman": 0.5,
       "units": 1.0, "letters": 1.0, "sort": 2.4}


class Stream:
    """Batches of about `tokens` tokens, of sequences of similar length."""

    def __init__(self, tokenizer, seed, tokens, mix):
        self.tokenizer, self.tokens, self.mix = tokenizer, tokens, mix
        self.random = random.Random(seed)
        self.open = tokenizer.token_to_id("<|assistant|>")
        self.pad = tokenizer.token_to_id("<|endoftext|>")

    def __iter__(self):
        r = self.random
        while True:
            names = r.choices(list(self.mix), list(self.mix.values()), k=1024)
            texts = [reasoner.conversation(*tasks.draw(r, name, False)[1:]) for name in names]
            rows = sorted((e.ids for e in self.tokenizer.encode_batch(texts)), key=lambda x: (len(x), r.random()))
            batches, batch = [], []
            for ids in rows:
                if batch and len(ids) * (len(batch) + 1) > self.tokens:
                    batches.append(batch)
                    batch = []
                batch.append(ids)
            batches.append(batch)
            r.shuffle(batches)
            yield from map(self.tensors, batches)

    def tensors(self, rows):
        width = max(map(len, rows)) - 1
        x = np.full((len(rows), width), self.pad, dtype=np.int64)
        y = np.full((len(rows), width), -1, dtype=np.int64)
        for i, ids in enumerate(rows):
            x[i, :len(ids) - 1] = ids[:-1]
            start = ids.index(self.open)
            y[i, start:len(ids) - 1] = ids[start + 1:]
        return torch.from_numpy(x), torch.from_numpy(y), sum(map(len, rows))


def answer_of(text):
    return text.split("</think>", 1)[1] if "</think>" in text else ""


def accuracy(model, tokenizer, rows, batch=256, limit=220):
    """{task: (right, asked)} by greedy decoding, and the replies."""
    end = tokenizer.token_to_id("<|end|>")
    result, replies = {}, []
    prompts = [tokenizer.encode(reasoner.prompt(row["question"])).ids for row in rows]
    for i in range(0, len(rows), batch):
        for row, ids in zip(rows[i:i + batch], model.generate(prompts[i:i + batch], limit, end)):
            reply = tokenizer.decode(ids, skip_special_tokens=False)
            right, asked = result.get(row["task"], (0, 0))
            result[row["task"]] = (right + (answer_of(reply) == row["answer"]), asked + 1)
            replies.append(reply)
    return result, replies


def save_weights(model, folder):
    temporary = f"{folder}/.model.safetensors.tmp"
    save_file({n: p.detach().contiguous().clone() for n, p in model.named_parameters()}, temporary, metadata={"format": "pt"})
    os.chmod(temporary, 0o644)
    os.replace(temporary, f"{folder}/model.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--lr", type=float, default=2e-3, help="AdamW")
    parser.add_argument("--muon-lr", type=float, default=3e-3, help="Muon, for the matrices; 0: AdamW for everything")
    parser.add_argument("--tokens", type=int, default=2048, help="tokens per step, of all workers together")
    parser.add_argument("--mixed", action="store_true", help="products in bfloat16, sums in float32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread, which average their gradients")
    parser.add_argument("--eval-minutes", type=float, default=4)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    os.makedirs(args.run, exist_ok=True)
    reasoner.build_tokenizer(args.out)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(work, (args, f"file://{folder}/meeting"), nprocs=args.workers)


def work(rank, args, meeting):
    """One worker.  A process of one thread each loses less on a busy machine than threads that wait for one another
    after every operation.  Worker 0 keeps the clock, the log and the checkpoints."""
    torch.set_num_threads(1)
    ops.MIXED = args.mixed
    torch.manual_seed(args.seed)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=args.workers)
    log = open(f"{args.run}/log.txt", "a")

    def say(text):
        if rank:
            return
        print(text, flush=True)
        log.write(text + "\n")
        log.flush()

    config = json.load(open(f"{args.out}/config.json"))
    tokenizer = Tokenizer.from_file(f"{args.out}/tokenizer.json")
    model = SambaY(config)
    say(f"{sum(p.numel() for p in model.parameters())} parameters, vocabulary {config['vocab_size']}")

    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n and "A_log" not in n]
    vectors = [p for n, p in model.named_parameters() if p.dim() != 2 or "A_log" in n]
    groups = [{"params": vectors, "weight_decay": 0.0}, {"params": [model.model.embed_tokens.weight], "weight_decay": 0.0}]
    optimizers = []
    if args.muon_lr:
        optimizers.append((Muon(matrices, args.muon_lr, weight_decay=0.02, rank=rank, workers=args.workers,
                                mixed=args.mixed), args.muon_lr))
    else:
        groups.append({"params": matrices, "weight_decay": 0.05})
    optimizers.append((torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98), eps=1e-10, fused=True), args.lr))

    elapsed, step, seen, examples = 0.0, 0, 0, 0
    if args.resume:
        state = torch.load(f"{args.run}/state.pt", weights_only=False)
        model.load_state_dict(state["model"])
        for (o, _), s in zip(optimizers, state["optimizers"]):
            o.load_state_dict(s)
        elapsed, step, seen, examples = (state[k] for k in ("elapsed", "step", "seen", "examples"))

    # All gradients lie in one buffer, so that one call averages them.  Its three last numbers carry worker 0's clock and
    # the counts of tokens and of examples.
    parameters = list(model.parameters())
    flat = torch.zeros(sum(p.numel() for p in parameters) + 3)
    offset = 0
    for p in parameters:
        p.grad = flat[offset:offset + p.numel()].view_as(p)
        offset += p.numel()

    mix = dict(MIX)
    tokens = args.tokens // args.workers
    stream = iter(Stream(tokenizer, (args.seed * 1000003 + step) * args.workers + rank, tokens, mix))
    sample = tasks.evaluation_set(24, seed=777)
    total = args.minutes * 60
    last, next_eval, next_log = time.time(), elapsed + args.eval_minutes * 60, elapsed + 20
    losses = []
    began = (elapsed, seen)
    while elapsed < total:
        flat.zero_()
        x, y, n = next(stream)
        picked = y >= 0
        loss = F.cross_entropy(model.logits(model.hidden(x)[picked]), y[picked])
        loss.backward()
        now = time.time()
        flat[-3:] = torch.tensor([now - last if rank == 0 else 0.0, n, len(x)])
        last = now
        dist.all_reduce(flat)
        tick, n, rows = flat[-3:].tolist()
        elapsed, seen, examples, step = elapsed + tick, seen + int(n), examples + int(rows), step + 1
        gradient = flat[:-3]
        gradient /= args.workers
        gradient *= min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
        factor = min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * min(elapsed / total, 1)))
        for o, lr in optimizers:
            for group in o.param_groups:
                group["lr"] = lr * factor
            o.step()
        losses.append(loss.item())
        if elapsed > next_log:
            next_log = elapsed + 20
            if os.path.exists(f"{args.run}/mix.json"):
                mix.update(json.load(open(f"{args.run}/mix.json")))
            say(f"{elapsed / 60:6.1f} min  step {step}  loss {np.mean(losses):.4f}  {examples} examples  {seen} tokens  "
                f"{(seen - began[1]) / (elapsed - began[0]):.0f} tokens/s  lr x{factor:.3f}")
            losses = []
        if elapsed > next_eval:
            next_eval = elapsed + args.eval_minutes * 60
            if rank:
                continue
            save_weights(model, args.out)
            torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o, _ in optimizers],
                        "elapsed": elapsed, "step": step, "seen": seen, "examples": examples}, f"{args.run}/state.tmp")
            os.replace(f"{args.run}/state.tmp", f"{args.run}/state.pt")
            result, replies = accuracy(model, tokenizer, sample)
            say("    held-out sample: " + "  ".join(f"{t} {a}/{b}" for t, (a, b) in result.items()))
            with open(f"{args.run}/replies.txt", "w") as f:
                for row, reply in zip(sample, replies):
                    mark = "ok " if answer_of(reply) == row["answer"] else "BAD"
                    f.write(f"{mark} {row['task']}: {row['question']} {reply} [{row['answer']}]\n")
    if rank:
        return
    save_weights(model, args.out)
    say(f"done: {step} steps, {examples} examples, {seen} tokens, {elapsed / 60:.1f} minutes")


if __name__ == "__main__":
    main()
