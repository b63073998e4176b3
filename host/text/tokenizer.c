/* tokenizer.json as a whole, and a text to an encoding.
 *
 *   text -> added tokens that match it as it is -> normaliser on what lies
 * between -> added tokens that match normalised text -> pre-tokenizer -> model
 * -> truncation -> post-processor -> padding */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

enum { MAX_TEXT = 1 << 29 }; /* bytes: places are 32 bits wide, and normalising multiplies */

struct viv__tokenizer {
  viv__text_model model;
  viv__normalizer *normalizer;
  viv__pre_tokenizer *pre_tokenizer;
  viv__post_processor *post_processor;
  viv__decoder *decoder;
  viv__added added;
  viv__truncation truncation;
  viv__padding padding;
  viv__token *token;   /* by id */
  viv_str *vocabulary; /* by id, what the model calls it */
  int32_t size;
};

static const char place[] = "tokenizer.json";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* ---- members ---- */

int32_t viv__string_member(const viv_json *node, const char *key, const char *where, char **out,
                           size_t *len, viv_error *error) {
  viv_str text = viv__json_string(viv__json_get(node, key));
  if (!text.ptr) return VIV_FAIL(error, VIV_BAD_INPUT, where, "needs a string \"%s\"", key);
  if (text.len > MAX_AFFIX)
    return VIV_FAIL(error, VIV_NEVER, where, "\"%s\" is longer than %d bytes", key, MAX_AFFIX);
  *out = viv__strndup(text.ptr, text.len);
  *len = text.len;
  return *out ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
}

int32_t viv__character_member(const viv_json *node, const char *key, const char *where, char **out,
                              size_t *len, viv_error *error) {
  int32_t status = viv__string_member(node, key, where, out, len, error);
  size_t one = 0;
  if (status < 0) return status;
  if (*len) viv__cp(*out, &one);
  if (one && one == *len) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"%s\" must be one character, not \"%.40s\"", key,
                  *out);
}

int32_t viv__flag_member(const viv_json *node, const char *key, const char *where, int fallback,
                         bool *out, viv_error *error) {
  const viv_json *member = viv__json_get(node, key);
  int32_t type = viv__json_type(member);
  bool absent = type == VIV_JSON_ABSENT || type == VIV_JSON_NULL;
  if (absent && fallback >= 0) {
    *out = fallback;
    return VIV_OK;
  }
  if (type != VIV_JSON_BOOL)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"%s\" must be true or false", key);
  *out = viv__json_boolean(member);
  return VIV_OK;
}

int32_t viv__count_member(const viv_json *node, const char *key, const char *where, double most,
                          double fallback, double *out, viv_error *error) {
  const viv_json *member = viv__json_get(node, key);
  int32_t type = viv__json_type(member);
  bool absent = type == VIV_JSON_ABSENT || type == VIV_JSON_NULL;
  if (absent && fallback >= 0) {
    *out = fallback;
    return VIV_OK;
  }
  double value = type == VIV_JSON_NUMBER ? viv__json_number(member) : -1;
  if (!(value >= 0 && value <= most) || value != floor(value))
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"%s\" must be a whole number from 0 to %.0f",
                    key, most);
  *out = value;
  return VIV_OK;
}

/* ---- the table by id ---- */

static bool is_special_text(const viv__tokenizer *t, viv_str text) {
  return viv__vocab_find(&t->added.special, text.ptr, text.len) >= 0;
}

