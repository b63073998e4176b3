/* Listed cases of tokenizers: ids, tokens and places of a text, the text of
 * ids, what may be shown while ids come one by one, and single components.
 *
 * Known are {"encode": [{text, ids}], "special": [..], "stream": [{ids,
 * shown}]} of a model with its tokenizer, and {"cases": [..], "pairs": [..],
 * "decode": [..], "truncation_padding": [..]} beside a tokenizer.json; cases of
 * a component hold its JSON themselves. All go to the tokenizer itself. An
 * entry that differs has a row of its own. */
#include <string.h>
#include <unistd.h>

#include "cli/golden.h"
#include "text/text.h"

struct listed {
  viv__golden_case *c;
  viv__tokenizer *t;
  const char *key; /* the list's name */
  int index;       /* the entry's */
  const char *text;
};

static const cJSON *get(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = get(o, key);
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

static void differ(struct listed *l, const char *what, const char *ours, const char *golden) {
  viv__golden_differ(l->c, l->key, l->index, "%s of \"%.160s\": expected %.400s, got %.400s", what,
                     l->text, golden, ours);
}

/* Compares a list that is being made with a golden one; both are freed but for
 * the golden. */
static void check_list(struct listed *l, const char *what, cJSON *ours, const cJSON *golden) {
  char *a = cJSON_PrintUnformatted(ours), *b = golden ? cJSON_PrintUnformatted(golden) : NULL;
  if (a && b && strcmp(a, b) != 0) differ(l, what, a, b);
  cJSON_free(a);
  cJSON_free(b);
  cJSON_Delete(ours);
}

static void check_text(struct listed *l, const char *what, const char *ours, const char *golden) {
  if (golden && strcmp(ours, golden) != 0) differ(l, what, ours, golden);
}

static int32_t *ids_of(const cJSON *list, size_t *n) {
  const cJSON *item;
  int32_t *ids = viv__need(viv__calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *ids));
  *n = 0;
  cJSON_ArrayForEach(item, list) ids[(*n)++] = item->valueint;
  return ids;
}

/* ---- encodings ---- */

static cJSON *number_or_null(int32_t value) {
  return value < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(value);
}

static cJSON *place_of(const viv__encoded *t) {
  cJSON *pair = cJSON_CreateArray();
  cJSON_AddItemToArray(pair, cJSON_CreateNumber(t->start));
  cJSON_AddItemToArray(pair, cJSON_CreateNumber(t->end));
  return pair;
}

/* One column of an encoding, as the golden lists have it. */
static cJSON *column(const viv__encoding *e, const char *key) {
  cJSON *list = viv__need(cJSON_CreateArray());
  for (size_t i = 0; i < e->n; i++) {
    const viv__encoded *t = &e->token[i];
    cJSON *item;
    if (!strcmp(key, "ids"))
      item = cJSON_CreateNumber(t->id);
    else if (!strcmp(key, "type_ids"))
      item = cJSON_CreateNumber(t->type_id);
    else if (!strcmp(key, "tokens"))
      item = cJSON_CreateString(t->text.ptr);
    else if (!strcmp(key, "offsets"))
      item = place_of(t);
    else if (!strcmp(key, "special_tokens_mask"))
      item = cJSON_CreateNumber(t->special);
    else if (!strcmp(key, "attention_mask"))
      item = cJSON_CreateNumber(t->attention);
    else
      item = number_or_null(!strcmp(key, "word_ids") ? t->word : t->sequence);
    cJSON_AddItemToArray(list, item);
  }
  return list;
}

