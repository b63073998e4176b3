/* Walking the network with all stacks at once, remembering every state and step.
 *
 * A frame is a state of the network and the frame to return to; frames are unique, so a number names
 * a whole stack. A situation is the sorted set of frames that wait for a byte, unique too; what a
 * byte leads to and which tokens may follow is kept with it. When the memory for situations is full
 * everything but the present one is forgotten. */
#include <string.h>

#include "grammar/internal.h"
#include "grammar/trie.h"

enum { MAX_SITUATIONS = 1 << 15, MAX_FRAMES = 1 << 20, MAX_MASK_BYTES = 64 << 20, DEAD = 0 };
enum { UNKNOWN = -1, NO_RETURN = -1 };

typedef struct frame {
  int32_t state, up;
} frame;

typedef struct situation {
  int32_t first, n; /* frames at pool + first */
  int32_t *step;    /* [256] situation after a byte, or UNKNOWN; NULL: none asked for yet */
  uint64_t *mask;   /* NULL: not yet */
  bool complete;
} situation;

struct viv__matcher {
  const viv__grammar *g;
  const viv__token_trie *trie;
  frame *frames;
  int32_t n_frames, cap_frames;
  int32_t *frame_index; /* open addressing, [cap_frame_index] */
  int32_t cap_frame_index;
  situation *all; /* 0 is the dead one */
  int32_t n_all, cap_all;
  int32_t *index; /* open addressing over situations */
  int32_t cap_index;
  int32_t *pool;
  int32_t n_pool, cap_pool;
  int32_t *work; /* frames to close over; the set in the making */
  int32_t n_work, cap_work;
  bool complete; /* of the set in the making */
  int32_t now;
  size_t mask_bytes;
  bool failed;
};

static bool grow(viv__matcher *m, void **array, int32_t *cap, int32_t need, size_t size) {
  if (need <= *cap) return true;
  int32_t wider = *cap ? *cap : 64;
  while (wider < need) wider *= 2;
  void *grown = viv__realloc(*array, (size_t)wider * size);
  if (!grown) {
    m->failed = true;
    return false;
  }
  *array = grown;
  *cap = wider;
  return true;
}

static uint32_t mix(uint32_t a, uint32_t b) {
  uint64_t x = ((uint64_t)a << 32 | b) * 0x9e3779b97f4a7c15u;
  return (uint32_t)(x >> 29) ^ (uint32_t)x;
}

/* ---- frames ---- */

static bool rehash_frames(viv__matcher *m) {
  int32_t cap = m->cap_frame_index ? 2 * m->cap_frame_index : 1024;
  int32_t *index = viv__malloc((size_t)cap * sizeof *index);
  if (!index) {
    m->failed = true;
    return false;
  }
  memset(index, -1, (size_t)cap * sizeof *index);
  for (int32_t i = 0; i < m->n_frames; i++) {
    uint32_t h = mix((uint32_t)m->frames[i].state, (uint32_t)m->frames[i].up) & (uint32_t)(cap - 1);
    while (index[h] >= 0) h = (h + 1) & (uint32_t)(cap - 1);
    index[h] = i;
  }
  viv__free(m->frame_index);
  m->frame_index = index;
  m->cap_frame_index = cap;
  return true;
}

static int32_t frame_of(viv__matcher *m, int32_t state, int32_t up) {
  if (m->failed || (2 * m->n_frames >= m->cap_frame_index && !rehash_frames(m))) return 0;
  uint32_t wrap = (uint32_t)(m->cap_frame_index - 1), h = mix((uint32_t)state, (uint32_t)up) & wrap;
  for (; m->frame_index[h] >= 0; h = (h + 1) & wrap) {
    const frame *f = &m->frames[m->frame_index[h]];
    if (f->state == state && f->up == up) return m->frame_index[h];
  }
  if (m->n_frames >= MAX_FRAMES) {
    m->failed = true;
    return 0;
  }
  if (!grow(m, (void **)&m->frames, &m->cap_frames, m->n_frames + 1, sizeof *m->frames)) return 0;
  m->frames[m->n_frames] = (frame){state, up};
  m->frame_index[h] = m->n_frames;
  return m->n_frames++;
}

/* ---- situations ---- */

static void work_add(viv__matcher *m, int32_t f) {
  for (int32_t i = 0; i < m->n_work; i++)
    if (m->work[i] == f) return;
  if (grow(m, (void **)&m->work, &m->cap_work, m->n_work + 1, sizeof *m->work))
    m->work[m->n_work++] = f;
}

/* Adds what is reached without reading. A call whose return has nothing left to do returns to where
 * its caller would, so that recursion at the end of a rule needs no stack. */
