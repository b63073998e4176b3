"""Trains the two networks of zoo/models/people-*: an RT-DETR detector and a ViTPose for the persons it finds.

    python people_data.py pool POOL --seed 1 --pictures 12000
    python people_data.py pool WATCH --seed 2 --pictures 250
    python people_train.py detector --pool POOL --held-out WATCH --out ../models/people-detector --run RUN/detector
    python people_train.py pose     --pool POOL --held-out WATCH --out ../models/people-pose     --run RUN/pose

The networks are those of transformers, with their names; the losses are here.  One thread each.  The learning rate
follows the clock: a warm-up, a flat part, a cosine to zero at the last minute.  RUN keeps log.txt and state.pt
(--resume continues from it); OUT always holds the newest averaged weights."""

import argparse
import copy
import glob
import json
import math
import os
import tempfile
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment
from transformers import RTDetrConfig, RTDetrForObjectDetection, VitPoseConfig, VitPoseForPoseEstimation
from transformers import RTDetrResNetConfig, VitPoseBackboneConfig

from muon import Muon
from people_data import NAMES, SIZE, SKELETON

SIDE = 160                            # the detector's picture
HEIGHT, WIDTH = 96, 72                # a crop of the pose network
MAP_H, MAP_W, SIGMA = 48, 36, 1.5     # its heat maps
SWAP = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Pool:
    """The shards of people_data.py, mapped into memory; shards that appear later are taken in by refresh()."""

    def __init__(self, folder):
        self.folder, self.names, self.x, self.people = folder, [], [], []
        self.refresh()

    def refresh(self):
        for name in sorted(glob.glob(f"{self.folder}/[0-9]*.npy")):
            if ".p" not in os.path.basename(name).removesuffix(".npy") and name not in self.names:
                self.names.append(name)
                self.x.append(np.load(name, mmap_mode="r"))
                self.people.append(np.load(name.removesuffix(".npy") + ".people.npy"))

    def picture(self, rng):
        """uint8 [S, S, 3] and its people [n, 55]: box x, y, w, h, then 17 times x, y, visibility."""
        s = rng.integers(len(self.x))
        i = rng.integers(len(self.x[s]))
        p = self.people[s]
        return self.x[s][i], p[p[:, 0] == i, 1:]

    def person(self, rng):
        s = rng.integers(len(self.x))
        row = self.people[s][rng.integers(len(self.people[s]))]
        return self.x[s][int(row[0])], row[1:]


def colours(rng, x):
    """Other light: x [3, H, W], 0..1."""
    if rng.random() < 0.5:
        return x
    gain = torch.from_numpy(np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3)).astype(np.float32))
    x = x * gain[:, None, None]
    middle = x.mean()
    return ((x - middle) * float(np.exp(rng.normal(0, 0.15))) + middle).clamp(0, 1)


# ---- the detector ----


def corners(b):
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def overlap(a, b, pairs=False):
    """IoU and generalised IoU of corner boxes: [n, m], or [n] of matching rows."""
    if not pairs:
        a, b = a[:, None], b[None]
    inner = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    outer = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - inner
    iou = inner / union.clamp(min=1e-9)
    return iou, iou - (outer - union) / outer.clamp(min=1e-9)


