/* UnFuSeD's encoder (plugins/audiontt): clips of any length, pseudo-labels, and what is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define TINY "tests/goldens/unfused/tiny"

static float wave[8][9000];

/* Two kinds of sound: low hums and high ones, each at its own loudness. */
static void add_hum(inputs *in, int i) {
  double hz = i % 2 ? 2500 + 40 * i : 200 + 5 * i;
  for (int t = 0; t < 9000; t++)
    wave[i][t] = (float)((0.2 + 0.05 * i) * sin(2 * 3.14159265358979 * hz * t / 16000) +
                         0.01 * ((t * 7919 + i * 31) % 101 - 50) / 50.0);
  add_data(in, "audio", VIV_F32, wave[i], 1, (const int64_t[]){4000 + 400 * i});
}

Test(audiontt, sounds_of_a_kind_get_one_label) {
  viv_model *m = load(open_runtime(), TINY);
  inputs in = {0};
  results a, b;
  for (int i = 0; i < 8; i++) add_hum(&in, i);
  const char *params = "{\"clusters\":2,\"pca\":2,\"seed\":3}";
  run_task(m, "pseudo_label", &in, params, &a);
  run_task(m, "pseudo_label", &in, params, &b);
  const int32_t *x = result_of(&a, "labels")->data, *y = result_of(&b, "labels")->data;
  for (int i = 0; i < 8; i++) {
    cr_assert_eq(x[i], x[i % 2]);
    cr_assert_eq(x[i], y[i]);
  }
  cr_assert_neq(x[0], x[1]);
}

Test(audiontt, a_long_clip_is_its_middle) {
  viv_model *m = load(open_runtime(), TINY);
  inputs whole = {0}, middle = {0};
  results a, b;
  for (int t = 0; t < 9000; t++) wave[0][t] = (float)sin(t * t * 1e-5);
  add_data(&whole, "audio", VIV_F32, wave[0], 1, (const int64_t[]){9000});
  add_data(&middle, "audio", VIV_F32, wave[0] + (9000 - 5201) / 2, 1, (const int64_t[]){5201});
  run_task(m, "classify", &whole, NULL, &a);
  run_task(m, "classify", &middle, NULL, &b);
  const viv_tensor *x = result_of(&a, "probabilities"), *y = result_of(&b, "probabilities");
  cr_assert_arr_eq(x->data, y->data, x->bytes);
}

Test(audiontt, bad_requests) {
  viv_model *m = load(open_runtime(), TINY);
  inputs none = {0}, two = {0}, nan = {0};
  static const int64_t rows[2] = {0, 2};
  static float hole[100];
  expect_error(m, "classify", &none, NULL, VIV_BAD_INPUT, "audio");
  add_hum(&two, 0);
  add_hum(&two, 1);
  expect_error(m, "pseudo_label", &two, "{\"clusters\":3}", VIV_BAD_INPUT, "clusters");
  expect_error(m, "pseudo_label", &two, "{\"pca\":3}", VIV_BAD_INPUT, "pca");
  add_data(&two, "first_centroids", VIV_I64, rows, 1, (const int64_t[]){2});
  expect_error(m, "pseudo_label", &two, "{\"clusters\":2}", VIV_BAD_INPUT, "row 2");
  hole[50] = NAN;
  add_data(&nan, "audio", VIV_F32, hole, 1, (const int64_t[]){100});
  expect_error(m, "embed", &nan, NULL, VIV_BAD_INPUT, "sample 50");
}

Test(audiontt, checkpoints_that_do_not_fit) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, TINY, "\"n_mels\": 16", "\"n_mels\": 24", "encoder.fc.0");
  refuse_changed(rt, TINY, "\"output_dim\": 32", "\"output_dim\": 33", "encoder.fc.3");
  refuse_changed(rt, TINY, "\"pad_mode\": \"reflect\"", "\"pad_mode\": \"edge\"", "pad_mode");
  refuse_changed(rt, TINY, "\"fmax\": 7800", "\"fmax\": 8001", "fmax");
  refuse_changed(rt, TINY, "\"unit_length\": 5201", "\"unit_length\": 1000", "unit_length");
  refuse_changed(rt, TINY, "\"std\": 3.5", "\"std\": 0", "std");
}
