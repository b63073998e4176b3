/* tokenizer.json read and checked, and a text to ids.
 *
 *   text -> added tokens that match it as it is -> normaliser on what lies between -> added tokens
 *   that match normalised text -> pre-tokenizer -> BPE -> the post-processor's template
 *
 * "truncation" and "padding" are left to the caller: they belong to batches. The JSON parser cuts a
 * string at U+0000, so a vocabulary can't hold that character other than as <0x00> or in the byte
 * alphabet; texts can. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

typedef struct added_token {
  char *text;
  size_t len;
  char *form; /* what it decodes to, where it is normalised; else NULL */
  size_t form_len;
  int32_t id;
  bool special, single_word, lstrip, rstrip;
} added_token;

/* A trie over spellings: (node, byte) -> node. */
typedef struct trie {
  viv__map edge, end; /* end: node -> index of the added token */
  uint64_t nodes;
  bool starts[256]; /* bytes that some spelling begins with */
} trie;

struct viv__tokenizer {
  viv__bpe bpe;
  viv__steps *normalizer, *pre_tokenizer;
  viv__decoder *decoder;
  added_token *added;
  size_t n_added;
  trie raw, normalized;
  viv__token *token; /* by id */
  int32_t size;
  viv__ids before, after; /* the template's ids around a text */
};

static const char place[] = "tokenizer.json";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* ---- added tokens ---- */

static bool trie_put(trie *t, const char *text, size_t len, uint64_t value) {
  uint64_t node = 0, next, taken;
  for (size_t i = 0; i < len; i++, node = next) {
    uint64_t edge = node << 8 | (unsigned char)text[i];
    if (viv__map_get(&t->edge, edge, &next)) continue;
    next = ++t->nodes;
    if (!viv__map_put(&t->edge, edge, next)) return false;
  }
  t->starts[(unsigned char)text[0]] = true;
  return viv__map_get(&t->end, node, &taken) || viv__map_put(&t->end, node, value);
}

/* The longest spelling that stands at text[at]: its end, or 0. */
static size_t trie_match(const trie *t, viv_str text, size_t at, uint64_t *value) {
  size_t end = 0;
  uint64_t node = 0;
  if (!t->starts[(unsigned char)text.ptr[at]]) return 0;
  for (size_t i = at; i < text.len; i++) {
    if (!viv__map_get(&t->edge, node << 8 | (unsigned char)text.ptr[i], &node)) break;
    if (viv__map_get(&t->end, node, value)) end = i + 1;
  }
  return end;
}

static void trie_free(trie *t) {
  viv__map_free(&t->edge);
  viv__map_free(&t->end);
}

static int32_t open_added_token(const viv_json *node, viv__tokenizer *t, size_t index,
                                viv_error *error) {
  viv_str text = viv__json_string(viv__json_get(node, "content"));
  double id = viv__json_num(node, "id", -1);
  if (!text.ptr)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "added token %zu has no string \"content\"",
                    index);
  if (!(id >= 0 && id < MAX_TOKEN_ID) || id != floor(id))
    return VIV_FAIL(error, VIV_BAD_INPUT, place,
                    "added token %zu, \"%.80s\": its \"id\" is not a whole number from 0 to %d",
                    index, text.ptr, MAX_TOKEN_ID - 1);
  if (!text.len) return VIV_OK; /* nothing that could match */
  /* A spelling of the vocabulary keeps the id that it has there. */
  int32_t known = viv__bpe_find(&t->bpe, text.ptr, text.len);
  added_token a = {.text = viv__strndup(text.ptr, text.len),
                   .len = text.len,
                   .id = known >= 0 ? known : (int32_t)id,
                   .special = viv__json_bool(node, "special", false),
                   .single_word = viv__json_bool(node, "single_word", false),
                   .lstrip = viv__json_bool(node, "lstrip", false),
                   .rstrip = viv__json_bool(node, "rstrip", false)};
  if (!a.text) return no_memory(error);
  t->added[t->n_added++] = a;
  /* A special one is not normalised unless it says so; one that is not, is unless it says so. */
  bool normalized = viv__json_bool(node, "normalized", !a.special);
  if (!normalized)
    return trie_put(&t->raw, a.text, a.len, t->n_added - 1) ? VIV_OK : no_memory(error);
  viv__buf form = {0}, spare = {0};
  viv__buf_add(&form, a.text, a.len);
  if (!form.failed) viv__normalize(t->normalizer, &form, &spare);
  bool ok = !form.failed && !spare.failed;
  if (ok && form.len) ok = trie_put(&t->normalized, form.ptr, form.len, t->n_added - 1);
  t->added[t->n_added - 1].form = form.ptr;
  t->added[t->n_added - 1].form_len = form.len;
  viv__buf_free(&spare);
  return ok ? VIV_OK : no_memory(error);
}

