/* Loading a plugin's shared object, and what is remembered about files between processes.
 *
 * A shared object whose content was never seen is entered in a child process first: a plugin that
 * crashes, hangs or exits there is quarantined by content hash and never entered here. Changing the
 * file lifts the quarantine, since its hash changes. Once loaded, an object is never unloaded. */
#include "core/core.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PROBE_MS = 5000 };

/* ---- the cache file: {"files": {path: {"stamp", "sha256"}}, "verdicts": {sha256: reason or ""}} ---- */

static cJSON *section(viv_runtime *rt, const char *name) {
  if (!rt->cache) {
    char *path = rt->cache_dir ? viv__path_join(rt->cache_dir, "plugins.json") : NULL;
    char *text = NULL;
    size_t len = 0;
    if (path && viv__read_file(path, 16 << 20, &text, &len, NULL) == VIV_OK)
      viv__json_parse(text, len, path, &rt->cache, NULL); /* a broken cache is started anew */
    viv__free(text);
    viv__free(path);
    if (viv__json_type(rt->cache) != VIV_JSON_OBJECT) {
      viv__json_free(rt->cache);
      rt->cache = (viv_json *)cJSON_CreateObject();
    }
  }
  cJSON *root = (cJSON *)rt->cache;
  cJSON *s = root ? cJSON_GetObjectItemCaseSensitive(root, name) : NULL;
  if (root && !cJSON_IsObject(s)) {
    cJSON_DeleteItemFromObjectCaseSensitive(root, name);
    s = cJSON_AddObjectToObject(root, name);
  }
  return s;
}

static void cache_write(viv_runtime *rt) {
  char *path = rt->cache_dir ? viv__path_join(rt->cache_dir, "plugins.json") : NULL;
  char *text = path && rt->cache ? cJSON_PrintUnformatted((cJSON *)rt->cache) : NULL;
  if (text && viv__write_file(path, text, strlen(text), NULL) < 0)
    viv__logf(&rt->log, VIV_LOG_INFO, "the plugin cache %s can't be written", path);
  cJSON_free(text);
  viv__free(path);
}