static void close_over(viv__matcher *m) {
  const viv__grammar *g = m->g;
  m->complete = false;
  for (int32_t i = 0; i < m->n_work && !m->failed; i++) {
    frame f = m->frames[m->work[i]];
    if (g->first[f.state] < 0) { /* the end of a rule */
      if (f.up == NO_RETURN)
        m->complete = true;
      else
        work_add(m, f.up);
      continue;
    }
    for (int32_t e = g->first[f.state]; e >= 0 && !m->failed; e = g->edges[e].next) {
      const viv__edge *edge = &g->edges[e];
      if (edge->kind == VIV__EDGE_EMPTY) {
        work_add(m, frame_of(m, edge->to, f.up));
      } else if (edge->kind == VIV__EDGE_RULE) {
        int32_t back = edge->to;
        for (int32_t k = g->first[back]; k >= 0; k = g->first[back]) { /* a chain to the end? */
          if (g->edges[k].kind != VIV__EDGE_EMPTY || g->edges[k].next >= 0) break;
          back = g->edges[k].to;
        }
        int32_t up = g->first[back] < 0 ? f.up : frame_of(m, back, f.up);
        work_add(m, frame_of(m, g->rules[edge->rule].start, up));
      }
    }
  }
}

static bool reads(const viv__grammar *g, int32_t state) {
  for (int32_t e = g->first[state]; e >= 0; e = g->edges[e].next)
    if (g->edges[e].kind == VIV__EDGE_BYTES) return true;
  return false;
}

static uint32_t hash_set(const int32_t *set, int32_t n, bool complete) {
  uint32_t h = complete;
  for (int32_t i = 0; i < n; i++) h = mix(h, (uint32_t)set[i]);
  return h;
}

static bool rehash(viv__matcher *m) {
  int32_t cap = m->cap_index ? 2 * m->cap_index : 256;
  int32_t *index = viv__malloc((size_t)cap * sizeof *index);
  if (!index) {
    m->failed = true;
    return false;
  }
  memset(index, -1, (size_t)cap * sizeof *index);
  for (int32_t i = 0; i < m->n_all; i++) {
    const situation *s = &m->all[i];
    uint32_t h = hash_set(m->pool + s->first, s->n, s->complete) & (uint32_t)(cap - 1);
    while (index[h] >= 0) h = (h + 1) & (uint32_t)(cap - 1);
    index[h] = i;
  }
  viv__free(m->index);
  m->index = index;
  m->cap_index = cap;
  return true;
}

/* The situation of the set in `work`, which is reduced to what reads and sorted. */
static int32_t situation_of(viv__matcher *m) {
  int32_t n = 0;
  for (int32_t i = 0; i < m->n_work; i++) {
    int32_t f = m->work[i], at = n;
    if (!reads(m->g, m->frames[f].state)) continue;
    for (; at > 0 && m->work[at - 1] > f; at--) m->work[at] = m->work[at - 1];
    m->work[at] = f;
    n++;
  }
  if (m->failed || (2 * m->n_all >= m->cap_index && !rehash(m))) return DEAD;
  uint32_t wrap = (uint32_t)(m->cap_index - 1), h = hash_set(m->work, n, m->complete) & wrap;
  for (; m->index[h] >= 0; h = (h + 1) & wrap) {
    const situation *s = &m->all[m->index[h]];
    if (s->n == n && s->complete == m->complete &&
        !memcmp(m->pool + s->first, m->work, (size_t)n * sizeof *m->work))
      return m->index[h];
  }
  if (!grow(m, (void **)&m->all, &m->cap_all, m->n_all + 1, sizeof *m->all) ||
      !grow(m, (void **)&m->pool, &m->cap_pool, m->n_pool + n, sizeof *m->pool))
    return DEAD;
  if (n) memcpy(m->pool + m->n_pool, m->work, (size_t)n * sizeof *m->work);
  m->all[m->n_all] = (situation){.first = m->n_pool, .n = n, .complete = m->complete};
  m->n_pool += n;
  m->index[h] = m->n_all;
  return m->n_all++;
}

static void forget(viv__matcher *m) {
  for (int32_t i = 0; i < m->n_all; i++) {
    viv__free(m->all[i].step);
    viv__free(m->all[i].mask);
  }
  m->n_all = m->n_pool = 0;
  m->mask_bytes = 0;
  if (m->index) memset(m->index, -1, (size_t)m->cap_index * sizeof *m->index);
  m->n_work = 0;
  m->complete = false;
  situation_of(m); /* the dead one is number 0 */
}

static int32_t step(viv__matcher *m, int32_t from, unsigned char c) {
  situation *s = &m->all[from];
  if (from == DEAD || m->failed) return DEAD;
  if (!s->step) {
    s->step = viv__malloc(256 * sizeof *s->step);
    if (!s->step) {
      m->failed = true;
      return DEAD;
    }
    memset(s->step, -1, 256 * sizeof *s->step);
  }
  if (s->step[c] != UNKNOWN) return s->step[c];
  m->n_work = 0;
  for (int32_t i = 0; i < s->n; i++) {
    frame f = m->frames[m->pool[s->first + i]];
    for (int32_t e = m->g->first[f.state]; e >= 0; e = m->g->edges[e].next) {
      const viv__edge *edge = &m->g->edges[e];
      if (edge->kind == VIV__EDGE_BYTES && edge->low <= c && c <= edge->high)
        work_add(m, frame_of(m, edge->to, f.up));
    }
  }
  close_over(m);
  int32_t to = situation_of(m);
  m->all[from].step[c] = to;
  return to;
}

