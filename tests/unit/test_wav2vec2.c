/* wav2vec 2.0, HuBERT, WavLM (plugins/wav2vec2): a row of a batch is the row alone, units in the forms
 * that people want, and what is refused. */
#include "changed.h"
#include "pass_rt.h"

#define HUBERT "tests/goldens/hubert/base-tiny"
#define CTC "tests/goldens/wav2vec2/ctc-stable-tiny"
#define WAVLM "tests/goldens/wavlm/tiny"

static float wave[4000], centroids[5 * 24];

static void add_sound(inputs *in, int64_t samples) {
  for (int64_t i = 0; i < samples; i++) wave[i] = (float)((i * 7919) % 2001 - 1000) / 2000.0f;
  add_data(in, "audio", VIV_F32, wave, 1, (const int64_t[]){samples});
}

static void add_centroids(inputs *in) {
  for (int i = 0; i < 5 * 24; i++) centroids[i] = (float)((i * 31) % 17 - 8) / 4.0f;
  add_data(in, "centroids", VIV_F32, centroids, 2, (const int64_t[]){5, 24});
}

/* With a norm per frame nothing of a row depends on its pads or on its neighbours. */
Test(wav2vec2, a_row_of_a_padded_batch_is_the_row_alone) {
  viv_model *m = load(open_runtime(), CTC);
  inputs one = {0}, two = {0};
  results a, b;
  add_sound(&one, 1500);
  add_sound(&two, 1500);
  add_sound(&two, 4000);
  run_task(m, "forward", &one, NULL, &a);
  run_task(m, "forward", &two, NULL, &b);
  const viv_tensor *x = result_of(&a, "logits"), *y = result_of(&b, "logits");
  int64_t frames = x->shape[1], letters = x->shape[2];
  cr_assert_eq(((const int64_t *)result_of(&b, "output_lengths")->data)[0], frames);
  cr_assert_gt(y->shape[1], frames);
  /* The convolution of positions reaches 3 frames into the pads, which are zeros like its border. */
  for (int64_t i = 0; i < frames * letters; i++)
    cr_assert_float_eq(((const float *)x->data)[i], ((const float *)y->data)[i], 1e-4);
}

Test(wav2vec2, units_merge_and_move_into_a_vocabulary) {
  viv_model *m = load(open_runtime(), HUBERT);
  inputs in = {0};
  results plain, merged;
  add_sound(&in, 4000);
  add_centroids(&in);
  run_task(m, "encode", &in, "{\"kmeans_layer\":1}", &plain);
  run_task(m, "encode", &in, "{\"kmeans_layer\":1,\"deduplicate\":true,\"token_offset\":100}",
           &merged);
  const viv_tensor *all = result_of(&plain, "audio_codes"),
                   *u = result_of(&merged, "audio_codes.0");
  const int64_t *units = all->data, *runs = u->data,
                *lasted = result_of(&merged, "durations.0")->data;
  int64_t at = 0;
  for (int64_t r = 0; r < u->shape[0]; r++)
    for (int64_t k = 0; k < lasted[r]; k++) cr_assert_eq(runs[r], units[at++] + 100);
  cr_assert_eq(at, all->shape[1]);
  for (int64_t r = 1; r < u->shape[0]; r++) cr_assert_neq(runs[r], runs[r - 1]);
}

Test(wav2vec2, bad_requests) {
  viv_runtime *rt = open_runtime();
  viv_model *hubert = load(rt, HUBERT), *ctc = load(rt, CTC), *wavlm = load(rt, WAVLM);
  inputs none = {0}, short_one = {0}, sound = {0}, holes = {0}, nan = {0}, narrow = {0};
  static uint8_t mask[2000];
  static float hole[500];
  expect_error(hubert, "forward", &none, NULL, VIV_BAD_INPUT, "audio");
  add_sound(&short_one, 20);
  expect_error(hubert, "forward", &short_one, NULL, VIV_BAD_INPUT, "20 samples are too few");
  add_sound(&sound, 2000);
  expect_error(hubert, "encode", &sound, NULL, VIV_BAD_INPUT, "centroids");
  expect_error(hubert, "transcribe", &sound, NULL, VIV_NEVER, "no task transcribe");
  expect_error(hubert, "embed", &sound, "{\"layer\":4}", VIV_BAD_INPUT, "layer");
  add_data(&sound, "centroids", VIV_F32, centroids, 2, (const int64_t[]){6, 20});
  expect_error(hubert, "encode", &sound, NULL, VIV_BAD_INPUT, "[6, 20]");
  for (int i = 0; i < 2000; i++) mask[i] = i < 700 || i > 900;
  add_data(&holes, "input_values", VIV_F32, wave, 2, (const int64_t[]){1, 2000});
  add_data(&holes, "attention_mask", VIV_U8, mask, 2, (const int64_t[]){1, 2000});
  expect_error(wavlm, "forward", &holes, NULL, VIV_BAD_INPUT, "attention_mask");
  hole[3] = 0.0f / 0.0f;
  add_data(&nan, "audio", VIV_F32, hole, 1, (const int64_t[]){500});
  expect_error(wavlm, "forward", &nan, NULL, VIV_BAD_INPUT, "sample 3");
  add_data(&narrow, "input_values", VIV_F32, wave, 2, (const int64_t[]){1, 2000});
  expect_error(wavlm, "forward", &narrow, "{\"sampling_rate\":8000}", VIV_BAD_INPUT, "8000");
  add_data(&none, "logits", VIV_F32, wave, 3, (const int64_t[]){1, 10, 13});
  expect_error(ctc, "postprocess", &none, NULL, VIV_BAD_INPUT, "logits");
}

Test(wav2vec2, checkpoints_that_do_not_fit) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, HUBERT, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4",
                 "encoder.layers.3.");
  refuse_changed(rt, HUBERT, "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2",
                 "encoder.layers.2.");
  refuse_changed(rt, HUBERT, "\"conv_kernel\"", "\"conv_kernel\": [10, 4], \"was\"", "conv_kernel");
  refuse_changed(rt, HUBERT, "\"feat_extract_norm\": \"group\"", "\"feat_extract_norm\": \"batch\"",
                 "feat_extract_norm");
  refuse_changed(rt, HUBERT, "\"conv_bias\": false", "\"conv_bias\": true", "conv.bias");
  refuse_changed(rt, HUBERT, "\"num_conv_pos_embedding_groups\": 4",
                 "\"num_conv_pos_embedding_groups\": 5", "num_conv_pos_embedding_groups");
  refuse_changed(rt, HUBERT, "\"conv_pos_batch_norm\": false", "\"conv_pos_batch_norm\": true",
                 "conv_pos_batch_norm");
  refuse_changed(rt, WAVLM, "\"max_bucket_distance\": 60", "\"max_bucket_distance\": 8",
                 "max_bucket_distance");
  refuse_changed(rt, CTC, "\"add_adapter\": false", "\"add_adapter\": true", "add_adapter");
  refuse_changed(rt, CTC, "\"vocab_size\": 14", "\"vocab_size\": 15", "lm_head");
}
