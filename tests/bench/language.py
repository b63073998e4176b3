#!/usr/bin/env python3
"""Language models against the machine's limits and against llama.cpp: the same GGUF file, in turns.

    tests/bench/language.py BUILD [--rounds 5] [--prompt 512] [--generate 128] [--threads 1 2]

BUILD/peers is made by tests/bench/peers/setup.sh. In each round every program runs once; figures are medians of
the rounds with the least and the most beside them, and ratios are medians of each round's own ratio, so that a
busy minute hits both sides. "of memory" is the bytes of weights that a generated token passes by, times tokens per
second, over the read bandwidth measured in the same round. Other files for Vivarium alone: --also FOLDER.
The table goes to the output, and as JSON to BUILD/bench/language.json.
"""

import argparse
import json
import os
import statistics
import subprocess


def run(command, **environment):
    done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def limits(build, threads):
    return run([f"{build}/bench/bench_limits", str(threads)])


def ours(build, model, threads, a):
    out = run(
        [f"{build}/viv", "bench", "--json", "-r", "1", "-p", str(a.prompt), "-n", str(a.generate), model],
        VIV_THREADS=str(threads),
        VIV_PLUGIN_PATH=f"{build}/plugins",
    )
    rates = {t["test"]: t["tokens_per_second"] for t in out["tests"]}
    return {"prompt": rates[f"pp{a.prompt}"], "generation": rates[f"tg{a.generate}"]}


def theirs(build, model, threads, a):
    out = run(
        [f"{build}/peers/llama-bench", "-m", model, "-t", str(threads), "-r", "1", "-o", "json"]
        + ["-p", str(a.prompt), "-n", str(a.generate)]
    )
    return {"prompt" if t["n_prompt"] else "generation": t["avg_ts"] for t in out}


def size_of(model):
    """Bytes of the weights' file or files; the tables of a tied embedding are read once, as the head."""
    if os.path.isfile(model):
        return os.path.getsize(model)
    names = (os.path.join(model, n) for n in os.listdir(model))
    return sum(os.path.getsize(n) for n in names if n.endswith(".safetensors"))


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(s, digits):
    return f"{s['median']:.{digits}f} ({s['least']:.{digits}f} to {s['most']:.{digits}f})"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--generate", type=int, default=128)
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--also", nargs="*", default=[], help="checkpoints for Vivarium alone")
    a = p.parse_args()
    gguf = f"{a.build}/peers/smollm2-q4_1.gguf"
    samples = {}

    def add(key, value):
        samples.setdefault(key, []).append(value)

    for _ in range(a.rounds):
        for t in a.threads:
            limit = limits(a.build, t)
            for name in ("read", "fma", "sgemm"):
                add((t, "limits", name), limit[name] / 1e9)
            peer = theirs(a.build, gguf, t, a)
            for model in [gguf] + a.also:
                own = ours(a.build, model, t, a)
                name = os.path.basename(os.path.normpath(model))
                for what in ("prompt", "generation"):
                    add((t, name, what), own[what])
                    if model == gguf:
                        add((t, "llama.cpp", what), peer[what])
                        add((t, name, what + " / llama.cpp"), own[what] / peer[what])
                add((t, name, "of memory"), own["generation"] * size_of(model) / limit["read"])

    rows = [
        {"threads": k[0], "of": k[1], "what": k[2], "unit": unit(k), **spread(v), "rounds": v}
        for k, v in sorted(samples.items(), key=lambda i: (i[0][0], i[0][1] != "limits", i[0][1], i[0][2]))
    ]
    print("| threads | of | figure | median (least to most) | |\n|---|---|---|---|---|")
    for r in rows:
        digits = 2 if r["unit"] == "ratio" else 1
        print(f"| {r['threads']} | {r['of']} | {r['what']} | {show(r, digits)} | {r['unit']} |")
    os.makedirs(f"{a.build}/bench", exist_ok=True)
    with open(f"{a.build}/bench/language.json", "w") as f:
        json.dump({"rounds": a.rounds, "prompt": a.prompt, "generate": a.generate, "figures": rows}, f, indent=1)


def unit(key):
    if key[1] == "limits":
        return "GB/s" if key[2] == "read" else "GFLOP/s"
    return "ratio" if "of memory" in key[2] or "/" in key[2] else "tokens/s"


if __name__ == "__main__":
    main()
