/* Prompts that models have read, kept on disk: STATE/prompts/MODEL/FILE, MODEL standing for path, parameters
 * and plugin, so that no model's worker writes what another's will read. What is in a file is the worker's
 * business (worker_prompts.c). Files are written beside the loop and appear whole; together they
 * take at most prompt_cache_bytes, the oldest go first. */
#include "daemon/daemon.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { GIVEN = 64, KEEPING = 4, LEFT_S = 60 };

uint64_t prompts_most(const vivd *d) {
  return d->config.state_dir ? d->config.prompt_bytes / 4 : 0;
}

/* viv__free; NULL: no memory. */
static char *folder_of(const vivd *d, const model *m) {
  viv__buf b = {0};
  char hash[65] = "";
  viv__buf_fmt(&b, "%s\n%s\n%s", m->path, m->params, m->plugin_hash);
  if (!b.failed) viv__hash_bytes(b.ptr, b.len, hash);
  viv__buf_free(&b);
  viv__buf_fmt(&b, "%s/prompts/%.32s", d->config.state_dir, hash);
  if (!*hash || b.failed) viv__buf_free(&b);
  return b.ptr;
}

/* ---- files ---- */

typedef struct file {
  char *path;
  uint64_t bytes;
  struct timespec written;
} file;

typedef struct files {
  file *list;
  size_t n, cap;
} files;

static void add_file(files *all, char *path, const struct stat *st) {
  if (all->n == all->cap) {
    size_t cap = all->cap ? 2 * all->cap : 64;
    file *grown = viv__realloc(all->list, cap * sizeof *grown);
    if (!grown) {
      viv__free(path);
      return;
    }
    all->list = grown;
    all->cap = cap;
  }
  all->list[all->n++] = (file){path, (uint64_t)st->st_size, st->st_mtim};
}

/* The regular files of a folder, and of the folders in it when deep. */
static void list_folder(files *all, const char *folder, bool deep) {
  DIR *dir = opendir(folder);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    struct stat st;
    if (e->d_name[0] == '.') continue;
    char *path = viv__path_join(folder, e->d_name);
    if (path && !lstat(path, &st) && S_ISREG(st.st_mode)) {
      add_file(all, path, &st);
      continue;
    }
    if (path && deep && S_ISDIR(st.st_mode)) list_folder(all, path, false);
    viv__free(path);
  }
  if (dir) closedir(dir);
}

static int newest_first(const void *a, const void *b) {
  const struct timespec *x = &((const file *)a)->written, *y = &((const file *)b)->written;
  if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? 1 : -1;
  return x->tv_nsec < y->tv_nsec ? 1 : x->tv_nsec > y->tv_nsec ? -1 : 0;
}

static void free_files(files *all) {
  for (size_t i = 0; i < all->n; i++) viv__free(all->list[i].path);
  viv__free(all->list);
}

static bool ends_in(const char *path, const char *end) {
  size_t n = strlen(path), k = strlen(end);
  return n >= k && !strcmp(path + n - k, end);
}

/* Down to so many bytes, and without what a daemon that was killed had half written. */
static void tidy(const char *root, uint64_t most) {
  files all = {0};
  uint64_t sum = 0;
  list_folder(&all, root, true);
  if (all.n) qsort(all.list, all.n, sizeof *all.list, newest_first);
  for (size_t i = 0; i < all.n; i++) {
    const file *f = &all.list[i];
    bool left = ends_in(f->path, ".tmp");
    if (left ? time(NULL) - f->written.tv_sec > LEFT_S : sum + f->bytes > most)
      unlink(f->path);
    else
      sum += f->bytes;
  }
  free_files(&all);
}

/* ---- to a worker ---- */

static void give(worker *w, const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
  if (fd >= 0 && (fstat(fd, &st) || !S_ISREG(st.st_mode))) {
    close(fd);
    fd = -1;
  }
  if (fd < 0) return;
  viv__buf b = {0};
  viv__wire_put_number(&b, (uint64_t)st.st_size);
  peer_send(&w->peer, VIV__WIRE_PROMPT, 0, &b, fd);
}

