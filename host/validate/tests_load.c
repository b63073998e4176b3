/* Tests of the files as they lie there, of loading and of the tables. */
#include <dlfcn.h>
#include <string.h>

#include "validate/tests.h"

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

void viv__v_test_manifest(struct context *c) {
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
      !texts(c, "model_types", false, false) || !texts(c, "architectures", false, false) ||
      !texts(c, "tensors", false, false))
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

static void read_symbols(struct symbols *s,
                         void (*symbol)(void *self, const char *name, bool defined),
                         void (*needed)(void *self, const char *name)) {
  viv_error error = VIV_ERROR_INIT;
  if (viv__elf_read(s->c->plugin, s, symbol, needed, &error) < 0)
    viv__v_fail(s->c, "%s", error.message);
}

static void see_nothing(void *self, const char *name) {
  (void)self;
  (void)name;
}

void viv__v_test_exports(struct context *c) {
  struct symbols s = {.c = c};
  read_symbols(&s, see_export, see_nothing);
  if (!s.entry) viv__v_fail(c, "does not export viv_plugin_entry");
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

void viv__v_test_links(struct context *c) {
  struct symbols s = {.c = c};
  read_symbols(&s, see_no_symbol, see_library);
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

void viv__v_test_imports(struct context *c) {
  struct symbols s = {.c = c};
  read_symbols(&s, see_import, see_nothing);
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

/* Enters the plugin; what names the call in the report. */
static const viv_plugin *enter(struct context *c, const viv_host *host, const char *what,
                               viv_error *error) {
  viv_plugin_entry_fn entry = entry_of(c);
  if (!entry) return NULL;
  viv__v_before(c, VIV_THREAD_SCAN, "%s", what);
  const viv_plugin *table = entry(host, error);
  viv__v_after(c);
  return table;
}

static void refused(struct context *c, const viv_error *error) {
  viv__v_fail(c, "refuses this host: %s", error->message[0] ? error->message : "(no reason given)");
}

const viv_host *viv__v_load(struct context *c, int flags) {
  const viv_host *host = viv__v_host(c, flags);
  viv_error error = VIV_ERROR_INIT;
  c->table = enter(c, host, "viv_plugin_entry", &error);
  if (!c->table) {
    refused(c, &error);
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

void viv__v_test_loads(struct context *c) {
  const viv_host *host = viv__v_host(c, 0);
  uint64_t start = viv__now_ns();
  viv_error error = VIV_ERROR_INIT;
  const viv_plugin *table = enter(c, host, "viv_plugin_entry", &error);
  double ms = (double)(viv__now_ns() - start) / 1e6;
  if (!table)
    refused(c, &error);
  else if (ms > 100)
    snprintf(c->out->reason, sizeof c->out->reason, "warning: took %.0f ms; 100 are expected", ms);
}

/* ---- level 3: tables ---- */

void viv__v_test_table(struct context *c) {
  if (!viv__v_load(c, 0)) return;
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

void viv__v_test_interfaces(struct context *c) {
  if (!viv__v_load(c, 0)) return;
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

void viv__v_test_unknown_interface(struct context *c) {
  if (!viv__v_load(c, 0)) return;
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

void viv__v_test_init_twice(struct context *c) {
  const viv_host *host = viv__v_load(c, 0);
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
  const viv_plugin *again = enter(c, host, "viv_plugin_entry, again", &error);
  if (!again) viv__v_fail(c, "the second entry of one process answered NULL: %s", error.message);
}

void viv__v_test_host_newer(struct context *c) {
  if (!viv__v_load(c, HOST_NEWER)) return;
  double minor = viv__json_num(viv__json_get(c->manifest, "abi"), "minor", 0);
  if (c->table->abi_major != VIV_ABI_MAJOR || c->table->abi_minor > minor)
    viv__v_fail(c, "answers a host of %d.99 with ABI %u.%u; its manifest says %d.%g", VIV_ABI_MAJOR,
                c->table->abi_major, c->table->abi_minor, VIV_ABI_MAJOR, minor);
}

void viv__v_test_host_other_major(struct context *c) {
  const viv_host *host = viv__v_host(c, HOST_OTHER_MAJOR);
  viv_error error = VIV_ERROR_INIT;
  char what[64];
  snprintf(what, sizeof what, "viv_plugin_entry for a host of ABI %d.0", VIV_ABI_MAJOR + 1);
  const viv_plugin *table = enter(c, host, what, &error);
  if (table)
    viv__v_fail(c, "accepts a host that only speaks major %d, and answers with major %u",
                VIV_ABI_MAJOR + 1, table->abi_major);
  else if (!error.message[0] || error.code >= 0)
    viv__v_fail(c, "refuses a host of another major without a message or code");
}
