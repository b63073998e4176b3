"""RT-DETR-R18 at 640 x 640 and Group Pose R50 at 800 x 1066, random weights of the official sizes: Vivarium
against PyTorch and ONNX Runtime.

    python detectors.py VIV WORK_FOLDER [--threads 1 2] [--rounds 5] [--models rt-detr-r18 ...] [--json FILE]

Each program is a process of its own that loads the same weights and input, answers when it is its turn and says
in the end how much memory it ever held. RT-DETR is the class of transformers, Group Pose that of group_pose.py; both
are run eagerly and, exported, by ONNX Runtime. All compute in float32. The largest difference between the programs'
sorted scores is printed too: a fast wrong answer does not count. With one thread the processor's time is told
besides, which other work on the machine disturbs less than the clock.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

SIZES = {"rt-detr-r18": (640, 640), "group-pose-r50": (800, 1066)}
PASSES = 3  # of a turn; the shortest counts


def peak_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


# ---- the models ----


def rt_detr(folder):
    import torch
    import transformers

    if folder and os.path.exists(f"{folder}/model.safetensors"):
        return transformers.RTDetrForObjectDetection.from_pretrained(folder).eval()
    torch.manual_seed(1)
    backbone = transformers.RTDetrResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", out_features=["stage2", "stage3", "stage4"]
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone, encoder_in_channels=[128, 256, 512], hidden_expansion=0.5, decoder_layers=3,
        num_labels=80,
    )
    model = transformers.RTDetrForObjectDetection(config).eval()
    # As transformers fills it, the maps vanish on their way, all cells tie and the best are arbitrary.
    for m in model.modules():
        if isinstance(m, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        elif isinstance(m, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(m.weight, 1.2)
    for head in list(model.model.decoder.class_embed) + [model.model.enc_score_head]:
        torch.nn.init.normal_(head.weight, std=0.1)
    return model


def group_pose(folder):
    from group_pose import GroupPose, make
    from safetensors.torch import load_file

    if not (folder and os.path.exists(f"{folder}/model.safetensors")):
        return make()
    model = GroupPose().eval()
    model.load_state_dict(load_file(f"{folder}/model.safetensors"), assign=True)
    return model


class Logits:
    """forward(pixel_values) -> logits, boxes or keypoints"""

    def __new__(cls, name, folder):
        import torch

        if name == "group-pose-r50":
            return group_pose(folder)
        model = rt_detr(folder)

        class Two(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.model = model

            def forward(self, pixel_values):
                out = self.model(pixel_values)
                return out.logits, out.pred_boxes

        return Two().eval()


def make(name, folder):
    """Checkpoint, input and ONNX file, unless they are there."""
    import torch
    from safetensors.torch import save_file

    os.makedirs(folder, exist_ok=True)
    h, w = SIZES[name]
    if not os.path.exists(f"{folder}/model.safetensors"):
        if name == "rt-detr-r18":
            rt_detr(None).save_pretrained(folder)
        else:
            from group_pose import CONFIG

            save_file({k: v.contiguous().clone() for k, v in group_pose(None).state_dict().items()},
                      f"{folder}/model.safetensors")
            json.dump(CONFIG, open(f"{folder}/config.json", "w"), indent=1)
    torch.manual_seed(2)
    pixels = torch.nn.functional.interpolate(torch.randn(1, 3, h // 8, w // 8), (h, w), mode="bicubic")
    save_file({"pixel_values": pixels.contiguous()}, f"{folder}/inputs.safetensors")
    if not os.path.exists(f"{folder}.onnx"):
        model = Logits(name, folder)
        torch.backends.mha.set_fastpath_enabled(False)  # one operation that ONNX does not know
        with torch.inference_mode():
            torch.onnx.export(model, (pixels,), f"{folder}.onnx.part", input_names=["pixel_values"],
                              output_names=["logits", "places"], dynamo=False, opset_version=17)
        os.rename(f"{folder}.onnx.part", f"{folder}.onnx")


# ---- a peer's process: "run" gives milliseconds and scores, "end" the memory ----


def torch_runner(name, folder, threads):
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    pixels = load_file(f"{folder}/inputs.safetensors")["pixel_values"]
    libraries = peak_bytes()
    model = Logits(name, folder)

    def run():
        with torch.inference_mode():
            return model(pixels)[0].numpy()

    return run, libraries


def onnx_runner(name, folder, threads):
    import onnxruntime
    from safetensors.numpy import load_file

    pixels = load_file(f"{folder}/inputs.safetensors")["pixel_values"]
    libraries = peak_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(f"{folder}.onnx", options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], {"pixel_values": pixels})[0], libraries


def peer(kind, name, folder, threads):
    run, libraries = (torch_runner if kind == "pytorch" else onnx_runner)(name, folder, threads)
    out = run()
    print(json.dumps({"scores": sorted(float(x) for x in out.max(-1).flatten())}), flush=True)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        times, processor = [], []
        for _ in range(PASSES):
            start = time.perf_counter(), time.process_time()
            run()
            times.append((time.perf_counter() - start[0]) * 1e3)
            processor.append((time.process_time() - start[1]) * 1e3)
        print(json.dumps({"ms": min(times), "processor": statistics.mean(processor)}), flush=True)
    print(json.dumps({"peak": peak_bytes(), "libraries": libraries}), flush=True)


class Peer:
    def __init__(self, kind, name, folder, threads):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--peer", kind, name, folder, "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        self.scores = json.loads(self.process.stdout.readline())["scores"]

    def turn(self):
        print("run", file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def end(self):
        print("end", file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


# ---- Vivarium ----


class Vivarium:
    def __init__(self, viv, name, folder, threads):
        self.viv, self.folder, self.env, self.peak = viv, folder, {**os.environ, "VIV_THREADS": str(threads)}, 0
        self.output = "logits" if name == "rt-detr-r18" else "pred_logits"
        self.input = ["-i", f"pixel_values={folder}/inputs.safetensors:pixel_values"]
        out = f"{folder}/viv.safetensors"
        subprocess.run([viv, "run", folder, "--task", "forward", *self.input, "--param",
                        f'outputs=["{self.output}"]', "-o", out], env=self.env, check=True, capture_output=True)
        from safetensors.numpy import load_file

        self.scores = sorted(float(x) for x in load_file(out)[self.output].max(-1).flatten())

    def turn(self):
        out = subprocess.run([self.viv, "bench", "--task", "forward", *self.input, "--param",
                              f'outputs=["{self.output}"]', "-r", str(PASSES), "--json", self.folder],
                             env=self.env, check=True, capture_output=True, text=True)
        out = json.loads(out.stdout)
        self.peak = max(self.peak, out["peak_bytes"])
        return {"ms": out["least_ms"], "processor": out["processor_ms"]}

    def end(self):
        return {"peak": self.peak, "libraries": 0}


def compare(viv, name, work, threads, rounds):
    folder = f"{work}/{name}"
    # A process of its own, so that the peers' memory is theirs alone.
    subprocess.run([sys.executable, __file__, "--make", name, folder], check=True)
    programs = {"vivarium": Vivarium(viv, name, folder, threads)}
    for kind in ("pytorch", "onnxruntime"):
        programs[kind] = Peer(kind, name, folder, threads)
    turns = {k: [] for k in programs}
    for _ in range(rounds):
        for kind, program in programs.items():
            turns[kind].append(program.turn())
    times = {k: [t["ms"] for t in v] for k, v in turns.items()}
    memory = {k: p.end() for k, p in programs.items()}
    mine = programs["vivarium"].scores
    worst = max(abs(a - b) for k in ("pytorch", "onnxruntime") for a, b in zip(mine, programs[k].scores))
    return {
        "model": name, "threads": threads, "times_ms": times, "worst_score_difference": worst,
        "median_ms": {k: statistics.median(v) for k, v in times.items()},
        "processor_ms": {k: min(t["processor"] for t in v) for k, v in turns.items()},
        "peak_bytes": {k: m["peak"] for k, m in memory.items()},
        "peak_above_libraries": {k: m["peak"] - m["libraries"] for k, m in memory.items()},
    }


def report(row):
    median, mib = row["median_ms"], lambda key, k: f"{row[key][k] / 2**20:.0f}"
    processor, alone = row["processor_ms"], row["threads"] == 1

    def ratio(of):
        return f"{min(of['pytorch'], of['onnxruntime']) / of['vivarium']:.2f}"

    print(f"{row['model']}, {row['threads']} threads: {ratio(median)} x the faster peer"
          f"{f' ({ratio(processor)} by processor time)' if alone else ''}; scores differ by {row['worst_score_difference']:.1e}")
    for k in median:
        print(f"  {k:<12} {median[k]:>9.1f} ms ({min(row['times_ms'][k]):.1f} to {max(row['times_ms'][k]):.1f})"
              f"{f'   processor {processor[k]:.1f} ms' if alone else ''}"
              f"   peak {mib('peak_bytes', k):>5} MiB, {mib('peak_above_libraries', k):>5} above its libraries",
              flush=True)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("viv")
    a.add_argument("work")
    a.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    a.add_argument("--rounds", type=int, default=5)
    a.add_argument("--models", nargs="*", default=list(SIZES), choices=list(SIZES))
    a.add_argument("--json")
    a = a.parse_args()
    rows = []
    os.makedirs(a.work, exist_ok=True)
    for name in a.models:
        for threads in a.threads:
            rows.append(compare(a.viv, name, a.work, threads, a.rounds))
            report(rows[-1])
    if a.json:
        os.makedirs(os.path.dirname(a.json) or ".", exist_ok=True)
        json.dump(rows, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        sys.exit(peer(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[6])))
    if sys.argv[1:2] == ["--make"]:
        sys.exit(make(sys.argv[2], sys.argv[3]))
    sys.exit(main())
