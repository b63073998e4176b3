"""The conformance list through Python, in this process and through a daemon: conformance.py MODEL TEST_MODEL
DIR [SOCKET]. MODEL is a small language model, TEST_MODEL gives the tensor x back as y, DIR may be written."""

import array
import asyncio
import itertools
import os
import sys
import time
import tracemalloc

import vivarium

model_path, null_path, folder = sys.argv[1:4]
socket = sys.argv[4] if len(sys.argv) > 4 else None
PROMPT = "Once upon a time"


def open_runtime():
    return vivarium.connect(socket) if socket else vivarium.open()


def check(name, good):
    print(f"{'ok' if good else 'not ok'} - {'daemon' if socket else 'in-process'}: {name}")
    if not good:
        sys.exit(1)


def tell(what, text):
    """A line that must be the same in every language."""
    print(f"# {what}: " + text.replace("\n", " "))


def raises(kind, function):
    try:
        function()
    except kind as error:
        return error
    return None


with vivarium.open() as here:
    expected = "".join(here.load(model_path).generate(PROMPT, max_new_tokens=60))

tell("said", expected)
runtime = open_runtime()
model = runtime.load(model_path)
check("load and infer", model.run("generate", {"text": PROMPT}, {"max_new_tokens": 60})["text"] == expected)
pieces = list(model.generate(PROMPT, max_new_tokens=60))
check("a stream in pieces gives the same", len(pieces) > 10 and "".join(pieces) == expected)

job = model.submit("generate", {"text": PROMPT}, {"max_new_tokens": 100000, "ignore_eos": True})
next(job)
job.cancel()
check("cancel midway", raises(vivarium.Cancelled, lambda: list(job)) is not None)
some = list(itertools.islice(model.generate(PROMPT, max_new_tokens=100000, ignore_eos=True), 5))
check("a generator that is left cancels", len(some) == 5)
begun = time.monotonic()
late = raises(
    vivarium.Deadline,
    lambda: list(model.generate(PROMPT, deadline=0.005, max_new_tokens=10**6, ignore_eos=True)),
)
check("deadline", late is not None and time.monotonic() - begun < 20)
bad = raises(vivarium.BadInput, lambda: model.run("generate", {"text": "x"}, {"top_p": 7}))
check("bad input names the place", bad is not None and "top_p" in bad.where and bad.code == -3)
tell("bad input", str(bad))
gone = raises(vivarium.Never, lambda: runtime.load("/nowhere/at/all"))
check("a model that is not there", gone is not None and "/nowhere/at/all" in str(gone))
tell("absent", str(gone))

null = runtime.load(null_path)
both = model.submit("generate", {"text": PROMPT}, {"max_new_tokens": 60})
numbers = array.array("f", range(150528))
tracemalloc.start()
with null.submit("forward", {"x": memoryview(numbers).cast("B").cast("f", (3, 224, 224))}) as one:
    event = next(one)
    view = event.tensor.buffer
    copied = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    same = view.shape == (3, 224, 224) and view.cast("B").cast("f") == memoryview(numbers)
    check("a tensor in and out", event.name == "y" and same and view.readonly)
    check("without a copy of its 602,112 bytes", copied < 100_000)
    check("the tensor is the job's last but its end", list(one) == [])
check("a view outlives the job", view[2, 223, 223] == 150527.0 and event.tensor.tolist()[2][223][223] == 150527.0)
check("two models at once", "".join(e.text for e in both if e.kind == 2) == expected)
check("what is no array is refused", raises(TypeError, lambda: null.submit("forward", {"x": object()})))

with model.session() as session:
    first = "".join(model.generate(PROMPT, session=session, max_new_tokens=20))
    second = "".join(model.generate(" Then", session=session, max_new_tokens=20))
    check("a session goes on", first and second)
    path = os.path.join(folder, "python.session")
    session.save(path)
    third = "".join(model.generate(" And", session=session, max_new_tokens=20))
    with model.session(path) as resumed:
        again = "".join(model.generate(" And", session=resumed, max_new_tokens=20))
    check("a session is saved and resumed", third == again)

ids = model.tokenize("a little dog")
check("tokens there and back", "little dog" in model.detokenize(ids))
check("describe", "generate" in str(model.describe()["tasks"]))


async def two():
    async def one(prompt):
        job = model.submit("generate", {"text": prompt}, {"max_new_tokens": 60})
        return "".join([event.text async for event in job if event.kind == 2])

    return await asyncio.gather(one(PROMPT), one(PROMPT))


check("async for", asyncio.run(two()) == [expected, expected])


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def null_jobs(n):
    small = array.array("f", [1, 2, 3])
    for _ in range(n):
        null.run("forward", {"x": small})


null_jobs(300)
before, files = resident(), len(os.listdir("/proc/self/fd"))
null_jobs(1000)
check("no leak over 1,000 jobs", resident() - before < 2 << 20 and len(os.listdir("/proc/self/fd")) <= files)
runtime.close()
check("a closed runtime says so", raises(ValueError, lambda: model.describe()) is not None)
