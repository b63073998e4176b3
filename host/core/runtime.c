/* Opening and closing a runtime, and what it tells about itself. */
#include "client/client.h"
#include "core/core.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#ifndef VIV_VERSION
#define VIV_VERSION "0"
#endif
#ifndef VIV_PREFIX
#define VIV_PREFIX "/usr/local"
#endif

const char *viv_version(void) {
  return VIV_VERSION;
}

const char *viv_status_name(int32_t status) {
  switch (status) {
  case VIV_OK:
    return "ok";
  case VIV_MORE:
    return "more";
  case VIV_DONE:
    return "done";
  case VIV_WAIT:
    return "wait";
  case VIV_NEVER:
    return "never";
  case VIV_NOT_NOW:
    return "not now";
  case VIV_BAD_INPUT:
    return "bad input";
  case VIV_CANCELLED:
    return "cancelled";
  case VIV_BUG:
    return "bug";
  case VIV_DEADLINE:
    return "deadline";
  default:
    return "unknown";
  }
}

void viv_text_free(viv_text *text) {
  if (!text) return;
  viv__free(text->ptr);
  *text = (viv_text){0};
}

int32_t viv__give_text(viv__buf *b, viv_text *out, viv_error *error) {
  viv__buf_add(b, "", 0);
  if (b->failed || !b->ptr) {
    viv__buf_free(b);
    return VIV_FAIL(error, VIV_NOT_NOW, NULL, "no memory for the answer");
  }
  *out = (viv_text){b->ptr, b->len};
  return VIV_OK;
}

/* ---- options ---- */

static bool privileged(void) {
  return getuid() != geteuid() || getgid() != getegid();
}

static int32_t add_folder(viv_runtime *rt, const char *folder, size_t len, viv_error *error) {
  if (!len) return VIV_OK;
  char **folders = viv__realloc(rt->folders, (rt->n_folders + 1) * sizeof *folders);
  if (folders) rt->folders = folders;
  char **notes =
      folders ? viv__realloc(rt->folder_notes, (rt->n_folders + 1) * sizeof *notes) : NULL;
  if (notes) rt->folder_notes = notes;
  char *copy = notes ? viv__strndup(folder, len) : NULL;
  if (!copy) return VIV_FAIL(error, VIV_NOT_NOW, "plugin path", "no memory");
  rt->folders[rt->n_folders] = copy;
  rt->folder_notes[rt->n_folders++] = NULL;
  return VIV_OK;
}

static int32_t add_path(viv_runtime *rt, const char *path, viv_error *error) {
  int32_t status = VIV_OK;
  for (const char *p = path; status == VIV_OK && *p;) {
    size_t len = strcspn(p, ":");
    status = add_folder(rt, p, len, error);
    p += len + (p[len] == ':');
  }
  return status;
}

/* The folder that this library (or the program it is linked into) lies in. */
static bool own_folder(char out[PATH_MAX]) {
  Dl_info info;
  void *here = (void *)(uintptr_t)viv_version;
  char real[PATH_MAX];
  if (!dladdr(here, &info) || !info.dli_fname) return false;
  const char *file = info.dli_fname;
  if (!strchr(file, '/')) file = "/proc/self/exe"; /* a program found on PATH */
  if (!realpath(file, real)) return false;
  *strrchr(real, '/') = 0;
  snprintf(out, PATH_MAX, "%s", real);
  return true;
}

/* options, then the environment (ignored under elevated privilege), then the folders beside the
 * library, then the installed ones. */
static int32_t find_folders(viv_runtime *rt, const viv_options *o, viv_error *error) {
  const char *path = o ? o->plugin_path : NULL;
  if (!path && !privileged()) path = getenv("VIV_PLUGIN_PATH");
  if (path) return add_path(rt, path, error);
  char folder[PATH_MAX], sub[PATH_MAX + 32];
  int32_t status = VIV_OK;
  if (own_folder(folder)) {
    snprintf(sub, sizeof sub, "%s/plugins", folder); /* the build tree */
    status = add_folder(rt, sub, strlen(sub), error);
    snprintf(sub, sizeof sub, "%s/vivarium/plugins", folder); /* PREFIX/lib */
    if (status == VIV_OK) status = add_folder(rt, sub, strlen(sub), error);
    snprintf(sub, sizeof sub, "%s/../lib/vivarium/plugins", folder); /* PREFIX/bin */
    if (status == VIV_OK) status = add_folder(rt, sub, strlen(sub), error);
  }
  const char *installed = VIV_PREFIX "/lib/vivarium/plugins";
  return status == VIV_OK ? add_folder(rt, installed, strlen(installed), error) : status;
}