/* SHA-256 of a file, from the cache while its stamp is the same. */
static int32_t cache_hash(viv_runtime *rt, const char *path, char hash[65], viv_error *error) {
  hash[0] = 0;
  struct stat st;
  if (stat(path, &st))
    return VIV_FAIL(error, VIV_NEVER, path, "can't be read: %s", strerror(errno));
  char stamp[96];
  snprintf(stamp, sizeof stamp, "%lld:%lld:%lld.%09ld", (long long)st.st_ino, (long long)st.st_size,
           (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  cJSON *files = section(rt, "files");
  cJSON *known = files ? cJSON_GetObjectItemCaseSensitive(files, path) : NULL;
  const viv_json *row = (const viv_json *)known;
  const char *sha = viv__json_text(row, "sha256", "");
  if (!strcmp(viv__json_text(row, "stamp", ""), stamp) && strlen(sha) == 64) {
    memcpy(hash, sha, 65);
    return VIV_OK;
  }
  int32_t status = viv__hash_file(path, hash, error);
  if (status < 0) hash[0] = 0;
  if (status < 0 || !files) return status;
  cJSON_DeleteItemFromObjectCaseSensitive(files, path);
  cJSON *fresh = cJSON_AddObjectToObject(files, path);
  if (fresh) {
    cJSON_AddStringToObject(fresh, "stamp", stamp);
    cJSON_AddStringToObject(fresh, "sha256", hash);
  }
  cache_write(rt); /* a rebuilt file of known content is hashed once, not at every start */
  return VIV_OK;
}

/* 1: probed and good, -1: quarantined (reason is filled), 0: unknown. */
static int cache_verdict(viv_runtime *rt, const char *hash, char *reason, size_t cap) {
  const viv_json *verdicts = (const viv_json *)section(rt, "verdicts");
  const char *text = hash[0] ? viv__json_text(verdicts, hash, NULL) : NULL;
  if (!text) return 0;
  snprintf(reason, cap, "%s", text);
  return *text ? -1 : 1;
}

static void cache_store(viv_runtime *rt, const char *hash, bool good, const char *reason) {
  cJSON *verdicts = section(rt, "verdicts");
  if (!verdicts || !hash[0]) return;
  cJSON_DeleteItemFromObjectCaseSensitive(verdicts, hash);
  cJSON_AddStringToObject(verdicts, hash, good ? "" : *reason ? reason : "failed");
  cache_write(rt);
}

/* ---- entering ---- */

/* dlopen and entry, with the checks that make a table safe to use. */
static const viv_plugin *enter(viv_runtime *rt, const char *so_path, viv_error *error) {
  errno = 0;
  void *handle = dlopen(so_path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    VIV_FAIL(error, viv__is_short(errno) ? VIV_NOT_NOW : VIV_NEVER, so_path, "can't be loaded: %s",
             dlerror());
    return NULL;
  }
  void *symbol = dlsym(handle, "viv_plugin_entry");
  if (!symbol) {
    VIV_FAIL(error, VIV_NEVER, so_path, "exports no viv_plugin_entry");
    return NULL;
  }
  viv_plugin_entry_fn entry;
  memcpy(&entry, &symbol, sizeof entry);
  viv_error why = VIV_ERROR_INIT;
  const viv_plugin *table = entry(&rt->host, &why);
  if (!table)
    VIV_FAIL(error, VIV_NEVER, so_path, "refused this host (ABI %d.%d): %s", VIV_ABI_MAJOR,
             VIV_ABI_MINOR, why.message[0] ? why.message : "it gave no reason");
  else if (!VIV_HAS(table, get_interface) || !table->get_interface)
    VIV_FAIL(
        error, VIV_NEVER, so_path,
        "its plugin table has %u bytes, shorter than version 1 of the ABI, or no get_interface",
        table->struct_size);
  else if (table->abi_major != VIV_ABI_MAJOR)
    VIV_FAIL(error, VIV_NEVER, so_path, "answered with ABI %u.%u; this host speaks %d.0 to %d.%d",
             table->abi_major, table->abi_minor, VIV_ABI_MAJOR, VIV_ABI_MAJOR, VIV_ABI_MINOR);
  else if (!table->id.ptr || !table->id.len)
    VIV_FAIL(error, VIV_NEVER, so_path, "its plugin table has no id");
  else
    return table;
  return NULL;
}

/* The child: everything that the first contact runs, then one line on the pipe. */
static void probe_child(viv_runtime *rt, const char *so_path, int fd) {
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  viv__thread_role(VIV_THREAD_SCAN);
  viv_error error = VIV_ERROR_INIT;
  const viv_plugin *table = enter(rt, so_path, &error);
  if (table) {
    if (VIV_HAS(table, init) && table->init) table->init(&rt->host, &error);
    table->get_interface(viv__str(VIV_MODEL_ID));
    table->get_interface(viv__str("viv.no-such-interface/1"));
  }
  /* A refusal is an answer, not a crash: the parent hears it again when it enters by itself. */
  const char ok = 'k';
  ssize_t n;
  do n = write(fd, &ok, 1);
  while (n < 0 && errno == EINTR);
  if (n < 0) _exit(3);
  _exit(0);
}

/* Enters the object in a child with a time limit. False: it crashed, hung or exited; reason says. */
static bool probe(viv_runtime *rt, const char *so_path, char *reason, size_t cap) {
  int fds[2];
  if (pipe(fds)) return true; /* no descriptors: the probe can't be made, which proves nothing */
  pid_t child = fork();
  if (child < 0) {
    close(fds[0]);
    close(fds[1]);
    return true;
  }
  if (child == 0) {
    close(fds[0]);
    probe_child(rt, so_path, fds[1]);
  }
  close(fds[1]);
  struct pollfd p = {.fd = fds[0], .events = POLLIN};
  uint64_t until = viv__now_ns() + (uint64_t)PROBE_MS * 1000000u;
  int ready;
  do {
    uint64_t now = viv__now_ns();
    ready = poll(&p, 1, now >= until ? 0 : (int)((until - now) / 1000000u) + 1);
  } while (ready < 0 && errno == EINTR);
  char answer = 0;
  ssize_t n = 0;
  do n = ready > 0 ? read(fds[0], &answer, 1) : 0;
  while (n < 0 && errno == EINTR);
  bool answered =
      n < 0 || (n == 1 && answer == 'k'); /* an answer that can't be read proves nothing */
  close(fds[0]);
  if (!answered && ready == 0) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (answered) return true;
  if (ready == 0)
    snprintf(reason, cap, "hung for %d s while it was loaded", PROBE_MS / 1000);
  else if (WIFSIGNALED(status))
    snprintf(reason, cap, "crashed while it was loaded: %s", strsignal(WTERMSIG(status)));
  else
    snprintf(reason, cap, "ended the process with status %d while it was loaded",
             WEXITSTATUS(status));
  return false;
}

/* Only the owner of this process or root may have written what is loaded into it. */
static int32_t check_owner(const char *so_path, viv_error *error) {
  struct stat st;
  if (stat(so_path, &st))
    return VIV_FAIL(error, VIV_NEVER, so_path, "can't be read: %s", strerror(errno));
  if (!S_ISREG(st.st_mode)) return VIV_FAIL(error, VIV_NEVER, so_path, "is not a regular file");
  if (st.st_uid != 0 && st.st_uid != geteuid())
    return VIV_FAIL(error, VIV_NEVER, so_path, "belongs to user %u, neither root nor you",
                    st.st_uid);
  if (st.st_mode & S_IWOTH)
    return VIV_FAIL(error, VIV_NEVER, so_path, "anybody may write to it (mode %o): chmod o-w",
                    st.st_mode & 07777);
  return VIV_OK;
}

/* An interface of at least the fields up to its last function; NULL when absent. */
#define GET(table, id, type, last)                                                                 \
  ({                                                                                               \
    const type *api_ = (const type *)(table)->get_interface(viv__str(id));                         \
    api_ &&VIV_HAS(api_, last) ? api_ : NULL;                                                      \
  })

static int32_t load(viv_runtime *rt, viv__plugin *p, viv_error *error) {
  int32_t status = check_owner(p->so_path, error);
  if (status < 0) return status;
  char hash[65], reason[256] = "";
  status = cache_hash(rt, p->so_path, hash, error);
  if (status == VIV_NOT_NOW) return status;
  /* A manifest may be signed with the hash of the object that it was made for. */
  const char *signature = viv__json_text(p->manifest, "sha256", "");
  if (*signature && strcmp(signature, hash))
    return VIV_FAIL(error, VIV_NEVER, p->so_path,
                    "signature: the manifest was made for content %.12s..., the file has %.12s...",
                    signature, hash);
  int verdict = cache_verdict(rt, hash, reason, sizeof reason);
  if (verdict == 0) {
    bool good = probe(rt, p->so_path, reason, sizeof reason);
    cache_store(rt, hash, good, reason);
    verdict = good ? 1 : -1;
  }
  if (verdict < 0)
    return VIV_FAIL(error, VIV_NEVER, p->so_path,
                    "quarantined (content %.12s...): it %s. Another build of it will be tried",
                    hash, reason);
  const viv_plugin *table = enter(rt, p->so_path, error);
  if (!table) return error ? error->code : VIV_NEVER;
  if (!viv__str_eq(table->id, p->id))
    return VIV_FAIL(error, VIV_NEVER, p->so_path, "its id is \"%.*s\", the manifest says \"%s\"",
                    (int)table->id.len, table->id.ptr, p->id);
  if (VIV_HAS(table, init) && table->init && table->init(&rt->host, error) < 0)
    return VIV_FAIL(error, VIV_NEVER, p->so_path, "its init failed: %s",
                    error ? error->message : "");
  p->table = table;
  p->model = GET(table, VIV_MODEL_ID, viv_model_api, job_end);
  p->token = GET(table, VIV_TOKEN_MODEL_ID, viv_token_api, eval);
  p->strategy = GET(table, VIV_STRATEGY_ID, viv_strategy_api, destroy);
  p->explain = GET(table, VIV_EXPLAIN_ID, viv_explain_api, kinds);
  p->state = VIV__LOADED;
  return VIV_OK;
}

int32_t viv__plugin_load(viv_runtime *rt, viv__plugin *p, viv_error *error) {
  if (p->state == VIV__LOADED) return VIV_OK;
  if (p->state == VIV__REFUSED)
    return VIV_FAIL(error, VIV_NEVER, p->so_path, "%s", p->reason ? p->reason : "refused");
  viv_error why = VIV_ERROR_INIT;
  int32_t role = viv__thread_role(VIV_THREAD_SCAN);
  int32_t status = load(rt, p, &why);
  viv__thread_role(role);
  if (status == VIV_NOT_NOW) { /* the next one may have more luck */
    if (error && VIV_HAS(error, message)) *error = why;
  } else if (status < 0) {
    p->state = VIV__REFUSED;
    p->reason = viv__strdup(why.message);
    viv__logf(&rt->log, VIV_LOG_WARN, "plugin %s refused: %s", p->so_path, why.message);
    if (error && VIV_HAS(error, message)) *error = why;
  }
  return status;
}
