#include "depth/dpt.h"

#include <stdio.h>
#include <string.h>

/* ---- weights ---- */

/* Names of a level in the official release and in transformers, where the deepest fusion is 0. */
struct names {
  char project[64], resize[64], shape[64], fusion[64];
};

static struct names names_of(const dpt_config *c, int32_t i) {
  struct names n;
  if (c->transformers) {
    snprintf(n.project, sizeof n.project, "neck.reassemble_stage.layers.%d.projection", (int)i);
    snprintf(n.resize, sizeof n.resize, "neck.reassemble_stage.layers.%d.resize", (int)i);
    snprintf(n.shape, sizeof n.shape, "neck.convs.%d", (int)i);
    snprintf(n.fusion, sizeof n.fusion, "neck.fusion_stage.layers.%d.", DPT_LEVELS - 1 - (int)i);
  } else {
    snprintf(n.project, sizeof n.project, "projects.%d", (int)i);
    snprintf(n.resize, sizeof n.resize, "resize_layers.%d", (int)i);
    snprintf(n.shape, sizeof n.shape, "scratch.layer%d_rn", (int)i + 1);
    snprintf(n.fusion, sizeof n.fusion, "scratch.refinenet%d.", (int)i + 1);
  }
  return n;
}

static void load_residual(nn_loader *l, const dpt_config *c, int32_t which, dpt_residual *r) {
  const char *part = c->transformers ? "residual_layer%d." : "resConfUnit%d.";
  size_t outer = nn_in(l, part, (int)which + 1);
  for (int i = 0; i < 2; i++) {
    nn_conv_spec spec = {
        .in = c->features, .out = c->features, .kernel = 3, .pad = 1, .bias = true};
    char conv[24], norm[24];
    snprintf(conv, sizeof conv, c->transformers ? "convolution%d" : "conv%d", i + 1);
    snprintf(norm, sizeof norm, "bn%d", i + 1);
    if (c->use_bn) spec.norm = norm;
    nn_load_conv(l, conv, &spec, &r->conv[i]);
  }
  nn_out(l, outer);
}

static void load_level(nn_loader *l, const dpt_config *c, int32_t i, dpt_level *w) {
  struct names n = names_of(c, i);
  int32_t f = c->factor[i], out = c->out[i];
  nn_conv_spec project = {.in = (int32_t)c->d, .out = out, .kernel = 1, .bias = true};
  nn_conv_spec up = {
      .in = out, .out = out, .kernel = f, .stride = f, .bias = true, .transposed = true};
  nn_conv_spec down = {.in = out, .out = out, .kernel = 3, .stride = -f, .pad = 1, .bias = true};
  nn_conv_spec shape = {.in = out, .out = c->features, .kernel = 3, .pad = 1};
  nn_conv_spec last = {.in = c->features, .out = c->features, .kernel = 1, .bias = true};
  if (c->use_cls) {
    char readout[32];
    snprintf(readout, sizeof readout, "readout_projects.%d.0", (int)i);
    nn_load_linear(l, readout, c->d, 2 * c->d, true, &w->readout);
  }
  nn_load_conv(l, n.project, &project, &w->project);
  if (f != 1) nn_load_conv(l, n.resize, f > 1 ? &up : &down, &w->resize);
  nn_load_conv(l, n.shape, &shape, &w->shape);
  size_t outer = nn_in(l, "%s", n.fusion);
  /* The deepest fusion has one input only; releases hold its first unit all the same. */
  if (i < DPT_LEVELS - 1) load_residual(l, c, 0, &w->residual[0]);
  load_residual(l, c, 1, &w->residual[1]);
  nn_load_conv(l, c->transformers ? "projection" : "out_conv", &last, &w->out);
  nn_out(l, outer);
}

