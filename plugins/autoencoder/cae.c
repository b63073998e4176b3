/* CAE's pre-training network: what the masked patches look like is told from the visible ones in the
 * encoder's own space.
 *
 *   z_v = LN blocks([class token, visible patches] + positions)                    [B, 1 + V, d]
 *   z_v = LN W z_v                          if the regressor is of another width   [B, 1 + V, D]
 *   z_m = the mask token for each masked patch; block i of the regressor:          [B, M, D]
 *     kv  = [z_v without the class token, z_m],  its positions e_kv, those of z_m e_m
 *     z_m = LN(z_m + g1 attention(LN(z_m + e_m), LN(kv + e_kv), LN(kv)))
 *     z_m = z_m + g2 MLP(z_m)
 *   cae:     latent = LN z_m, logits = W LN blocks(latent + e_m)                   [B M, classes]
 *            target = the masked patches alone through the alignment encoder
 *   caev2:   latent = LN z_m, logits = W LN [z_v, z_m], each of length 1           [B, 1 + N, out]
 *
 * Chen et al., arXiv:2202.03026. Official: Atten4Vis/CAE, models/modeling_cae.py. */
#include <math.h>
#include <string.h>

#include "autoencoder/autoencoder.h"

enum { REGRESSORS = 64 };

struct regressor {
  nn_norm norm_q, norm_k, norm_v, norm2;
  nn_linear q, k, v, proj, fc1, fc2;
  const float *scale1, *scale2; /* [D] */
};

struct cae {
  struct autoencoder_model base;
  nn_vit encoder, alignment, decoder;
  bool second, aligned; /* caev2; there is an encoder of its own for the target */
  int32_t depth;        /* of the regressor */
  int64_t classes;
  nn_linear widen; /* w NULL: of one width */
  nn_norm widen_norm;
  struct regressor block[REGRESSORS];
  nn_norm norm;
  nn_linear head;
  const float *mask_token, *positions; /* [D], [N + 1, D] */
};
_Static_assert(sizeof(struct cae) <= AUTOENCODER_MODEL_BYTES, "plan's room");

static const nn_vit_names decoder_names = {.layer = "decoder_blocks",
                                           .norm1 = "norm1",
                                           .norm2 = "norm2",
                                           .qkv = "attn.qkv",
                                           .q_bias = "attn.q_bias",
                                           .v_bias = "attn.v_bias",
                                           .out = "attn.proj",
                                           .scale1 = "gamma_1",
                                           .scale2 = "gamma_2",
                                           .up = "mlp.fc1",
                                           .down = "mlp.fc2",
                                           .norm = "norm"};

/* ---- configuration and weights ---- */

static void config(nn_config *k, const viv_model_source *source, struct autoencoder_model *base) {
  struct cae *m = (struct cae *)(void *)base;
  nn_vit_config *c = &m->encoder.config, *e = &m->decoder.config;
  viv_str type = nn_text(k, "cae_type", "cae");
  m->second = nn_is(type, "caev2");
  if (!k->status && !m->second && !nn_is(type, "cae"))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "cae_type must be cae or caev2");
  nn_vit_read_cae(k, source, "encoder.", c);
  c->names = &nn_vit_cae_names;
  c->no_positions = c->relative = c->shared = false;
  m->aligned = nn_has(k->host, source, "alignment_encoder.cls_token");
  m->alignment.config = *c;
  *e = *c;
  e->cls = e->cls_position = false;
  e->no_positions = true;
  e->names = &decoder_names;
  e->unscaled = !nn_has(k->host, source, "decoder.decoder_blocks.0.gamma_1");
  e->d = nn_int(k, "decoder_embed_dim", 768, 1, 1 << 16);
  e->heads = (int32_t)nn_int(k, "decoder_num_heads", 12, 1, 1024);
  e->ff = (int64_t)((double)e->d * nn_num(k, "mlp_ratio", 4, 0.01, 1024));
  e->layers = m->second ? 0 : (int32_t)nn_int(k, "decoder_depth", 4, 1, NN_VIT_MAX_LAYERS);
  m->depth = (int32_t)nn_int(k, "regressor_depth", 4, 1, REGRESSORS);
  nn_divides(k, e->d, e->heads, "decoder_embed_dim and decoder_num_heads");
  m->classes = nn_axis(k->host, source, "decoder.head.weight", 0, 1);
  base->width = c->d;
  base->prepare.height = c->image[0];
  base->prepare.width = c->image[1];
}

