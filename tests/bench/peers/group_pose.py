"""Group Pose with a ResNet-50 in plain PyTorch, written from the paper's description: the peer of
detectors.py. Its parameters have the names of the official checkpoint; inference of one picture without
padding only, so that no mask and no valid ratio appears."""

import math

import torch
from torch import nn
from torch.nn import functional as F

CONFIG = {
    "model_type": "group_pose",
    "architectures": ["GroupPose"],
    "backbone": "resnet50",
    "hidden_dim": 256,
    "nheads": 8,
    "enc_layers": 6,
    "dec_layers": 6,
    "dim_feedforward": 2048,
    "enc_n_points": 4,
    "dec_n_points": 4,
    "num_feature_levels": 4,
    "num_queries": 100,
    "num_classes": 2,
    "num_body_points": 17,
    "pe_temperatureH": 20,
    "pe_temperatureW": 20,
    "return_interm_indices": [1, 2, 3],
    "num_select": 50,
}


class FrozenNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


class Bottleneck(nn.Module):
    def __init__(self, n_in, planes, stride, first):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, planes, 1, bias=False), FrozenNorm(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2, self.bn3 = FrozenNorm(planes), FrozenNorm(4 * planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.downsample = None
        if first:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, 4 * planes, 1, stride, bias=False), FrozenNorm(4 * planes))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), FrozenNorm(64)
        n_in = 64
        for s, (planes, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3))):
            layer = []
            for b in range(blocks):
                layer.append(Bottleneck(n_in, planes, 2 if s and not b else 1, not b))
                n_in = 4 * planes
            setattr(self, f"layer{s + 1}", nn.Sequential(*layer))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return [c3, c4, self.layer4(c4)]


