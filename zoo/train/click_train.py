"""Trains zoo/models/click-segmenter, a narrow MobileSAM, on scenes of click_data.py.

A picture is encoded once and asked about several things: by a click or a box, then by further clicks where the mask is wrong.
One click is answered by the best of three masks, everything else by the mask of its own, as SAM does it.
"""

import argparse
import copy
import glob
import json
import math
import os
import time

import cv2
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file

import click_data
from click_model import Sam, widen_windows
from muon import Muon

CONFIG = {
    "model_type": "mobile_sam", "architectures": ["Sam"], "image_size": 256,
    "embed_dims": [32, 80, 128, 160], "depths": [2, 2, 4, 2], "num_heads": [1, 5, 4, 5], "window_sizes": [7, 8, 16, 8],
    "mlp_ratio": 4.0, "mbconv_expand_ratio": 4.0, "local_conv_size": 3,
    "prompt_embed_dim": 128, "mask_in_chans": 16, "num_multimask_outputs": 3,
    "decoder_depth": 2, "decoder_mlp_dim": 256, "decoder_num_heads": 4, "iou_head_depth": 3, "iou_head_hidden_dim": 128,
    "pixel_mean": [123.675, 116.28, 103.53], "pixel_std": [58.395, 57.12, 57.375]}

BATCH, PROMPTS = 8, 6
MUON_LR, ADAM_LR = 4e-3, 1.5e-3

# ---- questions ----


class Questions(torch.utils.data.IterableDataset):
    """Batches: pictures uint8 [B, S, S, 3], masks' shares of cells [P, S/4, S/4], first tokens xy [P, 2, 2] and labels [P, 2]."""

    def __init__(self, pool, side, batch, seed):
        self.pool, self.side, self.batch, self.seed = pool, side, batch, seed

    def __iter__(self):
        torch.set_num_threads(1)
        rng, files, shards = np.random.default_rng(self.seed), [], {}
        while True:
            if not files or rng.random() < 0.002:
                files = sorted(f for f in glob.glob(f"{self.pool}/?????.npy"))
                for f in files:
                    if f not in shards:
                        shards[f] = np.load(f, mmap_mode="r")
            parts = []
            while len(parts) < self.batch:
                x = shards[files[rng.integers(len(files))]]
                q = self.ask(rng, np.array(x[rng.integers(len(x))]))
                if q is not None:
                    parts.append(q)
            yield [torch.from_numpy(np.concatenate(p)) for p in zip(*parts)]

    def view(self, rng, x):
        """Turned over, cut to a part, at the network's size."""
        if rng.random() < 0.5:
            x = x[:, ::-1]
        if rng.random() < 0.15:
            x = np.rot90(x, rng.integers(1, 4))
        n = x.shape[0]
        if rng.random() < 0.6:
            m = int(n * rng.uniform(0.6, 1))
            oy, ox = rng.integers(0, n - m + 1, 2)
            x = x[oy:oy + m, ox:ox + m]
        picture, maps = np.ascontiguousarray(x[..., :3]), np.ascontiguousarray(x[..., 3:])
        if rng.random() < 0.2:
            picture = np.ascontiguousarray(picture[..., rng.permutation(3)])
        s = self.side
        if picture.shape[0] != s:
            picture = cv2.resize(picture, (s, s), interpolation=cv2.INTER_LINEAR)
            maps = cv2.resize(maps, (s, s), interpolation=cv2.INTER_NEAREST)
        if rng.random() < 0.25:  # not every picture is a square
            h = int(s * rng.uniform(0.5, 0.95)) // 2 * 2
            if rng.random() < 0.5:
                oy = rng.integers(0, s - h + 1)
                picture[:h], maps[:h] = picture[oy:oy + h].copy(), maps[oy:oy + h].copy()
                picture[h:], maps[h:] = 0, 0
                return picture, maps, (h, s)
            ox = rng.integers(0, s - h + 1)
            picture[:, :h], maps[:, :h] = picture[:, ox:ox + h].copy(), maps[:, ox:ox + h].copy()
            picture[:, h:], maps[:, h:] = 0, 0
            return picture, maps, (s, h)
        return picture, maps, (s, s)

    def ask(self, rng, x):
        picture, maps, (h, w) = self.view(rng, x)
        things, parts = click_data.targets(maps[..., 0], maps[..., 1], h == w == self.side and rng.random() < 0.15)
        if not things:
            return None
        s, g = self.side, self.side // 4
        masks, xy, labels = np.empty((PROMPTS, g, g), np.float32), np.zeros((PROMPTS, 2, 2), np.float32), None
        labels = np.tile(np.array([1, -1]), (PROMPTS, 1))
        order = rng.permutation(len(things))
        for i in range(PROMPTS):
            of = parts if parts and rng.random() < 0.25 else things
            m = of[rng.integers(len(of))] if of is parts or i >= len(order) else of[order[i]]
            masks[i] = cv2.resize(m.astype(np.float32), (g, g), interpolation=cv2.INTER_AREA)
            kind = rng.random()
            if kind < 0.2:
                ys, xs = np.nonzero(m.any(1))[0], np.nonzero(m.any(0))[0]
                box = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], np.float32)
                d = np.array([box[2] - box[0], box[3] - box[1]] * 2)
                xy[i] = np.clip(box + np.clip(rng.normal(0, 0.06, 4) * d, -12, 12), 0, [w, h, w, h]).reshape(2, 2)
                labels[i] = 2, 3
            elif kind < 0.6:
                xy[i, 0] = click_data.most_inside(m) + rng.normal(0, 1, 2)
            else:
                inner = cv2.erode(m.astype(np.uint8), np.ones((5, 5), np.uint8))
                ys, xs = np.nonzero(inner if inner.any() else m)
                j = rng.integers(len(ys))
                xy[i, 0] = xs[j], ys[j]
        return picture[None], masks, xy, labels


