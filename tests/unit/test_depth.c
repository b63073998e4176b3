/* Depth: pictures of any shape come back at their size; what a folder or a request says wrongly is
 * refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define MODEL "tests/goldens/depth-anything/tiny"
#define HF "tests/goldens/depth-anything/tiny-hf"
#define IMAGE MODEL "/image.png" /* 61 x 45 */
#define OTHER HF "/image.png"    /* 52 x 37 */

static void expect_map(const results *r, const char *name, int64_t height, int64_t width) {
  const viv_tensor *t = result_of(r, name);
  cr_assert_eq(t->ndim, 2);
  cr_assert_eq(t->shape[0], height);
  cr_assert_eq(t->shape[1], width);
  for (int64_t i = 0; i < height * width; i++) cr_assert(isfinite(((float *)t->data)[i]));
}

/* Two pictures of different shapes in one job are what each is alone. */
Test(depth, pictures_of_different_shapes_share_a_job) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs one = {0}, both = {0};
  results a, b;
  add_image(&one, OTHER);
  add_image(&both, IMAGE);
  add_image(&both, OTHER);
  run_task(m, "depth", &one, "{\"input_size\":28}", &a);
  run_task(m, "depth", &both, "{\"input_size\":28}", &b);
  cr_assert_eq(b.status, VIV_OK, "%s: %s", b.error.where, b.error.message);
  expect_map(&b, "depth.0", 45, 61);
  expect_map(&b, "depth.1", 37, 52);
  cr_assert_arr_eq(result_of(&a, "depth.0")->data, result_of(&b, "depth.1")->data, 37 * 52 * 4);
  free_results(&a);
  free_results(&b);
  free_inputs(&one);
  free_inputs(&both);
}

Test(depth, strips_and_dots_have_a_depth) {
  static const int64_t shapes[][3] = {{1, 1, 3}, {3, 90, 3}, {200, 2, 3}};
  uint8_t *pixels = calloc(3, 400);
  const char *models[] = {MODEL, HF};
  for (int k = 0; k < 2; k++) {
    viv_model *m = load(open_runtime(), models[k]);
    for (int i = 0; i < 3; i++) {
      inputs in = {0};
      results r;
      add_data(&in, "image", VIV_U8, pixels, 3, shapes[i]);
      run_task(m, "depth", &in, k ? NULL : "{\"input_size\":14}", &r);
      cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
      expect_map(&r, "depth.0", shapes[i][0], shapes[i][1]);
      free_results(&r);
    }
  }
  free(pixels);
}

Test(depth, bad_requests_are_refused) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs none = {0}, image = {0}, pixels = {0}, map = {0}, strip = {0};
  float zeros[3 * 28 * 30] = {0};
  uint8_t *line = calloc(3, 4000);
  add_image(&image, IMAGE);
  add_data(&pixels, "pixel_values", VIV_F32, zeros, 4, (const int64_t[]){1, 3, 28, 30});
  add_data(&map, "predicted_depth", VIV_F32, zeros, 3, (const int64_t[]){1, 4, 4});
  add_data(&strip, "image", VIV_U8, line, 3, (const int64_t[]){1, 4000, 3});
  expect_error(m, "depth", &none, NULL, VIV_BAD_INPUT, "missing");
  expect_error(m, "depth", &image, "{\"input_size\":0}", VIV_BAD_INPUT, "input_size");
  expect_error(m, "depth", &image, "{\"resize_method\":\"biggest\"}", VIV_BAD_INPUT, "lower_bound");
  expect_error(m, "depth", &image, "{\"image_std\":[1,0,1]}", VIV_BAD_INPUT, "image_std");
  expect_error(m, "depth", &image, "{\"ensure_multiple_of\":5}", VIV_BAD_INPUT, "multiples of 14");
  expect_error(m, "depth", &strip, NULL, VIV_BAD_INPUT, "smaller input_size");
  expect_error(m, "forward", &pixels, NULL, VIV_BAD_INPUT, "multiples of 14");
  expect_error(m, "postprocess", &map, NULL, VIV_BAD_INPUT, "target_sizes");
  expect_error(m, "postprocess", &map, "{\"target_sizes\":[[4]]}", VIV_BAD_INPUT,
               "target_sizes[0]");
  expect_error(m, "postprocess", &map, "{\"target_sizes\":[[4,1e9]]}", VIV_BAD_INPUT, "a width");
  free(line);
  free_inputs(&image);
}

Test(depth, checkpoints_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_model(rt, MODEL, "\"depth\": 5", "\"depth\": 4", "must ascend below 4");
  refuse_model(rt, MODEL, "\"depth\": 5", "\"depth\": 6", "pretrained.blocks.5.");
  refuse_model(rt, MODEL, "\"features\": 8", "\"features\": 10", "refinenet1");
  refuse_model(rt, MODEL, "\"features\": 8", "\"features\": 9", "not a multiple of 2");
  refuse_model(rt, MODEL, "\"custom\"", "\"vitx\"", "vits, vitb, vitl");
  refuse_model(rt, MODEL, "\"relative\"", "\"absolute\"", "relative or metric");
  refuse_model(rt, MODEL, "\"use_clstoken\": false", "\"use_clstoken\": true", "readout_projects");
  refuse_model(rt, MODEL, "\"use_bn\": false", "\"use_bn\": true", "bn1");
  refuse_model(rt, HF, "\"model_type\": \"dinov2\"", "\"model_type\": \"beit\"", "dinov2");
  refuse_model(rt, HF, "\"reassemble_hidden_size\": 16", "\"reassemble_hidden_size\": 8", "width");
}