static int32_t index_ids(viv__tokenizer *t, viv_error *error) {
  const viv__vocab *v = &t->model.vocab;
  for (size_t i = 0; i < v->n; i++)
    if (v->entry[i].id >= t->size) t->size = v->entry[i].id + 1;
  for (size_t i = 0; i < t->added.n; i++)
    if (t->added.item[i].id >= t->size) t->size = t->added.item[i].id + 1;
  size_t n = v->n + t->added.n;
  if ((size_t)t->size > 65536 + 64 * n)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "%zu tokens have ids up to %d: too sparse", n,
                    (int)t->size - 1);
  t->token = viv__calloc((size_t)t->size + 1, sizeof *t->token);
  t->vocabulary = viv__calloc((size_t)t->size + 1, sizeof *t->vocabulary);
  if (!t->token || !t->vocabulary) return no_memory(error);
  for (size_t i = 0; i < v->n; i++)
    t->vocabulary[v->entry[i].id] = t->token[v->entry[i].id].text =
        (viv_str){v->entry[i].text, v->entry[i].len};
  for (size_t i = 0; i < t->added.n; i++) {
    const viv__added_token *a = &t->added.item[i];
    viv_str text = a->form ? (viv_str){a->form, a->form_len} : (viv_str){a->text, a->len};
    t->token[a->id] = (viv__token){text, is_special_text(t, text)};
  }
  return VIV_OK;
}

/* ---- tokenizer_config.json ---- */

/* The token that tokenizer_config.json calls key: a string or an object with
 * content. */
static int32_t config_token(const viv__tokenizer *t, const viv_json *config, const char *key,
                            viv__encoded *out) {
  const viv_json *node = viv__json_get(config, key);
  const char *text = viv__json_text(node, "content", viv__json_text(config, key, NULL));
  int32_t id = text ? viv__tokenizer_id(t, text) : -1;
  *out = (viv__encoded){.id = id, .text = viv__str(text)};
  return id;
}

/* add_bos_token and add_eos_token. The classes that wrap Llama's tokenizer
 * build their template from these two, whatever the file says; for others they
 * count where the file has no post-processor. */
static int32_t apply_config(const viv_json *config, bool has_processor, viv__tokenizer *t,
                            viv_error *error) {
  static const char *const rebuilding[] = {"LlamaTokenizer",     "LlamaTokenizerFast",
                                           "CodeLlamaTokenizer", "CodeLlamaTokenizerFast",
                                           "GemmaTokenizer",     "GemmaTokenizerFast"};
  static const char *const keys[2][2] = {{"add_bos_token", "bos_token"},
                                         {"add_eos_token", "eos_token"}};
  const char *class = viv__json_text(config, "tokenizer_class", "");
  bool rebuild = !has_processor, said = false;
  for (size_t i = 0; i < sizeof rebuilding / sizeof *rebuilding; i++)
    rebuild |= !strcmp(class, rebuilding[i]);
  if (!rebuild) return VIV_OK;
  viv__encoded around[2];
  bool wanted[2] = {false, false};
  for (int i = 0; i < 2; i++) {
    const viv_json *flag = viv__json_get(config, keys[i][0]);
    if (viv__json_type(flag) != VIV_JSON_BOOL) {
      /* What is not said stays as the file has it. */
      wanted[i] = viv__post_processor_side(t->post_processor, i, &around[i]);
      continue;
    }
    said = true;
    wanted[i] = viv__json_boolean(flag);
    if (wanted[i] && config_token(t, config, keys[i][1], &around[i]) < 0)
      return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer_config.json",
                      "\"%s\" is true, but \"%s\" names no token of tokenizer.json", keys[i][0],
                      keys[i][1]);
  }
  if (!said) return VIV_OK;
  return viv__post_processor_wrap(t->post_processor, wanted[0] ? &around[0] : NULL,
                                  wanted[1] ? &around[1] : NULL)
             ? VIV_OK
             : no_memory(error);
}

/* A template may only give ids that the rest of the program can look up. */
static int32_t check_template(const viv__tokenizer *t, viv_error *error) {
  int32_t id;
  for (size_t i = 0; viv__post_processor_token(t->post_processor, i, &id); i++)
    if (!viv__tokenizer_token(t, id))
      return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json, post_processor",
                      "id %d is in no vocabulary", (int)id);
  return VIV_OK;
}

/* ---- open and close ---- */

