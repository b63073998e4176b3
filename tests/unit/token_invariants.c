/* The invariants a to k of vivarium/token_model.h, and what stands beside them (refusals change
 * nothing, memory runs out in good order, damaged snapshots are told apart), on every token-model
 * plugin: each on tiny random checkpoints that the test writes itself. Those whose capability is
 * missing are left out; what a plugin calls STRICT is compared to the bit.
 *
 * The plugins are taken from $VIV_TEST_PLUGINS, "build/plugins" by default. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "vivarium/token_model.h"

/* ---- tiny checkpoints ---- */

struct maker {
  viv_str name[256];
  viv_tensor tensor[256];
  int64_t n;
  uint64_t seed;
};

static float uniform(struct maker *m) { /* -1 to 1 */
  m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
  return (float)((double)(m->seed >> 40) / (double)(1 << 23) - 1.0);
}

/* A tensor of values around `middle`; cols 0 makes it one-dimensional. */
static void make(struct maker *m, float middle, float spread, int64_t rows, int64_t cols,
                 const char *format, ...) __attribute__((format(printf, 6, 7)));
static void make(struct maker *m, float middle, float spread, int64_t rows, int64_t cols,
                 const char *format, ...) {
  char name[128];
  va_list args;
  va_start(args, format);
  vsnprintf(name, sizeof name, format, args);
  va_end(args);
  int64_t n = rows * (cols ? cols : 1);
  float *x = malloc((size_t)n * sizeof *x);
  for (int64_t i = 0; i < n; i++) x[i] = middle + spread * uniform(m);
  m->name[m->n] = viv__str(strdup(name));
  m->tensor[m->n++] = (viv_tensor){.struct_size = sizeof(viv_tensor),
                                   .data = x,
                                   .bytes = (uint64_t)n * sizeof *x,
                                   .dtype = VIV_F32,
                                   .ndim = cols ? 2 : 1,
                                   .shape = {rows, cols}};
}
static void matrix(struct maker *m, const char *prefix, const char *name, int64_t rows,
                   int64_t cols) {
  make(m, 0, 2 / sqrtf((float)cols), rows, cols, "%s%s", prefix, name);
}

struct family {
  const char *label, *plugin, *config;
  void (*weights)(struct maker *m, const struct family *f);
  int64_t d, ff, q, kv, vocab, layers;
  bool bias, fused, tied;
  int64_t limit; /* tokens that the tests may use in one sequence */
};

static void llama_weights(struct maker *m, const struct family *f) {
  make(m, 0, 1, f->vocab, f->d, "model.embed_tokens.weight");
  make(m, 1, 0.3f, f->d, 0, "model.norm.weight");
  if (!f->tied) matrix(m, "", "lm_head.weight", f->vocab, f->d);
  for (int64_t i = 0; i < f->layers; i++) {
    char p[64];
    snprintf(p, sizeof p, "model.layers.%d.", (int)i);
    make(m, 1, 0.3f, f->d, 0, "%sinput_layernorm.weight", p);
    make(m, 1, 0.3f, f->d, 0, "%spost_attention_layernorm.weight", p);
    if (f->fused) {
      matrix(m, p, "self_attn.qkv_proj.weight", f->q + 2 * f->kv, f->d);
      matrix(m, p, "mlp.gate_up_proj.weight", 2 * f->ff, f->d);
    } else {
      matrix(m, p, "self_attn.q_proj.weight", f->q, f->d);
      matrix(m, p, "self_attn.k_proj.weight", f->kv, f->d);
      matrix(m, p, "self_attn.v_proj.weight", f->kv, f->d);
      matrix(m, p, "mlp.gate_proj.weight", f->ff, f->d);
      matrix(m, p, "mlp.up_proj.weight", f->ff, f->d);
    }
    if (f->bias) {
      make(m, 0, 0.3f, f->q, 0, "%sself_attn.q_proj.bias", p);
      make(m, 0, 0.3f, f->kv, 0, "%sself_attn.k_proj.bias", p);
      make(m, 0, 0.3f, f->kv, 0, "%sself_attn.v_proj.bias", p);
    }
    matrix(m, p, "self_attn.o_proj.weight", f->d, f->q);
    matrix(m, p, "mlp.down_proj.weight", f->d, f->ff);
  }
}

static void sambay_weights(struct maker *m, const struct family *f) {
  enum { N = 4, K = 4 };
  int64_t d = f->d, d_in = 2 * d, R = (d + 15) / 16, half = f->layers / 2;
  make(m, 0, 1, f->vocab, d, "model.embed_tokens.weight");
  make(m, 1, 0.3f, d, 0, "model.final_layernorm.weight");
  make(m, 0, 0.3f, d, 0, "model.final_layernorm.bias");
  for (int64_t i = 0; i < f->layers; i++) {
    char p[64];
    snprintf(p, sizeof p, "model.layers.%d.", (int)i);
    make(m, 1, 0.3f, d, 0, "%sinput_layernorm.weight", p);
    make(m, 0, 0.3f, d, 0, "%sinput_layernorm.bias", p);
    make(m, 1, 0.3f, d, 0, "%spost_attention_layernorm.weight", p);
    make(m, 0, 0.3f, d, 0, "%spost_attention_layernorm.bias", p);
    matrix(m, p, "mlp.fc1.weight", 2 * f->ff, d);
    matrix(m, p, "mlp.fc2.weight", d, f->ff);
    if (i % 2 == 0 && i <= half) {
      matrix(m, p, "attn.in_proj.weight", 2 * d_in, d);
      make(m, 0, 0.7f, d_in, K, "%sattn.conv1d.weight", p);
      viv_tensor *conv = &m->tensor[m->n - 1]; /* the file says [d_in, 1, K] */
      conv->ndim = 3;
      conv->shape[1] = 1;
      conv->shape[2] = K;
      make(m, 0, 0.3f, d_in, 0, "%sattn.conv1d.bias", p);
      matrix(m, p, "attn.x_proj.weight", R + 2 * N, d_in);
      matrix(m, p, "attn.dt_proj.weight", d_in, R);
      make(m, -2, 1, d_in, 0, "%sattn.dt_proj.bias", p);
      make(m, 0.5f, 0.5f, d_in, N, "%sattn.A_log", p);
      make(m, 1, 0.3f, d_in, 0, "%sattn.D", p);
      matrix(m, p, "attn.out_proj.weight", d, d_in);
    } else if (i % 2 == 0) {
      matrix(m, p, "attn.in_proj.weight", d_in, d);
      matrix(m, p, "attn.out_proj.weight", d, d_in);
    } else {
      int64_t rows = i > half + 1 ? f->q : f->q + 2 * f->kv, D = 4;
      matrix(m, p, "attn.Wqkv.weight", rows, d);
      make(m, 0, 0.3f, rows, 0, "%sattn.Wqkv.bias", p);
      matrix(m, p, "attn.out_proj.weight", d, f->q);
      make(m, 0, 0.3f, d, 0, "%sattn.out_proj.bias", p);
      for (int k = 1; k <= 2; k++) {
        make(m, 0, 0.3f, D, 0, "%sattn.inner_cross_attn.lambda_q%d", p, k);
        make(m, 0, 0.3f, D, 0, "%sattn.inner_cross_attn.lambda_k%d", p, k);
      }
      make(m, 1, 0.3f, 2 * D, 0, "%sattn.inner_cross_attn.subln.weight", p);
    }
  }
}

