/* Walking the network with all stacks at once, remembering every state and step.
 *
 * A frame is a state of the network and the frame to return to; frames are unique, so a number names
 * a whole stack. A situation is the sorted set of frames that wait for a byte, unique too; what a
 * byte leads to and which tokens may follow (masks.c) is kept with it. When the memory for situations
 * is full everything but the present one is forgotten. */
#include <string.h>

#include "grammar/matcher.h"

enum { MAX_SITUATIONS = 1 << 15, MAX_FRAMES = 1 << 20, MAX_MASK_BYTES = 64 << 20 };
enum { NO_RETURN = -1 };

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

/* The place of a chain that looks the same as far as VIV__SHORT bytes: there each hop reads a byte or
 * more, so what comes after so many further hops can't be seen. */
static int32_t same_place(const viv__grammar *g, int32_t state) {
  enum { SIGHT = VIV__SHORT + 1 };
  const viv__chain *c = viv__grammar_chain(g, state);
  if (!c || g->rules[c->rule].nullable) return state;
  int32_t at = state - c->base, most = at < c->low ? c->low : c->n;
  return most - at > SIGHT ? c->base + most - SIGHT : state;
}

int32_t viv__matcher_frame(viv__matcher *m, int32_t state, int32_t up) {
  if (m->failed || (2 * m->n_frames >= m->cap_frame_index && !rehash_frames(m))) return 0;
  uint32_t wrap = (uint32_t)(m->cap_frame_index - 1), h = mix((uint32_t)state, (uint32_t)up) & wrap;
  for (; m->frame_index[h] >= 0; h = (h + 1) & wrap) {
    const viv__frame *f = &m->frames[m->frame_index[h]];
    if (f->state == state && f->up == up) return m->frame_index[h];
  }
  if (m->n_frames >= MAX_FRAMES) {
    m->failed = true;
    return 0;
  }
  if (!grow(m, (void **)&m->frames, &m->cap_frames, m->n_frames + 1, sizeof *m->frames)) return 0;
  int32_t made = m->n_frames++;
  m->frames[made] = (viv__frame){state, up, made};
  m->frame_index[h] = made;
  int32_t place = same_place(m->g, state), above = up < 0 ? up : m->frames[up].same;
  if (place != state || above != up) {
    int32_t same = viv__matcher_frame(m, place, above);
    m->frames[made].same = same;
  }
  return made;
}

/* ---- situations ---- */

