"""finetuned.pt: a BEATs of two narrow layers in the form of the official files, random weights, with three
classes, the last of which AudioSet does not know. Run from the root of the repository with PyTorch."""

import sys

import torch

sys.path.insert(0, "tests/bench/peers")
import beats

CFG = {
    **{k: v for k, v in beats.BASE.items() if k not in ("model_type", "architectures")},
    "embed_dim": 6, "encoder_layers": 2, "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 8,
    "encoder_attention_heads": 2, "conv_pos": 4, "conv_pos_groups": 2, "num_buckets": 16, "max_distance": 20,
    "predictor_class": 3, "encoder_layerdrop": 0.05, "layer_wise_gradient_decay_ratio": 0.6,
}  # fmt: skip
weights = {k: v.detach().clone() for k, v in beats.make(CFG, 7).state_dict().items()}
labels = {0: "/m/09x0r", 1: "/m/0bt9lr", 2: "/x/not-in-audioset"}
torch.save({"cfg": CFG, "model": weights, "label_dict": labels}, "tests/data/beats/finetuned.pt")