/* ---- the outside ---- */

viv__matcher *viv__matcher_new(const viv__grammar *g, const viv__token_trie *trie) {
  viv__matcher *m = viv__calloc(1, sizeof *m);
  if (!m) return NULL;
  m->g = g;
  m->trie = trie;
  /* A set may be empty, an array's address must not be. */
  if (grow(m, (void **)&m->pool, &m->cap_pool, 1, sizeof *m->pool) &&
      grow(m, (void **)&m->work, &m->cap_work, 1, sizeof *m->work))
    viv__matcher_begin(m);
  if (m->failed) {
    viv__matcher_free(m);
    return NULL;
  }
  return m;
}

void viv__matcher_free(viv__matcher *m) {
  if (!m) return;
  for (int32_t i = 0; i < m->n_all; i++) {
    viv__free(m->all[i].step);
    viv__free(m->all[i].mask);
  }
  viv__free(m->frames);
  viv__free(m->frame_index);
  viv__free(m->all);
  viv__free(m->index);
  viv__free(m->pool);
  viv__free(m->work);
  viv__free(m);
}

void viv__matcher_begin(viv__matcher *m) {
  if (!m->n_all) forget(m);
  m->n_work = 0;
  work_add(m, frame_of(m, m->g->rules[m->g->root].start, NO_RETURN));
  close_over(m);
  m->now = situation_of(m);
}

/* Keeps the present situation alone. Frames stay: they are bounded, and deep stacks are rare. */
static void tidy(viv__matcher *m) {
  if (m->n_all < MAX_SITUATIONS && m->mask_bytes < MAX_MASK_BYTES) return;
  situation s = m->all[m->now];
  int32_t *keep = viv__malloc((size_t)(s.n + 1) * sizeof *keep);
  if (!keep) {
    m->failed = true;
    return;
  }
  if (s.n) memcpy(keep, m->pool + s.first, (size_t)s.n * sizeof *keep);
  forget(m);
  m->n_work = 0;
  for (int32_t i = 0; i < s.n; i++) work_add(m, keep[i]);
  m->complete = s.complete;
  m->now = situation_of(m);
  viv__free(keep);
}

bool viv__matcher_bytes(viv__matcher *m, const char *bytes, size_t n) {
  for (size_t i = 0; i < n && m->now != DEAD; i++) {
    m->now = step(m, m->now, (unsigned char)bytes[i]);
    tidy(m);
  }
  return viv__matcher_alive(m);
}

bool viv__matcher_token(viv__matcher *m, int32_t token) {
  viv_str text = m->trie ? viv__token_trie_text(m->trie, token) : (viv_str){NULL, 0};
  if (!text.len) m->now = DEAD;
  return viv__matcher_bytes(m, text.ptr, text.len);
}

bool viv__matcher_complete(const viv__matcher *m) {
  return !m->failed && m->all[m->now].complete;
}

bool viv__matcher_goes_on(const viv__matcher *m) {
  return !m->failed && m->all[m->now].n > 0;
}

bool viv__matcher_alive(const viv__matcher *m) {
  return !m->failed && (m->all[m->now].n > 0 || m->all[m->now].complete);
}

/* Depth first over the trie's nodes in order: a dead node's descendants are passed over whole. */
const uint64_t *viv__matcher_mask(viv__matcher *m) {
  if (m->failed || m->now == DEAD || !m->trie) return NULL;
  if (m->all[m->now].mask) return m->all[m->now].mask;
  tidy(m);
  const viv__token_trie *t = m->trie;
  size_t words = (size_t)(t->n_tokens + 63) / 64;
  uint64_t *mask = viv__calloc(words + 1, sizeof *mask);
  int32_t *path = viv__malloc((size_t)(t->depth + 2) * sizeof *path);
  if (!mask || !path) m->failed = true;
  if (!m->failed) path[0] = m->now;
  for (int32_t i = 0; i < t->n_nodes && !m->failed;) {
    const viv__trie_node *node = &t->nodes[i];
    int32_t from = path[node->depth - 1];
    const int32_t *known = m->all[from].step;
    int32_t to =
        known && known[node->byte] != UNKNOWN ? known[node->byte] : step(m, from, node->byte);
    if (to == DEAD) {
      i = node->skip;
      continue;
    }
    path[node->depth] = to;
    for (int32_t k = node->first_token; k < node->first_token + node->n_tokens; k++)
      mask[t->tokens[k] / 64] |= (uint64_t)1 << (t->tokens[k] % 64);
    i++;
  }
  viv__free(path);
  if (m->failed) {
    viv__free(mask);
    return NULL;
  }
  m->mask_bytes += (words + 1) * sizeof *mask;
  return m->all[m->now].mask = mask;
}