static uint64_t more(const struct autoencoder_model *base) {
  const struct cae *m = (const struct cae *)(const void *)base;
  return 2 * nn_vit_bytes(&m->encoder.config) + nn_vit_bytes(&m->decoder.config);
}

static int32_t begin(const viv_host *host, viv_arena *arena, struct autoencoder_model *base,
                     viv_error *error) {
  struct cae *m = (struct cae *)(void *)base;
  int32_t rc = nn_vit_begin(host, arena, &m->encoder, error);
  if (rc >= 0 && m->aligned) rc = nn_vit_begin(host, arena, &m->alignment, error);
  if (rc >= 0 && m->decoder.config.layers) rc = nn_vit_begin(host, arena, &m->decoder, error);
  return rc;
}

static void load_regressor(nn_loader *l, const nn_vit_config *c, struct regressor *w) {
  int64_t d = c->d;
  nn_load_norm(l, "norm1_q", d, c->eps, &w->norm_q);
  nn_load_norm(l, "norm1_k", d, c->eps, &w->norm_k);
  nn_load_norm(l, "norm1_v", d, c->eps, &w->norm_v);
  nn_load_norm(l, "norm2_cross", d, c->eps, &w->norm2);
  nn_load_linear(l, "cross_attn.q", d, d, false, &w->q);
  nn_load_linear(l, "cross_attn.k", d, d, false, &w->k);
  nn_load_linear(l, "cross_attn.v", d, d, false, &w->v);
  nn_load_tensor(l, "cross_attn.q_bias", c->bias, 1, &d, &w->q.b);
  nn_load_tensor(l, "cross_attn.v_bias", c->bias, 1, &d, &w->v.b);
  nn_load_linear(l, "cross_attn.proj", d, d, true, &w->proj);
  nn_load_linear(l, "mlp_cross.fc1", c->ff, d, true, &w->fc1);
  nn_load_linear(l, "mlp_cross.fc2", d, c->ff, true, &w->fc2);
  nn_load_tensor(l, "gamma_1_cross", true, 1, &d, &w->scale1);
  nn_load_tensor(l, "gamma_2_cross", true, 1, &d, &w->scale2);
}

static void tables(nn_loader *l, void *model) {
  struct cae *m = model;
  const nn_vit_config *c = &m->encoder.config, *e = &m->decoder.config;
  int64_t one[3] = {1, 1, e->d}, all[3] = {1, 1 + (int64_t)c->grid[0] * c->grid[1], e->d};
  nn_at(l, "encoder.");
  nn_vit_load(l, &m->encoder);
  nn_at(l, "alignment_encoder.");
  if (m->aligned) nn_vit_load(l, &m->alignment);
  nn_at(l, "decoder.");
  nn_vit_load(l, &m->decoder);
  nn_load_linear(l, "head", m->classes, e->d, true, &m->head);
  nn_at(l, "regresser.");
  for (int32_t i = 0; i < m->depth; i++) {
    size_t outer = nn_in(l, "regressor_blocks.%d.", (int)i);
    load_regressor(l, e, &m->block[i]);
    nn_out(l, outer);
  }
  if (!m->second) nn_load_norm(l, "norm", e->d, c->eps, &m->norm);
  nn_at(l, "%s", "");
  if (c->d != e->d) {
    nn_load_linear(l, "encoder_to_regresser", e->d, c->d, true, &m->widen);
    nn_load_norm(l, "encoder_to_regresser_norm", e->d, c->eps, &m->widen_norm);
  }
  nn_load_tensor(l, "mask_token", true, 3, one, &m->mask_token);
  nn_load_tensor(l, "rd_pos_embed", true, 3, all, &m->positions);
  if (m->second) nn_ignore(l, "regresser.norm.*"); /* saved by caev2, and not used */
}

/* ---- the encoder ---- */

/* Which patches are masked, all inputs' lists alike long: ids [n, masked] and the others. */
struct split {
  const int32_t *masked, *visible; /* [B, n_masked], [B, n_visible] */
  int64_t n_masked, n_visible;
};

