/* attention: queries shared out over the pool by groups of heads, rows and, for a long cache, splits
 * of its keys. */
#include "compute/internal.h"

/* Heads that read the same values form a group, and stand in it by the keys that they read. A task is
 * one group over a few rows: what it loads of a key serves all of them. Neighbouring groups of the
 * same rows are run together. */
enum { MAX_HEADS = 1024, FEW_QUERIES = 64, PART_FLOATS = 1 << 16 };

struct attention {
  const viv__kernels *kernels;
  const viv_attention *a;
  int32_t groups, task_rows;
  int32_t head[MAX_HEADS];      /* sorted by group */
  int32_t begin[MAX_HEADS + 1]; /* of a group in head */
  int64_t split, splits;        /* the first and their number, when keys are shared out */
  float *part;                  /* [splits, rows, heads, value_dim + 2] */
  int64_t part_size;            /* of one split */
};

/* Runs heads[0 .. n) over rows [row, stop), those of one viv_kv together. */
static void run_rows(const struct attention *s, const int32_t *heads, int32_t n, int32_t row,
                     int32_t stop, int64_t split, float *part) {
  while (row < stop) {
    int32_t same = row + 1;
    while (same < stop && s->a->kv[same] == s->a->kv[row]) same++;
    s->kernels->attention(s->a, heads, n, row, same, split, part);
    row = same;
  }
}

static void attention_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct attention *s = ctx;
  for (int64_t i = begin, next; i < end; i = next) {
    int64_t block = i / s->groups, first = block * s->task_rows;
    next = viv__min(end, (block + 1) * s->groups);
    int32_t head = s->begin[i % s->groups], heads = s->begin[(next - 1) % s->groups + 1] - head;
    run_rows(s, s->head + head, heads, (int32_t)first,
             (int32_t)viv__min(s->a->rows, first + s->task_rows), 0, NULL);
  }
}

static void group_heads(struct attention *s) {
  const viv_attention *a = s->a;
  bool taken[MAX_HEADS] = {false};
  int32_t n = 0;
  s->groups = 0;
  for (int32_t h = 0; h < a->heads; h++) {
    if (taken[h]) continue;
    s->begin[s->groups++] = n;
    for (int32_t g = h; g < a->heads; g++) {
      if (taken[g] || viv__v_offset(a, g) != viv__v_offset(a, h)) continue;
      for (int32_t i = g; i < a->heads; i++)
        if (!taken[i] && viv__same_kv(a, g, i)) {
          taken[i] = true;
          s->head[n++] = i;
        }
    }
  }
  s->begin[s->groups] = n;
}

/* ---- a long cache: splits of keys are summed by whoever is free, then added in order ---- */

static void split_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct attention *s = ctx;
  for (int64_t i = begin, next; i < end; i = next) {
    int64_t split = i / s->groups;
    next = viv__min(end, (split + 1) * s->groups);
    int32_t head = s->begin[i % s->groups], heads = s->begin[(next - 1) % s->groups + 1] - head;
    run_rows(s, s->head + head, heads, 0, s->a->rows, s->split + split,
             s->part + split * s->part_size);
  }
}

/* Its own function: the parts are large, and most calls need none. */
static __attribute__((noinline)) void attention_split(const viv_compute *c, struct attention *s,
                                                      int64_t grain) {
  float part[PART_FLOATS];
  const viv_attention *a = s->a;
  int64_t dim = s->part_size / a->rows / a->heads;
  s->part = part;
  viv__parallel(c, s->splits * s->groups, grain, split_tasks, s);
  for (int32_t r = 0; r < a->rows; r++)
    for (int32_t h = 0; h < a->heads; h++)
      s->kernels->attention_merge(a, h, r, part + (r * a->heads + h) * dim, s->part_size,
                                  s->splits);
}

/* Sets the splits that the rows see; false: keys are not worth sharing out. */
static bool worth_splitting(const viv_compute *c, struct attention *s, int64_t tasks) {
  const viv_attention *a = s->a;
  int64_t first = INT64_MAX, last = 0, size = viv__split_keys(a);
  if (c->threads < 2 || a->rows > FEW_QUERIES || tasks >= c->threads * 8) return false;
  for (int32_t r = 0; r < a->rows; r++) {
    int64_t end = a->visible[r], begin = a->window > 0 ? viv__max(0, end - a->window) : 0;
    if (begin >= end) continue;
    first = viv__min(first, begin / size);
    last = viv__max(last, (end - 1) / size + 1);
  }
  if (first >= last) return false;
  s->split = first;
  s->splits = last - first;
  s->part_size = (int64_t)a->rows * a->heads * ((a->value_dim ? a->value_dim : a->head_dim) + 2);
  return s->splits > 1 && s->part_size <= PART_FLOATS / s->splits;
}

static void attention(const viv_compute *c, const viv_attention *args) {
  struct attention s;
  s.kernels = viv__compute_of(c)->kernels;
  s.a = args;
  if (args->rows < 1 || args->heads < 1) return;
  if (args->heads > MAX_HEADS) { /* no model has so many: correct, but not shared out */
    for (int32_t r = 0; r < args->rows; r++)
      for (int32_t h = 0; h < args->heads; h++)
        s.kernels->attention(args, &h, 1, r, r + 1, 0, NULL);
    return;
  }
  group_heads(&s);
  int32_t largest = 1;
  for (int32_t g = 0; g < s.groups; g++)
    largest = (int32_t)viv__max(largest, s.begin[g + 1] - s.begin[g]);
  /* Many queries for each task, so that keys are turned seldom, but several tasks for each thread. */
  int64_t queries = VIV__TASK_QUERIES, blocks;
  do {
    s.task_rows = (int32_t)viv__max(1, queries / largest);
    blocks = ((int64_t)args->rows + s.task_rows - 1) / s.task_rows;
    queries /= 2;
  } while (queries >= FEW_QUERIES && blocks * s.groups < c->threads * 8);
  int64_t keys = args->visible[args->rows - 1];
  if (args->window > 0) keys = viv__min(keys, args->window);
  int64_t work = viv__min(args->rows, s.task_rows) * largest * args->head_dim * 2;
  if (worth_splitting(c, &s, blocks * s.groups)) {
    attention_split(c, &s, viv__grain(work * VIV__KEY_SPLIT));
    return;
  }
  int64_t grain = viv__grain(work * viv__min(keys, 1 << 20));
  if (args->rows <= s.task_rows) /* decoding: two runs of groups for each thread */
    grain = viv__max(grain, (s.groups + 2 * c->threads - 1) / (2 * c->threads));
  viv__parallel(c, blocks * s.groups, grain, attention_tasks, &s);
}

void viv__table_attention(viv_compute *t) {
  t->attention = attention;
}
