/* Grammars: what GBNF lets through, what is refused and where, and masks over a vocabulary. */
#include <criterion/criterion.h>
#include <string.h>

#include "grammar/grammar.h"

static bool accepts(const viv__grammar *g, const char *text) {
  viv__matcher *m = viv__matcher_new(g, NULL);
  bool ok = viv__matcher_bytes(m, text, strlen(text)) && viv__matcher_complete(m);
  viv__matcher_free(m);
  return ok;
}

static viv__grammar *gbnf(const char *text) {
  viv_error error = VIV_ERROR_INIT;
  viv__grammar *g = NULL;
  cr_assert_eq(viv__grammar_gbnf(viv__str(text), &g, &error), VIV_OK, "%s", error.message);
  return g;
}

Test(grammar, gbnf_constructs) {
  viv__grammar *g = gbnf("# a comment\nroot ::= head (\",\" head){0,2} tail?\n"
                         "head ::= [a-c]+ | \"\\u00e9\"\n  | \"x\\\"y\"\ntail ::= [^0-9]{2} .\n");
  cr_assert(accepts(g, "abc"));
  cr_assert(accepts(g, "a,\xc3\xa9,x\"y"));
  cr_assert(accepts(g, "aZZ9"));
  cr_assert_not(accepts(g, "a,b,c,a"));
  cr_assert_not(accepts(g, "aZ9"));
  cr_assert_not(accepts(g, ""));
  viv__grammar_free(g);
}

Test(grammar, recursion) {
  viv__grammar *g = gbnf("root ::= \"(\" root \")\" | \"x\"");
  cr_assert(accepts(g, "(((x)))"));
  cr_assert_not(accepts(g, "((x)"));
  cr_assert_not(accepts(g, "(x))"));
  viv__grammar_free(g);
}

static void refused(int32_t (*open)(viv_str, viv__grammar **, viv_error *), const char *text,
                    int32_t code, const char *where, const char *message) {
  viv_error error = VIV_ERROR_INIT;
  viv__grammar *g = NULL;
  cr_assert_eq(open(viv__str(text), &g, &error), code, "%s: %s", text, error.message);
  cr_assert_null(g);
  cr_assert(strstr(error.where, where), "%s: where is %s", text, error.where);
  cr_assert(strstr(error.message, message), "%s: %s", text, error.message);
}

Test(grammar, refusals_name_the_place) {
  refused(viv__grammar_gbnf, "root ::= \"a", VIV_BAD_INPUT, "line 1", "closing");
  refused(viv__grammar_gbnf, "root ::= \"a\"\nx ::= yy", VIV_BAD_INPUT, "line 2, column 7", "yy");
  refused(viv__grammar_gbnf, "x ::= \"a\"", VIV_BAD_INPUT, "", "root");
  refused(viv__grammar_gbnf, "root ::= root \"a\" | \"b\"", VIV_BAD_INPUT, "", "left recursion");
  refused(viv__grammar_gbnf, "root ::= \"a\" root", VIV_BAD_INPUT, "", "never ends");
  refused(viv__grammar_schema, "{\"type\":\"string\",\"pattern\":\"(?=a)\"}", VIV_NEVER, "pattern",
          "not offered");
  refused(viv__grammar_schema, "{\"not\":{}}", VIV_NEVER, "not", "not offered");
  refused(viv__grammar_schema, "{\"type\":\"string\",\"format\":\"isbn\"}", VIV_NEVER, "format",
          "isbn");
  refused(viv__grammar_schema, "{\"minLength\":999999999}", VIV_NEVER, "minLength", "more than");
}

Test(grammar, bounds_hold_for_every_number) {
  for (int low = -12; low <= 12; low += 3)
    for (int high = low; high <= 130; high += 29) {
      char text[96];
      viv__grammar *g = NULL;
      snprintf(text, sizeof text, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", low,
               high);
      cr_assert_eq(viv__grammar_schema(viv__str(text), &g, NULL), VIV_OK);
      for (int i = -30; i <= 200; i++) {
        snprintf(text, sizeof text, "%d", i);
        cr_assert_eq(accepts(g, text), i >= low && i <= high, "%d in %d..%d", i, low, high);
      }
      viv__grammar_free(g);
    }
}