#define SIZES                                                                                      \
  "\"hidden_size\": 24, \"intermediate_size\": 20, \"num_hidden_layers\": 3, "                     \
  "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 61, "

static const struct family families[] = {
    {"llama", "llama",
     "{\"model_type\": \"llama\", " SIZES
     "\"max_position_embeddings\": 256, \"tie_word_embeddings\": true}",
     llama_weights, 24, 20, 24, 12, 61, 3, false, false, true, 200},
    {"qwen2", "llama",
     "{\"model_type\": \"qwen2\", " SIZES
     "\"max_position_embeddings\": 256, \"use_sliding_window\": true, \"sliding_window\": 5, "
     "\"max_window_layers\": 1, \"tie_word_embeddings\": false}",
     llama_weights, 24, 20, 24, 12, 61, 3, true, false, false, 200},
    {"mistral, dropping old keys", "llama",
     "{\"model_type\": \"mistral\", " SIZES
     "\"max_position_embeddings\": 2048, \"sliding_window\": 6, \"tie_word_embeddings\": false}",
     llama_weights, 24, 20, 24, 12, 61, 3, false, false, false, 200},
    {"phi3, longrope", "llama",
     "{\"model_type\": \"phi3\", " SIZES
     "\"max_position_embeddings\": 256, \"original_max_position_embeddings\": 60, "
     "\"partial_rotary_factor\": 0.67, \"rope_scaling\": {\"type\": \"longrope\", "
     "\"short_factor\": [1.0, 1.5], \"long_factor\": [1.0, 6.0]}, \"tie_word_embeddings\": true}",
     llama_weights, 24, 20, 24, 12, 61, 3, false, true, true, 58},
    {"sambay", "sambay",
     "{\"model_type\": \"phi4flash\", \"hidden_size\": 24, "
     "\"intermediate_size\": 20, \"num_hidden_layers\": 8, \"num_attention_heads\": 6, "
     "\"num_key_value_heads\": 2, \"vocab_size\": 61, \"sliding_window\": 7, "
     "\"max_position_embeddings\": 256}",
     sambay_weights, 24, 20, 24, 8, 61, 8, false, false, true, 200},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* ---- a host that is just large enough ---- */

struct bench {
  viv_host host;
  viv_error error;
  const struct family *family;
  const viv_compute *compute;
  viv_checkpoint *checkpoint;
  viv_arena *arena, *scratch;
  const viv_model_api *model_api;
  const viv_token_api *api;
  viv_plugin_model *model;
  viv_token_info info;
  viv_model_source source;
};

static const void *get_extension(void *self, viv_str id) {
  struct bench *b = self;
  return viv__str_eq(id, VIV_COMPUTE_ID) ? b->compute : NULL;
}
static void drop_log(void *self, int32_t level, viv_str text) {
  (void)self, (void)level, (void)text;
}
static int32_t any_thread(void *self, int32_t thread) {
  (void)self, (void)thread;
  return 1;
}

#define OK(b, call)                                                                                \
  do {                                                                                             \
    int32_t rc_ = (call);                                                                          \
    cr_assert(rc_ >= 0, "%s: %s answered %d: %s: %s", (b)->family->label, #call, (int)rc_,         \
              (b)->error.where, (b)->error.message);                                               \
  } while (0)
#define SAYS(b, code, call, part)                                                                  \
  do {                                                                                             \
    int32_t rc_ = (call);                                                                          \
    cr_assert(rc_ == (code) && strstr((b)->error.message, part), "%s: %s answered %d: %s",         \
              (b)->family->label, #call, (int)rc_, (b)->error.message);                            \
  } while (0)

/* Writes a family's checkpoint into a fresh folder; change (may be NULL) spoils it first. */
static void write_checkpoint(const struct family *f, const char *config, char folder[64],
                             void (*change)(struct maker *)) {
  struct maker *m = calloc(1, sizeof *m);
  viv_error error = VIV_ERROR_INIT;
  char path[128];
  m->seed = 0x5eed + (uint64_t)(f - families);
  f->weights(m, f);
  if (change) change(m);
  strcpy(folder, "/tmp/viv-token-XXXXXX");
  cr_assert(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  cr_assert(viv__safetensors_write(path, m->name, m->tensor, m->n, &error) == VIV_OK, "%s",
            error.message);
  snprintf(path, sizeof path, "%s/config.json", folder);
  cr_assert(viv__write_file(path, config, strlen(config), &error) == VIV_OK, "%s", error.message);
  for (int64_t i = 0; i < m->n; i++) {
    free(m->tensor[i].data);
    free((void *)(uintptr_t)m->name[i].ptr);
  }
  free(m);
}

static void remove_checkpoint(const char *folder) {
  char path[128];
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/config.json", folder);
  unlink(path);
  rmdir(folder);
}

/* Everything up to a call of open; the folder may be removed at once, the files stay mapped. */
static void prepare(struct bench *b, const struct family *f, const char *config, uint64_t limit,
                    void (*change)(struct maker *)) {
  memset(b, 0, sizeof *b);
  b->error.struct_size = sizeof b->error;
  b->family = f;
  b->host = (viv_host){.struct_size = sizeof b->host,
                       .abi_major = VIV_ABI_MAJOR,
                       .abi_minor = VIV_ABI_MINOR,
                       .abi_oldest_major = VIV_ABI_MAJOR,
                       .self = b,
                       .get_extension = get_extension,
                       .log = drop_log,
                       .thread_check = any_thread,
                       .arena_alloc = viv__arena_alloc,
                       .json_member = viv__json_member,
                       .json_item = viv__json_item,
                       .json_type = viv__json_type,
                       .json_count = viv__json_count,
                       .json_number = viv__json_number,
                       .json_boolean = viv__json_boolean,
                       .json_string = viv__json_string,
                       .json_key = viv__json_key,
                       .tensor_find = viv__tensor_find,
                       .tensor_count = viv__tensor_count,
                       .tensor_at = viv__tensor_at,
                       .checkpoint_file = viv__checkpoint_file};
  char folder[64], path[512];
  write_checkpoint(f, config ? config : f->config, folder, change);
  OK(b, viv__checkpoint_open(folder, &b->checkpoint, &b->error));
  remove_checkpoint(folder);
  OK(b, viv__compute_new(2, VIV__ISA_AUTO, &b->compute, &b->error));

  const char *plugins = getenv("VIV_TEST_PLUGINS");
  snprintf(path, sizeof path, "%s/%s.so", plugins ? plugins : "build/plugins", f->plugin);
  if (!strchr(path, '/')) snprintf(path, sizeof path, "./%s.so", f->plugin);
  void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  cr_assert(so, "%s", dlerror());
  viv_plugin_entry_fn entry;
  *(void **)&entry = dlsym(so, "viv_plugin_entry");
  const viv_plugin *plugin = entry(&b->host, &b->error);
  cr_assert(plugin, "%s", b->error.message);
  b->model_api = plugin->get_interface(viv__str(VIV_MODEL_ID));
  b->api = plugin->get_interface(viv__str(VIV_TOKEN_MODEL_ID));
  b->arena = viv__arena_new(limit);
  b->scratch = viv__arena_new(0);
  b->source = (viv_model_source){.struct_size = sizeof b->source,
                                 .name = viv__str(f->label),
                                 .config = viv__checkpoint_config(b->checkpoint),
                                 .checkpoint = b->checkpoint,
                                 .arena = b->arena};
}

static void start(struct bench *b, const struct family *f) {
  prepare(b, f, NULL, 0, NULL);
  OK(b, b->model_api->open(&b->host, &b->source, &b->model, &b->error));
  b->info.struct_size = sizeof b->info;
  OK(b, b->api->info(b->model, &b->info));
}

static void stop(struct bench *b) {
  if (b->model) b->model_api->close(b->model);
  viv__arena_free(b->arena);
  viv__arena_free(b->scratch);
  viv__compute_free(b->compute);
  viv__checkpoint_close(b->checkpoint);
}

static bool can(const struct bench *b, uint32_t cap) {
  return (b->info.caps & cap) == cap;
}

#define EACH_FAMILY(b)                                                                             \
  for (int i_ = 0; i_ < N_FAMILIES && (start(&(b), &families[i_]), true); i_++, stop(&(b)))

/* ---- batches ---- */

enum { MAX_ROWS = 128 };

static int32_t open_seq(struct bench *b) {
  int32_t seq;
  OK(b, b->api->seq_open(b->model, &seq, &b->error));
  return seq;
}

static int32_t *tokens_of(uint64_t seed, int32_t n) { /* the same for the same seed */
  int32_t *t = malloc((size_t)n * sizeof *t);
  for (int32_t i = 0; i < n; i++) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    t[i] = (int32_t)((seed >> 33) % 61);
  }
  return t;
}

/* A plain batch of one sequence; the caller changes fields and gives it to rows_of. */
static viv_batch plain(int32_t seq, const int32_t *tokens, int32_t n) {
  static int32_t seqs[MAX_ROWS], all[MAX_ROWS];
  for (int32_t i = 0; i < n; i++) {
    seqs[i] = seq;
    all[i] = i;
  }
  return (viv_batch){.struct_size = sizeof(viv_batch),
                     .n_rows = n,
                     .tokens = tokens,
                     .seq = seqs,
                     .logit_rows = all,
                     .n_logit_rows = n};
}

/* Logits of a batch, [n_logit_rows, vocab]; free. hidden may be NULL. */
static float *rows_of(struct bench *b, viv_batch batch, float *hidden) {
  size_t n = (size_t)(batch.n_logit_rows + 1) * (size_t)b->info.vocab_size;
  float *logits = calloc(n, sizeof *logits);
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits, .hidden = hidden};
  batch.scratch = b->scratch;
  OK(b, b->api->eval(b->model, &batch, &out, &b->error));
  viv__arena_reset(b->scratch);
  return logits;
}
static float *feed(struct bench *b, int32_t seq, const int32_t *tokens, int32_t n) {
  return rows_of(b, plain(seq, tokens, n), NULL);
}
static int32_t status_of(struct bench *b, viv_batch batch) {
  static float logits[MAX_ROWS * 61], hidden[MAX_ROWS * 64];
  viv_eval_out out = {.struct_size = sizeof out, .logits = logits, .hidden = hidden};
  batch.scratch = b->scratch;
  int32_t rc = b->api->eval(b->model, &batch, &out, &b->error);
  viv__arena_reset(b->scratch);
  return rc;
}

/* To the bit when the model says STRICT, else to 1e-4 of the largest value. */
static void same(const struct bench *b, const float *x, const float *y, int64_t rows, int64_t width,
                 bool strict, const char *what) {
  float top = 0;
  for (int64_t i = 0; i < rows * width; i++) top = fmaxf(top, fabsf(x[i]));
  cr_assert(top > 0, "%s: %s: all values are 0", b->family->label, what);
  strict = strict && can(b, VIV_CAP_STRICT_ROWS);
  for (int64_t i = 0; i < rows * width; i++) {
    bool equal = strict ? memcmp(&x[i], &y[i], sizeof *x) == 0 : fabsf(x[i] - y[i]) <= 1e-4f * top;
    cr_assert(equal, "%s: %s: row %d, column %d: %.9g and %.9g", b->family->label, what,
              (int)(i / width), (int)(i % width), (double)x[i], (double)y[i]);
  }
}
#define SAME(b, x, y, rows, what) same(b, x, y, rows, (b)->info.vocab_size, true, what)

/* ---- a: rows of one batch == rows one by one ---- */

Test(token_invariants, a_batches_equal_single_rows) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 40 };
    int32_t *t = tokens_of(1, N), V = b.info.vocab_size;
    int32_t one = open_seq(&b), many = open_seq(&b), odd = open_seq(&b);
    float *batch = feed(&b, many, t, N);
    for (int32_t i = 0; i < N; i++) {
      float *row = feed(&b, one, t + i, 1);
      SAME(&b, batch + i * V, row, 1, "single rows");
      free(row);
    }
    /* Chunks of uneven size of which only the last row is wanted. */
    static const int32_t chunk[] = {7, 1, 20, 12};
    for (int32_t i = 0, at = 0; i < 4; at += chunk[i++]) {
      viv_batch p = plain(odd, t + at, chunk[i]);
      int32_t last = chunk[i] - 1;
      p.logit_rows = &last;
      p.n_logit_rows = 1;
      float *row = rows_of(&b, p, NULL);
      SAME(&b, batch + (at + last) * V, row, 1, "chunks");
      free(row);
    }
    free(batch);
    free(t);
  }
}

