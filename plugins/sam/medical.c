/* ESP-MedSAM: a picture prompts itself.
 *
 *   patch_map = conv1x1(gelu(LN(conv 2x2 stride 2 E)))            [B, 1, g/2, g/2]
 *   D = gelu(LN(conv1x1(nearest x2 of [sigmoid(patch_map) >= 0.5])))
 *   queries, one per kind of picture -> two-way transformer over E + D
 *   mask of domain d = hyper(q_d) . upscaled
 *
 * Official: xq141839/ESP-MedSAM, model.py. */
#include <math.h>
#include <string.h>

#include "sam/sam.h"

void sam_medical_config(nn_config *k, struct sam_model *m) {
  m->medical.domains = (int32_t)nn_int(k, "num_domains", 6, 1, SAM_DOMAINS_MAX);
  m->medical.hidden = (int32_t)nn_int(k, "patch_hidden_dim", 64, 1, 1 << 13);
  nn_divides(k, m->side, 32, "image_size and 32");
}

void sam_medical_load(nn_loader *l, struct sam_model *m) {
  struct sam_medical *w = &m->medical;
  int32_t d = m->width, hidden = w->hidden;
  nn_at(l, "%s", "");
  nn_conv_spec down = {.in = d, .out = hidden, .kernel = 2, .stride = 2, .bias = true};
  nn_conv_spec one = {.in = hidden, .out = 1, .kernel = 1, .bias = true};
  nn_conv_spec wide = {.in = 1, .out = d, .kernel = 1, .bias = true};
  nn_load_conv(l, "patch_decoder.0", &down, &w->patch[0]);
  nn_load_norm(l, "patch_decoder.1", hidden, 1e-6f, &w->patch_norm);
  nn_load_conv(l, "patch_decoder.3", &one, &w->patch[1]);
  nn_load_conv(l, "dense_prompter.0", &wide, &w->prompter);
  nn_load_norm(l, "dense_prompter.1", d, 1e-6f, &w->prompter_norm);
  nn_load_tensor(l, "mask_query.weight", true, 2, (const int64_t[]){w->domains + 1, d},
                 &w->queries);
}

/* The prompt of a cell that is 0 and of one that is 1, [2, C]. */
static float *two_prompts(nn_pass *p, const struct sam_model *m) {
  const viv_compute *c = nn_compute_of(p);
  static float bits[2] = {0, 1};
  nn_map x = {.x = bits,
              .batch = 1,
              .channels = 1,
              .dims = 2,
              .size = {1, 2, 1},
              .layout = VIV_CHANNELS_LAST};
  nn_map y = nn_apply_conv(p, &m->medical.prompter, 0, &x);
  nn_layer_norm(p, &m->medical.prompter_norm, y.x, 2, y.x);
  c->unary(c, VIV_GELU, y.x, y.x, 2 * (int64_t)m->width);
  return y.x;
}

void sam_medical_prompt(nn_pass *p, const struct sam_model *m, float *embedding, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_medical *w = &m->medical;
  int64_t g = m->grid, half = g / 2, d = m->width;
  nn_mark mark = nn_here(p);
  nn_map e = {.x = embedding,
              .batch = (int32_t)n,
              .channels = m->width,
              .dims = 2,
              .size = {m->grid, m->grid, 1},
              .layout = VIV_CHANNELS_LAST};
  nn_map x = nn_apply_conv(p, &w->patch[0], 0, &e);
  nn_layer_norm(p, &w->patch_norm, x.x, nn_space(&x) * n, x.x);
  c->unary(c, VIV_GELU, x.x, x.x, nn_elements(&x));
  x = nn_apply_conv(p, &w->patch[1], 0, &x); /* [n, half, half, 1] */
  if (nn_wants_result(p, "patch_map"))
    nn_result(p, VIV_F32, x.x, NN_DIMS(n, 1, half, half), "patch_map");
  const float *prompt = two_prompts(p, m);
  float *dense = nn_room(p, n * g * g * d);
  for (int64_t i = 0; i < n * g * g; i++) {
    int64_t b = i / (g * g), y = i / g % g / 2, at = i % g / 2;
    bool set = x.x[(b * half + y) * half + at] >= 0; /* sigmoid >= 0.5 */
    memcpy(dense + i * d, prompt + (set ? d : 0), (size_t)d * sizeof *dense);
  }
  if (nn_taps(p, "dense_prompt")) {
    float *planes = nn_room(p, n * g * g * d);
    int64_t shape[3] = {n, g * g, d};
    int32_t perm[3] = {0, 2, 1};
    c->permute(c, dense, 3, shape, perm, planes);
    nn_tap(p, planes, NN_DIMS(n, d, g, g), "dense_prompt");
  }
  c->add(c, embedding, dense, n * g * g * d);
  nn_release(p, mark);
}

