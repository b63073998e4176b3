/* Uni4Eye++: one transformer for fundus photographs and OCT volumes, and its masked autoencoder.
 *
 *   picture [B, 3, H, W]     -> conv p x p (proj2)     + pos_embed2
 *   volume  [B, 3, H, W, D]  -> conv p x p x p (proj3) + pos_embed3, D fastest
 *   x = [class token, patches], blocks, LN
 *
 *   masked:   keep the int(N (1 - ratio)) patches of smallest noise -> encoder -> decoder_embed
 *             -> mask tokens in the other places, + decoder_pos_embed2 -> y = relu(.)
 *             -> blocks, LN, decoder_pred2 -> pred [B, N, 3 p p]
 *   head:     [W, b] = controller [mean of each of y's tokens, one-hot task],  W [N, N], b [N]
 *             logits = W pred + b;  loss = mean over masked patches of (logits - pixels)^2
 *
 * The released decoder takes pictures alone: its controller counts their patches. Cai et al.,
 * arXiv:2311.08176. Official: Davidczy/Uni4Eye_pp, models_mymae23D.py. */
#include <math.h>
#include <string.h>

#include "autoencoder/autoencoder.h"

#define BLOCKS                                                                                     \
  .norm1 = "norm1", .norm2 = "norm2", .qkv = "attn.qkv", .out = "attn.proj", .up = "mlp.fc1",      \
  .down = "mlp.fc2"
static const nn_vit_names encoder_names = {BLOCKS, .layer = "blocks", .norm = "norm"};
static const nn_vit_names decoder_names = {BLOCKS, .layer = "decoder_blocks",
                                           .norm = "decoder_norm"};

struct uni4eye {
  struct autoencoder_model base;
  nn_vit net, decoder;
  int32_t side, patch, depth; /* cells of a picture's side and of a volume's depth */
  nn_conv proj2, proj3;
  const float *cls, *positions2, *positions3; /* [d], [N2 + 1, d], [N3 + 1, d] */
  bool decodes, norm_pixels;
  int64_t tasks;
  nn_linear embed, controller, pred;
  const float *mask_token, *decoder_positions; /* [dd], [N2 + 1, dd] */
};
_Static_assert(sizeof(struct uni4eye) <= AUTOENCODER_MODEL_BYTES, "plan's room");

static int64_t cells2(const struct uni4eye *m) {
  return (int64_t)m->side * m->side;
}

/* ---- configuration and weights ---- */

static void config(nn_config *k, const viv_model_source *source, struct autoencoder_model *base) {
  struct uni4eye *m = (struct uni4eye *)(void *)base;
  int32_t image = (int32_t)nn_int(k, "img_size", 224, 1, 1 << 13);
  m->patch = (int32_t)nn_int(k, "patch_size", 16, 1, 1 << 10);
  nn_divides(k, image, m->patch, "img_size and patch_size");
  m->side = image / m->patch;
  double ratio = nn_num(k, "mlp_ratio", 4, 0.01, 1024);
  nn_vit_config c = {.d = nn_int(k, "embed_dim", 1024, 1, 1 << 16),
                     .layers = (int32_t)nn_int(k, "depth", 24, 1, NN_VIT_MAX_LAYERS),
                     .heads = (int32_t)nn_int(k, "num_heads", 16, 1, 1024),
                     .act = VIV_GELU,
                     .bias = true,
                     .key_bias = true,
                     .no_positions = true,
                     .eps = 1e-6f};
  nn_vit_config e = c;
  e.d = nn_int(k, "decoder_embed_dim", 512, 1, 1 << 16);
  e.layers = (int32_t)nn_int(k, "decoder_depth", 8, 1, NN_VIT_MAX_LAYERS);
  e.heads = (int32_t)nn_int(k, "decoder_num_heads", 16, 1, 1024);
  c.ff = (int64_t)((double)c.d * ratio);
  e.ff = (int64_t)((double)e.d * ratio);
  nn_divides(k, c.d, c.heads, "embed_dim and num_heads");
  nn_divides(k, e.d, e.heads, "decoder_embed_dim and decoder_num_heads");
  m->norm_pixels = nn_flag(k, "norm_pix_loss", false);
  c.names = &encoder_names;
  e.names = &decoder_names;
  m->net.config = c;
  m->decoder.config = e;
  if (k->status) return;
  int64_t rows = nn_axis(k->host, source, "pos_embed3", 1, 1) - 1;
  m->depth = (int32_t)(rows / cells2(m));
  if (rows % cells2(m) || m->depth > 1 << 10)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "pos_embed3",
                        "%lld positions are no grid of %d x %d x depth", (long long)rows,
                        (int)m->side, (int)m->side);
  m->decodes = nn_has(k->host, source, "decoder_embed.weight");
  m->tasks = nn_axis(k->host, source, "controller.weight", 1, 0) - cells2(m) - 1;
  if (!k->status && m->decodes && (m->tasks < 1 || m->tasks > 1 << 16))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, "controller.weight",
                        "must take %lld tokens and the tasks", (long long)cells2(m) + 1);
  base->volumes = true;
  base->width = c.d;
  base->classes = nn_axis(k->host, source, "head.weight", 0, 0);
  base->prepare.height = base->prepare.width = image;
}

