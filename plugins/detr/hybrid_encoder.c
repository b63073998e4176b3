/* RT-DETR's hybrid encoder: attention inside the coarsest level, convolutions between levels.
 *
 *   F_l = input_l(backbone's map l)                                1x1 and norm
 *   F_L = encoder layers over the cells of F_L, sines of row and column as positions
 *   top-down, from the coarsest:   T_L = F_L
 *     T'_l = lateral(T_l);  T_(l-1) = CSP([up2(T'_l), F_(l-1)])
 *   bottom-up, from the finest:    O_1 = T_1
 *     O_(l+1) = CSP([down(O_l), T'_(l+1)])                         the projected maps, not T
 *   CSP(x) = three(RepVGG(RepVGG(RepVGG(one x))) + two x)
 *   RepVGG(x) = act(norm(3x3 x) + norm(1x1 x))
 *
 * Official: lyuwenyu/RT-DETR, hybrid_encoder.py; names as transformers saves them. */
#include "detr/neck.h"

/* ---- configuration ---- */

void detr_read_hybrid(nn_config *k, struct detr_hybrid *e) {
  int32_t in[DETR_MAX_LEVELS] = {512, 1024, 2048}, encode[DETR_MAX_LEVELS] = {2};
  e->levels = nn_key(k, "encoder_in_channels")
                  ? nn_ints(k, "encoder_in_channels", in, DETR_MAX_LEVELS, 1, 1 << 14)
                  : 3;
  e->encoded = nn_key(k, "encode_proj_layers")
                   ? nn_ints(k, "encode_proj_layers", encode, DETR_MAX_LEVELS, 0, DETR_MAX_LEVELS)
                   : 1;
  e->d = (int32_t)nn_int(k, "encoder_hidden_dim", 256, 4, 1 << 14);
  e->heads = (int32_t)nn_int(k, "encoder_attention_heads", 8, 1, 1024);
  e->layers = (int32_t)nn_int(k, "encoder_layers", 1, 0, DETR_MAX_LAYERS);
  e->ff = nn_int(k, "encoder_ffn_dim", 1024, 1, 1 << 18);
  e->act = nn_activation(k, "activation_function", "silu");
  e->ff_act = nn_activation(k, "encoder_activation_function", "gelu");
  e->expansion = (float)nn_num(k, "hidden_expansion", 1, 0.001, 16);
  e->norm_eps = (float)nn_num(k, "batch_norm_eps", 1e-5, 0, 1);
  e->layer_eps = (float)nn_num(k, "layer_norm_eps", 1e-5, 0, 1);
  e->temperature = nn_num(k, "positional_encoding_temperature", 10000, 1, 1e9);
  nn_divides(k, e->d, e->heads, "encoder_hidden_dim and encoder_attention_heads");
  nn_divides(k, e->d, 4, "encoder_hidden_dim and the four parts of a position");
  if (!k->status && nn_flag(k, "normalize_before", false))
    k->status = nn_fail(k->error, VIV_NEVER, k->where, "normalize_before is not computed here");
  for (int32_t i = 0; i < e->levels; i++) e->in[i] = in[i];
  for (int32_t i = 0; i < e->encoded && !k->status; i++) {
    e->encode[i] = encode[i];
    if (encode[i] >= e->levels)
      k->status =
          nn_fail(k->error, VIV_BAD_INPUT, k->where, "encode_proj_layers names level %d of %d",
                  (int)encode[i], (int)e->levels);
  }
  if (!k->status && e->encoded * e->layers > DETR_MAX_LAYERS)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%d encoder layers are too many",
                        (int)(e->encoded * e->layers));
}

/* ---- weights ---- */

/* name.conv.weight and name.norm.* */
static void load_normed(nn_loader *l, const char *name, int32_t in, int32_t out, int32_t kernel,
                        int32_t stride, float eps, nn_conv *conv) {
  nn_conv_spec s = {.in = in,
                    .out = out,
                    .kernel = kernel,
                    .stride = stride,
                    .pad = (kernel - 1) / 2,
                    .norm = "norm",
                    .norm_eps = eps};
  size_t outer = nn_in(l, "%s.", name);
  nn_load_conv(l, "conv", &s, conv);
  nn_out(l, outer);
}

static void load_csp(nn_loader *l, const struct detr_hybrid *e, const char *list, int32_t at,
                     struct detr_csp *w) {
  int32_t inner = (int32_t)((float)e->d * e->expansion);
  size_t outer = nn_in(l, "%s.%d.", list, (int)at);
  load_normed(l, "conv1", 2 * e->d, inner, 1, 1, e->norm_eps, &w->one);
  load_normed(l, "conv2", 2 * e->d, inner, 1, 1, e->norm_eps, &w->two);
  if (inner != e->d) load_normed(l, "conv3", inner, e->d, 1, 1, e->norm_eps, &w->three);
  for (int32_t i = 0; i < DETR_CSP_BLOCKS; i++) {
    size_t inside = nn_in(l, "bottlenecks.%d.", (int)i);
    load_normed(l, "conv1", inner, inner, 3, 1, e->norm_eps, &w->wide[i]);
    load_normed(l, "conv2", inner, inner, 1, 1, e->norm_eps, &w->narrow[i]);
    nn_out(l, inside);
  }
  nn_out(l, outer);
}

static void load_layers(nn_loader *l, struct detr_hybrid *e) {
  for (int32_t i = 0; i < e->encoded * e->layers; i++) {
    struct detr_encoder_layer *w = &e->layer[i];
    size_t outer =
        nn_in(l, "encoder.encoder.%d.layers.%d.", (int)(i / e->layers), (int)(i % e->layers));
    detr_load_encoder(l, e->d, e->heads, e->ff, e->ff_act, w);
    w->norm.eps = w->ffn.norm.eps = e->layer_eps;
    nn_out(l, outer);
  }
}

