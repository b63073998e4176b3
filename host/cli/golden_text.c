/* Listed texts of tokenizer cases: ids of a text, the text of ids, and what may be shown while ids
 * come one by one.
 *
 * Two forms are known: {"encode": [{text, ids}], "special": [..], "stream": [{ids, shown}]} of a
 * model with its tokenizer, and a folder that holds a tokenizer.json and {"cases": [{text, ids,
 * decoded, ..}]}. Both go to the tokenizer itself. */
#include <string.h>
#include <unistd.h>

#include "cli/golden.h"
#include "text/tokenizer.h"

enum { LIST_LIMIT = 64 << 20 };

struct listed {
  viv__golden_case *c;
  viv__tokenizer *t;
  int64_t wrong;
};

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

static void differ(struct listed *l, int index, const char *what, const char *ours,
                   const char *golden) {
  l->wrong++;
  viv__golden_row *row = &l->c->rows[l->c->n_rows - 1];
  row->max_err = (double)l->wrong;
  if (row->ok)
    viv__golden_fail(l->c, row, "entry %d, %s: ours %.300s golden %.300s", index, what, ours,
                     golden);
}

static int32_t *ids_of(const cJSON *list, size_t *n) {
  const cJSON *item;
  int32_t *ids = viv__need(viv__calloc((size_t)cJSON_GetArraySize(list), sizeof *ids));
  *n = 0;
  cJSON_ArrayForEach(item, list) ids[(*n)++] = item->valueint;
  return ids;
}

static void check_ids(struct listed *l, int index, const cJSON *entry, bool special) {
  const char *text = text_of(entry, "text");
  const cJSON *wanted = cJSON_GetObjectItemCaseSensitive(entry, "ids"), *item;
  const cJSON *add = cJSON_GetObjectItemCaseSensitive(entry, "add_special_tokens");
  viv_error error = VIV_ERROR_INIT;
  int32_t *ids = NULL;
  size_t n = 0;
  if (!text || !cJSON_IsArray(wanted)) return;
  if (viv__tokenizer_encode(l->t, viv__str(text), !cJSON_IsFalse(add), special, &ids, &n, &error) <
      0) {
    differ(l, index, "encode", error.message, text);
    return;
  }
  bool same = (int)n == cJSON_GetArraySize(wanted);
  size_t i = 0;
  cJSON_ArrayForEach(item, wanted) {
    same = same && ids[i] == item->valueint;
    i++;
  }
  if (!same) {
    viv__buf ours = {0};
    for (i = 0; i < n; i++) viv__buf_fmt(&ours, "%s%d", i ? "," : "[", ids[i]);
    viv__buf_add(&ours, "]", 2);
    char *golden = cJSON_PrintUnformatted(wanted);
    differ(l, index, text, ours.ptr ? ours.ptr : "", golden ? golden : "");
    cJSON_free(golden);
    viv__buf_free(&ours);
  }
  viv__free(ids);
}

static void check_text(struct listed *l, int index, const cJSON *entry, const char *key,
                       bool skip_special) {
  const char *wanted = text_of(entry, key);
  viv_error error = VIV_ERROR_INIT;
  char *text = NULL;
  size_t len = 0, n = 0;
  if (!wanted) return;
  int32_t *ids = ids_of(cJSON_GetObjectItemCaseSensitive(entry, "ids"), &n);
  if (viv__tokenizer_decode(l->t, ids, n, skip_special, &text, &len, &error) < 0)
    differ(l, index, key, error.message, wanted);
  else if (strcmp(text, wanted))
    differ(l, index, key, text, wanted);
  viv__free(text);
  viv__free(ids);
}

