/* Classifiers: a person's picture goes the official way, and what is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define RESNET "tests/goldens/resnet/bottleneck-png"
#define CONVNEXT "tests/goldens/convnext/timm"
#define SWIN "tests/goldens/swin/shifted-padded"
#define SLA "tests/goldens/sla/rotation-sd"
#define GATED "tests/goldens/fire-together/basic"
#define ILLAMA "tests/goldens/illama/tiny"
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

/* What a model says of rotations, it says of the turned picture in another order. */
Test(classifier, a_turned_picture_has_the_same_rotations) {
  enum { SIDE = 20 };
  static float up[3 * SIDE * SIDE], turned[3 * SIDE * SIDE];
  viv_model *m = open_model(SLA);
  inputs a = {0}, b = {0}, flat = {0};
  results first, second, e;
  for (int c = 0; c < 3; c++)
    for (int i = 0; i < SIDE; i++)
      for (int j = 0; j < SIDE; j++) {
        float v = (float)((c * 31 + i * 7 + j * j) % 17) / 8 - 1;
        up[(c * SIDE + i) * SIDE + j] = v;
        turned[(c * SIDE + SIDE - 1 - j) * SIDE + i] = v; /* counter-clockwise */
      }
  add_data(&a, "pixel_values", VIV_F32, up, 4, (const int64_t[]){1, 3, SIDE, SIDE});
  add_data(&b, "pixel_values", VIV_F32, turned, 4, (const int64_t[]){1, 3, SIDE, SIDE});
  run_task(m, "forward", &a, NULL, &first);
  run_task(m, "forward", &b, NULL, &second);
  const viv_tensor *x = result_of(&first, "joint_logits"), *y = result_of(&second, "joint_logits");
  const float *p = x->data, *q = y->data;
  for (int row = 0; row < 3; row++)
    for (int64_t k = 0; k < x->shape[1]; k++)
      cr_assert_float_eq(p[(row + 1) * x->shape[1] + k], q[row * x->shape[1] + k], 1e-4);
  run_task(m, "embed", &a, NULL, &e);
  cr_assert_eq(result_of(&e, "embeddings")->shape[0], 1);
  add_data(&flat, "pixel_values", VIV_F32, up, 4, (const int64_t[]){1, 3, SIDE, SIDE / 2});
  expect_error(m, "classify", &flat, NULL, VIV_BAD_INPUT, "squares");
}

Test(classifier, channels_that_are_dropped_are_counted) {
  static float pixels[3 * 33 * 40];
  viv_model *m = open_model(GATED);
  inputs in = {0};
  results pruned, whole;
  for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++)
    pixels[i] = (float)(i * 37 % 101) / 50 - 1;
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, (const int64_t[]){1, 3, 33, 40});
  run_task(m, "classify", &in, NULL, &pruned);
  run_task(m, "classify", &in, "{\"dynamic_prune\":false}", &whole);
  cr_assert_lt(*(int64_t *)result_of(&pruned, "macs")->data,
               *(int64_t *)result_of(&whole, "macs")->data);
  const viv_tensor *mask = result_of(&whole, "mask.layer1.0.conv1");
  for (int64_t i = 0; i < mask->shape[1]; i++) cr_assert_eq(((uint8_t *)mask->data)[i], 1);
}

Test(classifier, configurations_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, SLA, "\"aug\": \"rotation\"", "\"aug\": \"mirror\"", "mirror");
  refuse_changed(rt, SLA, "\"depth\": 14", "\"depth\": 15", "depth");
  refuse_changed(rt, SLA, "\"num_transforms\": 4", "\"num_transforms\": 6", "transforms");
  refuse_changed(rt, SLA, "\"num_classes\": 5", "\"num_classes\": 6", "classifiers.0.weight");
  refuse_changed(rt, ILLAMA, "\"multiple_of\": 8", "\"multiple_of\": 7", "mlp.fc1.weight");
  refuse_changed(rt, ILLAMA, "\"num_heads\": 3", "\"num_heads\": 5", "num_heads");
  viv_close(rt);
}