void prompts_give(worker *w) {
  files all = {0};
  char *folder = prompts_most(w->d) ? folder_of(w->d, w->model) : NULL;
  if (folder) list_folder(&all, folder, false);
  if (all.n) qsort(all.list, all.n, sizeof *all.list, newest_first);
  /* The newest last: it is what the worker keeps longest. */
  for (size_t i = all.n < GIVEN ? all.n : GIVEN; i > 0; i--)
    if (ends_in(all.list[i - 1].path, ".prompt")) give(w, all.list[i - 1].path);
  free_files(&all);
  viv__free(folder);
}

/* ---- to the disk ---- */

typedef struct keeping {
  uv_work_t work;
  vivd *d;
  uint64_t worker, bytes, most;
  int fd;
  bool kept;
  viv_error error;
  char *root, *folder, *path;
} keeping;

static void free_keeping(keeping *k) {
  if (k->fd >= 0) close(k->fd);
  viv__free(k->root);
  viv__free(k->folder);
  viv__free(k->path);
  free(k);
}

static void on_work(uv_work_t *work) {
  keeping *k = work->data;
  k->error = (viv_error)VIV_ERROR_INIT;
  if ((mkdir(k->root, 0700) && errno != EEXIST) || (mkdir(k->folder, 0700) && errno != EEXIST)) {
    VIV_FAIL(&k->error, VIV_NOT_NOW, k->folder, "can't be made: %s", strerror(errno));
    return;
  }
  void *at = mmap(NULL, k->bytes, PROT_READ, MAP_SHARED, k->fd, 0);
  if (at == MAP_FAILED) {
    VIV_FAIL(&k->error, VIV_NOT_NOW, k->path, "what is to be kept can't be mapped");
    return;
  }
  k->kept = viv__write_file(k->path, at, k->bytes, &k->error) >= 0;
  munmap(at, k->bytes);
  tidy(k->root, k->most);
}

static void after_work(uv_work_t *work, int status) {
  keeping *k = work->data;
  worker *w = worker_by_serial(k->d, k->worker);
  k->d->n_keeping--;
  if (!k->kept && !status)
    log_fields(k->d, VIV_LOG_WARN, "prompt", k->error.message, "file", k->error.where, NULL);
  if (k->kept && w && w->state == WORKER_READY) give(w, k->path);
  free_keeping(k);
}

bool prompts_take(worker *w, const viv__frame *f, int fd, viv_error *error) {
  vivd *d = w->d;
  uint64_t bytes = 0;
  int32_t status = viv__wire_number_read(f, &bytes, error);
  if (status >= 0 && fd < 0)
    status = VIV_FAIL(error, VIV_BUG, "PROMPT", "came without a descriptor");
  if (status >= 0) status = viv__region_check(fd, bytes, true, error);
  /* Under a flood of prompts some are read again later. */
  bool wanted = status >= 0 && bytes && bytes <= prompts_most(d) && w->model &&
                d->n_keeping < KEEPING && !d->stopping;
  keeping *k = wanted ? calloc(1, sizeof *k) : NULL;
  if (!k) {
    if (fd >= 0) close(fd);
    return status >= 0;
  }
  char name[64];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(name, sizeof name, "%lld%09ld-%llu.prompt", (long long)now.tv_sec, now.tv_nsec,
           (unsigned long long)w->serial);
  *k = (keeping){
      .d = d, .worker = w->serial, .bytes = bytes, .most = d->config.prompt_bytes, .fd = fd};
  k->work.data = k;
  k->root = viv__path_join(d->config.state_dir, "prompts");
  k->folder = folder_of(d, w->model);
  k->path = k->folder ? viv__path_join(k->folder, name) : NULL;
  if (!k->root || !k->path || uv_queue_work(&d->loop, &k->work, on_work, after_work))
    free_keeping(k);
  else
    d->n_keeping++;
  return true;
}