static void find_cache(viv_runtime *rt, const viv_options *o) {
  viv__buf b = {0};
  const char *base;
  if (o && o->cache_dir)
    viv__buf_str(&b, o->cache_dir);
  else if ((base = getenv("XDG_CACHE_HOME")) && *base == '/')
    viv__buf_fmt(&b, "%s/vivarium", base);
  else if ((base = getenv("HOME")) && *base == '/')
    viv__buf_fmt(&b, "%s/.cache/vivarium", base);
  if (b.failed || !b.ptr) {
    viv__buf_free(&b);
    return;
  }
  for (char *slash = b.ptr + 1; *slash; slash++) {
    if (*slash != '/') continue;
    *slash = 0;
    mkdir(b.ptr, 0777);
    *slash = '/';
  }
  mkdir(b.ptr, 0777);
  if (access(b.ptr, W_OK)) {
    viv__logf(&rt->log, VIV_LOG_INFO, "no plugin cache: %s can't be written", b.ptr);
    viv__buf_free(&b);
    return;
  }
  rt->cache_dir = b.ptr;
}

static int32_t log_level(const viv_options *o) {
  if (o && o->log_level) return o->log_level;
  const char *names[] = {"", "error", "warn", "info", "debug"};
  const char *level = getenv("VIV_LOG");
  for (int32_t i = VIV_LOG_ERROR; level && i <= VIV_LOG_DEBUG; i++)
    if (!strcmp(level, names[i])) return i;
  return VIV_LOG_WARN;
}

/* ---- life ---- */

int32_t viv_open(const viv_options *options, viv_runtime **out, viv_error *error) {
  viv_options o = {0};
  if (!out) return VIV_FAIL(error, VIV_BAD_INPUT, "viv_open", "out is NULL");
  if (options)
    memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
  viv_runtime *rt = viv__calloc(1, sizeof *rt);
  if (!rt) return VIV_FAIL(error, VIV_NOT_NOW, "viv_open", "no memory");
  pthread_mutex_init(&rt->lock, NULL);
  rt->log = (viv__log){log_level(&o), o.log_json != 0, o.log_fd ? o.log_fd : STDERR_FILENO};
  rt->safe_mode = o.safe_mode != 0;
  rt->budget = o.memory_budget;
  if (!rt->budget) {
    struct sysinfo si;
    rt->budget = sysinfo(&si) ? (uint64_t)4 << 30 : (uint64_t)si.totalram * si.mem_unit / 5 * 4;
  }
  viv__services_init(rt);
  find_cache(rt, &o);
  int32_t status = find_folders(rt, &o, error);
  if (status == VIV_OK) status = viv__scan(rt, error);
  if (status == VIV_OK)
    status = viv__compute_new(o.threads, rt->safe_mode ? VIV__ISA_PORTABLE : VIV__ISA_AUTO,
                              &rt->compute, error);
  if (status == VIV_OK) status = viv__loop_start(rt, error);
  if (status < 0) {
    viv_close(rt);
    return status;
  }
  *out = rt;
  return VIV_OK;
}

void viv_close(viv_runtime *rt) {
  if (!rt) return;
  if (rt->remote) {
    viv__remote_close(rt);
    return;
  }
  atomic_store(&rt->closing, true);
  viv__loop_wake(rt); /* the loop cancels every live job */
  while (rt->models) viv_unload(rt->models);
  viv__loop_stop(rt);
  viv__scan_free(rt);
  if (rt->compute) viv__compute_free(rt->compute);
  viv__json_free(rt->cache);
  viv__free(rt->cache_dir);
  pthread_mutex_destroy(&rt->lock);
  viv__free(rt);
}

