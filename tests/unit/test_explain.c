/* Which parts of a picture decided (task explain): the maps are what their formulas say. */
#include <math.h>

#include "pass_rt.h"

#define RESNET "tests/goldens/resnet/bottleneck-png"
#define CONVNEXT "tests/goldens/convnext/timm"
#define VIT "tests/goldens/vit/classify" /* 32 x 32 */
#define DINO "tests/goldens/dinov2/registers-swiglu"
#define BEIT "tests/goldens/beit/relative"
#define SWIN "tests/goldens/swin/shifted-padded"
#define PROTOPNET "tests/goldens/explain/protopnet"      /* 64 x 64 */
#define SENN "tests/goldens/explain/senn"                /* 32 x 32 */
#define IMAGE "tests/goldens/segformer/hf-png/image.png" /* 110 x 75 */

static float pixels[2][3 * 32 * 32], grey[3 * 32 * 32];

static void fill(void) {
  for (int b = 0; b < 2; b++)
    for (size_t i = 0; i < 3 * 32 * 32; i++)
      pixels[b][i] = (float)(((i + 97 * (size_t)b) * 2654435761u >> 12) % 1000) / 500 - 1;
}

static void add_pixels(inputs *in, const float *x, int64_t n) {
  add_data(in, "pixel_values", VIV_F32, x, 4, (const int64_t[]){n, 3, 32, 32});
}

static double mean_of(const viv_tensor *t) {
  double sum = 0;
  int64_t n = t->shape[0] * t->shape[1];
  for (int64_t i = 0; i < n; i++) sum += (double)((const float *)t->data)[i];
  return sum / (double)n;
}

/* One number of what the task answers about a batch of one. */
static double number_of(viv_model *m, const char *task, const char *name, const float *x, int at) {
  inputs in = {0};
  results r;
  add_pixels(&in, x, 1);
  run_task(m, task, &in, NULL, &r);
  double y = (double)((const float *)result_of(&r, name)->data)[at];
  free_results(&r);
  return y;
}

static double logit(viv_model *m, const float *x, int at) {
  return number_of(m, "forward", "logits", x, at);
}

static double odds(viv_model *m, const float *x, int at) {
  return number_of(m, "classify", "probabilities", x, at);
}

