/* Masks for a lane: the grammar's matcher over the tokenizer's tokens. */
#include "tasks/constraint.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

struct viv__constraint {
  viv__task *task;
  viv__matcher *guided, *emitted;
  viv__sampler_guide guide;
  uint64_t *mask; /* [(vocab_size + 63) / 64] */
  size_t words;
};

/* ---- the vocabulary's bytes ---- */

/* A character of the alphabet in which byte-level vocabularies spell bytes; -1: it is none. */
static int byte_of(uint32_t code) {
  if ((code >= 0x21 && code <= 0x7e) || (code >= 0xa1 && code <= 0xac) ||
      (code >= 0xae && code <= 0xff))
    return (int)code;
  if (code >= 0x100 && code <= 0x120) return (int)(code - 0x100);
  if (code >= 0x121 && code <= 0x142) return (int)(code - 0x121 + 0x7f);
  return code == 0x143 ? 0xad : -1;
}

/* Bytes of a token that is no whole text: "<0xE2>", or the byte alphabet. */
static void raw_bytes(viv_str spelled, viv__buf *out) {
  unsigned byte = 0;
  if (spelled.len == 6 && sscanf(spelled.ptr, "<0x%2x>", &byte) == 1) {
    char c = (char)byte;
    viv__buf_add(out, &c, 1);
    return;
  }
  for (size_t i = 0; i < spelled.len;) {
    unsigned char c = (unsigned char)spelled.ptr[i];
    uint32_t code = c;
    int more = c < 0x80 ? 0 : c < 0xe0 ? 1 : 2;
    if (more) code = c & (more == 1 ? 0x1f : 0x0f);
    for (i++; more && i < spelled.len; more--) code = code << 6 | (spelled.ptr[i++] & 0x3f);
    int b = byte_of(code);
    if (b < 0) {
      out->len = 0;
      return;
    }
    char byte_char = (char)b;
    viv__buf_add(out, &byte_char, 1);
  }
}

/* What the token adds behind another one: a decoder may treat the beginning of a text apart. */
static void token_bytes(const viv__tokenizer *t, int32_t anchor, size_t anchor_len, int32_t id,
                        viv__buf *out) {
  static const char lost[] = "\xef\xbf\xbd";
  int32_t ids[] = {anchor, id};
  char *text = NULL;
  size_t len = 0;
  out->len = 0;
  if (viv__tokenizer_is_special(t, id)) return;
  bool two = anchor >= 0;
  if (viv__tokenizer_decode(t, two ? ids : ids + 1, two ? 2 : 1, false, &text, &len, NULL) < 0)
    return;
  size_t from = two && len >= anchor_len ? anchor_len : 0;
  if (memmem(text + from, len - from, lost, 3))
    raw_bytes(viv__tokenizer_spelling(t, id), out);
  else
    viv__buf_add(out, text + from, len - from);
  viv__free(text);
}

viv__token_trie *viv__constraint_trie(const viv__tokenizer *t, int32_t n) {
  int32_t known = viv__tokenizer_size(t), anchor = -1;
  viv_str *texts = viv__calloc((size_t)n, sizeof *texts);
  viv_arena *arena = viv__arena_new(0);
  viv__token_trie *trie = NULL;
  viv__buf one = {0};
  size_t anchor_len = 0;
  static const char *const anchors[] = {"a", "e",
                                        "\xe2\x96\x81"
                                        "a",
                                        "A"};
  for (size_t i = 0; i < sizeof anchors / sizeof *anchors && anchor < 0; i++)
    anchor = viv__tokenizer_id(t, anchors[i]);
  if (anchor >= 0) {
    char *text = NULL;
    if (viv__tokenizer_decode(t, &anchor, 1, false, &text, &anchor_len, NULL) < 0) anchor = -1;
    viv__free(text);
  }
  bool ok = texts && arena;
  for (int32_t i = 0; ok && i < n && i < known; i++) {
    token_bytes(t, anchor, anchor_len, i, &one);
    if (!one.len) continue;
    char *copy = viv__arena_alloc(arena, one.len);
    ok = copy != NULL;
    if (ok) memcpy(copy, one.ptr, one.len);
    texts[i] = (viv_str){copy, one.len};
  }
  if (ok) trie = viv__token_trie_new(texts, n);
  viv__buf_free(&one);
  if (arena) viv__arena_free(arena);
  viv__free(texts);
  return trie;
}

/* ---- opening ---- */

