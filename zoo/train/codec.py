"""Trains zoo/models/speech-codec: an EnCodec for 16 kHz speech, 50 frames a second, up to six books of 1024 codes.

    python codec_data.py POOL --seed 1 --minutes 70         (any number of pools)
    python codec_data.py HELD --seed 9 --minutes 6 --held-out
    python codec.py --pool POOL ... --held-out HELD --out ../models/speech-codec --run RUN --minutes 75

The network is written for speed and kept under the names of transformers' EncodecModel; weight normalisation is only how
the file stores a weight, the training knows plain weights.  Two stages: without code books; with books that begin at the
k-means of what the encoder says and follow it by moving averages.  The learning rate follows the clock.  RUN keeps log.txt
and state.pt (--resume continues), OUT holds the newest model."""

import argparse
import json
import math
import os
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

from muon import Muon

RATE, HOP, LENGTH = 16000, 320, 15360
CONFIG = {
    "model_type": "encodec", "architectures": ["EncodecModel"], "sampling_rate": RATE, "audio_channels": 1,
    "normalize": False, "chunk_length_s": None, "overlap": None, "hidden_size": 64, "codebook_dim": 64,
    "codebook_size": 1024, "num_filters": 16, "num_residual_layers": 1, "upsampling_ratios": [5, 8, 8],
    "norm_type": "weight_norm", "kernel_size": 7, "last_kernel_size": 7, "residual_kernel_size": 3,
    "dilation_growth_rate": 2, "use_causal_conv": True, "pad_mode": "constant", "compress": 2, "num_lstm_layers": 1,
    "trim_right_ratio": 1.0, "use_conv_shortcut": True, "target_bandwidths": [1.5, 3.0]}
BOOKS = 6
SHARE = [0.08, 0.07, 0.35, 0.08, 0.07, 0.35]  # how often 1 .. 6 books are in use

# ---- the network ----


class Conv(nn.Conv1d):
    def forward(self, x):
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0], 0)))


class Up(nn.ConvTranspose1d):
    def forward(self, x):
        return super().forward(x)[..., :x.shape[-1] * self.stride[0]]


class Residual(nn.Module):
    def __init__(self, dim, hidden, kernel):
        super().__init__()
        self.block = nn.ModuleList([nn.ELU(), Conv(dim, hidden, kernel), nn.ELU(), Conv(hidden, dim, 1)])
        self.shortcut = Conv(dim, dim, 1)

    def forward(self, x):
        y = x
        for layer in self.block:
            y = layer(y)
        return self.shortcut(x) + y


class Lstm(nn.Module):
    def __init__(self, dim, layers):
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, layers)

    def forward(self, x):
        x = x.permute(2, 0, 1)
        return (self.lstm(x)[0] + x).permute(1, 2, 0)