Test(grammar, bounds_of_fractions) {
  viv__grammar *g = NULL;
  cr_assert_eq(
      viv__grammar_schema(
          viv__str("{\"type\":\"number\",\"minimum\":0.25,\"exclusiveMaximum\":0.8}"), &g, NULL),
      VIV_OK);
  cr_assert(accepts(g, "0.25"));
  cr_assert(accepts(g, "0.7999"));
  cr_assert_not(accepts(g, "0.2499"));
  cr_assert_not(accepts(g, "0.8"));
  cr_assert_not(accepts(g, "0.80"));
  cr_assert_not(accepts(g, "0"));
  cr_assert_not(accepts(g, "1"));
  viv__grammar_free(g);
}

Test(grammar, masks_hold_what_may_follow) {
  static const char *const words[] = {"a", "ab", "abc", "b", "", "(", ")", "x)", "((", "a"};
  enum { N = sizeof words / sizeof *words };
  viv_str texts[N];
  viv__grammar *g = gbnf("root ::= \"(\" root \")\" | \"x\" | \"ab\"");
  for (int i = 0; i < N; i++) texts[i] = viv__str(words[i]);
  viv__token_trie *t = viv__token_trie_new(texts, N);
  viv__matcher *m = viv__matcher_new(g, t);
  cr_assert_eq(*viv__matcher_mask(m), 1u << 0 | 1u << 1 | 1u << 5 | 1u << 8 | 1u << 9);
  cr_assert(viv__matcher_token(m, 5));
  cr_assert_eq(*viv__matcher_mask(m), 1u << 0 | 1u << 1 | 1u << 5 | 1u << 7 | 1u << 8 | 1u << 9);
  cr_assert(viv__matcher_token(m, 7));
  cr_assert(viv__matcher_complete(m));
  cr_assert_not(viv__matcher_goes_on(m));
  cr_assert_not(viv__matcher_token(m, 4), "an empty token never passes");
  cr_assert_not(viv__matcher_alive(m));
  viv__matcher_free(m);
  viv__token_trie_free(t);
  viv__grammar_free(g);
}

/* Every mask against every token tried by its bytes: texts that count, lists, nesting, characters in
 * pieces, with tokens longer and shorter than what places of a chain are told apart by. */
enum { VOCAB = 900, STEPS = 20 };

static uint32_t random_state = 1;
static uint32_t draw(uint32_t below) {
  random_state = random_state * 1664525u + 1013904223u;
  return (uint32_t)(((uint64_t)random_state * below) >> 32);
}

static void make_vocabulary(viv_str *texts, char (*text)[64]) {
  static const char *const pieces[] = {"{\"",
                                       "\":",
                                       "\": \"",
                                       "\", \"",
                                       "\",",
                                       "\"}",
                                       "[",
                                       "]",
                                       "],",
                                       "[{\"",
                                       "}]",
                                       ", ",
                                       "\\n",
                                       "\\\"",
                                       "\xc3\xa9",
                                       "\xe4\xb8\xad",
                                       "\xe4\xb8",
                                       "\xad\xe4",
                                       "\xf0\x9f\x98\x80",
                                       "a",
                                       "b",
                                       "ab",
                                       "12",
                                       " "};
  for (int i = 0; i < VOCAB; i++) {
    int len = 0, most = i % 9 == 0 ? 40 : 8;
    if (i < 256) text[i][len++] = (char)i;
    for (int n = i < 256 ? 0 : 1 + (int)draw((uint32_t)most); n > 0 && len < 50; n--) {
      const char *piece = pieces[draw(i % 3 ? 24 : 4) + (i % 3 ? 0 : 18)];
      memcpy(text[i] + len, piece, strlen(piece));
      len += (int)strlen(piece);
    }
    texts[i] = (viv_str){text[i], (size_t)len};
  }
}

