/* Masked autoencoders (plugins/autoencoder) and the BEiT-like classifiers and segmenter: features and
 * classes for pictures, and what is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define CAE "tests/goldens/cae/pretrain"  /* 32 x 32, patches of 8 */
#define SECOND "tests/goldens/cae/second" /* caev2 */
#define FINE "tests/goldens/cae/finetune" /* 32 x 32 */
#define UPERNET "tests/goldens/cae/segment-uper"
#define EYE "tests/goldens/uni4eye/tiny" /* 16 x 16 or 16 x 16 x 8, patches of 4 */
#define BEIT "tests/goldens/beit/relative"
#define IMAGE "tests/goldens/segformer/hf-png/image.png" /* 110 x 75 */

static float pixels[3 * 64 * 64];

static void fill(void) {
  for (size_t i = 0; i < sizeof pixels / sizeof *pixels; i++)
    pixels[i] = (float)((i * 2654435761u >> 12) % 1000) / 500 - 1;
}

static void expect_unit_rows(const viv_tensor *t, int64_t rows, int64_t width) {
  cr_assert_eq(t->shape[0], rows);
  cr_assert_eq(t->shape[1], width);
  for (int64_t r = 0; r < rows; r++) {
    double square = 0;
    for (int64_t i = 0; i < width; i++) {
      double x = (double)((const float *)t->data)[r * width + i];
      square += x * x;
    }
    cr_assert_float_eq(square, 1, 1e-4);
  }
}

Test(autoencoder, a_picture_has_features) {
  viv_runtime *rt = open_runtime();
  const struct {
    const char *model;
    int64_t width;
  } all[] = {{CAE, 16}, {SECOND, 16}, {EYE, 24}, {FINE, 24}, {BEIT, 24}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    viv_model *m = load(rt, all[i].model);
    inputs in = {0};
    results r;
    add_image(&in, IMAGE);
    add_image(&in, IMAGE);
    run_task(m, "embed", &in, NULL, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s: %s", all[i].model, r.error.where, r.error.message);
    expect_unit_rows(result_of(&r, "embeddings"), 2, all[i].width);
    free_results(&r);
    free_inputs(&in);
  }
  viv_close(rt);
}

Test(autoencoder, the_mean_of_the_patches_is_no_class_token) {
  viv_model *m = load(open_runtime(), EYE);
  inputs in = {0};
  results cls, mean;
  add_image(&in, IMAGE);
  run_task(m, "embed", &in, NULL, &cls);
  run_task(m, "embed", &in, "{\"pooling\":\"mean\"}", &mean);
  const float *a = result_of(&cls, "embeddings")->data, *b = result_of(&mean, "embeddings")->data;
  cr_assert_gt(fabs((double)a[0] - (double)b[0]), 1e-6);
  expect_error(m, "embed", &in, "{\"pooling\":\"max\"}", VIV_BAD_INPUT, "pooling");
  expect_error(m, "classify", &in, NULL, VIV_NEVER, "no classifier");
  free_inputs(&in);
}

/* Of a volume only the depth that the positions were made for is one. */
Test(autoencoder, volumes_have_one_size) {
  viv_model *m = load(open_runtime(), EYE);
  inputs in = {0};
  results r;
  fill();
  add_data(&in, "pixel_values", VIV_F32, pixels, 5, (const int64_t[]){1, 3, 16, 16, 8});
  run_task(m, "embed", &in, NULL, &r);
  cr_assert_eq(r.status, VIV_OK);
  cr_assert_eq(result_of(&r, "last_hidden_state")->shape[1], 1 + 4 * 4 * 2);
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, pixels, 5, (const int64_t[]){1, 3, 16, 16, 4});
  expect_error(m, "embed", &in, NULL, VIV_BAD_INPUT, "axis 4");
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, (const int64_t[]){1, 3, 16, 20});
  expect_error(m, "embed", &in, NULL, VIV_BAD_INPUT, "axis 3");
}

static void add_masks(inputs *in, const int64_t *task) {
  static float noise[16];
  for (int i = 0; i < 16; i++) noise[i] = (float)(i * 7 % 16);
  add_data(in, "noise", VIV_F32, noise, 2, (const int64_t[]){1, 16});
  add_data(in, "task_id", VIV_I64, task, 1, (const int64_t[]){1});
}

