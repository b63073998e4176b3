/* MEDUSA: a picture goes the official way, attention lies between 0 and 1, and what is refused. */
#include "changed.h"
#include "pass_rt.h"

#define MODEL "tests/goldens/medusa/canonical-png"
#define IMAGE MODEL "/image.png"

Test(medusa, a_picture_is_the_official_steps_one_by_one) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs picture = {0}, values = {0};
  results cut, direct, steps, odds;
  add_image(&picture, IMAGE);
  add_image(&picture, IMAGE);
  run_task(m, "preprocess", &picture, NULL, &cut);
  add_tensor(&values, "pixel_values", result_of(&cut, "pixel_values"));
  add_tensor(&values, "pixel_values_gray", result_of(&cut, "pixel_values_gray"));
  run_task(m, "forward", &picture, NULL, &direct);
  run_task(m, "forward", &values, NULL, &steps);
  const viv_tensor *a = result_of(&direct, "logits"), *b = result_of(&steps, "logits");
  cr_assert_arr_eq(a->data, b->data, a->bytes);
  cr_assert_arr_eq(a->data, (const char *)a->data + a->bytes / 2, a->bytes / 2);
  const viv_tensor *map = result_of(&direct, "global_attention");
  for (uint64_t i = 0; i < map->bytes / sizeof(float); i++) {
    float v = ((const float *)map->data)[i];
    cr_assert(v >= 0 && v <= 1);
  }
  run_task(m, "classify", &picture, NULL, &odds);
  const float *p = result_of(&odds, "probabilities")->data;
  cr_assert_float_eq(p[0] + p[1], 1, 1e-5);
  free_results(&cut);
  free_results(&direct);
  free_results(&steps);
  free_results(&odds);
  free_inputs(&picture);
}

Test(medusa, bad_input_is_named) {
  viv_model *m = load(open_runtime(), MODEL);
  static const float few[3 * 64 * 64];
  inputs none = {0}, half = {0}, small = {0};
  add_data(&half, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 3, 64, 64});
  add_data(&small, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 3, 64, 64});
  add_data(&small, "pixel_values_gray", VIV_F32, few, 4, (const int64_t[]){1, 1, 1, 1});
  expect_error(m, "classify", &none, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "preprocess", &half, NULL, VIV_BAD_INPUT, "image");
  expect_error(m, "forward", &half, NULL, VIV_BAD_INPUT, "pixel_values_gray");
  expect_error(m, "forward", &small, NULL, VIV_BAD_INPUT, "too small");
}

Test(medusa, configurations_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, MODEL, "\"depth\": 2", "\"depth\": 3", "unet.down.2");
  refuse_changed(rt, MODEL, "\"planes\": 4", "\"planes\": 8", "classifier.conv1.weight");
  refuse_changed(rt, MODEL, "\"num_classes\": 2", "\"num_classes\": 0", "num_classes");
  viv_close(rt);
}
