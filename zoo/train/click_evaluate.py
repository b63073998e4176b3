"""How well a model segments by click, through Vivarium's own runtime (abi/python; VIV_LIBRARY or an installed one).

The first click lies where a thing is deepest, each further one where the largest piece of what is wrong is deepest: on what
was missed, or (a click outside) on what does not belong to it.  One click is answered by the mask that the model trusts
most of three, several by its only one, as `viv run` does it.

    click_evaluate.py photos MODEL tests/data/clicks/annotations.json [--look out.png] [--torch]
    click_evaluate.py scenes MODEL tests/data/clicks/scenes [--torch]
    click_evaluate.py make LIB FOLDER --seed 900 --pictures 120      held-out scenes, and their maps
    click_evaluate.py make LIB tests/data/clicks/scenes --pictures 12 --skip 562 --photos FREE...
        the same of what may be passed on: without the library's first cut-outs, on these photographs
"""

import argparse
import glob
import json
import os
import sys

import cv2
import numpy as np

import click_data

CLICKS = 3


def photographs(path):
    """Name, picture and things [(name, mask)] of a COCO file."""
    with open(path) as f:
        data = json.load(f)
    names = {c["id"]: c["name"] for c in data["categories"]}
    for image in data["images"]:
        file = os.path.join(os.path.dirname(path), image["file_name"])
        things = []
        for a in data["annotations"]:
            if a["image_id"] == image["id"]:
                m = np.zeros((image["height"], image["width"]), np.uint8)
                for p in a["segmentation"]:
                    cv2.fillPoly(m, [np.round(np.array(p).reshape(-1, 2) * 16 - 8).astype(np.int32)], 1, 8, 4)
                things.append((names[a["category_id"]], m > 0))
        yield file, things


def scenes(folder):
    """The same of pictures and maps; every whole thing in sight, not the parts."""
    for path in sorted(glob.glob(f"{folder}/*.jpg")):
        thing = cv2.imread(path[:-4] + ".png", cv2.IMREAD_GRAYSCALE)
        yield path, [("thing", m) for m in click_data.targets(thing, 0 * thing)[0]]


