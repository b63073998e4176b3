/* Which tokens may follow a situation.
 *
 * Walking the whole vocabulary takes milliseconds, and where a grammar counts (a text of at most 200
 * characters, a list of 10 to 50 items) nearly every token leads to a situation not seen before. So
 * a mask is put together from parts:
 *   plain tokens in a text of counted characters: those that have at most as many are known from the start;
 *   other short tokens: places of a chain that are far from its end can't be told apart by them, so
 *   the walk is done once for all of them;
 *   long tokens, which are few: a walk. */
#include <string.h>

#include "grammar/matcher.h"

/* Adds the tokens of a part of the trie that may follow. Depth first over the nodes in order: a dead
 * node's descendants are passed over whole. */
static void walk(viv__matcher *m, int32_t situation, int part, uint64_t *mask) {
  const viv__token_trie *t = m->trie;
  m->path[0] = situation;
  for (int32_t i = t->part[part]; i < t->part[part + 1] && !m->failed;) {
    const viv__trie_node *node = &t->nodes[i];
    int32_t from = m->path[node->depth - 1];
    const int32_t *known = m->all[from].step;
    int32_t to = known && known[node->byte] != UNKNOWN ? known[node->byte]
                                                       : viv__matcher_step(m, from, node->byte);
    if (to == DEAD) {
      i = node->skip;
      continue;
    }
    m->path[node->depth] = to;
    for (int32_t k = node->first_token; k < node->first_token + node->n_tokens; k++)
      mask[t->tokens[k] / 64] |= (uint64_t)1 << (t->tokens[k] % 64);
    i++;
  }
}

/* Whether the state reads what a plain character begins with. */
static bool reads_plain(const viv__grammar *g, int32_t state) {
  for (int32_t e = g->first[state]; e >= 0; e = g->edges[e].next) {
    const viv__edge *edge = &g->edges[e];
    if (edge->kind != VIV__EDGE_BYTES || edge->high < ' ') continue;
    bool mark = edge->low == edge->high && (edge->low == '"' || edge->low == '\\');
    if (!mark) return true;
  }
  return false;
}

/* Whether behind the chain's last place, and where it may be left before, no plain character can be
 * read: within its rule what follows is known, beyond it is not. */
static bool closed(const viv__grammar *g, const viv__chain *c) {
  int32_t seen[16] = {c->base + c->n}, n = 1;
  for (int32_t i = 0; i < n; i++) {
    if (g->first[seen[i]] < 0 || reads_plain(g, seen[i])) return false;
    for (int32_t e = g->first[seen[i]]; e >= 0; e = g->edges[e].next) {
      if (g->edges[e].kind == VIV__EDGE_BYTES) continue;
      if (g->edges[e].kind == VIV__EDGE_RULE || n == 16) return false;
      seen[n++] = g->edges[e].to;
    }
  }
  return true;
}

/* How many plain characters may follow when nothing else that is plain may: the situation is a
 * place in a text of counted characters. -1: it is not, or nothing is known. */
static int32_t plain_run(const viv__matcher *m, int32_t situation) {
  const viv__grammar *g = m->g;
  const viv__situation *s = &m->all[situation];
  const viv__chain *found = NULL;
  int32_t run = -1;
  for (int32_t i = 0; i < s->n; i++) {
    viv__frame f = m->frames[m->pool[s->first + i]];
    const viv__chain *c = f.up < 0 ? NULL : viv__grammar_chain(g, m->frames[f.up].state);
    if (c && g->rules[c->rule].plain && f.state == g->rules[c->rule].start && !found) {
      found = c;
      run = c->loop ? INT32_MAX : c->n - (m->frames[f.up].state - c->base) + 1;
    } else if (reads_plain(g, f.state)) {
      return -1;
    }
  }
  return found && (found->loop || closed(g, found)) ? run : -1;
}

/* Adds the plain tokens of at most so many characters. */
static void add_counted(const viv__token_trie *t, int32_t characters, uint64_t *mask) {
  if (characters > t->most) characters = t->most;
  if (characters < 1) return;
  int32_t known = characters < VIV__SHORT ? characters : VIV__SHORT;
  const uint64_t *upto = t->upto + (size_t)(known - 1) * t->words;
  for (size_t i = 0; i < t->words; i++) mask[i] |= upto[i];
  for (int32_t k = t->from[known]; known < characters && k < t->from[characters]; k++)
    mask[t->counted[k] / 64] |= (uint64_t)1 << (t->counted[k] % 64);
}

/* The situation whose short tokens are this one's. */
static int32_t same_as(viv__matcher *m, int32_t situation) {
  if (m->all[situation].same != UNKNOWN) return m->all[situation].same;
  viv__situation s = m->all[situation];
  m->n_work = 0;
  for (int32_t i = 0; i < s.n; i++) viv__matcher_add(m, m->frames[m->pool[s.first + i]].same);
  m->complete = s.complete;
  int32_t same = viv__matcher_situation(m);
  return m->all[situation].same = same;
}

static uint64_t *new_mask(viv__matcher *m) {
  uint64_t *mask = viv__calloc(m->trie->words + 1, sizeof *mask);
  if (!mask) m->failed = true;
  m->mask_bytes += (m->trie->words + 1) * sizeof *mask;
  return mask;
}

const uint64_t *viv__matcher_mask(viv__matcher *m) {
  if (m->failed || m->now == DEAD || !m->trie) return NULL;
  if (m->all[m->now].mask) return m->all[m->now].mask;
  viv__matcher_tidy(m);
  const viv__token_trie *t = m->trie;
  if (!m->path) m->path = viv__malloc((size_t)(t->depth + 2) * sizeof *m->path);
  if (!m->made) m->made = viv__malloc((t->words + 1) * sizeof *m->made);
  if (!m->path || !m->made) m->failed = true;
  int32_t run = m->failed ? -1 : plain_run(m, m->now), same = m->failed ? DEAD : same_as(m, m->now);
  if (!m->failed && !m->all[same].part) {
    uint64_t *part = new_mask(m);
    if (part) walk(m, same, VIV__TRIE_OTHER, part);
    if (part && run < 0) walk(m, same, VIV__TRIE_PLAIN, part);
    m->all[same].part = part;
  }
  /* A situation that is alone keeps its mask; others, of which there are many, make theirs again. */
  uint64_t *mask = m->failed ? NULL : same == m->now ? new_mask(m) : m->made;
  if (mask) {
    memcpy(mask, m->all[same].part, (t->words + 1) * sizeof *mask);
    if (same == m->now) m->all[m->now].mask = mask;
    add_counted(t, run, mask);
    walk(m, m->now, VIV__TRIE_OTHER + VIV__TRIE_LONG, mask);
    if (run < 0) walk(m, m->now, VIV__TRIE_PLAIN + VIV__TRIE_LONG, mask);
  }
  return m->failed ? NULL : mask;
}
