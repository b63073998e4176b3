-- tokens.lua MODEL TEXT: the text's tokens.
local vivarium = require "vivarium"
local model = vivarium.open():load(arg[1])
for _, token in ipairs(model:tokenize(arg[2])) do print(token, ("%q"):format(model:detokenize({token}, true))) end
