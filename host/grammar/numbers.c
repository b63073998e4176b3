/* Numbers between bounds as automata over decimal digits.
 *
 * A magnitude is read digit by digit beside the digits of both bounds: as long as all digits were
 * those of a bound it is `tight`, and the next digit may not pass it. Whole parts of each length that
 * lies between the bounds' lengths are automata of their own; the rest of a division is carried
 * along where a multiple is wanted. */
#include <stdlib.h>
#include <string.h>

#include "grammar/internal.h"

enum { MAX_DIGITS = 400 };

/* A bound's magnitude: digits of the whole part without leading zeros (at least one), and of the
 * fraction without trailing ones. */
struct decimal {
  char whole[MAX_DIGITS + 2], part[MAX_DIGITS + 2];
  int n_whole, n_part;
};

struct digits {
  viv__grammar *g;
  const struct decimal *low, *high; /* NULL: none */
  bool low_strict, high_strict, fraction;
  int32_t multiple; /* 0 or 1: none */
  int n;            /* digits of this whole part */
  viv__net p;
  int32_t *memo; /* [(position) * 4 + tight][rest]: the state, -1 */
  int32_t frac_memo[4 * (MAX_DIGITS + 4)];
};

static void split(const char *text, struct decimal *d) {
  const char *point = strchr(text, '.');
  size_t n = point ? (size_t)(point - text) : strlen(text);
  memset(d, 0, sizeof *d);
  while (n > 1 && *text == '0') text++, n--;
  if (n > MAX_DIGITS) n = MAX_DIGITS;
  memcpy(d->whole, text, n);
  d->n_whole = (int)n;
  if (point) {
    size_t m = strlen(point + 1);
    while (m && point[m] == '0') m--;
    if (m > MAX_DIGITS) m = MAX_DIGITS;
    memcpy(d->part, point + 1, m);
    d->n_part = (int)m;
  }
}

static bool zero(const struct decimal *d) {
  return d->n_whole == 1 && *d->whole == '0' && !d->n_part;
}

/* Whether a number whose digits so far are the bound's (at of its fraction) may end here. */
static bool may_end(const struct digits *d, bool low_tight, bool high_tight, int at) {
  bool low_rest = low_tight && at < d->low->n_part, high_rest = high_tight && at < d->high->n_part;
  return (!low_tight || (!low_rest && !d->low_strict)) &&
         (!high_tight || high_rest || !d->high_strict);
}

/* Digits of the fraction from `at` on; after the bounds' digits the states repeat. */
static int32_t fraction_state(struct digits *d, int at, bool lt, bool ht) {
  int longest = 0;
  if (lt) longest = d->low->n_part;
  if (ht && d->high->n_part > longest) longest = d->high->n_part;
  /* One digit at least: the state before it must differ from those behind. */
  if (at > longest + 1) at = longest + 1;
  int32_t *slot = &d->frac_memo[(at > MAX_DIGITS + 3 ? MAX_DIGITS + 3 : at) * 4 + lt * 2 + ht];
  if (*slot >= 0) return *slot;
  int32_t s = *slot = viv__grammar_state(d->g);
  if (at > 0 && may_end(d, lt, ht, at))
    viv__grammar_edge(d->g, VIV__EDGE_EMPTY, s, d->p.to, 0, 0, 0);
  int low = lt && at < d->low->n_part ? d->low->part[at] : '0';
  int high = ht ? (at < d->high->n_part ? d->high->part[at] : '0') : '9';
  for (int c = low; c <= high; c++)
    viv__grammar_edge(d->g, VIV__EDGE_BYTES, s,
                      fraction_state(d, at + 1, lt && c == low, ht && c == high), c, c, 0);
  return s;
}

static int32_t whole_state(struct digits *d, int at, bool lt, bool ht, int32_t rest) {
  int32_t m = d->multiple > 1 ? d->multiple : 1;
  int32_t *slot = &d->memo[(at * 4 + lt * 2 + ht) * m + rest];
  if (*slot >= 0 || d->g->failed || d->g->too_large) return *slot >= 0 ? *slot : 0;
  int32_t s = *slot = viv__grammar_state(d->g);
  if (at == d->n) {
    if (may_end(d, lt, ht, 0) && rest == 0)
      viv__grammar_edge(d->g, VIV__EDGE_EMPTY, s, d->p.to, 0, 0, 0);
    if (d->fraction)
      viv__grammar_edge(d->g, VIV__EDGE_BYTES, s, fraction_state(d, 0, lt, ht), '.', '.', 0);
    return s;
  }
  int low = lt ? d->low->whole[at] : '0', high = ht ? d->high->whole[at] : '9';
  if (at == 0 && d->n > 1 && low == '0') low = '1';
  for (int c = low; c <= high; c++)
    viv__grammar_edge(d->g, VIV__EDGE_BYTES, s,
                      whole_state(d, at + 1, lt && c == d->low->whole[at], ht && c == high,
                                  m > 1 ? (int32_t)((rest * 10LL + (c - '0')) % m) : 0),
                      c, c, 0);
  return s;
}

