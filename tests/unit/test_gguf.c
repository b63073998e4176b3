/* GGUF files: what is read out of them, and what is refused with which words. All files are made
 * here, by a writer of a few lines. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"
#include "rt.h"
#include "text/tokenizer.h"

/* ---- a writer ---- */

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };

typedef struct file {
  viv__buf head, keys, infos, data;
  uint64_t n_keys, n_tensors;
  uint32_t version;
} file;

static void put(viv__buf *b, uint64_t x, int bytes) {
  uint8_t out[8];
  for (int i = 0; i < bytes; i++) out[i] = (uint8_t)(x >> 8 * i);
  viv__buf_add(b, out, (size_t)bytes);
}

static void put_text(viv__buf *b, const char *text) {
  put(b, strlen(text), 8);
  viv__buf_add(b, text, strlen(text));
}

static void key(file *f, const char *name, uint32_t type) {
  f->n_keys++;
  put_text(&f->keys, name);
  put(&f->keys, type, 4);
}

static void key_u32(file *f, const char *name, uint32_t x) {
  key(f, name, U32);
  put(&f->keys, x, 4);
}

static void put_f32(viv__buf *b, float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  put(b, bits, 4);
}

static void key_f32(file *f, const char *name, float x) {
  key(f, name, F32);
  put_f32(&f->keys, x);
}

static void key_bool(file *f, const char *name, bool x) {
  key(f, name, BOOL);
  put(&f->keys, x, 1);
}

static void key_text(file *f, const char *name, const char *text) {
  key(f, name, STRING);
  put_text(&f->keys, text);
}

static void key_array(file *f, const char *name, uint32_t type, uint64_t n) {
  key(f, name, ARRAY);
  put(&f->keys, type, 4);
  put(&f->keys, n, 8);
}

static void key_texts(file *f, const char *name, const char *const *texts, uint64_t n) {
  key_array(f, name, STRING, n);
  for (uint64_t i = 0; i < n; i++) put_text(&f->keys, texts[i]);
}

/* A tensor of bytes bytes that count up, innermost dimension first. */
static void tensor(file *f, const char *name, uint32_t type, int ndim, const uint64_t *dims,
                   size_t bytes) {
  while (f->data.len % 32) put(&f->data, 0, 1);
  f->n_tensors++;
  put_text(&f->infos, name);
  put(&f->infos, (uint64_t)ndim, 4);
  for (int i = 0; i < ndim; i++) put(&f->infos, dims[i], 8);
  put(&f->infos, type, 4);
  put(&f->infos, f->data.len, 8);
  for (size_t i = 0; i < bytes; i++) put(&f->data, (i * 7 + f->n_tensors) & 0xFF, 1);
}

static void vector(file *f, const char *name, uint64_t n) {
  tensor(f, name, 0, 1, &n, (size_t)n * 4);
}

static void matrix(file *f, const char *name, uint32_t type, uint64_t cols, uint64_t rows,
                   size_t bytes) {
  uint64_t dims[2] = {cols, rows};
  tensor(f, name, type, 2, dims, bytes);
}

typedef struct image {
  uint8_t *data;
  size_t len;
} image;

/* The whole file in memory of exactly its size, so that a sanitizer sees any read beyond. */
static image finish(file *f) {
  viv__buf b = {0};
  viv__buf_add(&b, "GGUF", 4);
  put(&b, f->version ? f->version : 3, 4);
  put(&b, f->n_tensors, 8);
  put(&b, f->n_keys, 8);
  viv__buf_add(&b, f->keys.ptr, f->keys.len);
  viv__buf_add(&b, f->infos.ptr, f->infos.len);
  while (b.len % 32) put(&b, 0, 1);
  viv__buf_add(&b, f->data.ptr, f->data.len);
  image m = {malloc(b.len), b.len};
  memcpy(m.data, b.ptr, b.len);
  viv__buf_free(&b);
  viv__buf_free(&f->keys);
  viv__buf_free(&f->infos);
  viv__buf_free(&f->data);
  return m;
}

/* ---- a small Llama ---- */

enum { D = 64, FF = 96, VOCAB = 12 };

static void sizes(file *f, const char *arch) {
  char name[64];
  static const struct {
    const char *key;
    uint32_t value;
  } keys[] = {{"context_length", 128},     {"embedding_length", D},
              {"block_count", 1},          {"feed_forward_length", FF},
              {"attention.head_count", 2}, {"attention.head_count_kv", 1},
              {"rope.dimension_count", 32}};
  key_text(f, "general.architecture", arch);
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    snprintf(name, sizeof name, "%s.%s", arch, keys[i].key);
    key_u32(f, name, keys[i].value);
  }
  snprintf(name, sizeof name, "%s.attention.layer_norm_rms_epsilon", arch);
  key_f32(f, name, 1e-5f);
  snprintf(name, sizeof name, "%s.rope.freq_base", arch);
  key_f32(f, name, 1e5f);
}