def next_click(logits, masks, side):
    """Where the mask is most densely wrong: xy [P, 1, 2], labels [P, 1]."""
    want = masks > 0.5
    wrong = (want != (logits > 0)).float()[:, None]
    pool = lambda x, k: F.avg_pool2d(F.avg_pool2d(x, (1, k), 1, (0, k // 2)), (k, 1), 1, (k // 2, 0))
    dense = pool(wrong, 5) + pool(wrong, 13)
    score = (dense + 0.3 * torch.rand_like(dense)) * (wrong + 1e-3)
    at = score.flatten(1).argmax(1)
    g = masks.shape[-1]
    xy = torch.stack([at % g, at // g], -1) * (side / g) + torch.rand(len(at), 2) * (side / g) - 0.5
    return xy[:, None], want.flatten(1).gather(1, at[:, None]).long()


# ---- losses ----


def mask_losses(logits, masks):
    """Focal and dice of logits [P, T, g, g] against shares [P, g, g]: [P, T].  And the true IoU [P, T]."""
    x, t = logits.flatten(2), masks.flatten(1)[:, None].expand(-1, logits.shape[1], -1)
    p = x.sigmoid()
    focal = (F.binary_cross_entropy_with_logits(x, t, reduction="none") * (t - p).abs() ** 1.5).mean(-1)
    dice = 1 - (2 * (p * t).sum(-1) + 1) / (p.sum(-1) + t.sum(-1) + 1)
    with torch.no_grad():
        a, b = x > 0, t > 0.5
        iou = (a & b).sum(-1) / (a | b).sum(-1).clamp(min=1)
    return 20 * focal + dice, iou


def answer_loss(logits, said, masks, open_question):
    """open_question [P]: one click, which the best of three masks answers."""
    loss, iou = mask_losses(logits, masks)
    best = loss[:, 1:].min(1).values
    single = loss[:, 0]
    total = torch.where(open_question, best + 0.3 * single + 0.05 * loss[:, 1:].mean(1), single)
    return total.mean() + F.mse_loss(said, iou), iou


def step_loss(model, batch, rng, mixed):
    x, masks, xy, labels = batch
    side = x.shape[1]
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        embedding = model.embed(model.normal(x)).repeat_interleave(PROMPTS, 0)

    def ask(e, prompt):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits, said = model.decode(e, side, xy, labels, prompt)
        return logits.float(), said.float()
    logits, said = ask(embedding, None)
    one = labels[:, 0] == 1
    loss, iou = answer_loss(logits, said, masks, one)
    about = {"first": torch.where(one, iou[:, 1:].gather(1, said[:, 1:].argmax(1, True))[:, 0], iou[:, 0]).mean().item()}
    rounds, with_mask = int(rng.integers(1, 5)), rng.random() < 0.25
    fixed = embedding.detach()
    for i in range(rounds):
        with torch.no_grad():
            best = torch.where(one, 1 + said[:, 1:].argmax(1), 0) if i == 0 else torch.zeros(len(xy), dtype=torch.long)
            low = logits.detach()[torch.arange(len(xy)), best]
            more, label = next_click(low, masks, side)
            xy, labels = torch.cat([xy[:, :1], more, xy[:, 1:]], 1), torch.cat([labels[:, :1], label, labels[:, 1:]], 1)
            # Tokens have no order; the box's second corner may stand anywhere.
        prompt = low[:, None] if with_mask else None
        if i + 1 < rounds:
            with torch.no_grad():
                logits, said = ask(fixed, prompt)
        else:
            logits, said = ask(embedding, prompt)
            later, iou = answer_loss(logits, said, masks, torch.zeros_like(one))
            loss = loss + later
            about["later"] = iou[:, 0].mean().item()
    return loss, about


# ---- the loop ----


def save_model(model, folder):
    """A release's folder; matrices and kernels as float16, which no mask notices."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/config.json", "w") as f:
        json.dump(model.config, f, indent=2)
        f.write("\n")
    tensors = {n: (t.half() if t.dim() > 1 else t).contiguous() for n, t in model.state_dict().items()
               if "num_batches_tracked" not in n}
    save_file(tensors, f"{folder}/.model.tmp", metadata={"format": "pt"})
    os.chmod(f"{folder}/.model.tmp", 0o644)
    os.replace(f"{folder}/.model.tmp", f"{folder}/model.safetensors")


@torch.no_grad()
def measure(model, batches, mixed):
    """IoU (of cells) after 1 and after 3 clicks, of held-out questions that begin with a click."""
    firsts, thirds = [], []
    for x, masks, xy, labels in batches:
        side = x.shape[1]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            e = model.embed(model.normal(x)).repeat_interleave(PROMPTS, 0)
            for clicks in range(3):
                logits, said = (t.float() for t in model.decode(e, side, xy, labels))
                if clicks == 0:
                    one = labels[:, 0] == 1
                    best = torch.where(one, 1 + said[:, 1:].argmax(1), 0)
                low = logits[torch.arange(len(xy)), best if clicks == 0 else 0]
                iou = mask_losses(low[:, None], masks)[1][one, 0]
                (firsts if clicks == 0 else thirds if clicks == 2 else []).extend(iou.tolist())
                more, label = next_click(low, masks, side)
                xy, labels = torch.cat([xy, more], 1), torch.cat([labels, label], 1)
    return float(np.mean(firsts)), float(np.mean(thirds))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", required=True)
    parser.add_argument("--held-out", required=True, help="a pool of held-out cut-outs, to watch the training by")
    parser.add_argument("--out", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--side", type=int, default=256, help="of the network's picture")
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--until", help="HH:MM: end then instead, today")
    parser.add_argument("--flat", type=float, default=0.55, help="part of the time before the rate falls")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on both learning rates")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--mixed", action="store_true", help="matrices in bfloat16")
    parser.add_argument("--workers", type=int, default=1, help="processes that share a step's pictures")
    parser.add_argument("--rank", type=int, default=0, help="of this process among them")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from RUN/state.pt; the picture's size may change")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    os.makedirs(args.run, exist_ok=True)
    chief = args.rank == 0
    log = open(f"{args.run}/log.txt" if chief else os.devnull, "a")
    if args.workers > 1:
        dist.init_process_group("gloo", init_method=f"file://{os.path.abspath(args.run)}/meet", rank=args.rank,
                                world_size=args.workers)

    def say(text):
        print(text, flush=True)
        log.write(text + "\n")
        log.flush()

    state, config = None, CONFIG
    if args.resume:
        state = torch.load(f"{args.run}/state.pt", weights_only=False)
        config = state["config"]
    model = Sam(config)
    if state:
        model.load_state_dict(state["model"])
    average = copy.deepcopy(model).eval().requires_grad_(False)
    if state:
        average.load_state_dict(state["average"])
    same = args.side == config["image_size"]
    if not same:
        by = args.side / config["image_size"]
        config = dict(config, image_size=args.side, window_sizes=config["window_sizes"][:2] + [
            round(config["window_sizes"][2] * by), config["window_sizes"][3]])
        widen_windows(model, config)
        widen_windows(average, config)
        average.requires_grad_(False)
    slow = lambda n, p: p.dim() < 2 or "embed" in n or "token.weight" in n or "tokens.weight" in n or "biases" in n or (
        p.dim() == 4 and p.shape[1] == 1)
    inner = [p for n, p in model.named_parameters() if not slow(n, p)]
    outer = [p for n, p in model.named_parameters() if slow(n, p)]
    optimizers = [(Muon(inner, MUON_LR, weight_decay=0.02, rank=args.rank, workers=args.workers, mixed=args.mixed), MUON_LR * args.rate),
                  (torch.optim.AdamW(outer, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0), ADAM_LR * args.rate)]
    step, elapsed = 0, 0.0
    if state:
        step, elapsed = state["step"], state["elapsed"]
        if same:
            for (o, _), s in zip(optimizers, state["optimizers"]):
                o.load_state_dict(s)
    if chief:
        say(f"{sum(p.numel() for p in model.parameters())} parameters, {sum(p.numel() for p in inner)} of them by Muon")
    began = elapsed
    total = args.minutes * 60
    if args.until:
        now = time.localtime()
        h, m = map(int, args.until.split(":"))
        total = (h * 60 + m) * 60 - (now.tm_hour * 60 + now.tm_min) * 60 - now.tm_sec
    it = iter(torch.utils.data.DataLoader(Questions(args.pool, args.side, args.batch // args.workers,
                                                                [args.seed, step, args.rank]), batch_size=None,
                                          num_workers=1, prefetch_factor=4))
    held = iter(Questions(args.held_out, args.side, 8, [77]))
    watched = [next(held) for _ in range(12 if chief else 0)]
    every = list(model.parameters())
    for p in every:
        p.grad = torch.zeros_like(p)
    rng = np.random.default_rng([args.seed, step, 1])
    first_step, last, next_save, next_log = step, time.time(), args.save_minutes * 60, 30
    spent, parts, end = 0.0, [], False
    while not end:
        model.train()
        loss, about = step_loss(model, next(it), rng, args.mixed)
        loss.backward()
        if args.workers > 1:  # the mean gradient; and the first one's clock, by which the rates fall
            flat = torch.cat([p.grad.reshape(-1) for p in every] + [torch.tensor([spent if chief else 0.0])])
            dist.all_reduce(flat)
            spent = flat[-1].item()
            for p, g in zip(every, flat[:-1].div_(args.workers).split([p.numel() for p in every])):
                p.grad.copy_(g.view_as(p))
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 3.0)
        done = spent / total
        end = spent >= total
        factor = min(1, (step + 1) / 80, (step - first_step + 1) / 20)
        if done > args.flat:
            factor *= 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1, (done - args.flat) / (1 - args.flat))))
        for o, lr in optimizers:
            for group in o.param_groups:
                group["lr"] = lr * factor
            o.step()
            o.zero_grad(set_to_none=False)
        step += 1
        with torch.no_grad():
            keep = min(0.996, step / (step + 20))
            for a, b in zip(average.state_dict().values(), model.state_dict().values()):
                a.lerp_(b, 1 - keep) if a.dtype.is_floating_point else a.copy_(b)
        now = time.time()
        spent, last = spent + now - last, now
        elapsed = began + spent
        parts.append(dict(about, loss=loss.item(), norm=norm.item()))
        if not chief:
            continue
        if spent > next_log or end:
            next_log = spent + 30
            mean = "  ".join(f"{k} {np.mean([p[k] for p in parts if k in p]):.3f}" for k in parts[-1])
            say(f"{elapsed / 60:6.1f} min  step {step}  {mean}  {spent / (step - first_step) * 1000:.0f} ms/step  "
                f"rate x{factor:.3f}")
            parts = []
        if spent > next_save or end:
            next_save = spent + args.save_minutes * 60
            save_model(average, args.out)
            torch.save({"model": model.state_dict(), "average": average.state_dict(), "step": step, "elapsed": elapsed,
                        "config": config, "optimizers": [o.state_dict() for o, _ in optimizers]}, f"{args.run}/state.tmp")
            os.replace(f"{args.run}/state.tmp", f"{args.run}/state.pt")
            torch.manual_seed(5)
            one, three = measure(average, watched, args.mixed)
            torch.manual_seed(args.seed + step)
            say(f"    held out: IoU of cells {one:.3f} after 1 click, {three:.3f} after 3")
    if chief:
        say(f"done: {step} steps of {args.batch}, {elapsed / 60:.1f} minutes")


if __name__ == "__main__":
    main()