static int32_t in_file(int32_t status, viv_error *error) {
  char where[32];
  if (status >= 0 || !error || !VIV_HAS(error, where)) return status;
  snprintf(where, sizeof where, "%.24s", error->where);
  snprintf(error->where, sizeof error->where, "%s, %s", place, where);
  return status;
}

static int32_t open_document(const viv_json *doc, const viv_json *config, viv__tokenizer *t,
                             viv_error *error) {
  if (viv__json_type(doc) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "must be an object");
  const viv_json *version = viv__json_get(doc, "version");
  if (version && strcmp(viv__json_text(doc, "version", ""), "1.0") != 0)
    return VIV_FAIL(error, VIV_NEVER, place, "version \"%.40s\" is not supported; expected 1.0",
                    viv__json_text(doc, "version", "(no string)"));
  const viv_json *processor = viv__json_get(doc, "post_processor");
  int32_t status = viv__text_model_open(viv__json_get(doc, "model"), &t->model, error);
  if (status >= 0)
    status = viv__normalizer_open(viv__json_get(doc, "normalizer"), &t->normalizer, error);
  if (status >= 0)
    status = viv__pre_tokenizer_open(viv__json_get(doc, "pre_tokenizer"), &t->pre_tokenizer, error);
  if (status >= 0) status = viv__decoder_open(viv__json_get(doc, "decoder"), &t->decoder, error);
  if (status >= 0)
    status = viv__added_open(viv__json_get(doc, "added_tokens"), &t->model.vocab, t->normalizer,
                             &t->added, error);
  if (status >= 0) status = index_ids(t, error);
  if (status >= 0) status = viv__post_processor_open(processor, &t->post_processor, error);
  if (status >= 0)
    status = apply_config(config, viv__json_type(processor) == VIV_JSON_OBJECT, t, error);
  if (status >= 0) status = check_template(t, error);
  if (status >= 0)
    status = in_file(viv__truncation_open(viv__json_get(doc, "truncation"), &t->truncation, error),
                     error);
  if (status >= 0)
    status = in_file(viv__padding_open(viv__json_get(doc, "padding"), &t->padding, error), error);
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
  viv__text_model_free(&t->model);
  viv__normalizer_free(t->normalizer);
  viv__pre_tokenizer_free(t->pre_tokenizer);
  viv__post_processor_free(t->post_processor);
  viv__decoder_free(t->decoder);
  viv__added_free(&t->added);
  viv__free(t->token);
  viv__free(t->vocabulary);
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

viv__truncation viv__tokenizer_truncation(const viv__tokenizer *t) {
  return t->truncation;
}

viv__padding viv__tokenizer_padding(const viv__tokenizer *t) {
  return t->padding;
}

int32_t viv__tokenizer_id(const viv__tokenizer *t, const char *token) {
  size_t len = strlen(token);
  for (size_t i = 0; i < t->added.n; i++)
    if (t->added.item[i].len == len && !memcmp(t->added.item[i].text, token, len))
      return t->added.item[i].id;
  return viv__vocab_find(&t->model.vocab, token, len);
}

viv_str viv__tokenizer_spelling(const viv__tokenizer *t, int32_t id) {
  return id >= 0 && id < t->size ? t->vocabulary[id] : (viv_str){NULL, 0};
}

bool viv__tokenizer_is_special(const viv__tokenizer *t, int32_t id) {
  const viv__token *token = viv__tokenizer_token(t, id);
  return token && token->special;
}

/* ---- a text to an encoding ---- */

typedef struct encoder {
  const viv__tokenizer *t;
  bool parse_special, spell; /* spell: texts are wanted */
  viv_str text;
  viv__encoding out;
  viv_arena *texts;
  viv__aligned form, spare;  /* a segment, normalised */
  viv__pieces pieces, other; /* the segment, cut */
  viv__parts parts;
  viv__model_work work;
  int32_t sequence, word;
  const char *why; /* what failed, if not memory */
  bool failed;
} encoder;

/* A copy of a spelling that lives as long as the encodings. */
static viv_str keep(encoder *e, const char *text, size_t len) {
  char *copy = viv__arena_str(e->texts, (viv_str){text, len});
  e->failed |= !copy;
  return (viv_str){copy, copy ? len : 0};
}

static void add_token(encoder *e, int32_t id, viv__span span, viv_str text) {
  viv__encoding_add(&e->out, (viv__encoded){.id = id,
                                            .type_id = e->sequence,
                                            .word = e->word,
                                            .sequence = e->sequence,
                                            .start = span.start,
                                            .end = span.end,
                                            .attention = true,
                                            .text = text});
}

static void add_piece(encoder *e, const viv__aligned *body, viv__piece piece) {
  e->parts.n = 0;
  viv_str text = {body->text + piece.at, piece.len};
  int32_t status = viv__text_model_encode(&e->t->model, text, &e->work, &e->parts, &e->why);
  e->failed |= status < 0 || e->parts.failed;
  if (status >= 0) e->why = NULL;
  for (size_t i = 0; i < e->parts.n && !e->failed; i++) {
    viv__part p = e->parts.item[i];
    viv__span span = {p.start, p.end};
    /* Affixes can make a part reach beyond its piece; the library then gives
     * its place there. */
    if (p.end <= piece.len && p.end > p.start)
      span =
          (viv__span){body->span[piece.at + p.start].start, body->span[piece.at + p.end - 1].end};
    viv_str spelling = e->t->vocabulary[p.id];
    if (e->spell && p.spelled) spelling = keep(e, text.ptr + p.start, p.end - p.start);
    add_token(e, p.id, span, spelling);
  }
  e->word++;
}

static void add_added(encoder *e, const viv__added_token *a, viv_str text, viv__span span) {
  if (!text.len) return; /* white space that the token before took was all of it */
  viv_str spelling = e->t->token[a->id].text;
  if (e->spell) spelling = keep(e, text.ptr, text.len);
  add_token(e, a->id, span, spelling);
  e->word++;
}

/* Text between added tokens, normalised: cut, and each piece to ids. */
static void encode_plain(encoder *e, size_t start, size_t end) {
  viv__pieces *p = &e->pieces;
  if (start == end || e->failed) return;
  p->n = 0;
  p->body.len = 0;
  viv__aligned_copy(&p->body, &e->form, start, end);
  viv__pieces_add(p, 0, end - start);
  viv__pre_tokenize(e->t->pre_tokenizer, p, &e->other, &e->why);
  e->failed |= p->body.failed || e->other.body.failed;
  for (size_t i = 0; i < p->n && !e->failed; i++) add_piece(e, &p->body, p->item[i]);
}

/* Text between added tokens that match it as it is. */
static void encode_segment(encoder *e, size_t start, size_t end) {
  if (start == end || e->failed) return;
  e->form.len = 0;
  viv__aligned_original(&e->form, e->text.ptr + start, end - start, start);
  if (!e->form.failed) viv__normalize(e->t->normalizer, &e->form, &e->spare);
  e->failed |= e->form.failed || e->spare.failed;
  if (e->failed || !e->form.len) return;
  viv__added_search s = {.added = &e->t->added,
                         .trie = &e->t->added.normalized,
                         .text = {e->form.text, e->form.len},
                         .parse_special = e->parse_special};
  const viv__added_token *a;
  size_t done = 0;
  while (!e->failed && (a = viv__added_next(&s))) {
    if (done < s.start) encode_plain(e, done, s.start);
    viv_str text = {e->form.text + s.start, s.end - s.start};
    viv__span span = {0, 0};
    if (s.end > s.start)
      span = (viv__span){e->form.span[s.start].start, e->form.span[s.end - 1].end};
    add_added(e, a, text, span);
    done = s.end;
  }
  encode_plain(e, done, e->form.len);
}

static void encode_text(encoder *e) {
  viv__added_search s = {.added = &e->t->added,
                         .trie = &e->t->added.raw,
                         .text = e->text,
                         .parse_special = e->parse_special};
  const viv__added_token *a;
  size_t done = 0;
  while (!e->failed && !e->out.failed && (a = viv__added_next(&s))) {
    if (done < s.start) encode_segment(e, done, s.start);
    add_added(e, a, (viv_str){e->text.ptr + s.start, s.end - s.start},
              (viv__span){(uint32_t)s.start, (uint32_t)s.end});
    done = s.end;
  }
  encode_segment(e, done, e->text.len);
  e->failed |= e->out.failed;
}

/* Places in bytes become places in code points. */
static bool count_code_points(encoder *e) {
  uint32_t *index = viv__malloc((e->text.len + 1) * sizeof *index), n = 0;
  if (!index) return false;
  for (size_t i = 0; i < e->text.len; i++) {
    n += ((unsigned char)e->text.ptr[i] & 0xc0) != 0x80;
    index[i] = n - 1;
  }
  index[e->text.len] = n;
  for (size_t i = 0; i < e->out.n; i++) {
    viv__encoded *t = &e->out.token[i];
    if (t->start >= e->text.len || t->end > e->text.len) continue;
    t->start = index[t->start];
    t->end = index[t->end];
  }
  viv__free(index);
  return true;
}

static void encoder_free(encoder *e) {
  viv__encoding_free(&e->out);
  viv__pieces_free(&e->pieces);
  viv__pieces_free(&e->other);
  viv__aligned_free(&e->form);
  viv__aligned_free(&e->spare);
  viv__parts_free(&e->parts);
  viv__model_work_free(&e->work);
}

/* Encodes one text into e->out, which must be empty. */
static int32_t encode_one(encoder *e, viv_str text, int32_t sequence, bool code_points,
                          viv_error *error) {
  size_t whole = viv__utf8_bad(text.ptr, text.len);
  if (whole < text.len)
    return VIV_FAIL(error, VIV_BAD_INPUT, "text", "is not UTF-8 at byte %zu of %llu", whole,
                    (unsigned long long)text.len);
  if (text.len > MAX_TEXT)
    return VIV_FAIL(error, VIV_BAD_INPUT, "text", "has %llu bytes; at most %d at a time",
                    (unsigned long long)text.len, MAX_TEXT);
  e->text = text;
  e->sequence = sequence;
  e->word = 0;
  e->why = NULL;
  encode_text(e);
  if (!e->failed && code_points && !count_code_points(e)) e->failed = true;
  if (!e->failed) return VIV_OK;
  if (e->why) return VIV_FAIL(error, VIV_BAD_INPUT, "text", "%s", e->why);
  return VIV_FAIL(error, VIV_NOT_NOW, "text", "out of memory for %llu bytes",
                  (unsigned long long)text.len);
}

static int32_t encode_pair(encoder *e, const viv__text_pair *texts,
                           const viv__encode_options *options, viv__encoding *out,
                           viv_error *error) {
  viv__encoding first = {0}, second = {0};
  bool pair = texts->pair.ptr != NULL;
  const viv__post_processor *processor = e->t->post_processor;
  size_t added = options->add_special ? viv__post_processor_added(processor, pair) : 0;
  int32_t status = encode_one(e, texts->text, 0, options->code_points, error);
  first = e->out;
  e->out = (viv__encoding){0};
  if (status >= 0 && pair) status = encode_one(e, texts->pair, 1, options->code_points, error);
  second = e->out;
  e->out = (viv__encoding){0};
  if (status >= 0)
    status = viv__truncate(&options->truncation, added, &first, pair ? &second : NULL, error);
  if (status >= 0) {
    viv__post_process(processor, &first, pair ? &second : NULL, options->add_special, out);
    if (out->failed) status = VIV_FAIL(error, VIV_NOT_NOW, "text", "out of memory");
  }
  viv__encoding_free(&first);
  viv__encoding_free(&second);
  return status;
}

/* Brings an encoding and its windows to a length. */
static void pad(viv__encoding *e, const viv__padding *p, viv_str text, size_t length) {
  for (size_t i = 0; i < e->overflows; i++) {
    pad(&e->overflow[i], p, text, length);
    e->failed |= e->overflow[i].failed;
  }
  size_t before = e->n;
  if (before >= length) return;
  viv__encoded token = {.id = p->id,
                        .type_id = p->type_id,
                        .word = -1,
                        .sequence = -1,
                        .special = true,
                        .text = text};
  while (e->n < length && !e->failed) viv__encoding_add(e, token);
  if (e->failed || p->side != VIV__SIDE_LEFT) return;
  memmove(e->token + (length - before), e->token, before * sizeof *e->token);
  for (size_t i = 0; i < length - before; i++) e->token[i] = token;
}

static int32_t pad_all(const viv__padding *p, viv__encodings *out, viv_error *error) {
  size_t length = p->length;
  if (!p->on) return VIV_OK;
  for (size_t i = 0; i < out->n && !p->length; i++)
    if (out->item[i].n > length) length = out->item[i].n;
  if (p->multiple && length % p->multiple) length += p->multiple - length % p->multiple;
  char *copy = viv__arena_str(out->texts, viv__str(p->token));
  bool failed = !copy;
  for (size_t i = 0; i < out->n && !failed; i++) {
    pad(&out->item[i], p, viv__str(copy), length);
    failed = out->item[i].failed;
  }
  return failed ? VIV_FAIL(error, VIV_NOT_NOW, "padding", "out of memory") : VIV_OK;
}

int32_t viv__tokenizer_encode_batch(const viv__tokenizer *t, const viv__text_pair *texts, size_t n,
                                    const viv__encode_options *options, viv__encodings *out,
                                    viv_error *error) {
  viv__encodings made = {viv__calloc(n + 1, sizeof *made.item), 0, viv__arena_new(0)};
  encoder e = {.t = t, .parse_special = options->parse_special, .spell = true, .texts = made.texts};
  int32_t status =
      made.item && made.texts ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "text", "out of memory");
  for (; made.n < n && status >= 0; made.n++)
    status = encode_pair(&e, &texts[made.n], options, &made.item[made.n], error);
  encoder_free(&e);
  if (status >= 0) status = pad_all(&options->padding, &made, error);
  if (status < 0)
    viv__encodings_free(&made);
  else
    *out = made;
  return status;
}

