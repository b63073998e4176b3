/* A token model that can be predicted by hand: after token t it says (t + 1) % 16. Its state is the
 * list of tokens that each sequence holds. */
#include <string.h>

#include "vivarium/token_model.h"

#define STR(text) ((viv_str){(text), sizeof(text) - 1})

enum { VOCAB = 16, CONTEXT = 1024, SEQUENCES = 64, MAGIC = 0x544e4543 };

struct sequence {
  int32_t used;
  int32_t len;
  int32_t tokens[CONTEXT];
};

struct viv_plugin_model {
  const viv_host *host;
  struct sequence *seq; /* [SEQUENCES] */
};

static int32_t fail(viv_error *error, int32_t code, const char *message) {
  if (error) {
    error->code = code;
    strncpy(error->message, message, sizeof error->message - 1);
  }
  return code;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  (void)host;
  (void)source;
  (void)error;
  out->model_bytes = SEQUENCES * sizeof(struct sequence) + 4096;
  out->context_max = CONTEXT;
  return VIV_OK;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  viv_plugin_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (m) m->seq = host->arena_alloc(source->arena, SEQUENCES * sizeof *m->seq);
  if (!m || !m->seq) return fail(error, VIV_NOT_NOW, "no memory for the model");
  m->host = host;
  *out = m;
  return VIV_OK;
}

static void close_model(viv_plugin_model *model) {
  (void)model;
}

static viv_str describe(const viv_plugin_model *model) {
  (void)model;
  return STR("{\"tasks\":{\"generate\":{},\"forward\":{}},\"family\":\"counter\"}");
}

/* ---- viv.token-model/1 ---- */

static int32_t info(const viv_plugin_model *model, viv_token_info *out) {
  (void)model;
  uint32_t size = out->struct_size;
  *out = (viv_token_info){.struct_size = size,
                          .caps = VIV_CAP_STRICT_ROWS | VIV_CAP_TRUNCATE | VIV_CAP_TRUNCATE_KEPT |
                                  VIV_CAP_GATHER | VIV_CAP_FORK | VIV_CAP_SNAPSHOT,
                          .n_layers = 1,
                          .d_model = 1,
                          .vocab_size = VOCAB,
                          .context_max = CONTEXT,
                          .bos = -1,
                          .pad = -1,
                          .decoder_start = -1,
                          .mask_token = -1,
                          .cannot = STR("it has no layers to speak of")};
  return VIV_OK;
}

static struct sequence *find(const viv_plugin_model *m, int32_t id) {
  return id >= 0 && id < SEQUENCES && m->seq[id].used ? &m->seq[id] : NULL;
}

static int32_t seq_open(viv_plugin_model *m, int32_t *seq, viv_error *error) {
  for (int32_t i = 0; i < SEQUENCES; i++) {
    if (m->seq[i].used) continue;
    m->seq[i].used = 1;
    m->seq[i].len = 0;
    *seq = i;
    return VIV_OK;
  }
  return fail(error, VIV_NOT_NOW, "all 64 sequences are in use");
}

static void seq_close(viv_plugin_model *m, int32_t seq) {
  struct sequence *s = find(m, seq);
  if (s) s->used = 0;
}

static int64_t seq_len(const viv_plugin_model *m, int32_t seq) {
  const struct sequence *s = find(m, seq);
  return s ? s->len : -1;
}

/* Everything is checked before anything changes. */
static int32_t check_batch(const viv_plugin_model *m, const viv_batch *b, viv_error *error) {
  int32_t fresh[SEQUENCES] = {0};
  if (b->n_rows < 1 || !b->seq || !b->tokens || b->input_kind != VIV_INPUT_TOKENS)
    return fail(error, VIV_BAD_INPUT, "needs at least one row, of tokens");
  if (b->layer_begin != 0 || b->layer_end > 1 || b->mask_kind != VIV_MASK_CAUSAL ||
      b->kv_write != VIV_KV_APPEND || b->n_capture || b->n_births)
    return fail(error, VIV_NEVER, "does plain causal rows only");
  for (int32_t r = 0; r < b->n_rows; r++) {
    const struct sequence *s = find(m, b->seq[r]);
    if (!s) return fail(error, VIV_BAD_INPUT, "a row names a sequence that is not open");
    if (b->tokens[r] < 0 || b->tokens[r] >= VOCAB)
      return fail(error, VIV_BAD_INPUT, "a token is outside the vocabulary of 16");
    int64_t at = s->len + fresh[b->seq[r]]++;
    if (at >= CONTEXT) return fail(error, VIV_BAD_INPUT, "the sequence is full");
    if (b->pos && b->pos[r] != at)
      return fail(error, VIV_BAD_INPUT, "a row's position is not the next of its sequence");
  }
  for (int32_t i = 0; i < b->n_logit_rows; i++)
    if (b->logit_rows[i] < 0 || b->logit_rows[i] >= b->n_rows)
      return fail(error, VIV_BAD_INPUT, "logits of a row that does not exist are wanted");
  return VIV_OK;
}

static int32_t eval(viv_plugin_model *m, const viv_batch *b, viv_eval_out *out, viv_error *error) {
  int32_t status = check_batch(m, b, error);
  if (status < 0) return status;
  for (int32_t r = 0; r < b->n_rows; r++) {
    struct sequence *s = &m->seq[b->seq[r]];
    s->tokens[s->len++] = b->tokens[r];
  }
  for (int32_t i = 0; i < b->n_logit_rows; i++) {
    float *row = out->logits + (int64_t)i * VOCAB; /* [VOCAB] */
    for (int32_t v = 0; v < VOCAB; v++) row[v] = 0;
    row[(b->tokens[b->logit_rows[i]] + 1) % VOCAB] = 10;
  }
  return VIV_OK;
}

