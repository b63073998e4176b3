/* Segmenters: the map of classes is the largest logit at each pixel of the picture that came in, and
 * what is refused. */
#include "changed.h"
#include "pass_rt.h"

#define SEGFORMER "tests/goldens/segformer/hf-png"
#define MIT "tests/goldens/segformer/mit-daformer"
#define DEEPLAB "tests/goldens/deeplabv2/resnetv1c-dlv2"
#define SSMA "tests/goldens/adapnet/ssma"
#define XNET "tests/goldens/xnet/depth"
#define IMAGE SEGFORMER "/image.png" /* 110 x 75 */

/* Both resizings round a little differently; a pixel may differ only where two logits tie. */
static void expect_largest(const viv_tensor *logits, const viv_tensor *labels) {
  int64_t classes = logits->shape[1], space = labels->shape[0] * labels->shape[1];
  const float *x = logits->data;
  const int32_t *at = labels->data;
  for (int64_t i = 0; i < space; i++) {
    float best = x[i];
    for (int64_t k = 1; k < classes; k++) best = x[k * space + i] > best ? x[k * space + i] : best;
    cr_assert(at[i] >= 0 && at[i] < classes);
    cr_assert_float_eq(x[at[i] * space + i], best, 1e-4);
  }
}

static void check_map(viv_runtime *rt, const char *model, int32_t height, int32_t width) {
  static float pixels[3 * 64 * 96];
  char params[64];
  inputs in = {0};
  results r;
  viv_model *m = load(rt, model);
  for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++)
    pixels[i] = (float)((i * 2654435761u >> 12) % 1000) / 500 - 1;
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, (const int64_t[]){1, 3, 64, 96});
  snprintf(params, sizeof params, "{\"target_sizes\":[[%d,%d]]}", (int)height, (int)width);
  run_task(m, "segment", &in, params, &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *labels = result_of(&r, "labels.0");
  cr_assert_eq(labels->shape[0], height);
  cr_assert_eq(labels->shape[1], width);
  expect_largest(result_of(&r, "seg_logits"), labels);
  free_results(&r);
}

Test(segmenter, a_pixel_has_the_class_of_its_largest_logit) {
  viv_runtime *rt = open_runtime();
  check_map(rt, SEGFORMER, 75, 110);
  check_map(rt, SEGFORMER, 1, 1);
  check_map(rt, MIT, 64, 96);
  check_map(rt, DEEPLAB, 33, 7);
  viv_close(rt);
}

Test(segmenter, a_picture_gets_a_map_of_its_own_size) {
  viv_model *m = load(open_runtime(), SEGFORMER);
  inputs one = {0}, two = {0}, values = {0};
  results a, b, c, cut;
  add_image(&one, IMAGE);
  add_image(&two, IMAGE);
  add_image(&two, IMAGE);
  run_task(m, "segment", &one, NULL, &a);
  run_task(m, "segment", &two, NULL, &b);
  const viv_tensor *map = result_of(&a, "labels.0");
  cr_assert_eq(map->shape[0], 75);
  cr_assert_eq(map->shape[1], 110);
  cr_assert_arr_eq(map->data, result_of(&b, "labels.0")->data, map->bytes);
  cr_assert_arr_eq(map->data, result_of(&b, "labels.1")->data, map->bytes);
  run_task(m, "preprocess", &one, NULL, &cut);
  add_tensor(&values, "pixel_values", result_of(&cut, "pixel_values"));
  run_task(m, "segment", &values, "{\"target_sizes\":[[75,110]]}", &c);
  cr_assert_arr_eq(map->data, result_of(&c, "labels.0")->data, map->bytes);
  free_inputs(&one);
  free_inputs(&two);
}