int32_t viv__reserve(viv_runtime *rt, uint64_t bytes, const char *what, viv_error *error) {
  uint64_t held = atomic_load(&rt->reserved);
  do {
    uint64_t left = held < rt->budget ? rt->budget - held : 0;
    if (bytes > left)
      return VIV_FAIL(error, VIV_NOT_NOW, what,
                      "needs %.1f MiB, available are %.1f MiB of the budget of %.1f MiB",
                      (double)bytes / 1048576, (double)left / 1048576,
                      (double)rt->budget / 1048576);
  } while (!atomic_compare_exchange_weak(&rt->reserved, &held, held + bytes));
  return VIV_OK;
}

void viv__release(viv_runtime *rt, uint64_t bytes) {
  atomic_fetch_sub(&rt->reserved, bytes);
}

/* ---- documents ---- */

/* Where plugins were looked for, and what became of each place. */
static void folders_json(const viv_runtime *rt, viv__buf *b) {
  viv__buf_str(b, "[");
  for (size_t i = 0; i < rt->n_folders; i++) {
    viv__buf_fmt(b, "%s{\"path\":", i ? "," : "");
    viv__buf_json(b, viv__str(rt->folders[i]));
    viv__buf_str(b, ",\"note\":");
    viv__buf_json(b, viv__str(rt->folder_notes[i] ? rt->folder_notes[i] : ""));
    viv__buf_str(b, "}");
  }
  viv__buf_str(b, "]");
}

int32_t viv_plugins(viv_runtime *rt, viv_text *json, viv_error *error) {
  if (rt->remote) return viv__remote_inspect(rt, "plugins", NULL, NULL, json, error);
  viv__buf b = {0};
  pthread_mutex_lock(&rt->lock);
  viv__buf_str(&b, "{\"folders\":");
  folders_json(rt, &b);
  viv__buf_str(&b, ",\"plugins\":[");
  for (size_t i = 0; i < rt->n_plugins; i++) {
    viv__plugin *p = &rt->plugins[i];
    viv__buf_fmt(&b, "%s{\"id\":", i ? "," : "");
    viv__buf_json(&b, viv__str(p->id));
    viv__buf_str(&b, ",\"version\":");
    viv__buf_json(&b, viv__str(viv__json_text(p->manifest, "version", "")));
    viv__buf_str(&b, ",\"file\":");
    viv__buf_json(&b, viv__str(p->so_path));
    viv__buf_fmt(&b, ",\"state\":\"%s\",\"reason\":",
                 p->state == VIV__REFUSED  ? "refused"
                 : p->state == VIV__LOADED ? "loaded"
                                           : "found");
    viv__buf_json(&b, viv__str(p->reason ? p->reason : ""));
    viv__buf_str(&b, ",\"architectures\":[");
    const viv_json *lists[] = {viv__json_get(p->manifest, "model_types"),
                               viv__json_get(p->manifest, "strategies")};
    bool first = true;
    for (size_t l = 0; l < 2; l++)
      for (int64_t k = 0; k < viv__json_count(lists[l]); k++, first = false) {
        if (!first) viv__buf_str(&b, ",");
        viv__buf_json(&b, viv__json_string(viv__json_item(lists[l], k)));
      }
    viv__buf_str(&b, "]}");
  }
  viv__buf_str(&b, "]}");
  pthread_mutex_unlock(&rt->lock);
  return viv__give_text(&b, json, error);
}

