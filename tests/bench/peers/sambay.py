"""PyTorch on the selective scan and the differential attention of SambaY, beside bench_sambay, in turns.

    python sambay.py BUILD [--threads 1 2] [--rounds 3] [--json FILE]

PyTorch has no scan of its own: each token is one step of whole-tensor operations, as in the published reference, with
everything that does not depend on the state computed for all tokens at once. Attention is
scaled_dot_product_attention, once for each half of a pair; values of 128 at once or as two halves of 64, whichever
is faster; windows are a mask that is made before. float32. Times are the least of a turn, ratios the median
of the rounds' ratios; with one thread also by the processor's time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

CHANNELS, STATES, HEADS, KV_HEADS, DIM = 5120, 16, 40, 20, 64


def scan(rows):
    u, delta = torch.randn(rows, CHANNELS), torch.rand(rows, CHANNELS)
    a, d = -torch.rand(CHANNELS, STATES), torch.randn(CHANNELS)
    b, c, state = torch.randn(rows, STATES), torch.randn(rows, STATES), torch.zeros(CHANNELS, STATES)

    def run():
        s, y = state.clone(), torch.empty(rows, CHANNELS)
        for begin in range(0, rows, 64):  # more at once would leave the caches
            piece = slice(begin, min(rows, begin + 64))
            decay = torch.exp(delta[piece, :, None] * a)
            add = (delta[piece] * u[piece])[:, :, None] * b[piece, None, :]
            for t in range(decay.shape[0]):
                s.mul_(decay[t]).add_(add[t])
                torch.mv(s, c[begin + t], out=y[begin + t])
        return y.addcmul_(u, d)

    return [run]


def attention(rows, keys, window):
    q = torch.randn(2, 1, HEADS // 2, rows, DIM)  # first and second of each pair
    k = torch.randn(2, 1, KV_HEADS // 2, keys, DIM).repeat_interleave(2, 2)
    v = torch.randn(1, KV_HEADS // 2, keys, 2 * DIM).repeat_interleave(2, 1)
    halves = [v[..., :DIM].contiguous(), v[..., DIM:].contiguous()]
    mask, causal = None, rows > 1
    if window:
        back = torch.arange(rows)[:, None] - torch.arange(keys)[None, :]
        mask, causal = (back >= 0) & (back < window), False
    apply = lambda i, values: torch.nn.functional.scaled_dot_product_attention(
        q[i], k[i], values, attn_mask=mask, is_causal=causal
    )
    whole = lambda: apply(0, v) - 0.2 * apply(1, v)
    split = lambda: torch.cat([apply(0, h) - 0.2 * apply(1, h) for h in halves], -1)
    return [whole, split]


def measure(ways):
    best, least_processor = float("inf"), float("inf")
    for run in ways:
        run()
        total = n = processor = 0
        while n < 3 or (total < 0.3 and n < 2000):
            clock, begun = time.perf_counter(), time.process_time()
            run()
            took = time.perf_counter() - clock
            processor, total, n, best = processor + time.process_time() - begun, total + took, n + 1, min(best, took)
        least_processor = min(least_processor, processor / n)
    return best * 1e3, least_processor * 1e3


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--json")
    a = p.parse_args()
    rows = []
    print("| | rows | keys | threads | by | Vivarium, ms | PyTorch, ms | ratio |\n|---|---|---|---|---|---|---|---|")
    for threads in a.threads:
        torch.set_num_threads(threads)
        turns = {}
        with torch.inference_mode():
            for _ in range(a.rounds):
                out = subprocess.run([f"{a.build}/bench/bench_sambay", str(threads)], check=True, stdout=subprocess.PIPE)
                for mine in map(json.loads, out.stdout.splitlines()):
                    what = mine["what"], mine["rows"], mine["keys"]
                    ways = scan(what[1]) if what[0] == "scan" else attention(what[1], what[2], 512 * ("window" in what[0]))
                    turns.setdefault(what, []).append(((mine["ms"], mine["processor"]), measure(ways)))
        for what, pairs in turns.items():
            row = {"what": what[0], "rows": what[1], "keys": what[2], "threads": threads}
            for i, clock in enumerate(("clock", "processor") if threads == 1 else ("clock",)):
                ratios = [peer[i] / mine[i] for mine, peer in pairs]
                best = min(mine[i] for mine, _ in pairs), min(peer[i] for _, peer in pairs)
                row[clock] = {"ms": best, "ratios": ratios, "ratio": statistics.median(ratios)}
                print(f"| {what[0]} | {what[1]} | {what[2]} | {threads} | {clock} | {best[0]:.3f} | {best[1]:.3f} "
                      f"| {row[clock]['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)
            rows.append(row)
    if a.json:
        os.makedirs(os.path.dirname(a.json) or ".", exist_ok=True)
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    sys.exit(main())
