--- Models in this process, or in the daemon of this machine, from LuaJIT.
--
--   local vivarium = require "vivarium"
--   local runtime = vivarium.open()            -- or vivarium.connect(), everything else is the same
--   local model = runtime:load("path/to/model")
--   for piece in model:generate("Once upon a time", {params = '{"max_new_tokens": 64}'}) do io.write(piece) end
--
-- Parameters and inputs of kind JSON are JSON texts. A failure is raised as a table with code, name, where
-- and message, which tostring() makes one line. Event memory belongs to the library until the next event.
local ffi = require "ffi"

ffi.cdef [[
typedef struct viv_runtime viv_runtime;
typedef struct viv_model viv_model;
typedef struct viv_session viv_session;
typedef struct viv_job viv_job;
typedef struct { const char *ptr; uint64_t len; } viv_str;
typedef struct { char *ptr; uint64_t len; } viv_text;
typedef struct {
  uint32_t struct_size; int32_t code, line, reserved;
  char source[48], where[208], message[752];
} viv_error;
typedef struct viv_tensor {
  uint32_t struct_size, flags; void *owner; void (*release)(struct viv_tensor *);
  void *data; uint64_t bytes; int32_t dtype, ndim; int64_t shape[8];
} viv_tensor;
typedef struct {
  uint32_t struct_size; int32_t kind; viv_str name, bytes; const viv_tensor *tensor; void *stream;
} viv_value;
typedef struct {
  uint32_t struct_size; int32_t kind; uint64_t seq; uint32_t flags; int32_t status;
  viv_str name, bytes; const viv_tensor *tensor; double progress; const viv_error *error;
} viv_event;
typedef struct {
  uint32_t struct_size; int32_t threads; const char *plugin_path, *cache_dir; uint64_t memory_budget;
  int32_t log_level, log_json, log_fd, safe_mode;
} viv_options;
typedef struct {
  uint32_t struct_size; int32_t n_inputs; const char *task, *params; const viv_value *const *inputs;
  viv_session *session; int32_t priority, reserved; int64_t deadline_ms, max_queued_events;
} viv_request;
const char *viv_version(void);
const char *viv_status_name(int32_t status);
void viv_text_free(viv_text *text);
int32_t viv_open(const viv_options *options, viv_runtime **out, viv_error *error);
int32_t viv_connect(const char *socket, viv_runtime **out, viv_error *error);
void viv_close(viv_runtime *runtime);
int32_t viv_load(viv_runtime *, const char *path, const char *params, viv_model **out, viv_error *);
void viv_unload(viv_model *model);
int32_t viv_describe(viv_model *model, viv_text *json, viv_error *error);
int32_t viv_submit(viv_model *, const viv_request *, viv_job **out, viv_error *error);
int32_t viv_next_event(viv_job *job, int64_t timeout_ms, viv_event *event);
void viv_job_cancel(viv_job *job);
void viv_job_free(viv_job *job);
int32_t viv_session_open(viv_model *model, viv_session **out, viv_error *error);
void viv_session_close(viv_session *session);
int32_t viv_session_save(viv_session *session, const char *path, viv_error *error);
int32_t viv_session_resume(viv_model *, const char *path, viv_session **out, viv_error *error);
int32_t viv_tokenize(viv_model *, const char *text, uint64_t len, int32_t add_special, int32_t **ids,
                     uint64_t *n, viv_error *error);
int32_t viv_detokenize(viv_model *, const int32_t *ids, uint64_t n, int32_t skip_special, viv_text *text,
                       viv_error *error);
void viv_ids_free(int32_t *ids);
]]

