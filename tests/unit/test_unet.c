/* Slices to maps of classes: any size comes back at that size, and what does not fit is refused. */
#include "changed.h"
#include "pass_rt.h"

#define MODEL "tests/goldens/daf-stack/full-png"
#define IMAGE MODEL "/image.png" /* 72 x 56 */

/* A picture whose sides need no filling up has the classes that its logits say. */
Test(unet, classes_are_the_largest_logits) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs in = {0}, pixels = {0};
  results pre, logits, found;
  add_image(&in, IMAGE);
  run_task(m, "preprocess", &in, NULL, &pre);
  add_tensor(&pixels, "pixel_values", result_of(&pre, "pixel_values"));
  run_task(m, "forward", &pixels, NULL, &logits);
  run_task(m, "segment", &in, NULL, &found);
  cr_assert_eq(found.status, VIV_OK, "%s: %s", found.error.where, found.error.message);
  const viv_tensor *map = result_of(&found, "labels.0"), *y = result_of(&logits, "logits");
  cr_assert_eq(map->shape[0], 56);
  cr_assert_eq(map->shape[1], 72);
  const float *x = y->data;
  int64_t n = 56 * 72, seen[5] = {0};
  for (int64_t i = 0; i < n; i++) {
    int32_t label = ((int32_t *)map->data)[i];
    cr_assert(label >= 0 && label < 5);
    for (int k = 0; k < 5; k++) cr_assert_geq(x[label * n + i], x[k * n + i]);
    seen[label]++;
  }
  cr_assert_lt(seen[0], n);
  free_results(&pre);
  free_results(&logits);
  free_results(&found);
  free_inputs(&in);
}

Test(unet, odd_slices_come_back_at_their_size) {
  static const int64_t shapes[][3] = {{1, 1, 3}, {17, 30, 3}, {3, 41, 3}};
  viv_model *m = load(open_runtime(), MODEL);
  uint8_t *pixels = calloc(3, 600);
  for (int i = 0; i < 3; i++) {
    inputs in = {0};
    results r;
    add_data(&in, "image", VIV_U8, pixels, 3, shapes[i]);
    run_task(m, "segment", &in, NULL, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
    cr_assert_eq(result_of(&r, "labels.0")->shape[0], shapes[i][0]);
    cr_assert_eq(result_of(&r, "labels.0")->shape[1], shapes[i][1]);
    free_results(&r);
  }
  free(pixels);
}

Test(unet, what_does_not_fit_is_refused) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, MODEL);
  inputs none = {0}, odd = {0}, small = {0}, colours = {0};
  float *zeros = calloc(3 * 20 * 24, sizeof *zeros);
  add_data(&odd, "pixel_values", VIV_F32, zeros, 4, (const int64_t[]){1, 1, 20, 24});
  add_data(&small, "pixel_values", VIV_F32, zeros, 4, (const int64_t[]){1, 1, 8, 24});
  add_data(&colours, "pixel_values", VIV_F32, zeros, 4, (const int64_t[]){1, 3, 16, 24});
  expect_error(m, "segment", &none, NULL, VIV_BAD_INPUT, "missing");
  expect_error(m, "forward", &odd, NULL, VIV_BAD_INPUT, "multiples of 8");
  expect_error(m, "forward", &small, NULL, VIV_BAD_INPUT, "from 16");
  expect_error(m, "forward", &colours, NULL, VIV_BAD_INPUT, "pixel_values");
  free(zeros);
  refuse_model(rt, MODEL, "\"num_classes\": 5", "\"num_classes\": 6", "predict1_2");
  refuse_model(rt, MODEL, "\"pam_reduction\": 2", "\"pam_reduction\": 3", "not a multiple of 3");
  refuse_model(rt, MODEL, "\"resnext\"", "\"vgg\"", "resnext");
  refuse_model(rt, MODEL, "\"width_per_group\": 32", "\"width_per_group\": 1", "no channels");
}