Test(token_invariants, a_sequences_do_not_meet) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { X = 9, Y = 17, Z = 1 };
    int32_t *x = tokens_of(2, X), *y = tokens_of(3, Y), *z = tokens_of(4, Z);
    int32_t V = b.info.vocab_size;
    float *alone[3] = {feed(&b, open_seq(&b), x, X), feed(&b, open_seq(&b), y, Y),
                       feed(&b, open_seq(&b), z, Z)};
    int32_t seq[3] = {open_seq(&b), open_seq(&b), open_seq(&b)};
    int32_t tokens[X + Y + Z], of[X + Y + Z];
    for (int32_t i = 0; i < X + Y + Z; i++) {
      of[i] = i < X ? seq[0] : i < X + Y ? seq[1] : seq[2];
      tokens[i] = i < X ? x[i] : i < X + Y ? y[i - X] : z[0];
    }
    viv_batch p = plain(0, tokens, X + Y + Z);
    p.seq = of;
    float *joint = rows_of(&b, p, NULL);
    SAME(&b, alone[0], joint, X, "first of three sequences");
    SAME(&b, alone[1], joint + X * V, Y, "second of three sequences");
    SAME(&b, alone[2], joint + (X + Y) * V, Z, "third of three sequences");
    cr_assert(b.api->seq_len(b.model, seq[1]) == Y);
    for (int i = 0; i < 3; i++) free(alone[i]);
    free(joint), free(x), free(y), free(z);
  }
}

/* ---- b: truncate, then the same rows: the same logits ---- */