local lib = ffi.load(os.getenv "VIV_LIBRARY" or "libvivarium.so.0")
local M = {TENSOR = 1, TEXT = 2, JSON = 3, IMAGE = 4, AUDIO = 5, PROGRESS = 7, END = 8}
local BYTES = {4, 8, 2, 2, 8, 4, 2, 1, 1, 1}
M.F32, M.F64, M.F16, M.BF16, M.I64, M.I32, M.I16, M.I8, M.U8, M.BOOL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local ctype = {
  "const float *", "const double *", "const uint16_t *", "const uint16_t *", "const int64_t *",
  "const int32_t *", "const int16_t *", "const int8_t *", "const uint8_t *", "const uint8_t *",
}

function M.version() return ffi.string(lib.viv_version()) end

local Failure = {}
Failure.__tostring = function(e) return e.where == "" and e.message or e.where .. ": " .. e.message end

local function fail(status, e)
  error(setmetatable({
    code = status, name = ffi.string(lib.viv_status_name(status)),
    where = ffi.string(e.where), message = ffi.string(e.message),
  }, Failure), 0)
end

local function new(kind)
  local s = ffi.new(kind)
  s.struct_size = ffi.sizeof(kind)
  return s
end

local function call(f, ...)
  local e = new "viv_error"
  local n = select("#", ...)
  local arguments = {...}
  arguments[n + 1] = e
  local status = f(unpack(arguments, 1, n + 1))
  if status < 0 then fail(status, e) end
end

local function take_text(text)
  local s = ffi.string(text[0].ptr, text[0].len)
  lib.viv_text_free(text)
  return s
end

local function str(v) return v.len == 0 and "" or ffi.string(v.ptr, tonumber(v.len)) end

-- The collector finalizes in any order, the library wants jobs and sessions freed before their model and
-- models before their runtime: whoever was made from a handle counts there until it is freed itself.
local function release(core)
  core.count = core.count - 1
  if core.count > 0 then return end
  core.free(core.at)
  if core.parent then release(core.parent) end
end

local function handle(class, at, free, parent)
  local core = {at = at, free = free, count = 1, parent = parent and parent.core}
  if core.parent then core.parent.count = core.parent.count + 1 end
  local h = setmetatable({at = at, core = core}, class)
  h.watch = ffi.gc(ffi.new "char[1]", function() release(core) end)
  return h
end

local function close(h)
  if not h.at then return end
  ffi.gc(h.watch, nil)
  h.at = nil
  release(h.core)
end

local function at(h) return h.at or error("it is closed", 3) end

local Runtime, Model, Session, Job = {}, {}, {}, {}
for _, class in ipairs {Runtime, Model, Session, Job} do
  class.__index = class
  class.close = close
end

--- options: plugin_path, threads, memory_budget, cache_dir
function M.open(options)
  options = options or {}
  local o, out = new "viv_options", ffi.new "viv_runtime *[1]"
  o.threads, o.plugin_path, o.cache_dir = options.threads or 0, options.plugin_path, options.cache_dir
  o.memory_budget = options.memory_budget or 0
  call(lib.viv_open, o, out)
  return handle(Runtime, out[0], lib.viv_close)
end

function M.connect(socket)
  local out = ffi.new "viv_runtime *[1]"
  call(lib.viv_connect, socket, out)
  return handle(Runtime, out[0], lib.viv_close)
end

function Runtime:load(path, params)
  local out = ffi.new "viv_model *[1]"
  call(lib.viv_load, at(self), path, params, out)
  return handle(Model, out[0], lib.viv_unload, self)
end

function Model:describe()
  local text = ffi.new "viv_text[1]"
  call(lib.viv_describe, at(self), text)
  return take_text(text)
end

--- A session, fresh or resumed from a file.
function Model:session(path)
  local out = ffi.new "viv_session *[1]"
  if path then
    call(lib.viv_session_resume, at(self), path, out)
  else
    call(lib.viv_session_open, at(self), out)
  end
  return handle(Session, out[0], lib.viv_session_close, self)
end

function Session:save(path) call(lib.viv_session_save, at(self), path) end