/* Special tokens come first: where two have one spelling, the special one is meant. */
static int32_t open_added(const viv_json *list, viv__tokenizer *t, viv_error *error) {
  int32_t type = viv__json_type(list);
  if (type == VIV_JSON_ABSENT || type == VIV_JSON_NULL) return VIV_OK;
  if (type != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "\"added_tokens\" must be a list");
  t->added = viv__calloc((size_t)viv__json_count(list), sizeof *t->added);
  if (!t->added) return no_memory(error);
  for (int special = 1; special >= 0; special--) {
    size_t index = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, (const cJSON *)list) {
      const viv_json *node = (const viv_json *)item;
      int32_t status = VIV_OK;
      if (viv__json_bool(node, "special", false) == (special == 1))
        status = open_added_token(node, t, index, error);
      if (status < 0) return status;
      index++;
    }
  }
  return VIV_OK;
}

/* ---- the table by id ---- */

static int32_t index_ids(viv__tokenizer *t, viv_error *error) {
  for (size_t i = 0; i < t->bpe.n; i++)
    if (t->bpe.entry[i].id >= t->size) t->size = t->bpe.entry[i].id + 1;
  for (size_t i = 0; i < t->n_added; i++)
    if (t->added[i].id >= t->size) t->size = t->added[i].id + 1;
  size_t n = t->bpe.n + t->n_added;
  if ((size_t)t->size > 65536 + 64 * n)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "%zu tokens have ids up to %d: too sparse", n,
                    (int)t->size - 1);
  t->token = viv__calloc((size_t)t->size, sizeof *t->token);
  if (!t->token) return no_memory(error);
  for (size_t i = 0; i < t->bpe.n; i++) {
    const viv__vocab_entry *e = &t->bpe.entry[i];
    t->token[e->id].text = (viv_str){e->text, e->len};
  }
  for (size_t i = t->n_added; i-- > 0;) { /* backwards, so that special ones win */
    const added_token *a = &t->added[i];
    viv_str text = a->form ? (viv_str){a->form, a->form_len} : (viv_str){a->text, a->len};
    t->token[a->id] = (viv__token){text, a->special};
  }
  return VIV_OK;
}

/* ---- the post-processor ---- */

/* Appends the ids that a template's special token stands for. */
static int32_t template_ids(const viv_json *processor, const viv_json *entry, viv__ids *ids,
                            viv_error *error) {
  const char *name = viv__json_text(entry, "id", "");
  const viv_json *special = viv__json_get(viv__json_get(processor, "special_tokens"), name);
  const viv_json *list = viv__json_get(special, "ids");
  if (viv__json_type(list) != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json, post_processor",
                    "the template names \"%.80s\", for which \"special_tokens\" has no ids", name);
  const cJSON *id;
  cJSON_ArrayForEach(id, (const cJSON *)list) {
    double value = cJSON_IsNumber(id) ? id->valuedouble : -1;
    if (!(value >= 0 && value < MAX_TOKEN_ID) || value != floor(value))
      return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json, post_processor",
                      "an id of \"%.80s\" is not a whole number from 0 to %d", name,
                      MAX_TOKEN_ID - 1);
    viv__ids_add(ids, (int32_t)value);
  }
  return ids->failed ? no_memory(error) : VIV_OK;
}