void dpt_load(nn_loader *l, dpt_head *head, bool output) {
  static const char *const official[] = {"scratch.output_conv1", "scratch.output_conv2.0",
                                         "scratch.output_conv2.2"};
  static const char *const transformers[] = {"head.conv1", "head.conv2", "head.conv3"};
  const dpt_config *c = &head->config;
  const char *const *names = c->transformers ? transformers : official;
  for (int32_t i = 0; i < DPT_LEVELS; i++) load_level(l, c, i, &head->level[i]);
  nn_ignore(l, "*refinenet4.resConfUnit1.*");
  nn_ignore(l, "*fusion_stage.layers.0.residual_layer1.*");
  if (!output) return;
  int32_t half = c->features / 2;
  nn_conv_spec spec[3] = {{.in = c->features, .out = half, .kernel = 3, .pad = 1, .bias = true},
                          {.in = half, .out = c->hidden, .kernel = 3, .pad = 1, .bias = true},
                          {.in = c->hidden, .out = 1, .kernel = 1, .bias = true}};
  for (int i = 0; i < 3; i++) nn_load_conv(l, names[i], &spec[i], &head->output[i]);
}

/* ---- the pass ---- */

void dpt_tap(nn_pass *p, const nn_map *x, const char *format, int32_t number) {
  char name[64];
  snprintf(name, sizeof name, format, (int)number);
  if (!nn_taps(p, "%s", name)) return;
  nn_mark mark = nn_here(p);
  nn_map y = nn_to_layout(p, x, VIV_CHANNELS_FIRST);
  nn_tap(p, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1]), "%s", name);
  nn_release(p, mark);
}

/* gelu(W [patch, class token]) for each patch. */
static float *read_out(nn_pass *p, const dpt_level *w, const float *x, int64_t batch, int64_t extra,
                       int64_t cells, int64_t d) {
  float *both = nn_room(p, batch * cells * 2 * d);
  for (int64_t b = 0; b < batch; b++) {
    const float *token = x + b * (extra + cells) * d;
    for (int64_t i = 0; i < cells; i++) {
      float *row = both + (b * cells + i) * 2 * d;
      memcpy(row, token + (extra + i) * d, (size_t)d * sizeof *row);
      memcpy(row + d, token, (size_t)d * sizeof *row);
    }
  }
  return nn_apply_linear(p, &w->readout, VIV_GELU, both, batch * cells);
}

static float *patches_of(nn_pass *p, const float *x, int64_t batch, int64_t extra, int64_t cells,
                         int64_t d) {
  float *y = nn_room(p, batch * cells * d);
  for (int64_t b = 0; b < batch; b++)
    memcpy(y + b * cells * d, x + (b * (extra + cells) + extra) * d,
           (size_t)(cells * d) * sizeof *y);
  return y;
}

nn_map dpt_level_of(nn_pass *p, const dpt_head *head, int32_t i, const float *x, int64_t batch,
                    int64_t extra, nn_vit_grid grid) {
  const dpt_config *c = &head->config;
  const dpt_level *w = &head->level[i];
  int64_t cells = (int64_t)grid.height * grid.width;
  nn_map map = {.batch = (int32_t)batch,
                .channels = c->out[i],
                .dims = 2,
                .size = {grid.height, grid.width, 1},
                .layout = VIV_CHANNELS_LAST};
  if (c->factor[i] != 1) map = nn_conv_shape(p, &w->resize, &map, -1);
  nn_map out = nn_conv_shape(p, &w->shape, &map, -1);
  out.x = nn_room(p, nn_elements(&out));
  nn_mark mark = nn_here(p);
  map = (nn_map){.batch = (int32_t)batch,
                 .channels = (int32_t)c->d,
                 .dims = 2,
                 .size = {grid.height, grid.width, 1},
                 .layout = VIV_CHANNELS_LAST};
  map.x = c->use_cls ? read_out(p, w, x, batch, extra, cells, c->d)
                     : patches_of(p, x, batch, extra, cells, c->d);
  map = nn_apply_conv(p, &w->project, 0, &map);
  if (c->factor[i] != 1) map = nn_apply_conv(p, &w->resize, 0, &map);
  dpt_tap(p, &map, c->transformers ? "reassemble.%d" : "resize_layers.%d", i);
  nn_conv_to(p, &w->shape, 0, NULL, &map, &out);
  nn_release(p, mark);
  return out;
}