--- A tensor for submit: data is any cdata of so many elements, which is not copied here.
function M.tensor(dtype, shape, data)
  local t, elements = new "viv_tensor", 1
  t.dtype, t.ndim, t.data = dtype, #shape, ffi.cast("void *", data)
  for i, n in ipairs(shape) do
    t.shape[i - 1] = n
    elements = elements * n
  end
  t.bytes = elements * BYTES[dtype]
  return {tensor = t, data = data}
end

--- inputs: by name a text, or {kind = M.IMAGE, bytes = ...}, or M.tensor(...). options: params (JSON),
--- session, deadline (seconds), priority, max_queued.
function Model:submit(task, inputs, options)
  options = options or {}
  local names, q, out = {}, new "viv_request", ffi.new "viv_job *[1]"
  for name in pairs(inputs) do names[#names + 1] = name end
  local values, list = {}, ffi.new("const viv_value *[?]", #names + 1)
  for i, name in ipairs(names) do
    local v, input = new "viv_value", inputs[name]
    local bytes = type(input) == "string" and input or input.bytes
    v.name.ptr, v.name.len = name, #name
    v.kind = type(input) == "string" and M.TEXT or input.tensor and M.TENSOR or input.kind
    if bytes then v.bytes.ptr, v.bytes.len = bytes, #bytes end
    v.tensor = type(input) == "table" and input.tensor or nil
    values[i], list[i - 1] = v, v
  end
  q.task, q.params, q.inputs, q.n_inputs = task, options.params, list, #names
  q.session = options.session and at(options.session) or nil
  q.deadline_ms = options.deadline and math.max(1, options.deadline * 1000) or 0
  q.priority, q.max_queued_events = options.priority or 0, options.max_queued or 0
  call(lib.viv_submit, at(self), q, out)
  local job = handle(Job, out[0], lib.viv_job_free, self)
  job.event, job.session = new "viv_event", options.session
  return job
end

function Job:cancel() lib.viv_job_cancel(at(self)) end

--- The next event: {kind, name, text | bytes | data, shape, dtype}; nil at the end, when counters is set;
--- false when none came in so many milliseconds (-1, the default: wait for ever). In a coroutine, yield on
--- false. data is the library's memory, until the next event.
function Job:next(timeout_ms)
  local e = self.event
  local status = lib.viv_next_event(at(self), timeout_ms or -1, e)
  if status == 3 then return false end
  if status ~= 0 then return nil end
  if e.kind == M.END then
    self.counters = str(e.bytes)
    if e.status < 0 then fail(e.status, e.error[0]) end
    return nil
  end
  local r = {kind = e.kind, name = str(e.name), seq = tonumber(e.seq), progress = e.progress}
  if e.kind == M.TENSOR then
    local t = e.tensor[0]
    r.dtype, r.data, r.shape, r.size = t.dtype, ffi.cast(ctype[t.dtype], t.data), {}, tonumber(t.bytes)
    for i = 1, t.ndim do r.shape[i] = tonumber(t.shape[i - 1]) end
  else
    r.text = str(e.bytes)
  end
  return r
end

function Job:events()
  return function() return self:next() end
end

--- The pieces of what is said. options as in submit.
function Model:generate(text, options)
  local job = self:submit("generate", {text = text}, options)
  return function()
    for event in job:events() do
      if event.kind == M.TEXT then return event.text end
    end
    job:close()
  end
end

function Model:tokenize(text, plain)
  local ids, n, list = ffi.new "int32_t *[1]", ffi.new "uint64_t[1]", {}
  call(lib.viv_tokenize, at(self), text, #text, plain and 0 or 1, ids, n)
  for i = 1, tonumber(n[0]) do list[i] = ids[0][i - 1] end
  lib.viv_ids_free(ids[0])
  return list
end

function Model:detokenize(ids, keep_special)
  local text = ffi.new "viv_text[1]"
  call(lib.viv_detokenize, at(self), ffi.new("int32_t[?]", #ids + 1, ids), #ids, keep_special and 0 or 1, text)
  return take_text(text)
end

return M
