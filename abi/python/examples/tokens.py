"""tokens.py MODEL TEXT: the text's tokens."""

import sys

import vivarium

with vivarium.open() as runtime:
    model = runtime.load(sys.argv[1])
    for token in model.tokenize(sys.argv[2]):
        print(token, repr(model.detokenize([token], skip_special=False)))
