/* BEATs (plugins/beats): the official file by itself, recordings of any length, and what is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define TUNED "tests/goldens/beats/finetuned-tiny"
#define TOKENIZER "tests/goldens/beats/tokenizer-tiny"
#define OFFICIAL "tests/data/beats/finetuned.pt"

static float wave[35 * 16000];

static void make_wave(void) {
  for (int i = 0; i < 35 * 16000; i++)
    wave[i] = (float)((i * 7919LL) % 2001 - 1000) / 2000.0f * (float)sin(i * 1e-5);
}

static void add_sound(inputs *in, int64_t from, int64_t samples) {
  add_data(in, "audio", VIV_F32, wave + from, 1, (const int64_t[]){samples});
}

/* The file alone, without a config.json: its tensors say which plugin, its cfg what sizes, its
 * label_dict what the classes are called. */
Test(beats, the_official_file_needs_nothing_beside_it) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, OFFICIAL);
  viv_error e = VIV_ERROR_INIT;
  viv_text about = {0};
  cr_assert_eq(viv_describe(m, &about, &e), VIV_OK);
  cr_assert(strstr(about.ptr, "\"0\":\"Speech\",\"1\":\"Dog\",\"2\":\"/x/not-in-audioset\""), "%s",
            about.ptr);
  viv_text_free(&about);
  inputs in = {0};
  results r;
  make_wave();
  add_sound(&in, 0, 16000);
  run_task(m, "classify", &in, NULL, &r);
  cr_assert_eq(result_of(&r, "probabilities")->shape[1], 3);
}

Test(beats, a_long_recording_is_the_mean_of_its_windows) {
  viv_model *m = load(open_runtime(), OFFICIAL);
  inputs whole = {0}, part[4] = {{0}, {0}, {0}, {0}};
  results r, p[4];
  make_wave();
  add_sound(&whole, 0, 35 * 16000);
  run_task(m, "classify", &whole, NULL, &r);
  for (int w = 0; w < 4; w++) {
    add_sound(&part[w], (w < 3 ? w * 10 : 25) * 16000, 10 * 16000);
    run_task(m, "classify", &part[w], NULL, &p[w]);
  }
  for (int c = 0; c < 3; c++) {
    double mean = 0;
    for (int w = 0; w < 4; w++)
      mean += ((const float *)result_of(&p[w], "probabilities")->data)[c] / 4.0;
    cr_assert_float_eq(((const float *)result_of(&r, "probabilities")->data)[c], mean, 1e-5);
  }
}

Test(beats, codes_move_into_a_vocabulary) {
  viv_model *m = load(open_runtime(), TOKENIZER);
  inputs in = {0};
  results a, b;
  make_wave();
  add_sound(&in, 0, 9000);
  run_task(m, "encode", &in, NULL, &a);
  run_task(m, "encode", &in, "{\"token_offset\":50}", &b);
  const viv_tensor *x = result_of(&a, "audio_codes"), *y = result_of(&b, "audio_codes");
  for (int64_t i = 0; i < x->shape[0]; i++)
    cr_assert_eq(((const int64_t *)x->data)[i] + 50, ((const int64_t *)y->data)[i]);
}

Test(beats, bad_requests) {
  viv_runtime *rt = open_runtime();
  viv_model *tuned = load(rt, TUNED), *codes = load(rt, TOKENIZER);
  inputs none = {0}, short_one = {0}, padded = {0}, nan = {0}, rate = {0};
  static uint8_t padding[2 * 9000];
  static float hole[3000];
  make_wave();
  expect_error(tuned, "classify", &none, NULL, VIV_BAD_INPUT, "audio");
  add_sound(&short_one, 0, 2799);
  expect_error(tuned, "classify", &short_one, NULL, VIV_BAD_INPUT, "15 frames");
  expect_error(codes, "classify", &short_one, NULL, VIV_NEVER, "no task classify");
  expect_error(tuned, "embed", &short_one, "{\"layer\":4}", VIV_BAD_INPUT, "layer");
  memset(padding + 9000, 1, 9000);
  add_data(&padded, "source", VIV_F32, wave, 2, (const int64_t[]){2, 9000});
  add_data(&padded, "padding_mask", VIV_U8, padding, 2, (const int64_t[]){2, 9000});
  expect_error(tuned, "forward", &padded, NULL, VIV_BAD_INPUT, "row 1");
  padded.tensor[1].shape[1] = 8000;
  padded.tensor[1].bytes = 16000;
  expect_error(tuned, "forward", &padded, NULL, VIV_BAD_INPUT, "padding_mask");
  hole[2999] = INFINITY;
  add_data(&nan, "audio", VIV_F32, hole, 1, (const int64_t[]){3000});
  expect_error(codes, "encode", &nan, NULL, VIV_BAD_INPUT, "sample 2999");
  add_data(&rate, "source", VIV_F32, wave, 2, (const int64_t[]){1, 9000});
  expect_error(tuned, "forward", &rate, "{\"sampling_rate\":44100}", VIV_BAD_INPUT, "44100");
}

Test(beats, checkpoints_that_do_not_fit) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, TUNED, "\"encoder_layers\": 3", "\"encoder_layers\": 4", "encoder.layers.3.");
  refuse_changed(rt, TUNED, "\"encoder_layers\": 3", "\"encoder_layers\": 2", "encoder.layers.2.");
  refuse_changed(rt, TUNED, "\"gru_rel_pos\": true", "\"gru_rel_pos\": false", "grep_");
  refuse_changed(rt, TUNED, "\"predictor_class\": 10", "\"predictor_class\": 11", "predictor");
  refuse_changed(rt, TUNED, "\"activation_fn\": \"gelu\"", "\"activation_fn\": \"maxout\"",
                 "maxout");
  refuse_changed(rt, TUNED, "\"max_distance\": 40", "\"max_distance\": 8", "max_distance");
  refuse_changed(rt, TUNED, "\"conv_pos_groups\": 4", "\"conv_pos_groups\": 5", "conv_pos_groups");
  refuse_changed(rt, TUNED, "\"conv_bias\": false", "\"conv_bias\": true", "patch_embedding.bias");
  refuse_changed(rt, TOKENIZER, "\"quant_dim\": 12", "\"quant_dim\": 13", "quantize");
}