Test(token_invariants, b_truncate_and_append) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 40, CUT = 27 };
    int32_t *t = tokens_of(5, N), seq = open_seq(&b), V = b.info.vocab_size;
    if (!can(&b, VIV_CAP_TRUNCATE)) goto kept;
    float *first = feed(&b, seq, t, N);
    static const int32_t cuts[] = {N, N - 1, CUT, 3, 0};
    for (int i = 0; i < 5; i++) {
      OK(&b, b.api->seq_truncate(b.model, seq, cuts[i], &b.error));
      cr_assert(b.api->seq_len(b.model, seq) == cuts[i]);
      if (cuts[i] == N) continue;
      float *again = feed(&b, seq, t + cuts[i], N - cuts[i]);
      SAME(&b, first + cuts[i] * V, again, N - cuts[i], "after truncate");
      free(again);
    }
    free(first);
    OK(&b, b.api->seq_truncate(b.model, seq, 0, &b.error));
  kept:
    if (can(&b, VIV_CAP_TRUNCATE_KEPT)) {
      float *prompt = feed(&b, seq, t, 11);
      viv_batch p = plain(seq, t + 11, N - 11);
      p.flags = VIV_BATCH_KEEP_STATES;
      float *whole = rows_of(&b, p, NULL);
      for (int32_t cut = N - 1; cut >= 11; cut -= 9) { /* further and further into one batch */
        OK(&b, b.api->seq_truncate(b.model, seq, cut, &b.error));
        int32_t copy;
        OK(&b, b.api->seq_fork(b.model, seq, &copy, &b.error));
        float *again = feed(&b, copy, t + cut, N - cut);
        SAME(&b, whole + (cut - 11) * V, again, N - cut, "after truncate into a kept batch");
        b.api->seq_close(b.model, copy);
        free(again);
      }
      free(prompt), free(whole);
    }
    free(t);
  }
}

Test(token_invariants, b_what_can_not_go_back_says_so) {
  struct bench b;
  EACH_FAMILY(b) {
    int32_t *t = tokens_of(6, MAX_ROWS), seq = open_seq(&b);
    if (can(&b, VIV_CAP_TRUNCATE)) goto next;
    int32_t steps = b.family->limit > 100 && b.info.context_max >= 2048 ? 6 : 1;
    for (int32_t i = 0; i < steps; i++) free(feed(&b, seq, t, MAX_ROWS));
    free(feed(&b, seq, t, 1));
    int64_t len = b.api->seq_len(b.model, seq);
    SAYS(&b, VIV_NEVER, b.api->seq_truncate(b.model, seq, 5, &b.error), "earlier");
    cr_assert(b.api->seq_len(b.model, seq) == len);
    SAYS(&b, VIV_BAD_INPUT, b.api->seq_truncate(b.model, seq, len + 1, &b.error), "length");
  next:
    free(t);
  }
}

/* ---- c: PARENT with a chain == CAUSAL; so are BITS of a triangle ---- */

Test(token_invariants, c_a_chain_is_causal) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { P = 13, N = 12 };
    int32_t *t = tokens_of(7, P + N), parent[N];
    uint8_t mask[N * N] = {0};
    if (!can(&b, VIV_CAP_TREE_MASK)) goto next;
    for (int32_t i = 0; i < N; i++) {
      parent[i] = i - 1;
      for (int32_t j = 0; j <= i; j++) mask[i * N + j] = 1;
    }
    int32_t seq[3];
    for (int i = 0; i < 3; i++) free(feed(&b, seq[i] = open_seq(&b), t, P));
    float *causal = feed(&b, seq[0], t + P, N);
    viv_batch p = plain(seq[1], t + P, N);
    p.mask_kind = VIV_MASK_PARENT;
    p.parent = parent;
    float *chain = rows_of(&b, p, NULL);
    p = plain(seq[2], t + P, N);
    p.mask_kind = VIV_MASK_BITS;
    p.mask = mask;
    float *bits = rows_of(&b, p, NULL);
    SAME(&b, causal, chain, N, "PARENT with a chain");
    SAME(&b, causal, bits, N, "BITS with a triangle");
    free(causal), free(chain), free(bits);
  next:
    free(t);
  }
}

/* ---- d: gather of a path == having fed that path alone ---- */

Test(token_invariants, d_gathered_path_is_the_path) {
  struct bench b;
  EACH_FAMILY(b) {
    /*  tree: 0 -> 1, 2;  2 -> 3, 4;  4 -> 6;  5 is a second root */
    enum { P = 30, N = 7, PATH = 4 };
    static const int32_t parent[N] = {-1, 0, 0, 2, 2, -1, 4}, path[PATH] = {0, 2, 4, 6};
    int32_t *t = tokens_of(8, P + N), V = b.info.vocab_size, line[PATH];
    if (!can(&b, VIV_CAP_TREE_MASK | VIV_CAP_GATHER)) goto next;
    int32_t tree = open_seq(&b), alone = open_seq(&b);
    free(feed(&b, tree, t, P));
    free(feed(&b, alone, t, P));
    for (int i = 0; i < PATH; i++) line[i] = t[P + path[i]];
    viv_batch p = plain(tree, t + P, N);
    p.mask_kind = VIV_MASK_PARENT;
    p.parent = parent;
    float *rows = rows_of(&b, p, NULL), *straight = feed(&b, alone, line, PATH);
    /* The sums run over other places of the cache, so that the last bits may differ. */
    for (int i = 0; i < PATH; i++)
      same(&b, straight + i * V, rows + path[i] * V, 1, V, false, "rows of a path in a tree");
    OK(&b, b.api->seq_gather(b.model, tree, P, path, PATH, &b.error));
    cr_assert(b.api->seq_len(b.model, tree) == P + PATH);
    float *x = feed(&b, alone, t, 8), *y = feed(&b, tree, t, 8);
    same(&b, x, y, 8, V, false, "rows after gather");
    free(x), free(y), free(rows), free(straight);
    static const int32_t back[2] = {3, 1}, far[1] = {99};
    cr_assert(b.api->seq_gather(b.model, tree, P, back, 2, &b.error) == VIV_BAD_INPUT);
    cr_assert(b.api->seq_gather(b.model, tree, P, far, 1, &b.error) == VIV_BAD_INPUT);
  next:
    free(t);
  }
}

/* ---- e: layers [0, l), then hidden rows through [l, L) == [0, L) ---- */

