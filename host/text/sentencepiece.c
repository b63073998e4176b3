/* A sentencepiece model (a protobuf of pieces, scores and normaliser) as a
 * tokenizer.json that does what it does, as the official converters write one.
 *
 * Read are (numbers of sentencepiece_model.proto):
 *   1 pieces: 1 piece, 2 score, 3 type      2 trainer: 3 model type, 35 byte
 * fallback, 40 unknown id 3 normaliser: 2 map, 3 dummy prefix, 4 removal of
 * extra white space Everything else only matters to training. */
#include "text/sentencepiece.h"

#include <math.h>
#include <string.h>

enum { MAX_PIECES = 1 << 22 };
enum type { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };
enum { UNIGRAM = 1, BPE = 2, CHARACTERS = 4 };

typedef struct piece {
  viv_str text;
  float score;
  uint64_t type;
} piece;

typedef struct model {
  piece *piece;
  size_t n;
  uint64_t kind;
  bool byte_fallback, dummy_prefix, trim;
  viv_str map;
} model;

/* ---- protobuf ---- */

typedef struct field {
  uint64_t number, kind; /* kind: 0 varint, 1 eight bytes, 2 bytes, 5 four bytes */
  uint64_t value;
  viv_str bytes;
} field;

static bool varint(viv_str in, size_t *at, uint64_t *value) {
  *value = 0;
  for (int shift = 0; shift < 64 && *at < in.len; shift += 7) {
    unsigned char byte = (unsigned char)in.ptr[(*at)++];
    *value |= (uint64_t)(byte & 127) << shift;
    if (!(byte & 128)) return true;
  }
  return false;
}

/* The next field of a message. False: the end, or (*broken) no field. */
static bool next_field(viv_str in, size_t *at, field *f, bool *broken) {
  uint64_t key, len;
  if (*at >= in.len) return false;
  *broken = true;
  if (!varint(in, at, &key)) return false;
  *f = (field){.number = key >> 3, .kind = key & 7};
  if (f->kind == 0) {
    if (!varint(in, at, &f->value)) return false;
  } else if (f->kind == 2) {
    if (!varint(in, at, &len) || len > in.len - *at) return false;
    f->bytes = (viv_str){in.ptr + *at, len};
    *at += len;
  } else if (f->kind == 1 || f->kind == 5) {
    size_t size = f->kind == 1 ? 8 : 4;
    if (size > in.len - *at) return false;
    for (size_t i = 0; i < size; i++)
      f->value |= (uint64_t)(unsigned char)in.ptr[*at + i] << (8 * i);
    *at += size;
  } else {
    return false;
  }
  *broken = false;
  return true;
}

static float as_float(uint64_t bits) {
  uint32_t low = (uint32_t)bits;
  float value;
  memcpy(&value, &low, sizeof value);
  return value;
}

/* ---- reading ---- */

static bool read_piece(viv_str in, piece *p) {
  field f;
  size_t at = 0;
  bool broken = false;
  *p = (piece){.text = {"", 0}, .type = NORMAL};
  while (next_field(in, &at, &f, &broken)) {
    if (f.number == 1 && f.kind == 2) p->text = f.bytes;
    if (f.number == 2 && f.kind == 5) p->score = as_float(f.value);
    if (f.number == 3 && f.kind == 0) p->type = f.value;
  }
  return !broken;
}

static bool read_settings(viv_str in, bool normalizer, model *m) {
  field f;
  size_t at = 0;
  bool broken = false;
  while (next_field(in, &at, &f, &broken)) {
    if (normalizer && f.number == 2 && f.kind == 2) m->map = f.bytes;
    if (normalizer && f.number == 3 && f.kind == 0) m->dummy_prefix = f.value != 0;
    if (normalizer && f.number == 4 && f.kind == 0) m->trim = f.value != 0;
    if (!normalizer && f.number == 3 && f.kind == 0) m->kind = f.value;
    if (!normalizer && f.number == 35 && f.kind == 0) m->byte_fallback = f.value != 0;
  }
  return !broken;
}

static int32_t check_piece(const piece *p, size_t index, const char *name, viv_error *error) {
  if (!viv__utf8_valid(p->text.ptr, p->text.len) || memchr(p->text.ptr, 0, p->text.len))
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "piece %zu is not UTF-8 or holds a NUL", index);
  if (!isfinite(p->score) || p->type < NORMAL || p->type > BYTE)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "piece %zu has a score or type that is none",
                    index);
  return VIV_OK;
}

