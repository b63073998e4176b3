/* The tests, in the order of their levels; viv__tests at the end lists them. */
#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "validate/validate.h"

/* ---- small helpers ---- */

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

static bool lists(const viv_json *manifest, const char *key, const char *name) {
  const viv_json *list = viv__json_get(manifest, key);
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (viv__str_eq(viv__json_string(viv__json_item(list, i)), name)) return true;
  return false;
}

static bool is_kind(const struct context *c, const char *kind) {
  return !strcmp(viv__json_text(c->manifest, "kind", "model"), kind);
}

/* ---- level 1: the files, without running anything ---- */

static bool texts(struct context *c, const char *key, bool needed, bool filled) {
  const viv_json *list = viv__json_get(c->manifest, key);
  if (!list && !needed) return true;
  if (viv__json_type(list) != VIV_JSON_ARRAY) {
    viv__v_fail(c, "\"%s\" must be a list of texts", key);
    return false;
  }
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (!viv__json_string(viv__json_item(list, i)).len) {
      viv__v_fail(c, "\"%s\": item %d is no text", key, (int)i);
      return false;
    }
  if (filled && !viv__json_count(list)) viv__v_fail(c, "\"%s\" is empty", key);
  return !viv__v_failed(c);
}

static void test_manifest(struct context *c) {
  const viv_json *m = c->manifest;
  if (!m) {
    viv__v_fail(c, "%s: %s", c->manifest_path, c->manifest_error.message);
    return;
  }
  const char *const needed[] = {"id", "version", "kind", "license"};
  for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
    if (!*viv__json_text(m, needed[i], "")) {
      viv__v_fail(c, "\"%s\" is missing or no text", needed[i]);
      return;
    }
  const viv_json *abi = viv__json_get(m, "abi");
  double major = viv__json_num(abi, "major", -1), minor = viv__json_num(abi, "minor", -1);
  if (major != VIV_ABI_MAJOR || minor < 0) {
    viv__v_fail(c, "\"abi\" is %g.%g; this validator knows major %d", major, minor, VIV_ABI_MAJOR);
    return;
  }
  if (!is_kind(c, "model") && !is_kind(c, "strategy") && !is_kind(c, "workflow"))
    viv__v_fail(c, "\"kind\" is \"%s\"; model, strategy and workflow exist",
                viv__json_text(m, "kind", ""));
  if (!texts(c, "interfaces", true, true) || !texts(c, "cpu", false, false) ||
      !texts(c, "model_types", false, false) || !texts(c, "architectures", false, false))
    return;
  if (is_kind(c, "strategy")) texts(c, "strategies", true, true);
  if (!is_kind(c, "model")) return;
  texts(c, "tasks", true, true);
  if (!viv__json_count(viv__json_get(m, "model_types")) &&
      !viv__json_count(viv__json_get(m, "architectures")))
    viv__v_fail(c, "neither \"model_types\" nor \"architectures\" names a model it serves");
  if (viv__json_num(m, "cancel_latency_ms", -1) <= 0)
    viv__v_fail(c, "\"cancel_latency_ms\" is missing: how long may a cancel take?");
}

struct symbols {
  struct context *c;
  int defined;
  bool entry;
  bool imports; /* which of the two tests is asking */
};

static void see_export(void *self, const char *name, bool defined) {
  struct symbols *s = self;
  if (!defined) return;
  /* Sanitizers add symbols of their own. */
  if (!strncmp(name, "__asan", 6) || !strncmp(name, "__odr_asan", 10)) return;
  s->defined++;
  if (!strcmp(name, "viv_plugin_entry"))
    s->entry = true;
  else
    viv__v_fail(s->c, "exports %s; only viv_plugin_entry may be visible (use a version script)",
                name);
}

static void see_nothing(void *self, const char *name) {
  (void)self;
  (void)name;
}

static void test_exports(struct context *c) {
  struct symbols s = {.c = c};
  viv_error error = VIV_ERROR_INIT;
  if (viv__elf_read(c->plugin, &s, see_export, see_nothing, &error) < 0)
    viv__v_fail(c, "%s", error.message);
  else if (!s.entry)
    viv__v_fail(c, "does not export viv_plugin_entry");
}

static void see_no_symbol(void *self, const char *name, bool defined) {
  (void)self;
  (void)name;
  (void)defined;
}

static void see_library(void *self, const char *name) {
  static const char *const allowed[] = {
      "libc.so*",    "libm.so*",     "ld-linux*",   "libgcc_s.so*", "libc.musl-*",
      "libasan.so*", "libubsan.so*", "libtsan.so*", "liblsan.so*",  "libclang_rt.*"};
  for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
    if (viv__glob(allowed[i], viv__str(name))) return;
  viv__v_fail(((struct symbols *)self)->c, "links %s; a plugin needs libc and libm only", name);
}

static void test_links(struct context *c) {
  struct symbols s = {.c = c};
  viv_error error = VIV_ERROR_INIT;
  if (viv__elf_read(c->plugin, &s, see_no_symbol, see_library, &error) < 0)
    viv__v_fail(c, "%s", error.message);
}

static void see_import(void *self, const char *name, bool defined) {
  static const char *const forbidden[] = {
      "exit",          "_exit",           "_Exit",          "quick_exit",     "abort",
      "__assert_fail", "raise",           "kill",           "signal",         "sigaction",
      "sigprocmask",   "pthread_sigmask", "fork",           "vfork",          "exec*",
      "system",        "popen",           "posix_*",        "setenv",         "unsetenv",
      "putenv",        "clearenv",        "setlocale",      "uselocale",      "fesetround",
      "fesetenv",      "feupdateenv",     "feenableexcept", "pthread_create", "thrd_create",
      "dlopen",        "dlmopen",         "dlsym",          "dlclose",        "open",
      "open64",        "openat",          "openat64",       "creat",          "fopen",
      "fopen64",       "socket",          "connect",        "chdir",          "umask",
      "printf",        "__printf_chk",    "vprintf",        "puts",           "putchar",
      "perror",        "write",           "fprintf",        "__fprintf_chk",  "fputs",
      "fwrite",        "stdout",          "stderr",         "viv_*"};
  if (defined) return;
  for (size_t i = 0; i < sizeof forbidden / sizeof *forbidden; i++)
    if (viv__glob(forbidden[i], viv__str(name))) {
      viv__v_fail(((struct symbols *)self)->c,
                  "calls %s; plugins don't exit, print, open files, start threads or touch the "
                  "process's state",
                  name);
      return;
    }
}

static void test_imports(struct context *c) {
  struct symbols s = {.c = c};
  viv_error error = VIV_ERROR_INIT;
  if (viv__elf_read(c->plugin, &s, see_import, see_nothing, &error) < 0)
    viv__v_fail(c, "%s", error.message);
}

/* ---- level 2: loading ---- */

static viv_plugin_entry_fn entry_of(struct context *c) {
  viv_plugin_entry_fn entry = NULL;
  snprintf(c->out->phase, sizeof c->out->phase, "dlopen");
  void *handle = dlopen(c->plugin, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    viv__v_fail(c, "can't be loaded: %s", dlerror());
    return NULL;
  }
  void *symbol = dlsym(handle, "viv_plugin_entry");
  if (!symbol)
    viv__v_fail(c, "exports no viv_plugin_entry");
  else
    memcpy(&entry, &symbol, sizeof entry);
  return entry;
}