class MLP(nn.Module):
    def __init__(self, n_in, hidden, n_out, n):
        super().__init__()
        widths = [n_in] + [hidden] * (n - 1) + [n_out]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DeformableAttention(nn.Module):
    """Sampled by grid_sample, as the official code does where its compiled operation is missing."""

    def __init__(self, d, heads, levels, points):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(d, heads * levels * points * 2)
        self.attention_weights = nn.Linear(d, heads * levels * points)
        self.value_proj, self.output_proj = nn.Linear(d, d), nn.Linear(d, d)
        angle = torch.arange(heads) * (2 * math.pi / heads)
        way = torch.stack([angle.cos(), angle.sin()], -1)
        way = (way / way.abs().max(-1, keepdim=True).values).view(heads, 1, 1, 2).repeat(1, levels, points, 1)
        way = way * (1 + torch.arange(points)).view(1, 1, points, 1)
        self.sampling_offsets.bias = nn.Parameter(way.reshape(-1).float())

    def forward(self, query, reference, memory, sizes):
        """query [B, Q, d], reference [B, Q, 2] -> [B, Q, d]"""
        b, q, d = query.shape
        value = self.value_proj(memory).view(b, -1, self.heads, d // self.heads)
        offsets = self.sampling_offsets(query).view(b, q, self.heads, self.levels, self.points, 2)
        odds = self.attention_weights(query).view(b, q, self.heads, -1).softmax(-1)
        parts = []
        for level, v in enumerate(value.split([h * w for h, w in sizes], 1)):
            h, w = sizes[level]
            size = torch.tensor([w, h], dtype=query.dtype)
            at = 2 * (reference[:, :, None, None] + offsets[:, :, :, level] / size) - 1
            at = at.transpose(1, 2).flatten(0, 1)  # [B heads, Q, points, 2]
            v = v.flatten(2).transpose(1, 2).reshape(b * self.heads, d // self.heads, h, w)
            parts.append(F.grid_sample(v, at, "bilinear", "zeros", False))
        odds = odds.transpose(1, 2).reshape(b * self.heads, 1, q, self.levels * self.points)
        out = (torch.stack(parts, -2).flatten(-2) * odds).sum(-1)
        return self.output_proj(out.view(b, d, q).transpose(1, 2))


class EncoderLayer(nn.Module):
    def __init__(self, d, heads, ff, levels, points):
        super().__init__()
        self.self_attn = DeformableAttention(d, heads, levels, points)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.linear1, self.linear2 = nn.Linear(d, ff), nn.Linear(ff, d)

    def forward(self, x, position, reference, sizes):
        x = self.norm1(x + self.self_attn(x + position, reference, x, sizes))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class DecoderLayer(nn.Module):
    def __init__(self, d, heads, ff, levels, points):
        super().__init__()
        self.within_attn = nn.MultiheadAttention(d, heads, batch_first=True)
        self.across_attn = nn.MultiheadAttention(d, heads, batch_first=True)
        self.within_norm, self.across_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.cross_attn = DeformableAttention(d, heads, levels, points)
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.linear1, self.linear2 = nn.Linear(d, ff), nn.Linear(ff, d)

    def forward(self, x, place, reference, memory, sizes):
        """x [N, K + 1, d], place the same with zeros for the person; one picture"""
        n, t, d = x.shape
        x = x + place
        x = self.within_norm(x + self.within_attn(x, x, x, need_weights=False)[0])
        y = x.transpose(0, 1)
        y = self.across_attn(y, y, y, need_weights=False)[0].transpose(0, 1)
        x = self.across_norm(x + y) + place
        y = self.cross_attn(x.reshape(1, n * t, d), reference.reshape(1, n * t, 2), memory, sizes)
        x = self.norm1(x + y.view(n, t, d))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


def sines(x, d, temperature=10000):
    """[.., 2] -> [.., 2 d]: y first"""
    k = torch.arange(d)
    x = x.flip(-1)[..., None] * 2 * math.pi / temperature ** (2 * (k // 2) / d)
    return torch.where(k % 2 == 0, x.sin(), x.cos()).flatten(-2)


def unsigmoid(x, eps=1e-3):
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)


class Transformer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, k = c["hidden_dim"], c["num_body_points"]
        sizes = (d, c["nheads"], c["dim_feedforward"], c["num_feature_levels"])
        self.level_embed = nn.Parameter(torch.randn(c["num_feature_levels"], d))
        self.encoder = Stack(EncoderLayer(*sizes, c["enc_n_points"]) for _ in range(c["enc_layers"]))
        self.decoder = Stack(DecoderLayer(*sizes, c["dec_n_points"]) for _ in range(c["dec_layers"]))
        self.decoder.half_pose_ref_point_head = MLP(d, d, d, 2)
        self.enc_output, self.enc_output_norm = nn.Linear(d, d), nn.LayerNorm(d)
        self.enc_out_class_embed = nn.Linear(d, c["num_classes"])
        self.enc_pose_embed = MLP(d, 2 * d, 2 * k, 4)
        self.keypoint_embedding, self.instance_embedding = nn.Embedding(k, d), nn.Embedding(1, d)


class GroupPose(nn.Module):
    def __init__(self, c=CONFIG):
        super().__init__()
        d = c["hidden_dim"]
        self.c = c
        self.backbone = nn.ModuleList([nn.ModuleDict({"body": ResNet()})])
        self.input_proj = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n, d, 1), nn.GroupNorm(32, d)) for n in (512, 1024, 2048)
        )
        self.input_proj.append(nn.Sequential(nn.Conv2d(2048, d, 3, 2, 1), nn.GroupNorm(32, d)))
        self.transformer = Transformer(c)
        self.class_embed = nn.ModuleList(nn.Linear(d, c["num_classes"]) for _ in range(c["dec_layers"]))
        self.pose_embed = nn.ModuleList(MLP(d, d, 2, 3) for _ in range(c["dec_layers"]))

    def forward(self, pixel_values):
        c, t, d, k = self.c, self.transformer, self.c["hidden_dim"], self.c["num_body_points"]
        features = self.backbone[0]["body"](pixel_values)
        maps = [proj(f) for proj, f in zip(self.input_proj, features + features[-1:])]
        sizes = [(int(m.shape[2]), int(m.shape[3])) for m in maps]
        position, centres, cells = [], [], []
        for level, (h, w) in enumerate(sizes):
            y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            share = torch.stack([(x + 1) / (w + 1e-6), (y + 1) / (h + 1e-6)], -1).float().view(-1, 2)
            position.append(sines(share, d // 2, 20) + t.level_embed[level])
            centre = torch.stack([(x + 0.5) / w, (y + 0.5) / h], -1).float().view(-1, 2)
            centres.append(centre)
            side = torch.full_like(centre, 0.05 * 2**level)
            box = torch.cat([centre, side], -1)
            inside = ((box > 0.01) & (box < 0.99)).all(-1, keepdim=True)
            logit = (centre / (1 - centre)).log()
            cells.append(torch.cat([torch.where(inside, logit, torch.tensor(float("inf"))), inside.float()], -1))
        x = torch.cat([m.flatten(2).transpose(1, 2) for m in maps], 1)  # [1, S, d]
        position, centres, cells = torch.cat(position), torch.cat(centres)[None], torch.cat(cells)
        for layer in t.encoder.layers:
            x = layer(x, position, centres, sizes)
        chosen = t.enc_output_norm(t.enc_output(x[0] * cells[:, 2:]))
        best = t.enc_out_class_embed(chosen).max(-1).values.topk(c["num_queries"]).indices
        chosen = chosen[best]
        at = (t.enc_pose_embed(chosen).view(-1, k, 2) + cells[best, None, :2]).sigmoid()
        at = torch.cat([at.mean(1, keepdim=True), at], 1)  # [N, K + 1, 2]
        person = t.instance_embedding.weight[None].expand(len(chosen), 1, d)
        tokens = torch.cat([person, t.keypoint_embedding.weight + chosen[:, None]], 1)
        for layer, move in zip(t.decoder.layers, self.pose_embed):
            place = t.decoder.half_pose_ref_point_head(sines(at, d // 2))
            place = torch.cat([torch.zeros_like(place[:, :1]), place[:, 1:]], 1)
            tokens = layer(tokens, place, at, x, sizes)
            joints = (unsigmoid(at[:, 1:]) + move(tokens[:, 1:])).sigmoid()
            at = torch.cat([joints.mean(1, keepdim=True), joints], 1)
        return self.class_embed[-1](tokens[:, 0])[None], at[:, 1:].flatten(1)[None]


def make(seed=1):
    """Random weights that behave: He's convolutions, so that numbers neither vanish nor explode over 50 layers,
    and small moves of the joints."""
    torch.manual_seed(seed)
    model = GroupPose().eval()
    for m in model.backbone.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        elif isinstance(m, Bottleneck):
            m.bn3.weight.fill_(0.2)
    for head in list(model.pose_embed) + [model.transformer.enc_pose_embed]:
        nn.init.normal_(head.layers[-1].weight, std=0.01)
    return model