static void weights(file *f) {
  matrix(f, "token_embd.weight", 8, D, VOCAB, VOCAB * 2 * 34); /* Q8_0 */
  vector(f, "output_norm.weight", D);
  vector(f, "blk.0.attn_norm.weight", D);
  matrix(f, "blk.0.attn_q.weight", 3, D, D, D * 2 * 20); /* Q4_1 */
  matrix(f, "blk.0.attn_k.weight", 2, D, D / 2, D / 2 * 2 * 18);
  matrix(f, "blk.0.attn_v.weight", 1, D, D / 2, D / 2 * D * 2);
  matrix(f, "blk.0.attn_output.weight", 30, D, D, D * D * 2);
  vector(f, "blk.0.ffn_norm.weight", D);
  matrix(f, "blk.0.ffn_gate.weight", 6, D, FF, FF * 2 * 22);
  matrix(f, "blk.0.ffn_up.weight", 7, D, FF, FF * 2 * 24);
  matrix(f, "blk.0.ffn_down.weight", 8, FF, D, D * 3 * 34);
}

static image small_llama(void) {
  file f = {0};
  sizes(&f, "llama");
  weights(&f);
  return finish(&f);
}

/* ---- helpers ---- */

static viv__gguf *take(image m) {
  viv__gguf *g = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__gguf_parse(m.data, m.len, "x.gguf", &g, &e), VIV_OK, "%s: %s", e.where,
               e.message);
  return g;
}

static void refuse_as(image m, int32_t code, const char *words) {
  viv__gguf *g = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__gguf_parse(m.data, m.len, "x.gguf", &g, &e), code, "%s: %s", e.where,
               e.message);
  cr_assert_null(g);
  cr_assert(strstr(e.message, words) || strstr(e.where, words), "'%s: %s' lacks '%s'", e.where,
            e.message, words);
  cr_assert_eq(strncmp(e.where, "x.gguf", 6), 0);
  free(m.data);
}

static void refuse(image m, const char *words) {
  refuse_as(m, VIV_BAD_INPUT, words);
}

/* A side file as a document. */
static viv_json *side(const viv__gguf *g, const char *name) {
  viv__buf text = {0};
  viv_json *doc = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__gguf_side(g, viv__str(name), &text, &e), VIV_OK, "%s: %s", e.where, e.message);
  cr_assert_eq(viv__json_parse(text.ptr, text.len, name, &doc, &e), VIV_OK, "%s: %.*s", e.message,
               (int)text.len, text.ptr);
  viv__buf_free(&text);
  return doc;
}

static viv_tensor found(const viv__gguf *g, const char *name) {
  viv_tensor t = {.struct_size = sizeof t};
  cr_assert_eq(viv__gguf_find(g, viv__str(name), &t), VIV_OK, "%s", name);
  return t;
}

static void scrap(image m, viv__gguf *g) {
  viv__gguf_close(g);
  free(m.data);
}

/* ---- what is read ---- */

Test(gguf, tensors_come_under_official_names_as_they_lie) {
  image m = small_llama();
  viv__gguf *g = take(m);
  cr_assert_eq(viv__gguf_count(g), 11);
  viv_tensor t = found(g, "model.embed_tokens.weight");
  cr_assert_eq(t.dtype, VIV_Q8_0);
  cr_assert_eq(t.ndim, 2);
  cr_assert_eq(t.shape[0], VOCAB); /* the file lists the innermost dimension first */
  cr_assert_eq(t.shape[1], D);
  cr_assert_eq(t.bytes, VOCAB * 2 * 34);
  cr_assert_eq(((uint8_t *)t.data)[0], 1);
  cr_assert_eq(((uint8_t *)t.data)[1], 8);
  static const struct {
    const char *name;
    int32_t dtype;
  } expected[] = {{"model.norm.weight", VIV_F32},
                  {"model.layers.0.input_layernorm.weight", VIV_F32},
                  {"model.layers.0.self_attn.q_proj.weight", VIV_Q4_1},
                  {"model.layers.0.self_attn.k_proj.weight", VIV_Q4_0},
                  {"model.layers.0.self_attn.v_proj.weight", VIV_F16},
                  {"model.layers.0.self_attn.o_proj.weight", VIV_BF16},
                  {"model.layers.0.post_attention_layernorm.weight", VIV_F32},
                  {"model.layers.0.mlp.gate_proj.weight", VIV_Q5_0},
                  {"model.layers.0.mlp.up_proj.weight", VIV_Q5_1},
                  {"model.layers.0.mlp.down_proj.weight", VIV_Q8_0}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
    t = found(g, expected[i].name);
    cr_assert_eq(t.dtype, expected[i].dtype, "%s", expected[i].name);
    cr_assert_eq((uint8_t)(((uint8_t *)t.data)[1] - ((uint8_t *)t.data)[0]), 7);
  }
  scrap(m, g);
}

