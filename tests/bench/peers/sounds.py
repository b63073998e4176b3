"""Codecs, Whisper and voice activity beside PyTorch and ONNX Runtime: real-time factors on the same weights.

    python sounds.py VIV WORK_FOLDER [--threads 1] [--rounds 5] [--seconds 5] [--only WORD] [--json FILE]

EnCodec in the layout of its 24 kHz model (8 code books), Mimi and Whisper-base by transformers, all with random
weights of the official sizes; Silero with the weights of zoo/. EnCodec and Silero are written in PyTorch from their
papers. Results of both sides are compared first. One after the other in turns; the shortest run of each counts. All
compute in float32. ONNX Runtime has the exported EnCodec, Whisper's encoder and one window of Silero.
"""

import argparse
import json
import math
import os
import subprocess
import time
import warnings

import beats
import onnxruntime
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")  # the exporter's, of loops over a fixed number of code books

RATIOS = (8, 5, 4, 2)
BOOKS = 8


class Conv(nn.Module):
    def __init__(self, i, o, k, stride=1, up=False):
        super().__init__()
        self.conv = nn.ConvTranspose1d(i, o, k, stride) if up else nn.Conv1d(i, o, k, stride)
        self.left, self.up, self.stride = k - stride, up, stride

    def forward(self, x):
        if self.up:
            return self.conv(x)[..., : x.shape[-1] * self.stride]
        return self.conv(F.pad(x, (self.left, 0), mode="reflect") if self.left else x)


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.block = nn.ModuleList([nn.ELU(), Conv(d, d // 2, 3), nn.ELU(), Conv(d // 2, d, 1)])
        self.shortcut = Conv(d, d, 1)

    def forward(self, x):
        h = x
        for m in self.block:
            h = m(h)
        return self.shortcut(x) + h


class Lstm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.lstm = nn.LSTM(d, d, 2)

    def forward(self, x):
        h = x.permute(2, 0, 1)
        return (self.lstm(h)[0] + h).permute(1, 2, 0)


class Coder(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        d = 512 if decoder else 32
        layers = [Conv(128, d, 7), Lstm(d)] if decoder else [Conv(1, d, 7)]
        for r in RATIOS if decoder else RATIOS[::-1]:
            if decoder:
                layers += [nn.ELU(), Conv(d, d // 2, 2 * r, r, True), Block(d // 2)]
            else:
                layers += [Block(d), nn.ELU(), Conv(d, 2 * d, 2 * r, r)]
            d = d // 2 if decoder else 2 * d
        layers += [nn.ELU(), Conv(d, 1, 7)] if decoder else [Lstm(d), nn.ELU(), Conv(d, 128, 7)]
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for m in self.layers:
            x = m(x)
        return x


class Encodec(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Coder(False), Coder(True)
        self.books = nn.Parameter(torch.randn(BOOKS, 1024, 128) * 0.1)

    def encode(self, x):
        z, codes = self.encoder(x)[0].T, []
        for book in self.books:
            q = (z @ book.T * 2 - (book * book).sum(1)).argmax(1)
            z = z - book[q]
            codes.append(q)
        return torch.stack(codes)

    def decode(self, codes):
        return self.decoder(sum(b[c] for b, c in zip(self.books, codes)).T[None])


class Silero(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = w
        self.cell = nn.LSTMCell(128, 128)
        self.cell.load_state_dict({k[10:]: v for k, v in w.items() if k.startswith("lstm_cell.")})

    def forward(self, x, h, c):
        """A window behind its 64 samples of context [1, 576]: the probability, the state."""
        w = self.w
        y = F.pad(x[:, None], (0, 64), mode="reflect")
        y = F.conv1d(y, w["stft_conv.weight"], stride=128)
        y = (y[:, :129] ** 2 + y[:, 129:] ** 2).sqrt()
        for i, stride in enumerate((1, 2, 2, 1), 1):
            y = F.relu(F.conv1d(y, w[f"conv{i}.weight"], w[f"conv{i}.bias"], stride, 1))
        h, c = self.cell(y[..., 0], (h, c))
        y = F.conv1d(F.relu(h)[..., None], w["final_conv.weight"], w["final_conv.bias"])
        return torch.sigmoid(y).mean(), h, c


def windows(step, speech):
    """Probabilities of all windows, one after another, as a live source gives them."""
    out, h, c = [], torch.zeros(1, 128), torch.zeros(1, 128)
    padded = F.pad(speech, (64, 0))
    for at in range(0, len(speech), 512):
        p, h, c = step(padded[None, at : at + 576], h, c)
        out.append(p)
    return torch.stack(out)


def make_encodec(folder):
    torch.manual_seed(1)
    model = Encodec().eval()
    state = {k: v.detach().contiguous() for k, v in model.state_dict().items() if k != "books"}
    for i, book in enumerate(model.books):
        state[f"quantizer.layers.{i}.codebook.embed"] = book.detach().clone()
    os.makedirs(folder, exist_ok=True)
    save_file(state, f"{folder}/model.safetensors")
    with open(f"{folder}/config.json", "w") as f:
        json.dump({"model_type": "encodec", "architectures": ["EncodecModel"], "target_bandwidths": [6.0],
                   "upsampling_ratios": list(RATIOS)}, f)  # fmt: skip
    return model


def make_mimi(folder):
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(2)
    model = MimiModel(MimiConfig()).eval()
    for m in model.modules():
        if hasattr(m, "embed_sum"):
            m.embed_sum.copy_(torch.randn_like(m.embed_sum) * 0.1)
            m.cluster_usage.fill_(1.0)
            m.initialized.fill_(1.0)
        if isinstance(m, (nn.Conv1d, nn.ConvTranspose1d)):
            m.reset_parameters()
    model.save_pretrained(folder)
    return model


def make_whisper(folder):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(3)
    model = WhisperForConditionalGeneration(WhisperConfig(
        d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8, decoder_attention_heads=8,
        encoder_ffn_dim=2048, decoder_ffn_dim=2048)).eval()  # fmt: skip
    model.save_pretrained(folder)
    return model


def make_beats(folder):
    model = beats.make(beats.BASE)
    os.makedirs(folder, exist_ok=True)
    save_file({k: v.detach().clone() for k, v in model.state_dict().items()}, f"{folder}/model.safetensors")
    with open(f"{folder}/config.json", "w") as f:
        json.dump(beats.BASE, f)
    return model


def fbank(x):
    """Kaldi's log-mel features of 16 kHz, 25 ms every 10 ms, 128 bands, as BEATs scales them."""
    mel = 1127 * torch.log1p(torch.arange(256) * 16000 / 512 / 700)
    ends = torch.linspace(float(1127 * math.log1p(20 / 700)), float(1127 * math.log1p(8000 / 700)), 130)
    up = (mel[:, None] - ends[:-2]) / (ends[1:-1] - ends[:-2])
    down = (ends[2:] - mel[:, None]) / (ends[2:] - ends[1:-1])
    bank = F.pad(torch.minimum(up, down).clamp(min=0), (0, 0, 0, 1))
    window = torch.hann_window(400, periodic=False) ** 0.85
    y = (x * 32768).unfold(1, 400, 160)
    y = y - y.mean(2, keepdim=True)
    y = (y - 0.97 * F.pad(y, (1, 0), mode="replicate")[..., :-1]) * window
    power = torch.fft.rfft(y, 512).abs() ** 2
    return ((power @ bank).clamp(min=1.1920929e-07).log() - 15.41663) / (2 * 6.55582)


def whisper_greedy(model, features, tokens):
    """The loop without generate()'s bookkeeping: the fastest way through transformers."""
    encoded = model.model.encoder(features).last_hidden_state
    ids, past, out = torch.tensor([[50257]]), None, []
    for _ in range(tokens):
        y = model.model.decoder(input_ids=ids, encoder_hidden_states=encoded, past_key_values=past, use_cache=True)
        past = y.past_key_values
        ids = model.proj_out(y.last_hidden_state[:, -1:]).argmax(-1)
        out.append(ids)
    return torch.cat(out, 1)


def onnx(module, inputs, path, threads):
    """A callable on tensors that gives the first result."""
    names = [f"x{i}" for i in range(len(inputs))]
    torch.onnx.export(module, inputs, path, input_names=names, dynamo=False, opset_version=17)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(*given):
        return [torch.from_numpy(y) for y in session.run(None, {n: g.numpy() for n, g in zip(names, given)})]

    return run


class Encode(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.encode(x)


class Decode(Encode):
    def forward(self, codes):
        return self.model.decode(codes)


def viv_run(viv, threads, folder, task, inputs, params=(), out=None):
    """What viv bench says of the task over the tensors; out: its results go to that file instead."""
    env = {**os.environ, "VIV_THREADS": str(threads)}
    args = [a for pair in inputs for a in ("-i", pair)] + [a for pair in params for a in ("--param", pair)]
    if out:
        subprocess.run([viv, "run", "--task", task, *args, "-o", out, folder], env=env, check=True,
                       capture_output=True)  # fmt: skip
        return load_file(out)
    done = subprocess.run([viv, "bench", "--task", task, *args, "-r", "3", "--json", folder], env=env, check=True,
                          capture_output=True, text=True)  # fmt: skip
    return json.loads(done.stdout)


def cases_of(work, seconds, threads):
    """Of each case: folder, task, inputs, params, name of the result, seconds of sound, programs in Python."""
    n = 24000 * seconds
    sound = torch.sin(torch.arange(n) / 24000 * 2000) * 0.3 + torch.randn(n) * 0.05
    speech = sound[: 16000 * seconds // 512 * 512].contiguous()
    vad, tokens = "zoo/models/silero-vad", 64
    codec, silero = make_encodec(f"{work}/encodec"), Silero(load_file(f"{vad}/model.safetensors"))
    mimi, whisper = make_mimi(f"{work}/mimi"), make_whisper(f"{work}/whisper")
    features = torch.randn(1, 80, 3000) * 0.3
    x, codes = sound[None, None].contiguous(), codec.encode(sound[None, None])
    spoken = mimi.encode(x, num_quantizers=8).audio_codes
    long, hearer = torch.cat([speech] * 4)[None, :160000].contiguous(), make_beats(f"{work}/beats")
    data = {"long": long, "x": x, "codes": codes[None, None], "spoken": spoken, "speech": speech[None], "features": features}
    save_file({k: v.contiguous().clone() for k, v in data.items()}, f"{work}/in.safetensors")

    def given(name, key):
        return [f"{name}={work}/in.safetensors:{key}"]

    ort = {"encode": onnx(Encode(codec), (x,), f"{work}/encode.onnx", threads),
           "decode": onnx(Decode(codec), (codes,), f"{work}/decode.onnx", threads),
           "step": onnx(silero, (torch.zeros(1, 576), torch.zeros(1, 128), torch.zeros(1, 128)),
                        f"{work}/silero.onnx", threads),
           "beats": onnx(hearer, (fbank(long),), f"{work}/beats.onnx", threads),
           "whisper": onnx(whisper.model.encoder, (features,), f"{work}/whisper.onnx", threads)}  # fmt: skip
    return {
        "EnCodec 24 kHz, encode": (f"{work}/encodec", "encode", given("input_values", "x"), (), "audio_codes", seconds,
                                   lambda: codec.encode(x), lambda: ort["encode"](x)[0]),
        "EnCodec 24 kHz, decode": (f"{work}/encodec", "decode", given("audio_codes", "codes"), (), "audio_values",
                                   seconds, lambda: codec.decode(codes), lambda: ort["decode"](codes)[0]),
        "Mimi, encode, 8 books": (f"{work}/mimi", "encode", given("input_values", "x"), ("num_quantizers=8",),
                                  "audio_codes", seconds, lambda: mimi.encode(x, num_quantizers=8).audio_codes, None),
        "Mimi, decode, 8 books": (f"{work}/mimi", "decode", given("audio_codes", "spoken"), (), "audio_values", seconds,
                                  lambda: mimi.decode(spoken).audio_values, None),
        "Whisper-base, encoder": (f"{work}/whisper", "forward", given("input_features", "features"), (),
                                  "encoder_last_hidden_state", 30,
                                  lambda: whisper.model.encoder(features).last_hidden_state,
                                  lambda: ort["whisper"](features)[0]),
        f"Whisper-base, {tokens} tokens": (f"{work}/whisper", "generate", given("input_features", "features"),
                                           (f"max_new_tokens={tokens}", "ignore_eos=true"), "ids", 30,
                                           lambda: whisper_greedy(whisper, features, tokens), None),
        "BEATs-base, 10 s": (f"{work}/beats", "forward", given("audio", "long"), (), "probabilities",
                             long.shape[1] / 16000, lambda: hearer(fbank(long)),
                             lambda: ort["beats"](fbank(long))[0]),
        "Silero, windows of 32 ms": (vad, "forward", given("audio", "speech"), (), "probabilities",
                                     len(speech) / 16000, lambda: windows(silero, speech),
                                     lambda: windows(ort["step"], speech)),
    }  # fmt: skip


def timed(program):
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


def main():
    p = argparse.ArgumentParser()
    p.add_argument("viv")
    p.add_argument("work")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=int, default=5)
    p.add_argument("--only", default="")
    p.add_argument("--json")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_grad_enabled(False)
    os.makedirs(o.work, exist_ok=True)
    rows = []
    print("sound                        times real time: Vivarium   PyTorch  ONNX Runtime   of the faster   difference")
    for name, case in cases_of(o.work, o.seconds, o.threads).items():
        folder, task, given, params, result, length, torch_peer, onnx_peer = case
        if o.only not in name:
            continue
        mine = viv_run(o.viv, o.threads, folder, task, given, params, f"{o.work}/out.safetensors")[result].flatten()
        theirs = torch_peer().flatten()
        whole = not theirs.is_floating_point()
        off = (mine != theirs).double().mean() if whole else (mine - theirs).abs().max()
        best = [float("inf")] * 3
        for _ in range(o.rounds):
            best[0] = min(best[0], viv_run(o.viv, o.threads, folder, task, given, params)["least_ms"] / 1000)
            best[1] = min(best[1], timed(torch_peer))
            best[2] = min(best[2], timed(onnx_peer)) if onnx_peer else best[2]
        row = {"name": name, "threads": o.threads, "difference": float(off), "seconds": best[:2 + bool(onnx_peer)],
               "vivarium": length / best[0], "pytorch": length / best[1], "onnxruntime": length / best[2],
               "ratio": min(best[1:]) / best[0]}  # fmt: skip
        if name.startswith("Silero"):
            row["us_per_window"] = best[0] / (length / 0.032) * 1e6
        rows.append(row)
        window = f"   {row['us_per_window']:.0f} us a window" if "us_per_window" in row else ""
        print(f"{name:28} {row['vivarium']:26.1f} {row['pytorch']:9.1f} {row['onnxruntime'] or '-':>13.5} {row['ratio']:15.2f} "
              f"{row['difference']:12.2g}{window}", flush=True)  # fmt: skip
    if o.json:
        with open(o.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
