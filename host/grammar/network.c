/* Building the network, and removing from it what can't be completed. */
#include <string.h>

#include "grammar/internal.h"

/* ---- storage ---- */

static bool room(viv__grammar *g, void **array, int32_t *cap, int32_t n, size_t size) {
  if (n < *cap) return true;
  int32_t wider = *cap ? *cap * 2 : 256;
  void *grown = viv__realloc(*array, (size_t)wider * size);
  if (!grown) {
    g->failed = true;
    return false;
  }
  *array = grown;
  *cap = wider;
  return true;
}

viv__grammar *viv__grammar_new(void) {
  viv__grammar *g = viv__calloc(1, sizeof *g);
  if (g) viv__grammar_state(g); /* state 0 stands in wherever one could not be made */
  return g;
}

void viv__grammar_free(viv__grammar *g) {
  if (!g) return;
  viv__free(g->first);
  viv__free(g->edges);
  viv__free(g->rules);
  viv__free(g->chains);
  viv__free(g);
}

int32_t viv__grammar_state(viv__grammar *g) {
  if (g->n_states >= VIV__MAX_STATES) g->too_large = true;
  if (g->failed || g->too_large ||
      !room(g, (void **)&g->first, &g->cap_states, g->n_states, sizeof *g->first))
    return 0;
  g->first[g->n_states] = -1;
  return g->n_states++;
}

int32_t viv__grammar_rule(viv__grammar *g) {
  if (g->n_rules >= VIV__MAX_RULES) g->too_large = true;
  if (g->failed || g->too_large ||
      !room(g, (void **)&g->rules, &g->cap_rules, g->n_rules, sizeof *g->rules))
    return 0;
  g->rules[g->n_rules] = (viv__rule){.start = -1, .end = -1};
  return g->n_rules++;
}

void viv__grammar_edge(viv__grammar *g, int kind, int32_t from, int32_t to, int low, int high,
                       int32_t rule) {
  if (g->n_edges >= 4 * VIV__MAX_STATES) g->too_large = true;
  if (g->failed || g->too_large ||
      !room(g, (void **)&g->edges, &g->cap_edges, g->n_edges, sizeof *g->edges))
    return;
  g->edges[g->n_edges] =
      (viv__edge){(uint8_t)kind, (uint8_t)low, (uint8_t)high, rule, to, g->first[from]};
  g->first[from] = g->n_edges++;
}

/* ---- pieces ---- */

static void empty(viv__grammar *g, int32_t from, int32_t to) {
  viv__grammar_edge(g, VIV__EDGE_EMPTY, from, to, 0, 0, 0);
}

viv__net viv__net_empty(viv__grammar *g) {
  int32_t s = viv__grammar_state(g);
  return (viv__net){s, s};
}

viv__net viv__net_never(viv__grammar *g) {
  return (viv__net){viv__grammar_state(g), viv__grammar_state(g)};
}

viv__net viv__net_bytes(viv__grammar *g, viv_str text) {
  viv__net p = viv__net_empty(g);
  for (size_t i = 0; i < text.len; i++) {
    int c = (unsigned char)text.ptr[i];
    int32_t next = viv__grammar_state(g);
    viv__grammar_edge(g, VIV__EDGE_BYTES, p.to, next, c, c, 0);
    p.to = next;
  }
  return p;
}

viv__net viv__net_rule(viv__grammar *g, int32_t rule) {
  viv__net p = viv__net_never(g);
  viv__grammar_edge(g, VIV__EDGE_RULE, p.from, p.to, 0, 0, rule);
  return p;
}

viv__net viv__net_then(viv__grammar *g, viv__net a, viv__net b) {
  empty(g, a.to, b.from);
  return (viv__net){a.from, b.to};
}

viv__net viv__net_or(viv__grammar *g, viv__net a, viv__net b) {
  viv__net p = viv__net_never(g);
  empty(g, p.from, a.from);
  empty(g, p.from, b.from);
  empty(g, a.to, p.to);
  empty(g, b.to, p.to);
  return p;
}