/* Loads for a kind of host; what init and the interface ask for included. */
static const viv_host *load(struct context *c, int flags) {
  const viv_host *host = viv__v_host(c, flags);
  viv_plugin_entry_fn entry = entry_of(c);
  if (!entry) return NULL;
  viv_error error = VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_SCAN, "viv_plugin_entry");
  c->table = entry(host, &error);
  viv__v_after(c);
  if (!c->table) {
    viv__v_fail(c, "refuses this host: %s", error.message[0] ? error.message : "(no reason given)");
    return NULL;
  }
  if (c->table->struct_size < VIV_V1_viv_plugin || !c->table->get_interface) {
    viv__v_fail(c, "its table has %u bytes (version 1 has %u), or no get_interface",
                c->table->struct_size, VIV_V1_viv_plugin);
    return NULL;
  }
  if (c->table->init) {
    viv__v_before(c, VIV_THREAD_SCAN, "init");
    int32_t status = c->table->init(host, &error);
    viv__v_after(c);
    if (status < 0) {
      viv__v_fail(c, "init failed: %s", error.message);
      return NULL;
    }
  }
  c->api = c->table->get_interface(viv__str(VIV_MODEL_ID));
  if (c->api && c->api->struct_size < VIV_V1_viv_model_api) {
    viv__v_fail(c, "its " VIV_MODEL_ID " has %u bytes; version 1 has %u", c->api->struct_size,
                VIV_V1_viv_model_api);
    return NULL;
  }
  return viv__v_failed(c) ? NULL : host;
}

static void test_loads(struct context *c) {
  const viv_host *host = viv__v_host(c, 0);
  uint64_t start = viv__now_ns();
  viv_plugin_entry_fn entry = entry_of(c);
  if (!entry) return;
  viv_error error = VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_SCAN, "viv_plugin_entry");
  const viv_plugin *table = entry(host, &error);
  viv__v_after(c);
  double ms = (double)(viv__now_ns() - start) / 1e6;
  if (!table)
    viv__v_fail(c, "refuses this host: %s", error.message[0] ? error.message : "(no reason given)");
  else if (ms > 100)
    snprintf(c->out->reason, sizeof c->out->reason, "warning: took %.0f ms; 100 are expected", ms);
}

/* ---- level 3: tables ---- */

static void test_table(struct context *c) {
  if (!load(c, 0)) return;
  const viv_plugin *t = c->table;
  if (t->abi_major != VIV_ABI_MAJOR || t->abi_minor > VIV_ABI_MINOR)
    viv__v_fail(c, "answers with ABI %u.%u; the host offered %d.0 to %d.%d", t->abi_major,
                t->abi_minor, VIV_ABI_MAJOR, VIV_ABI_MAJOR, VIV_ABI_MINOR);
  if (t->struct_size > 1 << 20) viv__v_fail(c, "a table of %u bytes?", t->struct_size);
  const char *id = viv__json_text(c->manifest, "id", "");
  if (!viv__str_eq(t->id, id))
    viv__v_fail(c, "its id is \"%.*s\"; the manifest says \"%s\"", (int)t->id.len,
                t->id.len ? t->id.ptr : "", id);
  const char *version = viv__json_text(c->manifest, "version", "");
  if (!viv__str_eq(t->version, version))
    viv__v_fail(c, "its version is \"%.*s\"; the manifest says \"%s\"", (int)t->version.len,
                t->version.len ? t->version.ptr : "", version);
}

static void test_interfaces(struct context *c) {
  if (!load(c, 0)) return;
  const viv_json *list = viv__json_get(c->manifest, "interfaces");
  for (int64_t i = 0; i < viv__json_count(list); i++) {
    viv_str id = viv__json_string(viv__json_item(list, i));
    viv__v_before(c, VIV_THREAD_SCAN, "get_interface(\"%.*s\")", (int)id.len, id.ptr);
    const uint32_t *table = c->table->get_interface(id);
    viv__v_after(c);
    if (!table)
      viv__v_fail(c, "the manifest lists %.*s, the plugin answers NULL for it", (int)id.len,
                  id.ptr);
    else if (table[0] < 16 || table[0] > 1 << 20 || table[1] != VIV_ABI_MAJOR)
      viv__v_fail(c, "the table of %.*s begins with %u bytes and ABI major %u", (int)id.len, id.ptr,
                  table[0], table[1]);
  }
  const viv_model_api *m = c->api;
  if (m && (!m->plan || !m->open || !m->close || !m->describe))
    viv__v_fail(c, VIV_MODEL_ID " leaves out plan, open, close or describe");
  if (m && (!m->job_begin != !m->job_step || !m->job_begin != !m->job_end))
    viv__v_fail(c, VIV_MODEL_ID " has only some of job_begin, job_step and job_end");
  const viv_token_api *t = c->table->get_interface(viv__str(VIV_TOKEN_MODEL_ID));
  if (m && !m->job_begin && !t) viv__v_fail(c, "has neither job functions nor " VIV_TOKEN_MODEL_ID);
  if (t && (t->struct_size < VIV_V1_viv_token_api || !t->info || !t->seq_open || !t->seq_close ||
            !t->seq_len || !t->eval))
    viv__v_fail(c, VIV_TOKEN_MODEL_ID " is too short, or leaves out info, eval or a seq function");
  const viv_strategy_api *s = c->table->get_interface(viv__str(VIV_STRATEGY_ID));
  if (s && (s->struct_size < VIV_V1_viv_strategy_api || !s->requires_caps || !s->create ||
            !s->resume || !s->counters || !s->destroy))
    viv__v_fail(c, VIV_STRATEGY_ID " is too short or leaves out functions");
}

static void test_unknown_interface(struct context *c) {
  if (!load(c, 0)) return;
  char longer[128], shorter[128];
  const viv_json *list = viv__json_get(c->manifest, "interfaces");
  viv_str known = viv__json_string(viv__json_item(list, 0));
  snprintf(longer, sizeof longer, "%.*s0", (int)known.len, known.ptr);
  snprintf(shorter, sizeof shorter, "%.*s", (int)known.len - 1, known.ptr);
  const viv_str ids[] = {viv__str("viv.no-such-thing/1"),
                         {NULL, 0},
                         viv__str(longer),
                         viv__str(shorter),
                         {"viv.model/1\0x", 13},
                         viv__str("VIV.MODEL/1")};
  for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
    viv__v_before(c, VIV_THREAD_SCAN, "get_interface(\"%.*s\")", (int)ids[i].len,
                  ids[i].len ? ids[i].ptr : "");
    const void *table = c->table->get_interface(ids[i]);
    viv__v_after(c);
    if (table)
      viv__v_fail(c,
                  "answers get_interface(\"%.*s\") with a table; ids match exactly or not at all",
                  (int)ids[i].len, ids[i].len ? ids[i].ptr : "");
  }
}

static void test_init_twice(struct context *c) {
  const viv_host *host = load(c, 0);
  if (!host) return;
  const viv_plugin *t = c->table;
  viv_error error = VIV_ERROR_INIT;
  for (int round = 0; round < 3; round++) {
    for (int i = 0; t->init && i < 2; i++) {
      viv__v_before(c, VIV_THREAD_SCAN, "init, again");
      int32_t status = t->init(host, &error);
      viv__v_after(c);
      if (status < 0) viv__v_fail(c, "a repeated init failed: %s", error.message);
    }
    for (int i = 0; t->deinit && i < 2; i++) {
      viv__v_before(c, VIV_THREAD_SCAN, "deinit");
      t->deinit(host);
      viv__v_after(c);
    }
  }
  viv_plugin_entry_fn entry = entry_of(c);
  viv__v_before(c, VIV_THREAD_SCAN, "viv_plugin_entry, again");
  const viv_plugin *again = entry ? entry(host, &error) : NULL;
  viv__v_after(c);
  if (!again) viv__v_fail(c, "the second entry of one process answered NULL: %s", error.message);
}

static void test_host_newer(struct context *c) {
  if (!load(c, HOST_NEWER)) return;
  double minor = viv__json_num(viv__json_get(c->manifest, "abi"), "minor", 0);
  if (c->table->abi_major != VIV_ABI_MAJOR || c->table->abi_minor > minor)
    viv__v_fail(c, "answers a host of %d.99 with ABI %u.%u; its manifest says %d.%g", VIV_ABI_MAJOR,
                c->table->abi_major, c->table->abi_minor, VIV_ABI_MAJOR, minor);
}

static void test_host_other_major(struct context *c) {
  const viv_host *host = viv__v_host(c, HOST_OTHER_MAJOR);
  viv_plugin_entry_fn entry = entry_of(c);
  if (!entry) return;
  viv_error error = VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_SCAN, "viv_plugin_entry for a host of ABI %d.0", VIV_ABI_MAJOR + 1);
  const viv_plugin *table = entry(host, &error);
  viv__v_after(c);
  if (table)
    viv__v_fail(c, "accepts a host that only speaks major %d, and answers with major %u",
                VIV_ABI_MAJOR + 1, table->abi_major);
  else if (!error.message[0] || error.code >= 0)
    viv__v_fail(c, "refuses a host of another major without a message or code");
}