Test(gguf, metadata_becomes_the_configuration) {
  image m = small_llama();
  viv__gguf *g = take(m);
  viv_json *c = side(g, "config.json");
  static const struct {
    const char *key;
    double value;
  } expected[] = {
      {"hidden_size", D},         {"intermediate_size", FF},  {"num_hidden_layers", 1},
      {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"max_position_embeddings", 128},
      {"vocab_size", VOCAB},      {"rope_theta", 1e5},        {"rms_norm_eps", 1e-5}};
  for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
    cr_assert_eq(viv__json_num(c, expected[i].key, -1), expected[i].value, "%s", expected[i].key);
  cr_assert_str_eq(viv__json_text(c, "model_type", ""), "llama");
  cr_assert(viv__json_bool(c, "tie_word_embeddings", false), "there is no output.weight");
  cr_assert(viv__json_bool(c, "rope_interleaved", false));
  cr_assert_null(viv__json_get(c, "rope_scaling"));
  cr_assert_null(viv__json_get(c, "partial_rotary_factor"));
  viv__json_free(c);
  scrap(m, g);
}

Test(gguf, every_stop_token_ends_a_text_and_a_head_of_its_own_is_not_tied) {
  file f = {0};
  sizes(&f, "qwen2");
  key_u32(&f, "tokenizer.ggml.eos_token_id", 3);
  key_u32(&f, "tokenizer.ggml.eot_token_id", 5);
  key_u32(&f, "tokenizer.ggml.eom_token_id", 5);
  weights(&f);
  matrix(&f, "output.weight", 8, D, VOCAB, VOCAB * 2 * 34);
  image m = finish(&f);
  viv__gguf *g = take(m);
  viv_json *c = side(g, "config.json");
  cr_assert_not(viv__json_bool(c, "tie_word_embeddings", true));
  cr_assert_not(viv__json_bool(c, "rope_interleaved", true), "qwen2 keeps the official halves");
  const viv_json *eos = viv__json_get(c, "eos_token_id");
  cr_assert_eq(viv__json_count(eos), 2);
  cr_assert_eq(viv__json_number(viv__json_item(eos, 1)), 5);
  cr_assert_eq(found(g, "lm_head.weight").shape[0], VOCAB);
  viv__json_free(c);
  scrap(m, g);
}

static void check_scaling(const char *type, const char *expected) {
  file f = {0};
  sizes(&f, "llama");
  key_text(&f, "llama.rope.scaling.type", type);
  key_f32(&f, "llama.rope.scaling.factor", 4);
  key_u32(&f, "llama.rope.scaling.original_context_length", 32);
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  viv_json *c = side(g, "config.json");
  const viv_json *s = viv__json_get(c, "rope_scaling");
  cr_assert_str_eq(viv__json_text(s, "rope_type", "absent"), expected);
  if (s) cr_assert_eq(viv__json_num(s, "factor", 0), 4);
  viv__json_free(c);
  scrap(m, g);
}

Test(gguf, rotary_scaling_comes_through) {
  check_scaling("linear", "linear");
  check_scaling("yarn", "yarn");
  check_scaling("none", "absent");
}

Test(gguf, rotary_factors_are_configuration_not_weights) {
  file f = {0};
  sizes(&f, "llama");
  vector(&f, "rope_freqs.weight", 16);
  for (int i = 0; i < 16; i++) {
    float x = 1 + (float)i / 2;
    memcpy(f.data.ptr + 4 * i, &x, 4);
  }
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  viv_tensor t;
  cr_assert_eq(viv__gguf_count(g), 11);
  cr_assert_eq(viv__gguf_find(g, viv__str("rope_freqs.weight"), &t), VIV_NEVER);
  viv_json *c = side(g, "config.json");
  const viv_json *s = viv__json_get(c, "rope_scaling");
  cr_assert_str_eq(viv__json_text(s, "rope_type", ""), "longrope");
  cr_assert_eq(viv__json_number(viv__json_item(viv__json_get(s, "short_factor"), 3)), 2.5);
  cr_assert_eq(viv__json_num(s, "attention_factor", 0), 1);
  viv__json_free(c);
  scrap(m, g);
}