static uint64_t more(const struct autoencoder_model *base) {
  const struct uni4eye *m = (const struct uni4eye *)(const void *)base;
  return nn_vit_bytes(&m->net.config) + nn_vit_bytes(&m->decoder.config);
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct autoencoder_model *base,
                     viv_error *error) {
  struct uni4eye *m = (struct uni4eye *)(void *)base;
  int32_t rc = nn_vit_begin(host, arena, &m->net, error);
  return rc < 0 ? rc : nn_vit_begin(host, arena, &m->decoder, error);
}

static void load_decoder(nn_loader *l, struct uni4eye *m) {
  int64_t d = m->net.config.d, dd = m->decoder.config.d, n = cells2(m);
  int64_t one[3] = {1, 1, dd}, all[3] = {1, n + 1, dd};
  nn_load_linear(l, "decoder_embed", dd, d, true, &m->embed);
  nn_load_tensor(l, "mask_token", true, 3, one, &m->mask_token);
  nn_load_tensor(l, "decoder_pos_embed2", true, 3, all, &m->decoder_positions);
  nn_vit_load(l, &m->decoder);
  nn_load_linear(l, "decoder_pred2", 3 * (int64_t)m->patch * m->patch, dd, true, &m->pred);
  nn_load_linear(l, "controller", n * n + n, n + 1 + m->tasks, true, &m->controller);
}

static void tables(nn_loader *l, void *model) {
  struct uni4eye *m = model;
  struct autoencoder_model *base = &m->base;
  int64_t d = m->net.config.d, one[3] = {1, 1, d}, flat[3] = {1, cells2(m) + 1, d};
  int64_t deep[3] = {1, cells2(m) * m->depth + 1, d};
  nn_conv_spec spec = {
      .in = 3, .out = (int32_t)d, .kernel = m->patch, .stride = m->patch, .bias = true};
  nn_at(l, "%s", "");
  nn_load_conv(l, "patch_embed.proj2", &spec, &m->proj2);
  nn_load_tensor(l, "cls_token", true, 3, one, &m->cls);
  nn_load_tensor(l, "pos_embed2", true, 3, flat, &m->positions2);
  if (m->depth) {
    spec.dims = 3;
    nn_load_conv(l, "patch_embed.proj3", &spec, &m->proj3);
    nn_load_tensor(l, "pos_embed3", true, 3, deep, &m->positions3);
  }
  nn_vit_load(l, &m->net);
  if (m->decodes) load_decoder(l, m);
  if (base->classes) nn_load_linear(l, "head", base->classes, d, true, &base->head);
  /* Saved by the release, run by none of its passes. */
  nn_ignore(l, "mlp.*");
  nn_ignore(l, "decoder_pos_embed3");
  nn_ignore(l, "decoder_pred3.*");
}