int32_t viv__constraint_grammar(const viv__task *t, viv__grammar **out, viv_error *error) {
  const viv_json *schema = viv__json_get(t->job->params, "json_schema"),
                 *gbnf = viv__json_get(t->job->params, "grammar");
  int32_t a = viv__json_type(schema), b = viv__json_type(gbnf);
  bool has_schema = a != VIV_JSON_ABSENT && a != VIV_JSON_NULL,
       has_gbnf = b != VIV_JSON_ABSENT && b != VIV_JSON_NULL;
  *out = NULL;
  if (!has_schema && !has_gbnf) return VIV_OK;
  if (has_schema && has_gbnf)
    return VIV_FAIL(error, VIV_BAD_INPUT, "grammar", "json_schema and grammar exclude each other");
  if (!t->m->tokenizer)
    return VIV_FAIL(error, VIV_NEVER, has_gbnf ? "grammar" : "json_schema",
                    "the model has no tokenizer, so its tokens have no text");
  if (has_gbnf) {
    if (b != VIV_JSON_STRING)
      return VIV_FAIL(error, VIV_BAD_INPUT, "grammar", "must be the text of a grammar");
    return viv__grammar_gbnf(viv__json_string(gbnf), out, error);
  }
  if (a == VIV_JSON_STRING) return viv__grammar_schema(viv__json_string(schema), out, error);
  char *text = cJSON_PrintUnformatted((const cJSON *)schema);
  if (!text) return VIV_FAIL(error, VIV_NOT_NOW, "json_schema", "no memory");
  int32_t status = viv__grammar_schema(viv__str(text), out, error);
  cJSON_free(text);
  return status;
}

static bool is_end(const viv__task *t, int32_t id) {
  for (int32_t i = 0; i < t->n_eos; i++)
    if (t->eos[i] == id) return true;
  return false;
}

static const uint64_t *next(void *context) {
  viv__constraint *c = context;
  const uint64_t *mask = viv__matcher_mask(c->guided);
  if (mask)
    memcpy(c->mask, mask, c->words * sizeof *mask);
  else
    memset(c->mask, 0, c->words * sizeof *mask);
  if (viv__matcher_complete(c->guided) && !c->task->ignore_eos)
    for (int32_t i = 0; i < c->task->n_eos; i++)
      c->mask[c->task->eos[i] / 64] |= (uint64_t)1 << (c->task->eos[i] % 64);
  return c->mask;
}

static void advance(void *context, int32_t token) {
  viv__constraint *c = context;
  if (!is_end(c->task, token)) viv__matcher_token(c->guided, token);
}

static void restart(void *context) {
  viv__constraint *c = context;
  viv__matcher_begin(c->guided);
}

int32_t viv__constraint_open(viv__task *t, const viv__grammar *g, viv__constraint **out,
                             viv_error *error) {
  viv__engine *e = t->m->engine;
  if (!e->trie) e->trie = viv__constraint_trie(t->m->tokenizer, t->m->info.vocab_size);
  viv__constraint *c = e->trie ? viv__calloc(1, sizeof *c) : NULL;
  *out = c;
  if (!c) return VIV_FAIL(error, VIV_NOT_NOW, "grammar", "no memory");
  c->task = t;
  c->words = (size_t)(t->m->info.vocab_size + 63) / 64;
  c->mask = viv__malloc(c->words * sizeof *c->mask);
  c->guided = viv__matcher_new(g, e->trie);
  c->emitted = viv__matcher_new(g, e->trie);
  c->guide = (viv__sampler_guide){next, advance, restart, c};
  if (!c->mask || !c->guided || !c->emitted)
    return VIV_FAIL(error, VIV_NOT_NOW, "grammar", "no memory");
  return VIV_OK;
}

void viv__constraint_close(viv__constraint *c) {
  if (!c) return;
  viv__matcher_free(c->guided);
  viv__matcher_free(c->emitted);
  viv__free(c->mask);
  viv__free(c);
}

const viv__sampler_guide *viv__constraint_guide(const viv__constraint *c) {
  return c ? &c->guide : NULL;
}

int32_t viv__constraint_take(viv__constraint *c, int32_t token, bool ends, bool *over,
                             viv_error *error) {
  *over = false;
  if (ends && viv__matcher_complete(c->emitted)) return VIV_OK;
  if (ends || !viv__matcher_token(c->emitted, token))
    return VIV_FAIL(error, VIV_NEVER, "grammar",
                    "token %d breaks it: no token of the vocabulary can go on, or the strategy "
                    "chooses without the sampler",
                    token);
  *over = viv__matcher_complete(c->emitted) && !viv__matcher_goes_on(c->emitted);
  return VIV_OK;
}

bool viv__constraint_complete(const viv__constraint *c) {
  return viv__matcher_complete(c->emitted);
}
