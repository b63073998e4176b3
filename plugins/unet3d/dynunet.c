/* DynUNet, the self-configuring U-Net of nnU-Net:
 *
 *   x -> input_block -> downsamples.0 .. -> bottleneck            strides before each
 *   up:  x = block([transposed(x), skip])                          upsamples.0 is the deepest
 *
 * Official: monai/networks/nets/dynunet.py. */
#include <stdio.h>
#include <string.h>

#include "unet3d/unet3d.h"

/* A list with a number or three numbers for each level. Answers how many. */
static int32_t read_list(nn_config *k, const char *key, int32_t out[U3_LEVELS][3]) {
  const viv_host *h = k->host;
  const viv_json *list = nn_key(k, key);
  int64_t n = list && h->json_type(list) == VIV_JSON_ARRAY ? h->json_count(list) : 0;
  if ((n < 1 || n > U3_LEVELS) && !k->status)
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s must be a list of 1 to %d levels",
                        key, U3_LEVELS);
  for (int64_t i = 0; i < n && !k->status; i++) {
    const viv_json *item = h->json_item(list, i);
    bool three = h->json_type(item) == VIV_JSON_ARRAY;
    if (three && h->json_count(item) != 3)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "%s[%lld] must be three numbers", key,
                          (long long)i);
    for (int64_t a = 0; a < 3 && !k->status; a++) {
      double v = h->json_number(three ? h->json_item(item, a) : item);
      if (!(v >= 1 && v <= 32) || v != (double)(int32_t)v)
        k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                            "%s[%lld] holds no whole numbers from 1 to 32", key, (long long)i);
      else
        out[i][a] = (int32_t)v;
    }
  }
  return (int32_t)n;
}

static void config(nn_config *k, struct u3_model *m) {
  struct u3_dynunet *d = &m->as.dynunet;
  m->style = (struct u3_style){
      .norm = U3_INSTANCE, .affine = true, .eps = 1e-5f, .act = VIV_LEAKY_RELU, .act_param = 0.01f};
  u3_read_norm(k, "norm_name", &m->style);
  u3_read_act(k, "act_name", &m->style);
  d->n = read_list(k, "strides", d->stride);
  int32_t kernels = read_list(k, "kernel_size", d->kernel);
  int32_t ups = read_list(k, "upsample_kernel_size", d->up);
  if (!k->status && (d->n < 3 || kernels != d->n || ups != d->n - 1))
    k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where,
                        "strides, kernel_size and upsample_kernel_size have %d, %d and %d levels; "
                        "at least 3, as many, and one less are needed",
                        (int)d->n, (int)kernels, (int)ups);
  if (k->status) return;
  for (int32_t i = 0; i < d->n; i++) d->filters[i] = 32 << i < 320 ? 32 << i : 320;
  if (nn_key(k, "filters")) {
    int32_t n = nn_ints(k, "filters", d->filters, U3_LEVELS, 1, 1 << 14);
    if (n < d->n && !k->status)
      k->status = nn_fail(k->error, VIV_BAD_INPUT, k->where, "filters has %d levels, strides %d",
                          (int)n, (int)d->n);
  }
  d->res_block = nn_flag(k, "res_block", false);
  d->trans_bias = nn_flag(k, "trans_bias", false);
  for (int32_t i = 0; i < d->n; i++)
    for (int a = 0; a < 3; a++) {
      m->step[a] *= d->stride[i][a];
      bool fits = i == 0 || d->stride[i][a] == d->up[i - 1][a];
      if ((!fits || m->step[a] > U3_SIDE_MAX) && !k->status)
        k->status =
            nn_fail(k->error, VIV_BAD_INPUT, k->where, "level %d goes down by %d and up by %d",
                    (int)i, (int)d->stride[i][a], i ? (int)d->up[i - 1][a] : 1);
      if (k->status) return;
    }
}

static void tables(nn_loader *l, void *model) {
  struct u3_model *m = model;
  struct u3_dynunet *d = &m->as.dynunet;
  static const int32_t ones[] = {1, 1, 1};
  for (int32_t i = 0; i < d->n; i++) {
    char name[32];
    snprintf(name, sizeof name, i == 0 ? "input_block." : "bottleneck.");
    if (i && i < d->n - 1) snprintf(name, sizeof name, "downsamples.%d.", (int)i - 1);
    u3_load_block(l, &m->style, name, i ? d->filters[i - 1] : m->in_channels, d->filters[i],
                  d->kernel[i], d->stride[i], d->res_block, &d->down[i]);
  }
  for (int32_t i = 0; i < d->n - 1; i++) {
    int32_t level = d->n - 1 - i, out = d->filters[level - 1];
    char name[40];
    snprintf(name, sizeof name, "upsamples.%d.transp_conv.conv", (int)i);
    u3_load_up(l, name, d->filters[level], out, d->up[level - 1], d->trans_bias, &d->transposed[i]);
    snprintf(name, sizeof name, "upsamples.%d.conv_block.", (int)i);
    u3_load_block(l, &m->style, name, 2 * out, out, d->kernel[level], ones, false, &d->decode[i]);
  }
  u3_load_point(l, "output_block.conv.conv", d->filters[0], m->classes, true, &m->out);
  /* Heads of training, and the second names under which the release stores parts. */
  nn_ignore(l, "deep_*");
  nn_ignore(l, "skip_layers.*");
  nn_ignore(l, "self_distillation_*");
}

static nn_map network(nn_pass *p, const struct u3_model *m, const nn_map *x) {
  const struct u3_dynunet *d = &m->as.dynunet;
  nn_map skip[U3_LEVELS], y = *x;
  for (int32_t i = 0; i < d->n; i++) {
    skip[i] = y = u3_apply_block(p, &m->style, &d->down[i], &y);
    if (i && i < d->n - 1) u3_tap(p, &y, "downsamples.", i - 1);
    if (!i || i == d->n - 1) u3_tap(p, &y, i ? "bottleneck" : "input_block", -1);
  }
  for (int32_t i = 0; i < d->n - 1; i++) {
    nn_map up = nn_apply_conv(p, &d->transposed[i], 0, &y);
    up = u3_join(p, &up, &skip[d->n - 2 - i]);
    y = u3_apply_block(p, &m->style, &d->decode[i], &up);
    u3_tap(p, &y, "upsamples.", i);
  }
  return nn_apply_conv(p, &m->out, 0, &y);
}

const struct u3_family u3_dynunet = {"DynUNet", config, tables, network};