/* [n, 1, 4g, 4g] of that domain; taps hs.i, upscaled.i. */
static float *decode(nn_pass *p, const struct sam_model *m, const struct sam_view *view,
                     int64_t domain) {
  const viv_compute *c = nn_compute_of(p);
  const struct sam_medical *w = &m->medical;
  int64_t d = m->width, small = d / 8, tokens = w->domains + 1, side = 4 * (int64_t)m->grid;
  int64_t each = (int64_t)m->grid * m->grid * d, cells = side * side;
  float *out = nn_room(p, view->n * cells);
  nn_mark mark = nn_here(p);
  float *keys = nn_room(p, each), *queries = nn_room(p, tokens * d);
  for (int64_t i = 0; i < view->n; i++) {
    nn_mark after = nn_here(p);
    memcpy(keys, view->embedding + i * each, (size_t)each * sizeof *keys);
    memcpy(queries, w->queries, (size_t)(tokens * d) * sizeof *queries);
    float *up = sam_two_way_apply(p, m, (struct sam_lead){0}, 1, tokens, queries, keys);
    nn_tap(p, queries, NN_DIMS(1, tokens, d), "hs.%lld", (long long)i);
    if (nn_taps(p, "upscaled.%lld", (long long)i)) {
      float *planes = nn_room(p, cells * small);
      int64_t shape[2] = {cells, small};
      int32_t perm[2] = {1, 0};
      c->permute(c, up, 2, shape, perm, planes);
      nn_tap(p, planes, NN_DIMS(1, small, side, side), "upscaled.%lld", (long long)i);
    }
    const float *hyper = nn_apply_mlp(p, &m->decoder.hyper[0], queries + domain * d, 1);
    c->gemm(c, 0, 1, 1, cells, small, 1, hyper, small, up, small, 0, out + i * cells, cells);
    nn_release(p, after);
  }
  nn_release(p, mark);
  return out;
}

static uint8_t *above(nn_pass *p, const float *logits, int64_t n, double threshold) {
  uint8_t *out = nn_bytes(p, n, 1);
  for (int64_t i = 0; i < n; i++) out[i] = 1 / (1 + exp(-(double)logits[i])) >= threshold;
  return out;
}

int32_t sam_medical_segment(nn_pass *p) {
  const struct sam_model *m = nn_net_of(p);
  int64_t domain = nn_param_int(p, "domain_seq", -1, -1, m->medical.domains - 1);
  double threshold = nn_param_num(p, "threshold", 0.5, 0, 1);
  if (domain < 0)
    nn_stop(p, VIV_BAD_INPUT, "params",
            "domain_seq says what kind of picture it is, and is missing: 0 dermoscopy, 1 chest "
            "X-ray, 2 ultrasound, 3 fundus, 4 microscopy, 5 colonoscopy");
  struct sam_view view = sam_view_of(p, false);
  const float *low = decode(p, m, &view, domain);
  int64_t n = view.n, side = m->side, small = 4 * (int64_t)m->grid;
  if (nn_count(p, "image") && !nn_param(p, "outputs")) {
    for (int64_t i = 0; i < n; i++) {
      nn_mark mark = nn_here(p);
      const struct sam_size *s = &view.sizes[i];
      int64_t cells = (int64_t)s->height * s->width;
      const float *full = sam_full_size(p, m, s, low + i * small * small, 1);
      nn_result(p, VIV_U8, above(p, full, cells, threshold), NN_DIMS(1, s->height, s->width),
                "masks.%lld", (long long)i);
      nn_release(p, mark);
    }
    return VIV_DONE;
  }
  nn_result(p, VIV_F32, low, NN_DIMS(n, 1, small, small), "low_res_logits");
  struct sam_size square = {m->side, m->side, m->side, m->side};
  const float *full = sam_full_size(p, m, &square, low, n);
  if (nn_wants_result(p, "mask_logits"))
    nn_result(p, VIV_F32, full, NN_DIMS(n, 1, side, side), "mask_logits");
  if (nn_wants_result(p, "masks"))
    nn_result(p, VIV_U8, above(p, full, n * side * side, threshold), NN_DIMS(n, 1, side, side),
              "masks");
  return VIV_DONE;
}