int32_t viv_machine(viv_runtime *rt, viv_text *json, viv_error *error) {
  if (rt->remote) return viv__remote_inspect(rt, "machine", NULL, NULL, json, error);
  struct sysinfo si = {0};
  sysinfo(&si);
  viv__buf b = {0};
  viv__buf_str(&b, "{\"cpu_features\":");
  viv__buf_json(&b, viv__str(viv__cpu_features()));
  viv__buf_str(&b, ",\"kernels\":");
  viv__buf_json(&b, viv__str(viv__compute_isa(rt->compute)));
  viv__buf_str(&b, ",\"blas_core\":");
  viv__buf_json(&b, viv__str(viv__compute_blas(rt->compute)));
  viv__buf_fmt(&b, ",\"threads\":%d,\"memory_bytes\":%llu,\"memory_free_bytes\":%llu",
               rt->compute->threads, (unsigned long long)si.totalram * si.mem_unit,
               (unsigned long long)si.freeram * si.mem_unit);
  viv__buf_fmt(&b, ",\"budget_bytes\":%llu,\"reserved_bytes\":%llu,\"cache_dir\":",
               (unsigned long long)rt->budget, (unsigned long long)atomic_load(&rt->reserved));
  viv__buf_json(&b, viv__str(rt->cache_dir ? rt->cache_dir : ""));
  viv__buf_fmt(&b, ",\"abi\":\"%d.%d\",\"version\":\"%s\"}", VIV_ABI_MAJOR, VIV_ABI_MINOR,
               VIV_VERSION);
  return viv__give_text(&b, json, error);
}

int32_t viv_models(viv_runtime *rt, viv_text *json, viv_error *error) {
  if (rt->remote) return viv__remote_inspect(rt, "models", NULL, NULL, json, error);
  viv__buf b = {0};
  pthread_mutex_lock(&rt->lock);
  viv__buf_str(&b, "[");
  for (viv_model *m = rt->models; m; m = m->next) {
    viv__buf_str(&b, b.len > 1 ? ",{\"name\":" : "{\"name\":");
    viv__buf_json(&b, viv__str(m->name));
    viv__buf_str(&b, ",\"path\":");
    viv__buf_json(&b, viv__str(m->path));
    viv__buf_str(&b, ",\"plugin\":");
    viv__buf_json(&b, viv__str(m->plugin->id));
    viv__buf_fmt(&b, ",\"bytes\":%llu}", (unsigned long long)m->reserved);
  }
  viv__buf_str(&b, "]");
  pthread_mutex_unlock(&rt->lock);
  return viv__give_text(&b, json, error);
}

int32_t viv_why(viv_runtime *rt, const char *path, viv_text *json, viv_error *error) {
  if (!path) return VIV_FAIL(error, VIV_BAD_INPUT, "viv_why", "path is NULL");
  if (rt->remote) return viv__remote_inspect(rt, "why", path, NULL, json, error);
  viv__buf why = {0}, b = {0};
  viv_error refusal = VIV_ERROR_INIT;
  viv_checkpoint *c = NULL;
  viv__plugin *taken = NULL;
  int32_t status = viv__checkpoint_open(path, &c, &refusal);
  pthread_mutex_lock(&rt->lock);
  if (status == VIV_OK && !viv__checkpoint_config(c))
    status = VIV_FAIL(&refusal, VIV_BAD_INPUT, path,
                      "there is no config.json: nothing says what model this is");
  if (status == VIV_OK) status = viv__route(rt, c, path, NULL, &taken, &why, &refusal);
  viv__buf_str(&b, "{\"model\":");
  viv__buf_json(&b, viv__str(path));
  const viv_json *config = c ? viv__checkpoint_config(c) : NULL;
  viv__buf_str(&b, ",\"model_type\":");
  viv__buf_json(&b, viv__json_string(viv__json_get(config, "model_type")));
  viv__buf_str(&b, ",\"plugin\":");
  viv__buf_json(&b, viv__str(taken ? taken->id : ""));
  viv__buf_str(&b, ",\"problem\":");
  viv__buf_json(&b, viv__str(status < 0 ? refusal.message : ""));
  viv__buf_str(&b, ",\"where\":");
  viv__buf_json(&b, viv__str(status < 0 ? refusal.where : ""));
  viv__buf_str(&b, ",\"folders\":");
  folders_json(rt, &b);
  viv__buf_fmt(&b, ",\"candidates\":[%s]}", why.ptr ? why.ptr : "");
  pthread_mutex_unlock(&rt->lock);
  if (why.failed) b.failed = true;
  viv__buf_free(&why);
  viv__checkpoint_close(c);
  return viv__give_text(&b, json, error);
}