/* Puts a processor's ids around those of the processors before it. */
static int32_t wrap(viv__tokenizer *t, viv__ids *before, const viv__ids *after, viv_error *error) {
  for (size_t i = 0; i < t->before.n; i++) viv__ids_add(before, t->before.ptr[i]);
  for (size_t i = 0; i < after->n; i++) viv__ids_add(&t->after, after->ptr[i]);
  viv__ids swap = t->before;
  t->before = *before;
  *before = swap;
  return t->before.failed || t->after.failed ? no_memory(error) : VIV_OK;
}

static int32_t open_template(const viv_json *node, viv__ids *before, viv__ids *after,
                             viv_error *error) {
  static const char where[] = "tokenizer.json, post_processor";
  const viv_json *single = viv__json_get(node, "single");
  if (viv__json_type(single) != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "TemplateProcessing needs a list \"single\"");
  bool seen = false;
  const cJSON *item;
  cJSON_ArrayForEach(item, (const cJSON *)single) {
    const viv_json *part = (const viv_json *)item;
    const viv_json *special = viv__json_get(part, "SpecialToken");
    if (special) {
      int32_t status = template_ids(node, special, seen ? after : before, error);
      if (status < 0) return status;
      continue;
    }
    const char *text = viv__json_text(viv__json_get(part, "Sequence"), "id", "");
    if (strcmp(text, "A") != 0 || seen)
      return VIV_FAIL(error, VIV_NEVER, where,
                      "the template for a single text must hold the text A once, between special "
                      "tokens");
    seen = true;
  }
  return seen ? VIV_OK
              : VIV_FAIL(error, VIV_NEVER, where, "the template for a single text lacks the text");
}

/* RobertaProcessing and BertProcessing: cls text sep, each as ["token", id]. */
static int32_t open_pair(const viv_json *node, const char *key, viv__ids *ids, viv_error *error) {
  const viv_json *id = viv__json_item(viv__json_get(node, key), 1);
  double value = viv__json_type(id) == VIV_JSON_NUMBER ? viv__json_number(id) : -1;
  if (!(value >= 0 && value < MAX_TOKEN_ID) || value != floor(value))
    return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json, post_processor",
                    "\"%s\" must be a list of a token and its id", key);
  viv__ids_add(ids, (int32_t)value);
  return ids->failed ? no_memory(error) : VIV_OK;
}