/* shown: everything that may stand on the screen after each id. */
static void check_stream(struct listed *l, int index, const cJSON *entry) {
  const cJSON *shown = cJSON_GetObjectItemCaseSensitive(entry, "shown"), *item;
  size_t n = 0, i = 0;
  if (!cJSON_IsArray(shown)) return;
  int32_t *ids = ids_of(cJSON_GetObjectItemCaseSensitive(entry, "ids"), &n);
  viv__detokenizer *d = viv__need(viv__detokenizer_new(l->t, true));
  viv__buf screen = {0};
  cJSON_ArrayForEach(item, shown) {
    viv_str piece = {0};
    if (i >= n || viv__detokenizer_add(d, ids[i++], &piece) < 0) break;
    viv__buf_add(&screen, piece.ptr, piece.len);
    viv_str ours = {screen.ptr, screen.len};
    if (cJSON_IsString(item) && !viv__str_eq(ours, item->valuestring)) {
      char *copy = viv__need(viv__strndup(screen.ptr ? screen.ptr : "", screen.len));
      differ(l, index, "stream", copy, item->valuestring);
      viv__free(copy);
      break;
    }
  }
  viv__buf_free(&screen);
  viv__detokenizer_free(d);
  viv__free(ids);
}

static void check_list(struct listed *l, const cJSON *doc, const char *key) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(doc, key), *entry;
  int index = 0;
  if (!cJSON_IsArray(list)) return;
  viv__golden_add(l->c, "(list)", key)->exact = true;
  l->wrong = 0;
  cJSON_ArrayForEach(entry, list) {
    check_ids(l, index, entry, true);
    if (!text_of(entry, "decoded") && !strcmp(key, "encode"))
      check_text(l, index, entry, "text", true);
    check_text(l, index, entry,
               text_of(entry, "decoded_skip_special") ? "decoded_skip_special" : "decoded", true);
    check_text(l, index, entry,
               text_of(entry, "decoded_with_special") ? "decoded_with_special" : "-", false);
    if (text_of(entry, "decoded_skip_special")) check_text(l, index, entry, "decoded", false);
    check_stream(l, index, entry);
    index++;
  }
}

static viv__tokenizer *open_tokenizer(const char *dir, viv_error *error) {
  char *path = viv__need(viv__path_join(dir, "tokenizer.json")), *json = NULL, *config = NULL;
  char *config_path = viv__need(viv__path_join(dir, "tokenizer_config.json"));
  size_t len = 0, config_len = 0;
  viv__tokenizer *t = NULL;
  if (!access(config_path, R_OK))
    viv__read_file(config_path, LIST_LIMIT, &config, &config_len, NULL);
  if (viv__read_file(path, LIST_LIMIT, &json, &len, error) >= 0)
    viv__tokenizer_open((viv_str){json, len}, (viv_str){config, config_len}, &t, error);
  viv__free(json);
  viv__free(config);
  viv__free(path);
  viv__free(config_path);
  return t;
}

bool viv__golden_texts(viv__golden_case *c, viv_model *model) {
  (void)model;
  const char *dir = c->model ? c->model : c->dir;
  char *path = viv__need(viv__path_join(c->dir, text_of(c->meta, "cases")));
  char *tokenizer = viv__need(viv__path_join(dir, "tokenizer.json"));
  viv_error error = VIV_ERROR_INIT;
  cJSON *doc = viv__parse_json_file(path, LIST_LIMIT, &error);
  const cJSON *cases = cJSON_GetObjectItemCaseSensitive(doc, "cases");
  bool known = cJSON_GetObjectItemCaseSensitive(doc, "encode") ||
               (cJSON_IsArray(cases) && cases->child && text_of(cases->child, "text") &&
                cJSON_GetObjectItemCaseSensitive(cases->child, "ids"));
  bool here = known && !access(tokenizer, R_OK);
  viv__free(path);
  viv__free(tokenizer);
  struct listed l = {.c = c, .t = here ? open_tokenizer(dir, &error) : NULL};
  if (here && !l.t) viv__golden_refuse(c, VIV__GOLDEN_FAILED, "tokenizer: %s", error.message);
  if (l.t) {
    check_list(&l, doc, "encode");
    check_list(&l, doc, "special");
    check_list(&l, doc, "stream");
    check_list(&l, doc, "cases");
    viv__tokenizer_close(l.t);
  }
  cJSON_Delete(doc);
  return here;
}