/* Row 0 of a table [1 + N, d] and its rows 1 + ids; first: with row 0. */
static void rows_of(const float *table, const int32_t *ids, int64_t n, bool first, int64_t d,
                    float *to) {
  if (first) memcpy(to, table, (size_t)d * sizeof *to);
  for (int64_t i = 0; i < n; i++)
    memcpy(to + (i + first) * d, table + (1 + ids[i]) * d, (size_t)d * sizeof *to);
}

/* [B, 1 + n, d] of those patches alone; widened for the regressor if `widen`. */
static float *encode_some(nn_pass *p, const struct cae *m, const nn_vit *vit,
                          const struct autoencoder_pixels *in, const int32_t *ids, int64_t n,
                          bool taps, bool widen) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = vit->config.d, cells = (int64_t)vit->config.grid[0] * vit->config.grid[1];
  const float *patches = nn_vit_patches(p, vit, in->x, in->n, in->size[0], in->size[1]);
  float *x = nn_room(p, in->n * (n + 1) * d), *at = nn_room(p, (n + 1) * d);
  for (int64_t b = 0; b < in->n; b++) {
    float *to = x + b * (n + 1) * d;
    memcpy(to, vit->cls, (size_t)d * sizeof *to);
    for (int64_t i = 0; i < n; i++)
      memcpy(to + (i + 1) * d, patches + (b * cells + ids[b * n + i]) * d, (size_t)d * sizeof *to);
    rows_of(vit->positions, ids + b * n, n, true, d, at);
    c->add(c, to, at, (n + 1) * d);
  }
  for (int32_t i = 0; i < vit->config.layers; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, vit, i, in->n, n + 1, x);
    if (taps) nn_tap(p, x, NN_DIMS(in->n, n + 1, d), "encoder.blocks.%d", (int)i);
  }
  nn_layer_norm(p, &vit->norm, x, in->n * (n + 1), x);
  if (taps) nn_tap(p, x, NN_DIMS(in->n, n + 1, d), "encoder");
  if (!widen || !m->widen.w) return x;
  x = nn_apply_linear(p, &m->widen, 0, x, in->n * (n + 1));
  nn_layer_norm(p, &m->widen_norm, x, in->n * (n + 1), x);
  return x;
}

static void check_size(nn_pass *p, const struct cae *m, const struct autoencoder_pixels *in) {
  const nn_vit_config *c = &m->encoder.config;
  if (in->size[0] != c->image[0] || in->size[1] != c->image[1])
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "%d x %d pixels, but this model takes %d x %d",
            (int)in->size[1], (int)in->size[0], (int)c->image[1], (int)c->image[0]);
}

static float *encode(nn_pass *p, const struct autoencoder_pixels *in, int64_t *tokens) {
  const struct cae *m = nn_net_of(p);
  int64_t n = (int64_t)m->encoder.config.grid[0] * m->encoder.config.grid[1];
  check_size(p, m, in);
  int32_t *ids = nn_bytes(p, in->n * n, sizeof *ids);
  for (int64_t i = 0; i < in->n * n; i++) ids[i] = (int32_t)(i % n);
  *tokens = n + 1;
  return encode_some(p, m, &m->encoder, in, ids, n, true, false);
}

/* ---- the masked network ---- */

static struct split read_mask(nn_pass *p, const struct cae *m, int64_t batch) {
  int64_t n = (int64_t)m->encoder.config.grid[0] * m->encoder.config.grid[1];
  int64_t shape[2] = {batch, n}, of_row = 0;
  const int64_t *mask = nn_need_ints(p, "bool_masked_pos", 2, shape);
  struct split s = {0};
  for (int64_t i = 0; i < n; i++) s.n_masked += mask[i] != 0;
  s.n_visible = n - s.n_masked;
  int32_t *masked = nn_bytes(p, batch * n, sizeof *masked);
  int32_t *visible = nn_bytes(p, batch * n, sizeof *visible);
  s.masked = masked;
  s.visible = visible;
  for (int64_t b = 0; b < batch; b++, of_row = 0) {
    for (int64_t i = 0; i < n; i++) of_row += mask[b * n + i] != 0;
    if (of_row != s.n_masked || !of_row)
      nn_stop(p, VIV_BAD_INPUT, "bool_masked_pos",
              "picture %lld masks %lld patches and the first %lld: all must mask as many, at least "
              "one",
              (long long)b, (long long)of_row, (long long)s.n_masked);
    for (int32_t i = 0; i < n; i++)
      if (mask[b * n + i])
        *masked++ = i;
      else
        *visible++ = i;
  }
  return s;
}