Test(token_invariants, e_layer_ranges_join) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 14 };
    int32_t *t = tokens_of(9, 2 * N), L = b.info.n_layers, d = b.info.d_model;
    float *hidden = calloc((size_t)(N * d), sizeof *hidden);
    if (!can(&b, VIV_CAP_LAYER_RANGE | VIV_CAP_HIDDEN_IO)) goto next;
    for (int32_t l = 1; l < L; l++) {
      int32_t whole = open_seq(&b), parts = open_seq(&b);
      for (int round = 0; round < 2; round++) {
        float *x = feed(&b, whole, t + round * N, N);
        viv_batch p = plain(parts, t + round * N, N);
        p.layer_end = l;
        p.n_logit_rows = 0;
        p.capture_layers = &l;
        p.n_capture = 1;
        free(rows_of(&b, p, hidden));
        p = plain(parts, NULL, N);
        p.input_kind = VIV_INPUT_HIDDEN;
        p.rows = hidden;
        p.layer_begin = l;
        float *y = rows_of(&b, p, NULL);
        SAME(&b, x, y, N, "two layer ranges");
        free(x), free(y);
      }
      /* A layer that stayed behind is told of, and truncation mends it. */
      viv_batch p = plain(parts, t, 1);
      p.layer_end = l;
      p.n_logit_rows = 0;
      free(rows_of(&b, p, NULL));
      SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(parts, t, 1)), "truncate");
      OK(&b, b.api->seq_truncate(b.model, parts, 2 * N, &b.error));
      float *x = feed(&b, whole, t, 1), *y = feed(&b, parts, t, 1);
      SAME(&b, x, y, 1, "after a half-fed row was cut");
      free(x), free(y);
      b.api->seq_close(b.model, whole);
      b.api->seq_close(b.model, parts);
    }
  next:
    free(hidden);
    free(t);
  }
}

/* ---- f: empty skip sets == none; a skipped layer is left out ---- */

Test(token_invariants, f_skip_sets) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 10 };
    int32_t *t = tokens_of(10, N), V = b.info.vocab_size;
    uint64_t none = 0, mlp = 2, attn = 2;
    if (!can(&b, VIV_CAP_SKIP)) goto next;
    float *x = feed(&b, open_seq(&b), t, N);
    viv_batch p = plain(open_seq(&b), t, N);
    p.skip_attn = p.skip_mlp = &none;
    float *y = rows_of(&b, p, NULL);
    SAME(&b, x, y, N, "empty skip sets");
    p = plain(open_seq(&b), t, N);
    p.skip_mlp = &mlp;
    float *z = rows_of(&b, p, NULL);
    cr_assert(memcmp(x, z, (size_t)(N * V) * sizeof *x), "%s: skip_mlp does nothing",
              b.family->label);
    free(z);
    /* A skipped mixer writes nothing: the layer lags behind until the rows are cut. */
    int32_t seq = open_seq(&b);
    free(feed(&b, seq, t, 6));
    p = plain(seq, t + 6, 2);
    p.skip_attn = &attn;
    p.flags = VIV_BATCH_KEEP_STATES;
    free(rows_of(&b, p, NULL));
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(seq, t + 6, 1)), "truncate");
    OK(&b, b.api->seq_truncate(b.model, seq, 6, &b.error));
    z = feed(&b, seq, t + 6, N - 6);
    SAME(&b, x + 6 * V, z, N - 6, "after a draft with a skipped layer was cut");
    free(x), free(y), free(z);
  next:
    free(t);
  }
}

/* ---- g: EMBED rows from embed(tokens) == TOKENS ---- */

Test(token_invariants, g_embeddings_are_tokens) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 21 };
    int32_t *t = tokens_of(11, N);
    float *e = calloc((size_t)(N * b.info.d_model), sizeof *e);
    if (!can(&b, VIV_CAP_EMBED_IN)) goto next;
    OK(&b, b.api->embed(b.model, t, N, e, &b.error));
    float *x = feed(&b, open_seq(&b), t, N);
    viv_batch p = plain(open_seq(&b), NULL, N);
    p.input_kind = VIV_INPUT_EMBED;
    p.rows = e;
    float *y = rows_of(&b, p, NULL);
    SAME(&b, x, y, N, "EMBED rows");
    free(x), free(y);
    cr_assert(b.api->embed(b.model, (const int32_t[]){61}, 1, e, &b.error) == VIV_BAD_INPUT);
  next:
    free(e);
    free(t);
  }
}

/* ---- h: a fork never sees what is done to the other side ---- */

Test(token_invariants, h_forks_are_apart) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { P = 37, N = 12 };
    int32_t *t = tokens_of(12, P + N), *u = tokens_of(13, N);
    if (!can(&b, VIV_CAP_FORK)) goto next;
    int32_t a = open_seq(&b), c, other = open_seq(&b);
    free(feed(&b, a, t, P));
    free(feed(&b, other, t, P));
    float *want = feed(&b, other, u, N);
    OK(&b, b.api->seq_fork(b.model, a, &c, &b.error));
    free(feed(&b, a, t + P, N)); /* writes the page that both share */
    float *x = feed(&b, c, u, N);
    SAME(&b, want, x, N, "fork after the other side went on");
    int32_t e;
    OK(&b, b.api->seq_fork(b.model, c, &e, &b.error));
    b.api->seq_close(b.model, c);
    cr_assert(b.api->seq_len(b.model, c) == -1);
    b.api->seq_close(b.model, a);
    int32_t again = open_seq(&b); /* takes freed pages */
    free(feed(&b, again, u, N));
    float *y = feed(&b, other, t, N), *z = feed(&b, e, t, N);
    SAME(&b, y, z, N, "fork of a fork after both others were closed");
    free(want), free(x), free(y), free(z);
  next:
    free(t);
    free(u);
  }
}

/* ---- i: REPLACE with identical rows changes nothing; NONE writes nothing ---- */

Test(token_invariants, i_replace_and_none) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { P = 33, N = 9 };
    int32_t *t = tokens_of(14, P + N), *u = tokens_of(15, N), V = b.info.vocab_size, pos[6];
    int32_t a = open_seq(&b), c = open_seq(&b);
    float *prompt = feed(&b, a, t, P);
    free(feed(&b, c, t, P));
    if (can(&b, VIV_CAP_KV_REPLACE)) {
      for (int32_t i = 0; i < 6; i++) pos[i] = P - 8 + i;
      viv_batch p = plain(a, t + P - 8, 6);
      p.kv_write = VIV_KV_REPLACE;
      p.pos = pos;
      float *x = rows_of(&b, p, NULL);
      SAME(&b, prompt + (P - 8) * V, x, 6, "REPLACE rows");
      cr_assert(b.api->seq_len(b.model, a) == P);
      pos[5] = P;
      SAYS(&b, VIV_BAD_INPUT, status_of(&b, p), "replaces");
      free(x);
    }
    if (can(&b, VIV_CAP_KV_NONE)) {
      viv_batch p = plain(a, u, N);
      p.kv_write = VIV_KV_NONE;
      float *x = rows_of(&b, p, NULL), *y = rows_of(&b, p, NULL);
      SAME(&b, x, y, N, "NONE twice");
      cr_assert(b.api->seq_len(b.model, a) == P);
      free(x), free(y);
    }
    float *x = feed(&b, a, t + P, N), *y = feed(&b, c, t + P, N);
    SAME(&b, y, x, N, "after REPLACE and NONE");
    free(x), free(y), free(prompt), free(t), free(u);
  }
}

