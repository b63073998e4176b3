/* GGUF metadata to what config.json would say, for the Llama family.
 *
 * A file's architecture "llama" stands for Llama and Mistral, "qwen2" and "phi3" for themselves. A
 * llama file's rows of attn_q and attn_k lie as interleaved rotary pairs (2i, 2i+1); the others keep
 * the official halves (i, i + R/2). Nothing is copied: "rope_interleaved" tells the plugin.
 *
 * Ranges are checked by the plugin, which reads these keys like any config.json; here only what
 * would be lost on the way is checked: types, and what the format can say but config.json can't. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/gguf.h"

enum { MAX_FACTORS = 4096 }; /* rotary factors of a file */

typedef struct make {
  const viv__gguf *g;
  viv__buf *out;
  viv_error *error;
  int32_t status;
  char arch[32];
  char key[96]; /* the last key that was looked up */
} make;

static void refuse(make *m, int32_t code, const char *text) {
  char where[VIV__PLACE];
  if (m->status < 0) return;
  m->status = VIV_FAIL(m->error, code, viv__gguf_place(where, m->g, m->key), "%s", text);
}

static const viv__gguf_value *get(make *m, const char *suffix) {
  snprintf(m->key, sizeof m->key, "%s.%s", m->arch, suffix);
  return viv__gguf_get(m->g, m->key);
}

/* A number of the architecture; false: absent. */
static bool number(make *m, const char *suffix, double *out) {
  const viv__gguf_value *v = get(m, suffix);
  if (!v) return false;
  if (v->type == GGUF_ARRAY) {
    refuse(m, VIV_NEVER, "one number is expected; a list, one per layer, can't be read here");
    return false;
  }
  if (!viv__gguf_number(v, out) || !isfinite(*out)) {
    refuse(m, VIV_BAD_INPUT, "a finite number is expected");
    return false;
  }
  return true;
}

/* The shortest digits that give the same float: what was a decimal number becomes one again. */
static void put_number(viv__buf *b, double x) {
  char text[40];
  for (int digits = 1; digits <= 9; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, x);
    if (strtof(text, NULL) == (float)x) break;
  }
  if (x == floor(x) && fabs(x) < 1e15) snprintf(text, sizeof text, "%.0f", x);
  viv__buf_str(b, text);
}

static void put(make *m, const char *key, double x) {
  viv__buf_fmt(m->out, ",\"%s\":", key);
  put_number(m->out, x);
}

static void put_flag(make *m, const char *key, bool x) {
  viv__buf_fmt(m->out, ",\"%s\":%s", key, x ? "true" : "false");
}

/* Copies a number under its official name. */
static void copy(make *m, const char *suffix, const char *key, bool needed) {
  double x = 0;
  if (number(m, suffix, &x))
    put(m, key, x);
  else if (needed)
    refuse(m, VIV_BAD_INPUT, "the key is missing");
}

/* ---- rotary embeddings ---- */

/* A tensor of factors as a list. */
static void put_factors(make *m, const char *key, const char *name) {
  const viv__gguf_tensor *t = viv__gguf_find_raw(m->g, name);
  snprintf(m->key, sizeof m->key, "tensor %s", name);
  if (!t || t->dtype != VIV_F32 || t->ndim != 1 || t->shape[0] > MAX_FACTORS) {
    refuse(m, VIV_BAD_INPUT, "a vector of at most 4096 F32 rotary factors is expected");
    return;
  }
  viv__buf_fmt(m->out, ",\"%s\":[", key);
  for (int64_t i = 0; i < t->shape[0]; i++) {
    float x;
    memcpy(&x, t->data + 4 * i, sizeof x);
    if (!isfinite(x)) refuse(m, VIV_BAD_INPUT, "a rotary factor is not finite");
    if (i) viv__buf_str(m->out, ",");
    put_number(m->out, (double)x);
  }
  viv__buf_str(m->out, "]");
}

/* Factors per pair. Llama 3.1 files hold one set, which is good for every length: the official
 * llama3 parameters are already in it. Phi-3's have two, of which the length chooses. */