static void check_encoding(struct listed *l, const viv__encoding *e, const cJSON *entry) {
  static const char *const keys[] = {"ids",      "tokens",         "offsets",
                                     "type_ids", "attention_mask", "special_tokens_mask",
                                     "word_ids", "sequence_ids"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (get(entry, keys[i])) check_list(l, keys[i], column(e, keys[i]), get(entry, keys[i]));
}

static viv__encode_options options_of(const cJSON *entry) {
  return (viv__encode_options){.add_special = !cJSON_IsFalse(get(entry, "add_special_tokens")),
                               .parse_special = true,
                               .code_points = true};
}

static void check_encode(struct listed *l, const cJSON *entry) {
  viv__text_pair text = {.text = viv__str(l->text)};
  viv__encode_options options = options_of(entry);
  viv__encodings made = {0};
  viv_error error = VIV_ERROR_INIT;
  if (text_of(entry, "pair")) text.pair = viv__str(text_of(entry, "pair"));
  if (viv__tokenizer_encode_batch(l->t, &text, 1, &options, &made, &error) < 0) {
    differ(l, "encoding", error.message, "an encoding");
    return;
  }
  check_encoding(l, &made.item[0], entry);
  viv__encodings_free(&made);
}

/* ---- decoding ---- */

static void check_decode(struct listed *l, const cJSON *entry, const char *key, bool skip_special) {
  const char *wanted = text_of(entry, key);
  viv_error error = VIV_ERROR_INIT;
  char *text = NULL;
  size_t len = 0, n = 0;
  if (!wanted) return;
  int32_t *ids = ids_of(get(entry, "ids"), &n);
  if (viv__tokenizer_decode(l->t, ids, n, skip_special, &text, &len, &error) < 0)
    differ(l, key, error.message, wanted);
  else
    check_text(l, key, text, wanted);
  viv__free(text);
  viv__free(ids);
}

/* key: a list of what a stream hands out after each id, null where it is
 * nothing. Everything that was handed out is compared, since null may as well
 * be "". */
static void check_stream(struct listed *l, const cJSON *entry, const char *key, bool skip_special) {
  const cJSON *parts = get(entry, key), *item;
  size_t n = 0, i = 0;
  int32_t *ids = ids_of(get(entry, "ids"), &n);
  viv__detokenizer *d = viv__need(viv__detokenizer_new(l->t, skip_special));
  cJSON *ours = viv__need(cJSON_CreateArray());
  for (item = cJSON_IsArray(parts) ? parts->child : NULL; i < n; item = item ? item->next : NULL) {
    viv_str piece = {0};
    if (viv__detokenizer_add(d, ids[i++], &piece) < 0) break;
    char *copy = viv__need(viv__strndup(piece.ptr, piece.len));
    bool none = !piece.len && !cJSON_IsString(item);
    cJSON_AddItemToArray(ours, none ? cJSON_CreateNull() : cJSON_CreateString(copy));
    viv__free(copy);
  }
  viv_str rest = {0};
  viv__detokenizer_finish(d, &rest);
  char *held = viv__need(viv__strndup(rest.ptr, rest.len));
  if (!strcmp(key, "stream"))
    check_text(l, "stream_held_back", held, text_of(entry, "stream_held_back"));
  viv__free(held);
  viv__detokenizer_free(d);
  viv__free(ids);
  check_list(l, key, ours, cJSON_IsArray(parts) ? parts : NULL);
}

/* shown: everything that may stand on the screen after each id. */
static void check_shown(struct listed *l, const cJSON *entry) {
  const cJSON *shown = get(entry, "shown"), *item;
  size_t n = 0, i = 0;
  if (!cJSON_IsArray(shown)) return;
  int32_t *ids = ids_of(get(entry, "ids"), &n);
  viv__detokenizer *d = viv__need(viv__detokenizer_new(l->t, true));
  viv__buf screen = {0};
  cJSON_ArrayForEach(item, shown) {
    viv_str piece = {0};
    if (i >= n || viv__detokenizer_add(d, ids[i++], &piece) < 0) break;
    viv__buf_add(&screen, piece.ptr, piece.len);
    if (!cJSON_IsString(item)) continue;
    const char *ours = screen.len ? screen.ptr : "";
    if (strcmp(ours, item->valuestring)) {
      differ(l, "shown", ours, item->valuestring);
      break;
    }
  }
  viv__buf_free(&screen);
  viv__detokenizer_free(d);
  viv__free(ids);
}

/* ---- entries of a tokenizer ---- */

static void entry_encode(struct listed *l, const cJSON *entry) {
  l->text = text_of(entry, "text");
  if (l->text && get(entry, "ids")) check_encode(l, entry);
  if (!l->text) l->text = "ids";
  /* Of a model's lists `decoded` is what is shown; of a tokenizer's it holds
   * special tokens too. */
  bool both = text_of(entry, "decoded_skip_special") != NULL;
  if (!text_of(entry, "decoded") && !strcmp(l->key, "encode")) check_decode(l, entry, "text", true);
  check_decode(l, entry, both ? "decoded_skip_special" : "decoded", true);
  check_decode(l, entry, both ? "decoded" : "decoded_with_special", false);
  check_shown(l, entry);
  if (get(entry, "stream")) check_stream(l, entry, "stream", true);
}

static void entry_pair(struct listed *l, const cJSON *entry) {
  l->text = text_of(entry, "text");
  if (l->text) check_encode(l, entry);
}

static void entry_decode(struct listed *l, const cJSON *entry) {
  l->text = "ids";
  check_decode(l, entry, "decoded", false);
  check_decode(l, entry, "decoded_skip_special", true);
  check_stream(l, entry, "stream", false);
  check_stream(l, entry, "stream_skip_special", true);
}

static void check_windows(struct listed *l, const viv__encoding *e, const cJSON *entry) {
  const cJSON *windows = get(entry, "overflowing"), *item;
  size_t i = 0;
  check_encoding(l, e, entry);
  if (!cJSON_IsArray(windows)) return;
  if ((size_t)cJSON_GetArraySize(windows) != e->overflows)
    check_list(l, "number of windows", cJSON_CreateNumber((double)e->overflows),
               &(cJSON){.type = cJSON_Number, .valuedouble = cJSON_GetArraySize(windows)});
  cJSON_ArrayForEach(item, windows) {
    if (i == e->overflows) break;
    check_encoding(l, &e->overflow[i++], item);
  }
}

static void entry_batch(struct listed *l, const cJSON *entry) {
  const cJSON *texts = get(entry, "texts"), *item, *expect = get(entry, "expect");
  size_t n = 0;
  viv__text_pair *batch =
      viv__need(viv__calloc((size_t)cJSON_GetArraySize(texts) + 1, sizeof *batch));
  l->text = "a batch";
  cJSON_ArrayForEach(item, texts) {
    const cJSON *first = cJSON_IsArray(item) ? item->child : item;
    batch[n].text = viv__str(first ? first->valuestring : "");
    if (cJSON_IsArray(item) && first && first->next)
      batch[n].pair = viv__str(first->next->valuestring);
    if (!n) l->text = first && first->valuestring ? first->valuestring : "";
    n++;
  }
  viv_error error = VIV_ERROR_INIT;
  viv__encode_options options = options_of(entry);
  viv__encodings made = {0};
  int32_t status =
      viv__truncation_open((const viv_json *)get(entry, "truncation"), &options.truncation, &error);
  if (status >= 0)
    status = viv__padding_open((const viv_json *)get(entry, "padding"), &options.padding, &error);
  if (status >= 0) status = viv__tokenizer_encode_batch(l->t, batch, n, &options, &made, &error);
  bool refuse = get(entry, "error") != NULL;
  if (refuse != (status < 0))
    differ(l, "batch", status < 0 ? error.message : "encodings",
           refuse ? text_of(entry, "error") : "encodings");
  size_t i = 0;
  cJSON_ArrayForEach(item, expect) {
    if (i == made.n) break;
    check_windows(l, &made.item[i++], item);
  }
  if (status >= 0) viv__encodings_free(&made);
  viv__free(batch);
}

/* ---- single components ---- */

static void check_input_output(struct listed *l, const cJSON *io, const viv__normalizer *n,
                               const viv__pre_tokenizer *p) {
  viv__pieces pieces = {0}, other = {0};
  viv__aligned spare = {0};
  const char *why = NULL;
  l->text = io->child && io->child->valuestring ? io->child->valuestring : "";
  size_t len = strlen(l->text);
  viv__aligned_original(&pieces.body, l->text, len, 0);
  if (n) {
    viv__normalize(n, &pieces.body, &spare);
    char *text = viv__need(viv__strndup(pieces.body.len ? pieces.body.text : "", pieces.body.len));
    check_text(l, "normalised form", text, io->child->next->valuestring);
    viv__free(text);
  } else {
    viv__pieces_add(&pieces, 0, len);
    viv__pre_tokenize(p, &pieces, &other, &why);
    cJSON *ours = viv__need(cJSON_CreateArray());
    for (size_t i = 0; i < pieces.n; i++) {
      viv__piece piece = pieces.item[i];
      cJSON *item = cJSON_CreateArray();
      char *text = viv__need(viv__strndup(pieces.body.text + piece.at, piece.len));
      uint32_t at[2] = {pieces.body.span[piece.at].start,
                        pieces.body.span[piece.at + piece.len - 1].end};
      cJSON_AddItemToArray(item, cJSON_CreateString(text));
      for (int k = 0; k < 2; k++) {
        size_t points = 0;
        for (size_t b = 0; b < at[k]; points++) b += viv__cp_len(l->text[b]);
        cJSON_AddItemToArray(item, cJSON_CreateNumber((double)points));
      }
      cJSON_AddItemToArray(ours, item);
      viv__free(text);
    }
    check_list(l, "pieces", ours, io->child->next);
  }
  viv__pieces_free(&pieces);
  viv__pieces_free(&other);
  viv__aligned_free(&spare);
}

static void check_tokens(struct listed *l, const cJSON *io, const viv__decoder *d) {
  const cJSON *tokens = io->child, *item;
  viv_str *list = viv__need(viv__calloc((size_t)cJSON_GetArraySize(tokens) + 1, sizeof *list));
  char *shown = cJSON_PrintUnformatted(tokens), *text = NULL;
  size_t n = 0, len = 0;
  l->text = shown ? shown : "";
  cJSON_ArrayForEach(item, tokens) list[n++] = viv__str(item->valuestring);
  if (viv__decode_tokens(d, list, n, &text, &len) == VIV_OK)
    check_text(l, "text", text, tokens->next->valuestring);
  viv__free(text);
  viv__free(list);
  cJSON_free(shown);
  l->text = "";
}

static void entry_component(struct listed *l, const cJSON *entry) {
  const cJSON *normalizer = get(entry, "normalizer"), *pre = get(entry, "pre_tokenizer"),
              *decoder = get(entry, "decoder"), *list = get(entry, "io"), *io;
  viv__normalizer *n = NULL;
  viv__pre_tokenizer *p = NULL;
  viv__decoder *d = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = normalizer ? viv__normalizer_open((const viv_json *)normalizer, &n, &error)
                   : pre      ? viv__pre_tokenizer_open((const viv_json *)pre, &p, &error)
                              : viv__decoder_open((const viv_json *)decoder, &d, &error);
  l->text = "";
  if (status < 0) differ(l, "component", error.message, "to be opened");
  if (status < 0) list = NULL;
  cJSON_ArrayForEach(io, list) {
    if (!io->child || !io->child->next) continue;
    if (d)
      check_tokens(l, io, d);
    else
      check_input_output(l, io, n, p);
  }
  viv__normalizer_free(n);
  viv__pre_tokenizer_free(p);
  viv__decoder_free(d);
}

/* A tokenizer.json within the entry: texts and their encodings, or a file to be
 * refused. */
static void entry_file(struct listed *l, const cJSON *entry) {
  const cJSON *json = get(entry, "tokenizer_json"), *io = get(entry, "io"), *item;
  char *printed = cJSON_IsString(json) ? NULL : cJSON_PrintUnformatted(json);
  viv_error error = VIV_ERROR_INIT;
  viv__tokenizer *t = NULL;
  viv_str text = viv__str(printed ? printed : json->valuestring);
  int32_t status = viv__tokenizer_open(text, (viv_str){NULL, 0}, &t, &error);
  l->text = text_of(entry, "what") ? text_of(entry, "what") : "";
  if (io && status < 0) differ(l, "file", error.message, "to be opened");
  if (!io && status >= 0) differ(l, "file", "opened", "to be refused");
  if (!io && status < 0 && (!*error.where || !*error.message))
    differ(l, "file", error.message, "an error that names the place");
  l->t = t;
  if (status < 0) io = NULL;
  cJSON_ArrayForEach(item, io) entry_pair(l, item);
  l->t = NULL;
  viv__tokenizer_close(t);
  cJSON_free(printed);
}

static char *from_hex(const char *hex, size_t *len) {
  *len = strlen(hex) / 2;
  char *bytes = viv__need(viv__calloc(*len + 1, 1));
  for (size_t i = 0; i < *len; i++) {
    unsigned value = 0;
    sscanf(hex + 2 * i, "%2x", &value);
    bytes[i] = (char)value;
  }
  return bytes;
}

/* A text with U+0000, in hexadecimal, and the path of a tokenizer.json. */
static void entry_hex(struct listed *l, const cJSON *entry) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__need(viv__path_join(l->c->dir, text_of(entry, "tokenizer"))), *json = NULL;
  size_t len = 0, bytes = 0, wanted = 0, n = 0, text_len = 0;
  char *text = from_hex(text_of(entry, "text_hex"), &bytes), *decoded = NULL;
  char *golden =
      from_hex(text_of(entry, "decoded_hex") ? text_of(entry, "decoded_hex") : "", &wanted);
  viv__text_pair pair = {.text = {text, bytes}};
  viv__encode_options options = options_of(entry);
  viv__encodings made = {0};
  int32_t status = viv__read_file(path, VIV__GOLDEN_LIST_LIMIT, &json, &len, &error);
  l->text = text_of(entry, "text_hex");
  if (status >= 0)
    status = viv__tokenizer_open((viv_str){json, len}, (viv_str){NULL, 0}, &l->t, &error);
  if (status >= 0) status = viv__tokenizer_encode_batch(l->t, &pair, 1, &options, &made, &error);
  if (status >= 0) check_encoding(l, &made.item[0], entry);
  int32_t *ids = ids_of(get(entry, "ids"), &n);
  if (status >= 0) status = viv__tokenizer_decode(l->t, ids, n, false, &decoded, &text_len, &error);
  if (status < 0)
    differ(l, "encoding", error.message, "an encoding");
  else if (text_len != wanted || (wanted && memcmp(decoded, golden, wanted) != 0))
    differ(l, "decoded", decoded, text_of(entry, "decoded_hex"));
  if (made.item) viv__encodings_free(&made);
  viv__tokenizer_close(l->t);
  l->t = NULL;
  viv__free(ids);
  viv__free(decoded);
  viv__free(golden);
  viv__free(text);
  viv__free(json);
  viv__free(path);
}