/* ---- the encoder ---- */

/* Patches with their positions [n, cells, d]; tap patch_embed before those. */
static float *patches_of(nn_pass *p, const struct uni4eye *m, const struct autoencoder_pixels *in,
                         int64_t *cells) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = m->net.config.d, want[3] = {m->side, m->side, m->depth};
  if (in->dims == 3 && !m->depth)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "this checkpoint has no positions for volumes");
  for (int i = 0; i < in->dims; i++)
    if (in->size[i] != want[i] * m->patch)
      nn_stop(p, VIV_BAD_INPUT, "pixel_values",
              "axis %d has the length %lld, this model takes %lld", i + 2, (long long)in->size[i],
              (long long)want[i] * m->patch);
  nn_map pixels = {.x = (float *)(uintptr_t)in->x, /* read only */
                   .batch = (int32_t)in->n,
                   .channels = 3,
                   .dims = in->dims,
                   .size = {(int32_t)in->size[0], (int32_t)in->size[1], (int32_t)in->size[2]},
                   .layout = VIV_CHANNELS_FIRST};
  const nn_conv *conv = in->dims == 3 ? &m->proj3 : &m->proj2;
  nn_map y = nn_conv_shape(p, conv, &pixels, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, conv, 0, NULL, &pixels, &y);
  *cells = nn_space(&y);
  nn_tap(p, y.x, NN_DIMS(in->n, *cells, d), "patch_embed");
  const float *positions = (in->dims == 3 ? m->positions3 : m->positions2) + d;
  for (int64_t b = 0; b < in->n; b++) c->add(c, y.x + b * *cells * d, positions, *cells * d);
  return y.x;
}

/* The class token before the `keep` patches of each input whose numbers ids [n, keep] names (NULL: all
 * in order), through the blocks and the last norm: [n, keep + 1, d]. */
static float *encode_some(nn_pass *p, const struct uni4eye *m, const float *patches, int64_t batch,
                          int64_t cells, const int32_t *ids, int64_t keep, const float *positions) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = m->net.config.d, n = keep + 1;
  float *x = nn_room(p, batch * n * d);
  for (int64_t b = 0; b < batch; b++) {
    float *to = x + b * n * d;
    memcpy(to, m->cls, (size_t)d * sizeof *to);
    c->add(c, to, positions, d);
    for (int64_t i = 0; i < keep; i++)
      memcpy(to + (i + 1) * d, patches + (b * cells + (ids ? ids[b * keep + i] : i)) * d,
             (size_t)d * sizeof *to);
  }
  for (int32_t i = 0; i < m->net.config.layers; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &m->net, i, batch, n, x);
    nn_tap(p, x, NN_DIMS(batch, n, d), "blocks.%d", (int)i);
  }
  nn_layer_norm(p, &m->net.norm, x, batch * n, x);
  return x;
}

static float *encode(nn_pass *p, const struct autoencoder_pixels *in, int64_t *tokens) {
  const struct uni4eye *m = nn_net_of(p);
  int64_t cells = 0;
  const float *patches = patches_of(p, m, in, &cells);
  *tokens = cells + 1;
  return encode_some(p, m, patches, in->n, cells, NULL, cells,
                     in->dims == 3 ? m->positions3 : m->positions2);
}

/* ---- the masked network ---- */

/* Numbers of the cells by rising noise, [batch, n]; equal ones in order. */
static int32_t *by_noise(nn_pass *p, const float *noise, int64_t batch, int64_t n) {
  int32_t *ids = nn_bytes(p, batch * n, sizeof *ids);
  for (int64_t b = 0; b < batch; b++) {
    int32_t *at = ids + b * n;
    const float *v = noise + b * n;
    for (int32_t i = 0; i < n; i++) {
      int32_t to = i;
      for (; to > 0 && v[at[to - 1]] > v[i]; to--) at[to] = at[to - 1];
      at[to] = i;
    }
  }
  return ids;
}