Test(gguf, a_model_is_the_file_alone_or_the_folder_that_holds_it) {
  char folder[] = "/tmp/viv-gguf-XXXXXX", path[96], other[96];
  cr_assert_not_null(mkdtemp(folder));
  file f = {0};
  sizes(&f, "llama");
  weights(&f);
  image m = finish(&f);
  snprintf(path, sizeof path, "%s/small.gguf", folder);
  viv_runtime *rt = open_runtime();
  cr_assert_eq(viv__write_file(path, m.data, m.len, NULL), VIV_OK);
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  const char *const places[] = {path, folder};
  for (int i = 0; i < 2; i++) {
    viv_text why = {0};
    cr_assert_eq(viv_why(rt, places[i], &why, &e), VIV_OK, "%s", e.message);
    cr_assert(strstr(why.ptr, "\"llama\""));
    viv_text_free(&why);
    cr_assert_eq(viv__checkpoint_open(places[i], &c, &e), VIV_OK, "%s: %s", e.where, e.message);
    cr_assert_eq(viv__tensor_count(c), 11);
    cr_assert_eq(viv__json_num(viv__checkpoint_config(c), "hidden_size", 0), D);
    viv__checkpoint_close(c);
  }
  /* What lies beside the file counts only for the folder. */
  viv_str text;
  snprintf(other, sizeof other, "%s/notes.json", folder);
  cr_assert_eq(viv__write_file(other, "{}", 2, NULL), VIV_OK);
  cr_assert_eq(viv__checkpoint_open(path, &c, &e), VIV_OK);
  cr_assert_eq(viv__checkpoint_read(c, "notes.json", &text, &e), VIV_NEVER);
  viv__checkpoint_close(c);
  cr_assert_eq(viv__checkpoint_open(folder, &c, &e), VIV_OK);
  cr_assert_eq(viv__checkpoint_read(c, "notes.json", &text, &e), VIV_OK);
  viv__checkpoint_close(c);
  /* Two files: no choice would be right. */
  snprintf(other, sizeof other, "%s/second.gguf", folder);
  cr_assert_eq(viv__write_file(other, m.data, m.len, NULL), VIV_OK);
  cr_assert_eq(viv__checkpoint_open(folder, &c, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "second.gguf"), "%s", e.message);
  viv_close(rt);
  unlink(other);
  snprintf(other, sizeof other, "%s/notes.json", folder);
  unlink(other);
  unlink(path);
  rmdir(folder);
  free(m.data);
}

/* Rows of each head in the order of the file format: row j of the first half at 2j, of the second
 * at 2j + 1. */
static void interleave(viv_tensor *t, int64_t head_dim) {
  size_t row = t->bytes / (size_t)t->shape[0];
  char *to = malloc(t->bytes), *from = t->data;
  for (int64_t r = 0; r < t->shape[0]; r++) {
    int64_t head = r / head_dim, j = r % head_dim, half = head_dim / 2;
    int64_t at = head * head_dim + (j < half ? 2 * j : 2 * (j - half) + 1);
    memcpy(to + (size_t)at * row, from + (size_t)r * row, row);
  }
  t->data = to;
}