/* FULL: every row sees all of the batch, appended, passing through, or in place. */
Test(token_invariants, i_full_mask_sees_all) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 11 };
    int32_t *t = tokens_of(16, N), pos[N], V = b.info.vocab_size;
    if (!can(&b, VIV_CAP_BIDIRECTIONAL | VIV_CAP_KV_NONE)) goto next;
    viv_batch p = plain(open_seq(&b), t, N);
    p.mask_kind = VIV_MASK_FULL;
    float *x = rows_of(&b, p, NULL); /* appended */
    p.seq = plain(open_seq(&b), t, N).seq;
    p.kv_write = VIV_KV_NONE;
    float *y = rows_of(&b, p, NULL);
    SAME(&b, x, y, N, "FULL with APPEND and NONE");
    t[N - 1] = (t[N - 1] + 1) % 61;
    float *z = rows_of(&b, p, NULL);
    cr_assert(memcmp(x, z, (size_t)V * sizeof *x), "the first row does not see the last");
    t[N - 1] = (t[N - 1] + 60) % 61;
    for (int32_t i = 0; i < N; i++) pos[i] = i;
    p = plain(0, t, N); /* all rows of the first sequence once more, in place */
    p.mask_kind = VIV_MASK_FULL;
    p.kv_write = VIV_KV_REPLACE;
    p.pos = pos;
    float *w = rows_of(&b, p, NULL);
    SAME(&b, x, w, N, "FULL with REPLACE");
    free(x), free(y), free(z), free(w);
  next:
    free(t);
  }
}

/* ---- k: restore(snapshot(s)) continues as s would ---- */

Test(token_invariants, k_snapshots) {
  struct bench b, other;
  start(&other, &families[N_FAMILIES - 1]);
  EACH_FAMILY(b) {
    enum { P = 45, N = 16 };
    int32_t *t = tokens_of(17, P + N), a = open_seq(&b), V = b.info.vocab_size;
    if (!can(&b, VIV_CAP_SNAPSHOT)) goto next;
    free(feed(&b, a, t, P));
    uint64_t need = 0, bytes = 0;
    OK(&b, b.api->snapshot(b.model, a, NULL, 0, &need, &b.error));
    char *saved = malloc(need);
    OK(&b, b.api->snapshot(b.model, a, saved, need, &bytes, &b.error));
    cr_assert(bytes == need);
    float *want = feed(&b, a, t + P, N);

    struct bench fresh; /* another process would do the same */
    start(&fresh, b.family);
    int32_t s = open_seq(&fresh);
    free(feed(&fresh, s, t, 3)); /* is replaced */
    OK(&fresh, fresh.api->restore(fresh.model, s, saved, need, &fresh.error));
    cr_assert(fresh.api->seq_len(fresh.model, s) == P);

    /* Whatever is damaged is refused and changes nothing. */
    for (uint64_t cut = 0; cut < need; cut += need / 37 + 1)
      cr_assert(fresh.api->restore(fresh.model, s, saved, cut, &fresh.error) == VIV_BAD_INPUT);
    for (uint64_t at = 0; at < need; at += need / 61 + 1) {
      saved[at] ^= 0x10;
      cr_assert(fresh.api->restore(fresh.model, s, saved, need, &fresh.error) == VIV_BAD_INPUT,
                "%s: damage at byte %d of %d", b.family->label, (int)at, (int)need);
      saved[at] ^= 0x10;
    }
    if (b.family != other.family)
      cr_assert(other.api->restore(other.model, open_seq(&other), saved, need, &other.error) ==
                VIV_BAD_INPUT);
    float *x = feed(&fresh, s, t + P, N);
    SAME(&b, want, x, N, "restored in another model");
    stop(&fresh);
    free(x), free(want), free(saved);
  next:
    (void)V;
    free(t);
  }
  stop(&other);
}

/* ---- beside the letters ---- */

/* head() of a captured row == the row's logits; capture shows the residual stream. */
Test(token_invariants, head_of_captured_rows) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { N = 6 };
    int32_t *t = tokens_of(18, N), L = b.info.n_layers, d = b.info.d_model;
    int32_t depth[2] = {0, L};
    float *hidden = calloc((size_t)(2 * N * d), sizeof *hidden);
    float *e = hidden, *last = hidden + N * d;
    float *logits = calloc((size_t)(N * b.info.vocab_size), sizeof *logits);
    if (!can(&b, VIV_CAP_HEAD)) goto next;
    viv_batch p = plain(open_seq(&b), t, N);
    p.capture_layers = depth;
    p.n_capture = 2;
    float *x = rows_of(&b, p, hidden);
    OK(&b, b.api->head(b.model, last, N, 1, b.scratch, logits, &b.error));
    SAME(&b, x, logits, N, "head of captured rows");
    if (can(&b, VIV_CAP_EMBED_IN)) {
      float *want = calloc((size_t)(N * d), sizeof *want);
      OK(&b, b.api->embed(b.model, t, N, want, &b.error));
      same(&b, want, e, N, d, true, "capture after 0 layers");
      free(want);
    }
    free(x);
  next:
    free(hidden), free(logits), free(t);
  }
}

/* Refusals come before any change. */
Test(token_invariants, refusals_change_nothing) {
  struct bench b;
  EACH_FAMILY(b) {
    enum { P = 20, N = 5 };
    int32_t *t = tokens_of(19, P + N), a = open_seq(&b), c = open_seq(&b), V = b.info.vocab_size;
    free(feed(&b, a, t, P));
    free(feed(&b, c, t, P));
    int32_t bad[2] = {1, 61}, mixed[3] = {a, c, a}, three[3] = {1, 2, 3}, down[2] = {1, 0};
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(a, bad, 2)), "vocabulary");
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(77, t, 1)), "sequence 77");
    viv_batch p = plain(a, three, 3);
    p.seq = mixed;
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, p), "next to each other");
    p = plain(a, t, 2);
    p.logit_rows = down;
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, p), "ascend");
    p = plain(a, t, 2);
    p.layer_end = b.info.n_layers + 1;
    cr_assert(status_of(&b, p) < 0);
    p = plain(a, t, 2);
    p.n_rows = 0;
    SAYS(&b, VIV_BAD_INPUT, status_of(&b, p), "rows");
    p = plain(a, t, 2);
    p.n_expert_ranks = 1;
    SAYS(&b, VIV_NEVER, status_of(&b, p), "expert");
    p = plain(a, t, 2);
    p.mask_kind = 9;
    cr_assert(status_of(&b, p) < 0);
    if (!can(&b, VIV_CAP_BIDIRECTIONAL)) {
      p = plain(a, t, 2);
      p.mask_kind = VIV_MASK_FULL;
      cr_assert(status_of(&b, p) == VIV_NEVER);
    }
    /* Past the longest sequence: many at once, so that some rows would still fit. */
    int32_t full = open_seq(&b);
    int64_t len = 0;
    for (; len + MAX_ROWS <= b.info.context_max && len < 256; len += MAX_ROWS) {
      int32_t *many = tokens_of(20, MAX_ROWS);
      p = plain(full, many, MAX_ROWS);
      p.n_logit_rows = 0;
      free(rows_of(&b, p, NULL));
      free(many);
    }
    if (len == b.info.context_max)
      SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(full, t, 1)), "allows");
    float *x = feed(&b, a, t + P, N), *y = feed(&b, c, t + P, N);
    SAME(&b, x, y, N, "after refusals");
    (void)V;
    free(x), free(y), free(t);
  }
}