/* ---- opening ---- */

struct opened {
  const viv_host *host;
  viv_arena *arena;
  viv_plugin_model *model;
  viv_model_source source;
};

static const uint64_t ARENA_LIMIT = (uint64_t)1 << 31;

static bool open_checkpoint(struct context *c) {
  viv_error error = VIV_ERROR_INIT;
  if (c->checkpoint) return true;
  if (viv__checkpoint_open(c->model, &c->checkpoint, &error) == VIV_OK) return true;
  viv__v_fail(c, "the model %s can't be read: %s", c->model, error.message);
  return false;
}

/* A failure must be a known one, and explain itself. */
static void check_failure(struct context *c, const char *what, int32_t status,
                          const viv_error *error) {
  if (status < VIV_DEADLINE || status > VIV_WAIT) {
    viv__v_fail(c, "%s answered %d, which is no status", what, status);
    return;
  }
  if (status >= 0) return;
  if (!memchr(error->message, 0, sizeof error->message) ||
      !memchr(error->where, 0, sizeof error->where) ||
      !memchr(error->source, 0, sizeof error->source))
    viv__v_fail(c, "%s left an error text without an end", what);
  else if (!error->message[0])
    viv__v_fail(c, "%s failed (%d) without a message", what, status);
  else if (!viv__utf8_valid(error->message, strlen(error->message)))
    viv__v_fail(c, "%s left a message that is not UTF-8", what);
  else if (error->code != status)
    viv__v_fail(c, "%s answered %d, but its error says code %d", what, status, error->code);
}

/* plan, then open, with a configuration. Answers open's status; a failure is checked, not counted.
 * */
static int32_t open_with(struct context *c, const viv_host *host, const viv_json *config,
                         const char *what, struct opened *o, viv_error *error) {
  *o = (struct opened){.host = host};
  o->source = (viv_model_source){.struct_size = sizeof o->source,
                                 .name = viv__str("validator"),
                                 .config = config,
                                 .checkpoint = c->checkpoint};
  viv_memory_plan plan = {.struct_size = sizeof plan};
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_LOADER, "plan (%s)", what);
  int32_t planned = c->api->plan(host, &o->source, &plan, error);
  viv__v_after(c);
  check_failure(c, "plan", planned, error);
  *error = (viv_error)VIV_ERROR_INIT;
  o->arena = viv__arena_new(ARENA_LIMIT);
  o->source.arena = o->arena;
  viv_plugin_model *const untouched = (viv_plugin_model *)&o->source;
  o->model = untouched;
  viv__v_before(c, VIV_THREAD_LOADER, "open (%s)", what);
  int32_t status = c->api->open(host, &o->source, &o->model, error);
  viv__v_after(c);
  check_failure(c, "open", status, error);
  if (status < 0) {
    if (o->model != untouched) viv__v_fail(c, "a failing open wrote to its out-parameter");
    o->model = NULL;
    viv__v_arena_free(c, o->arena);
    o->arena = NULL;
  } else if (o->model == untouched || !o->model) {
    viv__v_fail(c, "open answered %d but gave no model", status);
    o->model = NULL;
  } else if (planned < 0) {
    viv__v_fail(c, "open takes what plan refuses (%s)", what);
  }
  return status;
}

static void close_it(struct context *c, struct opened *o) {
  if (o->model) {
    viv__v_before(c, VIV_THREAD_LOADER, "close");
    c->api->close(o->model);
    viv__v_after(c);
  }
  o->model = NULL;
  viv__v_arena_free(c, o->arena);
  o->arena = NULL;
}

/* Loads and opens the model the run has. Without --model a plugin may well refuse the empty model
 * directory that was made up: the test is skipped then. */
static bool start(struct context *c, struct opened *o, int flags) {
  viv_error error;
  const viv_host *host = load(c, flags);
  if (!host) return false;
  if (!c->api) {
    viv__v_skip(c, "offers no " VIV_MODEL_ID);
    return false;
  }
  if (!open_checkpoint(c)) return false;
  int32_t status =
      open_with(c, host, viv__checkpoint_config(c->checkpoint), "the model's config", o, &error);
  if (viv__v_failed(c)) return false;
  if (status >= 0) return true;
  if (c->model_given)
    viv__v_fail(c, "can't open %s: %s", c->model, error.message);
  else
    viv__v_skip(c, "no model to open: give one with --model (it said: %s)", error.message);
  return false;
}

/* ---- level 4 ---- */

static void test_no_extensions(struct context *c) {
  const viv_host *host = load(c, HOST_NO_EXTENSIONS);
  if (!host || !c->api || !open_checkpoint(c)) return;
  struct opened o;
  viv_error error;
  /* Refusing is fine; crashing is not. */
  open_with(c, host, viv__checkpoint_config(c->checkpoint), "no extensions", &o, &error);
  close_it(c, &o);
}

/* ---- level 5: open fails well ---- */

static void test_open_bad_config(struct context *c) {
  const viv_host *host = load(c, 0);
  if (!host) return;
  if (!c->api) {
    viv__v_skip(c, "offers no " VIV_MODEL_ID);
    return;
  }
  if (!open_checkpoint(c)) return;
  static const char *const bad[] = {"{}",
                                    "[]",
                                    "null",
                                    "\"config\"",
                                    "{\"model_type\":17}",
                                    "{\"model_type\":null,\"hidden_size\":-1}"};
  struct opened o;
  viv_error error;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    viv_json *config = NULL;
    if (viv__json_parse(bad[i], strlen(bad[i]), "config.json", &config, NULL) < 0) continue;
    open_with(c, host, config, bad[i], &o, &error);
    close_it(c, &o);
    viv__json_free(config);
  }
  open_with(c, host, NULL, "no config.json", &o, &error);
  close_it(c, &o);
}

static bool readable_describe(struct context *c, const struct opened *o, viv_json **out) {
  viv__v_before(c, 0, "describe");
  viv_str text = c->api->describe(o->model);
  viv__v_after(c);
  viv_error error = VIV_ERROR_INIT;
  if (text.len && viv__json_parse(text.ptr, text.len, "describe", out, &error) < 0)
    viv__v_fail(c, "describe: %s", error.message);
  else if (!text.len || viv__json_type(*out) != VIV_JSON_OBJECT)
    viv__v_fail(c, "describe gave no JSON object");
  return !viv__v_failed(c);
}

static void test_opens(struct context *c) {
  struct opened o;
  if (!start(c, &o, 0)) return;
  viv_json *doc = NULL;
  readable_describe(c, &o, &doc);
  viv__json_free(doc);
  close_it(c, &o);
}

/* ---- level 6: jobs ---- */

struct job_setup {
  struct opened o;
  viv_job job;
  viv_json *doc;
  const char *task;
  viv_tensor tensor[8];
  viv_value value[8];
  const viv_value *inputs[8];
  char names[8][64];
  float data[12];
  viv_plugin_request request;
  viv_plugin_job *running;
};

/* Opens the model and makes a request of the first task, with small tensors for the inputs that
 * describe names (x when it names none). */
