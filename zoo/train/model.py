"""SambaY (the architecture of Phi-4-mini-Flash-Reasoning), small, for training on a CPU.

Layer i of n, with half = n/2:
    even i <= half     Mamba-1; layer `half` also exports its memory m (before the gate)
    odd  i <  half     differential attention with a sliding window
    i = half + 1       differential attention over everything; its K and V are the shared cache
    even i >  half     gated memory unit reading m
    odd  i > half + 1  differential cross-attention on the shared K and V
There is no position encoding.  The names of the parameters are those of the official checkpoint.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

import ops


class Linear(nn.Linear):
    def forward(self, x):
        return ops.linear(x, self.weight, self.bias)


class Mamba(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, E, N, R = c["hidden_size"], c["hidden_size"] * c["mamba_expand"], c["mamba_d_state"], c["mamba_dt_rank"]
        self.R, self.N, self.E = R, N, E
        self.in_proj = Linear(d, 2 * E, bias=False)
        self.conv1d = nn.Conv1d(E, E, c["mamba_d_conv"], groups=E)
        self.x_proj = nn.Linear(E, R + 2 * N, bias=False)
        self.dt_proj = nn.Linear(R, E)
        self.A_log = nn.Parameter(torch.log(torch.arange(1, N + 1.0)).repeat(E, 1))
        self.D = nn.Parameter(torch.ones(E))
        self.out_proj = Linear(E, d, bias=False)
        # The usual start: steps between 0.001 and 0.1, spread evenly in the logarithm.
        step = torch.exp(torch.rand(E) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
        self.dt_proj.bias.data = step + torch.log(-torch.expm1(-step))

    def forward(self, u, fast, cache=None):
        """Returns (output, memory)."""
        x = ops.linear(u, self.in_proj.weight[:self.E])
        z = ops.linear(u, self.in_proj.weight[self.E:])
        A = -torch.exp(self.A_log)
        if fast:
            x = ops.ConvSilu.apply(x, self.conv1d.weight, self.conv1d.bias)
            xd = self.x_proj(x)
            m = ops.Scan.apply(x, self.dt_proj(xd[..., :self.R]), A, xd, self.D)
            return self.out_proj(ops.SiluMul.apply(z, m)), m
        if cache is None:
            x = ops.conv_silu_reference(x, self.conv1d.weight, self.conv1d.bias)
            state = None
        else:
            tail = torch.cat([cache["conv"], x], 1) if "conv" in cache else F.pad(x, (0, 0, 3, 0))
            cache["conv"] = tail[:, -3:]
            w = self.conv1d.weight[:, 0]
            x = F.silu(sum(tail[:, k:k + x.shape[1]] * w[:, k] for k in range(4)) + self.conv1d.bias)
            state = cache.get("ssm")
        dtr, Bv, Cv = self.x_proj(x).split([self.R, self.N, self.N], -1)
        m, state = ops.scan_reference(x, self.dt_proj(dtr), A, Bv, Cv, self.D, state)
        if cache is not None:
            cache["ssm"] = state
        return self.out_proj(F.silu(z) * m), m


class GatedMemoryUnit(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, E = c["hidden_size"], c["hidden_size"] * c["mamba_expand"]
        self.in_proj = Linear(d, E, bias=False)
        self.out_proj = Linear(E, d, bias=False)

    def forward(self, u, memory, fast):
        g = self.in_proj(u)
        return self.out_proj(ops.SiluMul.apply(g, memory) if fast else F.silu(g) * memory)


class Inner(nn.Module):
    """The parameters that the official code keeps in `inner_cross_attn`."""

    def __init__(self, D):
        super().__init__()
        for name in ("lambda_q1", "lambda_k1", "lambda_q2", "lambda_k2"):
            setattr(self, name, nn.Parameter(torch.randn(D) * 0.1))
        self.subln = nn.Module()
        self.subln.weight = nn.Parameter(torch.ones(2 * D))


class Attention(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        d, self.H, self.G = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
        self.D = d // self.H
        half = c["num_hidden_layers"] // 2
        self.cross = i > half + 1
        self.window = c["sliding_window"] if i < half else 1 << 40
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * i)
        self.Wqkv = Linear(d, d if self.cross else d + 2 * self.G * self.D)
        self.out_proj = Linear(d, d)
        self.inner_cross_attn = Inner(self.D)

    def forward(self, u, shared, fast, cache=None):
        """Returns (output, own projection [Q | K | V]); cross layers take K and V from `shared`."""
        B, T, d = u.shape
        p = self.inner_cross_attn
        lam = torch.exp(p.lambda_q1 @ p.lambda_k1) - torch.exp(p.lambda_q2 @ p.lambda_k2) + self.lambda_init
        post = 1 - self.lambda_init
        qkv = self.Wqkv(u)
        if fast:
            o = ops.DiffAttention.apply(qkv, shared if self.cross else None, lam.reshape(1), p.subln.weight, post,
                                        self.window, self.H, self.G)
            return self.out_proj(o), qkv
        q = qkv[..., :d].reshape(B, T, self.H, self.D)
        if self.cross:
            kv = shared
        else:
            kv = qkv[..., d:]
            if cache is not None:
                kv = cache["kv"] = torch.cat([cache["kv"], kv], 1) if "kv" in cache else kv
        S = kv.shape[1]
        k, v = kv.reshape(B, S, 2, self.G, self.D).unbind(2)
        o = ops.diff_attention_reference(q, k, v, lam, p.subln.weight, post, self.window, S - T)
        return self.out_proj(o), kv


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1 = Linear(c["hidden_size"], 2 * c["intermediate_size"], bias=False)
        self.fc2 = Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x, fast):
        x = self.fc1(x)
        if fast:
            return self.fc2(ops.SwiGLU.apply(x))
        gate, value = x.chunk(2, -1)
        return self.fc2(F.silu(gate) * value)


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        d, eps, half = c["hidden_size"], c["layer_norm_eps"], c["num_hidden_layers"] // 2
        self.kind = ("mamba" if i <= half else "gmu") if i % 2 == 0 else "attention"
        self.attn = Mamba(c) if self.kind == "mamba" else GatedMemoryUnit(c) if self.kind == "gmu" else Attention(c, i)
        self.mlp = MLP(c)
        self.input_layernorm = nn.LayerNorm(d, eps)
        self.post_attention_layernorm = nn.LayerNorm(d, eps)


class SambaY(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = c = config
        self.half = c["num_hidden_layers"] // 2
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.model.layers = nn.ModuleList(Layer(c, i) for i in range(c["num_hidden_layers"]))
        self.model.final_layernorm = nn.LayerNorm(c["hidden_size"], c["layer_norm_eps"])
        n = c["num_hidden_layers"]
        for name, p in self.named_parameters():
            if p.dim() == 2 and not name.endswith(("A_log", "dt_proj.weight")):
                std = 0.02 if "embed" in name else p.shape[1] ** -0.5 * 0.6
                if name.endswith(("out_proj.weight", "fc2.weight")):
                    std /= math.sqrt(n)
                nn.init.normal_(p, 0, std)
            elif name.endswith(("Wqkv.bias", "out_proj.bias")):
                nn.init.zeros_(p)

    def hidden(self, ids, fast=True, caches=None):
        """The final norm's output [B, T, d].  `fast` = the compiled kernels; `caches` = a list with one
        dict per layer, carried from call to call while generating (needs fast=False)."""
        h = self.model.embed_tokens(ids)
        memory = shared = None
        for i, layer in enumerate(self.model.layers):
            cache = caches[i] if caches is not None else None
            u = layer.input_layernorm(h)
            if layer.kind == "mamba":
                y, m = layer.attn(u, fast, cache)
                if i == self.half:
                    memory = m
            elif layer.kind == "gmu":
                y = layer.attn(u, memory, fast)
            else:
                y, kv = layer.attn(u, shared, fast, cache)
                if i == self.half + 1:
                    shared = kv
            h = h + y
            h = h + layer.mlp(layer.post_attention_layernorm(h), fast)
        return self.model.final_layernorm(h)

    def logits(self, hidden):
        return F.linear(hidden, self.model.embed_tokens.weight)

    @torch.no_grad()
    def generate(self, prompts, limit, stop):
        """Greedy continuation of a list of lists of ids, all rows together from position 0: a row whose
        prompt is not over yet is fed its prompt.  Returns the lists of new ids, without the stop token."""
        n = len(prompts)
        lengths = torch.tensor([len(p) for p in prompts])
        table = torch.zeros(n, int(lengths.max()), dtype=torch.long)
        for row, p in zip(table, prompts):
            row[:len(p)] = torch.tensor(p)
        caches = [{} for _ in self.model.layers]
        out = [[] for _ in prompts]
        rows = torch.arange(n)                       # the rows that are still running
        token = table[:, 0]
        t = 0
        start = int(lengths.min())
        hidden = self.hidden(table[:, :start], False, caches)[:, -1]
        t = start
        while True:
            guess = self.logits(hidden).argmax(-1)
            alive = []
            token = guess.clone()
            for j, r in enumerate(rows.tolist()):
                if t < lengths[r]:
                    token[j] = table[r, t]
                    alive.append(j)
                elif guess[j].item() != stop and len(out[r]) < limit:
                    out[r].append(guess[j].item())
                    alive.append(j)
            if not alive:
                return out
            if len(alive) < len(rows):
                keep = torch.tensor(alive)
                rows, token = rows[keep], token[keep]
                caches = [{k: v[keep] for k, v in c.items()} for c in caches]
            hidden = self.hidden(token[:, None], False, caches)[:, -1]
            t += 1
