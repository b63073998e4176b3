/* GGUF metadata to the texts of tokenizer.json and tokenizer_config.json.
 *
 *   tokenizer.ggml.model   gpt2: byte-level BPE with merges; llama: SentencePiece BPE with scores
 *   tokenizer.ggml.pre     how a gpt2 text is cut before BPE, by name
 *
 * Scores become merges: BPE of SentencePiece joins the neighbours whose whole has the best score,
 * so that every pair of tokens whose whole is a token becomes a merge, best score first (what the
 * official conversion does too). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/gguf.h"

enum token_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

enum {
  MAX_TOKENS = 1 << 22,
  MAX_MERGED = 192, /* bytes of a token that merges may form; trained ones have less than 100 */
  MAX_TEMPLATE = 1 << 20
};

typedef struct tokens {
  const viv__gguf *g;
  viv_error *error;
  viv_str *text; /* [n] */
  uint64_t n;
  const viv__gguf_value *types, *scores; /* or NULL */
  bool sentencepiece;
} tokens;

static int32_t bad(const tokens *t, int32_t code, const char *key, const char *text) {
  char where[VIV__PLACE];
  return VIV_FAIL(t->error, code, viv__gguf_place(where, t->g, key), "%s", text);
}

static int32_t no_memory(const tokens *t) {
  return VIV_FAIL(t->error, VIV_NOT_NOW, t->g->file, "no memory for the tokenizer");
}

static int type_of(const tokens *t, uint64_t i) {
  double type = t->types ? viv__gguf_item(t->types, i) : NORMAL;
  return type >= NORMAL && type <= BYTE ? (int)type : NORMAL;
}

static bool flag(const viv__gguf *g, const char *key, bool fallback) {
  double x = 0;
  return viv__gguf_number(viv__gguf_get(g, key), &x) ? x != 0 : fallback;
}

/* A token's id by the key's name; -1: none, or one that does not exist. */
static int64_t special_id(const tokens *t, const char *which) {
  char key[64];
  double id = -1;
  snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", which);
  if (!viv__gguf_number(viv__gguf_get(t->g, key), &id)) return -1;
  return id >= 0 && id < (double)t->n ? (int64_t)id : -1;
}

/* ---- reading ---- */

static int32_t open_list(tokens *t, const char *key, bool numbers, const viv__gguf_value **out) {
  const viv__gguf_value *v = viv__gguf_get(t->g, key);
  *out = v;
  if (!v) return VIV_OK;
  bool right = v->type == GGUF_ARRAY && (v->item == GGUF_STRING) == !numbers;
  if (!right)
    return bad(t, VIV_BAD_INPUT, key,
               numbers ? "a list of numbers is expected" : "a list of strings is expected");
  return VIV_OK;
}

/* A token must survive the way through JSON: UTF-8 without NUL. */
static int32_t read_texts(tokens *t, const viv__gguf_value *v) {
  static const char key[] = "tokenizer.ggml.tokens";
  if (!v) return bad(t, VIV_NEVER, key, "the file holds no tokenizer");
  if (!v->count || v->count > MAX_TOKENS)
    return bad(t, VIV_BAD_INPUT, key, "1 to 4194304 tokens are possible");
  t->n = v->count;
  t->text = viv__malloc((size_t)t->n * sizeof *t->text);
  if (!t->text) return no_memory(t);
  const uint8_t *at = v->data;
  for (uint64_t i = 0; i < t->n; i++) {
    viv_str s = t->text[i] = viv__gguf_next_string(&at);
    if (viv__utf8_valid(s.ptr, s.len) && !memchr(s.ptr, 0, s.len)) continue;
    char where[VIV__PLACE];
    return VIV_FAIL(t->error, VIV_BAD_INPUT, viv__gguf_place(where, t->g, key),
                    "token %llu is not UTF-8, or holds a NUL", (unsigned long long)i);
  }
  return VIV_OK;
}

