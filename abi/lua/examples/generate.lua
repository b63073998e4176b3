-- generate.lua MODEL TEXT: what the model goes on to say; in the daemon where one runs.
local vivarium = require "vivarium"
local there, runtime = pcall(vivarium.connect)
if not there then runtime = vivarium.open() end
local model = runtime:load(arg[1])
for piece in model:generate(arg[2], {params = '{"max_new_tokens": 64}'}) do io.write(piece) end
print()
