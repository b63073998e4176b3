"""MobileSAM in PyTorch, under the names of its official checkpoint, at any width.

Parts: TinyViT (image_encoder), prompts (prompt_encoder), two-way transformer (mask_decoder).  config: zoo's config.json.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class ConvNorm(nn.Sequential):
    def __init__(self, a, b, kernel=1, stride=1, groups=1, scale=1.0):
        super().__init__()
        self.add_module("c", nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(b))
        nn.init.constant_(self.bn.weight, scale)


class Inverted(nn.Module):
    """Stage 0's block, and the way between stages (no residual there)."""

    def __init__(self, a, inner, b, stride=1, residual=False):
        super().__init__()
        self.conv1 = ConvNorm(a, inner)
        self.conv2 = ConvNorm(inner, inner, 3, stride, inner)
        self.conv3 = ConvNorm(inner, b, scale=0.0 if residual else 1.0)
        self.residual = residual

    def forward(self, x):
        y = self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))
        return F.gelu(x + y) if self.residual else y


class Attention(nn.Module):
    def __init__(self, d, heads, side):
        super().__init__()
        self.heads, self.side = heads, side
        self.norm = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.proj = nn.Linear(d, d)
        self.attention_biases = nn.Parameter(torch.zeros(heads, side * side))
        self.reindex()

    def reindex(self):
        g = torch.arange(self.side)
        y, x = g.repeat_interleave(self.side), g.repeat(self.side)
        index = (y[:, None] - y[None]).abs() * self.side + (x[:, None] - x[None]).abs()
        self.register_buffer("index", index, persistent=False)

    def forward(self, x):  # [windows, n, d]
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, n, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        a = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2) + self.attention_biases[:, self.index].to(q.dtype)
        return self.proj((a.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, d, inner):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, inner)
        self.fc2 = nn.Linear(inner, d)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Block(nn.Module):
    def __init__(self, d, heads, side, ratio):
        super().__init__()
        self.attn = Attention(d, heads, side)
        self.local_conv = ConvNorm(d, d, 3, 1, d)
        self.mlp = Mlp(d, int(d * ratio))

    def forward(self, x):  # [B, d, g, g]
        b, d, g, _ = x.shape
        w = self.attn.side
        more = -g % w
        y = x.permute(0, 2, 3, 1)
        if more:
            y = F.pad(y, (0, 0, 0, more, 0, more))
        n = (g + more) // w
        y = y.reshape(b, n, w, n, w, d).transpose(2, 3).reshape(b * n * n, w * w, d)
        y = self.attn(y).view(b, n, n, w, w, d).transpose(2, 3).reshape(b, n * w, n * w, d)[:, :g, :g]
        x = self.local_conv(x + y.permute(0, 3, 1, 2))
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Norm2d(nn.Module):
    """Over the channels of a map."""

    def __init__(self, d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(d)), nn.Parameter(torch.zeros(d))

    def forward(self, x):
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        dims, out = c["embed_dims"], c["prompt_embed_dim"]
        self.patch_embed = nn.Module()
        self.patch_embed.seq = nn.Sequential(ConvNorm(3, dims[0] // 2, 3, 2), nn.GELU(), ConvNorm(dims[0] // 2, dims[0], 3, 2))
        self.layers = nn.ModuleList()
        for i, d in enumerate(dims):
            layer = nn.Module()
            inner = int(d * c["mbconv_expand_ratio"])
            layer.blocks = nn.ModuleList(
                Inverted(d, inner, d, residual=True) if i == 0 else
                Block(d, c["num_heads"][i], c["window_sizes"][i], c["mlp_ratio"]) for _ in range(c["depths"][i]))
            if i < 3:
                layer.downsample = Inverted(d, dims[i + 1], dims[i + 1], 1 if i == 2 else 2)
            self.layers.append(layer)
        self.neck = nn.Sequential(nn.Conv2d(dims[3], out, 1, bias=False), Norm2d(out),
                                  nn.Conv2d(out, out, 3, padding=1, bias=False), Norm2d(out))

    def forward(self, x):
        x = self.patch_embed.seq(x)
        for layer in self.layers:
            for block in layer.blocks:
                x = block(x)
            if hasattr(layer, "downsample"):
                x = layer.downsample(x)
        return self.neck(x)


class Prompts(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, m = c["prompt_embed_dim"], c["mask_in_chans"]
        self.pe_layer = nn.Module()
        self.pe_layer.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, d // 2))
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, d) for _ in range(4))
        self.not_a_point_embed, self.no_mask_embed = nn.Embedding(1, d), nn.Embedding(1, d)
        for e in [*self.point_embeddings, self.not_a_point_embed, self.no_mask_embed]:
            nn.init.normal_(e.weight, std=0.2)
        self.mask_downscaling = nn.Sequential(nn.Conv2d(1, m // 4, 2, 2), Norm2d(m // 4), nn.GELU(),
                                              nn.Conv2d(m // 4, m, 2, 2), Norm2d(m), nn.GELU(), nn.Conv2d(m, d, 1))

    def code(self, xy):  # [..., 2] in 0..1
        v = 2 * math.pi * ((2 * xy - 1) @ self.pe_layer.positional_encoding_gaussian_matrix)
        return torch.cat([v.sin(), v.cos()], -1)

    def grid(self, g):
        t = (torch.arange(g) + 0.5) / g
        return self.code(torch.stack([t.repeat(g), t.repeat_interleave(g)], -1))

    def sparse(self, xy, labels, side):
        """xy [P, n, 2] in pixels of the square, labels [P, n]: -1 nothing, 0 outside, 1 inside, 2 and 3 corners."""
        table = torch.cat([self.not_a_point_embed.weight] + [e.weight for e in self.point_embeddings])
        return self.code((xy + 0.5) / side) * (labels >= 0)[..., None] + table[labels + 1]


class Attend(nn.Module):
    def __init__(self, d, inner, heads):
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(d, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, d)

    def forward(self, q, k, v):
        cut = lambda x: x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = cut(self.q_proj(q)), cut(self.k_proj(k)), cut(self.v_proj(v))
        a = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1)
        return self.out_proj((a @ v).transpose(1, 2).flatten(2))


class TwoWay(nn.Module):
    def __init__(self, d, heads, inner, first):
        super().__init__()
        self.first = first
        self.self_attn = Attend(d, d, heads)
        self.cross_attn_token_to_image = Attend(d, d // 2, heads)
        self.cross_attn_image_to_token = Attend(d, d // 2, heads)
        self.mlp = nn.Module()
        self.mlp.lin1, self.mlp.lin2 = nn.Linear(d, inner), nn.Linear(inner, d)
        for i in range(1, 5):
            self.add_module(f"norm{i}", nn.LayerNorm(d))

    def forward(self, q, k, pe, pk):
        q = self.norm1(self.self_attn(q, q, q) if self.first else q + self.self_attn(q + pe, q + pe, q))
        q = self.norm2(q + self.cross_attn_token_to_image(q + pe, k + pk, k))
        q = self.norm3(q + self.mlp.lin2(F.relu(self.mlp.lin1(q))))
        return q, self.norm4(k + self.cross_attn_image_to_token(k + pk, q + pe, q))


class Deep(nn.Module):
    def __init__(self, a, inner, b, n):
        super().__init__()
        sizes = [a] + [inner] * (n - 1) + [b]
        self.layers = nn.ModuleList(nn.Linear(x, y) for x, y in zip(sizes, sizes[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, heads, n = c["prompt_embed_dim"], c["decoder_num_heads"], c["num_multimask_outputs"] + 1
        self.iou_token, self.mask_tokens = nn.Embedding(1, d), nn.Embedding(n, d)
        self.transformer = nn.Module()
        self.transformer.layers = nn.ModuleList(
            TwoWay(d, heads, c["decoder_mlp_dim"], i == 0) for i in range(c["decoder_depth"]))
        self.transformer.final_attn_token_to_image = Attend(d, d // 2, heads)
        self.transformer.norm_final_attn = nn.LayerNorm(d)
        self.output_upscaling = nn.Sequential(nn.ConvTranspose2d(d, d // 4, 2, 2), Norm2d(d // 4), nn.GELU(),
                                              nn.ConvTranspose2d(d // 4, d // 8, 2, 2), nn.GELU())
        self.output_hypernetworks_mlps = nn.ModuleList(Deep(d, d, d // 8, 3) for _ in range(n))
        self.iou_prediction_head = Deep(d, c["iou_head_hidden_dim"], n, c["iou_head_depth"])

    def forward(self, k, pk, sparse):
        """k [P, g g, d], pk [g g, d], sparse [P, n, d] -> logits [P, masks, 4g, 4g], IoU [P, masks]"""
        p, cells, d = k.shape
        g, n = math.isqrt(cells), len(self.mask_tokens.weight)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        pe = q = torch.cat([own.expand(p, -1, -1), sparse], 1)
        t = self.transformer
        for layer in t.layers:
            q, k = layer(q, k, pe, pk)
        q = t.norm_final_attn(q + t.final_attn_token_to_image(q + pe, k + pk, k))
        up = self.output_upscaling(k.transpose(1, 2).reshape(p, d, g, g))
        hyper = torch.stack([f(q[:, 1 + i]) for i, f in enumerate(self.output_hypernetworks_mlps)], 1)
        return (hyper @ up.flatten(2)).view(p, n, 4 * g, 4 * g), self.iou_prediction_head(q[:, 0])


class Sam(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.image_encoder = Encoder(config)
        self.prompt_encoder = Prompts(config)
        self.mask_decoder = Decoder(config)

    def embed(self, pixels):
        """[B, 3, S, S] -> [B, g g, d]"""
        return self.image_encoder(pixels).flatten(2).transpose(1, 2)

    def decode(self, embedding, side, xy, labels, mask=None):
        """embedding [P, g g, d], a row for each prompt; mask [P, 1, 4g, 4g] logits or None."""
        e = self.prompt_encoder
        dense = e.no_mask_embed.weight if mask is None else e.mask_downscaling(mask).flatten(2).transpose(1, 2)
        return self.mask_decoder(embedding + dense, e.grid(math.isqrt(embedding.shape[1])), e.sparse(xy, labels, side))

    def normal(self, x):
        """uint8 [B, S, S, 3] -> pixels"""
        x = x.permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(self.config[k]).view(3, 1, 1) for k in ("pixel_mean", "pixel_std"))
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def widen_windows(model, config):
    """Another picture size: windows as config has them, their tables drawn out to the new distances."""
    for i in range(1, 4):
        side = config["window_sizes"][i]
        for block in model.image_encoder.layers[i].blocks:
            a = block.attn
            if a.side != side:
                old = a.attention_biases.data.view(1, a.heads, a.side, a.side)
                new = F.interpolate(old, (side, side), mode="bilinear", align_corners=True)
                a.attention_biases = nn.Parameter(new.reshape(a.heads, side * side))
                a.side = side
                a.reindex()
    model.config = config