/* What the decoder reads: mask tokens where nothing is known, positions, negative values cut off. */
static float *filled(nn_pass *p, const struct uni4eye *m, const float *known, int64_t batch,
                     const int32_t *ids, int64_t keep) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = cells2(m), d = m->decoder.config.d;
  float *x = nn_room(p, batch * (n + 1) * d);
  for (int64_t b = 0; b < batch; b++) {
    const float *from = known + b * (keep + 1) * d;
    float *to = x + b * (n + 1) * d;
    memcpy(to, from, (size_t)d * sizeof *to);
    for (int64_t i = 0; i < n; i++)
      memcpy(to + (ids[b * n + i] + 1) * d, i < keep ? from + (i + 1) * d : m->mask_token,
             (size_t)d * sizeof *to);
    c->add(c, to, m->decoder_positions, (n + 1) * d);
  }
  for (int64_t i = 0; i < batch * (n + 1) * d; i++) x[i] = x[i] > 0 ? x[i] : 0;
  return x;
}

/* logits [batch, n, width] = W pred + b, both made from the means of x's tokens and the task. */
static float *mixed(nn_pass *p, const struct uni4eye *m, const float *x, const int64_t *task,
                    int64_t batch, const float *pred, float *logits) {
  int64_t n = cells2(m), d = m->decoder.config.d, in = n + 1 + m->tasks, width = m->pred.out;
  float *asks = nn_room(p, batch * in);
  for (int64_t b = 0; b < batch; b++) {
    float *ask = asks + b * in;
    memset(ask, 0, (size_t)in * sizeof *ask);
    for (int64_t t = 0; t <= n; t++) {
      double sum = 0;
      for (int64_t i = 0; i < d; i++) sum += (double)x[(b * (n + 1) + t) * d + i];
      ask[t] = (float)(sum / (double)d);
    }
    if (task[b] < 0 || task[b] >= m->tasks)
      nn_stop(p, VIV_BAD_INPUT, "task_id", "is %lld, the tasks are 0 to %lld", (long long)task[b],
              (long long)m->tasks - 1);
    ask[n + 1 + task[b]] = 1;
  }
  const float *made = nn_apply_linear(p, &m->controller, 0, asks, batch); /* [batch, n n + n] */
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < n; i++) {
      const float *w = made + b * (n * n + n), *from = pred + b * n * width;
      float *to = logits + (b * n + i) * width;
      for (int64_t e = 0; e < width; e++) to[e] = w[n * n + i];
      for (int64_t j = 0; j < n; j++)
        for (int64_t e = 0; e < width; e++) to[e] += w[i * n + j] * from[j * width + e];
    }
  return logits;
}

/* The mean square over masked patches of what logits and the pixels, (row, column, colour) in a patch,
 * differ by; with norm_pix_loss the pixels of a patch are normed first. */
static float loss_of(const struct uni4eye *m, const struct autoencoder_pixels *in,
                     const float *logits, const uint8_t *mask) {
  int64_t n = cells2(m), q = m->patch, side = (int64_t)m->side * q, width = 3 * q * q;
  double loss = 0, masked = 0;
  for (int64_t r = 0; r < in->n * n; r++) {
    if (!mask[r]) continue;
    int64_t b = r / n, row = r % n / m->side, column = r % n % m->side;
    double sum = 0, squares = 0, off = 0;
    const float *x = in->x + b * 3 * side * side;
    for (int pass = 0; pass < 2; pass++) {
      double mean = sum / (double)width;
      double variance = (squares - sum * mean) / (double)(width - 1);
      double scale = m->norm_pixels ? 1 / sqrt(fmax(variance, 0) + 1e-6) : 1;
      for (int64_t e = 0; e < width; e++) {
        int64_t y = row * q + e / 3 / q, at = column * q + e / 3 % q;
        double v = (double)x[(e % 3 * side + y) * side + at];
        if (!pass) {
          sum += v;
          squares += v * v;
        } else {
          double gap = (double)logits[r * width + e] - (m->norm_pixels ? (v - mean) * scale : v);
          off += gap * gap;
        }
      }
    }
    loss += off / (double)width;
    masked++;
  }
  return (float)(loss / masked);
}