viv__net viv__net_repeat(viv__grammar *g, int32_t rule, int32_t low, int32_t high) {
  bool loop = high < 0;
  int32_t n = loop ? low : high, base = viv__grammar_state(g);
  for (int32_t i = 0; i < n && !g->too_large; i++) viv__grammar_state(g);
  int32_t end = viv__grammar_state(g);
  if (g->failed || g->too_large ||
      !room(g, (void **)&g->chains, &g->cap_chains, g->n_chains, sizeof *g->chains))
    return (viv__net){0, 0};
  g->chains[g->n_chains++] = (viv__chain){base, n, low, rule, loop};
  for (int32_t i = 0; i <= n; i++) {
    if (i >= low) empty(g, base + i, end);
    if (i < n || loop)
      viv__grammar_edge(g, VIV__EDGE_RULE, base + i, i < n ? base + i + 1 : base + i, 0, 0, rule);
  }
  return (viv__net){base, end};
}

const viv__chain *viv__grammar_chain(const viv__grammar *g, int32_t state) {
  int32_t low = 0, high = g->n_chains;
  while (low < high) {
    int32_t at = low + (high - low) / 2;
    if (g->chains[at].base + g->chains[at].n < state)
      low = at + 1;
    else
      high = at;
  }
  return low < g->n_chains && g->chains[low].base <= state ? &g->chains[low] : NULL;
}

void viv__grammar_define(viv__grammar *g, int32_t rule, viv__net body) {
  if (g->failed || g->too_large || rule >= g->n_rules) return;
  int32_t end =
      viv__grammar_state(g); /* with no edge of its own: the call behind it needs no stack */
  empty(g, body.to, end);
  g->rules[rule].start = body.from;
  g->rules[rule].end = end;
}

int32_t viv__grammar_wrap(viv__grammar *g, viv__net body) {
  int32_t rule = viv__grammar_rule(g);
  viv__grammar_define(g, rule, body);
  return rule;
}

/* ---- finishing ---- */

/* Marks the states from which their rule's end can be reached; repeated until no rule changes. With
 * nullable_only the way may not read anything. */
static bool mark(viv__grammar *g, uint8_t *good, bool nullable_only) {
  memset(good, 0, (size_t)g->n_states);
  for (int32_t r = 0; r < g->n_rules; r++)
    if (g->rules[r].end >= 0) good[g->rules[r].end] = 1;
  /* Edges backwards: heads of lists over edges by their target. */
  int32_t *head = viv__malloc((size_t)g->n_states * sizeof *head),
          *next = viv__malloc((size_t)(g->n_edges + 1) * sizeof *next),
          *from = viv__malloc((size_t)(g->n_edges + 1) * sizeof *from),
          *work = viv__malloc((size_t)g->n_states * sizeof *work);
  bool ok = head && next && from && work, changed = ok;
  for (int32_t s = 0; ok && s < g->n_states; s++) head[s] = -1;
  for (int32_t s = 0; ok && s < g->n_states; s++)
    for (int32_t e = g->first[s]; e >= 0; e = g->edges[e].next) {
      from[e] = s;
      next[e] = head[g->edges[e].to];
      head[g->edges[e].to] = e;
    }
  while (changed) {
    int32_t n = 0;
    for (int32_t s = 0; s < g->n_states; s++)
      if (good[s]) work[n++] = s;
    while (n) {
      int32_t at = work[--n];
      for (int32_t e = head[at]; e >= 0; e = next[e]) {
        const viv__edge *edge = &g->edges[e];
        const viv__rule *called = edge->kind == VIV__EDGE_RULE ? &g->rules[edge->rule] : NULL;
        bool open =
            edge->kind == VIV__EDGE_EMPTY || (edge->kind == VIV__EDGE_BYTES && !nullable_only);
        if (called) open = nullable_only ? called->nullable : called->productive;
        if (!open || good[from[e]]) continue;
        good[from[e]] = 1;
        work[n++] = from[e];
      }
    }
    changed = false;
    for (int32_t r = 0; r < g->n_rules; r++) {
      bool *flag = nullable_only ? &g->rules[r].nullable : &g->rules[r].productive;
      if (!*flag && g->rules[r].start >= 0 && good[g->rules[r].start]) *flag = changed = true;
    }
  }
  viv__free(head);
  viv__free(next);
  viv__free(from);
  viv__free(work);
  return ok;
}