/* y = z + conv(relu(conv(relu(z)))) [+ y, with add]; y may not be z. */
static void residual_unit(nn_pass *p, const dpt_residual *w, const nn_map *z, bool add, float *y) {
  const viv_compute *c = nn_compute_of(p);
  int64_t n = nn_elements(z);
  nn_mark mark = nn_here(p);
  nn_map a = *z, out = *z;
  a.x = nn_room(p, n);
  c->unary(c, VIV_RELU, z->x, a.x, n);
  nn_map b = nn_apply_conv(p, &w->conv[0], VIV_RELU, &a);
  out.x = add ? a.x : y;
  nn_conv_to(p, &w->conv[1], 0, z->x, &b, &out);
  if (add) c->add(c, y, a.x, n);
  nn_release(p, mark);
}

/* R(x, y) at a size; x changes. y NULL: the deepest. */
static nn_map fuse(nn_pass *p, const dpt_level *w, nn_map *x, const nn_map *y,
                   const int32_t size[2]) {
  nn_map shape = *x;
  shape.size[0] = size[0];
  shape.size[1] = size[1];
  nn_map out = shape;
  out.x = nn_room(p, nn_elements(&out));
  nn_mark mark = nn_here(p);
  if (y) residual_unit(p, &w->residual[0], y, true, x->x);
  nn_map z = *x;
  z.x = nn_room(p, nn_elements(x));
  residual_unit(p, &w->residual[1], x, false, z.x);
  nn_map up = nn_resize_map(p, VIV_LINEAR, true, size, &z);
  nn_conv_to(p, &w->out, 0, NULL, &up, &out);
  nn_release(p, mark);
  return out;
}

void dpt_fuse(nn_pass *p, const dpt_head *head, const nn_map level[DPT_LEVELS],
              nn_map path[DPT_LEVELS]) {
  bool transformers = head->config.transformers;
  nn_map x = level[DPT_LEVELS - 1];
  for (int32_t i = DPT_LEVELS - 1; i >= 0; i--) {
    const nn_map *y = i == DPT_LEVELS - 1 ? NULL : &level[i];
    int32_t size[2] = {2 * x.size[0], 2 * x.size[1]};
    nn_pass_poll(p);
    for (int k = 0; i && k < 2; k++) size[k] = level[i - 1].size[k];
    /* A later fusion changes its input, which a caller reads too. */
    if (y) {
      nn_map copy = x;
      copy.x = nn_room(p, nn_elements(&x));
      memcpy(copy.x, x.x, (size_t)nn_elements(&x) * sizeof *x.x);
      x = copy;
    }
    path[i] = x = fuse(p, &head->level[i], &x, y, size);
    dpt_tap(p, &x, transformers ? "fusion.%d" : "refinenet%d",
            transformers ? DPT_LEVELS - 1 - i : i + 1);
  }
}

nn_map dpt_output(nn_pass *p, const dpt_head *head, const nn_map *path, const int32_t size[2],
                  int32_t act) {
  nn_map out = nn_new_map(p, path->batch, 1, 2, size, VIV_CHANNELS_LAST);
  nn_mark mark = nn_here(p);
  nn_map half = nn_apply_conv(p, &head->output[0], 0, path);
  nn_map full = nn_resize_map(p, VIV_LINEAR, true, size, &half);
  nn_map wide = nn_apply_conv(p, &head->output[1], VIV_RELU, &full);
  nn_conv_to(p, &head->output[2], act, NULL, &wide, &out);
  nn_release(p, mark);
  return out;
}
