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
