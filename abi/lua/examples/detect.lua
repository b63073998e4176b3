-- detect.lua MODEL PICTURE: boxes (left, top, right, bottom in pixels) and how sure the model is of each.
local vivarium = require "vivarium"
local model = vivarium.open():load(arg[1])
local picture, found = assert(io.open(arg[2], "rb")), {}
local job = model:submit("detect", {image = {kind = vivarium.IMAGE, bytes = picture:read "*a"}})
for event in job:events() do
  found[event.name] = {}
  for i = 1, event.dtype == vivarium.F32 and event.size / 4 or 0 do found[event.name][i] = event.data[i - 1] end
end
local boxes = found["boxes.0"]
for i, score in ipairs(found["scores.0"]) do
  if score > 0.5 then print(string.format("%.3f [%.1f, %.1f, %.1f, %.1f]", score, unpack(boxes, 4 * i - 3, 4 * i))) end
end
