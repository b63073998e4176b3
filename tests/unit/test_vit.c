/* ViT and DINOv2 (plugins/classifier): the doors for pictures agree with one another, and what they refuse. */
#include <math.h>

#include "pass_rt.h"

#define VIT "tests/goldens/vit/classify"
#define DINO "tests/goldens/dinov2/registers-swiglu"
#define OTHER "tests/goldens/rt-detr/preprocess/image0.png"

Test(vit, probabilities_are_the_softmax_of_the_logits) {
  const char *const models[] = {VIT, DINO};
  viv_runtime *rt = open_runtime();
  for (int k = 0; k < 2; k++) {
    viv_model *m = load(rt, models[k]);
    char path[128];
    inputs in = {0};
    results a, b;
    snprintf(path, sizeof path, "%s/image.png", models[k]);
    add_image(&in, path);
    run_task(m, "forward", &in, NULL, &a);
    run_task(m, "classify", &in, "{\"top_k\":2}", &b);
    const float *logits = result_of(&a, "logits")->data;
    const float *odds = result_of(&b, "probabilities")->data;
    const int32_t *top = result_of(&b, "top_ids")->data;
    double sum = 0;
    for (int i = 0; i < 5; i++) sum += exp((double)logits[i]);
    for (int i = 0; i < 5; i++) {
      cr_assert_float_eq(odds[i], exp((double)logits[i]) / sum, 1e-5);
      cr_assert_leq(odds[i], odds[top[0]]);
    }
    cr_assert_eq(result_of(&b, "top_ids")->shape[1], 2);
    free_inputs(&in);
  }
}

Test(vit, a_picture_in_a_batch_is_the_picture_alone) {
  viv_model *m = load(open_runtime(), DINO);
  inputs both = {0}, alone = {0};
  results a, b;
  add_image(&both, DINO "/image.png");
  add_image(&both, OTHER);
  add_image(&alone, OTHER);
  run_task(m, "embed", &both, "{\"normalize\":true}", &a);
  run_task(m, "embed", &alone, "{\"normalize\":true}", &b);
  const viv_tensor *p = result_of(&a, "embeddings"), *q = result_of(&b, "embeddings");
  cr_assert_eq(p->shape[0], 2);
  double square = 0;
  for (int64_t i = 0; i < q->shape[1]; i++) {
    float x = ((const float *)q->data)[i];
    cr_assert_float_eq(((const float *)p->data)[q->shape[1] + i], x, 1e-5);
    square += (double)x * (double)x;
  }
  cr_assert_float_eq(square, 1, 1e-5);
  free_inputs(&both);
  free_inputs(&alone);
}

Test(vit, bad_inputs) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, VIT), *d = load(rt, DINO);
  static const int64_t wide[] = {1, 3, 32, 64}, tiny[] = {1, 3, 4, 64}, two[] = {1, 2, 32, 32};
  float *zeros = calloc(3 * 32 * 64, sizeof *zeros);
  inputs none = {0}, in = {0};
  results r;
  expect_error(m, "forward", &none, NULL, VIV_BAD_INPUT, "pixel_values");
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, wide);
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "interpolate_pos_encoding");
  run_task(m, "forward", &in, "{\"interpolate_pos_encoding\":true}", &r);
  cr_assert_geq(r.status, 0);
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, tiny);
  expect_error(d, "forward", &in, NULL, VIV_BAD_INPUT, "at least one patch");
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, two);
  expect_error(d, "forward", &in, NULL, VIV_BAD_INPUT, "pixel_values");
  free(zeros);
}