Test(gguf, interleaved_rows_with_their_flag_are_the_same_model) {
  enum { MAX = 64, HEAD_DIM = 8 };
  char folder[] = "/tmp/viv-gguf-XXXXXX", path[96], *config = NULL;
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  viv_str names[MAX], text;
  viv_tensor tensors[MAX];
  bool moved[MAX] = {false};
  cr_assert_not_null(mkdtemp(folder));
  cr_assert_eq(viv__checkpoint_open(STORIES, &c, &e), VIV_OK, "%s", e.message);
  int64_t n = viv__tensor_count(c);
  cr_assert_leq(n, MAX);
  for (int64_t i = 0; i < n; i++) {
    tensors[i].struct_size = sizeof *tensors;
    viv__tensor_at(c, i, &names[i], &tensors[i]);
    moved[i] = viv__glob("*.self_attn.q_proj.weight", names[i]) ||
               viv__glob("*.self_attn.k_proj.weight", names[i]);
    if (moved[i]) interleave(&tensors[i], HEAD_DIM);
  }
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  cr_assert_eq(viv__safetensors_write(path, names, tensors, n, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(viv__checkpoint_read(c, "config.json", &text, &e), VIV_OK);
  cr_assert_gt(
      asprintf(&config, "{\"rope_interleaved\": true,%.*s", (int)text.len - 1, text.ptr + 1), 0);
  snprintf(path, sizeof path, "%s/config.json", folder);
  cr_assert_eq(viv__write_file(path, config, strlen(config), &e), VIV_OK);

  static const int64_t prompt[] = {1, 403, 407, 261, 378};
  viv_runtime *rt = open_runtime();
  viv_model *plain = load(rt, STORIES), *other = load(rt, folder);
  result a, b;
  run_ids(plain, NULL, prompt, 5, "{\"max_new_tokens\": 60}", &a);
  run_ids(other, NULL, prompt, 5, "{\"max_new_tokens\": 60}", &b);
  cr_assert_eq(a.n_ids, 60);
  cr_assert_eq(b.n_ids, 60);
  cr_assert_arr_eq(a.ids, b.ids, 60 * sizeof *a.ids);
  free(a.text);
  free(b.text);
  viv_unload(plain);
  viv_unload(other);
  viv_close(rt);
  for (int64_t i = 0; i < n; i++)
    if (moved[i]) free(tensors[i].data);
  viv__checkpoint_close(c);
  free(config);
  unlink(path);
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  unlink(path);
  rmdir(folder);
}

/* ---- tokenizers ---- */

static viv__tokenizer *tokenizer(const viv__gguf *g, viv_error *e) {
  viv__buf json = {0}, config = {0};
  viv__tokenizer *t = NULL;
  int32_t status = viv__gguf_side(g, viv__str("tokenizer.json"), &json, e);
  if (status >= 0) status = viv__gguf_side(g, viv__str("tokenizer_config.json"), &config, e);
  if (status >= 0)
    status = viv__tokenizer_open((viv_str){json.ptr, json.len}, (viv_str){config.ptr, config.len},
                                 &t, e);
  viv__buf_free(&json);
  viv__buf_free(&config);
  return status >= 0 ? t : NULL;
}

static void expect_ids(const viv__tokenizer *t, const char *text, const char *ids) {
  int32_t *list = NULL;
  size_t n = 0;
  viv__buf ours = {0};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__tokenizer_encode(t, viv__str(text), true, true, &list, &n, &e), VIV_OK, "%s",
               e.message);
  for (size_t i = 0; i < n; i++) viv__buf_fmt(&ours, "%s%d", i ? " " : "", (int)list[i]);
  viv__buf_add(&ours, "", 1);
  cr_assert_str_eq(ours.ptr, ids, "'%s': %s, not %s", text, ours.ptr, ids);
  viv__buf_free(&ours);
  viv__free(list);
}

static void expect_text(const viv__tokenizer *t, const int32_t *ids, size_t n, const char *text) {
  char *ours = NULL;
  size_t len = 0;
  cr_assert_eq(viv__tokenizer_decode(t, ids, n, true, &ours, &len, NULL), VIV_OK);
  cr_assert_str_eq(ours, text);
  viv__free(ours);
}

#define SPACE "\xc4\xa0" /* a space in the byte alphabet */

static void byte_level(file *f, const char *pre) {
  static const char *const texts[] = {"<|end|>", "a",  "b",        "1",  "2",
                                      SPACE,     "ab", SPACE "ab", "12", "<tool>"};
  static const char *const merges[] = {"a b", SPACE " ab", "1 2"};
  static const int types[] = {3, 1, 1, 1, 1, 1, 1, 1, 1, 4};
  key_text(f, "tokenizer.ggml.model", "gpt2");
  if (pre) key_text(f, "tokenizer.ggml.pre", pre);
  key_texts(f, "tokenizer.ggml.tokens", texts, 10);
  key_array(f, "tokenizer.ggml.token_type", I32, 10);
  for (int i = 0; i < 10; i++) put(&f->keys, (uint64_t)types[i], 4);
  key_texts(f, "tokenizer.ggml.merges", merges, 3);
  key_u32(f, "tokenizer.ggml.bos_token_id", 0);
  key_u32(f, "tokenizer.ggml.eos_token_id", 0);
  key_text(f, "tokenizer.chat_template", "{{ messages }}\n\"");
}

static void check_byte_level(const char *pre, bool add_bos, const char *ids) {
  file f = {0};
  viv_error e = VIV_ERROR_INIT;
  sizes(&f, "llama");
  byte_level(&f, pre);
  if (add_bos) key_bool(&f, "tokenizer.ggml.add_bos_token", true);
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  viv__tokenizer *t = tokenizer(g, &e);
  cr_assert_not_null(t, "%s: %s", e.where, e.message);
  expect_ids(t, "ab ab12<|end|><tool>", ids);
  cr_assert(viv__tokenizer_is_special(t, 0));
  cr_assert_not(viv__tokenizer_is_special(t, 9));
  static const int32_t back[] = {6, 7, 8, 0};
  expect_text(t, back, 4, "ab ab12");
  viv_json *config = side(g, "tokenizer_config.json");
  cr_assert_str_eq(viv__json_text(config, "chat_template", ""), "{{ messages }}\n\"");
  cr_assert_str_eq(viv__json_text(config, "eos_token", ""), "<|end|>");
  viv__json_free(config);
  viv__tokenizer_close(t);
  scrap(m, g);
}

Test(gguf, byte_level_tokenizers_cut_as_their_name_says) {
  check_byte_level("gpt-2", false, "6 7 8 0 9");
  check_byte_level(NULL, false, "6 7 8 0 9");
  check_byte_level("smollm", false, "6 7 3 4 0 9"); /* every digit by itself */
  check_byte_level("qwen2", false, "6 7 3 4 0 9");
  check_byte_level("llama-bpe", false, "0 6 7 8 0 9"); /* a text opens with BOS there */
  check_byte_level("gpt-2", true, "0 6 7 8 0 9");
}

Test(gguf, an_unknown_way_of_cutting_is_refused_by_its_name) {
  file f = {0};
  viv_error e = VIV_ERROR_INIT;
  sizes(&f, "llama");
  byte_level(&f, "zebra-7");
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  cr_assert_null(tokenizer(g, &e));
  cr_assert_eq(e.code, VIV_NEVER);
  cr_assert(strstr(e.message, "zebra-7") && strstr(e.where, "tokenizer.ggml.pre"), "%s", e.message);
  scrap(m, g);
}

#define META "\xe2\x96\x81"

static void scored(file *f) {
  static const char *const texts[] = {"<unk>", "<s>", "</s>", "<0x21>", META,     "a",
                                      "b",     "c",   "ab",   "bc",     META "a", "abc"};
  static const int types[] = {2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1};
  static const float scores[] = {0, 0, 0, 0, -9, -9, -9, -9, -3, -2, -4, -1};
  key_text(f, "tokenizer.ggml.model", "llama");
  key_texts(f, "tokenizer.ggml.tokens", texts, 12);
  key_array(f, "tokenizer.ggml.token_type", I32, 12);
  for (int i = 0; i < 12; i++) put(&f->keys, (uint64_t)types[i], 4);
  key_array(f, "tokenizer.ggml.scores", F32, 12);
  for (int i = 0; i < 12; i++) put_f32(&f->keys, scores[i]);
  key_u32(f, "tokenizer.ggml.bos_token_id", 1);
  key_u32(f, "tokenizer.ggml.eos_token_id", 2);
  key_u32(f, "tokenizer.ggml.unknown_token_id", 0);
}

Test(gguf, scores_become_merges) {
  file f = {0};
  viv_error e = VIV_ERROR_INIT;
  sizes(&f, "llama");
  scored(&f);
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  viv__tokenizer *t = tokenizer(g, &e);
  cr_assert_not_null(t, "%s: %s", e.where, e.message);
  /* Of "▁ a b c" bc has the best score, then a + bc = abc. */
  expect_ids(t, "abc", "1 4 11");
  expect_ids(t, "a ab", "1 10 4 8");
  expect_ids(t, "c!", "1 4 7 3"); /* a byte token */
  static const int32_t back[] = {1, 4, 11, 4, 8, 3};
  expect_text(t, back, 6, "abc ab!");
  viv__tokenizer_close(t);
  scrap(m, g);
}

/* ---- what is refused ---- */

Test(gguf, a_file_cut_anywhere_is_refused) {
  file f = {0};
  sizes(&f, "llama");
  byte_level(&f, "gpt-2");
  weights(&f);
  image whole = finish(&f);
  for (size_t len = 0; len < whole.len; len += len < 2048 ? 1 : 97) {
    image m = {malloc(len ? len : 1), len};
    memcpy(m.data, whole.data, len);
    refuse(m, "");
  }
  free(whole.data);
}

/* Every byte of header and tables changed in three ways: a clear error or a file that reads well. */
Test(gguf, a_changed_byte_is_refused_or_harmless, .timeout = 120) {
  file f = {0};
  sizes(&f, "llama");
  scored(&f);
  weights(&f);
  image m = finish(&f);
  for (size_t at = 0; at < 2600 && at < m.len; at++) {
    static const uint8_t changes[] = {0xFF, 0x80, 0x01};
    for (int k = 0; k < 3; k++) {
      m.data[at] ^= changes[k];
      viv__gguf *g = NULL;
      viv_error e = VIV_ERROR_INIT;
      int32_t status = viv__gguf_parse(m.data, m.len, "x.gguf", &g, &e);
      if (status < 0) {
        cr_assert(e.message[0] && !strncmp(e.where, "x.gguf", 6), "byte %zu: %s", at, e.where);
        cr_assert_null(g);
      } else {
        uint64_t sum = 0;
        for (int64_t i = 0; i < viv__gguf_count(g); i++) {
          viv_tensor t = {.struct_size = sizeof t};
          viv__gguf_at(g, i, NULL, &t);
          for (uint64_t b = 0; b < t.bytes; b++) sum += ((uint8_t *)t.data)[b];
        }
        cr_assert(sum);
        viv_error why = VIV_ERROR_INIT;
        viv__tokenizer *t = tokenizer(g, &why);
        cr_assert(t || why.message[0]);
        viv__tokenizer_close(t);
        viv__gguf_close(g);
      }
      m.data[at] ^= changes[k];
    }
  }
  free(m.data);
}

static image versioned(uint32_t version) {
  file f = {.version = version};
  sizes(&f, "llama");
  weights(&f);
  return finish(&f);
}

Test(gguf, other_versions_are_refused) {
  image m = versioned(2);
  viv__gguf *g = take(m);
  scrap(m, g);
  refuse_as(versioned(1), VIV_NEVER, "version 1");
  refuse_as(versioned(4), VIV_NEVER, "version 4");
  refuse_as(versioned(0x03000000), VIV_NEVER, "big-endian");
  m = versioned(3);
  m.data[0] = 'g';
  refuse(m, "letters GGUF");
}

static image with_tensor(const char *name, uint32_t type, int ndim, const uint64_t *dims) {
  file f = {0};
  sizes(&f, "llama");
  weights(&f);
  tensor(&f, name, type, ndim, dims, 64);
  return finish(&f);
}

Test(gguf, impossible_tensors_are_refused) {
  const uint64_t odd[] = {33, 2}, huge[] = {(uint64_t)1 << 40, (uint64_t)1 << 40}, none[] = {0, 2},
                 big[] = {32, 1 << 20}, few[] = {16}, five[] = {1, 1, 1, 1, 1};
  refuse(with_tensor("t", 8, 2, odd), "no whole blocks of Q8_0");
  refuse(with_tensor("t", 0, 2, huge), "overflows");
  refuse(with_tensor("t", 0, 2, none), "dimension 0 is 0");
  refuse(with_tensor("t", 0, 2, big), "ends behind");
  refuse(with_tensor("t", 0, 5, five), "5 dimensions");
  refuse(with_tensor("", 0, 1, big), "has 0 bytes");
  refuse(with_tensor("output_norm.weight", 0, 1, odd), "two have this name");
  refuse(with_tensor("model.norm.weight", 0, 1, few), "two names");
  refuse_as(with_tensor("t", 20, 2, big), VIV_NEVER, "IQ4_NL");
  refuse_as(with_tensor("t", 77, 2, big), VIV_NEVER, "type 77");
}

Test(gguf, tensors_that_share_bytes_are_refused) {
  file f = {0};
  sizes(&f, "llama");
  weights(&f);
  vector(&f, "one", 16);
  /* A second entry with the offset of the first. */
  uint64_t at = f.data.len - 64;
  f.n_tensors++;
  put_text(&f.infos, "two");
  put(&f.infos, 1, 4);
  put(&f.infos, 8, 8);
  put(&f.infos, 0, 4);
  put(&f.infos, at + 32, 8);
  refuse(finish(&f), "overlaps tensor 'one'");
  f = (file){0};
  sizes(&f, "llama");
  weights(&f);
  f.n_tensors++;
  put_text(&f.infos, "two");
  put(&f.infos, 1, 4);
  put(&f.infos, 1, 8);
  put(&f.infos, 0, 4);
  put(&f.infos, 4, 8);
  refuse(finish(&f), "no multiple of 32");
}

static image with_number(const char *name, double x) {
  file f = {0};
  sizes(&f, "llama");
  key(&f, name, F64);
  uint64_t bits;
  memcpy(&bits, &x, 8);
  put(&f.keys, bits, 8);
  weights(&f);
  return finish(&f);
}

Test(gguf, senseless_metadata_is_refused_by_its_key) {
  refuse(with_number("general.alignment", 33), "general.alignment");
  refuse(with_number("general.alignment", 0), "power of two");
  refuse(with_number("llama.rope.scale_linear", NAN), "finite");
  refuse_as(with_number("llama.expert_count", 8), VIV_NEVER, "llama.expert_count");
  file f = {0};
  key_text(&f, "general.architecture", "llama");
  weights(&f);
  refuse(finish(&f), "llama.embedding_length");
  f = (file){0};
  sizes(&f, "gemma");
  refuse_as(finish(&f), VIV_NEVER, "gemma");
  f = (file){0};
  weights(&f);
  refuse(finish(&f), "general.architecture");
  f = (file){0};
  sizes(&f, "llama");
  refuse(finish(&f), "token_embd.weight");
  f = (file){0};
  sizes(&f, "llama");
  key_text(&f, "llama.rope.scaling.type", "mystery");
  weights(&f);
  refuse_as(finish(&f), VIV_NEVER, "rope.scaling.type");
}

static void refuse_tokenizer(void (*make)(file *f), const char *words) {
  file f = {0};
  viv_error e = VIV_ERROR_INIT;
  sizes(&f, "llama");
  make(&f);
  weights(&f);
  image m = finish(&f);
  viv__gguf *g = take(m);
  cr_assert_null(tokenizer(g, &e));
  cr_assert(strstr(e.message, words) || strstr(e.where, words), "'%s: %s' lacks '%s'", e.where,
            e.message, words);
  scrap(m, g);
}

static void no_tokenizer(file *f) {
  (void)f;
}
static void wordpiece(file *f) {
  key_text(f, "tokenizer.ggml.model", "bert");
}
static void no_merges(file *f) {
  static const char *const texts[] = {"a"};
  key_text(f, "tokenizer.ggml.model", "gpt2");
  key_texts(f, "tokenizer.ggml.tokens", texts, 1);
}
static void numbers_for_tokens(file *f) {
  key_text(f, "tokenizer.ggml.model", "gpt2");
  key_array(f, "tokenizer.ggml.tokens", U32, 1);
  put(&f->keys, 5, 4);
}
static void few_types(file *f) {
  static const char *const texts[] = {"a", "b"};
  key_text(f, "tokenizer.ggml.model", "gpt2");
  key_texts(f, "tokenizer.ggml.tokens", texts, 2);
  key_array(f, "tokenizer.ggml.token_type", I32, 1);
  put(&f->keys, 1, 4);
}
static void not_utf8(file *f) {
  static const char *const texts[] = {"a", "\xff\xfe"};
  key_text(f, "tokenizer.ggml.model", "gpt2");
  key_texts(f, "tokenizer.ggml.tokens", texts, 2);
}
static void no_scores(file *f) {
  static const char *const texts[] = {"a", "b"};
  key_text(f, "tokenizer.ggml.model", "llama");
  key_texts(f, "tokenizer.ggml.tokens", texts, 2);
}
static void one_sided_merge(file *f) {
  static const char *const texts[] = {"a", "b"}, *const merges[] = {"ab"};
  key_text(f, "tokenizer.ggml.model", "gpt2");
  key_texts(f, "tokenizer.ggml.tokens", texts, 2);
  key_texts(f, "tokenizer.ggml.merges", merges, 1);
}

Test(gguf, damaged_tokenizers_are_refused_with_the_key) {
  refuse_tokenizer(no_tokenizer, "no tokenizer");
  refuse_tokenizer(wordpiece, "bert");
  refuse_tokenizer(no_merges, "tokenizer.ggml.merges");
  refuse_tokenizer(numbers_for_tokens, "list of strings");
  refuse_tokenizer(few_types, "tokenizer.ggml.token_type");
  refuse_tokenizer(not_utf8, "token 1 is not UTF-8");
  refuse_tokenizer(no_scores, "needs scores");
  refuse_tokenizer(one_sided_merge, "merge 0");
}

Test(gguf, no_allocation_that_fails_leaks_or_crashes) {
  image m = small_llama();
  for (long k = 1; k < 200; k++) {
    viv__gguf *g = NULL;
    viv_error e = VIV_ERROR_INIT;
    viv__fail_alloc(k);
    int32_t status = viv__gguf_parse(m.data, m.len, "x.gguf", &g, &e);
    viv__fail_alloc(0);
    if (status >= 0) {
      cr_assert_gt(k, 5);
      scrap(m, g);
      return;
    }
    cr_assert_eq(status, VIV_NOT_NOW, "%s", e.message);
  }
  cr_assert_fail("opening never succeeded");
}