static void compare_masks(const char *schema, const viv__token_trie *t, const viv_str *texts) {
  viv__grammar *g = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = *schema == '{' ? viv__grammar_schema(viv__str(schema), &g, &error)
                                  : viv__grammar_gbnf(viv__str(schema), &g, &error);
  cr_assert_eq(status, VIV_OK, "%s", error.message);
  viv__matcher *m = viv__matcher_new(g, t), *plain = viv__matcher_new(g, NULL);
  for (int round = 0; round < 5; round++) {
    char so_far[8192];
    size_t len = 0;
    viv__matcher_begin(m);
    for (int step = 0; step < STEPS && viv__matcher_goes_on(m); step++) {
      const uint64_t *mask = viv__matcher_mask(m);
      int32_t open = 0;
      cr_assert_not_null(mask);
      for (int32_t i = 0; i < VOCAB; i++) {
        viv__matcher_begin(plain);
        bool may = viv__matcher_bytes(plain, so_far, len) &&
                   viv__matcher_bytes(plain, texts[i].ptr, texts[i].len);
        cr_assert_eq(mask[i / 64] >> (i % 64) & 1, may, "%s: token %d \"%.*s\" after \"%.*s\"",
                     schema, i, (int)texts[i].len, texts[i].ptr, (int)len, so_far);
        open += may;
      }
      cr_assert_gt(open, 0);
      int32_t token = -1;
      for (int32_t pick = (int32_t)draw((uint32_t)open); pick >= 0; pick--) do
          token++;
        while (!(mask[token / 64] >> (token % 64) & 1));
      memcpy(so_far + len, texts[token].ptr, texts[token].len);
      len += texts[token].len;
      cr_assert(viv__matcher_token(m, token));
    }
  }
  viv__matcher_free(m);
  viv__matcher_free(plain);
  viv__grammar_free(g);
}

Test(grammar, masks_are_those_of_each_token) {
  static char text[VOCAB][64];
  static viv_str texts[VOCAB];
  static const char *const grammars[] = {
      "{\"type\":\"string\",\"minLength\":30,\"maxLength\":70}",
      "{\"type\":\"string\",\"maxLength\":5}",
      "{\"type\":\"string\",\"minLength\":3}",
      "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":20},\"b\":{"
      "\"type\":"
      "\"array\",\"items\":{\"type\":\"string\",\"maxLength\":9},\"minItems\":20,\"maxItems\":45}}"
      "}",
      "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"integer\"},{\"type\":\"boolean\"}],"
      "\"items\":{\"type\":"
      "\"string\"},\"minItems\":1,\"maxItems\":30}",
      "{\"anyOf\":[{\"type\":\"string\",\"maxLength\":1},{\"enum\":[\"aa\",\"ab\",\"aab\",\"baba\","
      "\"bb\"]}]}",
      "{\"type\":\"string\",\"pattern\":\"^(?:[ab]{2,24} ){3,30}$\"}",
      "{}",
      "root ::= (\"ab\"? [12]?){0,40} \"a\"",
      "root ::= [^x]{25,40} (\" \" | \"ab\" root)"};
  random_state = 3;
  make_vocabulary(texts, text);
  viv__token_trie *t = viv__token_trie_new(texts, VOCAB);
  for (size_t i = 0; i < sizeof grammars / sizeof *grammars; i++)
    compare_masks(grammars[i], t, texts);
  viv__token_trie_free(t);
}

/* What would make a network without end is refused, and soon. */
Test(grammar, schemas_that_explode_are_refused, .timeout = 60) {
  char text[8192], deep[4096] = "";
  refused(viv__grammar_schema, "{\"$ref\":\"#\"}", VIV_BAD_INPUT, "", "");
  refused(viv__grammar_schema,
          "{\"$defs\":{\"a\":{\"$ref\":\"#/$defs/b\"},\"b\":{\"$ref\":\"#/$defs/a\"}},"
          "\"$ref\":\"#/$defs/a\"}",
          VIV_BAD_INPUT, "", "");
  /* Two choices thirty times over: 2^30 combinations. */
  size_t n = (size_t)snprintf(text, sizeof text, "{\"allOf\":[");
  for (int i = 0; i < 30; i++)
    n += (size_t)snprintf(text + n, sizeof text - n,
                          "%s{\"anyOf\":[{\"maxLength\":%d},{\"minLength\":%d}]}", i ? "," : "", i,
                          i);
  snprintf(text + n, sizeof text - n, "]}");
  refused(viv__grammar_schema, text, VIV_BAD_INPUT, "", "");
  /* Objects in objects. */
  for (int i = 0; i < 150; i++) strcat(deep, "{\"items\":");
  snprintf(text, sizeof text, "%strue", deep);
  for (int i = 0; i < 150; i++) strcat(text, "}");
  refused(viv__grammar_schema, text, VIV_BAD_INPUT, "", "deep");
}