static int32_t open_tokens(tokens *t) {
  const viv__gguf_value *texts = NULL;
  viv_str model = viv__gguf_string(viv__gguf_get(t->g, "tokenizer.ggml.model"));
  if (!model.ptr) return bad(t, VIV_NEVER, "tokenizer.ggml.model", "the file holds no tokenizer");
  t->sentencepiece = viv__str_eq(model, "llama");
  if (!t->sentencepiece && !viv__str_eq(model, "gpt2")) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    return VIV_FAIL(t->error, VIV_NEVER, viv__gguf_place(where, t->g, "tokenizer.ggml.model"),
                    "the tokenizer model '%s' can't be read here; gpt2 and llama can",
                    viv__shown(shown, model));
  }
  int32_t status = open_list(t, "tokenizer.ggml.tokens", false, &texts);
  if (status >= 0) status = open_list(t, "tokenizer.ggml.token_type", true, &t->types);
  if (status >= 0) status = open_list(t, "tokenizer.ggml.scores", true, &t->scores);
  if (status >= 0) status = read_texts(t, texts);
  if (status < 0) return status;
  if (t->types && t->types->count != t->n)
    return bad(t, VIV_BAD_INPUT, "tokenizer.ggml.token_type", "there must be one for each token");
  if (t->scores && t->scores->count != t->n)
    return bad(t, VIV_BAD_INPUT, "tokenizer.ggml.scores", "there must be one for each token");
  if (t->sentencepiece && !t->scores)
    return bad(t, VIV_BAD_INPUT, "tokenizer.ggml.scores", "a llama tokenizer needs scores");
  return VIV_OK;
}

/* ---- vocabulary and added tokens ---- */

/* All tokens, also those that are matched before BPE: one that the vocabulary lacks would get a new
 * id from the tokenizer, whatever added_tokens says. */
static void put_vocabulary(const tokens *t, viv__buf *out) {
  viv__buf_str(out, "\"vocab\":{");
  for (uint64_t i = 0; i < t->n; i++) {
    if (i) viv__buf_str(out, ",");
    viv__buf_json(out, t->text[i]);
    viv__buf_fmt(out, ":%llu", (unsigned long long)i);
  }
  viv__buf_str(out, "}");
}

static void put_added(const tokens *t, viv__buf *out) {
  bool first = true;
  viv__buf_str(out, "\"added_tokens\":[");
  for (uint64_t i = 0; i < t->n; i++) {
    int type = type_of(t, i);
    bool special = type == CONTROL || (type == UNKNOWN && t->sentencepiece);
    if ((!special && type != USER_DEFINED) || !t->text[i].len) continue;
    viv__buf_fmt(out, "%s{\"id\":%llu,\"content\":", first ? "" : ",", (unsigned long long)i);
    first = false;
    viv__buf_json(out, t->text[i]);
    viv__buf_fmt(out,
                 ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                 "\"special\":%s}",
                 special ? "true" : "false");
  }
  viv__buf_str(out, "]");
}

/* ---- merges ---- */

static void put_merge(viv__buf *out, bool first, viv_str left, viv_str right) {
  viv__buf_str(out, first ? "[" : ",[");
  viv__buf_json(out, left);
  viv__buf_str(out, ",");
  viv__buf_json(out, right);
  viv__buf_str(out, "]");
}

/* "left right"; a token of the byte alphabet never holds a space. */
static int32_t put_listed_merges(const tokens *t, viv__buf *out) {
  static const char key[] = "tokenizer.ggml.merges";
  const viv__gguf_value *v = viv__gguf_get(t->g, key);
  if (!v || v->type != GGUF_ARRAY || v->item != GGUF_STRING)
    return bad(t, VIV_BAD_INPUT, key, "a gpt2 tokenizer needs a list of strings");
  const uint8_t *at = v->data;
  viv__buf_str(out, "\"merges\":[");
  for (uint64_t i = 0; i < v->count; i++) {
    viv_str text = viv__gguf_next_string(&at);
    const char *space = text.len > 1 ? memchr(text.ptr + 1, ' ', text.len - 1) : NULL;
    if (!space || !viv__utf8_valid(text.ptr, text.len) || memchr(text.ptr, 0, text.len)) {
      char where[VIV__PLACE];
      return VIV_FAIL(t->error, VIV_BAD_INPUT, viv__gguf_place(where, t->g, key),
                      "merge %llu is not two tokens with a space between them",
                      (unsigned long long)i);
    }
    viv_str left = {text.ptr, (uint64_t)(space - text.ptr)};
    put_merge(out, i == 0, left, (viv_str){space + 1, text.len - left.len - 1});
  }
  viv__buf_str(out, "]");
  return VIV_OK;
}