static int32_t open_processor(const viv_json *node, viv__tokenizer *t, viv_error *error) {
  static const char where[] = "tokenizer.json, post_processor";
  int32_t kind = viv__json_type(node), status = VIV_OK;
  if (kind == VIV_JSON_ABSENT || kind == VIV_JSON_NULL) return VIV_OK;
  const char *type = viv__json_text(node, "type", "");
  if (!strcmp(type, "ByteLevel")) return VIV_OK; /* concerns offsets only */
  if (!strcmp(type, "Sequence")) {
    const viv_json *list = viv__json_get(node, "processors");
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence needs a list \"processors\"");
    const cJSON *item;
    cJSON_ArrayForEach(item, (const cJSON *)list) {
      status = open_processor((const viv_json *)item, t, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  viv__ids before = {0}, after = {0};
  if (!strcmp(type, "TemplateProcessing")) {
    status = open_template(node, &before, &after, error);
  } else if (!strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing")) {
    status = open_pair(node, "cls", &before, error);
    if (status >= 0) status = open_pair(node, "sep", &after, error);
  } else {
    status = VIV_FAIL(error, VIV_NEVER, where,
                      "the type \"%.60s\" is not supported; this version has TemplateProcessing, "
                      "ByteLevel, RobertaProcessing, BertProcessing and Sequence",
                      type);
  }
  if (status >= 0) status = wrap(t, &before, &after, error);
  viv__free(before.ptr);
  viv__free(after.ptr);
  return status;
}

/* The id of the token that tokenizer_config.json calls key: a string or an object with content. */
static int32_t config_token(const viv__tokenizer *t, const viv_json *config, const char *key) {
  const viv_json *node = viv__json_get(config, key);
  const char *text = viv__json_text(node, "content", viv__json_text(config, key, NULL));
  return text ? viv__tokenizer_id(t, text) : -1;
}

/* add_bos_token and add_eos_token. The classes that wrap Llama's tokenizer build their template
 * from these two, whatever the file says; for others they count where the file has no
 * post-processor. */
static int32_t apply_config(const viv_json *config, bool has_processor, viv__tokenizer *t,
                            viv_error *error) {
  static const char *const rebuilding[] = {"LlamaTokenizer",     "LlamaTokenizerFast",
                                           "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
                                           "GemmaTokenizer",     "GemmaTokenizerFast"};
  const char *class = viv__json_text(config, "tokenizer_class", "");
  bool rebuild = !has_processor;
  for (size_t i = 0; i < sizeof rebuilding / sizeof *rebuilding; i++)
    rebuild |= !strcmp(class, rebuilding[i]);
  if (!rebuild) return VIV_OK;
  static const char *const keys[2][2] = {{"add_bos_token", "bos_token"},
                                         {"add_eos_token", "eos_token"}};
  for (int i = 0; i < 2; i++) {
    const viv_json *wanted = viv__json_get(config, keys[i][0]);
    viv__ids *ids = i ? &t->after : &t->before;
    if (viv__json_type(wanted) != VIV_JSON_BOOL) continue;
    ids->n = 0;
    if (!viv__json_boolean(wanted)) continue;
    int32_t id = config_token(t, config, keys[i][1]);
    if (id < 0)
      return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer_config.json",
                      "\"%s\" is true, but \"%s\" names no token of tokenizer.json", keys[i][0],
                      keys[i][1]);
    viv__ids_add(ids, id);
    if (ids->failed) return no_memory(error);
  }
  return VIV_OK;
}

/* A template may only give ids that the rest of the program can look up. */
static int32_t check_template(const viv__tokenizer *t, viv_error *error) {
  for (size_t i = 0; i < t->before.n + t->after.n; i++) {
    int32_t id = i < t->before.n ? t->before.ptr[i] : t->after.ptr[i - t->before.n];
    if (!viv__tokenizer_token(t, id))
      return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json, post_processor",
                      "id %d is in no vocabulary", (int)id);
  }
  return VIV_OK;
}

/* ---- open and close ---- */

static int32_t open_document(const viv_json *doc, const viv_json *config, viv__tokenizer *t,
                             viv_error *error) {
  if (viv__json_type(doc) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "must be an object");
  const char *version = viv__json_text(doc, "version", "1.0");
  if (strcmp(version, "1.0") != 0)
    return VIV_FAIL(error, VIV_NEVER, place, "version \"%.40s\" is not supported; expected 1.0",
                    version);
  const viv_json *model = viv__json_get(doc, "model");
  if (viv__json_type(model) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "has no object \"model\"");
  /* Files of before 2020 don't name the type; only BPE has merges. */
  const char *type = viv__json_text(model, "type", viv__json_get(model, "merges") ? "BPE" : "");
  if (strcmp(type, "BPE") != 0)
    return VIV_FAIL(error, VIV_NEVER, place,
                    "the model type \"%.60s\" is not supported; this version has BPE", type);
  const viv_json *processor = viv__json_get(doc, "post_processor");
  int32_t status = viv__bpe_open(model, &t->bpe, error);
  if (status >= 0)
    status = viv__normalizer_open(viv__json_get(doc, "normalizer"), &t->normalizer, error);
  if (status >= 0)
    status = viv__pre_tokenizer_open(viv__json_get(doc, "pre_tokenizer"), &t->pre_tokenizer, error);
  if (status >= 0) status = viv__decoder_open(viv__json_get(doc, "decoder"), &t->decoder, error);
  if (status >= 0) status = open_added(viv__json_get(doc, "added_tokens"), t, error);
  if (status >= 0) status = index_ids(t, error);
  if (status >= 0) status = open_processor(processor, t, error);
  if (status >= 0)
    status = apply_config(config, viv__json_type(processor) == VIV_JSON_OBJECT, t, error);
  if (status >= 0) status = check_template(t, error);
  return status;
}