static bool job_start(struct context *c, struct job_setup *j, int flags) {
  memset(j, 0, sizeof *j);
  if (!start(c, &j->o, flags)) return false;
  if (!c->api->job_begin) {
    viv__v_skip(c, "a token model: the host runs its jobs");
    return false;
  }
  if (!readable_describe(c, &j->o, &j->doc)) return false;
  const viv_json *tasks = viv__json_get(c->manifest, "tasks");
  viv_str task = viv__json_string(viv__json_item(tasks, 0));
  if (lists(c->manifest, "tasks", "forward")) task = viv__str("forward");
  j->task = task.ptr;
  const viv_json *described = viv__json_member(viv__json_get(j->doc, "tasks"), task);
  const viv_json *inputs = viv__json_get(described, "inputs");
  int64_t n = viv__json_count(inputs);
  if (n > 8) n = 8;
  if (n < 1) n = 1;
  for (int i = 0; i < 12; i++) j->data[i] = (float)i / 8.0f - 0.5f;
  for (int64_t i = 0; i < n; i++) {
    viv_str key = viv__json_key(viv__json_item(inputs, i));
    snprintf(j->names[i], sizeof j->names[i], "%.*s", (int)(key.len ? key.len : 1),
             key.len ? key.ptr : "x");
    j->tensor[i] = (viv_tensor){.struct_size = sizeof j->tensor[i],
                                .flags = VIV_TENSOR_READ_ONLY,
                                .data = j->data,
                                .bytes = 4 * sizeof(float),
                                .dtype = VIV_F32,
                                .ndim = 2,
                                .shape = {1, 4}};
    j->value[i] = (viv_value){.struct_size = sizeof j->value[i],
                              .kind = VIV_KIND_TENSOR,
                              .name = viv__str(j->names[i]),
                              .tensor = &j->tensor[i]};
    j->inputs[i] = &j->value[i];
  }
  j->request = (viv_plugin_request){
      .struct_size = sizeof j->request, .n_inputs = (int32_t)n, .task = task, .inputs = j->inputs};
  j->job.c = c;
  j->job.arena = viv__arena_new(ARENA_LIMIT);
  return true;
}

static int32_t job_begin(struct context *c, struct job_setup *j, viv_error *error) {
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "job_begin (task %.*s)", (int)j->request.task.len,
                j->request.task.ptr);
  int32_t status = c->api->job_begin(j->o.model, &j->request, &j->job, &j->running, error);
  viv__v_after(c);
  check_failure(c, "job_begin", status, error);
  return status;
}

static int32_t job_step(struct context *c, struct job_setup *j, viv_error *error) {
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "job_step");
  int32_t status = c->api->job_step(j->running, error);
  viv__v_after(c);
  if (status == VIV_CANCELLED || status == VIV_DEADLINE) {
    if (!j->job.stop) viv__v_fail(c, "job_step answered %d, but nobody cancelled", status);
  } else {
    check_failure(c, "job_step", status, error);
  }
  if (status == VIV_OK) viv__v_fail(c, "job_step answered OK; MORE, WAIT and DONE exist");
  return status;
}

static void job_stop(struct context *c, struct job_setup *j) {
  if (j->running) {
    viv__v_before(c, VIV_THREAD_JOB, "job_end");
    c->api->job_end(j->running);
    viv__v_after(c);
  }
  j->running = NULL;
  viv__v_arena_free(c, j->job.arena);
  j->job.arena = NULL;
  viv__json_free(j->doc);
  j->doc = NULL;
  close_it(c, &j->o);
}

enum { MAX_STEPS = 100000, MAX_EVENTS = 10000 };

/* Runs to the end, or until the job is plainly endless. */
static int32_t job_run(struct context *c, struct job_setup *j, viv_error *error) {
  int32_t status = VIV_MORE;
  uint64_t until = viv__now_ns() + 6000000000u;
  for (int i = 0; status > 0 && status != VIV_DONE && !viv__v_failed(c); i++) {
    if (i == MAX_STEPS || j->job.n_events > MAX_EVENTS || viv__now_ns() > until) {
      viv__v_fail(c, "the job does not end: %d steps and %lld events so far", i,
                  (long long)j->job.n_events);
      break;
    }
    int64_t waits = j->job.n_waits;
    status = job_step(c, j, error);
    if (j->job.n_waits > waits && status != VIV_WAIT)
      viv__v_fail(c, "emit answered WAIT, but the step answered %d instead of WAIT", status);
    else if (status == VIV_WAIT && j->job.n_waits == waits)
      viv__v_fail(c, "job_step answered WAIT, but nothing made it wait");
  }
  return status;
}

/* Begins, or skips the test when the request that could be made up is not to the plugin's liking.
 * */
static bool begun(struct context *c, struct job_setup *j, viv_error *error) {
  if (job_begin(c, j, error) >= 0) return !viv__v_failed(c);
  if (!viv__v_failed(c))
    viv__v_skip(c, "the inputs that the validator can make up are refused: %s", error->message);
  return false;
}

static void test_job_runs(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    int32_t status = job_run(c, &j, &error);
    if (status < 0)
      viv__v_skip(c, "the job of made-up inputs ended with %d: %s", status, error.message);
    else if (!j.job.n_events)
      viv__v_fail(c, "the job was done without one event");
    if (j.job.nan_seen) viv__v_fail(c, "a tensor holds NaN or infinity, from finite inputs");
  }
  job_stop(c, &j);
}

static void test_job_wait(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  j.job.wait_first = 3;
  if (begun(c, &j, &error)) {
    job_run(c, &j, &error);
    if (j.job.n_waits && j.job.repeated_wrong)
      viv__v_fail(c, "after WAIT another event came than the one that was not taken");
    else if (j.job.refused_hash && !viv__v_failed(c))
      viv__v_fail(c, "an event that was answered with WAIT never came again");
  }
  job_stop(c, &j);
}

static void test_job_bad_input(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  const viv_plugin_request good = j.request;
  for (int kind = 0; kind < 6; kind++) {
    j.request = good;
    j.value[0].kind = VIV_KIND_TENSOR;
    j.value[0].bytes = (viv_str){NULL, 0};
    j.value[0].tensor = &j.tensor[0];
    j.tensor[0].ndim = 2;
    j.tensor[0].dtype = VIV_F32;
    j.tensor[0].shape[0] = 1;
    j.tensor[0].bytes = 16;
    if (kind == 0) j.request.n_inputs = 0;
    if (kind == 1) j.request.task = viv__str("no-such-task");
    if (kind == 2) {
      j.value[0].kind = VIV_KIND_TEXT;
      j.value[0].bytes = viv__str("text where a tensor belongs");
      j.value[0].tensor = NULL;
    }
    if (kind == 3) { /* an empty tensor */
      j.tensor[0].shape[0] = 0;
      j.tensor[0].bytes = 0;
    }
    if (kind == 4) { /* a scalar of another type */
      j.tensor[0].ndim = 0;
      j.tensor[0].dtype = VIV_I64;
      j.tensor[0].bytes = 8;
    }
    if (kind == 5) {
      j.tensor[0].ndim = VIV_MAX_DIMS;
      for (int i = 0; i < VIV_MAX_DIMS; i++) j.tensor[0].shape[i] = 1;
      j.tensor[0].bytes = 4;
    }
    j.running = NULL;
    int32_t status = job_begin(c, &j, &error);
    if (status < 0 && j.running) viv__v_fail(c, "a failing job_begin wrote to its out-parameter");
    if (status >= 0 && kind == 1) viv__v_fail(c, "takes a task that it does not know");
    if (status >= 0 && j.running) {
      job_run(c, &j, &error);
      viv__v_before(c, VIV_THREAD_JOB, "job_end");
      c->api->job_end(j.running);
      viv__v_after(c);
    }
    j.running = NULL;
    if (viv__v_failed(c)) break;
  }
  job_stop(c, &j);
}

/* ---- level 7 ---- */

struct canceller {
  viv_job *job;
  uint64_t at;
};

static void *cancel_later(void *arg) {
  struct canceller *k = arg;
  nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  k->at = viv__now_ns();
  k->job->stop = VIV_CANCELLED;
  return NULL;
}

static void test_cancel(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    struct canceller k = {.job = &j.job};
    pthread_t thread;
    viv__v_watch_state(false);
    int32_t status = VIV_MORE;
    if (!pthread_create(&thread, NULL, cancel_later, &k)) {
      uint64_t returned = 0;
      while (status > 0 && status != VIV_DONE && !viv__v_failed(c)) {
        status = job_step(c, &j, &error);
        returned = viv__now_ns();
        if (j.job.stop) break; /* between steps the host cancels by itself */
      }
      pthread_join(thread, NULL);
      double declared = viv__json_num(c->manifest, "cancel_latency_ms", 50);
      double took = k.at && returned > k.at ? (double)(returned - k.at) / 1e6 : 0;
      if (took > declared + 100)
        viv__v_fail(c, "a cancel took %.0f ms; the manifest declares %.0f", took, declared);
    }
    viv__v_watch_state(true);
  }
  job_stop(c, &j);
}