void detr_load_hybrid(nn_loader *l, struct detr_hybrid *e) {
  for (int32_t i = 0; i < e->levels; i++) {
    nn_conv_spec s = {.in = e->in[i], .out = e->d, .kernel = 1, .norm = "1"};
    size_t outer = nn_in(l, "encoder_input_proj.%d.", (int)i);
    nn_load_conv(l, "0", &s, &e->input[i]);
    nn_out(l, outer);
  }
  load_layers(l, e);
  for (int32_t i = 0; i + 1 < e->levels; i++) {
    size_t outer = nn_in(l, "encoder.lateral_convs.");
    char number[12] = {(char)('0' + i)};
    load_normed(l, number, e->d, e->d, 1, 1, e->norm_eps, &e->lateral[i]);
    nn_out(l, outer);
    outer = nn_in(l, "encoder.downsample_convs.");
    load_normed(l, number, e->d, e->d, 3, 2, e->norm_eps, &e->down[i]);
    nn_out(l, outer);
    load_csp(l, e, "encoder.fpn_blocks", i, &e->top_down[i]);
    load_csp(l, e, "encoder.pan_blocks", i, &e->bottom_up[i]);
  }
}

/* ---- the pass ---- */

/* The blocks' results lie in x and one more map in turn; x is used up. */
static nn_map rep_blocks(nn_pass *p, const struct detr_hybrid *e, const struct detr_csp *w,
                         nn_map x) {
  nn_map y = nn_conv_shape(p, &w->wide[0], &x, -1), side = y;
  y.x = nn_room(p, nn_elements(&y));
  side.x = nn_room(p, nn_elements(&y));
  for (int32_t i = 0; i < DETR_CSP_BLOCKS; i++) {
    nn_conv_to(p, &w->narrow[i], 0, NULL, &x, &side);
    nn_conv_to(p, &w->wide[i], e->act, side.x, &x, &y);
    nn_map old = x;
    x = y;
    y = old;
  }
  return x;
}

static nn_map csp(nn_pass *p, const struct detr_hybrid *e, const struct detr_csp *w,
                  const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  const nn_conv *last = w->three.w ? &w->three : &w->one;
  nn_map out = nn_conv_shape(p, last,
                             w->three.w ? &(nn_map){.batch = x->batch,
                                                    .channels = w->three.in,
                                                    .dims = 2,
                                                    .size = {x->size[0], x->size[1], 1},
                                                    .layout = x->layout}
                                        : x,
                             -1);
  out.x = nn_room(p, nn_elements(&out));
  nn_mark mark = nn_here(p);
  nn_map a = nn_apply_conv(p, &w->one, e->act, x), b = nn_apply_conv(p, &w->two, e->act, x);
  a = rep_blocks(p, e, w, a);
  c->add(c, b.x, a.x, nn_elements(&a));
  if (w->three.w) {
    nn_conv_to(p, &w->three, e->act, NULL, &b, &out);
  } else {
    for (int64_t i = 0; i < nn_elements(&b); i++) out.x[i] = b.x[i];
  }
  nn_release(p, mark);
  return out;
}

static void attend_inside(nn_pass *p, const struct detr_hybrid *e, int32_t at, nn_map *map) {
  int64_t cells = nn_space(map), n = cells * e->d;
  nn_mark mark = nn_here(p);
  float *position = nn_room(p, n);
  nn_sine_grid(map->size[0], map->size[1], e->d, e->temperature, position);
  position = detr_repeat(p, position, n, map->batch);
  for (int32_t i = 0; i < e->layers; i++)
    detr_apply_encoder(p, &e->layer[at * e->layers + i], map->batch, cells, position, NULL, map->x);
  detr_tap_map(p, map, "aifi.%d", (int)at);
  nn_release(p, mark);
}

void detr_apply_hybrid(nn_pass *p, const struct detr_hybrid *e, nn_map *maps) {
  int32_t n = e->levels;
  for (int32_t i = 0; i < n; i++) maps[i] = nn_apply_conv(p, &e->input[i], 0, &maps[i]);
  for (int32_t i = 0; i < e->encoded; i++) attend_inside(p, e, i, &maps[e->encode[i]]);
  for (int32_t i = 0; i + 1 < n; i++) { /* maps[to] is T of the finer level then */
    int32_t from = n - 1 - i, to = from - 1;
    nn_pass_poll(p);
    maps[from] = nn_apply_conv(p, &e->lateral[i], e->act, &maps[from]);
    int32_t size[2] = {2 * maps[from].size[0], 2 * maps[from].size[1]};
    nn_map pair[2] = {nn_resize_map(p, VIV_NEAREST, false, size, &maps[from]), maps[to]};
    nn_map joined = detr_join_maps(p, pair, 2);
    maps[to] = csp(p, e, &e->top_down[i], &joined);
    detr_tap_map(p, &maps[to], "fpn.%d", (int)i);
  }
  for (int32_t i = 0; i + 1 < n; i++) {
    nn_pass_poll(p);
    nn_map pair[2] = {nn_apply_conv(p, &e->down[i], e->act, &maps[i]), maps[i + 1]};
    nn_map joined = detr_join_maps(p, pair, 2);
    maps[i + 1] = csp(p, e, &e->bottom_up[i], &joined);
    detr_tap_map(p, &maps[i + 1], "pan.%d", (int)i);
  }
}