/* Removes edges that lead nowhere. */
static void trim(viv__grammar *g, const uint8_t *good) {
  for (int32_t s = 0; s < g->n_states; s++)
    for (int32_t *at = &g->first[s]; *at >= 0;) {
      const viv__edge *e = &g->edges[*at];
      if (!good[e->to] || (e->kind == VIV__EDGE_RULE && !g->rules[e->rule].productive))
        *at = e->next;
      else
        at = &g->edges[*at].next;
    }
}

/* Whether a rule is reached from itself before anything was read. Colours: 1 on the way, 2 done. */
static bool left_recursive(viv__grammar *g, uint8_t *seen, int32_t *stack, uint8_t *colour) {
  /* What each rule calls first, over states reached without reading; depth first without recursion:
   * the work list holds rules, a marker ~rule closes one. */
  int32_t n_rules = g->n_rules, top = 0, cap = 0;
  int32_t *way = NULL;
  bool found = false;
  for (int32_t r0 = 0; r0 < n_rules && !found && !g->failed; r0++) {
    if (colour[r0] || g->rules[r0].start < 0) continue;
    if (!room(g, (void **)&way, &cap, top, sizeof *way)) break;
    way[top++] = r0;
    while (top && !found && !g->failed) {
      int32_t r = way[--top];
      if (r < 0) {
        colour[~r] = 2;
        continue;
      }
      if (colour[r]) continue;
      colour[r] = 1;
      if (!room(g, (void **)&way, &cap, top, sizeof *way)) break;
      way[top++] = ~r;
      int32_t n = 0, visited = 0;
      stack[n++] = g->rules[r].start;
      seen[g->rules[r].start] = 1;
      for (visited = 0; visited < n; visited++)
        for (int32_t e = g->first[stack[visited]]; e >= 0; e = g->edges[e].next) {
          const viv__edge *edge = &g->edges[e];
          bool through = edge->kind == VIV__EDGE_EMPTY;
          if (edge->kind == VIV__EDGE_RULE) {
            through = g->rules[edge->rule].nullable;
            if (colour[edge->rule] == 1) found = true;
            if (!colour[edge->rule]) {
              if (!room(g, (void **)&way, &cap, top, sizeof *way)) break;
              way[top++] = edge->rule;
            }
          }
          if (through && !seen[edge->to]) {
            seen[edge->to] = 1;
            stack[n++] = edge->to;
          }
        }
      for (int32_t i = 0; i < n; i++) seen[stack[i]] = 0;
    }
  }
  viv__free(way);
  return found;
}

int32_t viv__grammar_finish(viv__grammar *g, const char *what, viv_error *error) {
  if (g->too_large)
    return VIV_FAIL(error, VIV_BAD_INPUT, what, "is too large: more than %d states or %d rules",
                    VIV__MAX_STATES, VIV__MAX_RULES);
  uint8_t *good = g->failed ? NULL : viv__calloc((size_t)g->n_states, 1),
          *colour = good ? viv__calloc((size_t)g->n_rules + 1, 1) : NULL;
  int32_t *stack = colour ? viv__malloc((size_t)g->n_states * sizeof *stack) : NULL;
  int32_t status = VIV_OK;
  if (!stack || !mark(g, good, true) || !mark(g, good, false)) {
    status = VIV_FAIL(error, VIV_NOT_NOW, what, "no memory");
  } else if (!g->rules[g->root].productive) {
    status = VIV_FAIL(error, VIV_BAD_INPUT, what,
                      "nothing fulfils it: it contradicts itself or never ends");
  } else {
    trim(g, good);
    memset(good, 0, (size_t)g->n_states);
    if (left_recursive(g, good, stack, colour))
      status = VIV_FAIL(error, VIV_BAD_INPUT, what,
                        "refers to itself before anything is read (left recursion)");
    else if (g->failed)
      status = VIV_FAIL(error, VIV_NOT_NOW, what, "no memory");
  }
  viv__free(good);
  viv__free(colour);
  viv__free(stack);
  return status;
}
