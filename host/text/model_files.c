/* A tokenizer from the files that a checkpoint has. What is no tokenizer.json
 * is put into one's words, as the official converters do, and opened as one. */
#include "text/sentencepiece.h"
#include "text/text.h"

#include <string.h>

enum { FILE_LIMIT = 256 << 20 };

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, "tokenizer", "out of memory");
}

/* ---- vocab.json and merges.txt ---- */

/* Lines of a text one after the other; false: no more. A carriage return at the
 * end is no part. */
static bool next_line(viv_str text, size_t *at, viv_str *line) {
  if (*at >= text.len) return false;
  const char *start = text.ptr + *at, *end = memchr(start, '\n', text.len - *at);
  size_t len = end ? (size_t)(end - start) : text.len - *at;
  *at += len + 1;
  if (len && start[len - 1] == '\r') len--;
  *line = (viv_str){start, len};
  return true;
}

/* The special tokens of tokenizer_config.json that have no entry in a list of
 * added tokens. */
static void add_config_tokens(const viv_json *config, viv__buf *out) {
  static const char *const keys[] = {"unk_token", "bos_token", "eos_token", "pad_token",
                                     "sep_token", "cls_token", "mask_token"};
  bool any = false;
  viv__buf_str(out, "\"added_tokens\":[");
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    const viv_json *node = viv__json_get(config, keys[i]);
    const char *text = viv__json_text(node, "content", viv__json_text(config, keys[i], NULL));
    if (!text || !*text) continue;
    viv__buf_str(out, any ? ",{\"id\":0,\"special\":true,\"content\":"
                          : "{\"id\":0,\"special\":true,\"content\":");
    viv__buf_json(out, viv__str(text));
    /* A mask takes the space before it, as RoBERTa's does. */
    viv__buf_fmt(out, ",\"lstrip\":%s}", viv__json_bool(node, "lstrip", false) ? "true" : "false");
    any = true;
  }
  viv__buf_str(out, "],");
}

/* GPT-2's layout: byte-level BPE. */
static void byte_level_document(viv_str vocab, viv_str merges, const viv_json *config,
                                viv__buf *out) {
  bool prefix = viv__json_bool(config, "add_prefix_space", false), first = true;
  viv__buf_str(out, "{\"version\":\"1.0\",");
  add_config_tokens(config, out);
  viv__buf_fmt(out,
               "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":%s},"
               "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\","
               "\"vocab\":",
               prefix ? "true" : "false");
  viv__buf_add(out, vocab.ptr, vocab.len);
  viv__buf_str(out, ",\"merges\":[");
  viv_str line;
  for (size_t at = 0, n = 0; next_line(merges, &at, &line); n++) {
    if (!line.len || (!n && line.len > 8 && !memcmp(line.ptr, "#version", 8))) continue;
    if (!first) viv__buf_str(out, ",");
    viv__buf_json(out, line);
    first = false;
  }
  viv__buf_str(out, "]}}");
}

/* ---- vocab.txt ---- */

/* A token of the configuration that stands in the vocabulary, or a fallback. */
static const char *token_name(const viv_json *config, const char *key, const char *fallback) {
  const viv_json *node = viv__json_get(config, key);
  return viv__json_text(node, "content", viv__json_text(config, key, fallback));
}

static void add_template(const char *cls, int cls_id, const char *sep, int sep_id, viv__buf *out) {
  viv__buf_str(out, "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[");
  viv__buf_json(out, viv__str(cls));
  viv__buf_fmt(out, ",%d],\"sep\":[", cls_id);
  viv__buf_json(out, viv__str(sep));
  viv__buf_fmt(out, ",%d]},", sep_id);
}

/* BERT's layout: WordPiece. */
static int32_t word_piece_document(viv_str vocab, const viv_json *config, viv__buf *out,
                                   viv_error *error) {
  static const char *const keys[] = {"unk_token", "sep_token", "pad_token", "cls_token",
                                     "mask_token"};
  static const char *const names[] = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
  int id[5] = {-1, -1, -1, -1, -1}, n = 0;
  viv_str line;
  for (size_t at = 0; next_line(vocab, &at, &line); n++)
    for (int i = 0; i < 5; i++)
      if (viv__str_eq(line, token_name(config, keys[i], names[i]))) id[i] = n;
  const char *unk = token_name(config, keys[0], names[0]);
  if (id[0] < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, "vocab.txt", "the unknown token \"%.60s\" is not in it",
                    unk);
  viv__buf_str(out, "{\"version\":\"1.0\",\"added_tokens\":[");
  for (int i = 0, any = 0; i < 5; i++) {
    if (id[i] < 0) continue;
    viv__buf_fmt(out, "%s{\"id\":%d,\"special\":true,\"content\":", any ? "," : "", id[i]);
    viv__buf_json(out, viv__str(token_name(config, keys[i], names[i])));
    viv__buf_str(out, "}");
    any = 1;
  }
  bool lower = viv__json_bool(config, "do_lower_case", true);
  const viv_json *strip = viv__json_get(config, "strip_accents");
  viv__buf_fmt(out,
               "],\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
               "\"handle_chinese_chars\":%s,\"strip_accents\":%s,\"lowercase\":%s},"
               "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},",
               viv__json_bool(config, "tokenize_chinese_chars", true) ? "true" : "false",
               viv__json_type(strip) != VIV_JSON_BOOL ? "null"
               : viv__json_boolean(strip)             ? "true"
                                                      : "false",
               lower ? "true" : "false");
  if (id[1] >= 0 && id[3] >= 0)
    add_template(token_name(config, keys[3], names[3]), id[3],
                 token_name(config, keys[1], names[1]), id[1], out);
  viv__buf_str(out, "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true},"
                    "\"model\":{\"type\":\"WordPiece\",\"continuing_subword_prefix\":\"##\","
                    "\"max_input_chars_per_word\":100,\"unk_token\":");
  viv__buf_json(out, viv__str(unk));
  viv__buf_str(out, ",\"vocab\":{");
  n = 0;
  for (size_t at = 0; next_line(vocab, &at, &line); n++) {
    if (n) viv__buf_str(out, ",");
    viv__buf_json(out, line);
    viv__buf_fmt(out, ":%d", n);
  }
  viv__buf_str(out, "}}}");
  return VIV_OK;
}

