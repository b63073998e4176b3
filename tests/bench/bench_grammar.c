/* Masks of a constraint over a vocabulary of 131,072 made-up tokens, or over a tokenizer's:
 *
 *   build/bench/bench_grammar [TOKENIZER.json]
 *
 * Per grammar one matcher writes texts of random tokens that its masks let through. A token's time is
 * its mask and the step over it. The first text warms up; the others are counted, the tokens that come to
 * places where no text was before included. The goal: 50 us. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "grammar/grammar.h"
#include "tasks/constraint.h"
#include "text/tokenizer.h"

enum { VOCAB = 131072, TEXTS = 30, MOST = 400 };

/* Microseconds of this thread, so that others on the machine are not counted. */
static double cpu_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static uint32_t seed = 1;
static uint32_t draw(uint32_t below) {
  seed = seed * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)seed * below) >> 32);
}

static int by_size(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Words with and without a space before them, pieces of JSON, and every single byte. */
static void make_vocabulary(viv_str *texts, char (*text)[12]) {
  static const char *const json[] = {"{\"", "\":", "\",",    "\"}",    "],",
                                     "[{",  "}]",  "\": \"", "\", \"", "},"};
  for (int i = 0; i < VOCAB; i++) {
    int len = 0, letters = 1 + (int)draw(9);
    if (i < 256) {
      text[i][len++] = (char)i;
    } else if (i % 50 == 0) {
      len = snprintf(text[i], sizeof *text, "%s", json[draw(10)]);
    } else {
      if (draw(2)) text[i][len++] = ' ';
      for (int k = 0; k < letters; k++)
        text[i][len++] = "eeettaoinsrhldcumfpgwybvkxjqz0123456789"[draw(39)];
      if (draw(20) == 0) text[i][len++] = "\",.:-_"[draw(6)];
    }
    texts[i] = (viv_str){text[i], (size_t)len};
  }
}

/* One text; the times of its tokens. */
static int walk(viv__matcher *m, double *us, int32_t vocab) {
  int n = 0;
  viv__matcher_begin(m);
  while (n < MOST && viv__matcher_goes_on(m)) {
    double from = cpu_us();
    const uint64_t *mask = viv__matcher_mask(m);
    us[n] = cpu_us() - from;
    uint32_t at = draw((uint32_t)vocab), tried = 0;
    for (; !(mask[at / 64] >> (at % 64) & 1) && tried < (uint32_t)vocab; tried++)
      at = (at + 1) % (uint32_t)vocab;
    if (tried == (uint32_t)vocab) break;
    from = cpu_us();
    viv__matcher_token(m, (int32_t)at);
    us[n++] += cpu_us() - from;
  }
  return n;
}

static int measure(const char *name, const char *text, const viv__token_trie *t, int32_t vocab) {
  static double us[TEXTS * MOST];
  viv__grammar *g = NULL;
  viv_error error = VIV_ERROR_INIT;
  double from = cpu_us();
  int32_t status = *text == '{' ? viv__grammar_schema(viv__str(text), &g, &error)
                                : viv__grammar_gbnf(viv__str(text), &g, &error);
  double compiled = (cpu_us() - from) / 1e3;
  if (status < 0) {
    fprintf(stderr, "bench_grammar: %s: %s: %s\n", name, error.where, error.message);
    return 1;
  }
  viv__matcher *m = viv__matcher_new(g, t);
  seed = 7;
  int first = walk(m, us, vocab), n = 0;
  double warming = 0;
  for (int i = 0; i < first; i++) warming += us[i];
  for (int i = 1; i < TEXTS; i++) n += walk(m, us + n, vocab);
  qsort(us, (size_t)n, sizeof *us, by_size);
  printf("%-34s compiled %6.2f ms  first text %8.1f us a token  then %5d tokens: p50 %6.2f us  p99 "
         "%7.2f us"
         "  worst %7.1f us\n",
         name, compiled, warming / first, n, us[n / 2], us[n * 99 / 100], us[n - 1]);
  viv__matcher_free(m);
  viv__grammar_free(g);
  return 0;
}

/* A schema of many texts, none of them the same property. */
static const char *wide(void) {
  static char text[4096];
  size_t n = (size_t)snprintf(text, sizeof text, "{\"type\":\"object\",\"properties\":{");
  for (int i = 0; i < 40; i++)
    n += (size_t)snprintf(text + n, sizeof text - n,
                          "%s\"field%d\":{\"type\":\"string\",\"maxLength\":%d}", i ? "," : "", i,
                          20 + i);
  snprintf(text + n, sizeof text - n, "}}");
  return text;
}

static viv__token_trie *read_vocabulary(const char *file, int32_t *vocab) {
  char *json = NULL;
  size_t len = 0;
  viv_error error = VIV_ERROR_INIT;
  viv__tokenizer *tokenizer = NULL;
  viv__token_trie *t = NULL;
  if (viv__read_file(file, 1 << 30, &json, &len, &error) >= 0 &&
      viv__tokenizer_open((viv_str){json, len}, (viv_str){NULL, 0}, &tokenizer, &error) >= 0)
    t = viv__constraint_trie(tokenizer, *vocab = viv__tokenizer_size(tokenizer));
  else
    fprintf(stderr, "bench_grammar: %s: %s\n", error.where, error.message);
  viv__tokenizer_close(tokenizer);
  viv__free(json);
  return t;
}

int main(int argc, char **argv) {
  static char text[VOCAB][12];
  static viv_str texts[VOCAB];
  int32_t vocab = VOCAB;
  const char *const grammars[][2] = {
      {"object: text, enums, integer",
       "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"tags\":{\"type\":"
       "\"array\","
       "\"items\":{\"enum\":[\"red\",\"green\",\"blue\"]}},\"age\":{\"type\":\"integer\","
       "\"minimum\":0,"
       "\"maximum\":130}},\"required\":[\"name\",\"tags\",\"age\"]}"},
      {"any JSON", "{}"},
      {"text of 100 to 2,000 characters",
       "{\"type\":\"string\",\"minLength\":100,\"maxLength\":2000}"},
      {"40 texts, each of its own length", wide()},
      {"100 to 500 objects", "{\"type\":\"array\",\"minItems\":100,\"maxItems\":500,\"items\":{"
                             "\"type\":\"object\",\"properties\":{"
                             "\"a\":{\"type\":\"string\",\"maxLength\":40},\"b\":{\"type\":"
                             "\"number\"}},\"required\":[\"a\",\"b\"]}}"},
      {"patterns: a date, a code, an address",
       "{\"type\":\"object\",\"properties\":{\"d\":{\"type\":\"string\",\"format\":\"date-time\"},"
       "\"c\":{\"type\":\"string\",\"pattern\":\"^[A-Z]{2}-\\\\d{4,8}$\"},\"m\":{\"type\":"
       "\"string\","
       "\"pattern\":\"^[a-z0-9.]+@[a-z0-9]+\\\\.(?:com|org)$\"}},\"required\":[\"d\",\"c\",\"m\"]"
       "}"},
      {"pattern of counted words",
       "{\"type\":\"string\",\"pattern\":\"^[a-z]{3,40}(?: [a-z0-9]{2,12}){3,60}$\"}"},
      {"a tree that refers to itself",
       "{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\":\"string\"},\"l\":{"
       "\"type\":"
       "\"array\",\"items\":{\"$ref\":\"#/$defs/t\"}}},\"required\":[\"v\",\"l\"]}},\"$ref\":\"#/"
       "$defs/t\"}"},
      {"GBNF, sentences", "root ::= sentence+\nsentence ::= word (\" \" word){2,30} [.!?] \" "
                          "\"?\nword ::= [a-z]+ | [0-9]{1,4}\n"}};
  make_vocabulary(texts, text);
  double from = cpu_us();
  viv__token_trie *t =
      argc > 1 ? read_vocabulary(argv[1], &vocab) : viv__token_trie_new(texts, vocab);
  if (!t) return 1;
  printf("trie of %d tokens: %.1f ms\n", vocab, (cpu_us() - from) / 1e3);
  int failed = 0;
  for (size_t i = 0; i < sizeof grammars / sizeof *grammars; i++)
    failed |= measure(grammars[i][0], grammars[i][1], t, vocab);
  viv__token_trie_free(t);
  return failed;
}