static void test_cancelled_before(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  if (begun(c, &j, &error)) {
    j.job.stop = VIV_CANCELLED;
    for (int i = 0; i < 1000; i++) {
      int32_t status = job_step(c, &j, &error);
      if (status < 0 || status == VIV_DONE) break;
      if (i == 999) viv__v_fail(c, "1000 steps after a cancel the job still goes on");
    }
    if (j.job.n_events) viv__v_fail(c, "an event was taken after the cancel");
  }
  job_stop(c, &j);
}

/* ---- level 8: resources ---- */

/* A sanitizer's allocator does not report through mallinfo2. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static int64_t bytes_in_use(void) {
  if (__sanitizer_get_current_allocated_bytes)
    return (int64_t)__sanitizer_get_current_allocated_bytes();
  struct mallinfo2 info = mallinfo2();
  return (int64_t)(info.uordblks + info.hblkhd);
}

static void test_leaks(struct context *c) {
  struct opened o;
  if (!start(c, &o, 0)) return;
  close_it(c, &o);
  const viv_json *config = viv__checkpoint_config(c->checkpoint);
  viv_error error;
  int64_t before = 0;
  int rounds = 100;
  uint64_t began = viv__now_ns();
  viv__v_watch_state(false);
  for (int i = 0; i < rounds + 4 && !viv__v_failed(c); i++) {
    if (i == 4) {
      before = bytes_in_use();
      double each = (double)(viv__now_ns() - began) / 4;
      if (each * rounds > 8e9) rounds = (int)(8e9 / each) + 1; /* large models: fewer rounds */
    }
    open_with(c, o.host, config, "again", &o, &error);
    close_it(c, &o);
  }
  int64_t grown = bytes_in_use() - before;
  if (grown > 16 << 10)
    viv__v_fail(c, "%d times open and close left %lld bytes more in use", rounds, (long long)grown);
}

static void test_no_memory(struct context *c) {
  struct opened o;
  if (!start(c, &o, 0)) return;
  close_it(c, &o);
  const viv_json *config = viv__checkpoint_config(c->checkpoint);
  viv_error error;
  viv__v_fail_arena(0);
  open_with(c, o.host, config, "counting allocations", &o, &error);
  close_it(c, &o);
  long made = viv__v_fail_arena(0);
  long stride = made / 400 + 1; /* a bounded number of tries */
  for (long k = 1; k <= made && !viv__v_failed(c); k += stride) {
    char what[64];
    snprintf(what, sizeof what, "allocation %ld of %ld fails", k, made);
    viv__v_fail_arena(k);
    int32_t status = open_with(c, o.host, config, what, &o, &error);
    viv__v_fail_arena(0);
    if (status < 0 && status != VIV_NOT_NOW)
      viv__v_fail(c, "out of memory (%s) it answered %d (%s), not NOT_NOW", what, status,
                  error.message);
    close_it(c, &o);
  }
}

static void test_job_no_memory(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  for (long k = 1; k <= 64 && !viv__v_failed(c); k++) {
    viv__v_fail_arena(k);
    int32_t status = job_begin(c, &j, &error);
    if (status >= 0) status = job_run(c, &j, &error);
    bool reached = viv__v_fail_arena(0) >= k;
    if (j.running) {
      viv__v_before(c, VIV_THREAD_JOB, "job_end");
      c->api->job_end(j.running);
      viv__v_after(c);
    }
    j.running = NULL;
    if (!reached) break; /* the job needs fewer allocations than that */
  }
  job_stop(c, &j);
}

/* ---- level 9: fuzz ---- */

/* Replaces the value of a random key of a JSON text. Answers false when the text has none. */
static bool mutate(viv__buf *out, viv_str text, uint64_t *random) {
  static const char *const values[] = {"0",     "-1",   "1",        "2147483647", "-2147483648",
                                       "1e308", "0.5",  "\"text\"", "null",       "[]",
                                       "{}",    "true", "[1,-1,0]", "9e18",       "3"};
  size_t colons = 0, pick;
  bool quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] == '\\')
      i++;
    else if (text.ptr[i] == '"')
      quoted = !quoted;
    else if (text.ptr[i] == ':' && !quoted)
      colons++;
  }
  if (!colons) return false;
  pick = (size_t)(next_random(random) % colons);
  quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] == '\\')
      i++;
    else if (text.ptr[i] == '"')
      quoted = !quoted;
    else if (text.ptr[i] == ':' && !quoted && pick-- == 0) {
      size_t end = i + 1;
      int depth = 0;
      bool in = false;
      for (; end < text.len; end++) {
        char ch = text.ptr[end];
        if (in && ch == '\\')
          end++;
        else if (ch == '"')
          in = !in;
        else if (!in && (ch == '{' || ch == '['))
          depth++;
        else if (!in && (ch == '}' || ch == ']') && depth-- == 0)
          break;
        else if (!in && ch == ',' && depth == 0)
          break;
      }
      viv__buf_add(out, text.ptr, i + 1);
      viv__buf_str(out, values[next_random(random) % (sizeof values / sizeof *values)]);
      if (end < text.len) viv__buf_add(out, text.ptr + end, text.len - end);
      return !out->failed;
    }
  }
  return false;
}

static void test_fuzz_config(struct context *c) {
  const viv_host *host = load(c, 0);
  if (!host) return;
  if (!c->api) {
    viv__v_skip(c, "offers no " VIV_MODEL_ID);
    return;
  }
  if (!open_checkpoint(c)) return;
  char *text = NULL, *path = viv__path_join(viv__checkpoint_dir(c->checkpoint), "config.json");
  size_t len = 0;
  uint64_t random = c->seed, until = viv__now_ns() + 10000000000u;
  if (!path || viv__read_file(path, 1 << 20, &text, &len, NULL) < 0)
    viv__v_skip(c, "the model has no config.json to mutate");
  for (int i = 0; text && i < 300 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    viv__buf mutant = {0};
    viv_json *config = NULL;
    struct opened o;
    viv_error error;
    char what[200];
    /* One to three values at once. */
    bool made = mutate(&mutant, (viv_str){text, len}, &random);
    for (uint64_t more = next_random(&random) % 3; made && more; more--) {
      viv__buf twice = {0};
      made = mutate(&twice, (viv_str){mutant.ptr, mutant.len}, &random);
      viv__buf_free(&mutant);
      mutant = twice;
    }
    /* The input stands in the report when it is short; the seed makes it again when it is not. */
    snprintf(what, sizeof what, "config mutation %d of seed %llu%s%.140s", i,
             (unsigned long long)c->seed, made && mutant.len < 140 ? ": " : "",
             made && mutant.len < 140 ? mutant.ptr : "");
    if (made && viv__json_parse(mutant.ptr, mutant.len, "mutant", &config, NULL) == VIV_OK) {
      open_with(c, host, config, what, &o, &error);
      close_it(c, &o);
    }
    viv__json_free(config);
    viv__buf_free(&mutant);
  }
  viv__free(text);
  viv__free(path);
}

static void test_fuzz_job(struct context *c) {
  struct job_setup j;
  viv_error error;
  if (!job_start(c, &j, 0)) return;
  uint64_t random = c->seed, until = viv__now_ns() + 6000000000u;
  static const int32_t sizes[] = {0, 4, 8, 2, 2, 8, 4, 2, 1, 1, 1};
  for (int i = 0; i < 300 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    for (int32_t k = 0; k < j.request.n_inputs; k++) {
      viv_tensor *t = &j.tensor[k];
      t->dtype = next_random(&random) % 3 ? VIV_F32 : (int32_t)(1 + next_random(&random) % 10);
      t->ndim = (int32_t)(next_random(&random) % 5);
      int64_t n = 1;
      for (int32_t d = 0; d < t->ndim; d++) {
        t->shape[d] = (int64_t)(next_random(&random) % 4);
        if (n * t->shape[d] * sizes[t->dtype] > (int64_t)sizeof j.data) t->shape[d] = 1;
        n *= t->shape[d];
      }
      t->bytes = (uint64_t)(n * sizes[t->dtype]);
      uint64_t noise = next_random(&random);
      memcpy(j.data, &noise, sizeof noise);
    }
    viv__v_watch_state(i % 16 == 0);
    j.job.n_events = 0;
    int32_t status = job_begin(c, &j, &error);
    if (status >= 0) status = job_run(c, &j, &error);
    if (j.running) {
      viv__v_before(c, VIV_THREAD_JOB, "job_end");
      c->api->job_end(j.running);
      viv__v_after(c);
    }
    j.running = NULL;
  }
  viv__v_watch_state(true);
  job_stop(c, &j);
}

