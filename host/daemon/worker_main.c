/* The worker process: one model behind one socket, locked in before the first byte of it is read.
 *
 *   vivd --worker THREADS BUDGET PLUGINS PATH PARAMS      descriptor 3: the daemon
 *
 * PLUGINS, PATH and PARAMS may be empty. The daemon is trusted; its clients' bytes, which it passes
 * on, are not. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/worker.h"

enum { READABLE = 512, KEPT_BLOCK = 16 << 20 };

/* ---- before the first frame ---- */

typedef struct paths {
  const char *items[READABLE + 1];
  size_t n;
} paths;

static void add_path(paths *p, const char *path) {
  if (path && *path && p->n < READABLE) p->items[p->n++] = path;
}

/* A model's folder may be made of links into a store, as downloads are: what they name is the model's. */
static void add_model(paths *p, const char *path) {
  struct stat st;
  if (!*path) return;
  add_path(p, realpath(path, NULL));
  DIR *folder = !stat(path, &st) && S_ISDIR(st.st_mode) ? opendir(path) : NULL;
  for (struct dirent *e; folder && (e = readdir(folder));) {
    char *file = viv__path_join(path, e->d_name);
    if (file && e->d_type == DT_LNK && !stat(file, &st) && S_ISREG(st.st_mode))
      add_path(p, realpath(file, NULL));
    viv__free(file);
  }
  if (folder) closedir(folder);
  if (!S_ISDIR(st.st_mode)) { /* a file's companions lie beside it */
    char *beside = realpath(path, NULL), *slash = beside ? strrchr(beside, '/') : NULL;
    if (slash && slash != beside) {
      *slash = 0;
      add_path(p, beside);
    }
  }
}

static void add_plugins(paths *p, const char *plugins) {
  if (*plugins) {
    char *copy = strdup(plugins), *rest = copy;
    for (char *one; copy && (one = strsep(&rest, ":"));) add_path(p, one);
    return;
  }
  char exe[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
  char *slash = n > 0 ? memrchr(exe, '/', (size_t)n) : NULL;
  if (!slash) return;
  *slash = 0;
  static const char *const places[] = {"plugins", "vivarium/plugins", "../lib/vivarium/plugins"};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    add_path(p, viv__path_join(exe, places[i]));
  add_path(p, VIV_PREFIX "/lib/vivarium/plugins");
}

/* The file of a plugin and how late it may notice a cancel. */
static void find_plugin(state *s, const char *id, viv__buf *note) {
  viv_text list = {0};
  viv_json *json = NULL, *manifest = NULL;
  char hash[65] = "", *text = NULL;
  size_t len = 0;
  if (viv_plugins(s->rt, &list, NULL) < 0) return;
  viv__json_parse(list.ptr, list.len, "plugins", &json, NULL);
  viv_text_free(&list);
  const viv_json *plugins = viv__json_get(json, "plugins");
  for (int64_t i = 0; i < viv__json_count(plugins); i++) {
    const viv_json *p = viv__json_item(plugins, i);
    const char *file = viv__json_text(p, "file", "");
    if (strcmp(viv__json_text(p, "id", ""), id) || viv__hash_file(file, hash, NULL) < 0) continue;
    size_t stem = strlen(file) > 3 ? strlen(file) - 3 : 0;
    char *beside = viv__malloc(stem + 6);
    if (beside) snprintf(beside, stem + 6, "%.*s.json", (int)stem, file);
    if (beside && viv__read_file(beside, 1 << 20, &text, &len, NULL) >= 0)
      viv__json_parse(text, len, beside, &manifest, NULL);
    viv__buf_str(note, ",\"file\":");
    viv__buf_json(note, viv__str(file));
    viv__buf_fmt(note, ",\"sha256\":\"%s\",\"cancel_latency_ms\":%.0f", hash,
                 viv__json_num(manifest, "cancel_latency_ms", 0));
    viv__free(beside);
    viv__free(text);
    viv__json_free(manifest);
    break;
  }
  viv__json_free(json);
}

static void report(state *s, const char *path, const char *params, const char *sandbox) {
  viv__buf note = {0};
  viv_text plan = {0};
  viv_json *json = NULL;
  viv__buf_fmt(&note, "{\"sandbox\":%s", sandbox);
  if (*path && viv_plan(s->rt, path, *params ? params : NULL, &plan, NULL) >= 0) {
    viv__json_parse(plan.ptr, plan.len, "plan", &json, NULL);
    viv_text_free(&plan);
    const char *id = viv__json_text(json, "plugin", "");
    viv__buf_str(&note, ",\"plugin\":");
    viv__buf_json(&note, viv__str(id));
    viv__buf_fmt(&note, ",\"bytes\":%.0f",
                 viv__json_num(viv__json_get(json, "plan"), "needed_bytes", 0));
    find_plugin(s, id, &note);
    viv__json_free(json);
  }
  viv__buf_str(&note, "}");
  viv__link_put_buf(&s->link, VIV__WIRE_NOTE, 0, &note, -1);
}

int worker_main(int argc, char **argv) {
  static state s;
  static paths readable;
  if (argc != 7 || fcntl(DAEMON_FD, F_GETFL) < 0) {
    fprintf(stderr, "vivd --worker is for vivd alone to run\n");
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  /* What a job's inputs and results took is given back to the system only when it is much: to be given
   * its pages again takes longer than a small job. */
  mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK);
  mallopt(M_TRIM_THRESHOLD, 2 * KEPT_BLOCK);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGINT, SIG_IGN); /* of the terminal: the daemon decides */
  const char *plugins = argv[4], *path = argv[5], *params = argv[6];
  add_plugins(&readable, plugins);
  add_model(&readable, path);
  char *sandbox = sandbox_enter(readable.items);
  if (!sandbox) {
    fprintf(stderr, "the worker can't be locked in\n");
    return 1;
  }
  fcntl(DAEMON_FD, F_SETFL, fcntl(DAEMON_FD, F_GETFL) | O_NONBLOCK);
  fcntl(DAEMON_FD, F_SETFD, FD_CLOEXEC);
  viv__link_open(&s.link, DAEMON_FD);
  if (!(s.results = results_new())) return 1;
  viv_error error = VIV_ERROR_INIT;
  viv_options o = {.struct_size = sizeof o,
                   .threads = atoi(argv[2]),
                   .plugin_path = *plugins ? plugins : NULL,
                   .cache_dir = "/nonexistent",
                   .memory_budget = strtoull(argv[3], NULL, 10)};
  if (viv_open(&o, &s.rt, &error) < 0) {
    fprintf(stderr, "%s: %s\n", error.where, error.message);
    return 1;
  }
  report(&s, path, params, sandbox);
  viv__free(sandbox);
  serve(&s);
  while (s.n_jobs) drop_running(&s, &s.jobs[0]);
  drop_sessions(&s);
  viv_close(s.rt);
  prompts_end(&s);
  viv__link_close(&s.link);
  free(s.results);
  return 0;
}