static int32_t forward(nn_pass *p) {
  const struct uni4eye *m = nn_net_of(p);
  int64_t n = cells2(m), width = m->pred.out, dd = m->decoder.config.d;
  if (!m->decodes) nn_stop(p, VIV_NEVER, "task", "this checkpoint has no decoder: use embed");
  struct autoencoder_pixels in = autoencoder_read(p);
  if (in.dims != 2)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "the decoder fills in pictures, not volumes");
  int64_t noisy[2] = {in.n, n}, tasks[1] = {in.n}, cells = 0;
  double ratio = nn_param_num(p, "mask_ratio", 0.75, 0, 1);
  const float *noise = nn_need_floats(p, "noise", 2, noisy);
  const int64_t *task = nn_need_ints(p, "task_id", 1, tasks);
  int64_t keep = (int64_t)((double)n * (1 - ratio));
  const float *patches = patches_of(p, m, &in, &cells);
  const int32_t *ids = by_noise(p, noise, in.n, n);
  int32_t *kept = nn_bytes(p, in.n * keep + 1, sizeof *kept);
  uint8_t *mask = nn_bytes(p, in.n * n, 1);
  memset(mask, 1, (size_t)(in.n * n));
  for (int64_t b = 0; b < in.n; b++)
    for (int64_t i = 0; i < keep; i++) {
      kept[b * keep + i] = ids[b * n + i];
      mask[b * n + ids[b * n + i]] = 0;
    }
  const float *x = encode_some(p, m, patches, in.n, n, kept, keep, m->positions2);
  const float *known = nn_apply_linear(p, &m->embed, 0, x, in.n * (keep + 1));
  nn_tap(p, known, NN_DIMS(in.n, keep + 1, dd), "decoder_embed");
  float *y = filled(p, m, known, in.n, ids, keep), *asks = nn_room(p, in.n * (n + 1) * dd);
  memcpy(asks, y, (size_t)(in.n * (n + 1) * dd) * sizeof *asks);
  for (int32_t i = 0; i < m->decoder.config.layers; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &m->decoder, i, in.n, n + 1, y);
    nn_tap(p, y, NN_DIMS(in.n, n + 1, dd), "decoder_blocks.%d", (int)i);
  }
  nn_layer_norm(p, &m->decoder.norm, y, in.n * (n + 1), y);
  const float *all = nn_apply_linear(p, &m->pred, 0, y, in.n * (n + 1));
  float *pred = nn_room(p, in.n * n * width), *logits = nn_room(p, in.n * n * width);
  for (int64_t b = 0; b < in.n; b++)
    memcpy(pred + b * n * width, all + (b * (n + 1) + 1) * width,
           (size_t)(n * width) * sizeof *pred);
  mixed(p, m, asks, task, in.n, pred, logits);
  float loss = loss_of(m, &in, logits, mask);
  nn_result(p, VIV_F32, &loss, NN_DIMS(1), "loss");
  nn_result(p, VIV_F32, pred, NN_DIMS(in.n, n, width), "pred");
  nn_result(p, VIV_F32, logits, NN_DIMS(in.n, n, width), "logits");
  nn_result(p, VIV_U8, mask, NN_DIMS(in.n, n), "mask");
  return VIV_DONE;
}

const struct autoencoder_variant autoencoder_uni4eye = {.architecture =
                                                            "MaskedAutoencoderViT_partial23D",
                                                        .bytes = sizeof(struct uni4eye),
                                                        .config = config,
                                                        .more = more,
                                                        .begin = begin,
                                                        .tables = tables,
                                                        .forward = forward,
                                                        .encode = encode};