int32_t viv__tokenizer_open(viv_str json, viv_str config, viv__tokenizer **out, viv_error *error) {
  size_t whole = viv__utf8_bad(json.ptr, json.len);
  if (whole < json.len)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "is not UTF-8 at byte %zu", whole);
  viv_json *doc = NULL, *settings = NULL;
  viv__tokenizer *t = viv__calloc(1, sizeof *t);
  int32_t status = t ? VIV_OK : no_memory(error);
  if (status >= 0) status = viv__json_parse(json.ptr, json.len, place, &doc, error);
  if (status >= 0 && config.len)
    status = viv__json_parse(config.ptr, config.len, "tokenizer_config.json", &settings, error);
  if (status >= 0) status = open_document(doc, settings, t, error);
  viv__json_free(doc);
  viv__json_free(settings);
  if (status < 0)
    viv__tokenizer_close(t);
  else
    *out = t;
  return status;
}

void viv__tokenizer_close(viv__tokenizer *t) {
  if (!t) return;
  viv__bpe_free(&t->bpe);
  viv__steps_free(t->normalizer);
  viv__steps_free(t->pre_tokenizer);
  viv__decoder_free(t->decoder);
  for (size_t i = 0; i < t->n_added; i++) {
    viv__free(t->added[i].text);
    viv__free(t->added[i].form);
  }
  viv__free(t->added);
  trie_free(&t->raw);
  trie_free(&t->normalized);
  viv__free(t->token);
  viv__free(t->before.ptr);
  viv__free(t->after.ptr);
  viv__free(t);
}

int32_t viv__tokenizer_size(const viv__tokenizer *t) {
  return t->size;
}

const viv__token *viv__tokenizer_token(const viv__tokenizer *t, int32_t id) {
  return id >= 0 && id < t->size && t->token[id].text.ptr ? &t->token[id] : NULL;
}

const viv__decoder *viv__tokenizer_decoder(const viv__tokenizer *t) {
  return t->decoder;
}

int32_t viv__tokenizer_id(const viv__tokenizer *t, const char *token) {
  size_t len = strlen(token);
  for (size_t i = 0; i < t->n_added; i++)
    if (t->added[i].len == len && !memcmp(t->added[i].text, token, len)) return t->added[i].id;
  return viv__bpe_find(&t->bpe, token, len);
}

bool viv__tokenizer_is_special(const viv__tokenizer *t, int32_t id) {
  const viv__token *token = viv__tokenizer_token(t, id);
  return token && token->special;
}

/* ---- a text to ids ---- */

typedef struct encoder {
  const viv__tokenizer *t;
  bool parse_special;
  viv__ids ids;
  viv__buf form, spare;      /* a segment, normalised */
  viv__pieces pieces, other; /* the segment, cut */
  viv__bpe_work work;
  bool failed;
} encoder;

/* What a segment without added tokens goes to next. */
typedef void (*segment_fn)(encoder *e, viv_str text, bool first);

static void encode_plain(encoder *e, viv_str text, bool first) {
  viv__pieces_clear(&e->pieces);
  viv__pieces_add(&e->pieces, text.ptr, text.len, first);
  viv__pre_tokenize(e->t->pre_tokenizer, &e->pieces, &e->other);
  if (e->pieces.text.failed || e->other.text.failed) {
    e->failed = true;
    return;
  }
  for (size_t i = 0; i < e->pieces.n && !e->ids.failed; i++)
    viv__bpe_encode(&e->t->bpe, e->pieces.text.ptr + e->pieces.item[i].at, e->pieces.item[i].len,
                    &e->work, &e->ids);
}

/* Whether a word character stands before (or at) a place. */
static bool word_before(viv_str text, size_t at) {
  if (!at) return false;
  size_t start = viv__cp_back(text.ptr, at);
  return viv__class_of(viv__cp(text.ptr, &start)) & CLASS_WORD;
}