Test(autoencoder, the_mask_ratio_says_how_many_are_removed) {
  viv_model *m = load(open_runtime(), EYE);
  static const int64_t third = 3, eighth = 7;
  inputs in = {0};
  results r;
  fill();
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, (const int64_t[]){1, 3, 16, 16});
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "noise");
  add_masks(&in, &third);
  run_task(m, "forward", &in, "{\"mask_ratio\":0.5}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const uint8_t *mask = result_of(&r, "mask")->data;
  int removed = 0;
  for (int i = 0; i < 16; i++) removed += mask[i];
  cr_assert_eq(removed, 8);
  cr_assert_eq(mask[0], 0); /* the smallest noise is kept */
  in.n = 1;
  add_masks(&in, &eighth);
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "task_id");
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, pixels, 5, (const int64_t[]){1, 3, 16, 16, 8});
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "not volumes");
}

Test(autoencoder, masks_of_a_batch_are_alike_long) {
  viv_model *m = load(open_runtime(), CAE);
  static uint8_t mask[2][16] = {{1, 1, 1}, {1, 1}};
  inputs in = {0};
  results r;
  fill();
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, (const int64_t[]){2, 3, 32, 32});
  add_data(&in, "bool_masked_pos", VIV_U8, mask, 2, (const int64_t[]){2, 16});
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "masks 2 patches and the first 3");
  mask[1][15] = 1;
  run_task(m, "forward", &in, NULL, &r);
  cr_assert_eq(r.status, VIV_OK);
  cr_assert_eq(result_of(&r, "logits")->shape[0], 6);
  memset(mask, 1, sizeof mask); /* nothing to see is allowed, nothing to fill in is not */
  run_task(m, "forward", &in, NULL, &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  memset(mask, 0, sizeof mask);
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "at least one");
}

Test(autoencoder, pictures_of_other_sizes) {
  viv_runtime *rt = open_runtime();
  static const int64_t wide[] = {1, 3, 32, 40}, low[] = {1, 3, 24, 40};
  inputs in = {0};
  results r;
  fill();
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, wide);
  expect_error(load(rt, FINE), "forward", &in, NULL, VIV_BAD_INPUT, "takes 32 x 32");
  expect_error(load(rt, CAE), "embed", &in, NULL, VIV_BAD_INPUT, "takes 32 x 32");
  viv_model *beit = load(rt, BEIT), *upernet = load(rt, UPERNET);
  expect_error(beit, "forward", &in, NULL, VIV_BAD_INPUT, "interpolate_pos_encoding");
  run_task(upernet, "segment", &in, NULL, &r); /* two windows */
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "labels")->shape[2], 40);
  in.n = 0;
  add_data(&in, "pixel_values", VIV_F32, pixels, 4, low);
  expect_error(upernet, "segment", &in, NULL, VIV_BAD_INPUT, "window of 32 x 32");
  in.n = 0;
  add_image(&in, IMAGE);
  run_task(upernet, "segment", &in, NULL, &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "labels.0")->shape[0], 75);
  cr_assert_eq(result_of(&r, "labels.0")->shape[1], 110);
  free_inputs(&in);
  viv_close(rt);
}

Test(autoencoder, bad_checkpoints) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, CAE, "\"embed_dim\": 16", "\"embed_dim\": 18", "encoder");
  refuse_changed(rt, CAE, "\"cae_type\": \"cae\"", "\"cae_type\": \"caev3\"", "cae_type");
  refuse_changed(rt, CAE, "\"num_heads\": 2", "\"num_heads\": 3", "num_heads");
  refuse_changed(rt, CAE, "\"regressor_depth\": 2", "\"regressor_depth\": 1", "regressor_blocks.1");
  refuse_changed(rt, CAE, "\"regressor_depth\": 2", "\"regressor_depth\": 3", "regressor_blocks.2");
  refuse_changed(rt, EYE, "\"img_size\": 16", "\"img_size\": 18", "img_size");
  refuse_changed(rt, EYE, "\"img_size\": 16", "\"img_size\": 24", "pos_embed3");
  refuse_changed(rt, EYE, "\"depth\": 2", "\"depth\": 1", "blocks.1");
  refuse_changed(rt, UPERNET, "\"patch_size\": 8", "\"patch_size\": 4", "patch_size");
  refuse_changed(rt, UPERNET, "\"crop_size\": [", "\"crop_size\": [16, 16], \"x\": [", "crop_size");
  refuse_changed(rt, UPERNET, "\"depth\": 4", "\"depth\": 3", "out_indices");
  refuse_changed(rt, FINE, "\"lin_probe\": false", "\"lin_probe\": true", "fc_norm");

  refuse_changed(rt, FINE, "\"use_rel_pos_bias\": true", "\"use_rel_pos_bias\": false",
                 "relative_position_bias_table");
  viv_close(rt);
}
