"""Muon, the optimizer of the trainers here."""

import torch
import torch.distributed as dist


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by a Newton-Schulz iteration: for the matrices inside the layers.  The matrices are
    dealt out to the workers; each orthogonalises its own ones, then all get all of them.  A convolution's kernel counts as
    a matrix of output channels by the rest.  mixed: the iteration in bfloat16."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0, rank=0, workers=1, mixed=False):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.rank, self.workers, self.mixed = rank, workers, mixed
        self.updates = torch.zeros(sum(p.numel() for g in self.param_groups for p in g["params"]))

    @torch.no_grad()
    def step(self):
        self.updates.zero_()
        offset, load, views = 0, [0] * self.workers, []
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"]
                m.lerp_(p.grad, 1 - group["momentum"])
                view = self.updates[offset:offset + p.numel()].view_as(p)
                offset += p.numel()
                views.append((p, view, group))
                owner = load.index(min(load))
                rows, columns = p.shape[0], p[0].numel()
                load[owner] += min(rows, columns) ** 2 * max(rows, columns)
                if owner != self.rank:
                    continue
                x = p.grad.lerp(m, group["momentum"]).reshape(rows, columns)
                tall = rows > columns
                if tall:
                    x = x.t()
                x = x / (x.norm() + 1e-7)
                if self.mixed:
                    x = x.bfloat16()
                for _ in range(5):
                    g = x @ x.t()
                    x = torch.addmm(x, torch.addmm(g, g, g, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
                view.copy_((x.t() if tall else x).reshape(p.shape))
        if self.workers > 1:
            dist.all_reduce(self.updates)
        for p, view, group in views:
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(view, alpha=-group["lr"] * 0.2 * max(p.shape[0], p[0].numel()) ** 0.5)
