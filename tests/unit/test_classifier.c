/* Classifiers: a person's picture goes the official way, and what is refused. */
#include <math.h>

#include "pass_rt.h"

#define RESNET "tests/goldens/resnet/bottleneck-png"
#define CONVNEXT "tests/goldens/convnext/timm"
#define SWIN "tests/goldens/swin/shifted-padded"
#define IMAGE RESNET "/image.png"

static viv_model *open_model(const char *path) {
  return load(open_runtime(), path);
}

static void same(const viv_tensor *a, const viv_tensor *b) {
  cr_assert_eq(a->bytes, b->bytes);
  cr_assert_arr_eq(a->data, b->data, a->bytes);
}

Test(classifier, a_picture_is_the_official_steps_one_by_one) {
  viv_model *m = open_model(RESNET);
  inputs picture = {0}, values = {0};
  results cut, direct, steps;
  add_image(&picture, IMAGE);
  run_task(m, "preprocess", &picture, NULL, &cut);
  add_tensor(&values, "pixel_values", result_of(&cut, "pixel_values"));
  run_task(m, "forward", &picture, NULL, &direct);
  run_task(m, "forward", &values, NULL, &steps);
  same(result_of(&direct, "logits"), result_of(&steps, "logits"));
  same(result_of(&direct, "features"), result_of(&steps, "features"));
  free_inputs(&picture);
}

Test(classifier, probabilities_are_ranked_and_sum_to_one) {
  viv_model *m = open_model(RESNET);
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  add_image(&in, IMAGE);
  run_task(m, "classify", &in, "{\"top_k\":4}", &r);
  const viv_tensor *odds = result_of(&r, "probabilities"), *top = result_of(&r, "top_ids");
  const float *p = odds->data;
  const int32_t *ids = top->data;
  cr_assert_eq(top->shape[0], 2);
  cr_assert_eq(top->shape[1], 4);
  double sum = 0;
  for (int64_t i = 0; i < odds->shape[1]; i++) sum += (double)p[i];
  cr_assert_float_eq(sum, 1, 1e-5);
  for (int i = 1; i < 4; i++) cr_assert_geq(p[ids[i - 1]], p[ids[i]]);
  cr_assert_arr_eq(ids, ids + 4, 4 * sizeof *ids); /* the same picture twice */
  free_inputs(&in);
}

Test(classifier, embeddings_have_length_one_unless_asked) {
  viv_model *m = open_model(CONVNEXT);
  inputs in = {0};
  results unit, plain, out;
  add_image(&in, IMAGE);
  run_task(m, "embed", &in, NULL, &unit);
  run_task(m, "embed", &in, "{\"normalize\":false}", &plain);
  run_task(m, "forward", &in, NULL, &out);
  const viv_tensor *e = result_of(&unit, "embeddings");
  double square = 0;
  for (int64_t i = 0; i < e->shape[1]; i++)
    square += (double)((const float *)e->data)[i] * (double)((const float *)e->data)[i];
  cr_assert_float_eq(square, 1, 1e-5);
  same(result_of(&plain, "embeddings"), result_of(&out, "features"));
  free_inputs(&in);
}

Test(classifier, more_classes_than_there_are_is_refused) {
  viv_model *m = open_model(SWIN);
  inputs in = {0};
  add_image(&in, IMAGE);
  expect_error(m, "classify", &in, "{\"top_k\":1000}", VIV_BAD_INPUT, "top_k");
  expect_error(m, "embed", &in, "{\"pooling\":\"cls\"}", VIV_BAD_INPUT, "class token");
  free_inputs(&in);
}

Test(classifier, bad_input_is_named) {
  viv_model *m = open_model(RESNET);
  static const uint8_t grey[16];
  static const float few[8];
  inputs none = {0}, flat = {0}, planes = {0};
  add_data(&flat, "image", VIV_U8, grey, 2, (const int64_t[]){4, 4});
  add_data(&planes, "pixel_values", VIV_F32, few, 4, (const int64_t[]){1, 2, 2, 2});
  expect_error(m, "classify", &none, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "classify", &flat, NULL, VIV_BAD_INPUT, "picture");
  expect_error(m, "forward", &planes, NULL, VIV_BAD_INPUT, "pixel_values");
  expect_error(m, "classify", &planes, "{\"top_k\":0}", VIV_BAD_INPUT, "top_k");
}
