"""Promptable, medical and depth networks of the official sizes with random weights: Vivarium against the official
code on PyTorch, and against ONNX Runtime on what that code exports.

    python vision.py VIV WORK_FOLDER [--threads 1 2] [--rounds 3] [--models mobilesam-encoder ...] [--json FILE]

MobileSAM's encoder at 1024 (Vivarium reads a picture file, the others take the prepared tensor) and a click after
it (from the embedding to the mask of 1024 x 1024 pixels); MONAI's SwinUNETR (48 features), UNETR, DynUNet and
BasicUNet on one window of 96 x 96 x 96; CCNeXt on a pair of 384 x 1280 pixels and EndoDAC (ViT-B) on one
picture of 256 x 320, both of which Vivarium reads from files. setup.sh fetches the official
code; what is not there is left out, and said so.

Each program is a process of its own that loads the same weights and input, answers when it is its turn and says in
the end how much memory it ever held. The largest difference of the answers, relative to the largest number in them,
is printed: a fast wrong answer does not count. With one thread the processor's time of a pass is told, which other
work on the machine disturbs less than the clock.
"""

import argparse
import json
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = ["mobilesam-encoder", "mobilesam-click", "swinunetr-96", "unetr-96", "dynunet-96", "basicunet-96",
          "ccnext-384x1280", "endodac-256x320"]
KINDS = ["vivarium", "pytorch", "onnxruntime"]
CLICK = (320.0, 200.0)


def peak_bytes():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


# ---- the official networks: a module, what it takes, what Vivarium is asked ----


def official(name):
    """The folder of code that setup.sh fetched."""
    folder = os.path.join(os.environ["VIV_PEERS"], name)
    if not os.path.isdir(folder):
        sys.exit(f"{name} is not in {os.environ['VIV_PEERS']}: setup.sh {os.environ['VIV_PEERS']} encoders fetches it")
    sys.path.insert(0, folder)


