/* Masks of a constraint over a vocabulary of 128k made-up tokens: the first mask of a state, and the
 * median and worst of those seen before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar.h"

enum { VOCAB = 131072, TEXTS = 20 };

static uint32_t seed = 1;
static uint32_t draw(uint32_t below) {
  seed = seed * 1664525u + 1013904223u;
  return (seed >> 8) % below;
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Walks one text of random tokens that the masks let through; the times of its masks. */
static int walk(viv__matcher *m, double *us, int most) {
  int n = 0;
  viv__matcher_begin(m);
  while (n < most && viv__matcher_goes_on(m)) {
    uint64_t from = viv__now_ns();
    const uint64_t *mask = viv__matcher_mask(m);
    us[n++] = (double)(viv__now_ns() - from) / 1e3;
    uint32_t at = draw(VOCAB);
    while (!(mask[at / 64] >> (at % 64) & 1)) at = (at + 1) % VOCAB;
    from = viv__now_ns();
    viv__matcher_token(m, (int32_t)at);
    us[n - 1] += (double)(viv__now_ns() - from) / 1e3;
  }
  return n;
}

int main(void) {
  static const char schema[] = "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"}"
                               ",\"tags\":{\"type\":\"array\","
                               "\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]}},\"age\":{"
                               "\"type\":\"integer\",\"minimum\":0,"
                               "\"maximum\":130}},\"required\":[\"name\",\"tags\",\"age\"]}";
  static char text[VOCAB][8];
  static viv_str texts[VOCAB];
  static double us[TEXTS * 400];
  static const char letters[] =
      "abcdefghijklmnopqrstuvwxyz      eeettaoinsr{}[]\",:.0123456789-\\ABC";
  viv__grammar *g = NULL;
  viv_error error = VIV_ERROR_INIT;
  for (int i = 0; i < VOCAB; i++) {
    int len = i < 256 ? 1 : 1 + (int)draw(7);
    for (int k = 0; k < len; k++) text[i][k] = letters[draw(sizeof letters - 1)];
    if (i < 256) text[i][0] = (char)i;
    texts[i] = (viv_str){text[i], (size_t)len};
  }
  uint64_t from = viv__now_ns();
  viv__token_trie *t = viv__token_trie_new(texts, VOCAB);
  printf("trie of %d tokens: %.1f ms\n", VOCAB, (double)(viv__now_ns() - from) / 1e6);
  from = viv__now_ns();
  if (viv__grammar_schema(viv__str(schema), &g, &error) < 0) return 1;
  printf("schema: %.2f ms\n", (double)(viv__now_ns() - from) / 1e6);
  viv__matcher *m = viv__matcher_new(g, t);
  int n = 0;
  for (int pass = 0; pass < 2; pass++) {
    n = 0;
    seed = 7;
    for (int i = 0; i < TEXTS; i++) n += walk(m, us + n, 400);
    qsort(us, (size_t)n, sizeof *us, by_size);
    printf("%s: %d masks, median %.2f us, 99 %% %.2f us, worst %.0f us\n", pass ? "warm" : "cold",
           n, us[n / 2], us[n * 99 / 100], us[n - 1]);
  }
  viv__matcher_free(m);
  viv__token_trie_free(t);
  viv__grammar_free(g);
  return 0;
}
