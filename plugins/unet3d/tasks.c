/* The network on tensors, and a person's volume to labels. */
#include <string.h>

#include "nn/volume.h"
#include "unet3d/unet3d.h"

enum { VOXELS_MAX = 1 << 30 };

nn_map u3_network(nn_pass *p, const struct u3_model *m, const float *x, int64_t batch,
                  const int32_t size[3]) {
  nn_map in = {.x = (float *)(uintptr_t)x, /* read only */
               .batch = (int32_t)batch,
               .channels = m->in_channels,
               .dims = 3,
               .size = {size[0], size[1], size[2]},
               .layout = VIV_CHANNELS_FIRST};
  for (int k = 0; k < 3; k++)
    if (size[k] % m->step[k])
      nn_stop(p, VIV_BAD_INPUT, "size",
              "%d x %d x %d voxels, but the network takes multiples of %d x %d x %d; segment3d "
              "slides windows over any volume",
              (int)size[0], (int)size[1], (int)size[2], (int)m->step[0], (int)m->step[1],
              (int)m->step[2]);
  in = nn_to_layout(p, &in, VIV_CHANNELS_LAST);
  return m->family->network(p, m, &in);
}

/* A volume's tensor of ndim axes, the last three of which are space. */
static const float *read_volume(nn_pass *p, const char *name, int32_t ndim, int64_t shape[5],
                                int32_t size[3]) {
  const struct u3_model *m = nn_net_of(p);
  shape[ndim - 4] = m->in_channels;
  const float *x = nn_need_floats(p, name, ndim, shape);
  int64_t voxels = 1;
  for (int k = 0; k < 3; k++) {
    int64_t n = shape[ndim - 3 + k];
    if (n < 1 || n > U3_SIDE_MAX)
      nn_stop(p, VIV_BAD_INPUT, name, "axis %d has the length %lld, each side has 1 to %d voxels",
              k, (long long)n, U3_SIDE_MAX);
    size[k] = (int32_t)n;
    voxels *= n;
  }
  if (voxels > VOXELS_MAX)
    nn_stop(p, VIV_BAD_INPUT, name, "%lld voxels, at most %d", (long long)voxels, VOXELS_MAX);
  return x;
}

static int32_t forward(nn_pass *p) {
  const struct u3_model *m = nn_net_of(p);
  int64_t shape[5] = {0};
  int32_t size[3];
  const float *x = read_volume(p, "pixel_values", 5, shape, size);
  if (shape[0] < 1 || shape[0] > 1 << 12)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "a batch of %lld volumes", (long long)shape[0]);
  nn_map y = u3_network(p, m, x, shape[0], size);
  y = nn_to_layout(p, &y, VIV_CHANNELS_FIRST);
  nn_result(p, VIV_F32, y.x, NN_DIMS(y.batch, y.channels, y.size[0], y.size[1], y.size[2]),
            "logits");
  return VIV_DONE;
}

/* ---- a person's volume ---- */

static struct u3_prepare prepare_of(nn_pass *p, const struct u3_model *m) {
  struct u3_prepare a = m->prepare;
  viv_str kind = nn_param_text(p, "intensity", "");
  if (kind.len) {
    a.kind = nn_is(kind, "ct") ? U3_CT : nn_is(kind, "mr") ? U3_MR : U3_AS_IS;
    if (!a.kind && !nn_is(kind, "none"))
      nn_stop(p, VIV_BAD_INPUT, "params", "intensity is \"%.*s\", but must be ct, mr or none",
              (int)(kind.len < 40 ? kind.len : 40), kind.ptr);
  }
  a.a_min = nn_param_num(p, "a_min", a.a_min, -1e9, 1e9);
  a.a_max = nn_param_num(p, "a_max", a.a_max, -1e9, 1e9);
  a.b_min = nn_param_num(p, "b_min", a.b_min, -1e9, 1e9);
  a.b_max = nn_param_num(p, "b_max", a.b_max, -1e9, 1e9);
  a.clip_min = nn_param_num(p, "clip_min", a.clip_min, -1e9, 1e9);
  a.clip = nn_param_flag(p, "clip", a.clip);
  a.nonzero = nn_param_flag(p, "nonzero", a.nonzero);
  a.channel_wise = nn_param_flag(p, "channel_wise", a.channel_wise);
  return a;
}

/* CT: clipped and scaled, then normalised; MR: cut below, then normalised. */
static const float *prepared(nn_pass *p, const struct u3_model *m, const float *from, int64_t n) {
  struct u3_prepare a = prepare_of(p, m);
  int64_t all = m->in_channels * n;
  if (a.kind == U3_AS_IS) return from;
  float *x = nn_room(p, all);
  memcpy(x, from, (size_t)all * sizeof *x);
  if (a.kind == U3_CT) nn_scale_range(x, all, a.a_min, a.a_max, a.b_min, a.b_max, a.clip);
  for (int64_t i = 0; a.kind == U3_MR && i < all; i++)
    if ((double)x[i] < a.clip_min) x[i] = (float)a.clip_min;
  if (!a.channel_wise)
    nn_normalize_intensity(x, all, a.nonzero);
  else
    for (int32_t c = 0; c < m->in_channels; c++) nn_normalize_intensity(x + c * n, n, a.nonzero);
  return x;
}

/* The likeliest class of each voxel; of a single class: 1 where its logit is above 0. */
static void put_labels(nn_pass *p, const struct u3_model *m, const float *logits,
                       const int32_t size[3]) {
  int64_t n = (int64_t)size[0] * size[1] * size[2];
  int32_t *labels = nn_bytes(p, n, sizeof *labels);
  for (int64_t i = 0; i < n; i++) {
    labels[i] = m->classes == 1 && logits[i] > 0;
    for (int32_t c = 1; c < m->classes; c++)
      if (logits[c * n + i] > logits[labels[i] * n + i]) labels[i] = c;
  }
  nn_result(p, VIV_I32, labels, NN_DIMS(size[0], size[1], size[2]), "labels");
}

/* pixel_values go into the network as they are; a volume [C, D, H, W] is prepared before. */
static int32_t segment3d(nn_pass *p) {
  const struct u3_model *m = nn_net_of(p);
  int64_t shape[5] = {0};
  int32_t size[3];
  bool person = nn_count(p, "volume") > 0;
  const float *x = person ? read_volume(p, "volume", 4, shape, size)
                          : read_volume(p, "pixel_values", 5, shape, size);
  int64_t n = (int64_t)size[0] * size[1] * size[2];
  if (!person && shape[0] != 1)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values", "a batch of %lld volumes: one at a time",
            (long long)shape[0]);
  if (person) x = prepared(p, m, x, n);
  const float *logits = u3_slide(p, m, x, size);
  if (nn_wants_result(p, "labels")) put_labels(p, m, logits, size);
  if (nn_wants_result(p, "seg_logits"))
    nn_result(p, VIV_F32, logits, NN_DIMS(1, m->classes, size[0], size[1], size[2]), "seg_logits");
  return VIV_DONE;
}

const nn_task u3_tasks[] = {{"segment3d", segment3d}, {"forward", forward}, {NULL, NULL}};