def make(folder, out, seed, pictures, skip, photos):
    os.makedirs(out, exist_ok=True)
    lib, at, i = click_data.Library(folder, True, skip), 0, -1
    if photos:
        lib.photos = [cv2.imread(path)[..., ::-1] for path in photos]
    while at < pictures:
        i += 1
        x, thing, _ = click_data.scene(lib, seed, i)
        if not click_data.targets(thing, 0 * thing)[0]:
            continue
        cv2.imwrite(f"{out}/{at:03d}.jpg", x[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
        cv2.imwrite(f"{out}/{at:03d}.png", thing, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        at += 1


class Runtime:
    def __init__(self, folder):
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../abi/python"))
        import vivarium
        self.model = vivarium.open().load(folder)

    def see(self, path):
        with open(path, "rb") as f:
            self.picture = {"image": f.read()}
        self.session = self.model.session()

    def ask(self, clicks, labels):
        params = {"point_coords": [[float(v) for v in c] for c in clicks], "point_labels": labels}
        found = self.model.run("segment", self.picture, params, session=self.session)
        self.picture = {}
        m = found["masks.0"]
        return np.frombuffer(m.buffer.cast("B"), np.uint8).reshape(m.shape[-2:]) > 0


class Torch:
    """The same in PyTorch, to compare."""

    def __init__(self, folder):
        import torch
        from PIL import Image
        from safetensors.torch import load_file
        from click_model import Sam
        self.torch, self.image = torch, Image
        with open(f"{folder}/config.json") as f:
            self.net = Sam(json.load(f)).eval()
        state = {n: t.float() for n, t in load_file(f"{folder}/model.safetensors").items()}
        self.net.load_state_dict(state, strict=False)

    def see(self, path):
        side = self.net.config["image_size"]
        x = self.image.open(path).convert("RGB")
        self.width, self.height = x.size
        scale = side / max(x.size)
        self.new = int(self.width * scale + 0.5), int(self.height * scale + 0.5)
        x = np.array(x.resize(self.new, self.image.BILINEAR))
        pixels = self.torch.zeros(1, 3, side, side)
        pixels[:, :, :self.new[1], :self.new[0]] = self.net.normal(self.torch.from_numpy(x)[None])
        with self.torch.no_grad():
            self.embedding = self.net.embed(pixels)

    def ask(self, clicks, labels):
        torch, side = self.torch, self.net.config["image_size"]
        xy = torch.tensor([[*clicks, [0, 0]]]).float() * torch.tensor([self.new[0] / self.width, self.new[1] / self.height])
        with torch.no_grad():
            logits, said = self.net.decode(self.embedding, side, xy, torch.tensor([[*labels, -1]]))
            best = 1 + int(said[0, 1:].argmax()) if len(clicks) == 1 else 0
            grow = lambda x, size: torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
            full = grow(logits[:, best:best + 1], (side, side))[..., :self.new[1], :self.new[0]]
            return (grow(full, (self.height, self.width))[0, 0] > 0).numpy()


def overlap(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def largest(mask):
    n, label, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return label == 1 + stats[1:, 4].argmax() if n > 1 else mask


def click_on(model, mask):
    """The masks that the model answers to one click after another."""
    clicks, labels, answers = [list(click_data.most_inside(mask))], [1], []
    for _ in range(CLICKS):
        answers.append(model.ask(clicks, labels))
        missed, wrong = largest(mask & ~answers[-1]), largest(answers[-1] & ~mask)
        if not missed.any() and not wrong.any():
            return answers + answers[-1:] * (CLICKS - len(answers)), clicks, labels
        clicks.append(list(click_data.most_inside(missed if missed.sum() >= wrong.sum() else wrong)))
        labels.append(int(missed.sum() >= wrong.sum()))
    return answers, clicks[:CLICKS], labels[:CLICKS]


def tile(path, mask, answer, clicks, labels, side=256):
    x = cv2.imread(path)
    x[answer] = x[answer] // 2 + np.array([0, 127, 0], np.uint8)
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(x, outline, -1, (0, 0, 255), 1)
    for (u, v), label in zip(clicks, labels):
        cv2.circle(x, (u, v), max(3, x.shape[1] // 90), (0, 255, 255) if label else (255, 0, 0), -1)
    k = side / max(x.shape[:2])
    x = cv2.resize(x, None, fx=k, fy=k, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(x, 0, side - x.shape[0], 0, side - x.shape[1], cv2.BORDER_CONSTANT)


def evaluate(folder, pictures, look, compare, names):
    model, other = Runtime(folder), Torch(folder) if compare else None
    rows, tiles, same = [], [], []
    for path, things in pictures:
        model.see(path)
        if other:
            other.see(path)
        for name, mask in things:
            answers, clicks, labels = click_on(model, mask)
            rows.append([overlap(a, mask) for a in answers])
            if names:
                print(f"{os.path.basename(path):16s} {name:10s}", " ".join(f"{v:.3f}" for v in rows[-1]))
            if other:
                same += [overlap(other.ask(clicks[:n + 1], labels[:n + 1]), answers[n]) for n in range(len(clicks))]
            if look:
                tiles += [tile(path, mask, answers[n], clicks[:n + 1], labels[:n + 1]) for n in (0, CLICKS - 1)]
    rows = np.array(rows)
    print(f"{len(rows)} things: " + ", ".join(
        f"IoU {rows[:, n].mean():.3f} (above 0.5: {(rows[:, n] > 0.5).mean():.0%}) after {n + 1}" for n in (0, CLICKS - 1)))
    if same:
        print(f"PyTorch's masks overlap these by {np.mean(same):.5f}, the least by {min(same):.5f}")
    if look:
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 8)
        cv2.imwrite(look, np.concatenate([np.concatenate(tiles[i:i + 8], 1) for i in range(0, len(tiles), 8)]))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("what", choices=["photos", "scenes", "make"])
    a.add_argument("folder", help="of the model; make: of the library")
    a.add_argument("data")
    a.add_argument("--look", help="a picture of all masks")
    a.add_argument("--torch", action="store_true", help="compare with PyTorch")
    a.add_argument("--seed", type=int, default=900)
    a.add_argument("--pictures", type=int, default=120)
    a.add_argument("--skip", type=int, default=0, help="make: cut-outs of the library that are not used, from the first on")
    a.add_argument("--photos", nargs="*", default=[], help="make: used instead of the library's")
    o = a.parse_args()
    if o.what == "make":
        make(o.folder, o.data, o.seed, o.pictures, o.skip, o.photos)
    else:
        evaluate(o.folder, photographs(o.data) if o.what == "photos" else scenes(o.data), o.look, o.torch,
                 o.what == "photos")


if __name__ == "__main__":
    main()