/* ---- choosing ---- */

typedef struct files {
  viv__read_fn read;
  void *context;
  int32_t status; /* NOT_NOW: a file could not be read, though it may be there */
  viv_error *error;
} files;

static bool has(files *f, const char *name, viv_str *bytes) {
  viv_error why = VIV_ERROR_INIT;
  if (f->status < 0) return false;
  int32_t status = f->read(f->context, name, bytes, &why);
  if (status == VIV_NOT_NOW) {
    f->status = status;
    if (f->error && VIV_HAS(f->error, message)) *f->error = why;
  }
  return status == VIV_OK;
}

static int32_t open_made(viv__buf *document, viv_str config, viv__tokenizer **out,
                         viv_error *error) {
  int32_t status = document->failed ? no_memory(error)
                                    : viv__tokenizer_open((viv_str){document->ptr, document->len},
                                                          config, out, error);
  viv__buf_free(document);
  return status;
}

static int32_t must_be_text(viv_str text, const char *name, viv_error *error) {
  size_t whole = viv__utf8_bad(text.ptr, text.len);
  return whole == text.len
             ? VIV_OK
             : VIV_FAIL(error, VIV_BAD_INPUT, name, "is not UTF-8 at byte %zu", whole);
}

int32_t viv__tokenizer_open_files(viv__read_fn read, void *context, viv_str config,
                                  viv__tokenizer **out, viv_error *error) {
  static const char *const models[] = {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
                                       "spm_char.model"};
  files f = {read, context, VIV_OK, error};
  viv_str bytes, merges;
  viv__buf document = {0};
  viv_json *settings = NULL;
  if (has(&f, "tokenizer.json", &bytes)) return viv__tokenizer_open(bytes, config, out, error);
  int32_t status = VIV_OK;
  if (config.len)
    status = viv__json_parse(config.ptr, config.len, "tokenizer_config.json", &settings, error);
  if (status < 0) return status;
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    if (!has(&f, models[i], &bytes)) continue;
    status = viv__sentencepiece_document(bytes, models[i], settings, &document, error);
    goto made;
  }
  if (has(&f, "vocab.json", &bytes) && has(&f, "merges.txt", &merges)) {
    viv_json *vocab = NULL;
    status = must_be_text(merges, "merges.txt", error);
    if (status >= 0) status = viv__json_parse(bytes.ptr, bytes.len, "vocab.json", &vocab, error);
    viv__json_free(vocab);
    if (status >= 0) byte_level_document(bytes, merges, settings, &document);
  } else if (has(&f, "vocab.txt", &bytes)) {
    status = must_be_text(bytes, "vocab.txt", error);
    if (status >= 0) status = word_piece_document(bytes, settings, &document, error);
  } else if (f.status >= 0) {
    status = VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer",
                      "no tokenizer.json, tokenizer.model, vocab.json with "
                      "merges.txt, or vocab.txt");
  }
made:
  viv__json_free(settings);
  if (status >= 0) status = f.status;
  if (status >= 0) return open_made(&document, config, out, error);
  viv__buf_free(&document);
  return status;
}

/* ---- a folder ---- */

typedef struct folder {
  const char *path;
  char *bytes[8]; /* what was read */
  size_t n;
} folder;

static int32_t read_folder(void *context, const char *name, viv_str *bytes, viv_error *error) {
  folder *f = context;
  size_t len = 0;
  char *path = viv__path_join(f->path, name), *data = NULL;
  if (!path || f->n == 8) {
    viv__free(path);
    return no_memory(error);
  }
  int32_t status = viv__read_file(path, FILE_LIMIT, &data, &len, error);
  viv__free(path);
  if (status < 0) return status;
  f->bytes[f->n++] = data;
  *bytes = (viv_str){data, len};
  return VIV_OK;
}

int32_t viv__tokenizer_open_folder(const char *path, viv__tokenizer **out, viv_error *error) {
  folder f = {.path = path};
  viv_str config = {NULL, 0};
  int32_t status = read_folder(&f, "tokenizer_config.json", &config, error);
  if (status < 0) config = (viv_str){NULL, 0};
  if (status != VIV_NOT_NOW)
    status = viv__tokenizer_open_files(read_folder, &f, config, out, error);
  for (size_t i = 0; i < f.n; i++) viv__free(f.bytes[i]);
  return status;
}
