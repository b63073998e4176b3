#!/usr/bin/env python3
"""Language models against the machine's limits and against llama.cpp: the same GGUF files, in turns.

    tests/bench/language.py BUILD [--rounds 3] [--prompt 512] [--generate 128] [--threads 1 2] [--dtypes f32 ...]

BUILD/peers is made by tests/bench/peers/setup.sh. In each round every program runs once; figures are medians of
the rounds with the least and the most beside them, and ratios are medians of each round's own ratio, so that a
busy minute hits both sides. With one thread the same is also told by the processor's time of a run, which
other work on the machine disturbs less than the clock: rows that end in "(processor)".

"of memory" is the bytes of weights, keys and values that a generated token passes by, times tokens per second, over
the read bandwidth measured in the same round; "of sgemm" the operations of the prompt per second over OpenBLAS's.
The table goes to the output, and as JSON to BUILD/bench/language.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess

# SmolLM2-135M, which setup.sh fetches by its hash; keys and values are held in f32.
PARAMETERS, VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS, HEAD = 134515008, 49152, 576, 30, 9, 3, 64
BITS = {"f32": 32, "bf16": 16, "f16": 16, "int8": 8.5, "int4": 5}
FILES = {"Q4_1": "smollm2-q4_1.gguf", "Q8_0": "smollm2-q8_0.gguf"}


def run(command, **environment):
    done = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    return json.loads(done.stdout)


def limits(build, threads):
    return run([f"{build}/bench/bench_limits", str(threads)])


def ours(build, file, dtype, threads, a):
    """Tokens per second by the clock and by the processor's time, of the prompt and of the generation."""
    out = run(
        [f"{build}/viv", "bench", "--json", "-r", "1", "-p", str(a.prompt), "-n", str(a.generate)]
        + (["--dtype", dtype] if dtype else [])
        + [f"{build}/peers/{file}"],
        VIV_THREADS=str(threads),
        VIV_PLUGIN_PATH=f"{build}/plugins",
    )
    tests = {t["test"]: t for t in out["tests"]}
    both = {}
    for what, name in (("prompt", f"pp{a.prompt}"), ("generation", f"tg{a.generate}")):
        t = tests[name]
        both[what] = (t["tokens_per_second"], t["tokens"] / t["processor_ms"] * 1e3)
    return both


def theirs(build, file, threads, a):
    """llama-bench doesn't tell its processor time: that of a run is what one repetition more takes."""
    both = {}
    for what, n in (("prompt", a.prompt), ("generation", a.generate)):
        sizes = ["-p", str(n), "-n", "0"] if what == "prompt" else ["-p", "0", "-n", str(n)]
        took, rate = [], 0
        for repetitions in (1, 2) if threads == 1 else (1,):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            out = run(
                [f"{build}/peers/llama-bench", "-m", f"{build}/peers/{file}", "-t", str(threads)]
                + ["-r", str(repetitions), "-o", "json", *sizes]
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            rate = max(rate, out[0]["avg_ts"])
        both[what] = (rate, n / (took[1] - took[0]) if len(took) > 1 else 0)
    return both


def bytes_a_token(build, file, dtype, a):
    """The embedding is the head too, which every token passes by whole."""
    weights = PARAMETERS * BITS[dtype] / 8 if dtype else os.path.getsize(f"{build}/peers/{file}")
    return weights + a.generate / 2 * LAYERS * 2 * KV_HEADS * HEAD * 4


def operations(n):
    """Of a prompt: the head sees its last token only."""
    return 2 * n * (PARAMETERS - VOCABULARY * WIDTH) + 2 * VOCABULARY * WIDTH + 4 * LAYERS * HEADS * HEAD * n * (n + 1) / 2


def spread(values):
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def show(s, digits):
    return f"{s['median']:.{digits}f} ({s['least']:.{digits}f} to {s['most']:.{digits}f})"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--prompt", type=int, default=512)
    p.add_argument("--generate", type=int, default=128)
    p.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    p.add_argument("--dtypes", nargs="*", default=list(BITS), choices=list(BITS), help="Vivarium alone, of the Q4_1 file")
    a = p.parse_args()
    samples = {}

    def add(threads, of, what, value, unit):
        samples.setdefault((threads, of, what, unit), []).append(value)

    def own(threads, limit, name, file, dtype):
        got = ours(a.build, file, dtype, threads, a)
        for what, rates in got.items():
            scale = bytes_a_token(a.build, file, dtype, a) / limit["read"]
            share = " of memory"
            if what == "prompt":
                scale, share = operations(a.prompt) / a.prompt / limit["sgemm"] if limit["sgemm"] else 0, " of sgemm"
            for rate, clock in zip(rates, ("", " (processor)") if threads == 1 else ("",)):
                add(threads, name, what + clock, rate, "tokens/s")
                if what == "generation" or name in ("f32", "bf16"):
                    add(threads, name, what + share + clock, rate * scale, "ratio")
        return got

    for _ in range(a.rounds):
        for t in a.threads:
            limit = limits(a.build, t)
            for name in ("read", "fma", "sgemm"):
                add(t, "limits", name, limit[name] / 1e9, "GB/s" if name == "read" else "GFLOP/s")
            for name, file in FILES.items():
                peer, mine = theirs(a.build, file, t, a), own(t, limit, name, file, None)
                for what in peer:
                    for i, clock in enumerate(("", " (processor)") if t == 1 else ("",)):
                        add(t, f"llama.cpp, {name}", what + clock, peer[what][i], "tokens/s")
                        add(t, name, f"{what} / llama.cpp{clock}", mine[what][i] / peer[what][i], "ratio")
            for dtype in a.dtypes:
                own(t, limit, dtype, FILES["Q4_1"], dtype)
    rows = [
        {"threads": k[0], "of": k[1], "what": k[2], "unit": k[3], **spread(v), "rounds": v}
        for k, v in sorted(samples.items(), key=lambda i: (i[0][0], i[0][1] != "limits"))
    ]
    print("| threads | of | figure | median (least to most) | |\n|---|---|---|---|---|")
    for r in rows:
        print(f"| {r['threads']} | {r['of']} | {r['what']} | {show(r, 2 if r['unit'] == 'ratio' else 1)} | {r['unit']} |")
    os.makedirs(f"{a.build}/bench", exist_ok=True)
    with open(f"{a.build}/bench/language.json", "w") as f:
        json.dump({"rounds": a.rounds, "prompt": a.prompt, "generate": a.generate, "figures": rows}, f, indent=1)


if __name__ == "__main__":
    main()
