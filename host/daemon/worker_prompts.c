/* The worker's side of kept prompts: which there are, and handing new ones to the daemon.
 *
 * The worker may not open a file. What the daemon has kept, for this model and earlier, it gives as open files,
 * and it gets what is new as sealed memory. Files are read when a prompt begins as they do, and
 * what is in them is believed no more than what a client sends. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/worker.h"
#include "tasks/tokens.h"

enum { KEPT = 64, LONGEST = 1 << 20, LEAVING = 8 };

typedef struct kept {
  int fd; /* -1: the slot is free */
  int64_t n;
  int32_t *tokens; /* [n] */
  size_t bytes;
  uint64_t used; /* when, by the count of uses */
} kept;

struct prompts {
  viv__prompts table;
  pthread_mutex_t lock; /* the lists; may be taken within the state's */
  kept list[KEPT];
  int leaving[LEAVING]; /* for the daemon */
  int n_leaving;
  uint64_t uses;
};

static void forget(kept *k) {
  close(k->fd);
  viv__free(k->tokens);
  *k = (kept){.fd = -1};
}

static bool read_all(int fd, void *to, size_t n, size_t at) {
  for (size_t done = 0; done < n;) {
    ssize_t got = pread(fd, (char *)to + done, n - done, (off_t)(at + done));
    if (got <= 0) return false;
    done += (size_t)got;
  }
  return true;
}

static int64_t in_common(const kept *k, const int32_t *tokens, int64_t n) {
  int64_t i = 0;
  while (i < n && i < k->n && k->tokens[i] == tokens[i]) i++;
  return i;
}

static bool find(void *self, const int32_t *tokens, int64_t n, int64_t least, bool cut, char **data,
                 size_t *len) {
  prompts *p = self;
  kept *best = NULL;
  int64_t most = least - 1;
  pthread_mutex_lock(&p->lock);
  for (kept *k = p->list; k < p->list + KEPT; k++) {
    int64_t same = k->fd >= 0 ? in_common(k, tokens, n) : 0;
    if (same <= most || (same < k->n && !cut)) continue;
    most = same;
    best = k;
  }
  *data = best ? viv__malloc(best->bytes) : NULL;
  bool found = *data && read_all(best->fd, *data, best->bytes, 0);
  if (found) {
    best->used = ++p->uses;
    *len = best->bytes;
  } else if (*data) { /* it was cut, or can't be read any more */
    viv__free(*data);
    forget(best);
  }
  pthread_mutex_unlock(&p->lock);
  return found;
}

/* This thread executes the model, for which others wait with the state's lock: it must not wait for that. */
static void keep(void *self, const char *data, size_t len) {
  prompts *p = self;
  int fd = frozen_memory("vivarium-prompt", data, len);
  pthread_mutex_lock(&p->lock);
  bool room = fd >= 0 && p->n_leaving < LEAVING;
  if (room) p->leaving[p->n_leaving++] = fd;
  pthread_mutex_unlock(&p->lock);
  if (!room && fd >= 0) close(fd);
}

/* They come back as files once the daemon has kept them. */
void prompts_send(state *s) {
  prompts *p = s->prompts;
  if (!p) return;
  pthread_mutex_lock(&p->lock);
  for (int i = 0; i < p->n_leaving; i++) {
    viv__buf b = {0};
    int64_t bytes = viv__region_size(p->leaving[i], NULL);
    viv__wire_put_number(&b, (uint64_t)bytes);
    viv__link_put_buf(&s->link, VIV__WIRE_PROMPT, 0, &b, p->leaving[i]);
  }
  p->n_leaving = 0;
  pthread_mutex_unlock(&p->lock);
}

void prompts_begin(state *s, uint64_t most) {
  prompts *p = viv__calloc(1, sizeof *p);
  if (!p) return; /* prompts are read again then */
  for (int i = 0; i < KEPT; i++) p->list[i].fd = -1;
  p->table = (viv__prompts){.self = p, .most = most, .find = find, .keep = keep};
  viv__checkpoint_id(s->model->checkpoint, p->table.id);
  pthread_mutex_init(&p->lock, NULL);
  s->prompts = p;
  s->rt->prompts = &p->table;
}

/* A file of an older version of the model, or none at all, is not looked at again. */
static bool open_kept(const prompts *p, int fd, kept *k) {
  char head[VIV__SAVED_HEAD];
  struct stat st;
  if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < VIV__SAVED_HEAD ||
      (uint64_t)st.st_size > p->table.most || !read_all(fd, head, sizeof head, 0))
    return false;
  int64_t n = viv__saved_head(p->table.id, head);
  if (n < 1 || n > LONGEST || !(k->tokens = viv__malloc((size_t)n * sizeof *k->tokens)))
    return false;
  k->fd = fd;
  k->n = n;
  k->bytes = (size_t)st.st_size;
  if (read_all(fd, k->tokens, (size_t)n * sizeof *k->tokens, sizeof head)) return true;
  viv__free(k->tokens);
  return false;
}

void prompts_offer(state *s, int fd) {
  prompts *p = s->prompts;
  kept fresh = {.fd = -1};
  if (!p || fd < 0 || !open_kept(p, fd, &fresh)) {
    if (fd >= 0) close(fd);
    return;
  }
  pthread_mutex_lock(&p->lock);
  kept *slot = p->list;
  for (kept *k = p->list; k < p->list + KEPT && slot->fd >= 0; k++)
    if (k->fd < 0 || k->used < slot->used) slot = k;
  for (kept *k = p->list; k < p->list + KEPT; k++)
    if (k->fd >= 0 && k->n == fresh.n && in_common(k, fresh.tokens, fresh.n) == fresh.n) slot = k;
  if (slot->fd >= 0) forget(slot);
  fresh.used = ++p->uses;
  *slot = fresh;
  pthread_mutex_unlock(&p->lock);
}

void prompts_end(state *s) {
  prompts *p = s->prompts;
  if (!p) return;
  for (kept *k = p->list; k < p->list + KEPT; k++)
    if (k->fd >= 0) forget(k);
  while (p->n_leaving) close(p->leaving[--p->n_leaving]);
  pthread_mutex_destroy(&p->lock);
  viv__free(p);
  s->prompts = NULL;
}