/* The mean of the class activation is the logit without its bias. */
Test(explain, class_activation_adds_up_to_the_logit) {
  viv_model *m = load(open_runtime(), RESNET);
  inputs in = {0};
  results r;
  fill();
  add_pixels(&in, pixels[0], 2);
  run_task(m, "explain", &in, "{\"explain\":\"cam\",\"target\":3}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  double got = mean_of(result_of(&r, "map.0")) - mean_of(result_of(&r, "map.1"));
  cr_assert_float_eq(got, logit(m, pixels[0], 3) - logit(m, pixels[1], 3), 1e-4);
  free_results(&r);
}

/* Grad-CAM is the class activation per place, without what speaks against the class. */
Test(explain, what_is_against_the_class_is_cut_off) {
  viv_model *m = load(open_runtime(), CONVNEXT);
  inputs in = {0};
  results all, above;
  add_image(&in, IMAGE);
  run_task(m, "explain", &in, "{\"explain\":\"cam\"}", &all);
  run_task(m, "explain", &in, "{\"explain\":\"grad_cam\"}", &above);
  const viv_tensor *a = result_of(&all, "map.0"), *b = result_of(&above, "map.0");
  int64_t n = a->shape[0] * a->shape[1];
  bool cut = false;
  for (int64_t i = 0; i < n; i++) {
    float x = ((const float *)a->data)[i], y = ((const float *)b->data)[i];
    cr_assert_float_eq(y * (float)n, x > 0 ? x : 0, 1e-4f * fabsf(x) + 1e-5f);
    cut = cut || x < 0;
  }
  cr_assert(cut);
  free_results(&all);
  free_results(&above);
  free_inputs(&in);
}

Test(explain, a_hidden_picture_loses_its_logit) {
  viv_model *m = load(open_runtime(), VIT);
  inputs in = {0};
  results r;
  fill();
  add_pixels(&in, pixels[0], 1);
  run_task(m, "explain", &in, "{\"explain\":\"occlusion\",\"patch\":32,\"target\":2}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *map = result_of(&r, "map.0");
  cr_assert_eq(map->shape[0] * map->shape[1], 1);
  cr_assert_float_eq(*(const float *)map->data, logit(m, pixels[0], 2) - logit(m, grey, 2), 1e-4);
  free_results(&r);
}

Test(explain, integrated_gradients_are_complete) {
  viv_model *m = load(open_runtime(), VIT);
  inputs in = {0};
  results r;
  fill();
  add_pixels(&in, pixels[0], 1);
  run_task(m, "explain", &in,
           "{\"explain\":\"integrated_gradients\",\"cells\":2,\"steps\":32,\"target\":1}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  double whole = logit(m, pixels[0], 1) - logit(m, grey, 1);
  double sum = 4 * mean_of(result_of(&r, "map.0"));
  double gap = (double)*(const float *)result_of(&r, "completeness_gap")->data;
  cr_assert_float_eq(sum - whole, gap, 1e-3);
  cr_assert_float_eq(gap, 0, 0.02 * fabs(whole) + 1e-3);
  free_results(&r);
}

/* Rows of a rollout sum to one, of which the class token keeps at least 2^-layers. */
Test(explain, attention_is_shared_out) {
  const char *const models[] = {VIT, DINO, BEIT};
  viv_runtime *rt = open_runtime();
  for (int i = 0; i < 3; i++) {
    viv_model *m = load(rt, models[i]);
    inputs in = {0};
    results r;
    add_image(&in, IMAGE);
    run_task(m, "explain", &in, NULL, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
    const viv_tensor *map = result_of(&r, "map.0");
    double sum = mean_of(map) * (double)(map->shape[0] * map->shape[1]);
    cr_assert(sum > 0.2 && sum < 0.95, "%s: %g", models[i], sum);
    free_results(&r);
    free_inputs(&in);
  }
  viv_close(rt);
}

/* The map lies over the picture as it was before its middle was cut out. */
Test(explain, the_map_has_the_shape_of_the_picture) {
  viv_model *m = load(open_runtime(), RESNET);
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  run_task(m, "explain", &in, NULL, &r);
  const viv_tensor *heat = result_of(&r, "heat.0");
  double aspect = (double)heat->shape[1] / (double)heat->shape[0];
  cr_assert_float_eq(aspect, 110.0 / 75, 0.05);
  free_results(&r);
  free_inputs(&in);
}

/* From the picture to grey and back, one cell at a time. */
Test(explain, curves_end_at_the_picture_and_at_grey) {
  viv_model *m = load(open_runtime(), VIT);
  inputs in = {0};
  results r;
  fill();
  add_pixels(&in, pixels[0], 1);
  run_task(m, "explain", &in, "{\"curves\":true,\"cells\":3,\"target\":2}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *curves = result_of(&r, "curves.0"), *areas = result_of(&r, "areas.0");
  const float *y = curves->data;
  cr_assert_eq(curves->shape[1], 10);
  double whole = odds(m, pixels[0], 2), none = odds(m, grey, 2), area = 0;
  cr_assert_float_eq(y[0], whole, 1e-5);
  cr_assert_float_eq(y[9], none, 1e-5);
  cr_assert_float_eq(y[10], none, 1e-5);
  cr_assert_float_eq(y[19], whole, 1e-5);
  for (int i = 0; i < 9; i++) area += (double)(y[i] + y[i + 1]) / 18;
  cr_assert_float_eq(((const float *)areas->data)[0], area, 1e-5);
  free_results(&r);
}

/* The curve's second point is the picture without the cell that the map has highest. */
Test(explain, the_first_cell_to_go_is_the_one_the_map_has_highest) {
  viv_model *m = load(open_runtime(), VIT);
  inputs in = {0};
  results r;
  fill();
  add_pixels(&in, pixels[0], 1);
  run_task(m, "explain", &in,
           "{\"explain\":\"occlusion\",\"patch\":16,\"curves\":true,\"cells\":2,\"target\":1}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const float *map = result_of(&r, "map.0")->data, *y = result_of(&r, "curves.0")->data;
  int best = 0;
  for (int i = 1; i < 4; i++)
    if (map[i] > map[best]) best = i;
  static float hidden[3 * 32 * 32];
  for (int i = 0; i < 3 * 32 * 32; i++) {
    int row = i / 32 % 32, column = i % 32;
    hidden[i] = row / 16 * 2 + column / 16 == best ? 0 : pixels[0][i];
  }
  cr_assert_float_eq(y[1], odds(m, hidden, 1), 1e-5);
  free_results(&r);
}

/* A network of concepts: the class's logit is the sum of what they give. */
Test(explain, concepts_add_up_to_the_logit) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, SENN);
  inputs in = {0};
  results r, over;
  fill();
  add_pixels(&in, pixels[0], 1);
  run_task(m, "explain", &in, "{\"target\":3}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *concepts = result_of(&r, "concepts.0");
  double sum = 0;
  for (int j = 0; j < 7; j++) sum += (double)((const float *)concepts->data)[2 * j + 1];
  cr_assert_eq(concepts->shape[0], 7);
  cr_assert_float_eq(sum, logit(m, pixels[0], 3), 1e-4);
  run_task(m, "explain", &in, "{\"target\":3,\"override\":{\"4\":0}}", &over);
  const float *now = result_of(&over, "concepts.0")->data;
  cr_assert_eq(now[8], 0);
  cr_assert_eq(now[9], 0);
  free_results(&r);
  free_results(&over);
  viv_close(rt);
}

/* The map of a prototype is highest where the network found it. */
Test(explain, a_prototype_is_seen_where_it_is_nearest) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, PROTOPNET);
  inputs in = {0};
  results r, raw;
  add_image(&in, IMAGE);
  run_task(m, "explain", &in, "{\"prototype\":3}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  run_task(m, "forward", &in, NULL, &raw);
  const viv_tensor *map = result_of(&r, "map.0");
  const int32_t *where = (const int32_t *)result_of(&raw, "min_location")->data + 6;
  const float *x = map->data, *same = (const float *)result_of(&raw, "similarity")->data + 3;
  for (int64_t i = 0; i < map->shape[0] * map->shape[1]; i++)
    cr_assert_leq(x[i], x[where[0] * map->shape[1] + where[1]]);
  cr_assert_float_eq(x[where[0] * map->shape[1] + where[1]], *same, 1e-5);
  free_results(&r);
  free_results(&raw);
  free_inputs(&in);
  viv_close(rt);
}

Test(explain, bad_questions_about_concepts) {
  viv_runtime *rt = open_runtime();
  viv_model *senn = load(rt, SENN), *prototypes = load(rt, PROTOPNET), *vit = load(rt, VIT);
  inputs in = {0}, picture = {0};
  fill();
  add_pixels(&in, pixels[0], 1);
  add_image(&picture, IMAGE);
  expect_error(senn, "classify", &in, "{\"override\":{\"7\":1}}", VIV_BAD_INPUT, "0 to 6");
  expect_error(senn, "classify", &in, "{\"override\":{\"one\":1}}", VIV_BAD_INPUT, "\"one\"");
  expect_error(senn, "classify", &in, "{\"override\":{\"1\":2}}", VIV_BAD_INPUT, "0 to 1");
  expect_error(senn, "classify", &in, "{\"override\":[1]}", VIV_BAD_INPUT, "an object");
  expect_error(senn, "explain", &in, "{\"explain\":\"prototypes\"}", VIV_BAD_INPUT, "none of");
  expect_error(prototypes, "classify", &picture, "{\"override\":{\"1\":1}}", VIV_BAD_INPUT,
               "only concepts");
  expect_error(prototypes, "explain", &picture, "{\"prototype\":10}", VIV_BAD_INPUT, "prototype");
  expect_error(prototypes, "explain", &picture, "{\"explain\":\"cam\"}", VIV_BAD_INPUT,
               "prototypes, occlusion");
  expect_error(vit, "explain", &in, "{\"curves\":true,\"cells\":33}", VIV_BAD_INPUT, "33 x 33");
  free_inputs(&picture);
  viv_close(rt);
}

Test(explain, bad_questions) {
  viv_runtime *rt = open_runtime();
  viv_model *resnet = load(rt, RESNET), *swin = load(rt, SWIN);
  viv_text about = {0};
  inputs in = {0};
  fill();
  add_pixels(&in, pixels[0], 1);
  expect_error(resnet, "explain", &in, "{\"explain\":\"attention_rollout\"}", VIV_BAD_INPUT,
               "none of this model's kinds");
  expect_error(swin, "explain", &in, "{\"explain\":\"name\"}", VIV_BAD_INPUT, "grad_cam");
  expect_error(resnet, "explain", &in, "{\"target\":1000}", VIV_BAD_INPUT, "target");
  expect_error(resnet, "explain", &in, "{\"explain\":\"occlusion\",\"patch\":33}", VIV_BAD_INPUT,
               "patch");
  cr_assert_eq(viv_describe(resnet, &about, NULL), VIV_OK);
  cr_assert(strstr(about.ptr, "\"explain\":[{\"name\":\"grad_cam\""), "%s", about.ptr);
  viv_text_free(&about);
  viv_close(rt);
}