static bool word_at(viv_str text, size_t at) {
  return at < text.len && viv__class_of(viv__cp(text.ptr, &at)) & CLASS_WORD;
}

static size_t skip_space_back(viv_str text, size_t at) {
  while (at) {
    size_t start = viv__cp_back(text.ptr, at), i = start;
    if (!(viv__class_of(viv__cp(text.ptr, &i)) & CLASS_SPACE)) break;
    at = start;
  }
  return at;
}

static size_t skip_space(viv_str text, size_t at) {
  while (at < text.len) {
    size_t next = at;
    if (!(viv__class_of(viv__cp(text.ptr, &next)) & CLASS_SPACE)) break;
    at = next;
  }
  return at;
}

/* Cuts a text at the added tokens of a trie: leftmost, longest. A match that may not count (special
 * tokens that are not to be parsed, not a single word) is passed over as a whole, and one may match
 * in white space that the one before it took with rstrip; both as in the library. */
static void cut_at_added(encoder *e, const trie *added, viv_str text, bool first, segment_fn next) {
  size_t done = 0;
  uint64_t index;
  for (size_t at = 0, end; at < text.len && !e->failed && !e->ids.failed; at = end) {
    if (!added->nodes) break;
    end = trie_match(added, text, at, &index);
    if (!end) {
      end = at + 1;
      continue;
    }
    const added_token *a = &e->t->added[index];
    if (a->special && !e->parse_special) continue;
    if (a->single_word && (word_before(text, at) || word_at(text, end))) continue;
    size_t start = at, stop = a->rstrip ? skip_space(text, end) : end;
    if (a->lstrip) {
      start = skip_space_back(text, at);
      if (start < done) start = done;
    }
    if (start > done) next(e, (viv_str){text.ptr + done, start - done}, first && done == 0);
    viv__ids_add(&e->ids, a->id);
    done = stop;
  }
  if (done < text.len && !e->failed)
    next(e, (viv_str){text.ptr + done, text.len - done}, first && done == 0);
}

static void encode_segment(encoder *e, viv_str text, bool first) {
  e->form.len = 0;
  viv__buf_add(&e->form, text.ptr, text.len);
  if (!e->form.failed) viv__normalize(e->t->normalizer, &e->form, &e->spare);
  if (e->form.failed || e->spare.failed) {
    e->failed = true;
    return;
  }
  viv_str form = {e->form.ptr, e->form.len};
  cut_at_added(e, &e->t->normalized, form, first, encode_plain);
}

int32_t viv__tokenizer_encode(const viv__tokenizer *t, viv_str text, bool add_special,
                              bool parse_special, int32_t **ids, size_t *n, viv_error *error) {
  size_t whole = viv__utf8_bad(text.ptr, text.len);
  if (whole < text.len)
    return VIV_FAIL(error, VIV_BAD_INPUT, "text", "is not UTF-8 at byte %zu of %llu", whole,
                    (unsigned long long)text.len);
  encoder e = {.t = t, .parse_special = parse_special};
  for (size_t i = 0; i < t->before.n && add_special; i++) viv__ids_add(&e.ids, t->before.ptr[i]);
  cut_at_added(&e, &t->raw, text, true, encode_segment);
  for (size_t i = 0; i < t->after.n && add_special; i++) viv__ids_add(&e.ids, t->after.ptr[i]);
  if (!e.ids.ptr) { /* no ids are still an array that can be freed */
    e.ids.ptr = viv__malloc(sizeof *e.ids.ptr);
    e.failed |= !e.ids.ptr;
  }
  viv__pieces_free(&e.pieces);
  viv__pieces_free(&e.other);
  viv__buf_free(&e.form);
  viv__buf_free(&e.spare);
  viv__bpe_work_free(&e.work);
  if (e.failed || e.ids.failed) {
    viv__free(e.ids.ptr);
    return VIV_FAIL(error, VIV_NOT_NOW, "text", "out of memory for %llu bytes",
                    (unsigned long long)text.len);
  }
  *ids = e.ids.ptr;
  *n = e.ids.n;
  return VIV_OK;
}