void viv__matcher_add(viv__matcher *m, int32_t f) {
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
    viv__frame f = m->frames[m->work[i]];
    if (g->first[f.state] < 0) { /* the end of a rule */
      if (f.up == NO_RETURN)
        m->complete = true;
      else
        viv__matcher_add(m, f.up);
      continue;
    }
    for (int32_t e = g->first[f.state]; e >= 0 && !m->failed; e = g->edges[e].next) {
      const viv__edge *edge = &g->edges[e];
      if (edge->kind == VIV__EDGE_EMPTY) {
        viv__matcher_add(m, viv__matcher_frame(m, edge->to, f.up));
      } else if (edge->kind == VIV__EDGE_RULE) {
        int32_t back = edge->to;
        for (int32_t k = g->first[back]; k >= 0; k = g->first[back]) { /* a chain to the end? */
          if (g->edges[k].kind != VIV__EDGE_EMPTY || g->edges[k].next >= 0) break;
          back = g->edges[k].to;
        }
        if (g->first[back] >= 0 && viv__grammar_chain(g, edge->to)) back = edge->to;
        int32_t up = g->first[back] < 0 ? f.up : viv__matcher_frame(m, back, f.up);
        viv__matcher_add(m, viv__matcher_frame(m, g->rules[edge->rule].start, up));
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
    const viv__situation *s = &m->all[i];
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
int32_t viv__matcher_situation(viv__matcher *m) {
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
    const viv__situation *s = &m->all[m->index[h]];
    if (s->n == n && s->complete == m->complete &&
        !memcmp(m->pool + s->first, m->work, (size_t)n * sizeof *m->work))
      return m->index[h];
  }
  if (!grow(m, (void **)&m->all, &m->cap_all, m->n_all + 1, sizeof *m->all) ||
      !grow(m, (void **)&m->pool, &m->cap_pool, m->n_pool + n, sizeof *m->pool))
    return DEAD;
  if (n) memcpy(m->pool + m->n_pool, m->work, (size_t)n * sizeof *m->work);
  m->all[m->n_all] =
      (viv__situation){.first = m->n_pool, .n = n, .same = UNKNOWN, .complete = m->complete};
  m->n_pool += n;
  m->index[h] = m->n_all;
  return m->n_all++;
}

static void forget(viv__matcher *m) {
  for (int32_t i = 0; i < m->n_all; i++) {
    viv__free(m->all[i].step);
    viv__free(m->all[i].mask);
    viv__free(m->all[i].part);
  }
  m->n_all = m->n_pool = 0;
  m->mask_bytes = 0;
  if (m->index) memset(m->index, -1, (size_t)m->cap_index * sizeof *m->index);
  m->n_work = 0;
  m->complete = false;
  viv__matcher_situation(m); /* the dead one is number 0 */
}

int32_t viv__matcher_step(viv__matcher *m, int32_t from, unsigned char c) {
  viv__situation *s = &m->all[from];
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
  /* Bytes around c that the same edges read lead to the same place. */
  int low = 0, high = 255;
  m->n_work = 0;
  for (int32_t i = 0; i < s->n; i++) {
    viv__frame f = m->frames[m->pool[s->first + i]];
    for (int32_t e = m->g->first[f.state]; e >= 0; e = m->g->edges[e].next) {
      const viv__edge *edge = &m->g->edges[e];
      if (edge->kind != VIV__EDGE_BYTES) continue;
      if (edge->high < c) {
        if (edge->high >= low) low = edge->high + 1;
      } else if (edge->low > c) {
        if (edge->low <= high) high = edge->low - 1;
      } else {
        if (edge->low > low) low = edge->low;
        if (edge->high < high) high = edge->high;
        viv__matcher_add(m, viv__matcher_frame(m, edge->to, f.up));
      }
    }
  }
  close_over(m);
  int32_t to = viv__matcher_situation(m);
  for (int k = low; k <= high; k++) m->all[from].step[k] = to;
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
    viv__free(m->all[i].part);
  }
  viv__free(m->frames);
  viv__free(m->frame_index);
  viv__free(m->all);
  viv__free(m->index);
  viv__free(m->pool);
  viv__free(m->work);
  viv__free(m->path);
  viv__free(m->made);
  viv__free(m);
}

void viv__matcher_begin(viv__matcher *m) {
  if (!m->n_all) forget(m);
  m->n_work = 0;
  viv__matcher_add(m, viv__matcher_frame(m, m->g->rules[m->g->root].start, NO_RETURN));
  close_over(m);
  m->now = viv__matcher_situation(m);
}

/* Keeps the present situation alone. Frames stay: they are bounded, and deep stacks are rare. */
void viv__matcher_tidy(viv__matcher *m) {
  if (m->n_all < MAX_SITUATIONS && m->mask_bytes < MAX_MASK_BYTES) return;
  viv__situation s = m->all[m->now];
  int32_t *keep = viv__malloc((size_t)(s.n + 1) * sizeof *keep);
  if (!keep) {
    m->failed = true;
    return;
  }
  if (s.n) memcpy(keep, m->pool + s.first, (size_t)s.n * sizeof *keep);
  forget(m);
  m->n_work = 0;
  for (int32_t i = 0; i < s.n; i++) viv__matcher_add(m, keep[i]);
  m->complete = s.complete;
  m->now = viv__matcher_situation(m);
  viv__free(keep);
}

bool viv__matcher_bytes(viv__matcher *m, const char *bytes, size_t n) {
  for (size_t i = 0; i < n && m->now != DEAD; i++) {
    m->now = viv__matcher_step(m, m->now, (unsigned char)bytes[i]);
    viv__matcher_tidy(m);
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
