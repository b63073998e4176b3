"""Makes group-pose.pth of tests/unit/test_detr.c as Group Pose's main.py saves a training's state: the golden case's
weights with the heads that training alone uses and their copies in the decoder, beside the optimizer, the schedule and
the arguments. Made with PyTorch 2.8. Run in this folder."""
import argparse

import torch
from safetensors.torch import load_file

state = load_file("../../goldens/group-pose/swin-masked/model.safetensors")
for name in list(state):
    if name.startswith(("class_embed.", "pose_embed.")):
        state["transformer.decoder." + name] = state[name]
some = [torch.nn.Parameter(state[name].clone()) for name in list(state)[:40] if state[name].is_floating_point()]
optimizer = torch.optim.AdamW(some, lr=1e-4, weight_decay=1e-4)
for p in some:
    p.grad = torch.ones_like(p)
optimizer.step()
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [33, 66])
args = argparse.Namespace(lr=1e-4, lr_drop_list=[33, 66], backbone="swin_T_224_1k", num_classes=2, batch_size=2,
                          output_dir="logs", weight_decay=1e-4, resume="", start_epoch=0, use_ema=False)
torch.save({"model": state, "optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "epoch": 59,
            "args": args}, "group-pose.pth")