static int32_t read_model(viv_str in, const char *name, model *m, viv_error *error) {
  field f;
  size_t at = 0, cap = 0;
  bool broken = false, ok = true;
  while (ok && next_field(in, &at, &f, &broken)) {
    if (f.kind != 2) continue;
    if (f.number == 2 || f.number == 3) ok = read_settings(f.bytes, f.number == 3, m);
    if (f.number != 1) continue;
    if (m->n == cap) {
      cap = cap ? 2 * cap : 1024;
      piece *grown = cap <= MAX_PIECES ? viv__realloc(m->piece, cap * sizeof *grown) : NULL;
      if (!grown) return VIV_FAIL(error, VIV_NOT_NOW, name, "out of memory");
      m->piece = grown;
    }
    ok = read_piece(f.bytes, &m->piece[m->n]);
    int32_t status = ok ? check_piece(&m->piece[m->n], m->n, name, error) : VIV_OK;
    if (status < 0) return status;
    m->n++;
  }
  if (!ok || broken)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "is no sentencepiece model: broken at byte %zu",
                    at);
  if (!m->n)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "is no sentencepiece model: it has no pieces");
  /* Where every piece is one character, the likeliest pieces are the characters. */
  if (m->kind != UNIGRAM && m->kind != BPE && m->kind != CHARACTERS)
    return VIV_FAIL(error, VIV_NEVER, name,
                    "the model type %llu is not supported; expected 1 (Unigram), 2 (BPE) or 4 "
                    "(characters)",
                    (unsigned long long)m->kind);
  return VIV_OK;
}

/* ---- writing ---- */

static void put_added(const model *m, viv__buf *out) {
  bool any = false;
  viv__buf_str(out, "\"added_tokens\":[");
  for (size_t i = 0; i < m->n; i++) {
    const piece *p = &m->piece[i];
    if (p->type != CONTROL && p->type != UNKNOWN && p->type != USER_DEFINED) continue;
    viv__buf_fmt(out,
                 "%s{\"id\":%zu,\"normalized\":false,\"special\":%s,\"content\":", any ? "," : "",
                 i, p->type == USER_DEFINED ? "false" : "true");
    viv__buf_json(out, p->text);
    viv__buf_str(out, "}");
    any = true;
  }
  viv__buf_str(out, "],");
}

static void put_base64(viv_str in, viv__buf *out) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < in.len; i += 3) {
    uint32_t bits = 0;
    char four[4];
    for (size_t k = 0; k < 3; k++)
      bits = bits << 8 | (i + k < in.len ? (unsigned char)in.ptr[i + k] : 0);
    for (size_t k = 0; k < 4; k++)
      four[k] = i + k <= in.len ? digits[bits >> (18 - 6 * k) & 63] : '=';
    viv__buf_add(out, four, 4);
  }
}

/* Where pieces may begin with the mark of a space only, a text can be cut at
 * each of them. */
static bool can_cut(const model *m) {
  for (size_t i = 0; i < m->n; i++) {
    viv_str t = m->piece[i].text;
    if (t.len > 3 && memmem(t.ptr + 1, t.len - 1, "\xe2\x96\x81", 3)) return false;
  }
  return true;
}