/* Whole parts longer than every bound: any digits. */
static void longer(struct digits *d, int from) {
  int32_t m = d->multiple > 1 ? d->multiple : 1, *state = viv__malloc((size_t)m * sizeof *state);
  if (!state) {
    d->g->failed = true;
    return;
  }
  /* From here on `from` digits have been read; those before them keep their own states. */
  d->n = from;
  int32_t rows = (from + 1) * 4 * m;
  for (int32_t i = 0; i < rows; i++) d->memo[i] = -1;
  for (int i = 0; i < 4 * (MAX_DIGITS + 4); i++) d->frac_memo[i] = -1;
  int32_t start = whole_state(d, 0, false, false, 0);
  viv__grammar_edge(d->g, VIV__EDGE_EMPTY, d->p.from, start, 0, 0, 0);
  for (int32_t r = 0; r < m; r++) state[r] = d->memo[(from * 4) * m + r];
  for (int32_t r = 0; r < m; r++)
    if (state[r] < 0) state[r] = whole_state(d, from, false, false, r);
  for (int32_t r = 0; r < m; r++)
    for (int c = '0'; c <= '9'; c++)
      viv__grammar_edge(d->g, VIV__EDGE_BYTES, state[r],
                        state[m > 1 ? (int32_t)((r * 10LL + (c - '0')) % m) : 0], c, c, 0);
  viv__free(state);
}

/* Magnitudes from low to high. */
static viv__net magnitude(viv__grammar *g, const struct decimal *low, bool low_strict,
                          const struct decimal *high, bool high_strict, bool fraction,
                          int32_t multiple) {
  struct digits *d = viv__calloc(1, sizeof *d);
  viv__net p = viv__net_never(g);
  int32_t m = multiple > 1 ? multiple : 1;
  int from = low ? low->n_whole : 1, to = high ? high->n_whole : from + 1;
  if (d) d->memo = viv__malloc((size_t)(to + 3) * 4 * (size_t)m * sizeof *d->memo);
  if (!d || !d->memo) {
    g->failed = true;
    viv__free(d);
    return p;
  }
  *d = (struct digits){.g = g,
                       .low = low,
                       .high = high,
                       .low_strict = low_strict,
                       .high_strict = high_strict,
                       .fraction = fraction,
                       .multiple = multiple,
                       .p = p,
                       .memo = d->memo};
  for (int n = from; n <= to && !g->failed && !g->too_large; n++) {
    bool lt = low && n == low->n_whole, ht = high && n == high->n_whole;
    if (!high && n == to) {
      longer(d, n);
      break;
    }
    d->n = n;
    for (int32_t i = 0; i < (n + 1) * 4 * m; i++) d->memo[i] = -1;
    for (int i = 0; i < 4 * (MAX_DIGITS + 4); i++) d->frac_memo[i] = -1;
    viv__grammar_edge(g, VIV__EDGE_EMPTY, p.from, whole_state(d, 0, lt, ht, 0), 0, 0, 0);
  }
  viv__free(d->memo);
  viv__free(d);
  return p;
}

viv__net viv__net_number(viv__grammar *g, const viv__bounds *b) {
  struct decimal *low = viv__malloc(sizeof *low), *high = viv__malloc(sizeof *high),
                 *none = viv__malloc(sizeof *none);
  viv__net all = viv__net_never(g);
  if (!low || !high || !none) {
    g->failed = true;
  } else {
    bool low_minus = b->low && *b->low == '-', high_minus = b->high && *b->high == '-';
    split("0", none);
    if (b->low) split(b->low + low_minus, low);
    if (b->high) split(b->high + high_minus, high);
    if (low_minus && zero(low)) low_minus = false;
    if (high_minus && zero(high)) high_minus = false;
    if (!high_minus) /* zero and what is above */
      all = viv__net_or(g, all,
                        magnitude(g, b->low && !low_minus ? low : none,
                                  b->low && !low_minus && b->low_strict, b->high ? high : NULL,
                                  b->high_strict, !b->integer, b->multiple));
    if (!b->low || low_minus) { /* below zero: the magnitudes' bounds change places */
      viv__net minus = viv__net_bytes(g, viv__str("-"));
      minus =
          viv__net_then(g, minus,
                        magnitude(g, high_minus ? high : none, high_minus ? b->high_strict : true,
                                  b->low ? low : NULL, b->low_strict, !b->integer, b->multiple));
      all = viv__net_or(g, all, minus);
    }
  }
  viv__free(low);
  viv__free(high);
  viv__free(none);
  return all;
}