/* ---- lists ---- */

static void walk(struct listed *l, const char *key, void (*check)(struct listed *, const cJSON *)) {
  const cJSON *list = get(l->c->list, key), *entry;
  if (!cJSON_IsArray(list)) return;
  viv__golden_add(l->c, "(list)", key)->exact = true;
  l->key = key;
  l->index = 0;
  cJSON_ArrayForEach(entry, list) {
    check(l, entry);
    l->index++;
  }
}

/* The check of a component's entries, which need no tokenizer.json beside them,
 * or NULL. */
static void (*component_check(const cJSON *first))(struct listed *, const cJSON *) {
  if (!first) return NULL;
  if (get(first, "tokenizer_json")) return entry_file;
  if (text_of(first, "text_hex") && text_of(first, "tokenizer")) return entry_hex;
  bool component = get(first, "normalizer") || get(first, "pre_tokenizer") || get(first, "decoder");
  return component && get(first, "io") ? entry_component : NULL;
}

bool viv__golden_texts(viv__golden_case *c) {
  const char *dir = c->model ? c->model : c->dir;
  const cJSON *first = viv__golden_first_entry(c);
  viv_error error = VIV_ERROR_INIT;
  struct listed l = {.c = c};
  void (*component)(struct listed *, const cJSON *) = component_check(first);
  bool known = component || get(c->list, "encode") || (text_of(first, "text") && get(first, "ids"));
  if (component) {
    walk(&l, "cases", component);
  } else if (known && viv__tokenizer_open_folder(dir, &l.t, &error) < 0) {
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "tokenizer: %s (%s)", error.message, error.where);
  } else if (known) {
    walk(&l, "encode", entry_encode);
    walk(&l, "special", entry_encode);
    walk(&l, "stream", entry_encode);
    walk(&l, "cases", entry_encode);
    walk(&l, "pairs", entry_pair);
    walk(&l, "decode", entry_decode);
    walk(&l, "truncation_padding", entry_batch);
    viv__tokenizer_close(l.t);
  }
  return known;
}
