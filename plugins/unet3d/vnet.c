/* V-Net: convolutions of 5 x 5 x 5 with batch norms, residual on each level.
 *
 *   in:    ELU(BN(conv x) + x repeated to 16 channels)
 *   down:  d = ELU(BN(conv 2, stride 2));  ELU(d + units(d))
 *   up:    u = [ELU(BN(transposed x)), skip];  ELU(u + units(u))
 *   out:   conv 1 (ELU(BN(conv 5)))
 *
 * Milletari et al., arXiv:1606.04797; monai/networks/nets/vnet.py. */
#include <stdio.h>
#include <string.h>

#include "unet3d/unet3d.h"

/* Units on each level downwards, and upwards, from the uppermost. */
static const int32_t down_units[] = {1, 2, 3, 2}, up_units[] = {1, 1, 2, 2};

static void config(nn_config *k, struct u3_model *m) {
  struct u3_vnet *v = &m->as.vnet;
  m->style = (struct u3_style){
      .norm = U3_BATCH, .affine = true, .eps = 1e-5f, .act = VIV_ELU, .act_param = 1};
  u3_read_act(k, "act", &m->style);
  v->base = 16;
  v->steps = U3_VNET_STEPS;
  v->bias = nn_flag(k, "bias", false);
  nn_divides(k, v->base, m->in_channels, "16 and in_channels");
  for (int i = 0; i < 3; i++) m->step[i] = 1 << v->steps;
}

static void load_wide(nn_loader *l, const struct u3_model *m, const char *prefix, int32_t in,
                      int32_t out, bool bias, struct u3_unit *unit) {
  nn_conv_spec spec = {.in = in, .out = out, .kernel = 5, .pad = 2, .bias = bias};
  size_t outer = nn_in(l, "%s", prefix);
  u3_load_unit(l, &m->style, "conv_block.conv", "conv_block.adn.N", spec, unit);
  nn_out(l, outer);
}

static void load_step(nn_loader *l, const struct u3_model *m, int32_t width, int32_t from,
                      bool upwards, int32_t level, struct u3_vnet_step *w) {
  const struct u3_vnet *v = &m->as.vnet;
  size_t outer = nn_in(l, upwards ? "up_tr%d." : "down_tr%d.", (int)width);
  nn_conv_spec move = {.in = from,
                       .out = upwards ? width / 2 : width,
                       .kernel = 2,
                       .stride = 2,
                       .bias = upwards || v->bias,
                       .transposed = upwards};
  u3_load_unit(l, &m->style, upwards ? "up_conv" : "down_conv", "bn1", move, &w->move);
  for (int32_t i = 0; i < (upwards ? up_units : down_units)[level]; i++) {
    char name[32];
    snprintf(name, sizeof name, "ops.%d.", (int)i);
    load_wide(l, m, name, width, width, v->bias && !upwards, &w->unit[i]);
  }
  nn_out(l, outer);
}

/* The units upwards never have a bias. Levels are named by their widths: down_tr32 .. down_tr256, up_tr256 .. up_tr32. */
static void tables(nn_loader *l, void *model) {
  struct u3_model *m = model;
  struct u3_vnet *v = &m->as.vnet;
  load_wide(l, m, "in_tr.", m->in_channels, v->base, v->bias, &v->in);
  for (int32_t i = 0; i < v->steps; i++) {
    int32_t width = v->base << (i + 1), below = i + 1 < v->steps ? 2 * width : width;
    load_step(l, m, width, width / 2, false, i, &v->down[i]);
    load_step(l, m, width, below, true, i, &v->up[i]);
  }
  load_wide(l, m, "out_tr.", 2 * v->base, m->classes, v->bias, &v->out);
  u3_load_point(l, "out_tr.conv2", m->classes, m->classes, true, &m->out);
}

/* ELU(units(x) + x) */
static nn_map residual(nn_pass *p, const struct u3_model *m, const struct u3_unit *unit, int32_t n,
                       const nn_map *x) {
  const viv_compute *c = nn_compute_of(p);
  nn_map y = *x;
  for (int32_t i = 0; i < n; i++) {
    nn_pass_poll(p);
    y = u3_apply_unit(p, &m->style, &unit[i], true, &y);
  }
  c->add(c, y.x, x->x, nn_elements(x));
  u3_act(p, &m->style, &y);
  return y;
}

static nn_map enter(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  nn_map y = u3_apply_unit(p, &m->style, &m->as.vnet.in, false, x);
  for (int64_t r = 0; r < nn_space(x) * x->batch; r++)
    for (int32_t k = 0; k < y.channels; k++)
      y.x[r * y.channels + k] += x->x[r * x->channels + k % x->channels];
  u3_act(p, &m->style, &y);
  return y;
}

static nn_map network(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  const struct u3_vnet *v = &m->as.vnet;
  nn_map skip[U3_VNET_STEPS + 1];
  skip[0] = enter(p, m, x);
  u3_tap(p, &skip[0], "in_tr", -1);
  for (int32_t i = 0; i < v->steps; i++) {
    nn_map d = u3_apply_unit(p, &m->style, &v->down[i].move, true, &skip[i]);
    skip[i + 1] = residual(p, m, v->down[i].unit, down_units[i], &d);
    u3_tap(p, &skip[i + 1], "down_tr", v->base << (i + 1));
  }
  nn_map y = skip[v->steps];
  for (int32_t i = v->steps - 1; i >= 0; i--) {
    nn_map up = u3_apply_unit(p, &m->style, &v->up[i].move, true, &y);
    up = u3_join(p, &up, &skip[i]);
    y = residual(p, m, v->up[i].unit, up_units[i], &up);
    u3_tap(p, &y, "up_tr", v->base << (i + 1));
  }
  y = u3_apply_unit(p, &m->style, &v->out, true, &y);
  return nn_apply_conv(p, &m->out, 0, &y);
}

const struct u3_family u3_vnet = {"VNet", config, tables, network};
