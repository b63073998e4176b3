/* What a job was that its worker died of: a file from which `viv replay` runs it again.
 *
 *   magic "VIVJOB1\n" | u32 bytes, path of the model | u32 bytes, its parameters | a SUBMIT's payload
 *
 * Little endian; inputs that lay in a pool stand in the payload. The newest few are kept, readable by the
 * daemon's own user alone. */
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"

enum { KEPT = 16 };
#define MOST ((uint64_t)64 << 20)

/* The bytes of an input that lies in a pool, which the client leaves alone until the job's END. NULL: they
 * can't be had. */
static char *from_pool(const job *j, const viv__wire_value *v) {
  const pool *p = NULL;
  for (int i = 0; i < POOLS; i++)
    if (j->client->pools[i].fd >= 0 && j->client->pools[i].number == v->pool)
      p = &j->client->pools[i];
  char *bytes = p ? viv__malloc(v->bytes.len + 1) : NULL;
  for (uint64_t at = 0; bytes && at < v->bytes.len;) {
    ssize_t n = pread(p->fd, bytes + at, v->bytes.len - at, (off_t)(v->offset + at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      viv__free(bytes);
      return NULL;
    }
    at += (uint64_t)n;
  }
  return bytes;
}

static void put_text(viv__buf *b, const char *text) {
  uint32_t n = htole32((uint32_t)strlen(text));
  viv__buf_add(b, &n, sizeof n);
  viv__buf_str(b, text);
}

static bool describe(const job *j, viv__buf *out) {
  static viv__wire_submit m; /* large, and the loop has one thread */
  char *copies[VIV__WIRE_INPUTS];
  uint32_t n = 0;
  uint64_t sum = 0;
  viv__frame f = {.type = VIV__WIRE_SUBMIT, .length = j->length, .payload = j->payload};
  bool good = viv__wire_submit_read(&f, &m, NULL) >= 0;
  for (uint32_t i = 0; good && i < m.n_inputs; i++) {
    viv__wire_value *v = &m.inputs[i];
    good = (sum += v->bytes.len) <= MOST;
    if (!good || v->where != VIV__WIRE_IN_POOL) continue;
    copies[n] = from_pool(j, v);
    good = copies[n] != NULL;
    v->bytes.ptr = copies[n];
    v->where = VIV__WIRE_HERE;
    v->pool = v->offset = 0;
    if (good) n++;
  }
  m.session = 0;
  m.deadline_ms = 0;
  if (good) {
    viv__buf_add(out, "VIVJOB1\n", 8);
    put_text(out, j->model->path);
    put_text(out, j->model->params);
    viv__wire_put_submit(out, &m);
  }
  while (n) viv__free(copies[--n]);
  return good && !out->failed;
}

static int only_jobs(const struct dirent *e) {
  size_t n = strlen(e->d_name);
  return n > 4 && !strcmp(e->d_name + n - 4, ".job");
}

/* Names begin with the time, so that the oldest come first. */
static void prune(const char *folder) {
  struct dirent **list = NULL;
  int n = scandir(folder, &list, only_jobs, alphasort);
  for (int i = 0; i < n; i++) {
    char *path = i < n - KEPT ? viv__path_join(folder, list[i]->d_name) : NULL;
    if (path) unlink(path);
    viv__free(path);
    free(list[i]);
  }
  free(list);
}

char *replay_write(const job *j) {
  vivd *d = j->model->d;
  viv__buf b = {0};
  char name[64], *folder = NULL, *path = NULL;
  /* Others could not read it, and need not know of it; what came by a stream has gone. */
  if (!j->payload || j->n_streams || !j->client || !d->config.state_dir ||
      (j->client->uid && j->client->uid != geteuid()))
    return NULL;
  folder = viv__path_join(d->config.state_dir, "replay");
  if (folder && (!mkdir(folder, 0700) || errno == EEXIST) && describe(j, &b)) {
    snprintf(name, sizeof name, "%011lld-%llu.job", (long long)time(NULL),
             (unsigned long long)j->id);
    path = viv__path_join(folder, name);
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    size_t at = 0;
    while (fd >= 0 && at < b.len) {
      ssize_t n = write(fd, b.ptr + at, b.len - at);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) break;
      at += (size_t)n;
    }
    if (fd >= 0) close(fd);
    if (fd < 0 || at < b.len) { /* no space is no reason to tell of half a file */
      if (fd >= 0) unlink(path);
      viv__free(path);
      path = NULL;
    }
    prune(folder);
  }
  viv__buf_free(&b);
  viv__free(folder);
  return path;
}
