"""generate.py MODEL TEXT: what the model goes on to say; in the daemon where one runs."""

import sys

import vivarium

try:
    runtime = vivarium.connect()
except vivarium.NotNow:
    runtime = vivarium.open()
with runtime:
    model = runtime.load(sys.argv[1])
    for piece in model.generate(sys.argv[2], max_new_tokens=64):
        print(piece, end="", flush=True)
print()