/* ---- token models ---- */

struct token_setup {
  struct opened o;
  const viv_token_api *api;
  viv_token_info info;
  viv_arena *scratch;
};

static bool token_start(struct context *c, struct token_setup *t) {
  memset(t, 0, sizeof *t);
  if (!start(c, &t->o, 0)) return false;
  t->api = c->table->get_interface(viv__str(VIV_TOKEN_MODEL_ID));
  if (!t->api) {
    viv__v_skip(c, "offers no " VIV_TOKEN_MODEL_ID);
    close_it(c, &t->o);
    return false;
  }
  t->info.struct_size = sizeof t->info;
  viv__v_before(c, VIV_THREAD_JOB, "info");
  int32_t status = t->api->info(t->o.model, &t->info);
  viv__v_after(c);
  const viv_token_info *i = &t->info;
  if (status < 0 || i->vocab_size < 1 || i->n_layers < 1 || i->d_model < 1 || i->n_eos < 0 ||
      (i->n_eos && !i->eos) || i->context_max < 0 || i->struct_size != sizeof *i)
    viv__v_fail(c,
                "info answers %d: vocabulary %d, %d layers, width %d, %d end tokens, context %lld, "
                "struct_size %u",
                status, i->vocab_size, i->n_layers, i->d_model, i->n_eos, (long long)i->context_max,
                i->struct_size);
  const int32_t special[] = {i->bos, i->pad, i->decoder_start, i->mask_token};
  for (size_t k = 0; !viv__v_failed(c) && k < 4; k++)
    if (special[k] < -1 || special[k] >= i->vocab_size)
      viv__v_fail(c, "info: special token %d is outside the vocabulary of %d", special[k],
                  i->vocab_size);
  for (int32_t k = 0; !viv__v_failed(c) && k < i->n_eos; k++)
    if (i->eos[k] < 0 || i->eos[k] >= i->vocab_size)
      viv__v_fail(c, "info: end token %d is outside the vocabulary of %d", i->eos[k],
                  i->vocab_size);
  const struct {
    uint32_t cap;
    bool there;
    const char *name;
  } optional[] = {{VIV_CAP_TRUNCATE, t->api->seq_truncate, "seq_truncate"},
                  {VIV_CAP_GATHER, t->api->seq_gather, "seq_gather"},
                  {VIV_CAP_FORK, t->api->seq_fork, "seq_fork"},
                  {VIV_CAP_SNAPSHOT, t->api->snapshot && t->api->restore, "snapshot and restore"},
                  {VIV_CAP_HEAD, t->api->head, "head"},
                  {VIV_CAP_EMBED_IN, t->api->embed, "embed"},
                  {VIV_CAP_ENCODER, t->api->encode, "encode"},
                  {VIV_CAP_AUX, t->api->aux_load && t->api->aux_run, "aux_load and aux_run"}};
  for (size_t k = 0; k < sizeof optional / sizeof *optional; k++)
    if ((i->caps & optional[k].cap) && !optional[k].there)
      viv__v_fail(c, "info promises a capability whose function %s is NULL", optional[k].name);
  t->scratch = viv__arena_new(0);
  if (!viv__v_failed(c)) return true;
  return false;
}

static void token_stop(struct context *c, struct token_setup *t) {
  viv__v_arena_free(c, t->scratch);
  close_it(c, &t->o);
}

static void test_token_info(struct context *c) {
  struct token_setup t;
  if (token_start(c, &t)) token_stop(c, &t);
}

static int32_t token_eval(struct context *c, struct token_setup *t, viv_batch *b, float *logits,
                          const char *what) {
  viv_error error = VIV_ERROR_INIT;
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
  b->struct_size = sizeof *b;
  b->scratch = t->scratch;
  viv__v_before(c, VIV_THREAD_JOB, "eval (%s)", what);
  int32_t status = t->api->eval(t->o.model, b, &out, &error);
  viv__v_after(c);
  check_failure(c, "eval", status, &error);
  return status;
}

enum { LOGIT_GUARD = 64 };

static void test_token_batches(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t vocab = t.info.vocab_size, seq = -1;
  viv_error error = VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "seq_open");
  int32_t status = t.api->seq_open(t.o.model, &seq, &error);
  viv__v_after(c);
  float *logits = calloc((size_t)vocab * 4 + LOGIT_GUARD, sizeof *logits);
  if (status < 0 || !logits) {
    viv__v_fail(c, "seq_open: %s", error.message);
    free(logits);
    return;
  }
  for (int i = 0; i < LOGIT_GUARD; i++) logits[4 * (size_t)vocab + (size_t)i] = 12345.0f;
  int32_t tokens[4] = {0, vocab - 1, vocab / 2, 1 % vocab}, seqs[4] = {seq, seq, seq, seq};
  int32_t rows[4] = {0, 1, 2, 3};
  viv_batch good = {
      .n_rows = 4, .tokens = tokens, .seq = seqs, .logit_rows = rows, .n_logit_rows = 4};

  /* What must be refused, and must leave the sequence as it was. */
  const char *const wrong[] = {"a token below 0",
                               "a token beyond the vocabulary",
                               "a sequence that is not open",
                               "a negative sequence",
                               "no rows",
                               "an input kind that does not exist",
                               "layers beyond the last",
                               "a logit row beyond the rows"};
  for (int k = 0; k < 8 && !viv__v_failed(c); k++) {
    int32_t bad_tokens[4], bad_seqs[4], bad_rows[4];
    memcpy(bad_tokens, tokens, sizeof tokens);
    memcpy(bad_seqs, seqs, sizeof seqs);
    memcpy(bad_rows, rows, sizeof rows);
    viv_batch b = good;
    b.tokens = bad_tokens;
    b.seq = bad_seqs;
    b.logit_rows = bad_rows;
    if (k == 0) bad_tokens[2] = -1;
    if (k == 1) bad_tokens[2] = vocab;
    if (k == 2)
      for (int i = 0; i < 4; i++) bad_seqs[i] = 1000000;
    if (k == 3)
      for (int i = 0; i < 4; i++) bad_seqs[i] = -7;
    if (k == 4) b.n_rows = b.n_logit_rows = 0;
    if (k == 5) b.input_kind = 99;
    if (k == 6) b.layer_end = t.info.n_layers + 1;
    if (k == 7) bad_rows[3] = 4;
    if (token_eval(c, &t, &b, logits, wrong[k]) >= 0)
      viv__v_fail(c, "eval takes a batch with %s", wrong[k]);
    viv__v_before(c, VIV_THREAD_JOB, "seq_len");
    int64_t len = t.api->seq_len(t.o.model, seq);
    viv__v_after(c);
    if (len != 0) viv__v_fail(c, "a refused batch (%s) changed its sequence", wrong[k]);
  }
  if (!viv__v_failed(c) && token_eval(c, &t, &good, logits, "4 good rows") < 0)
    viv__v_fail(c, "eval refuses a good batch");
  for (size_t i = 0; !viv__v_failed(c) && i < 4 * (size_t)vocab; i++)
    if (!(logits[i] - logits[i] == 0)) viv__v_fail(c, "logit %zu is NaN or infinite", i);
  for (int i = 0; i < LOGIT_GUARD; i++)
    if (logits[4 * (size_t)vocab + (size_t)i] != 12345.0f)
      viv__v_fail(c, "eval wrote past the logits");
  if (!viv__v_failed(c) && t.api->seq_len(t.o.model, seq) != 4)
    viv__v_fail(c, "after 4 rows seq_len is %lld", (long long)t.api->seq_len(t.o.model, seq));
  viv__v_before(c, VIV_THREAD_JOB, "seq_close, twice and of unknown ones");
  t.api->seq_close(t.o.model, seq);
  t.api->seq_close(t.o.model, seq);
  t.api->seq_close(t.o.model, -1);
  t.api->seq_close(t.o.model, 1 << 30);
  if (t.api->seq_len(t.o.model, seq) != -1)
    viv__v_fail(c, "seq_len of a closed sequence is not -1");
  viv__v_after(c);
  free(logits);
  token_stop(c, &t);
}