/* An arena that fills up answers NOT_NOW, and what was there goes on once something is closed. */
Test(token_invariants, memory_runs_out) {
  for (int i = 0; i < N_FAMILIES; i++) {
    struct bench b;
    int32_t seqs[64], n = 0;
    prepare(&b, &families[i], NULL, 400 * 1024, NULL);
    b.info.struct_size = sizeof b.info;
    OK(&b, b.model_api->open(&b.host, &b.source, &b.model, &b.error));
    OK(&b, b.api->info(b.model, &b.info));
    int32_t *t = tokens_of(21, 64), first = open_seq(&b), rc = VIV_OK;
    float *x = feed(&b, first, t, 40);
    while (n < 64 && rc >= 0) {
      rc = b.api->seq_open(b.model, &seqs[n], &b.error);
      if (rc >= 0) n++;
      if (rc >= 0) rc = status_of(&b, plain(seqs[n - 1], t, 60));
    }
    cr_assert(rc == VIV_NOT_NOW, "%s: %d after %d sequences: %s", b.family->label, (int)rc, (int)n,
              b.error.message);
    int64_t len = b.api->seq_len(b.model, first);
    cr_assert(len == 40);
    for (int32_t k = 0; k < n; k++) b.api->seq_close(b.model, seqs[k]);
    int32_t again = open_seq(&b);
    float *y = feed(&b, again, t, 40);
    SAME(&b, x, y, 40, "after the memory was full");
    free(x), free(y), free(t);
    stop(&b);
  }
}

static int32_t stop_at(void *self) {
  return --*(int *)self < 0 ? VIV_CANCELLED : VIV_OK;
}

/* poll is asked between layers, and its answer is the batch's. */
Test(token_invariants, poll_stops_a_batch) {
  struct bench b;
  EACH_FAMILY(b) {
    int32_t *t = tokens_of(22, 8), a = open_seq(&b);
    int left = 2;
    viv_batch p = plain(a, t, 8);
    p.poll = stop_at;
    p.poll_self = &left;
    cr_assert(status_of(&b, p) == VIV_CANCELLED && left == -1);
    b.api->seq_close(b.model, a);
    float *x = feed(&b, open_seq(&b), t, 8), *y = feed(&b, open_seq(&b), t, 8);
    SAME(&b, x, y, 8, "after a batch that was stopped");
    free(x), free(y), free(t);
  }
}

/* A batch from a caller whose struct ends before the later fields. */
Test(token_invariants, older_callers) {
  struct bench b;
  EACH_FAMILY(b) {
    int32_t *t = tokens_of(23, 4);
    viv_batch p = plain(open_seq(&b), t, 4);
    p.poll = (int32_t(*)(void *))(uintptr_t)1; /* beyond the size that is told: never looked at */
    p.struct_size = offsetof(viv_batch, poll);
    p.scratch = b.scratch;
    float logits[4 * 61];
    viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
    OK(&b, b.api->eval(b.model, &p, &out, &b.error));
    free(t);
  }
}

/* longrope: each step equals a full run of its length, past the original length and back. */
Test(token_invariants, longrope_changes_its_set_and_back) {
  struct bench b;
  enum { L0 = 60, N = 75 };
  start(&b, &families[3]);
  int32_t *t = tokens_of(24, N), seq = open_seq(&b), V = b.info.vocab_size;
  free(feed(&b, seq, t, 50));
  for (int32_t len = 51; len <= N; len++) {
    float *step = feed(&b, seq, t + len - 1, 1);
    int32_t fresh = open_seq(&b);
    float *whole = feed(&b, fresh, t, len);
    SAME(&b, whole + (len - 1) * V, step, 1, "a step and a full run");
    b.api->seq_close(b.model, fresh);
    free(step), free(whole);
  }
  OK(&b, b.api->seq_truncate(b.model, seq, 55, &b.error));
  float *step = feed(&b, seq, t + 55, 1), *whole = feed(&b, open_seq(&b), t, 56);
  SAME(&b, whole + 55 * V, step, 1, "back below the original length");
  free(step), free(whole);

  /* A tree is as long as its longest path, however many rows it has. */
  enum { BASE = 54, ROWS = 14 };
  int32_t parent[ROWS] = {-1, 0, 0, 0, 1, 1, 2, 4, 4, -1, 9, 9, 9, 9};
  int32_t tree = open_seq(&b), line = open_seq(&b), path[4] = {t[0], t[1], t[4], t[7]};
  free(feed(&b, tree, t, BASE));
  free(feed(&b, line, t, BASE));
  viv_batch p = plain(tree, t, ROWS);
  p.mask_kind = VIV_MASK_PARENT;
  p.parent = parent;
  step = rows_of(&b, p, NULL);
  whole = feed(&b, line, path, 4);
  same(&b, whole + 3 * V, step + 7 * V, 1, V, false, "a tree just below the original length");
  free(step), free(whole);

  /* Rows that came as embeddings can't be computed again. */
  float *e = calloc((size_t)(58 * b.info.d_model), sizeof *e);
  OK(&b, b.api->embed(b.model, t, 58, e, &b.error));
  seq = open_seq(&b);
  p = plain(seq, NULL, 58);
  p.input_kind = VIV_INPUT_EMBED;
  p.rows = e;
  free(rows_of(&b, p, NULL));
  SAYS(&b, VIV_BAD_INPUT, status_of(&b, plain(seq, t, 5)), "computed again");
  free(e), free(t);
  stop(&b);
}

/* ---- opening ---- */

static void spoil(struct maker *m) {
  free((void *)(uintptr_t)m->name[3].ptr);
  m->name[3] = viv__str(strdup("somewhere.else"));
  viv_tensor *t = &m->tensor[5];
  while (t->ndim != 2 || t->shape[0] == t->shape[1]) t++;
  int64_t rows = t->shape[0];
  t->shape[0] = t->shape[1];
  t->shape[1] = rows;
}

/* All mismatches stand in one error. */
Test(token_invariants, mismatches_are_reported_together) {
  for (int i = 0; i < N_FAMILIES; i++) {
    struct bench b;
    prepare(&b, &families[i], NULL, 0, spoil);
    SAYS(&b, VIV_BAD_INPUT, b.model_api->open(&b.host, &b.source, &b.model, &b.error), "2 tensors");
    cr_assert(
        strstr(b.error.message, "is missing") && strstr(b.error.message, "expected [") &&
            strstr(b.error.message, "; 1 tensor is not part of this architecture: somewhere.else"),
        "%s", b.error.message);
    viv_memory_plan plan = {.struct_size = sizeof plan};
    SAYS(&b, VIV_BAD_INPUT, b.model_api->plan(&b.host, &b.source, &plan, &b.error), "2 tensors");
    b.model = NULL;
    stop(&b);
  }
}

/* A tensor that no table names may be a branch that the plugin does not compute: refused. */
static void add_strangers(struct maker *m) {
  make(m, 0, 1, 4, 4, "model.layers.1.cross_attn.q_proj.weight");
  make(m, 0, 1, 4, 0, "model.layers.1.self_attn.rotary_emb.inv_freq.bias");
}
static void add_many_strangers(struct maker *m) {
  for (int i = 0; i < 40; i++) make(m, 0, 1, 4, 4, "encoder.layers.%d.weight", i);
}