static void put_steps(const model *m, viv__buf *out) {
  viv__buf_str(out, "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
  if (m->map.len) {
    viv__buf_str(out, "{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"");
    put_base64(m->map, out);
    viv__buf_str(out, "\"},");
  }
  if (m->trim)
    viv__buf_str(out, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A +| "
                      "+\\\\z\"},\"content\":\"\"},"
                      "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" "
                      "{2,}\"},\"content\":\" \"},");
  if (m->dummy_prefix) viv__buf_str(out, "{\"type\":\"Prepend\",\"prepend\":\"\xe2\x96\x81\"},");
  viv__buf_str(out, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                    "\"content\":\"\xe2\x96\x81\"}]},");
  if (can_cut(m))
    viv__buf_str(out, "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":"
                      "\"\xe2\x96\x81\"},\"behavior\":\"MergedWithNext\",\"invert\":false},");
  viv__buf_str(out, "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","
                    "\"pattern\":{\"String\":\"\xe2\x96\x81\"},\"content\":\" \"},"
                    "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}");
  if (m->dummy_prefix)
    viv__buf_str(out, ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}");
  viv__buf_str(out, "]},");
}

static void put_unigram(const model *m, size_t unk, viv__buf *out) {
  viv__buf_fmt(out, "{\"type\":\"Unigram\",\"unk_id\":%zu,\"byte_fallback\":%s,\"vocab\":[", unk,
               m->byte_fallback ? "true" : "false");
  for (size_t i = 0; i < m->n; i++) {
    const piece *p = &m->piece[i];
    viv__buf_str(out, i ? ",[" : "[");
    viv__buf_json(out, p->text);
    viv__buf_fmt(out, ",%.9g]", (double)p->score);
  }
  viv__buf_str(out, "]}");
}

/* "scores" is ours: the order of merges that the pieces' scores give (see
 * bpe.c). What no merge may make has none. */
static void put_bpe(const model *m, size_t unk, viv__buf *out) {
  viv__buf_fmt(out, "{\"type\":\"BPE\",\"fuse_unk\":true,\"byte_fallback\":%s,\"unk_token\":",
               m->byte_fallback ? "true" : "false");
  viv__buf_json(out, m->piece[unk].text);
  viv__buf_str(out, ",\"vocab\":{");
  for (size_t i = 0; i < m->n; i++) {
    if (i) viv__buf_str(out, ",");
    viv__buf_json(out, m->piece[i].text);
    viv__buf_fmt(out, ":%zu", i);
  }
  viv__buf_str(out, "},\"scores\":[");
  for (size_t i = 0; i < m->n; i++) {
    bool merged = m->piece[i].type == NORMAL;
    viv__buf_str(out, i ? "," : "");
    if (merged)
      viv__buf_fmt(out, "%.9g", (double)m->piece[i].score);
    else
      viv__buf_str(out, "null");
  }
  viv__buf_str(out, "]}");
}

static size_t find_piece(const model *m, const char *text) {
  size_t i = 0;
  while (i < m->n && !viv__str_eq(m->piece[i].text, text)) i++;
  return i;
}

/* The template of the classes that have one whatever the model says: Llama
 * begins with <s>, T5 and SpeechT5 end with </s>. Other classes' wishes stand in the
 * configuration. */
static void put_template(const model *m, const viv_json *config, viv__buf *out) {
  const char *class = viv__json_text(config, "tokenizer_class", "LlamaTokenizer");
  bool t5 = !strncmp(class, "T5Tokenizer", 11) || !strncmp(class, "SpeechT5Tokenizer", 17);
  bool llama = !strncmp(class, "LlamaTokenizer", 14) || !strncmp(class, "GemmaTokenizer", 14) ||
               !strncmp(class, "CodeLlamaTokenizer", 18);
  const char *name = t5 ? "</s>" : "<s>";
  if (!strncmp(class, "Gemma", 5)) name = "<bos>";
  size_t id = find_piece(m, name);
  if ((!t5 && !llama) || id == m->n) return;
  viv__buf_str(out, "\"post_processor\":{\"type\":\"TemplateProcessing\",");
  for (int pair = 0; pair < 2; pair++) {
    viv__buf_str(out, pair ? "],\"pair\":[" : "\"single\":[");
    for (int i = 0; i <= pair; i++) {
      if (i) viv__buf_str(out, ",");
      if (!t5) viv__buf_fmt(out, "{\"SpecialToken\":{\"id\":\"%s\",\"type_id\":0}}", name);
      if (!t5) viv__buf_str(out, ",");
      viv__buf_fmt(out, "{\"Sequence\":{\"id\":\"%c\",\"type_id\":0}}", 'A' + i);
      if (t5) viv__buf_str(out, ",");
      if (t5) viv__buf_fmt(out, "{\"SpecialToken\":{\"id\":\"%s\",\"type_id\":0}}", name);
    }
  }
  viv__buf_fmt(out,
               "],\"special_tokens\":{\"%s\":{\"id\":\"%s\",\"ids\":[%zu],"
               "\"tokens\":[\"%s\"]}}},",
               name, name, id, name);
}

int32_t viv__sentencepiece_document(viv_str bytes, const char *name, const viv_json *config,
                                    viv__buf *out, viv_error *error) {
  model m = {.kind = UNIGRAM, .dummy_prefix = true, .trim = true};
  const char *class = viv__json_text(config, "tokenizer_class", "");
  /* These number their tokens otherwise than the model does. */
  if (!strncmp(class, "XLMRoberta", 10) || !strncmp(class, "Camembert", 9) ||
      !strncmp(class, "MBart", 5) || !strncmp(class, "Pegasus", 7))
    return VIV_FAIL(error, VIV_NEVER, name,
                    "a %.60s renumbers the model's pieces; save its "
                    "tokenizer.json beside it",
                    class);
  int32_t status = read_model(bytes, name, &m, error);
  size_t unk = 0;
  while (status >= 0 && unk < m.n && m.piece[unk].type != UNKNOWN) unk++;
  if (status >= 0 && unk == m.n)
    status = VIV_FAIL(error, VIV_BAD_INPUT, name, "has no unknown piece");
  if (status >= 0) {
    viv__buf_str(out, "{\"version\":\"1.0\",");
    put_added(&m, out);
    put_steps(&m, out);
    put_template(&m, config, out);
    viv__buf_str(out, "\"model\":");
    if (m.kind == BPE)
      put_bpe(&m, unk, out);
    else
      put_unigram(&m, unk, out);
    viv__buf_str(out, "}");
    if (out->failed) status = VIV_FAIL(error, VIV_NOT_NOW, name, "out of memory");
  }
  viv__free(m.piece);
  return status;
}