static int32_t seq_truncate(viv_plugin_model *m, int32_t seq, int64_t len, viv_error *error) {
  struct sequence *s = find(m, seq);
  if (!s || len < 0 || len > s->len)
    return fail(error, VIV_BAD_INPUT, "no such sequence, or it is not that long");
  s->len = (int32_t)len;
  return VIV_OK;
}

static int32_t seq_gather(viv_plugin_model *m, int32_t seq, int64_t base, const int32_t *index,
                          int32_t n, viv_error *error) {
  struct sequence *s = find(m, seq);
  if (!s || base < 0 || base > s->len || n < 0)
    return fail(error, VIV_BAD_INPUT, "no such sequence, or it is not that long");
  for (int32_t i = 0; i < n; i++)
    if (index[i] < 0 || index[i] >= s->len - base || (i && index[i] <= index[i - 1]))
      return fail(error, VIV_BAD_INPUT, "the positions are not ascending, or too large");
  for (int32_t i = 0; i < n; i++) s->tokens[base + i] = s->tokens[base + index[i]];
  s->len = (int32_t)base + n;
  return VIV_OK;
}

static int32_t seq_fork(viv_plugin_model *m, int32_t seq, int32_t *out, viv_error *error) {
  struct sequence *s = find(m, seq);
  int32_t copy;
  if (!s) return fail(error, VIV_BAD_INPUT, "no such sequence");
  int32_t status = seq_open(m, &copy, error);
  if (status < 0) return status;
  m->seq[copy] = *s;
  *out = copy;
  return VIV_OK;
}

static int32_t snapshot(viv_plugin_model *m, int32_t seq, void *data, uint64_t capacity,
                        uint64_t *bytes, viv_error *error) {
  const struct sequence *s = find(m, seq);
  if (!s) return fail(error, VIV_BAD_INPUT, "no such sequence");
  uint64_t tokens = (uint64_t)s->len * sizeof s->tokens[0];
  int32_t head[2] = {MAGIC, s->len};
  *bytes = sizeof head + tokens;
  if (capacity < *bytes) return data ? fail(error, VIV_NOT_NOW, "the buffer is too small") : VIV_OK;
  memcpy(data, head, sizeof head);
  memcpy((char *)data + sizeof head, s->tokens, tokens);
  return VIV_OK;
}

static int32_t restore(viv_plugin_model *m, int32_t seq, const void *data, uint64_t bytes,
                       viv_error *error) {
  struct sequence *s = find(m, seq);
  int32_t head[2];
  if (!s) return fail(error, VIV_BAD_INPUT, "no such sequence");
  if (bytes < sizeof head) return fail(error, VIV_BAD_INPUT, "the snapshot is too short");
  memcpy(head, data, sizeof head);
  if (head[0] != MAGIC || head[1] < 0 || head[1] > CONTEXT ||
      bytes != sizeof head + (uint64_t)head[1] * sizeof s->tokens[0])
    return fail(error, VIV_BAD_INPUT, "not a snapshot of this model");
  const char *tokens = (const char *)data + sizeof head;
  for (int32_t i = 0; i < head[1]; i++) {
    int32_t token;
    memcpy(&token, tokens + (size_t)i * sizeof token, sizeof token);
    if (token < 0 || token >= VOCAB) return fail(error, VIV_BAD_INPUT, "a token is out of range");
  }
  s->len = head[1];
  memcpy(s->tokens, tokens, (size_t)head[1] * sizeof s->tokens[0]);
  return VIV_OK;
}

static const viv_model_api model_api = {.struct_size = sizeof model_api,
                                        .abi_major = VIV_ABI_MAJOR,
                                        .abi_minor = VIV_ABI_MINOR,
                                        .plan = plan,
                                        .open = open_model,
                                        .close = close_model,
                                        .describe = describe};

static const viv_token_api token_api = {.struct_size = sizeof token_api,
                                        .abi_major = VIV_ABI_MAJOR,
                                        .abi_minor = VIV_ABI_MINOR,
                                        .info = info,
                                        .seq_open = seq_open,
                                        .seq_close = seq_close,
                                        .seq_len = seq_len,
                                        .eval = eval,
                                        .seq_truncate = seq_truncate,
                                        .seq_gather = seq_gather,
                                        .seq_fork = seq_fork,
                                        .snapshot = snapshot,
                                        .restore = restore};

static int same(viv_str id, const char *text, uint64_t len) {
  return id.len == len && !memcmp(id.ptr, text, len);
}

static const void *get_interface(viv_str id) {
  if (same(id, VIV_MODEL_ID, sizeof VIV_MODEL_ID - 1)) return &model_api;
  if (same(id, VIV_TOKEN_MODEL_ID, sizeof VIV_TOKEN_MODEL_ID - 1)) return &token_api;
  return NULL;
}

static const viv_plugin plugin = {.struct_size = sizeof plugin,
                                  .abi_major = VIV_ABI_MAJOR,
                                  .abi_minor = VIV_ABI_MINOR,
                                  .id = STR("museum-counter"),
                                  .version = STR("1.0.0"),
                                  .get_interface = get_interface};

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  if (host->abi_major < 1 || host->abi_oldest_major > 1) {
    fail(error, VIV_NEVER, "speaks ABI 1.0 to 1.0, which the host's range does not hold");
    return NULL;
  }
  return &plugin;
}
