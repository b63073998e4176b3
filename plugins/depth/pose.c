#include "depth/pose.h"

#include <math.h>
#include <string.h>

#include "depth/dpt.h"

/* ---- weights ---- */

void pose_resnet(nn_config *k, int64_t layers, int32_t width, nn_resnet_spec *spec) {
  static const struct {
    int64_t layers;
    const char *name;
  } known[] = {
      {18, "resnet18"}, {34, "resnet34"}, {50, "resnet50"}, {101, "resnet101"}, {152, "resnet152"}};
  bool found = false;
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].layers == layers) found = nn_resnet_named(nn_str(known[i].name), spec);
  if (!found && !k->status)
    k->status = nn_fail(k->error, VIV_NEVER, k->where,
                        "num_layers is %lld, but ResNets have 18, 34, 50, 101 or 152 layers",
                        (long long)layers);
  spec->names = NN_RESNET_TORCHVISION;
  spec->stem = width;
  for (int i = 0; i < 4; i++) {
    spec->inner[i] = width << i;
    spec->out[i] = (spec->basic ? width : 4 * width) << i;
  }
}

void pose_read(nn_config *k, int64_t layers, float factor, pose_net *net) {
  pose_resnet(k, layers, (int32_t)nn_int(k, "pose_width", 64, 1, 1024), &net->spec);
  net->spec.in_channels = 6;
  net->hidden = (int32_t)nn_int(k, "pose_hidden", 256, 1, 1 << 14);
  net->factor = factor;
}

void pose_load(nn_loader *l, pose_net *net) {
  int32_t h = net->hidden;
  nn_conv_spec spec[4] = {{.in = net->spec.out[3], .out = h, .kernel = 1, .bias = true},
                          {.in = h, .out = h, .kernel = 3, .pad = 1, .bias = true},
                          {.in = h, .out = h, .kernel = 3, .pad = 1, .bias = true},
                          {.in = h, .out = 12, .kernel = 1, .bias = true}};
  static const char *const names[] = {"net.0", "net.1", "net.2", "net.3"};
  size_t outer = nn_in(l, "pose_encoder.encoder.");
  nn_load_resnet(l, &net->spec, &net->encoder);
  nn_out(l, outer);
  outer = nn_in(l, "pose.");
  for (int i = 0; i < 4; i++) nn_load_conv(l, names[i], &spec[i], &net->net[i]);
  nn_out(l, outer);
  nn_ignore(l, "pose_encoder.encoder.fc.*"); /* of the classifier that the encoder was */
}

/* ---- the pass ---- */

static nn_map joined(nn_pass *p, const depth_batch *first, const depth_batch *second,
                     bool normalised) {
  int64_t one = 3 * (int64_t)first->height * first->width;
  depth_batch both = {first->n, first->height, first->width, nn_room(p, 2 * first->n * one)};
  if (first->n != second->n)
    nn_stop(p, VIV_BAD_INPUT, "frames", "%d pictures of one time and %d of the other",
            (int)first->n, (int)second->n);
  for (int32_t b = 0; b < first->n; b++) {
    memcpy(both.pixels + 2 * b * one, first->pixels + b * one, (size_t)one * sizeof(float));
    memcpy(both.pixels + (2 * b + 1) * one, second->pixels + b * one, (size_t)one * sizeof(float));
  }
  for (int64_t i = 0; normalised && i < 2 * first->n * one; i++)
    both.pixels[i] = (both.pixels[i] - 0.45f) / 0.225f;
  return depth_map_of(&both, 6);
}

pose_motion pose_of(nn_pass *p, const pose_net *net, const depth_batch *first,
                    const depth_batch *second, bool tap) {
  int32_t n = first->n;
  pose_motion m = {.axisangle = nn_room(p, 6 * (int64_t)n),
                   .translation = nn_room(p, 6 * (int64_t)n)};
  nn_map x = joined(p, first, second, net->normalised);
  nn_map y = nn_conv_shape(p, &net->encoder.stem[0], &x, VIV_CHANNELS_LAST);
  y.x = nn_room(p, nn_elements(&y));
  nn_conv_to(p, &net->encoder.stem[0], VIV_RELU, NULL, &x, &y);
  if (tap) dpt_tap(p, &y, "features.%d", 0);
  y = nn_pool2d(p, VIV_POOL_MAX, 3, 2, 1, false, &y);
  for (int32_t s = 0; s < 4; s++) {
    y = nn_resnet_stage(p, &net->encoder, s, &y);
    if (tap) dpt_tap(p, &y, "features.%d", s + 1);
  }
  for (int i = 0; i < 2; i++) y = nn_apply_conv(p, &net->net[i], VIV_RELU, &y);
  m.middle = nn_apply_conv(p, &net->net[2], 0, &y);
  if (tap) dpt_tap(p, &m.middle, "intermediate_feature", 0);
  const viv_compute *c = nn_compute_of(p);
  nn_map last = m.middle;
  last.x = nn_room(p, nn_elements(&last));
  c->unary(c, VIV_RELU, m.middle.x, last.x, nn_elements(&last));
  y = nn_apply_conv(p, &net->net[3], 0, &last); /* [B, h, w, 12] */
  int64_t space = nn_space(&y);
  for (int64_t b = 0; b < n; b++)
    for (int64_t k = 0; k < 12; k++) {
      double sum = 0;
      for (int64_t i = 0; i < space; i++) sum += (double)y.x[(b * space + i) * 12 + k];
      float *to = k % 6 < 3 ? m.axisangle : m.translation;
      to[(2 * b + k / 6) * 3 + k % 3] = (float)(sum / (double)space * (double)net->factor);
    }
  return m;
}

void pose_matrix(const float axisangle[3], const float t[3], bool invert, float out[16]) {
  double a[3], r[3][3], angle = 0;
  for (int i = 0; i < 3; i++) angle += (double)axisangle[i] * (double)axisangle[i];
  angle = sqrt(angle);
  for (int i = 0; i < 3; i++) a[i] = (double)axisangle[i] / (angle + 1e-7);
  double c = cos(angle), s = sin(angle), k = 1 - c;
  double cross[3][3] = {{0, -a[2], a[1]}, {a[2], 0, -a[0]}, {-a[1], a[0], 0}};
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) r[i][j] = (i == j ? c : 0) + k * a[i] * a[j] + s * cross[i][j];
  memset(out, 0, 16 * sizeof *out);
  for (int i = 0; i < 3; i++) {
    double moved = (double)t[i];
    if (invert) moved = 0;
    for (int j = 0; j < 3; j++) {
      out[4 * i + j] = (float)(invert ? r[j][i] : r[i][j]);
      if (invert) moved -= r[j][i] * (double)t[j];
    }
    out[4 * i + 3] = (float)moved;
  }
  out[15] = 1;
}
