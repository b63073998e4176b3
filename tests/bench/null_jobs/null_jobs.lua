-- Microseconds of a null job through LuaJIT: null_jobs.lua MODEL N.
local ffi = require "ffi"
local vivarium = require "vivarium"
ffi.cdef [[
typedef struct { long s, ns; } bench_time;
int clock_gettime(int clock, bench_time *at);
]]
local at = ffi.new "bench_time"
local function now()
  ffi.C.clock_gettime(1, at)
  return tonumber(at.s) * 1e6 + tonumber(at.ns) / 1e3
end
local model, n, times = vivarium.open():load(arg[1]), tonumber(arg[2]), {}
local x = vivarium.tensor(vivarium.F32, {1}, ffi.new("float[1]", 1))
for i = 1, n do
  local begun = now()
  local job = model:submit("forward", {x = x})
  for _ in job:events() do end
  job:close()
  times[i] = now() - begun
end
table.sort(times)
print(("LuaJIT  null job: least %7.2f  p50 %7.2f us"):format(times[1], times[math.floor(n / 2)]))