/* x [rows, d] += scale * y */
static void add_scaled(float *x, const float *scale, const float *y, int64_t rows, int64_t d) {
  for (int64_t i = 0; i < rows * d; i++) x[i] += scale[i % d] * y[i];
}

struct tokens {
  float *masked;                       /* [B, M, d] */
  const float *visible;                /* [B, 1 + V, d] */
  const float *at_masked, *at_visible; /* positions [B, M, d], [B, V, d] */
  int64_t batch, n_masked, n_visible, d;
};

static void regress(nn_pass *p, const struct regressor *w, int32_t heads, struct tokens *t) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = t->d, n = t->n_visible + t->n_masked, rows = t->batch * t->n_masked;
  int64_t part = t->n_visible * d, tail = t->n_masked * d;
  nn_mark mark = nn_here(p);
  float *q = nn_room(p, rows * d), *k = nn_room(p, t->batch * n * d);
  float *v = nn_room(p, t->batch * n * d), *y = nn_room(p, rows * d);
  memcpy(q, t->masked, (size_t)(rows * d) * sizeof *q);
  c->add(c, q, t->at_masked, rows * d);
  for (int64_t b = 0; b < t->batch; b++) {
    float *to = v + b * n * d;
    memcpy(to, t->visible + (b * (t->n_visible + 1) + 1) * d, (size_t)part * sizeof *to);
    memcpy(to + part, t->masked + b * tail, (size_t)tail * sizeof *to);
    memcpy(k + b * n * d, to, (size_t)(part + tail) * sizeof *k);
    c->add(c, k + b * n * d, t->at_visible + b * part, part);
    c->add(c, k + b * n * d + part, t->at_masked + b * tail, tail);
  }
  nn_layer_norm(p, &w->norm_q, q, rows, q);
  nn_layer_norm(p, &w->norm_k, k, t->batch * n, k);
  nn_layer_norm(p, &w->norm_v, v, t->batch * n, v);
  nn_attention a = {.batch = t->batch,
                    .nq = t->n_masked,
                    .nk = n,
                    .heads = heads,
                    .dim = (int32_t)(d / heads),
                    .q = nn_apply_linear(p, &w->q, 0, q, rows),
                    .k = nn_apply_linear(p, &w->k, 0, k, t->batch * n),
                    .v = nn_apply_linear(p, &w->v, 0, v, t->batch * n)};
  nn_attend(p, &a, q);
  nn_linear_to(p, &w->proj, 0, NULL, q, rows, y);
  add_scaled(t->masked, w->scale1, y, rows, d);
  nn_layer_norm(p, &w->norm2, t->masked, rows, t->masked);
  const float *h = nn_apply_linear(p, &w->fc1, VIV_GELU, t->masked, rows);
  nn_linear_to(p, &w->fc2, 0, NULL, h, rows, y);
  add_scaled(t->masked, w->scale2, y, rows, d);
  nn_release(p, mark);
}

/* cae: tokens of a vocabulary for each masked patch. */
static void decode(nn_pass *p, const struct cae *m, const struct tokens *t) {
  const viv_compute *c = nn_compute_of(p);
  int64_t d = t->d, rows = t->batch * t->n_masked;
  float *x = nn_room(p, rows * d);
  memcpy(x, t->masked, (size_t)(rows * d) * sizeof *x);
  c->add(c, x, t->at_masked, rows * d);
  for (int32_t i = 0; i < m->decoder.config.layers; i++) {
    nn_pass_poll(p);
    nn_vit_block_apply(p, &m->decoder, i, t->batch, t->n_masked, x);
    nn_tap(p, x, NN_DIMS(t->batch, t->n_masked, d), "decoder.%d", (int)i);
  }
  nn_layer_norm(p, &m->decoder.norm, x, rows, x);
  nn_result(p, VIV_F32, nn_apply_linear(p, &m->head, 0, x, rows), NN_DIMS(rows, m->classes),
            "logits");
}