/* A picture and its depth: resized to 48 x 64, blue first, and a map of the picture's size. */
Test(segmenter, two_pictures_are_joined_by_the_model_that_takes_two) {
  viv_model *m = load(open_runtime(), SSMA);
  inputs in = {0}, alone = {0}, values = {0};
  results r, cut, steps;
  add_image(&in, IMAGE);
  add_image(&alone, IMAGE);
  add_image(&in, IMAGE);
  in.value[1].name = viv__str("image_depth");
  run_task(m, "segment", &in, NULL, &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *map = result_of(&r, "labels.0");
  cr_assert_eq(map->shape[0], 75);
  cr_assert_eq(map->shape[1], 110);
  run_task(m, "preprocess", &in, NULL, &cut);
  add_tensor(&values, "pixel_values", result_of(&cut, "pixel_values"));
  add_tensor(&values, "pixel_values_depth", result_of(&cut, "pixel_values_depth"));
  run_task(m, "segment", &values, "{\"target_sizes\":[[75,110]]}", &steps);
  cr_assert_arr_eq(map->data, result_of(&steps, "labels.0")->data, map->bytes);
  expect_error(m, "segment", &alone, NULL, VIV_BAD_INPUT, "pixel_values_depth");
  free_inputs(&in);
  free_inputs(&alone);
}

Test(segmenter, sizes_that_do_not_halve_four_times_are_refused) {
  static const float few[40 * 50 * 3];
  viv_model *m = load(open_runtime(), SSMA);
  inputs in = {0};
  add_data(&in, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 40, 50, 3});
  add_data(&in, "pixel_values_depth", VIV_F32, few, 4, (const int64_t[]){1, 40, 50, 3});
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "multiples of 16");
}

Test(segmenter, depth_has_the_size_of_the_picture) {
  viv_model *m = load(open_runtime(), XNET);
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  run_task(m, "depth", &in, NULL, &r);
  const viv_tensor *depth = result_of(&r, "depth.0");
  cr_assert_eq(depth->shape[0], 75);
  cr_assert_eq(depth->shape[1], 110);
  for (int64_t i = 0; i < 75 * 110; i++) {
    float metres = ((const float *)depth->data)[i];
    cr_assert(metres > 0 && metres < 10);
  }
  expect_error(m, "segment", &in, NULL, VIV_NEVER, "depth");
  expect_error(load(open_runtime(), SEGFORMER), "depth", &in, NULL, VIV_NEVER, "classes");
  free_inputs(&in);
}

Test(segmenter, requests_that_mean_nothing_are_refused) {
  viv_model *m = load(open_runtime(), SEGFORMER);
  static const float few[2 * 3 * 8 * 8];
  inputs none = {0}, tiny = {0}, image = {0}, planes = {0};
  add_data(&tiny, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 3, 8, 8});
  add_data(&planes, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 2, 8, 8});
  add_image(&image, IMAGE);
  expect_error(m, "segment", &none, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "preprocess", &tiny, NULL, VIV_BAD_INPUT, "image");
  expect_error(m, "forward", &planes, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "segment", &image, "{\"target_sizes\":[]}", VIV_BAD_INPUT, "target_sizes");
  expect_error(m, "segment", &image, "{\"target_sizes\":[[5]]}", VIV_BAD_INPUT, "target_sizes");
  expect_error(m, "segment", &image, "{\"target_sizes\":[[0,5]]}", VIV_BAD_INPUT, "target_sizes");
  expect_error(m, "segment", &image, "{\"target_sizes\":[[1e9,5]]}", VIV_BAD_INPUT, "target_sizes");
  free_inputs(&image);
}

Test(segmenter, a_map_too_small_for_the_stages_is_refused_or_answered) {
  static const float few[3 * 4];
  viv_model *m = load(open_runtime(), DEEPLAB);
  inputs one = {0};
  results r;
  add_data(&one, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 3, 1, 1});
  run_task(m, "forward", &one, NULL, &r);
  cr_assert(r.status == VIV_OK || r.status == VIV_BAD_INPUT);
}

Test(segmenter, configurations_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, SEGFORMER, "\"decoder_hidden_size\": 14", "\"decoder_hidden_size\": 15",
                 "decode_head.linear_projections.0.proj.weight");
  refuse_changed(rt, SEGFORMER, "\"model_type\": \"segformer\"", "\"model_type\": \"deeplabv2\"",
                 "SegformerForSemanticSegmentation");
  refuse_changed(rt, MIT, "\"sep\": true", "\"sep\": false", "sep");
  refuse_changed(rt, MIT, "\"decode_head\"", "\"other_head\"", "decode_head");
  refuse_changed(rt, DEEPLAB, "\"in_channels\": 96", "\"in_channels\": 95", "in_channels");
  refuse_changed(rt, SSMA, "\"ssma_reduction\": 3", "\"ssma_reduction\": 4", "conv511/weights");
  refuse_changed(rt, XNET, "\"pfp_dim\": 10", "\"pfp_dim\": 11", "pfp.lateral.0.weight");
  refuse_changed(rt, XNET, "\"task\": \"depth\"", "\"task\": \"taste\"", "task");
  viv_close(rt);
}
