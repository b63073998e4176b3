/* RT-DETR, RF-DETR and LW-DETR: a person's door is the official three steps, and what is refused. */
#include "pass_rt.h"

#define RT "tests/goldens/rt-detr/basic"
#define RF "tests/goldens/rf-detr/tiny"
#define LW "tests/goldens/lw-detr/tiny"
#define IMAGE "tests/goldens/rt-detr/preprocess/image0.png"

/* The picture's own size, from the detector's result of a whole-picture box. */
static void expect_door(const char *path, const char *params) {
  viv_model *m = load(open_runtime(), path);
  inputs in = {0}, pixels = {0}, all = {0};
  results prepared, out, found, door;
  add_image(&in, IMAGE);
  run_task(m, "preprocess", &in, params, &prepared);
  add_tensor(&pixels, "pixel_values", result_of(&prepared, "pixel_values"));
  run_task(m, "forward", &pixels, NULL, &out);
  /* Without target_sizes boxes are fractions; the door's are pixels of the picture. */
  add_tensor(&all, "logits", result_of(&out, "logits"));
  add_tensor(&all, "pred_boxes", result_of(&out, "pred_boxes"));
  run_task(m, "postprocess", &all, "{\"threshold\":0}", &found);
  run_task(m, "detect", &in, params, &door);
  const viv_tensor *scores = result_of(&door, "scores.0"), *boxes = result_of(&door, "boxes.0");
  const viv_tensor *fractions = result_of(&found, "boxes.0");
  cr_assert_gt(scores->shape[0], 0);
  cr_assert_eq(scores->bytes, result_of(&found, "scores.0")->bytes);
  cr_assert_arr_eq(scores->data, result_of(&found, "scores.0")->data, scores->bytes);
  const viv_tensor *labels = result_of(&door, "labels.0");
  cr_assert_arr_eq(labels->data, result_of(&found, "labels.0")->data, labels->bytes);
  const float *a = boxes->data, *b = fractions->data;
  float width = 0, height = 0;
  for (int64_t i = 0; i < boxes->shape[0]; i++) {
    if (!width && b[4 * i + 2] > 0.1f) width = a[4 * i + 2] / b[4 * i + 2];
    if (!height && b[4 * i + 3] > 0.1f) height = a[4 * i + 3] / b[4 * i + 3];
  }
  cr_assert_gt(width, 8);
  cr_assert_gt(height, 8);
  for (int64_t i = 0; i < 4 * boxes->shape[0]; i++)
    cr_assert_float_eq(a[i], b[i] * (i % 2 ? height : width), 1e-2);
  free_inputs(&in);
}

Test(rt_detr, detect_is_the_three_steps) {
  expect_door(RT, NULL);
}

Test(rt_detr, rf_detr_too) {
  expect_door(RF, NULL);
}

Test(rt_detr, lw_detr_too) {
  expect_door(LW, NULL);
}

static void expect_size_refused(const char *path, int64_t height, int64_t width,
                                const char *words) {
  viv_model *m = load(open_runtime(), path);
  int64_t shape[] = {1, 3, height, width};
  float *zeros = calloc((size_t)(3 * height * width), sizeof *zeros);
  inputs in = {0};
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, shape);
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, words);
  free(zeros);
}

Test(rt_detr, sides_must_fit_the_network) {
  expect_size_refused(RT, 64, 80, "multiples of the coarsest stride");
  expect_size_refused(RF, 40, 64, "multiples of 16");
  expect_size_refused(LW, 4, 64, "at least one patch");
}

/* Pictures of a batch don't see one another. */
Test(rt_detr, a_picture_in_a_batch_is_the_picture_alone) {
  viv_model *m = load(open_runtime(), RT);
  enum { SIDE = 64, N = 3 * SIDE * SIDE };
  static const int64_t two[] = {2, 3, SIDE, SIDE}, one[] = {1, 3, SIDE, SIDE};
  float *x = malloc(2 * N * sizeof *x);
  for (int i = 0; i < 2 * N; i++) x[i] = (float)((i * 7919) % 255) / 255;
  inputs both = {0}, alone = {0};
  results a, b;
  add_data(&both, "pixel_values", VIV_F32, x, 4, two);
  add_data(&alone, "pixel_values", VIV_F32, x + N, 4, one);
  run_task(m, "forward", &both, NULL, &a);
  run_task(m, "forward", &alone, NULL, &b);
  const viv_tensor *p = result_of(&a, "pred_boxes"), *q = result_of(&b, "pred_boxes");
  const float *mine = p->data, *single = q->data;
  int64_t n = (int64_t)(q->bytes / 4);
  for (int64_t i = 0; i < n; i++) cr_assert_float_eq(mine[n + i], single[i], 1e-3);
  free(x);
}
