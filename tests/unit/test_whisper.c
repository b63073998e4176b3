/* Whisper (plugins/whisper): the doors agree with one another, and what they refuse. */
#include "pass_rt.h"

#define TINY "tests/goldens/whisper/tiny"

static float wave[2 * 16000];

static void add_sound(inputs *in, int64_t samples) {
  for (int64_t i = 0; i < samples; i++) wave[i] = (float)((i * 7919) % 2001 - 1000) / 4000.0f;
  add_data(in, "audio", VIV_F32, wave, 1, (const int64_t[]){samples});
}

Test(whisper, tokens_do_not_depend_on_the_batch_or_on_steps) {
  viv_model *m = load(open_runtime(), TINY);
  inputs both = {0}, alone = {0};
  results a, b, c;
  static const int64_t ids[2][4] = {{86, 87, 90, 95}, {86, 88, 90, 95}};
  add_sound(&both, 9000);
  add_sound(&both, 9000);
  add_data(&both, "decoder_input_ids", VIV_I64, ids, 2, (const int64_t[]){2, 4});
  add_sound(&alone, 9000);
  add_data(&alone, "decoder_input_ids", VIV_I64, ids[1], 2, (const int64_t[]){1, 4});
  run_task(m, "generate", &both, "{\"max_new_tokens\":6,\"ignore_eos\":true}", &a);
  run_task(m, "generate", &alone, "{\"max_new_tokens\":6,\"ignore_eos\":true}", &b);
  const int64_t *two = result_of(&a, "sequences")->data, *one = result_of(&b, "sequences")->data;
  cr_assert_eq(result_of(&a, "sequences")->shape[1], 10);
  for (int i = 0; i < 10; i++) cr_assert_eq(two[10 + i], one[i]);

  /* A pass over the whole text gives the logits that the steps gave. */
  inputs whole = {0};
  run_task(m, "preprocess", &alone, NULL, &c);
  add_tensor(&whole, "input_features", result_of(&c, "input_features"));
  add_data(&whole, "decoder_input_ids", VIV_I64, one, 2, (const int64_t[]){1, 10});
  run_task(m, "forward", &whole, NULL, &c);
  const float *logits = result_of(&c, "logits")->data;
  const float *steps = result_of(&b, "step_logits")->data;
  for (int s = 0; s < 6; s++)
    for (int v = 0; v < 97; v++)
      cr_assert_float_eq(steps[s * 97 + v], logits[(3 + s) * 97 + v], 1e-4);
}

Test(whisper, a_recording_longer_than_a_window_is_heard_to_its_end) {
  viv_model *m = load(open_runtime(), TINY);
  inputs one = {0}, two = {0};
  results a, b;
  add_sound(&one, 16000);
  add_sound(&two, 32000);
  run_task(m, "transcribe", &one, "{\"language\":\"en\",\"max_new_tokens\":5}", &a);
  run_task(m, "transcribe", &two, "{\"language\":\"en\",\"max_new_tokens\":5}", &b);
  cr_assert_eq(a.status, VIV_OK, "%s: %s", a.error.where, a.error.message);
  cr_assert_eq(b.status, VIV_OK, "%s: %s", b.error.where, b.error.message);
}

Test(whisper, bad_requests) {
  viv_model *m = load(open_runtime(), TINY);
  inputs sound = {0}, none = {0}, features = {0}, nan = {0};
  static float few[20 * 50], hole[100];
  static const int64_t beyond[1][2] = {{86, 97}};
  add_sound(&sound, 5000);
  expect_error(m, "transcribe", &none, NULL, VIV_BAD_INPUT, "audio");
  expect_error(m, "transcribe", &sound, "{\"language\":\"xx\"}", VIV_BAD_INPUT, "language");
  expect_error(m, "transcribe", &sound, "{\"task\":\"sing\"}", VIV_BAD_INPUT, "translate");
  expect_error(m, "transcribe", &sound, "{\"max_new_tokens\":0}", VIV_BAD_INPUT, "max_new_tokens");
  expect_error(m, "generate", &sound, "{\"suppress_tokens\":[97]}", VIV_BAD_INPUT, "no token");
  add_data(&features, "input_features", VIV_F32, few, 3, (const int64_t[]){1, 20, 50});
  expect_error(m, "forward", &features, NULL, VIV_BAD_INPUT, "50 frames");
  hole[7] = 0.0f / 0.0f;
  add_data(&nan, "audio", VIV_F32, hole, 1, (const int64_t[]){100});
  expect_error(m, "transcribe", &nan, NULL, VIV_BAD_INPUT, "sample 7");
  add_data(&sound, "decoder_input_ids", VIV_I64, beyond, 2, (const int64_t[]){1, 2});
  expect_error(m, "generate", &sound, NULL, VIV_BAD_INPUT, "item 1 is 97");
}