Test(token_invariants, unknown_tensors_are_refused) {
  for (int i = 0; i < N_FAMILIES; i++) {
    struct bench b;
    prepare(&b, &families[i], NULL, 0, add_strangers);
    viv_memory_plan plan = {.struct_size = sizeof plan};
    SAYS(&b, VIV_BAD_INPUT, b.model_api->plan(&b.host, &b.source, &plan, &b.error),
         "2 tensors are not part of this architecture");
    cr_assert(strstr(b.error.message, "model.layers.1.cross_attn.q_proj.weight"));
    cr_assert(strstr(b.error.message, "rotary_emb.inv_freq.bias"));
    SAYS(&b, VIV_BAD_INPUT, b.model_api->open(&b.host, &b.source, &b.model, &b.error),
         "cross_attn");
    b.model = NULL;
    stop(&b);
    prepare(&b, &families[i], NULL, 0, add_many_strangers);
    SAYS(&b, VIV_BAD_INPUT, b.model_api->open(&b.host, &b.source, &b.model, &b.error),
         "40 tensors are not part of this architecture");
    cr_assert(strstr(b.error.message, "encoder.layers.") && strstr(b.error.message, " more"), "%s",
              b.error.message);
    b.model = NULL;
    stop(&b);
  }
}

/* What official releases carry without meaning is no reason to refuse, and changes nothing. */
static void add_copy_of_the_embedding(struct maker *m) {
  int64_t vocab = m->tensor[0].shape[0], d = m->tensor[0].shape[1];
  make(m, 0, 1, vocab, d, "lm_head.weight");
}
static void add_buffers(struct maker *m) {
  make(m, 0, 1, 3, 0, "model.layers.0.self_attn.rotary_emb.inv_freq");
  make(m, 0, 1, 3, 0, "model.layers.1.self_attn.rotary_emb.inv_freq");
}

Test(token_invariants, harmless_tensors_are_accepted) {
  static const struct {
    int family;
    const char *config; /* NULL: the family's */
    void (*add)(struct maker *);
  } cases[] = {
      {0, NULL, add_buffers},
      {1, NULL, add_buffers},
      {0, NULL, add_copy_of_the_embedding}, /* tie_word_embeddings is true */
      {4,
       "{\"model_type\": \"phi4flash\", \"hidden_size\": 24, \"intermediate_size\": 20, "
       "\"num_hidden_layers\": 8, \"num_attention_heads\": 6, \"num_key_value_heads\": 2, "
       "\"vocab_size\": 61, \"sliding_window\": 7, \"max_position_embeddings\": 256, "
       "\"tie_word_embeddings\": true}",
       add_copy_of_the_embedding},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bench b, bare;
    const struct family *f = &families[cases[i].family];
    start(&bare, f);
    prepare(&b, f, cases[i].config, 0, cases[i].add);
    OK(&b, b.model_api->open(&b.host, &b.source, &b.model, &b.error));
    b.info.struct_size = sizeof b.info;
    OK(&b, b.api->info(b.model, &b.info));
    int32_t *t = tokens_of(26, 6);
    float *x = feed(&bare, open_seq(&bare), t, 6), *y = feed(&b, open_seq(&b), t, 6);
    SAME(&b, x, y, 6, "with a tensor that means nothing");
    free(x), free(y), free(t);
    stop(&b);
    stop(&bare);
  }
  /* The buffer of one architecture is a stranger in another. */
  struct bench b;
  prepare(&b, &families[4], NULL, 0, add_buffers);
  SAYS(&b, VIV_BAD_INPUT, b.model_api->open(&b.host, &b.source, &b.model, &b.error),
       "2 tensors are");
  stop(&b);
}

/* A bad configuration is named by its key. */
Test(token_invariants, configurations_are_checked) {
  static const struct {
    int family;
    const char *config, *part;
  } cases[] = {
      {0, "{\"model_type\": \"llama\"}", "hidden_size"},
      {0, "{\"model_type\": \"llama\", " SIZES "\"rms_norm_eps\": \"small\"}", "rms_norm_eps"},
      {0, "{\"model_type\": \"llama\", " SIZES "\"rope_scaling\": {\"type\": \"dynamic\"}}",
       "dynamic"},
      {0, "{\"model_type\": \"llama\", " SIZES "\"head_dim\": 2.5}", "head_dim"},
      {0, "{\"model_type\": \"llama\", " SIZES "\"max_position_embeddings\": -1}",
       "max_position_embeddings"},
      {3,
       "{\"model_type\": \"phi3\", " SIZES
       "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1]}}",
       "long_factor"},
      {4, "{\"model_type\": \"phi4flash\", \"num_hidden_layers\": 6}", "hidden_size"},
      {4,
       "{\"model_type\": \"phi4flash\", \"hidden_size\": 24, \"intermediate_size\": 20, "
       "\"num_hidden_layers\": 6, \"num_attention_heads\": 6, \"num_key_value_heads\": 2, "
       "\"vocab_size\": 61, \"sliding_window\": 7}",
       "num_hidden_layers"},
      {4,
       "{\"model_type\": \"phi4flash\", \"hidden_size\": 24, \"intermediate_size\": 20, "
       "\"num_hidden_layers\": 8, \"num_attention_heads\": 6, \"num_key_value_heads\": 2, "
       "\"vocab_size\": 61, \"sliding_window\": [7, 7]}",
       "sliding_window"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct bench b;
    prepare(&b, &families[cases[i].family], cases[i].config, 0, NULL);
    int32_t rc = b.model_api->open(&b.host, &b.source, &b.model, &b.error);
    cr_assert((rc == VIV_BAD_INPUT || rc == VIV_NEVER) && strstr(b.error.message, cases[i].part),
              "case %d answered %d: %s", (int)i, (int)rc, b.error.message);
    b.model = NULL;
    stop(&b);
  }
}

/* The plan holds what is then taken. */
Test(token_invariants, memory_plan_holds) {
  struct bench b;
  for (int i = 0; i < N_FAMILIES; i++) {
    prepare(&b, &families[i], NULL, 0, NULL);
    viv_memory_plan plan = {.struct_size = sizeof plan};
    OK(&b, b.model_api->plan(&b.host, &b.source, &plan, &b.error));
    OK(&b, b.model_api->open(&b.host, &b.source, &b.model, &b.error));
    uint64_t opened = viv__arena_used(b.arena);
    cr_assert(opened <= plan.model_bytes, "%s: model %d of %d", b.family->label, (int)opened,
              (int)plan.model_bytes);
    int32_t *t = tokens_of(25, MAX_ROWS), seq = open_seq(&b);
    viv_batch p = plain(seq, t, 58);
    b.info.struct_size = sizeof b.info;
    OK(&b, b.api->info(b.model, &b.info));
    static float logits[MAX_ROWS * 61];
    viv_eval_out out = {.struct_size = sizeof out, .logits = logits};
    p.scratch = b.scratch;
    OK(&b, b.api->eval(b.model, &p, &out, &b.error));
    uint64_t step = viv__arena_used(b.scratch), held = viv__arena_used(b.arena) - opened;
    cr_assert(step <= plan.step_bytes + 58 * plan.step_row_bytes, "%s: step %d", b.family->label,
              (int)step);
    cr_assert(held <= plan.session_bytes + 58 * plan.session_token_bytes + 4096, "%s: session %d",
              b.family->label, (int)held);
    free(t);
    stop(&b);
  }
}