static void put_longrope(make *m, double context) {
  double x = 0;
  bool two = viv__gguf_find_raw(m->g, "rope_factors_long.weight");
  viv__buf_str(m->out, ",\"rope_scaling\":{\"rope_type\":\"longrope\"");
  put_factors(m, "long_factor", two ? "rope_factors_long.weight" : "rope_freqs.weight");
  put_factors(m, "short_factor", two ? "rope_factors_short.weight" : "rope_freqs.weight");
  if (two && number(m, "rope.scaling.original_context_length", &x))
    put(m, "original_max_position_embeddings", x);
  if (!two)
    put(m, "attention_factor", 1);
  else if (number(m, "rope.scaling.attn_factor", &x))
    put(m, "attention_factor", x);
  if (!two) put(m, "original_max_position_embeddings", context);
  viv__buf_str(m->out, "}");
}

static void put_scaling(make *m, double context) {
  double factor = 0, x = 0;
  if (viv__gguf_find_raw(m->g, "rope_freqs.weight") ||
      viv__gguf_find_raw(m->g, "rope_factors_long.weight")) {
    put_longrope(m, context);
    return;
  }
  bool old = number(m, "rope.scale_linear", &factor);
  const viv__gguf_value *v = get(m, "rope.scaling.type");
  viv_str type = viv__gguf_string(v);
  if (v && !type.ptr) refuse(m, VIV_BAD_INPUT, "a string is expected");
  if ((!v && !old) || viv__str_eq(type, "none")) return;
  bool linear = !v || viv__str_eq(type, "linear"), yarn = viv__str_eq(type, "yarn");
  if (!linear && !yarn) {
    refuse(m, VIV_NEVER, "rope scaling other than none, linear, yarn and factors per pair");
    return;
  }
  if (!number(m, "rope.scaling.factor", &factor) && !old) {
    refuse(m, VIV_BAD_INPUT, "the key is missing");
    return;
  }
  viv__buf_fmt(m->out, ",\"rope_scaling\":{\"rope_type\":\"%s\"", linear ? "linear" : "yarn");
  put(m, "factor", factor);
  if (yarn) {
    if (number(m, "rope.scaling.original_context_length", &x))
      put(m, "original_max_position_embeddings", x);
    /* The format's factor multiplies yarn's own temperature, config.json's replaces it. */
    if (number(m, "rope.scaling.attn_factor", &x))
      put(m, "attention_factor", x * (factor > 1 ? 1 + 0.1 * log(factor) : 1));
    if (number(m, "rope.scaling.yarn_beta_fast", &x)) put(m, "beta_fast", x);
    if (number(m, "rope.scaling.yarn_beta_slow", &x)) put(m, "beta_slow", x);
  }
  viv__buf_str(m->out, "}");
}

static void put_rope(make *m, double width, double heads, double context) {
  double head = heads > 0 ? floor(width / heads) : 0, value = 0, rotary = 0;
  if (number(m, "attention.key_length", &head)) {
    put(m, "head_dim", head);
    if (number(m, "attention.value_length", &value) && value != head)
      refuse(m, VIV_NEVER, "values of another length than keys can't be read here");
  }
  copy(m, "rope.freq_base", "rope_theta", false);
  if (number(m, "rope.dimension_count", &rotary) && head > 0 && rotary != head) {
    if (!(rotary > 0 && rotary < head))
      refuse(m, VIV_BAD_INPUT, "more dimensions would be rotated than a head has");
    /* 17 digits, so that the number of dimensions comes back. */
    viv__buf_fmt(m->out, ",\"partial_rotary_factor\":%.17g", rotary / head);
  }
  put_scaling(m, context);
}

/* ---- tokens that open and end a text ---- */

/* A token's id from the tokenizer's part of the metadata; -1: none. */
static double token_id(const viv__gguf *g, const char *which) {
  char key[64];
  double id = -1;
  snprintf(key, sizeof key, "tokenizer.ggml.%s_token_id", which);
  if (!viv__gguf_number(viv__gguf_get(g, key), &id) || !(id >= 0 && id < (1 << 28))) return -1;
  return id;
}

/* A text ends at any of the end of text, of a turn and of a message. */
static void put_tokens(make *m) {
  static const char *const ends[] = {"eos", "eot", "eom"};
  double bos = token_id(m->g, "bos"), pad = token_id(m->g, "padding"), seen[3];
  int n = 0;
  if (bos >= 0) put(m, "bos_token_id", bos);
  if (pad >= 0) put(m, "pad_token_id", pad);
  for (int i = 0; i < 3; i++) {
    double id = token_id(m->g, ends[i]);
    bool known = id < 0;
    for (int k = 0; k < n; k++) known |= seen[k] == id;
    if (!known) seen[n++] = id;
  }
  for (int i = 0; i < n; i++)
    viv__buf_fmt(m->out, "%s%.0f",
                 i       ? ","
                 : n > 1 ? ",\"eos_token_id\":["
                         : ",\"eos_token_id\":",
                 seen[i]);
  if (n > 1) viv__buf_str(m->out, "]");
}

