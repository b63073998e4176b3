-- The conformance list through LuaJIT, in this process and through a daemon:
-- conformance.lua MODEL TEST_MODEL DIR [SOCKET], as conformance.py.
local ffi = require "ffi"
local vivarium = require "vivarium"
local model_path, null_path, folder, socket = arg[1], arg[2], arg[3], arg[4]
local PROMPT = "Once upon a time"

local function open_runtime()
  if socket then return vivarium.connect(socket) end
  return vivarium.open()
end

local function check(name, good)
  print((good and "ok" or "not ok") .. " - " .. (socket and "daemon: " or "in-process: ") .. name)
  if not good then os.exit(1) end
end

-- A line that must be the same in every language.
local function tell(what, text) print("# " .. what .. ": " .. tostring(text):gsub("\n", " ")) end

local function fails(name, f, ...)
  local good, e = pcall(f, ...)
  return not good and type(e) == "table" and e.name == name and e
end

local function say(model, options, text)
  local all = {}
  for piece in model:generate(text or PROMPT, options) do all[#all + 1] = piece end
  return table.concat(all), #all
end

local SIXTY, ENDLESS = {params = '{"max_new_tokens": 60}'}, '{"max_new_tokens": 100000, "ignore_eos": true}'
local here = vivarium.open()
local expected = say(here:load(model_path), SIXTY)
tell("said", expected)
local runtime = open_runtime()
local model = runtime:load(model_path)
local got, pieces = say(model, SIXTY)
check("load, infer and stream", got == expected and pieces > 10)
local job = model:submit("generate", {text = PROMPT}, {params = ENDLESS})
job:next()
job:cancel()
check("cancel midway", fails("cancelled", function() for _ in job:events() do end end))
check("deadline", fails("deadline", say, model, {params = ENDLESS, deadline = 0.005}))
local bad = fails("bad input", say, model, {params = '{"top_p": 7}'})
check("bad input names the place", bad and bad.where:find "top_p" and bad.code == -3)
tell("bad input", bad)
local gone = fails("never", runtime.load, runtime, "/nowhere/at/all")
check("a model that is not there", gone and tostring(gone):find("/nowhere/at/all", 1, true))
tell("absent", gone)

local null = runtime:load(null_path)
local both = model:submit("generate", {text = PROMPT}, SIXTY)
local x = ffi.new "float[150528]"
for i = 0, 150527 do x[i] = i end
collectgarbage()
collectgarbage "stop"
local had = collectgarbage "count"
local one = null:submit("forward", {x = vivarium.tensor(vivarium.F32, {3, 224, 224}, x)})
local event = one:next()
local copied = collectgarbage "count" - had
collectgarbage "restart"
local same = event.name == "y" and event.shape[3] == 224
for i = 0, 150527 do same = same and event.data[i] == i end
check("a tensor in and out", same)
check("without a copy of its 588 KiB", copied < 100)
local text = {}
for e in both:events() do if e.kind == vivarium.TEXT then text[#text + 1] = e.text end end
check("two models at once", table.concat(text) == expected)

local session = model:session()
local TWENTY = {params = '{"max_new_tokens": 20}', session = session}
say(model, TWENTY)
check("a session goes on", #say(model, TWENTY, " Then") > 0)
local path = folder .. "/lua.session"
session:save(path)
local third = say(model, TWENTY, " And")
TWENTY.session = model:session(path)
check("a session is saved and resumed", say(model, TWENTY, " And") == third)
TWENTY.session:close()
session:close()
check("tokens there and back", model:detokenize(model:tokenize "a little dog"):find "little dog")

-- Two jobs in coroutines that take turns.
local function speak()
  local all, mine = {}, model:submit("generate", {text = PROMPT}, SIXTY)
  while true do
    local e = mine:next(0)
    if e == nil then return table.concat(all) end
    if e and e.kind == vivarium.TEXT then all[#all + 1] = e.text end
    if not e then coroutine.yield() end
  end
end
local a, b, answers = coroutine.create(speak), coroutine.create(speak), {}
while #answers < 2 do
  for _, co in ipairs {a, b} do
    if coroutine.status(co) ~= "dead" then
      local _, answer = coroutine.resume(co)
      if answer then answers[#answers + 1] = answer end
    end
  end
end
check("coroutines", answers[1] == expected and answers[2] == expected)

local function resident()
  local f = io.open "/proc/self/statm"
  local pages = f:read "*a":match "%d+ (%d+)"
  f:close()
  return pages * 4096
end
local function null_jobs(n)
  local small = vivarium.tensor(vivarium.F32, {3}, ffi.new("float[3]", 1, 2, 3))
  for _ = 1, n do
    local j = null:submit("forward", {x = small})
    for _ in j:events() do end
    j:close()
  end
  collectgarbage()
end
ffi.cdef "int dup(int fd); int close(int fd);"
-- The lowest number that is free: every descriptor that stays open raises it.
local function next_descriptor()
  local fd = ffi.C.dup(0)
  ffi.C.close(fd)
  return fd
end
null_jobs(300)
local before, descriptor = resident(), next_descriptor()
null_jobs(1000)
check("no leak over 1,000 jobs", resident() - before < 2 * 2 ^ 20 and next_descriptor() <= descriptor)
