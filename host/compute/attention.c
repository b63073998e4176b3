/* attention: queries shared out over the pool by groups of heads and rows. */
#include "compute/internal.h"

/* Heads that read the same keys and values form a group. A task is one group over a few rows: what
 * it loads of a key serves all of them. Neighbouring groups of the same rows are run together. */
enum { MAX_HEADS = 1024, TASK_QUERIES = 32 };

struct attention {
  const viv__kernels *kernels;
  const viv_attention *a;
  int32_t groups, task_rows;
  int32_t head[MAX_HEADS];      /* sorted by group */
  int32_t begin[MAX_HEADS + 1]; /* of a group in head */
};

static void attention_tasks(void *ctx, int64_t begin, int64_t end) {
  const struct attention *s = ctx;
  const viv_attention *a = s->a;
  for (int64_t i = begin, next; i < end; i = next) {
    int64_t block = i / s->groups, first = block * s->task_rows;
    next = viv__min(end, (block + 1) * s->groups);
    int32_t head = s->begin[i % s->groups], heads = s->begin[(next - 1) % s->groups + 1] - head;
    int32_t row = (int32_t)first, stop = (int32_t)viv__min(a->rows, first + s->task_rows);
    while (row < stop) {
      int32_t same = row + 1;
      while (same < stop && a->kv[same] == a->kv[row]) same++;
      s->kernels->attention(a, s->head + head, heads, row, same);
      row = same;
    }
  }
}

static void group_heads(struct attention *s) {
  const viv_attention *a = s->a;
  int32_t group[MAX_HEADS];
  s->groups = 0;
  for (int32_t h = 0; h < a->heads; h++) {
    int32_t same = 0;
    while (same < h && (viv__k_offset(a, same) != viv__k_offset(a, h) ||
                        viv__v_offset(a, same) != viv__v_offset(a, h)))
      same++;
    group[h] = same < h ? group[same] : s->groups++;
  }
  int32_t n = 0;
  for (int32_t g = 0; g < s->groups; g++) {
    s->begin[g] = n;
    for (int32_t h = 0; h < a->heads; h++)
      if (group[h] == g) s->head[n++] = h;
  }
  s->begin[s->groups] = n;
}

static void attention(const viv_compute *c, const viv_attention *args) {
  struct attention s;
  s.kernels = viv__compute_of(c)->kernels;
  s.a = args;
  if (args->rows < 1 || args->heads < 1) return;
  if (args->heads > MAX_HEADS) { /* no model has so many: correct, but not shared out */
    for (int32_t r = 0; r < args->rows; r++)
      for (int32_t h = 0; h < args->heads; h++) s.kernels->attention(args, &h, 1, r, r + 1);
    return;
  }
  group_heads(&s);
  int32_t largest = 1;
  for (int32_t g = 0; g < s.groups; g++)
    largest = (int32_t)viv__max(largest, s.begin[g + 1] - s.begin[g]);
  s.task_rows = (int32_t)viv__max(1, TASK_QUERIES / largest);
  int64_t blocks = ((int64_t)args->rows + s.task_rows - 1) / s.task_rows;
  int64_t keys = args->visible[args->rows - 1];
  if (args->window > 0) keys = viv__min(keys, args->window);
  int64_t work = viv__min(args->rows, s.task_rows) * largest * args->head_dim * 2;
  int64_t grain = viv__grain(work * viv__min(keys, 1 << 20));
  if (args->rows <= s.task_rows) /* decoding: two runs of groups for each thread */
    grain = viv__max(grain, (s.groups + 2 * c->threads - 1) / (2 * c->threads));
  viv__parallel(c, blocks * s.groups, grain, attention_tasks, &s);
}

void viv__table_attention(viv_compute *t) {
  t->attention = attention;
}