def awake(model):
    """Running means and variances as training leaves them, so that no map vanishes."""
    import torch

    for m in model.modules():
        if isinstance(m, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.normal_(m.running_mean, std=0.1)
            torch.nn.init.uniform_(m.running_var, 0.5, 1.5)
    return model.eval()


def mobile_sam():
    import torch

    official("MobileSAM")
    from mobile_sam import sam_model_registry

    torch.manual_seed(1)
    return awake(sam_model_registry["vit_t"](checkpoint=None))


def sam_encoder(folder):
    import torch

    model = mobile_sam()
    torch.manual_seed(2)
    picture = torch.randint(0, 256, (1024, 1024, 3), dtype=torch.uint8)
    x = ((picture - model.pixel_mean.view(3)) / model.pixel_std.view(3)).permute(2, 0, 1)[None].contiguous()
    with open(f"{folder}/picture.ppm", "wb") as f:
        f.write(b"P6\n1024 1024\n255\n" + picture.numpy().tobytes())
    ask = {"task": "embed_image", "inputs": [f"image={folder}/picture.ppm"], "result": "image_embeddings"}
    return model.image_encoder, {"x": x}, model.state_dict(), {"model_type": "mobile_sam"}, ask


def sam_click(folder):
    import torch

    encoder, inputs, weights, config, _ = sam_encoder(folder)
    from mobile_sam.utils.onnx import SamOnnxModel

    model = mobile_sam()
    with torch.inference_mode():
        embedding = encoder(inputs["x"])

    class Click(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.prompts, self.decoder, self.form = model.prompt_encoder, model.mask_decoder, SamOnnxModel(model, True)

        def forward(self, embedding, point):
            points, labels = torch.cat([point, torch.zeros(1, 1, 2)], 1), torch.tensor([[1.0, -1.0]])
            sparse = self.form._embed_points(points, labels)
            dense = self.prompts.no_mask_embed.weight.reshape(1, -1, 1, 1).expand_as(embedding)
            low, _ = self.decoder(image_embeddings=embedding, image_pe=self.prompts.get_dense_pe(),
                                  sparse_prompt_embeddings=sparse, dense_prompt_embeddings=dense, multimask_output=False)
            full = torch.nn.functional.interpolate(low, (1024, 1024), mode="bilinear", align_corners=False)
            return low, full > 0

    ask = {"task": "click", "result": "low_res_logits"}
    return Click(), {"embedding": embedding, "point": torch.tensor([[CLICK]])}, weights, config, ask


def monai_net(name, side):
    import torch
    from monai.networks import nets

    torch.manual_seed(1)
    common = {"model_type": "unet3d", "in_channels": 1, "out_channels": 14, "spatial_dims": 3}
    if name == "swinunetr":
        model = nets.SwinUNETR(in_channels=1, out_channels=14, feature_size=48)
        config = {"architectures": ["SwinUNETR"], "img_size": [side] * 3, "feature_size": 48, "patch_merging": "v1.6"}
    elif name == "unetr":
        model = nets.UNETR(in_channels=1, out_channels=14, img_size=(side,) * 3)
        config = {"architectures": ["UNETR"], "img_size": [side] * 3, "feature_size": 16, "hidden_size": 768,
                  "mlp_dim": 3072, "num_heads": 12, "norm_name": "instance"}
    elif name == "dynunet":
        kernels, strides = [[3] * 3] * 5, [[1] * 3] + [[2] * 3] * 4
        model = nets.DynUNet(3, 1, 14, kernels, strides, strides[1:])
        config = {"architectures": ["DynUNet"], "kernel_size": kernels, "strides": strides,
                  "upsample_kernel_size": strides[1:], "img_size": [side] * 3}
    else:
        model = nets.BasicUNet(3, 1, 14)
        config = {"architectures": ["BasicUNet"], "features": [32, 32, 64, 128, 256, 32],
                  "act": ["LeakyReLU", {"negative_slope": 0.1}], "norm": ["instance", {"affine": True}]}
    return awake(model), {**common, **config}


def unet3d(name, side, folder):
    import torch

    model, config = monai_net(name, side)
    torch.manual_seed(2)
    ask = {"task": "forward", "inputs": [f"pixel_values={folder}/inputs.safetensors:x"], "result": "logits"}
    return model, {"x": torch.randn(1, 1, side, side, side)}, model.state_dict(), config, ask


def pictures(folder, names, height, width):
    """Pictures of noise as files, and what the depth networks take: numbers from 0 to 1."""
    import torch

    torch.manual_seed(2)
    out = {}
    for name in names:
        x = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        with open(f"{folder}/{name}.ppm", "wb") as f:
            f.write(b"P6\n%d %d\n255\n" % (width, height) + x.numpy().tobytes())
        out[name] = (x / 255).permute(2, 0, 1)[None].contiguous()
    return out


def ccnext(folder):
    import timm
    import torch

    official("CCNeXt")
    height, width, create = 384, 1280, timm.create_model
    timm.create_model = lambda name, pretrained, **kw: create(name, **kw)  # weights are random here
    import models

    torch.manual_seed(1)
    encoder = awake(models.ConvnextCAEncoder((1, height, width), "cpu"))
    decoder = awake(models.IDEP_Skip([32, 64, 128, 256, 512]))

    class Stereo(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def forward(self, left, right):
            return self.decoder(self.encoder(left, right))[("disp", 0)]

    ask = {"task": "stereo_depth", "inputs": [f"{k}={folder}/{k}.ppm" for k in ("left", "right")], "result": "disp.0"}
    weights = {**encoder.state_dict(), **decoder.state_dict()}
    config = {"model_type": "ccnext", "height": height, "width": width}
    return Stereo().eval(), pictures(folder, ("left", "right"), height, width), weights, config, ask


def endodac(folder):
    import torch

    official("EndoDAC")
    from models.endodac.endodac import endodac as network

    torch.manual_seed(1)
    model = awake(network("base", r=4, image_shape=(224, 280), lora_type="dvlora",
                          residual_block_indexes=[2, 5, 8, 11], include_cls_token=True))
    for name, w in model.named_parameters():
        if "lora" in name:  # as training leaves them: they begin as zeros
            torch.nn.init.normal_(w.data, std=0.02)

    class Depth(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, image):
            return self.model(image)[("disp", 0)]

    ask = {"task": "depth", "inputs": [f"image={folder}/image.ppm"], "result": "disp.0"}
    weights = {f"depth_model.{k}": v for k, v in model.state_dict().items()}
    config = {"model_type": "endodac", "backbone_size": "base", "lora_type": "dvlora", "height": 256, "width": 320,
              "residual_block_indexes": [2, 5, 8, 11], "include_cls_token": True}
    return Depth().eval(), pictures(folder, ["image"], 256, 320), weights, config, ask


def build(name, folder):
    if name == "ccnext-384x1280":
        return ccnext(folder)
    if name == "endodac-256x320":
        return endodac(folder)
    if name == "mobilesam-encoder":
        return sam_encoder(folder)
    if name == "mobilesam-click":
        return sam_click(folder)
    kind, side = name.rsplit("-", 1)
    return unet3d(kind, int(side), folder)


def make(name, folder):
    """Checkpoint, inputs, the peers' answer and ONNX file, unless they are there."""
    import torch
    from safetensors.torch import save_file

    if os.path.exists(f"{folder}/ask.json"):
        return
    os.makedirs(folder, exist_ok=True)
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that ONNX does not know
    model, inputs, weights, config, ask = build(name, folder)
    save_file({k: v.detach().contiguous().clone() for k, v in weights.items()}, f"{folder}/model.safetensors")
    save_file({k: v.contiguous() for k, v in inputs.items()}, f"{folder}/inputs.safetensors")
    json.dump(config, open(f"{folder}/config.json", "w"), indent=1)
    with torch.inference_mode():
        torch.onnx.export(model, tuple(inputs.values()), f"{folder}.onnx", input_names=list(inputs),
                          output_names=["y"], dynamo=False, opset_version=17)
    json.dump(ask, open(f"{folder}/ask.json", "w"))


# ---- a program's process: "run" gives milliseconds, "end" the memory ----


def first(y):
    return (y[0] if isinstance(y, (tuple, list)) else y).numpy()


def torch_runner(name, folder, threads):
    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(threads)
    libraries = peak_bytes()
    model = build(name, folder)[0]
    inputs = load_file(f"{folder}/inputs.safetensors")

    def run():
        with torch.inference_mode():
            return first(model(*inputs.values()))

    return run, libraries


def onnx_runner(name, folder, threads):
    import onnxruntime
    from safetensors.numpy import load_file

    libraries = peak_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(f"{folder}.onnx", options, providers=["CPUExecutionProvider"])
    inputs = load_file(f"{folder}/inputs.safetensors")
    inputs = {i.name: inputs[i.name] for i in session.get_inputs()}
    return lambda: session.run(None, inputs)[0], libraries


def click_runner(name, folder, threads):
    """The library as a program uses it: a session that has seen the picture."""
    import numpy

    sys.path.insert(0, os.path.join(HERE, "../../../abi/python"))
    import vivarium

    libraries = peak_bytes()
    model = vivarium.open().load(folder)
    session = model.session()
    params = {"point_coords": [list(CLICK)], "point_labels": [1], "multimask_output": False}
    with open(f"{folder}/picture.ppm", "rb") as picture:
        model.run("segment", {"image": picture.read()}, params, session=session)
    low = model.run("segment", {}, {**params, "outputs": ["low_res_logits"]}, session=session)["low_res_logits"]
    answers = [numpy.array(low.tolist(), dtype=numpy.float32)]

    def run():
        if answers:
            return answers.pop()
        return model.run("segment", {}, params, session=session)

    return run, libraries


def program(kind, name, folder, threads, passes):
    import numpy

    runner = {"pytorch": torch_runner, "onnxruntime": onnx_runner, "vivarium": click_runner}[kind]
    run, libraries = runner(name, folder, threads)
    numpy.save(f"{folder}/{kind}.npy", run())
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() != "run":
            break
        times = []
        for _ in range(passes):
            start = time.perf_counter(), time.process_time()
            run()
            times.append(((time.perf_counter() - start[0]) * 1e3, (time.process_time() - start[1]) * 1e3))
        print(json.dumps({"ms": min(t[0] for t in times), "processor": min(t[1] for t in times)}), flush=True)
    print(json.dumps({"peak": peak_bytes(), "libraries": libraries}), flush=True)


class Program:
    def __init__(self, kind, name, folder, threads, passes):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--program", kind, name, folder, str(threads), str(passes)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "VIV_THREADS": str(threads),
                 "PYTHONWARNINGS": "ignore"},
        )
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"{kind} could not run {name}")

    def ask(self, what):
        print(what, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def turn(self):
        return self.ask("run")

    def end(self):
        return self.ask("end")


class Vivarium:
    """`viv bench`: a program of its own, as everybody runs it."""

    def __init__(self, viv, folder, threads, passes):
        import numpy
        from safetensors.numpy import load_file

        ask = json.load(open(f"{folder}/ask.json"))
        self.env, self.peak = {**os.environ, "VIV_THREADS": str(threads)}, 0
        self.common = [folder, "--task", ask["task"], *[a for i in ask["inputs"] for a in ("-i", i)],
                       "--param", f'outputs=["{ask["result"]}"]']
        self.bench = [viv, "bench", *self.common, "-r", str(passes), "--json"]
        out = f"{folder}/viv.safetensors"
        subprocess.run([viv, "run", *self.common, "-o", out], env=self.env, check=True, capture_output=True)
        numpy.save(f"{folder}/vivarium.npy", load_file(out)[ask["result"]])

    def turn(self):
        out = json.loads(subprocess.run(self.bench, env=self.env, check=True, capture_output=True, text=True).stdout)
        self.peak = max(self.peak, out["peak_bytes"])
        return {"ms": out["least_ms"], "processor": out["processor_ms"]}

    def end(self):
        return {"peak": self.peak, "libraries": 0}


def compare(a, name, threads):
    import numpy

    folder = f"{a.work}/{name}"
    made = subprocess.run([sys.executable, __file__, "--make", name, folder], capture_output=True, text=True)
    if made.returncode:
        print(f"| {name} | left out: {made.stderr.strip().splitlines()[-1]} |", flush=True)
        return None
    passes = 5 if name == "mobilesam-click" else 1
    programs = {k: Program(k, name, folder, threads, passes) for k in KINDS[1:]}
    click = name == "mobilesam-click"
    programs["vivarium"] = (Program("vivarium", name, folder, threads, passes) if click else
                            Vivarium(a.viv, folder, threads, passes))
    turns = {k: [] for k in KINDS}
    for _ in range(a.rounds):
        for k in KINDS:
            turns[k].append(programs[k].turn())
    memory = {k: programs[k].end() for k in KINDS}
    want = numpy.load(f"{folder}/pytorch.npy")
    others = [numpy.load(f"{folder}/{k}.npy").reshape(want.shape) for k in ("vivarium", "onnxruntime")]
    differs = [float(abs(y - want).max() / abs(want).max()) for y in others]
    by = "processor" if threads == 1 else "ms"
    least = {k: min(t[by] for t in v) for k, v in turns.items()}
    ratio = min(least["pytorch"], least["onnxruntime"]) / least["vivarium"]
    mib = lambda k: f"{(memory[k]['peak'] - memory[k]['libraries']) / 2**20:.0f}"
    print(f"| {name} | {threads} | {least['vivarium']:.0f} ms | {least['pytorch']:.0f} ms | {least['onnxruntime']:.0f} ms "
          f"| {ratio:.2f} | {mib('vivarium')} | {mib('pytorch')} | {mib('onnxruntime')} | {max(differs):.0e} |", flush=True)
    return {"model": name, "threads": threads, "by": by, "turns": turns, "least": least, "ratio": ratio,
            "memory": memory, "differs": differs}


def main():
    a = argparse.ArgumentParser()
    a.add_argument("viv")
    a.add_argument("work")
    a.add_argument("--threads", type=int, nargs="*", default=[1])
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--models", nargs="*", default=MODELS, help="one of the list, a volume of another side too: swinunetr-64")
    a.add_argument("--code", help="where setup.sh put the official code (the folder above WORK_FOLDER)")
    a.add_argument("--json")
    a = a.parse_args()
    a.work = os.path.abspath(a.work)
    build = os.path.dirname(os.path.abspath(a.viv))
    os.environ.setdefault("VIV_LIBRARY", f"{build}/libvivarium.so.0")
    os.environ.setdefault("VIV_PLUGIN_PATH", f"{build}/plugins")
    os.environ["VIV_PEERS"] = os.path.abspath(a.code or os.path.dirname(a.work))
    print("| network | threads | Vivarium | PyTorch | ONNX Runtime | of the faster | MiB above the libraries: Vivarium "
          "| PyTorch | ONNX Runtime | differs |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = [compare(a, name, threads) for name in a.models for threads in a.threads]
    if a.json:
        os.makedirs(os.path.dirname(a.json) or ".", exist_ok=True)
        json.dump([r for r in rows if r], open(a.json, "w"), indent=1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        sys.exit(make(sys.argv[2], sys.argv[3]))
    if sys.argv[1:2] == ["--program"]:
        sys.exit(program(*sys.argv[2:5], int(sys.argv[5]), int(sys.argv[6])))
    sys.exit(main())