typedef struct merge {
  uint32_t whole, left;
  uint32_t cut; /* bytes of the left side */
  double score;
} merge;

/* Best score first, then the order in which they were found, so that the result is always the same:
 * of one whole's splits the one whose left side is the shortest. */
static int by_score(const void *a, const void *b) {
  const merge *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  if (x->whole != y->whole) return x->whole < y->whole ? -1 : 1;
  return x->cut < y->cut ? -1 : x->cut > y->cut;
}

typedef struct merges {
  merge *list;
  size_t n, cap;
} merges;

/* The splits of token i into two tokens. */
static bool find_splits(const tokens *t, const viv__names *table, uint64_t i, merges *m) {
  viv_str whole = t->text[i];
  if (whole.len > MAX_MERGED || type_of(t, i) != NORMAL) return true;
  for (uint64_t cut = 1; cut < whole.len; cut++) {
    if ((whole.ptr[cut] & 0xC0) == 0x80) continue; /* inside a character */
    int64_t left = viv__names_find(table, (viv_str){whole.ptr, cut});
    if (left < 0 || type_of(t, (uint64_t)left) != NORMAL) continue;
    int64_t right = viv__names_find(table, (viv_str){whole.ptr + cut, whole.len - cut});
    if (right < 0 || type_of(t, (uint64_t)right) != NORMAL) continue;
    if (m->n == m->cap) {
      size_t cap = m->cap ? m->cap * 2 : 4096;
      merge *grown = viv__realloc(m->list, cap * sizeof *grown);
      if (!grown) return false;
      m->list = grown;
      m->cap = cap;
    }
    double score = viv__gguf_item(t->scores, i);
    m->list[m->n++] =
        (merge){(uint32_t)i, (uint32_t)left, (uint32_t)cut, score == score ? score : 0};
  }
  return true;
}

static int32_t put_scored_merges(const tokens *t, viv__buf *out) {
  viv__names table;
  merges m = {0};
  size_t twice = 0;
  int32_t status = viv__names_build(&table, t->text, (size_t)t->n, &twice);
  if (status == VIV_NOT_NOW) return no_memory(t);
  if (status < 0) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    return VIV_FAIL(t->error, VIV_BAD_INPUT, viv__gguf_place(where, t->g, "tokenizer.ggml.tokens"),
                    "token %zu, '%s', is listed twice", twice, viv__shown(shown, t->text[twice]));
  }
  for (uint64_t i = 0; i < t->n && status >= 0; i++)
    if (!find_splits(t, &table, i, &m)) status = no_memory(t);
  viv__names_free(&table);
  if (m.n) qsort(m.list, m.n, sizeof *m.list, by_score);
  viv__buf_str(out, "\"merges\":[");
  for (size_t i = 0; i < m.n && status >= 0; i++) {
    viv_str whole = t->text[m.list[i].whole];
    uint32_t cut = m.list[i].cut;
    put_merge(out, i == 0, (viv_str){whole.ptr, cut}, (viv_str){whole.ptr + cut, whole.len - cut});
  }
  viv__buf_str(out, "]");
  viv__free(m.list);
  return status;
}

/* ---- cutting a text ---- */

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define TAIL " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

enum cutter { GPT2, DIGITS_GPT2, LLAMA3, QWEN2 };

/* The names of tokenizer.ggml.pre that are known, and which pattern the official tokenizers of
 * these families split by. "default" stands in files of before the names were introduced: GPT-2's. */
static const struct {
  const char *pre;
  int cutter;
} cutters[] = {{"default", GPT2},
               {"gpt-2", GPT2},
               {"gpt2", GPT2},
               {"mpt", GPT2},
               {"olmo", GPT2},
               {"phi-2", GPT2},
               {"roberta-bpe", GPT2},
               {"smollm", DIGITS_GPT2},
               {"starcoder", DIGITS_GPT2},
               {"refact", DIGITS_GPT2},
               {"codeshell", DIGITS_GPT2},
               {"llama-bpe", LLAMA3},
               {"llama3", LLAMA3},
               {"llama-v3", LLAMA3},
               {"dbrx", LLAMA3},
               {"smaug-bpe", LLAMA3},
               {"qwen2", QWEN2},
               {"deepseek-r1-qwen", QWEN2}};

