#!/usr/bin/env python3
"""The goals of speed in one table: the machine's limits, then ours and the peers, all measured in one run.

    tests/bench/goals.py BUILD [--rounds 3] [--parts language batch overhead encoders conv sambay context] [--show]

Runs the programs that measure, one after the other, each alternating between ours and the peer, and reads the JSON
that they leave in BUILD/bench; what they print lies beside it as PART.txt. A part that is not run keeps its last
figures; --show runs nothing. A row holds the median of the rounds, the least and the most, and whether the
median meets the goal. With one thread both sides are told by the processor's time, which other work on the
machine disturbs less than the clock; with two by the clock. All rows: BUILD/bench/goals.json. Nothing fails by time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

PARTS = ("language", "batch", "overhead", "encoders", "conv", "sambay", "context")


def commands(build, part, rounds):
    peer, out = f"{build}/peers/python/bin/python", f"{build}/bench/{part}"
    here = os.path.dirname(os.path.abspath(__file__))
    return {
        "language": [[sys.executable, f"{here}/language.py", build, "--rounds", str(rounds)]],
        "batch": [[f"{build}/bench/bench_batch", "--json", f"{build}/peers/smollm2-q8_0.gguf", "as-stored", "64"]],
        "overhead": [[f"{build}/bench/bench_overhead", "--json", build]],
        "encoders": [[peer, f"{here}/peers/encoders.py", f"{build}/viv", f"{build}/peers/encoders",
                      "--rounds", str(rounds), "--json", f"{out}.json"]],
        "conv": [["sh", f"{here}/bench_conv.sh", build, t, str(rounds)] for t in ("1", "2")],
        "sambay": [[peer, f"{here}/peers/sambay.py", build, "--rounds", str(rounds), "--json", f"{out}.json"]],
        "context": [[sys.executable, f"{here}/context.py", build, "--rounds", "1"]],
    }[part]  # fmt: skip


def measure(build, part, rounds):
    print(f"measuring: {part}", file=sys.stderr, flush=True)
    environment = {**os.environ, "VIV_PLUGIN_PATH": f"{build}/plugins", "VIV_TEST_BUILD": build}
    with open(f"{build}/bench/{part}.txt", "w") as text, open(f"{build}/bench/{part}.log", "w") as log:
        for command in commands(build, part, rounds):
            if subprocess.run(command, stdout=text, stderr=log, env=environment).returncode:
                sys.exit(f"goals: {part} could not be measured, see {log.name}")
    if part in ("batch", "overhead"):  # these print their JSON
        os.replace(f"{build}/bench/{part}.txt", f"{build}/bench/{part}.json")


class Table:
    def __init__(self, build):
        self.build, self.rows = build, []

    def read(self, name):
        path = f"{self.build}/bench/{name}.json"
        if not os.path.exists(path):
            return None
        with open(path) as f:
            return json.load(f)

    def add(self, what, values, goal=None, by="clock", unit="", most=False, best=None):
        """goal: the least that the median must be, with most the most."""
        median = statistics.median(values)
        met = None if goal is None else (median <= goal if most else median >= goal)
        self.rows.append({"what": what, "median": median, "least": min(values), "most": max(values), "unit": unit,
                          "goal": goal, "at_most": most, "met": met, "by": by, "best": best, "rounds": len(values)})  # fmt: skip

    def show(self):
        print("| figure | goal | median (least to most) | best | by | |\n|---|---|---|---|---|---|")
        for r in self.rows:
            digits = 2 if abs(r["median"]) < 20 else 0
            value = " ".join([f"{r['median']:.{digits}f} ({r['least']:.{digits}f} to {r['most']:.{digits}f})", r["unit"]])
            goal = "" if r["goal"] is None else f"{'<=' if r['at_most'] else '>='} {r['goal']:g}"
            met = {None: "", True: "met", False: "missed"}[r["met"]]
            best = "" if r["best"] is None else f"{r['best']:.2f}"
            print(f"| {r['what']} | {goal} | {value.strip()} | {best} | {r['by']} | {met} |")


def threads(n):
    return "1 thread" if n == 1 else f"{n} threads"


def language(table):
    found = table.read("language")
    if not found:
        return
    figures = {(f["threads"], f["of"], f["what"]): f["rounds"] for f in found["figures"]}
    conv = {t: (table.read(f"conv-{t}") or {}).get("sgemm") for t in (1, 2)}
    counts = sorted({k[0] for k in figures})
    for t in counts:
        table.add(f"limit: memory read, {threads(t)}", figures[t, "limits", "read"], unit="GB/s")
        table.add(f"limit: multiply-adds, {threads(t)}", figures[t, "limits", "fma"], unit="GFLOP/s")
        table.add(f"limit: OpenBLAS sgemm, {threads(t)}", figures[t, "limits", "sgemm"], unit="GFLOP/s")
        if conv.get(t):
            table.add(f"limit: oneDNN sgemm, {threads(t)}", [conv[t] / 1e9], unit="GFLOP/s")
    goals = {"Q4_1": 0.8, "int4": 0.8}

    def get(t, of, what):
        return figures.get((t, of, f"{what} (processor)" if t == 1 else what))

    for t in counts:
        by = "processor" if t == 1 else "clock"
        for of in ("f32", "bf16", "f16", "Q8_0", "int8", "Q4_1", "int4"):
            values = get(t, of, "generation of memory")
            if values:
                table.add(f"generation, {of}, of memory read, {threads(t)}", values, goals.get(of, 0.9), by)
        for of in ("f32", "bf16"):
            values = get(t, of, "prompt of sgemm")
            if values:
                table.add(f"prompt of {found['prompt']}, {of}, of sgemm, {threads(t)}", values, 0.8, by)
        for of in ("Q4_1", "Q8_0"):
            for what, goal in (("prompt", 1.0), ("generation", 1.3)):
                n = found["prompt"] if what == "prompt" else found["generate"]
                best = max(get(t, of, what)) / max(get(t, f"llama.cpp, {of}", what))
                table.add(f"{what} of {n}, {of}, of llama.cpp, {threads(t)}", get(t, of, f"{what} / llama.cpp"), goal, by,
                          best=best)  # fmt: skip
    if {1, 2} <= set(counts):
        for of in ("f32", "bf16", "Q8_0", "Q4_1"):
            one, two = figures.get((1, of, "prompt")), figures.get((2, of, "prompt"))
            if one and two:
                ratios = [b / a for a, b in zip(one, two)]
                table.add(f"2 threads of 1: prompt, {of}", ratios, 1.85, best=max(two) / max(one))


def encoders(table):
    names = {"bert-base-128": "BERT-base, 128 tokens", "bert-base-512": "BERT-base, 512 tokens",
             "vit-s-518": "ViT-S at 518 px", "minilm-128": "MiniLM, 128 tokens", "minilm-512": "MiniLM, 512 tokens",
             "resnet50-224": "ResNet-50 at 224 px"}  # fmt: skip
    rows = table.read("encoders") or []
    for r in rows:
        by = "processor" if r["threads"] == 1 else "clock"
        goal = 1.0 if r["model"].startswith(("bert", "vit")) else None
        ms = {k: min(v) for k, v in r[by]["ms"].items()}
        table.add(f"{names[r['model']]}, of the faster peer, {threads(r['threads'])}", r[by]["ratios"], goal, by,
                  best=min(ms["pytorch"], ms["onnxruntime"]) / ms["vivarium"])  # fmt: skip
    times = {(r["model"], r["threads"]): r["clock"]["ms"]["vivarium"] for r in rows}
    for model, name in names.items():
        if (model, 1) in times and (model, 2) in times:
            one, two = times[model, 1], times[model, 2]
            table.add(f"2 threads of 1: {name}", [a / b for a, b in zip(one, two)], 1.85, best=min(one) / min(two))


def convolutions(table):
    for t in (1, 2):
        found = table.read(f"conv-{t}")
        if not found:
            continue
        by, nets, bests = "processor" if t == 1 else "clock", {}, {}
        for s in found["shapes"]:
            nets.setdefault(s["net"], []).append(s["onednn"] / min(s["first"], s["last"]))
            bests.setdefault(s["net"], []).append(s["least"][0] / min(s["least"][1:]))
        for net, name in (("resnet50", "ResNet-50"), ("convnext", "ConvNeXt"), ("unet", "U-Net")):
            ratios, best = nets[net], bests[net]
            table.add(f"convolutions of {name}, of oneDNN, geometric mean, {threads(t)}",
                      [statistics.geometric_mean(ratios)], 1.0, by, best=statistics.geometric_mean(best))  # fmt: skip
            table.add(f"convolutions of {name}, the slowest, {threads(t)}", [min(ratios)], 0.9, by, best=min(best))


def the_rest(table):
    batch = table.read("batch")
    if batch:
        for by in ("clock", "processor"):
            rates = {j["jobs"]: j[by] for j in batch["joined"]}
            ratios = [b / a for a, b in zip(rates[1], rates[8])]
            best = max(rates[8]) / max(rates[1])
            table.add("8 joined generations of 1, SmolLM2 in 8 bits", ratios, 4, by, best=best)
    null = {o["what"]: o for o in table.read("overhead") or []}
    for what, goal in (("null job, through the loop", 20), ("null job, inline", 2)):
        if what in null:
            o = null[what]
            table.add(f"{what}, p50", [o["p50"]], goal, unit="us", most=True)
    if batch:
        for kind, name in (("heap_ids", "ids at the end"), ("heap_text", "text piece by piece")):
            table.add(f"heap allocations of a further token, {name}", [batch[kind]], 0, "count", most=True)
    for r in table.read("sambay") or []:
        by = "processor" if r["threads"] == 1 else "clock"
        keys = f" over {r['keys']}" if r["keys"] else ""
        table.add(f"SambaY's {r['what']}, rows: {r['rows']}{keys}, of PyTorch, {threads(r['threads'])}",
                  r[by]["ratios"], 1.0, by, best=r[by]["ms"][1] / r[by]["ms"][0])  # fmt: skip
    held = {(r["tokens"], r["model"]): r for r in (table.read("context") or {}).get("rows", [])}
    for n in sorted({k[0] for k in held}):
        own, plain = held[n, "SambaY"], held[n, "Llama"]
        table.add(f"SambaY of a Llama of its size, speed of a prompt of {n} tokens", [plain["prompt_s"] / own["prompt_s"]])
        table.add(f"SambaY of a Llama of its size, generation after {n} tokens",
                  [own["tokens_per_second"] / plain["tokens_per_second"]])  # fmt: skip
        for r in (own, plain):
            table.add(f"state of {r['model']} after {n} tokens", [r["state"] / n], unit="bytes a token")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--parts", nargs="*", default=list(PARTS), choices=PARTS)
    p.add_argument("--show", action="store_true", help="the table of what was measured before")
    a = p.parse_args()
    os.makedirs(f"{a.build}/bench", exist_ok=True)
    for part in [] if a.show else a.parts:
        measure(a.build, part, a.rounds)
    table = Table(a.build)
    for fill in (language, encoders, convolutions, the_rest):
        fill(table)
    table.show()
    with open(f"{a.build}/bench/goals.json", "w") as f:
        json.dump(table.rows, f, indent=1)


if __name__ == "__main__":
    main()