static int32_t poll_cancelled(void *self) {
  ++*(int *)self;
  return VIV_CANCELLED;
}

static void test_token_poll(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t seq = -1, tokens[2] = {0, t.info.vocab_size - 1}, row = 1;
  viv_error error = VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_JOB, "seq_open");
  int32_t status = t.api->seq_open(t.o.model, &seq, &error);
  viv__v_after(c);
  float *logits = calloc((size_t)t.info.vocab_size, sizeof *logits);
  int polls = 0, seqs[2] = {seq, seq};
  viv_batch b = {.struct_size = sizeof b,
                 .n_rows = 2,
                 .tokens = tokens,
                 .seq = seqs,
                 .logit_rows = &row,
                 .n_logit_rows = 1,
                 .scratch = t.scratch,
                 .poll_self = &polls,
                 .poll = poll_cancelled};
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
  if (status >= 0 && logits) {
    viv__v_before(c, VIV_THREAD_JOB, "eval (cancelled)");
    status = t.api->eval(t.o.model, &b, &out, &error);
    viv__v_after(c);
    if (polls && status != VIV_CANCELLED)
      viv__v_fail(c, "poll answered CANCELLED, eval answered %d", status);
    else if (!polls && t.info.n_layers > 1)
      viv__v_fail(c, "eval of %d layers never called poll", t.info.n_layers);
    viv__v_before(c, VIV_THREAD_JOB, "seq_close after a cancelled eval");
    t.api->seq_close(t.o.model, seq);
    viv__v_after(c);
  }
  free(logits);
  token_stop(c, &t);
}

static void test_token_snapshot(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  if (!(t.info.caps & VIV_CAP_SNAPSHOT)) {
    viv__v_skip(c, "can't save sequences");
    token_stop(c, &t);
    return;
  }
  viv_error error = VIV_ERROR_INIT;
  int32_t vocab = t.info.vocab_size, seq = -1, copy = -1, row = 0, token = vocab - 1;
  size_t n = (size_t)vocab;
  float *one = calloc(n, sizeof *one), *two = calloc(n, sizeof *two);
  char *bytes = NULL;
  uint64_t size = 0;
  viv__v_before(c, VIV_THREAD_JOB, "seq_open, twice");
  bool open = t.api->seq_open(t.o.model, &seq, &error) >= 0 &&
              t.api->seq_open(t.o.model, &copy, &error) >= 0;
  viv__v_after(c);
  if (!one || !two || !open) {
    viv__v_fail(c, "two sequences can't be opened: %s", error.message);
    return;
  }
  int32_t tokens[3] = {0, vocab / 3, vocab / 2}, seqs[3] = {seq, seq, seq};
  viv_batch fill = {.n_rows = 3, .tokens = tokens, .seq = seqs};
  token_eval(c, &t, &fill, NULL, "3 rows without logits");
  viv__v_before(c, VIV_THREAD_JOB, "snapshot into nothing");
  t.api->snapshot(t.o.model, seq, NULL, 0, &size, &error);
  viv__v_after(c);
  bytes = size && size < (uint64_t)1 << 32 ? malloc(size) : NULL;
  if (!bytes) {
    viv__v_fail(c, "snapshot says that %llu bytes are needed", (unsigned long long)size);
    return;
  }
  uint64_t used = 0;
  viv__v_before(c, VIV_THREAD_JOB, "snapshot");
  int32_t status = t.api->snapshot(t.o.model, seq, bytes, size, &used, &error);
  viv__v_after(c);
  if (status < 0 || used > size)
    viv__v_fail(c, "snapshot failed with the buffer it asked for: %s", error.message);
  viv__v_before(c, VIV_THREAD_JOB, "restore");
  status = t.api->restore(t.o.model, copy, bytes, used, &error);
  viv__v_after(c);
  if (status < 0) viv__v_fail(c, "restore refuses its own snapshot: %s", error.message);
  viv_batch next = {
      .n_rows = 1, .tokens = &token, .seq = &seq, .logit_rows = &row, .n_logit_rows = 1};
  if (!viv__v_failed(c)) {
    token_eval(c, &t, &next, one, "the original goes on");
    next.seq = &copy;
    token_eval(c, &t, &next, two, "the restored one goes on");
    if (memcmp(one, two, n * sizeof *one))
      viv__v_fail(c, "a restored sequence goes on differently from the original");
  }
  /* Bytes from a file are untrusted. */
  uint64_t random = c->seed;
  viv__v_watch_state(false);
  for (int i = 0; i < 200 && !viv__v_failed(c); i++) {
    char *mutant = malloc(used + 1);
    if (!mutant) break;
    memcpy(mutant, bytes, used);
    uint64_t len = used;
    if (i % 3 == 0) len = next_random(&random) % used;
    uint64_t reach = i % 2 && used > 64 ? 64 : used;
    for (int k = 0; k < 1 + i % 4; k++)
      mutant[next_random(&random) % reach] ^= (char)(1u << next_random(&random) % 8);
    viv__v_before(c, VIV_THREAD_JOB, "restore of damaged bytes, %d of seed %llu", i,
                  (unsigned long long)c->seed);
    error = (viv_error)VIV_ERROR_INIT;
    status = t.api->restore(t.o.model, copy, mutant, len, &error);
    viv__v_after(c);
    check_failure(c, "restore", status, &error);
    free(mutant);
  }
  viv__v_watch_state(true);
  free(bytes);
  free(one);
  free(two);
  token_stop(c, &t);
}

static void test_token_fuzz(struct context *c) {
  struct token_setup t;
  if (!token_start(c, &t)) return;
  int32_t vocab = t.info.vocab_size;
  uint64_t random = c->seed, until = viv__now_ns() + 10000000000u;
  float *logits = calloc((size_t)vocab * 8, sizeof *logits);
  viv__v_watch_state(false);
  for (int i = 0; logits && i < 400 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    viv_error error = VIV_ERROR_INIT;
    int32_t id = (int32_t)(next_random(&random) % 6) - 1, fresh = -1, n;
    int32_t tokens[8], seqs[8], rows[8], parent[8];
    char what[64];
    snprintf(what, sizeof what, "operation %d of seed %llu", i, (unsigned long long)c->seed);
    switch (next_random(&random) % 8) {
    case 0:
      viv__v_before(c, VIV_THREAD_JOB, "seq_open (%s)", what);
      t.api->seq_open(t.o.model, &fresh, &error);
      viv__v_after(c);
      break;
    case 1:
      viv__v_before(c, VIV_THREAD_JOB, "seq_close (%s)", what);
      t.api->seq_close(t.o.model, id);
      viv__v_after(c);
      break;
    case 2:
      if (!t.api->seq_truncate) break;
      viv__v_before(c, VIV_THREAD_JOB, "seq_truncate (%s)", what);
      t.api->seq_truncate(t.o.model, id, (int64_t)(next_random(&random) % 12) - 2, &error);
      viv__v_after(c);
      break;
    case 3:
      if (!t.api->seq_fork) break;
      viv__v_before(c, VIV_THREAD_JOB, "seq_fork (%s)", what);
      t.api->seq_fork(t.o.model, id, &fresh, &error);
      viv__v_after(c);
      break;
    default:
      n = (int32_t)(1 + next_random(&random) % 8);
      for (int32_t k = 0; k < n; k++) {
        tokens[k] = (int32_t)(next_random(&random) % (uint64_t)vocab);
        if (next_random(&random) % 40 == 0) tokens[k] = (int32_t)next_random(&random);
        seqs[k] = id;
        rows[k] = k;
        parent[k] = k - 1;
        if (next_random(&random) % 10 == 0) parent[k] = (int32_t)(next_random(&random) % 10) - 1;
      }
      viv_batch b = {.n_rows = n,
                     .tokens = tokens,
                     .seq = seqs,
                     .logit_rows = rows,
                     .n_logit_rows = n,
                     .mask_kind = next_random(&random) % 6 == 0 ? VIV_MASK_PARENT : VIV_MASK_CAUSAL,
                     .kv_write = next_random(&random) % 8 == 0 ? VIV_KV_NONE : VIV_KV_APPEND,
                     .parent = parent};
      if (b.mask_kind == VIV_MASK_CAUSAL) b.parent = NULL;
      token_eval(c, &t, &b, logits, what);
      viv__v_arena_reset(c, t.scratch);
    }
  }
  viv__v_watch_state(true);
  free(logits);
  token_stop(c, &t);
}

