"""viv eval --coco beside pycocotools on random annotations and results: every number must agree to 1e-6.

    python coco.py VIV WORK_FOLDER [--sets 20] [--seed 1]

The sets hold what makes the evaluation hard: crowds, objects without keypoints, equal scores, several hits on one
object, categories without annotations, pictures without results, more results than count, areas at the edges of the
ranges, results for pictures of no annotation. Speed of both is told, reading of the files included.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = {
    "bbox": ["AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small",
             "AR_medium", "AR_large"],
    "keypoints": ["AP", "AP50", "AP75", "AP_medium", "AP_large", "AR", "AR50", "AR75", "AR_medium", "AR_large"],
}
KIND = {"bbox": "boxes", "keypoints": "keypoints"}


def truth(rng, number, image, category, points):
    side = float(rng.choice([8, 24, 32, 64, 96, 200, 400])) * float(rng.choice([1, rng.uniform(0.6, 1.5)]))
    box = [*rng.uniform(0, 400, 2), side, side * float(rng.uniform(0.5, 2))]
    out = {"id": number, "image_id": image, "category_id": category, "bbox": [round(float(v), 2) for v in box],
           "area": round(float(box[2] * box[3] * rng.choice([1, 0.6])), 2), "iscrowd": int(rng.random() < 0.1)}
    if points:
        xy = np.array(box[:2]) + rng.random((17, 2)) * np.array(box[2:])
        seen = rng.choice([0, 1, 2], 17) if rng.random() < 0.9 else np.zeros(17, int)
        out["keypoints"] = [v for (x, y), s in zip(xy.round(1), seen) for v in (float(x) * bool(s), float(y) * bool(s), int(s))]
        out["num_keypoints"] = int((seen > 0).sum())
    return out


def result(rng, of, points):
    spread = float(rng.choice([0.01, 0.05, 0.2, 0.6])) * max(of["bbox"][2:])
    box = np.array(of["bbox"]) + rng.normal(0, spread, 4)
    out = {"image_id": of["image_id"], "category_id": of["category_id"],
           "score": round(float(rng.random()), int(rng.choice([1, 6])))}
    if points:
        k = np.array(of["keypoints"], float).reshape(17, 3)
        k[k[:, 2] == 0, :2] = box[:2]
        k[:, :2] += rng.normal(0, spread / 4, (17, 2))
        k[:, 2] = 1
        out["keypoints"] = [float(v) for v in k.round(2).flatten()]
    else:
        box[2:] = np.maximum(box[2:], 1)
        out["bbox"] = [float(v) for v in box.round(2)]
    return out


def make(rng, points):
    images = [int(i) for i in rng.choice(10000, int(rng.integers(3, 40)), replace=False) + 1]
    categories = [1] if points else [int(c) for c in rng.choice(90, int(rng.integers(1, 6)), replace=False) + 1]
    truths, results = [], []
    for image in images:
        for _ in range(int(rng.integers(0, 9))):
            truths.append(truth(rng, len(truths) + 1, image, int(rng.choice(categories[: max(1, len(categories) - 1)])), points))
    if not truths:
        truths.append(truth(rng, 1, images[0], categories[0], points))
    for t in truths:
        for _ in range(int(rng.choice([0, 1, 1, 2, 40 if rng.random() < 0.05 else 3]))):
            results.append(result(rng, t, points))
    for _ in range(int(rng.integers(1, 30))):
        stray = truth(rng, 0, int(rng.choice(images)), int(rng.choice(categories)), points)
        results.append(result(rng, stray, points))
    rng.shuffle(results)
    return {"images": [{"id": i, "file_name": f"{i}.png"} for i in images],
            "categories": [{"id": c, "name": f"c{c}"} for c in categories], "annotations": truths}, list(results)


def official(folder, kind):
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO(f"{folder}/truth.json")
        e = COCOeval(annotations, annotations.loadRes(f"{folder}/results.json"), kind)
        e.evaluate()
        e.accumulate()
        e.summarize()
    return [float(v) for v in e.stats]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("viv")
    a.add_argument("work")
    a.add_argument("--sets", type=int, default=20)
    a.add_argument("--seed", type=int, default=1)
    a = a.parse_args()
    os.makedirs(a.work, exist_ok=True)
    worst, bad, seconds = 0, 0, {"pycocotools": 0.0, "vivarium": 0.0}
    for kind in NAMES:
        for i in range(a.sets):
            rng = np.random.default_rng([a.seed, i, kind == "bbox"])
            annotations, results = make(rng, kind == "keypoints")
            json.dump(annotations, open(f"{a.work}/truth.json", "w"))
            json.dump(results, open(f"{a.work}/results.json", "w"))
            start = time.perf_counter()
            theirs = official(a.work, kind)
            seconds["pycocotools"] += time.perf_counter() - start
            start = time.perf_counter()
            out = subprocess.run([a.viv, "eval", "--json", "--coco", f"{a.work}/truth.json", "--results",
                                  f"{a.work}/results.json", "--kind", KIND[kind]], capture_output=True, text=True)
            seconds["vivarium"] += time.perf_counter() - start
            if out.returncode:
                sys.exit(f"{kind} set {i}: {out.stderr}")
            mine = json.loads(out.stdout)
            for name, value in zip(NAMES[kind], theirs):
                have = -1 if mine[name] is None else mine[name]
                worst = max(worst, abs(have - value))
                if abs(have - value) > 1e-6:
                    bad += 1
                    print(f"{kind} set {i}: {name} is {have}, pycocotools says {value}")
    print(f"{2 * a.sets} sets: {bad} numbers differ, by at most {worst:.1e}; pycocotools "
          f"{seconds['pycocotools']:.2f} s, viv eval {seconds['vivarium']:.2f} s")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