static int32_t find_cutter(const tokens *t, int *out) {
  static const char key[] = "tokenizer.ggml.pre";
  viv_str pre = viv__gguf_string(viv__gguf_get(t->g, key));
  if (!pre.ptr) pre = viv__str("default");
  for (size_t i = 0; i < sizeof cutters / sizeof *cutters; i++)
    if (viv__str_eq(pre, cutters[i].pre)) {
      *out = cutters[i].cutter;
      return VIV_OK;
    }
  char where[VIV__PLACE], shown[VIV__SHOWN];
  return VIV_FAIL(t->error, VIV_NEVER, viv__gguf_place(where, t->g, key),
                  "how '%s' cuts a text is not known here; smollm, llama-bpe, qwen2, gpt-2, "
                  "starcoder, default and a few others are",
                  viv__shown(shown, pre));
}

static void put_pre_tokenizer(int cutter, viv__buf *out) {
  static const char bytes[] =
      "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":";
  viv__buf_fmt(
      out, "\"normalizer\":%s,\"pre_tokenizer\":", cutter == QWEN2 ? "{\"type\":\"NFC\"}" : "null");
  if (cutter == GPT2) {
    viv__buf_fmt(out, "%strue}", bytes);
    return;
  }
  viv__buf_str(out, "{\"type\":\"Sequence\",\"pretokenizers\":[");
  if (cutter == DIGITS_GPT2) {
    viv__buf_fmt(out, "{\"type\":\"Digits\",\"individual_digits\":true},%strue}", bytes);
  } else {
    viv__buf_str(out, "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"invert\":false,"
                      "\"pattern\":{\"Regex\":");
    viv__buf_json(out,
                  viv__str(cutter == QWEN2
                               ? CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" TAIL
                               : CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" TAIL));
    viv__buf_fmt(out, "}},%sfalse}", bytes);
  }
  viv__buf_str(out, "]}");
}

/* ---- texts begin and end ---- */

static void put_template_token(const tokens *t, int64_t id, viv__buf *out) {
  viv__buf_str(out, "{\"SpecialToken\":{\"id\":");
  viv__buf_json(out, t->text[id]);
  viv__buf_str(out, ",\"type_id\":0}}");
}

static void put_template_ids(const tokens *t, int64_t id, viv__buf *out) {
  viv__buf_json(out, t->text[id]);
  viv__buf_str(out, ":{\"id\":");
  viv__buf_json(out, t->text[id]);
  viv__buf_fmt(out, ",\"ids\":[%lld],\"tokens\":[", (long long)id);
  viv__buf_json(out, t->text[id]);
  viv__buf_str(out, "]}");
}

/* Which tokens stand around every text. A file that does not say so follows its tokenizer model. */
static void frame(const tokens *t, int cutter, int64_t *bos, int64_t *eos) {
  bool first = flag(t->g, "tokenizer.ggml.add_bos_token", t->sentencepiece || cutter == LLAMA3);
  bool last = flag(t->g, "tokenizer.ggml.add_eos_token", false);
  *bos = first ? special_id(t, "bos") : -1;
  *eos = last ? special_id(t, "eos") : -1;
}

static void put_frame(const tokens *t, int cutter, viv__buf *out) {
  int64_t bos, eos;
  frame(t, cutter, &bos, &eos);
  viv__buf_str(out, "\"post_processor\":");
  if (bos < 0 && eos < 0) {
    viv__buf_str(out, "null");
    return;
  }
  viv__buf_str(out, "{\"type\":\"TemplateProcessing\",\"single\":[");
  if (bos >= 0) {
    put_template_token(t, bos, out);
    viv__buf_str(out, ",");
  }
  viv__buf_str(out, "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}");
  if (eos >= 0) {
    viv__buf_str(out, ",");
    put_template_token(t, eos, out);
  }
  viv__buf_str(out, "],\"pair\":[],\"special_tokens\":{");
  if (bos >= 0) put_template_ids(t, bos, out);
  if (bos >= 0 && eos >= 0 && eos != bos) viv__buf_str(out, ",");
  if (eos >= 0 && eos != bos) put_template_ids(t, eos, out);
  viv__buf_str(out, "}}");
}

/* ---- the two files ---- */

#define META "\xe2\x96\x81" /* U+2581, which stands for a space */

static int32_t put_gpt2(const tokens *t, viv__buf *out) {
  int cutter = GPT2;
  int32_t status = find_cutter(t, &cutter);
  if (status < 0) return status;
  put_pre_tokenizer(cutter, out);
  viv__buf_str(out, ",");
  put_frame(t, cutter, out);
  viv__buf_fmt(out,
               ",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
               "\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\","
               "\"ignore_merges\":%s,",
               cutter == LLAMA3 ? "true" : "false");
  put_vocabulary(t, out);
  viv__buf_str(out, ",");
  return put_listed_merges(t, out);
}

static int32_t put_sentencepiece(const tokens *t, viv__buf *out) {
  bool space = flag(t->g, "tokenizer.ggml.add_space_prefix", true);
  int64_t unknown = special_id(t, "unknown");
  viv__buf_fmt(out,
               "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[%s{\"type\":\"Replace\","
               "\"pattern\":{\"String\":\" \"},\"content\":\"" META "\"}]},"
               "\"pre_tokenizer\":null,",
               space ? "{\"type\":\"Prepend\",\"prepend\":\"" META "\"}," : "");
  put_frame(t, GPT2, out);
  viv__buf_fmt(out,
               ",\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
               "\"pattern\":{\"String\":\"" META "\"},\"content\":\" \"},"
               "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}%s]},\"model\":{\"type\":\"BPE\","
               "\"byte_fallback\":true,\"fuse_unk\":true,",
               space ? ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}" : "");
  if (unknown >= 0) {
    viv__buf_str(out, "\"unk_token\":");
    viv__buf_json(out, t->text[unknown]);
    viv__buf_str(out, ",");
  }
  put_vocabulary(t, out);
  viv__buf_str(out, ",");
  return put_scored_merges(t, out);
}

int32_t viv__gguf_tokenizer(const viv__gguf *g, viv__buf *out, viv_error *error) {
  tokens t = {.g = g, .error = error};
  int32_t status = open_tokens(&t);
  if (status >= 0) {
    viv__buf_str(out, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,");
    put_added(&t, out);
    viv__buf_str(out, ",");
    status = t.sentencepiece ? put_sentencepiece(&t, out) : put_gpt2(&t, out);
    viv__buf_str(out, "}}");
  }
  viv__free(t.text);
  return status;
}

int32_t viv__gguf_tokenizer_config(const viv__gguf *g, viv__buf *out, viv_error *error) {
  static const char *const names[][2] = {{"bos", "bos_token"},
                                         {"eos", "eos_token"},
                                         {"unknown", "unk_token"},
                                         {"padding", "pad_token"}};
  static const char template_key[] = "tokenizer.chat_template";
  tokens t = {.g = g, .error = error};
  int64_t bos = -1, eos = -1;
  int cutter = GPT2;
  int32_t status = open_tokens(&t);
  if (status >= 0 && !t.sentencepiece) status = find_cutter(&t, &cutter);
  viv_str template = viv__gguf_string(viv__gguf_get(g, template_key));
  if (status >= 0 && template.ptr &&
      (template.len > MAX_TEMPLATE || !viv__utf8_valid(template.ptr, template.len) ||
       memchr(template.ptr, 0, template.len)))
    status = bad(&t, VIV_BAD_INPUT, template_key,
                 "the chat template must be UTF-8 of at most 1 MiB without NUL");
  if (status >= 0) {
    frame(&t, cutter, &bos, &eos);
    viv__buf_fmt(out, "{\"add_bos_token\":%s,\"add_eos_token\":%s", bos >= 0 ? "true" : "false",
                 eos >= 0 ? "true" : "false");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
      int64_t id = special_id(&t, names[i][0]);
      if (id < 0) continue;
      viv__buf_fmt(out, ",\"%s\":", names[i][1]);
      viv__buf_json(out, t.text[id]);
    }
    if (template.ptr) {
      viv__buf_str(out, ",\"chat_template\":");
      viv__buf_json(out, template);
    }
    viv__buf_str(out, "}");
  }
  viv__free(t.text);
  return status;
}