/* ---- strategies ---- */

static void test_strategy(struct context *c) {
  const viv_host *host = load(c, 0);
  if (!host) return;
  const viv_strategy_api *s = c->table->get_interface(viv__str(VIV_STRATEGY_ID));
  if (!s) {
    viv__v_skip(c, "offers no " VIV_STRATEGY_ID);
    return;
  }
  viv_error error = VIV_ERROR_INIT;
  uint32_t all = 0, any = 0;
  viv__v_before(c, VIV_THREAD_JOB, "requires_caps of an unknown strategy");
  int32_t status = s->requires_caps(viv__str("no-such-strategy"), &all, &any);
  viv__v_after(c);
  if (status != VIV_NEVER) viv__v_fail(c, "requires_caps of an unknown strategy is not NEVER");
  const viv_json *names = viv__json_get(c->manifest, "strategies");
  int32_t eos = 3, prompt[4] = {1, 2, 3, 4};
  viv_token_info info = {.struct_size = sizeof info,
                         .caps = ~0u,
                         .n_layers = 2,
                         .d_model = 8,
                         .vocab_size = 16,
                         .n_eos = 1,
                         .eos = &eos,
                         .context_max = 128,
                         .bos = 0,
                         .pad = -1,
                         .decoder_start = -1,
                         .mask_token = 5};
  int created = 0;
  for (int64_t i = 0; i < viv__json_count(names) && !viv__v_failed(c); i++) {
    viv_str name = viv__json_string(viv__json_item(names, i));
    viv__v_before(c, VIV_THREAD_JOB, "requires_caps(\"%.*s\")", (int)name.len, name.ptr);
    status = s->requires_caps(name, &all, &any);
    viv__v_after(c);
    if (status < 0) {
      viv__v_fail(c, "the manifest lists the strategy %.*s; requires_caps answers %d",
                  (int)name.len, name.ptr, status);
      break;
    }
    viv_arena *arena = viv__arena_new(ARENA_LIMIT);
    viv_strategy_setup setup = {.struct_size = sizeof setup,
                                .n_prompt = 4,
                                .name = name,
                                .info = &info,
                                .prompt = prompt,
                                .seed = c->seed,
                                .arena = arena,
                                .max_new_tokens = 8};
    viv_strategy *made = NULL;
    error = (viv_error)VIV_ERROR_INIT;
    viv__v_before(c, VIV_THREAD_JOB, "create(\"%.*s\")", (int)name.len, name.ptr);
    status = s->create(host, &setup, &made, &error);
    viv__v_after(c);
    check_failure(c, "create", status, &error);
    if (status >= 0 && made) {
      created++;
      viv_strategy_want want = {.struct_size = sizeof want};
      viv__v_before(c, VIV_THREAD_JOB, "resume(\"%.*s\"), first", (int)name.len, name.ptr);
      status = s->resume(made, NULL, &want, &error);
      viv__v_after(c);
      check_failure(c, "resume", status, &error);
      if (status == VIV_MORE && (!want.batch || want.batch->n_rows < 1) && want.n_emit < 1 &&
          want.n_ops < 1)
        viv__v_fail(c, "%.*s: resume answers MORE and wants nothing", (int)name.len, name.ptr);
      for (int32_t r = 0; status == VIV_MORE && want.batch && r < want.batch->n_rows; r++)
        if (want.batch->tokens && want.batch->input_kind == VIV_INPUT_TOKENS &&
            (want.batch->tokens[r] < 0 || want.batch->tokens[r] >= info.vocab_size))
          viv__v_fail(c, "%.*s: wants the token %d of a vocabulary of 16 evaluated", (int)name.len,
                      name.ptr, want.batch->tokens[r]);
      viv_strategy_counters counters = {.struct_size = sizeof counters};
      viv__v_before(c, VIV_THREAD_JOB, "counters and destroy");
      s->counters(made, &counters);
      s->destroy(made);
      viv__v_after(c);
    } else if (status >= 0) {
      viv__v_fail(c, "create answered %d but gave no strategy", status);
    }
    viv__v_arena_free(c, arena);
  }
  (void)created;
}

/* ---- the list ---- */

const struct test viv__tests[] = {
    {"manifest", 1, NULL, 5, test_manifest, "the manifest is there, well formed and complete"},
    {"exports", 1, NULL, 5, test_exports, "viv_plugin_entry is the only visible symbol"},
    {"links", 1, NULL, 5, test_links, "nothing but libc and libm is linked"},
    {"imports", 1, NULL, 5, test_imports, "no call that would touch the process"},
    {"loads", 2, "exports", 5, test_loads, "loads and enters, within 5 s (100 ms warn)"},
    {"table", 3, "loads", 10, test_table, "the table agrees with the manifest and the ABI"},
    {"interfaces", 3, "loads", 10, test_interfaces, "every listed interface is there and whole"},
    {"unknown-interface", 3, "loads", 10, test_unknown_interface, "other ids answer NULL"},
    {"init-twice", 3, "loads", 10, test_init_twice, "init and deinit are counted"},
    {"host-newer", 3, "loads", 10, test_host_newer, "a host of a later minor is served"},
    {"host-other-major", 3, "loads", 10, test_host_other_major,
     "a host of another major is refused"},
    {"no-extensions", 4, "table", 10, test_no_extensions, "a host without extensions is survived"},
    {"open-bad-config", 5, "table", 10, test_open_bad_config, "bad configurations are explained"},
    {"opens", 5, "table", 30, test_opens, "a model opens, describes itself and closes"},
    {"job-runs", 6, "opens", 15, test_job_runs, "a job runs; its events are well formed"},
    {"job-wait", 6, "job-runs", 15, test_job_wait, "WAIT is honoured"},
    {"job-bad-input", 6, "job-runs", 15, test_job_bad_input, "bad requests are answered"},
    {"token-info", 6, "opens", 15, test_token_info, "the token model's facts are sane"},
    {"strategy", 6, "table", 15, test_strategy, "strategies start and want something sane"},
    {"cancel-latency", 7, "job-runs", 15, test_cancel, "a cancel takes no longer than declared"},
    {"cancelled-job", 7, "job-runs", 15, test_cancelled_before, "a cancelled job stops"},
    {"token-poll", 7, "token-info", 15, test_token_poll, "a cancelled eval stops between layers"},
    {"leaks", 8, "opens", 30, test_leaks, "open and close leave nothing behind"},
    {"open-no-memory", 8, "opens", 30, test_no_memory, "each allocation of open may fail"},
    {"job-no-memory", 8, "job-runs", 30, test_job_no_memory, "each allocation of a job may fail"},
    {"token-batches", 8, "token-info", 30, test_token_batches, "bad batches are refused unharmed"},
    {"fuzz-config", 9, "table", 40, test_fuzz_config, "mutated configurations never crash"},
    {"fuzz-job", 9, "job-runs", 20, test_fuzz_job, "mutated inputs never crash"},
    {"token-snapshot", 9, "token-info", 30, test_token_snapshot,
     "snapshots restore; damaged ones are refused"},
    {"token-fuzz", 10, "token-info", 40, test_token_fuzz, "random operations never crash"},
};
const size_t viv__n_tests = sizeof viv__tests / sizeof *viv__tests;