void viv__encodings_free(viv__encodings *e) {
  for (size_t i = 0; i < e->n; i++) viv__encoding_free(&e->item[i]);
  viv__free(e->item);
  viv__arena_free(e->texts);
  *e = (viv__encodings){0};
}

int32_t viv__tokenizer_encode_within(const viv__tokenizer *t, viv_str text, bool add_special,
                                     bool parse_special, size_t most, int32_t **ids, size_t *n,
                                     viv_error *error) {
  encoder e = {.t = t, .parse_special = parse_special};
  viv__text_pair one = {.text = text};
  viv__encode_options options = {.add_special = add_special, .parse_special = parse_special};
  viv__encoding made = {0};
  if (most) options.truncation = (viv__truncation){.on = true, .max_length = most};
  int32_t status = encode_pair(&e, &one, &options, &made, error);
  encoder_free(&e);
  int32_t *list = status >= 0 ? viv__malloc((made.n + 1) * sizeof *list) : NULL;
  if (status >= 0 && !list) status = VIV_FAIL(error, VIV_NOT_NOW, "text", "out of memory");
  for (size_t i = 0; i < made.n && list; i++) list[i] = made.token[i].id;
  *n = made.n;
  viv__encoding_free(&made);
  if (status >= 0) *ids = list;
  return status;
}

int32_t viv__tokenizer_encode(const viv__tokenizer *t, viv_str text, bool add_special,
                              bool parse_special, int32_t **ids, size_t *n, viv_error *error) {
  return viv__tokenizer_encode_within(t, text, add_special, parse_special, 0, ids, n, error);
}
