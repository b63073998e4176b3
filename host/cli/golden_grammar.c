/* Listed cases of constraints: {"cases": [{"schema" or "grammar", "accept", "valid", "reject",
 * "dead_prefixes"}]} and {"bad": [{"schema"}], "refuse_or_obey": [{"schema", "reject"}]}. One row per
 * failing entry, and one for all. A "schema" that is a text is the request's raw text. */
#include <string.h>

#include "cli/golden.h"
#include "grammar/grammar.h"

struct judge {
  viv__golden_case *c;
  int entries, failed;
  const char *list;
  bool bad; /* the present entry */
};

static const cJSON *member(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

static void differ(struct judge *j, int index, const char *text, const char *expected,
                   const char *got) {
  viv__golden_differ(j->c, j->list, index, "%.300s: expected %s got %s", text, expected, got);
  j->bad = true;
}

static int32_t compile(const cJSON *entry, viv__grammar **g, viv_error *error) {
  const cJSON *schema = member(entry, "schema"), *grammar = member(entry, "grammar");
  char *text = NULL;
  int32_t status;
  if (cJSON_IsString(grammar)) return viv__grammar_gbnf(viv__str(grammar->valuestring), g, error);
  if (!schema) return VIV_FAIL(error, VIV_BAD_INPUT, "cases.json", "neither schema nor grammar");
  if (cJSON_IsString(schema)) return viv__grammar_schema(viv__str(schema->valuestring), g, error);
  text = viv__need(cJSON_PrintUnformatted(schema));
  status = viv__grammar_schema(viv__str(text), g, error);
  cJSON_free(text);
  return status;
}

/* Length of the longest living prefix. */
static size_t living(viv__matcher *m, const char *text) {
  size_t n = 0;
  viv__matcher_begin(m);
  while (text[n] && viv__matcher_bytes(m, text + n, 1)) n++;
  return n;
}

static void judge_texts(struct judge *j, int index, const cJSON *entry, const viv__grammar *g) {
  viv__matcher *m = viv__need(viv__matcher_new(g, NULL));
  const cJSON *text;
  char got[64];
  cJSON_ArrayForEach(text, member(entry, "accept")) {
    size_t n = living(m, text->valuestring);
    snprintf(got, sizeof got, n < strlen(text->valuestring) ? "refused at byte %zu" : "unfinished",
             n);
    if (n < strlen(text->valuestring) || !viv__matcher_complete(m))
      differ(j, index, text->valuestring, "accepted", got);
  }
  cJSON_ArrayForEach(text, member(entry, "reject")) {
    if (living(m, text->valuestring) == strlen(text->valuestring) && viv__matcher_complete(m))
      differ(j, index, text->valuestring, "rejected", "accepted");
  }
  cJSON_ArrayForEach(text, member(entry, "dead_prefixes")) {
    if (living(m, text->valuestring) == strlen(text->valuestring))
      differ(j, index, text->valuestring, "dead", "alive");
  }
  viv__matcher_free(m);
}

static void judge_list(struct judge *j, const char *list, bool must, bool may) {
  const cJSON *entry;
  int index = 0;
  j->list = list;
  cJSON_ArrayForEach(entry, member(j->c->list, list)) {
    viv_error error = VIV_ERROR_INIT;
    viv__grammar *g = NULL;
    char said[700];
    int32_t status = compile(entry, &g, &error);
    const cJSON *name = member(entry, must ? "what" : "name");
    const char *title = cJSON_IsString(name) ? name->valuestring : list;
    snprintf(said, sizeof said, "%.400s (%.200s)", error.message, error.where);
    j->bad = false;
    if (must && status >= 0) differ(j, index, title, "a refusal", "none");
    if (!must && !may && status < 0) differ(j, index, title, "a grammar", said);
    if (status < 0 && !*error.message) differ(j, index, title, "a reason", "none");
    if (!must && status >= 0) judge_texts(j, index, entry, g);
    viv__grammar_free(g);
    j->entries++;
    j->failed += j->bad;
    index++;
  }
}

bool viv__golden_grammars(viv__golden_case *c) {
  bool ours = member(c->list, "refuse_or_obey") || member(c->list, "bad") ||
              member(viv__golden_first_entry(c), "accept");
  struct judge j = {.c = c};
  if (ours) {
    judge_list(&j, "cases", false, false);
    judge_list(&j, "bad", true, false);
    judge_list(&j, "refuse_or_obey", false, true);
    viv__golden_tally(c, "entries", j.failed, j.entries);
  }
  return ours;
}
