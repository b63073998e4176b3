"""detect.py MODEL PICTURE: boxes (left, top, right, bottom in pixels) and how sure the model is of each."""

import sys

import vivarium

with vivarium.open() as runtime, open(sys.argv[2], "rb") as picture:
    found = runtime.load(sys.argv[1]).run("detect", {"image": picture.read()})
    boxes = found["boxes.0"].buffer.tolist()
    for score, box in zip(found["scores.0"].buffer, boxes):
        if score > 0.5:
            print(f"{score:.3f}", [round(x, 1) for x in box])
