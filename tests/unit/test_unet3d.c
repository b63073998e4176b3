/* Volumes: windows over any size agree with the network where one window is all; labels are the
 * likeliest classes; what does not fit is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define SLIDING "tests/goldens/unet3d/sliding-window" /* DynUNet, 1 channel, 2 classes */
#define DYN "tests/goldens/unet3d/dynunet-dsd"

static float *noise(int64_t n) {
  float *x = malloc((size_t)n * sizeof *x);
  uint32_t s = 7;
  for (int64_t i = 0; i < n; i++) {
    s = s * 1664525 + 1013904223;
    x[i] = (float)(s >> 8) / (1 << 24) - 0.5f;
  }
  return x;
}

Test(unet3d, one_window_is_the_network) {
  viv_model *m = load(open_runtime(), SLIDING);
  float *x = noise(8 * 12 * 4);
  inputs in = {0};
  results whole, slid;
  add_data(&in, "pixel_values", VIV_F32, x, 5, (const int64_t[]){1, 1, 8, 12, 4});
  run_task(m, "forward", &in, NULL, &whole);
  run_task(m, "segment3d", &in, "{\"roi_size\":[8,12,4],\"mode\":\"gaussian\"}", &slid);
  cr_assert_eq(slid.status, VIV_OK, "%s: %s", slid.error.where, slid.error.message);
  const float *a = result_of(&whole, "logits")->data, *b = result_of(&slid, "seg_logits")->data;
  const int32_t *labels = result_of(&slid, "labels")->data;
  for (int i = 0; i < 2 * 8 * 12 * 4; i++) cr_assert_float_eq(a[i], b[i], 1e-5);
  for (int i = 0; i < 8 * 12 * 4; i++) cr_assert_eq(labels[i], b[8 * 12 * 4 + i] > b[i]);
  free_results(&whole);
  free_results(&slid);
  free(x);
}

/* A person's CT in Hounsfield units gives what its prepared numbers give. */
Test(unet3d, intensities_are_prepared_when_asked) {
  viv_model *m = load(open_runtime(), SLIDING);
  enum { N = 8 * 12 * 4 };
  float *x = noise(N), *y = malloc(N * sizeof *y);
  double sum = 0, square = 0;
  int count = 0;
  for (int i = 0; i < N; i++) x[i] *= 1000;
  for (int i = 0; i < N; i++) {
    y[i] = (float)fmin(fmax(((double)x[i] + 175) / 425, 0), 1);
    sum += (double)y[i];
    count += y[i] != 0;
  }
  for (int i = 0; i < N; i++)
    if (y[i] != 0) square += ((double)y[i] - sum / count) * ((double)y[i] - sum / count);
  for (int i = 0; i < N; i++)
    if (y[i] != 0) y[i] = (float)(((double)y[i] - sum / count) / sqrt(square / count));
  inputs person = {0}, ready = {0};
  results a, b;
  add_data(&person, "volume", VIV_F32, x, 4, (const int64_t[]){1, 8, 12, 4});
  add_data(&ready, "pixel_values", VIV_F32, y, 5, (const int64_t[]){1, 1, 8, 12, 4});
  run_task(m, "segment3d", &person, "{\"roi_size\":[8,12,4],\"intensity\":\"ct\"}", &a);
  run_task(m, "segment3d", &ready, "{\"roi_size\":[8,12,4]}", &b);
  cr_assert_eq(a.status, VIV_OK, "%s: %s", a.error.where, a.error.message);
  const float *p = result_of(&a, "seg_logits")->data, *q = result_of(&b, "seg_logits")->data;
  for (int i = 0; i < 2 * N; i++) cr_assert_float_eq(p[i], q[i], 1e-4);
  free_results(&a);
  free_results(&b);
  free(x);
  free(y);
}

Test(unet3d, bad_requests_are_refused) {
  viv_model *m = load(open_runtime(), SLIDING);
  float *x = noise(2 * 16 * 16 * 16);
  inputs in = {0}, none = {0}, odd = {0}, two = {0};
  add_data(&in, "pixel_values", VIV_F32, x, 5, (const int64_t[]){1, 1, 16, 16, 16});
  add_data(&odd, "pixel_values", VIV_F32, x, 5, (const int64_t[]){1, 1, 16, 15, 16});
  add_data(&two, "pixel_values", VIV_F32, x, 5, (const int64_t[]){1, 2, 16, 16, 16});
  expect_error(m, "segment3d", &none, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "forward", &odd, NULL, VIV_BAD_INPUT, "multiples of");
  expect_error(m, "forward", &two, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "segment3d", &in, "{\"roi_size\":[7,8,8]}", VIV_BAD_INPUT, "multiples of");
  expect_error(m, "segment3d", &in, "{\"roi_size\":[8,8]}", VIV_BAD_INPUT, "two");
  expect_error(m, "segment3d", &in, "{\"overlap\":1}", VIV_BAD_INPUT, "overlap");
  expect_error(m, "segment3d", &in, "{\"mode\":\"cubic\"}", VIV_BAD_INPUT, "gaussian");
  expect_error(m, "segment3d", &in, "{\"padding_mode\":\"edge\"}", VIV_BAD_INPUT, "replicate");
  free(x);
}

/* Every way to fill a volume up to the window. */
Test(unet3d, a_volume_smaller_than_the_window_is_filled_up) {
  static const char *const modes[] = {"constant", "replicate", "reflect", "circular"};
  viv_model *m = load(open_runtime(), SLIDING);
  float *x = noise(5 * 3 * 1);
  inputs in = {0};
  add_data(&in, "pixel_values", VIV_F32, x, 5, (const int64_t[]){1, 1, 5, 3, 1});
  for (int i = 0; i < 4; i++) {
    char params[96];
    results r;
    snprintf(params, sizeof params, "{\"roi_size\":[16,12,4],\"padding_mode\":\"%s\"}", modes[i]);
    run_task(m, "segment3d", &in, params, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
    const viv_tensor *y = result_of(&r, "seg_logits");
    cr_assert_eq(y->bytes, 2 * 5 * 3 * sizeof(float));
    for (int k = 0; k < 30; k++) cr_assert(isfinite(((float *)y->data)[k]));
    free_results(&r);
  }
  free(x);
}

Test(unet3d, checkpoints_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_model(rt, DYN, "\"DynUNet\"", "\"SegResNet\"", "DynUNet, BasicUNet");
  refuse_model(rt, DYN, "\"res_block\": true", "\"res_block\": false", "conv3");
  refuse_model(rt, DYN, "\"instance\"", "\"layer\"", "instance, batch or group");
  refuse_model(rt, DYN, "\"leakyrelu\"", "\"prelu\"", "not supported");
  refuse_model(rt, DYN, "\"spatial_dims\": 3", "\"spatial_dims\": 2", "must be 3");
}