/* ---- the whole ---- */

static bool has(const make *m, const char *tensor) {
  return viv__gguf_find_raw(m->g, tensor) != NULL;
}

static const struct {
  const char *arch, *model_type, *class;
} families[] = {{"llama", "llama", "LlamaForCausalLM"},
                {"llama", "mistral", "MistralForCausalLM"}, /* with a sliding window */
                {"qwen2", "qwen2", "Qwen2ForCausalLM"},
                {"phi3", "phi3", "Phi3ForCausalLM"}};

static int32_t find_family(make *m, size_t *family) {
  double window = 0;
  viv_str arch = viv__gguf_string(viv__gguf_get(m->g, "general.architecture"));
  snprintf(m->key, sizeof m->key, "general.architecture");
  if (!arch.ptr || !arch.len || arch.len >= sizeof m->arch) {
    refuse(m, VIV_BAD_INPUT, "the name of an architecture is expected");
    return m->status;
  }
  for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
    if (!viv__str_eq(arch, families[i].arch)) continue;
    memcpy(m->arch, arch.ptr, arch.len);
    bool mistral = *m->arch == 'l' && number(m, "attention.sliding_window", &window) && window > 0;
    *family = i + mistral;
    return m->status;
  }
  char where[VIV__PLACE], shown[VIV__SHOWN];
  return m->status = VIV_FAIL(
             m->error, VIV_NEVER, viv__gguf_place(where, m->g, "general.architecture"),
             "the architecture '%s' has no mapping to an official configuration; llama, qwen2 and "
             "phi3 have",
             viv__shown(shown, arch));
}

int32_t viv__gguf_config(const viv__gguf *g, viv__buf *out, viv_error *error) {
  make m = {.g = g, .out = out, .error = error};
  size_t family = 0;
  double x = 0, width = 0, heads = 0, context = 0;
  if (find_family(&m, &family) < 0) return m.status;
  const char *type = families[family].model_type;
  bool llama = !strcmp(m.arch, "llama");
  if (number(&m, "expert_count", &x) && x > 0)
    refuse(&m, VIV_NEVER, "mixtures of experts can't be read from GGUF here");

  viv__buf_fmt(out, "{\"architectures\":[\"%s\"],\"model_type\":\"%s\"", families[family].class,
               type);
  copy(&m, "embedding_length", "hidden_size", true);
  copy(&m, "feed_forward_length", "intermediate_size", true);
  copy(&m, "block_count", "num_hidden_layers", true);
  copy(&m, "attention.head_count", "num_attention_heads", true);
  copy(&m, "attention.head_count_kv", "num_key_value_heads", false);
  copy(&m, "context_length", "max_position_embeddings", true);
  copy(&m, "attention.layer_norm_rms_epsilon", "rms_norm_eps", true);
  const viv__gguf_tensor *embedding = viv__gguf_find_raw(g, "token_embd.weight");
  snprintf(m.key, sizeof m.key, "tensor token_embd.weight");
  if (!embedding || embedding->ndim != 2)
    refuse(&m, VIV_BAD_INPUT, "a matrix of one row per token is expected");
  else
    put(&m, "vocab_size", (double)embedding->shape[0]);
  put_flag(&m, "tie_word_embeddings", !has(&m, "output.weight"));
  put_flag(&m, "attention_bias", llama && has(&m, "blk.0.attn_q.bias"));
  put_flag(&m, "mlp_bias", llama && has(&m, "blk.0.ffn_gate.bias"));
  viv__buf_str(out, ",\"hidden_act\":\"silu\"");
  if (number(&m, "attention.sliding_window", &x) && x > 0) put(&m, "sliding_window", x);

  number(&m, "embedding_length", &width);
  number(&m, "attention.head_count", &heads);
  number(&m, "context_length", &context);
  put_rope(&m, width, heads, context);
  put_flag(&m, "rope_interleaved", llama);
  put_tokens(&m);
  viv__buf_str(out, "}");
  return m.status;
}
