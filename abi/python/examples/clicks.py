"""clicks.py MODEL PICTURE X,Y ...: the mask under each click, how sure the model is of it, and the time.
The picture is encoded once: the session keeps what the encoder made of it."""

import sys
import time

import vivarium

with vivarium.open() as runtime, open(sys.argv[2], "rb") as picture:
    model, photo = runtime.load(sys.argv[1]), {"image": picture.read()}
    with model.session() as session:
        for click in sys.argv[3:]:
            point, begin = [float(x) for x in click.split(",")], time.perf_counter()
            params = {"point_coords": [point], "point_labels": [1], "multimask_output": False}
            found = model.run("segment", photo, params, session=session)
            ms, photo = (time.perf_counter() - begin) * 1000, {}  # later clicks need no picture
            pixels = bytes(found["masks.0"].buffer.cast("B")).count(1)
            print(f"{click}: {pixels} pixels, {found['scores.0'].tolist()[0]:.3f}, {ms:.0f} ms")
