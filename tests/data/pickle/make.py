"""Makes the PyTorch files of tests/unit/test_pickle.c; made with PyTorch 2.15. Run in this folder."""
import argparse
import collections

import torch

a = torch.arange(6, dtype=torch.float32).reshape(2, 3)
state = collections.OrderedDict()
state["a.weight"] = a
state["a.tied"] = a
state["a.transposed"] = a.t()
state["a.row"] = a[1]
state["half"] = torch.tensor([1.0, -2.0, 0.5]).half()
state["bf16"] = torch.tensor([1.0, -2.0, 0.5]).bfloat16()
state["long"] = torch.tensor(7)
state["flag"] = torch.tensor([True, False, True])
state["empty"] = torch.zeros(0, 4)
state["expanded"] = torch.tensor([3.0]).expand(2, 3)
state["column"] = a[:, 1]
torch.save(state, "zip.pt")
torch.save(state, "legacy.pt", _use_new_zipfile_serialization=False)

model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
with torch.no_grad():
    for i, p in enumerate(model.parameters()):
        p.copy_(torch.arange(p.numel()).reshape(p.shape) + 10 * i)
torch.save({"epoch": 3, "lr": 0.5, "state_dict": model.state_dict()}, "nested.pt")
torch.save(model, "module.pt")

w = torch.tensor([1.0, 2.0])
torch.save({"w": torch.nn.Parameter(w)}, "parameter.pt")
torch.save({"w": torch.nn.Parameter(w)}, "parameter_legacy.pt", _use_new_zipfile_serialization=False)
torch.save({"w": w, "n": 10**30, "s": "text", "l": [1, (2, 3)], "t": torch.float16,
            "z": torch.Size([1])}, "protocol4.pt", pickle_protocol=4)
torch.save({"args": argparse.Namespace(x=1), "w": torch.tensor([1.0])}, "namespace.pt")
torch.save(torch.tensor([1.0]), "bare.pt")
torch.save({"a": 1, "b": {"c": 2}}, "no_tensors.pt")
