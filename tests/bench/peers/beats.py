"""BEATs behind its log-mel front end, as a PyTorch module whose parameters have the official names.

The gated relative positions are added as a mask to scaled_dot_product_attention, which is the fastest way that
PyTorch offers for them. Formulas: Chen et al., BEATs, arXiv:2212.09058, and its public code's behaviour."""

import math

import torch
from torch import nn
from torch.nn import functional as F

BASE = {
    "model_type": "beats", "architectures": ["BEATs"], "input_patch_size": 16, "embed_dim": 512, "conv_bias": False,
    "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12,
    "activation_fn": "gelu", "layer_norm_first": False, "deep_norm": True, "conv_pos": 128, "conv_pos_groups": 16,
    "relative_position_embedding": True, "num_buckets": 320, "max_distance": 800, "gru_rel_pos": True,
    "finetuned_model": True, "predictor_class": 527,
}  # fmt: skip


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.heads = c["encoder_embed_dim"], c["encoder_attention_heads"]
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(d, d) for _ in range(4))
        self.gated = c["relative_position_embedding"] and c["gru_rel_pos"]
        if c["relative_position_embedding"]:
            self.relative_attention_bias = nn.Embedding(c["num_buckets"], self.heads)
        if self.gated:
            self.grep_linear = nn.Linear(d // self.heads, 8)
            self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))

    def forward(self, x, bias):
        b, t, d = x.shape
        q, k, v = (m(x).view(b, t, self.heads, -1).transpose(1, 2) for m in (self.q_proj, self.k_proj, self.v_proj))
        if self.gated:
            ga, gb = torch.sigmoid(self.grep_linear(q).view(b, self.heads, t, 2, 4).sum(-1)).chunk(2, -1)
            bias = (ga * (gb * self.grep_a - 1) + 2) * bias
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out_proj(a.transpose(1, 2).reshape(b, t, d))


class Glu(nn.Module):
    def __init__(self, d, ff):
        super().__init__()
        self.linear = nn.Linear(d, 2 * ff)

    def forward(self, x):
        value, gate = self.linear(x).chunk(2, -1)
        return value * F.silu(gate)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, ff = c["encoder_embed_dim"], c["encoder_ffn_embed_dim"]
        self.self_attn, self.self_attn_layer_norm = Attention(c), nn.LayerNorm(d)
        self.glu = c["activation_fn"] == "glu"
        self.fc1 = Glu(d, ff) if self.glu else nn.Linear(d, ff)
        self.fc2, self.final_layer_norm = nn.Linear(ff, d), nn.LayerNorm(d)
        self.first = c["layer_norm_first"]
        self.alpha = (2 * c["encoder_layers"]) ** 0.25 if c["deep_norm"] else 1.0

    def feed(self, x):
        x = self.fc1(x)
        return self.fc2(x if self.glu else F.gelu(x))

    def forward(self, x, bias):
        if self.first:
            x = x + self.self_attn(self.self_attn_layer_norm(x), bias)
            return x + self.feed(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(self.alpha * x + self.self_attn(x, bias))
        return self.final_layer_norm(self.alpha * x + self.feed(x))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, k = c["encoder_embed_dim"], c["conv_pos"]
        conv = nn.Conv1d(d, d, k, padding=k // 2, groups=c["conv_pos_groups"])
        self.pos_conv = nn.Sequential(nn.utils.weight_norm(conv, dim=2))
        self.layers, self.layer_norm = nn.ModuleList(Layer(c) for _ in range(c["encoder_layers"])), nn.LayerNorm(d)
        self.c = c

    def bias(self, t):
        n, far = self.c["num_buckets"] // 2, self.c["max_distance"]
        away = torch.arange(t)[None, :] - torch.arange(t)[:, None]
        exact, a = n // 2, away.abs()
        log = exact + (torch.log(a.clamp(min=1) / exact) / math.log(far / exact) * (n - exact)).long()
        bucket = (away > 0) * n + torch.where(a < exact, a, log.clamp(max=n - 1))
        return self.layers[0].self_attn.relative_attention_bias(bucket).permute(2, 0, 1)[None]

    def forward(self, x):
        places = self.pos_conv(x.transpose(1, 2)).transpose(1, 2)[:, : x.shape[1]]
        x = x + F.gelu(places)
        bias = self.bias(x.shape[1]) if self.c["relative_position_embedding"] else None
        x = x if self.c["layer_norm_first"] else self.layer_norm(x)
        for layer in self.layers:
            x = layer(x, bias)
        return self.layer_norm(x) if self.c["layer_norm_first"] else x


class Beats(nn.Module):
    """forward: log-mel features [rows, frames, 128], scaled, to logits or features."""

    def __init__(self, c):
        super().__init__()
        p, e, d = c["input_patch_size"], c["embed_dim"], c["encoder_embed_dim"]
        self.patch_embedding = nn.Conv2d(1, e, p, p, bias=c["conv_bias"])
        self.layer_norm = nn.LayerNorm(e)
        if e != d:
            self.post_extract_proj = nn.Linear(e, d)
        self.encoder = Encoder(c)
        if c.get("finetuned_model"):
            self.predictor = nn.Linear(d, c["predictor_class"])

    def forward(self, fbank):
        x = self.patch_embedding(fbank[:, None]).flatten(2).transpose(1, 2)
        x = self.layer_norm(x)
        x = self.encoder(self.post_extract_proj(x) if hasattr(self, "post_extract_proj") else x)
        return torch.sigmoid(self.predictor(x).mean(1)) if hasattr(self, "predictor") else x


def make(c, seed=1):
    torch.manual_seed(seed)
    model = Beats(c).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("relative_attention_bias.weight"):
                p.copy_(torch.randn_like(p))
            if name.endswith("grep_a"):
                p.add_(torch.randn_like(p) * 0.3)
    for layer in model.encoder.layers[1:]:  # one table, which the state dict repeats
        if c["relative_position_embedding"]:
            layer.self_attn.relative_attention_bias = model.encoder.layers[0].self_attn.relative_attention_bias
    return model