/* caev2: a direction for each token; z_m becomes the latent prediction. */
static void point(nn_pass *p, const struct cae *m, struct tokens *t) {
  int64_t d = t->d, n = 1 + t->n_visible + t->n_masked, ahead = (1 + t->n_visible) * d;
  int64_t tail = t->n_masked * d;
  nn_layer_norm(p, &m->decoder.norm, t->masked, t->batch * t->n_masked, t->masked);
  float *x = nn_room(p, t->batch * n * d);
  for (int64_t b = 0; b < t->batch; b++) {
    float *to = x + b * n * d;
    nn_layer_norm(p, &m->decoder.norm, t->visible + b * ahead, 1 + t->n_visible, to);
    memcpy(to + ahead, t->masked + b * tail, (size_t)tail * sizeof *to);
  }
  float *y = nn_apply_linear(p, &m->head, 0, x, t->batch * n);
  for (int64_t r = 0; r < t->batch * n; r++) {
    double square = 0;
    for (int64_t i = 0; i < m->classes; i++)
      square += (double)y[r * m->classes + i] * (double)y[r * m->classes + i];
    for (int64_t i = 0; i < m->classes; i++)
      y[r * m->classes + i] = (float)((double)y[r * m->classes + i] / sqrt(square));
  }
  nn_result(p, VIV_F32, y, NN_DIMS(t->batch, n, m->classes), "logits");
}

/* The masked patches as the encoder itself would show them [B, M, D]. */
static void give_target(nn_pass *p, const struct cae *m, const struct autoencoder_pixels *in,
                        const struct split *s) {
  int64_t d = m->decoder.config.d, n = s->n_masked;
  nn_mark mark = nn_here(p);
  const nn_vit *vit = m->aligned ? &m->alignment : &m->encoder;
  const float *x = encode_some(p, m, vit, in, s->masked, n, false, true);
  float *out = nn_room(p, in->n * n * d);
  for (int64_t b = 0; b < in->n; b++)
    memcpy(out + b * n * d, x + (b * (n + 1) + 1) * d, (size_t)(n * d) * sizeof *out);
  nn_result(p, VIV_F32, out, NN_DIMS(in->n, n, d), "latent_target");
  nn_release(p, mark);
}

static int32_t forward(nn_pass *p) {
  const struct cae *m = nn_net_of(p);
  struct autoencoder_pixels in = autoencoder_read(p);
  check_size(p, m, &in);
  struct split s = read_mask(p, m, in.n);
  int64_t d = m->decoder.config.d;
  struct tokens t = {.batch = in.n, .n_masked = s.n_masked, .n_visible = s.n_visible, .d = d};
  t.visible = encode_some(p, m, &m->encoder, &in, s.visible, s.n_visible, true, true);
  float *at_masked = nn_room(p, in.n * s.n_masked * d);
  float *at_visible = nn_room(p, in.n * s.n_visible * d + 1);
  t.masked = nn_room(p, in.n * s.n_masked * d);
  for (int64_t b = 0; b < in.n; b++) {
    rows_of(m->positions, s.masked + b * s.n_masked, s.n_masked, false, d,
            at_masked + b * s.n_masked * d);
    rows_of(m->positions, s.visible + b * s.n_visible, s.n_visible, false, d,
            at_visible + b * s.n_visible * d);
  }
  for (int64_t r = 0; r < in.n * s.n_masked; r++)
    memcpy(t.masked + r * d, m->mask_token, (size_t)d * sizeof *t.masked);
  t.at_masked = at_masked;
  t.at_visible = at_visible;
  for (int32_t i = 0; i < m->depth; i++) {
    nn_pass_poll(p);
    regress(p, &m->block[i], m->decoder.config.heads, &t);
    nn_tap(p, t.masked, NN_DIMS(in.n, s.n_masked, d), "regresser.%d", (int)i);
  }
  if (m->second) {
    point(p, m, &t);
  } else {
    nn_layer_norm(p, &m->norm, t.masked, in.n * s.n_masked, t.masked);
    decode(p, m, &t);
  }
  nn_result(p, VIV_F32, t.masked, NN_DIMS(in.n, s.n_masked, d), "latent_predict");
  if (!m->second && nn_wants_result(p, "latent_target")) give_target(p, m, &in, &s);
  return VIV_DONE;
}

const struct autoencoder_variant autoencoder_cae = {.architecture = "ContextAutoencoderViT",
                                                    .bytes = sizeof(struct cae),
                                                    .config = config,
                                                    .more = more,
                                                    .begin = begin,
                                                    .tables = tables,
                                                    .forward = forward,
                                                    .encode = encode};