def stack(c, decoder):
    n, ratios = c["num_filters"], c["upsampling_ratios"]
    top = n * 2 ** len(ratios)
    if decoder:
        out, dim = [Conv(c["hidden_size"], top, c["kernel_size"]), Lstm(top, c["num_lstm_layers"])], top
        for r in ratios:
            out += [nn.ELU(), Up(dim, dim // 2, 2 * r, r)]
            dim //= 2
            out += [Residual(dim, dim // c["compress"], c["residual_kernel_size"])]
        out += [nn.ELU(), Conv(n, 1, c["last_kernel_size"])]
    else:
        out, dim = [Conv(1, n, c["kernel_size"])], n
        for r in reversed(ratios):
            out += [Residual(dim, dim // c["compress"], c["residual_kernel_size"]), nn.ELU(), Conv(dim, 2 * dim, 2 * r, r)]
            dim *= 2
        out += [Lstm(top, c["num_lstm_layers"]), nn.ELU(), Conv(top, c["hidden_size"], c["last_kernel_size"])]
    for m in out:
        for k in m.modules():
            if isinstance(k, (nn.Conv1d, nn.ConvTranspose1d)):
                nn.init.zeros_(k.bias)
    return nn.Sequential(*out)


class Books(nn.Module):
    """Residual books that follow the encoder: each entry is the running mean of what was nearest to it."""

    def __init__(self, n, k, dim):
        super().__init__()
        self.n, self.k = n, k
        self.register_buffer("embed", torch.zeros(n, k, dim))
        self.register_buffer("sum", torch.zeros(n, k, dim))
        self.register_buffer("count", torch.ones(n, k))

    @staticmethod
    def nearest(x, book):
        return (book.square().sum(1) - 2 * x @ book.t()).argmin(1)

    @torch.no_grad()
    def begin(self, x, rounds=8):
        """k-means, book after book; x [n, dim]."""
        for q in range(self.n):
            book = x[torch.randperm(len(x))[:self.k]].clone()
            for _ in range(rounds):
                at = self.nearest(x, book)
                count = torch.bincount(at, minlength=self.k).float()
                book = torch.zeros_like(book).index_add_(0, at, x) / count.clamp(min=1)[:, None]
                empty = (count == 0).nonzero()[:, 0]
                book[empty] = x[torch.randint(len(x), (len(empty),))]
            at = self.nearest(x, book)
            count = torch.bincount(at, minlength=self.k).float().clamp(min=0.5)
            self.embed[q], self.count[q], self.sum[q] = book, count / count.mean(), book * (count / count.mean())[:, None]
            x = x - book[at]

    def forward(self, z, used, learn):
        """z [batch, dim, frames], used [batch]: books of each row.  The quantised z and the commitment."""
        x = z.permute(0, 2, 1)
        shape, rows = x.shape, used.repeat_interleave(x.shape[1])
        x = x.reshape(-1, shape[2])
        total, commit, rest = torch.zeros_like(x), 0.0, x
        for q in range(self.n):
            on = rows > q
            if not on.any():
                break
            here = rest.detach()
            at = self.nearest(here, self.embed[q])
            taken = self.embed[q][at]
            if learn:
                self.follow(q, here[on], at[on])
            commit = commit + ((rest - taken).square().mean(1) * on).mean()
            taken = taken * on[:, None]
            total, rest = total + taken, rest - taken
        y = x + (total - x).detach()
        return y.reshape(shape).permute(0, 2, 1), commit

    @torch.no_grad()
    def follow(self, q, x, at, keep=0.98):
        count = torch.bincount(at, minlength=self.k).float()
        scale = self.k / len(x)
        self.count[q].mul_(keep).add_(count * scale, alpha=1 - keep)
        self.sum[q].mul_(keep).add_(torch.zeros_like(self.sum[q]).index_add_(0, at, x) * scale, alpha=1 - keep)
        dead = (self.count[q] < 0.03).nonzero()[:, 0]
        if len(dead):
            new = x[torch.randint(len(x), (len(dead),))]
            self.count[q][dead], self.sum[q][dead] = 0.3, new * 0.3
        self.embed[q] = self.sum[q] / self.count[q][:, None]


def half(layers, x):
    """All but the last layer in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16):
        x = layers[:-1](x)
    last = layers[-1]
    if last.out_channels > 1:
        return last(x.float())
    w, k = last.weight[0], last.kernel_size[0]  # one channel: seven products first, then their shifted sum
    y = F.pad(w.t() @ x.float(), (k - 1, 0))
    return last.bias + sum(y[:, i:i + 1, i:i + x.shape[2]] for i in range(k))


class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = stack(CONFIG, False), stack(CONFIG, True)
        self.books = Books(BOOKS, CONFIG["codebook_size"], CONFIG["hidden_size"])

    def forward(self, x, used=None, learn=False):
        z = half(self.encoder, x)
        y, commit = (z, 1e-3 * z.square().mean()) if used is None else self.books(z, used, learn)
        return half(self.decoder, y), commit


def save(model, folder):
    """config.json and model.safetensors of transformers' EncodecModel; half precision halves the file."""
    os.makedirs(folder, exist_ok=True)
    out = {}
    for side in ("encoder", "decoder"):
        for name, p in getattr(model, side).named_parameters():
            where, _, kind = name.rpartition(".")
            name = f"{side}.layers.{name}"
            module = getattr(model, side).get_submodule(where)
            if kind == "weight" and isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                base = f"{side}.layers.{where}.conv.parametrizations.weight.original"
                v = p.detach().half()
                out[base + "0"] = v.float().norm(dim=(1, 2), keepdim=True)
                out[base + "1"] = v.clone()
            elif isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
                out[f"{side}.layers.{where}.conv.{kind}"] = p.detach().clone()
            else:
                out[name] = p.detach().half() if p.dim() > 1 else p.detach().clone()
    for q in range(BOOKS):
        out[f"quantizer.layers.{q}.codebook.embed"] = model.books.embed[q].half()
    save_file(out, os.path.join(folder, "model.safetensors.new"), metadata={"format": "pt"})
    os.replace(os.path.join(folder, "model.safetensors.new"), os.path.join(folder, "model.safetensors"))
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(CONFIG, f, indent=1)
        f.write("\n")


# ---- what it should sound like ----


def mel_bank(n, bands):
    """Triangles on HTK's mel scale, [bins, bands]; bands narrower than a bin are left out."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), bands + 2) / 2595) - 1)
    f = np.arange(n // 2 + 1) * RATE / n
    lower, upper = (f[:, None] - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - f[:, None]) / np.diff(edges)[1:]
    bank = np.maximum(0, np.minimum(lower, upper))
    return torch.from_numpy(bank[:, bank.sum(0) > 0.3].astype(np.float32))


class Spectra:
    SCALES = ((64, 8), (128, 16), (256, 32), (512, 64), (1024, 80), (2048, 128))

    def __init__(self):
        self.windows = {n: torch.hann_window(n) for n, _ in self.SCALES}
        self.banks = {n: mel_bank(n, bands) for n, bands in self.SCALES}

    def stft(self, x, n):
        return torch.stft(x, n, n // 4, n, self.windows[n], return_complex=True, center=True, pad_mode="reflect")

    def mel(self, s, n):
        return (s.abs().transpose(1, 2) @ self.banks[n]) * (2 / n ** 0.5)

    def loss(self, x, y, scales):
        """Distance of the mels and of their logarithms over those windows."""
        total = 0.0
        for n in scales:
            a, b = self.mel(self.stft(x, n), n), self.mel(self.stft(y, n), n)
            total = total + (torch.log(a + 1e-3) - torch.log(b + 1e-3)).abs().mean() + (a - b).abs().mean()
        return total / len(scales)


def wave(x, y):
    """The wave's own distance, relative to its loudness: what the ear minds less than spectra, but a voice's pulses are
    learned from it."""
    return (x - y).abs().mean() / (x.abs().mean() + 1e-3)


# ---- sound ----


class Pool:
    def __init__(self, folders):
        self.sounds, self.spans = [], []
        for i, folder in enumerate(folders):
            self.sounds.append(np.load(os.path.join(folder, "sound.npy"), mmap_mode="r"))
            with open(os.path.join(folder, "spans.json")) as f:
                self.spans += [(i, at, n) for at, n, _ in json.load(f) if n > LENGTH]
        weight = np.array([n for _, _, n in self.spans], float)
        self.weight = weight / weight.sum()

    def batch(self, rng, n):
        x = np.zeros((n, LENGTH), np.float32)
        for row, s in zip(x, rng.choice(len(self.spans), n, p=self.weight)):
            i, at, length = self.spans[s]
            at += rng.integers(length - LENGTH + 1)
            row[:] = self.sounds[i][at:at + LENGTH]
            row *= 10 ** (rng.uniform(-8, 4) / 20) / 32768
        return torch.from_numpy(np.clip(x, -1, 1))


@torch.no_grad()
def measure(model, spectra, x, used):
    y = model(x[:, None], torch.full((len(x),), used))[0][:, 0]
    n = 1024
    a, b = spectra.mel(spectra.stft(x, n), n), spectra.mel(spectra.stft(y, n), n)
    mel = (torch.log(a + 1e-3) - torch.log(b + 1e-3)).abs().mean()
    g = (x * y).sum(1, keepdim=True) / x.square().sum(1, keepdim=True)
    sisdr = 10 * torch.log10((g * x).square().sum(1) / ((y - g * x).square().sum(1) + 1e-9) + 1e-9)
    return f"{used} books: mel {mel:.3f} SI-SDR {sisdr.mean():.2f}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pool", nargs="+", required=True)
    p.add_argument("--held-out", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--run", required=True)
    p.add_argument("--minutes", type=float, default=75)
    p.add_argument("--free", type=float, default=0.06, help="part of the time without code books")
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--lr", type=float, default=1.5e-3)
    p.add_argument("--muon-lr", type=float, default=3e-3)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--steps", type=int, default=0, help="stop after so many steps")
    p.add_argument("--resume", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    os.makedirs(a.run, exist_ok=True)
    model, spectra = Codec(), Spectra()
    weights = list(model.encoder.parameters()) + list(model.decoder.parameters())
    matrices = [m.weight for side in (model.encoder, model.decoder) for m in side[1:-1].modules()
                if isinstance(m, (nn.Conv1d, nn.ConvTranspose1d))]
    matrices += [model.encoder[-1].weight, model.decoder[0].weight]
    matrices += [w for side in (model.encoder, model.decoder) for m in side if isinstance(m, Lstm)
                 for w in (m.lstm.weight_ih_l0, m.lstm.weight_hh_l0)]
    inner = {id(w) for w in matrices}
    opt = torch.optim.AdamW([w for w in weights if id(w) not in inner], lr=a.lr, betas=(0.8, 0.98), weight_decay=0.01)
    muon = Muon(matrices, lr=a.muon_lr, weight_decay=0.01, mixed=True)
    step, spent, begun = 0, 0.0, False
    state = os.path.join(a.run, "state.pt")
    if a.resume and os.path.exists(state):
        s = torch.load(state)
        model.load_state_dict(s["model"])
        opt.load_state_dict(s["opt"]), muon.load_state_dict(s["muon"])
        step, spent, begun = s["step"], s["spent"], s["begun"]
        rng = np.random.default_rng(a.seed + step)
    pool, held = Pool(a.pool), Pool([a.held_out]).batch(np.random.default_rng(5), 48)
    log = open(os.path.join(a.run, "log.txt"), "a", buffering=1)
    start, kept, sums = time.time() - spent, time.time(), {}
    while True:
        now = (time.time() - start) / 60 / a.minutes
        if now >= 1 or (a.steps and step >= a.steps):
            break
        fall = 1 if now < 0.4 else 0.03 + 0.97 * (0.5 + 0.5 * math.cos(math.pi * (now - 0.4) / 0.6))
        rate = min(1.0, (step + 1) / 100) * fall
        for g in opt.param_groups:
            g["lr"] = a.lr * rate
        muon.param_groups[0]["lr"] = a.muon_lr * rate
        if now > a.free and not begun:
            with torch.no_grad():
                z = torch.cat([half(model.encoder, pool.batch(rng, 24)[:, None]) for _ in range(24)])
            model.books.begin(z.permute(0, 2, 1).reshape(-1, z.shape[1]))
            begun = True
        x = pool.batch(rng, a.batch)
        used = torch.from_numpy(rng.choice(BOOKS, a.batch, p=SHARE) + 1) if begun else None
        y, commit = model(x[:, None], used, learn=True)
        y = y[:, 0]
        scales = rng.choice(list(spectra.windows), 3, replace=False)
        parts = {"spectra": spectra.loss(x, y, scales), "wave": wave(x, y), "commit": commit}
        loss = 2 * parts["spectra"] + 0.8 * parts["wave"] + 0.25 * commit
        opt.zero_grad(set_to_none=True)
        muon.zero_grad(set_to_none=True)
        loss.backward()
        parts["norm"] = torch.nn.utils.clip_grad_norm_(weights, 10.0)
        opt.step()
        muon.step()
        step += 1
        for k, v in parts.items():
            s, n = sums.get(k, (0.0, 0))
            sums[k] = s + float(v.detach()), n + 1
        if step % 50 == 0:
            log.write(f"step {step} minute {(time.time() - start) / 60:.1f} lr {a.lr * rate:.2g} " +
                      " ".join(f"{k} {s / n:.4f}" for k, (s, n) in sums.items()) + "\n")
            sums = {}
        if time.time() - kept > 240:
            kept = time.time()
            if begun:
                save(model, a.out)
                log.write("held out, " + ", ".join(measure(model, spectra, held, n) for n in (3, 6)) + "\n")
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "muon": muon.state_dict(),
                        "step": step, "spent": time.time() - start, "begun": begun},
                       state + ".new")
            os.replace(state + ".new", state)
    if begun:
        save(model, a.out)
        log.write("end, " + ", ".join(measure(model, spectra, held, n) for n in (1, 3, 6)) + "\n")


if __name__ == "__main__":
    main()