class Detector:
    batch = 16
    muon_lr, adam_lr = 3e-3, 1e-3
    processor = {"image_processor_type": "RTDetrImageProcessor", "do_resize": True, "resample": 2,
                 "size": {"height": SIDE, "width": SIDE}, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": False, "image_mean": list(MEAN), "image_std": list(STD), "do_pad": False}

    def network(self):
        backbone = RTDetrResNetConfig(embedding_size=16, hidden_sizes=[16, 40, 80, 128], depths=[1, 2, 2, 1],
                                      layer_type="basic", out_features=["stage2", "stage3", "stage4"])
        config = RTDetrConfig(
            backbone_config=backbone, freeze_backbone_batch_norms=False, encoder_in_channels=[40, 80, 128],
            encoder_hidden_dim=64, encoder_ffn_dim=128, encoder_attention_heads=4, hidden_expansion=0.5, d_model=64,
            decoder_in_channels=[64, 64, 64], decoder_ffn_dim=128, decoder_layers=2, decoder_attention_heads=4,
            decoder_n_points=4, num_queries=40, num_denoising=0, id2label={0: "person"},
            label2id={"person": 0}, initializer_bias_prior_prob=0.02)
        model = RTDetrForObjectDetection(config)
        model.set_attn_implementation("eager")  # faster backwards than the fused one on a CPU
        model.to(memory_format=torch.channels_last)
        for name, m in model.named_modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                torch.nn.init.ones_(m.weight)
            elif isinstance(m, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(m, torch.nn.Linear) and not any(w in name for w in (
                    "sampling_offsets", "attention_weights", "class_embed", "score_head", "layers.2")):
                torch.nn.init.xavier_uniform_(m.weight)
        return model

    def slow(self, name):
        """Parameters that Muon leaves alone."""
        return any(w in name for w in ("sampling_offsets", "attention_weights", "class_embed", "score_head", "layers.2.",
                                       "embedder.0"))

    def draw(self, pool, rng):
        x = torch.empty(self.batch, 3, SIDE, SIDE)
        labels = []
        for i in range(self.batch):
            picture, people = pool.picture(rng)
            w = h = SIZE
            left = top = 0
            if rng.random() < 0.5:  # a part of the picture, its sides scaled each by its own factor
                w = int(SIZE * rng.uniform(0.6, 1))
                h = int(np.clip(w * math.exp(rng.normal(0, 0.2)), SIZE * 0.5, SIZE))
                left, top = int(rng.integers(SIZE - w + 1)), int(rng.integers(SIZE - h + 1))
            part = torch.from_numpy(np.array(picture[top:top + h, left:left + w])).permute(2, 0, 1)
            part = F.interpolate(part[None].float() / 255, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
            b = people[:, :4].astype(np.float32)
            a = np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1) - [left, top, left, top]
            c = np.clip(a, 0, [w, h, w, h])
            kept = (c[:, 2:] - c[:, :2]).prod(1) > 0.3 * b[:, 2:].prod(1)
            c = c[kept] / [w, h, w, h]
            if rng.random() < 0.5:
                part = part.flip(2)
                c[:, [0, 2]] = 1 - c[:, [2, 0]]
            x[i] = colours(rng, part)
            c = torch.from_numpy(c.astype(np.float32))
            boxes = torch.cat([(c[:, :2] + c[:, 2:]) / 2, c[:, 2:] - c[:, :2]], 1)
            labels.append({"class_labels": torch.zeros(len(c), dtype=torch.long), "boxes": boxes})
        return x.contiguous(memory_format=torch.channels_last), labels

    def dense(self, logits, boxes, truth):
        """Every cell of the encoder: each person has up to nine, whose wanted score falls from the best one's overlap.
        Much denser than one to one, which would need far more pictures.  Sums of the score's and of the box's loss,
        and how much of a person they amount to."""
        wanted = torch.zeros_like(logits)
        if not len(truth):
            return self.focal(logits, wanted), 0.0, 0.0
        place = corners(truth)
        iou, _ = overlap(corners(boxes.detach()), place)
        size = (place[:, 2:] - place[:, :2]).amax(-1)
        off = ((boxes_at := self.cells[:, None])[..., :2] - truth[None, :, :2]).abs()
        inside = (off < truth[None, :, 2:] / 2).all(-1)
        # Before the boxes mean anything, a cell of the right level near the middle is the best guess.
        near = torch.exp(-4 * (off / truth[None, :, 2:].clamp(min=0.02)).pow(2).sum(-1)
                         - (torch.log2(boxes_at[..., 2] * 4 / size[None].clamp(min=0.02))).pow(2) * 0.5)
        merit = (logits.detach().sigmoid()[:, None].sqrt() * iou.pow(3) + 0.02 * near) * inside + 1e-6 * near
        best, cell = merit.topk(9, 0)
        taken = torch.zeros_like(merit).scatter_(0, cell, best)
        value, who = taken.max(1)
        rows = value.nonzero()[:, 0]
        who = who[rows]
        i, g = overlap(corners(boxes[rows]), place[who], pairs=True)
        top = merit.amax(0)
        wanted[rows] = (value[rows] / top[who]) * iou[rows, who].clamp(min=0.1)
        weight = wanted[rows]
        box = (weight * (5 * (boxes[rows] - truth[who]).abs().sum(-1) + 2 * (1 - g))).sum()
        return self.focal(logits, wanted), box, weight.sum()

    @staticmethod
    def focal(logits, wanted):
        """Varifocal: the wanted score is an overlap; what should be zero counts by how far it is from it."""
        weight = torch.where(wanted > 0, wanted, 0.75 * logits.detach().sigmoid() ** 2)
        return (F.binary_cross_entropy_with_logits(logits, wanted, reduction="none") * weight).sum()

    def matched(self, logits, boxes, truth, query, person):
        wanted = torch.zeros_like(logits)
        if not len(query):
            return self.focal(logits, wanted)
        i, g = overlap(corners(boxes[query]), corners(truth[person]), pairs=True)
        wanted[query] = i.detach().clamp(min=0.01)
        return self.focal(logits, wanted) + (5 * (boxes[query] - truth[person]).abs().sum() + 2 * (1 - g).sum())

    def loss(self, model, batch):
        x, labels = batch
        out = model.model(x)
        if not hasattr(self, "cells"):
            sides = [SIDE // s for s in (8, 16, 32)]
            self.cells = torch.cat([torch.tensor([[(i % n + .5) / n, (i // n + .5) / n, .05 * 2 ** l, .05 * 2 ** l]
                                                  for i in range(n * n)]) for l, n in enumerate(sides)])
        logits, boxes = out.enc_outputs_class.float()[..., 0], out.enc_outputs_coord_logits.float().sigmoid()
        score = place = 0.0
        amount = 0.0
        for k, t in enumerate(labels):
            s, b, n = self.dense(logits[k], boxes[k], t["boxes"])
            score, place, amount = score + s, place + b, amount + float(torch.as_tensor(n).detach())
        dense = (score + place) / max(amount, 1.0)
        persons = max(1, sum(len(t["boxes"]) for t in labels))
        sparse = 0.0
        for l in range(out.intermediate_logits.shape[1]):
            logits, boxes = out.intermediate_logits[:, l, :, 0].float(), out.intermediate_reference_points[:, l].float()
            for k, t in enumerate(labels):
                q, p = self.match(logits[k], boxes[k], t["boxes"])
                sparse = sparse + self.matched(logits[k], boxes[k], t["boxes"], q, p)
        sparse = sparse / persons
        return dense + sparse, {"dense": dense.item(), "match": sparse.item()}

    @torch.no_grad()
    def match(self, logits, boxes, truth):
        if not len(truth):
            none = torch.zeros(0, dtype=torch.long)
            return none, none
        p = logits.sigmoid()
        focal = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - 0.75 * p ** 2 * -(1 - p + 1e-8).log()
        _, g = overlap(corners(boxes), corners(truth))
        cost = 2 * focal[:, None] + 5 * torch.cdist(boxes, truth, p=1) - 2 * g
        q, t = linear_sum_assignment(cost.numpy())
        return torch.from_numpy(q), torch.from_numpy(t)

    @torch.no_grad()
    def measure(self, model, pictures):
        """AP at an overlap of 0.5 and recall at a score of 0.5, over held-out pictures [(picture, people)]."""
        found, persons = [], 0
        for at in range(0, len(pictures), 16):
            some = pictures[at:at + 16]
            x = torch.stack([torch.from_numpy(p.copy()).permute(2, 0, 1).float() / 255 for p, _ in some])
            out = model(F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True))
            for k, (_, people) in enumerate(some):
                b = torch.from_numpy(people[:, :4] / SIZE)
                truth = torch.cat([b[:, :2], b[:, :2] + b[:, 2:]], 1)
                persons += len(truth)
                free = torch.ones(len(truth), dtype=torch.bool)
                iou = overlap(corners(out.pred_boxes[k]), truth)[0] if len(truth) else None
                scores = out.logits[k, :, 0].sigmoid()
                for q in scores.argsort(descending=True).tolist():
                    hit = False
                    if len(truth):
                        value, who = (iou[q] * free).max(0)
                        hit = bool(value > 0.5)
                        free[who] &= not hit
                    found.append((float(scores[q]), hit))
        found.sort(reverse=True)
        hits = np.cumsum([h for _, h in found])
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        recall = hits / max(persons, 1)
        self.balance = next((s for (s, _), p, r in zip(found, hits / np.arange(1, len(hits) + 1), recall) if r >= p), 0.5)
        ap = np.mean([precision[np.searchsorted(recall, r)] if r <= recall[-1] else 0 for r in np.linspace(0, 1, 101)])
        return {"AP50": float(ap), "recall at 0.5": sum(h for s, h in found if s > 0.5) / max(persons, 1)}

    @torch.no_grad()
    def calibrate(self, model, pictures):
        """Moves all scores alike, until at 0.5 as many persons are missed as boxes are wrong."""
        self.measure(model, pictures)
        for head in model.model.decoder.class_embed:
            head.bias -= math.log(self.balance / (1 - self.balance))


# ---- poses ----


class Pose:
    batch = 24
    muon_lr, adam_lr = 3e-3, 1.5e-3
    processor = {"image_processor_type": "VitPoseImageProcessor", "do_affine_transform": True, "normalize_factor": 200.0,
                 "size": {"height": HEIGHT, "width": WIDTH}, "do_rescale": True, "rescale_factor": 1 / 255,
                 "do_normalize": True, "image_mean": list(MEAN), "image_std": list(STD)}

    def network(self):
        backbone = VitPoseBackboneConfig(image_size=[HEIGHT, WIDTH], patch_size=[8, 8], hidden_size=128,
                                         num_hidden_layers=6, num_attention_heads=4, mlp_ratio=4, out_indices=[6])
        config = VitPoseConfig(backbone_config=backbone, scale_factor=4, use_simple_decoder=True,
                               id2label=dict(enumerate(NAMES)), label2id={n: i for i, n in enumerate(NAMES)},
                               edges=[[a - 1, b - 1] for a, b in SKELETON])
        model = VitPoseForPoseEstimation(config)
        model.set_attn_implementation("eager")  # faster backwards than the fused one on a CPU
        for m in model.modules():
            if isinstance(m, torch.nn.Linear):
                torch.nn.init.xavier_uniform_(m.weight)
        torch.nn.init.kaiming_uniform_(model.backbone.embeddings.patch_embeddings.projection.weight, a=math.sqrt(5))
        torch.nn.init.normal_(model.head.conv.weight, std=0.001)
        with torch.no_grad():  # places as sines, which the training may change
            grid = torch.stack(torch.meshgrid(torch.arange(12.), torch.arange(9.), indexing="ij"), -1).reshape(-1, 2, 1)
            turn = grid * torch.pi / 12 * 2 ** torch.linspace(0, 3.5, 32)
            model.backbone.embeddings.position_embeddings.zero_()[0, 1:] = 0.3 * torch.cat(
                [turn.sin(), turn.cos()], -1).flatten(1)
        # For training only: in which cell does each point lie, asked halfway and at the end.  Far steeper than the heat
        # maps' squares while these are still flat.
        model.where = torch.nn.ModuleList([torch.nn.Linear(128, 17) for _ in range(2)])
        self.halfway = []
        for part in (model.backbone.encoder.layer[2], model.backbone.layernorm):
            part.register_forward_hook(self.keep)
        return model

    def keep(self, module, inputs, output):
        if module.training:
            self.halfway.append(output[0] if isinstance(output, tuple) else output)

    def slow(self, name):
        return "position" in name or "head" in name or "where" in name

    def place(self, picture, box, angle, mirror):
        """The crop [3, H, W] of a box (x, y, w, h), and the affine map from picture to crop [2, 3]."""
        c = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
        w = max(box[2], box[3] * WIDTH / HEIGHT) * 1.25
        scale = (WIDTH - 1) / w, (HEIGHT - 1) / (w * HEIGHT / WIDTH)
        cos, sin = math.cos(angle), math.sin(angle)
        a = np.array([[cos, -sin], [sin, cos]]) * np.array(scale)[:, None]
        if mirror:
            a[0] *= -1
        t = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) - a @ c
        back = np.linalg.inv(a)
        # grid_sample wants, for each pixel of the crop, the place in the picture as -1..1 over its pixels' middles.
        theta = np.concatenate([back @ np.diag([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]),
                                (back @ (np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) - t))[:, None]], 1)
        theta = theta * 2 / (SIZE - 1)
        theta[:, 2] -= 1
        grid = F.affine_grid(torch.from_numpy(theta.astype(np.float32))[None], (1, 3, HEIGHT, WIDTH), align_corners=True)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        return F.grid_sample(x, grid, align_corners=True)[0], np.concatenate([a, t[:, None]], 1)

    def maps(self, points):
        """Heat maps [B, 17, H, W] of points [B, 17, 3] in the crop, and the weights [B, 17] of their errors."""
        p = torch.from_numpy(points.astype(np.float32))
        x = p[..., 0] * ((MAP_W - 1) / (WIDTH - 1))
        y = p[..., 1] * ((MAP_H - 1) / (HEIGHT - 1))
        gx = torch.exp(-((torch.arange(MAP_W) - x[..., None]) ** 2) / (2 * SIGMA ** 2))
        gy = torch.exp(-((torch.arange(MAP_H) - y[..., None]) ** 2) / (2 * SIGMA ** 2))
        known = (p[..., 2] > 0).float()
        # A point that is not there, or lies on the far side of the head, has an empty map.
        return gy[..., None] * gx[..., None, :] * known[..., None, None], torch.where(p[..., 2] == 1, 0.5, 1.0)

    def draw(self, pool, rng):
        x = torch.empty(self.batch, 3, HEIGHT, WIDTH)
        points = np.zeros((self.batch, 17, 3))
        for i in range(self.batch):
            picture, row = pool.person(rng)
            box, k = row[:4].astype(np.float64), row[4:].reshape(17, 3).astype(np.float64)
            size = math.exp(rng.normal(0, 0.12)) * box[2:]
            middle = box[:2] + box[2:] / 2 + rng.normal(0, 0.05, 2) * box[2:]
            box = np.concatenate([middle - size / 2, size * np.exp(rng.normal(0, 0.05, 2))])
            angle = rng.normal(0, 0.35) if rng.random() < 0.4 else 0.0
            mirror = rng.random() < 0.5
            crop, a = self.place(picture, box, angle, mirror)
            x[i] = colours(rng, crop)
            q = k[SWAP] if mirror else k
            points[i, :, :2] = q[:, :2] @ a[:, :2].T + a[:, 2]
            points[i, :, 2] = q[:, 2]
            outside = ((points[i, :, :2] < 0) | (points[i, :, :2] > [WIDTH - 1, HEIGHT - 1])).any(1)
            points[i, outside, 2] = 0
        return self.normal(x), points

    @staticmethod
    def normal(x):
        return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def loss(self, model, batch):
        self.halfway = []
        x, points = batch
        wanted, weight = self.maps(points)
        out = model(x).heatmaps.float()
        error = ((out - wanted) ** 2).sum((2, 3)) * weight
        cell = (points[..., 1] // 8).clip(0, 11).astype(int) * 9 + (points[..., 0] // 8).clip(0, 8).astype(int)
        cell, known = torch.from_numpy(cell), torch.from_numpy(points[..., 2] > 0)
        where = [F.cross_entropy(head(f).float().transpose(1, 2)[known], cell[known])
                 for head, f in zip(model.where, self.halfway)]
        loss = error.mean() + sum(where)
        return loss, {"error": error.mean().item(), "cell": where[1].item()}

    @torch.no_grad()
    def measure(self, model, pictures):
        """Share of visible points found within a tenth of the box's longer side, and the mean of OKS."""
        jobs = [(p, row) for p, people in pictures for row in people][:400]
        spread = 2 * np.array([.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087,
                               .089, .089])
        near = seen = 0
        oks, highest = [], []
        for at in range(0, len(jobs), 32):
            some = [(self.place(p, row[:4].astype(np.float64), 0.0, False), row) for p, row in jobs[at:at + 32]]
            out = model(self.normal(torch.stack([c[0] for c, _ in some]))).heatmaps
            best = out.flatten(2).argmax(-1).numpy()
            peaks = out.flatten(2).amax(-1).numpy()
            for k, ((_, a), row) in enumerate(some):
                q = row[4:].reshape(17, 3)
                m = np.stack([best[k] % MAP_W * (WIDTH - 1) / (MAP_W - 1),
                              best[k] // MAP_W * (HEIGHT - 1) / (MAP_H - 1)], 1)
                found = (m - a[:, 2]) @ np.linalg.inv(a[:, :2]).T
                d2 = ((found - q[:, :2]) ** 2).sum(1)
                visible, known = q[:, 2] == 2, q[:, 2] > 0
                near += (np.sqrt(d2[visible]) < 0.1 * row[2:4].max()).sum()
                seen += visible.sum()
                highest.extend(peaks[k][visible])
                oks.append(np.exp(-d2[known] / (2 * row[2] * row[3] * 0.53 * spread[known] ** 2 + 1e-9)).mean())
        return {"near": float(near / max(seen, 1)), "peak": float(np.quantile(highest, 0.99)), "OKS": float(np.mean(oks))}

    @torch.no_grad()
    def calibrate(self, model, pictures):
        """Scales the heat maps, until all but a hundredth of the visible points have peaks below 1."""
        found = self.measure(model, pictures)
        for p in model.head.conv.parameters():
            p /= found["peak"]


# ---- the loop ----


def write(path, data):
    with open(path, "w") as f:
        json.dump(data, f, indent=2)
        f.write("\n")


def save_model(task, model, folder):
    """The folder of a release: transformers' own writer knows the names that official checkpoints have."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        model.save_pretrained(aside)
        tensors = load_file(f"{aside}/model.safetensors")
        config = json.load(open(f"{aside}/config.json"))
    config["architectures"] = [type(model).__name__]
    write(f"{folder}/config.json", config)
    write(f"{folder}/preprocessor_config.json", task.processor)
    tensors = {n: t for n, t in tensors.items() if "num_batches_tracked" not in n and not n.startswith("where.")}
    save_file(tensors, f"{folder}/.model.safetensors.tmp", metadata={"format": "pt"})
    os.chmod(f"{folder}/.model.safetensors.tmp", 0o644)
    os.replace(f"{folder}/.model.safetensors.tmp", f"{folder}/model.safetensors")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["detector", "pose"])
    parser.add_argument("--pool", required=True)
    parser.add_argument("--held-out", required=True, help="a pool of another seed, to watch the training by")
    parser.add_argument("--out", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--until", help="HH:MM: end then instead, today")
    parser.add_argument("--flat", type=float, default=0.5, help="part of the time before the cosine begins")
    parser.add_argument("--mixed", action="store_true", help="the network in bfloat16 where that is safe")
    parser.add_argument("--eval-minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    os.makedirs(args.run, exist_ok=True)
    log = open(f"{args.run}/log.txt", "a")

    def say(text):
        print(text, flush=True)
        log.write(text + "\n")
        log.flush()

    task = Detector() if args.what == "detector" else Pose()
    model = task.network()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    inner = [p for n, p in model.named_parameters() if p.dim() > 1 and not task.slow(n)]
    outer = [p for n, p in model.named_parameters() if p.dim() <= 1 or task.slow(n)]
    optimizers = [(Muon(inner, task.muon_lr, weight_decay=0.02), task.muon_lr),
                  (torch.optim.AdamW(outer, lr=task.adam_lr, betas=(0.9, 0.98), weight_decay=0.0), task.adam_lr)]
    say(f"{sum(p.numel() for p in model.parameters())} parameters, {sum(p.numel() for p in inner)} of them by Muon")
    step, elapsed = 0, 0.0
    if args.resume:
        state = torch.load(f"{args.run}/state.pt", weights_only=False)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for (o, _), s in zip(optimizers, state["optimizers"]):
            o.load_state_dict(s)
        step, elapsed = state["step"], state["elapsed"]
    total = args.minutes * 60
    if args.until:
        now = time.localtime()
        h, m = map(int, args.until.split(":"))
        total = elapsed + (h * 60 + m) * 60 - (now.tm_hour * 60 + now.tm_min) * 60 - now.tm_sec
    pool, other = Pool(args.pool), Pool(args.held_out)
    held = [(other.x[0][i], other.people[0][other.people[0][:, 0] == i, 1:]) for i in range(len(other.x[0]))]
    rng = np.random.default_rng([args.seed, step])
    last, next_eval, next_log = time.time(), elapsed + args.eval_minutes * 60, elapsed + 20
    since, began, parts = step, elapsed, []
    end = False
    while not end:
        loss_batch = task.draw(pool, rng)
        model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.mixed):
            loss, about = task.loss(model, loss_batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0 if args.what == "detector" else 1.0)
        done = elapsed / total
        factor = min(1, (step + 1) / 60)
        if done > args.flat:
            factor *= 0.5 * (1 + math.cos(math.pi * min(1, (done - args.flat) / (1 - args.flat))))
        for o, lr in optimizers:
            for group in o.param_groups:
                group["lr"] = lr * factor
            o.step()
            o.zero_grad(set_to_none=False)
        step += 1
        with torch.no_grad():
            keep = min(0.998, step / (step + 20))
            for a, b in zip(average.state_dict().values(), model.state_dict().values()):
                a.lerp_(b, 1 - keep) if a.dtype.is_floating_point else a.copy_(b)
        now = time.time()
        elapsed, last = elapsed + now - last, now
        parts.append(about)
        end = elapsed >= total
        if elapsed > next_log:
            next_log = elapsed + 20
            mean = "  ".join(f"{k} {np.mean([p[k] for p in parts]):.4f}" for k in parts[0])
            say(f"{elapsed / 60:6.1f} min  step {step}  {mean}  {(elapsed - began) / (step - since) * 1000:.0f} ms/step  "
                f"lr x{factor:.3f}")
            parts = []
        if elapsed > next_eval or end:
            next_eval = elapsed + args.eval_minutes * 60
            pool.refresh()
            save_model(task, average, args.out)
            torch.save({"model": model.state_dict(), "average": average.state_dict(), "step": step, "elapsed": elapsed,
                        "optimizers": [o.state_dict() for o, _ in optimizers]}, f"{args.run}/state.tmp")
            os.replace(f"{args.run}/state.tmp", f"{args.run}/state.pt")
            result = task.measure(average, held)
            say(f"    {len(pool.x)} shards; held out: " + "  ".join(f"{k} {v:.3f}" for k, v in result.items()))
    task.calibrate(average, held)
    save_model(task, average, args.out)
    say(f"done: {step} steps of {task.batch}, {elapsed / 60:.1f} minutes")


if __name__ == "__main__":
    main()
