/* SpeechT5 and HiFi-GAN (plugins/speecht5): dropout by a seed, padded batches, a vocoder in the same
 * checkpoint, and what is refused. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define ASR "tests/goldens/speecht5/asr"
#define TTS "tests/goldens/speecht5/tts"
#define VC "tests/goldens/speecht5/vc"
#define VOCODER "tests/goldens/hifigan/speecht5-vocoder"

static float wave[2000], voice[12];
static const int64_t ids[6] = {5, 9, 12, 7, 30, 2};

static void add_sound(inputs *in, int64_t samples) {
  for (int64_t i = 0; i < samples; i++) wave[i] = (float)((i * 7919) % 2001 - 1000) / 4000.0f;
  add_data(in, "audio", VIV_F32, wave, 1, (const int64_t[]){samples});
}

static void add_voice(inputs *in, int n) {
  for (int i = 0; i < 12; i++) voice[i] = (float)(i % 5) - 1.5f;
  add_data(in, "speaker_embeddings", VIV_F32, voice, 2, (const int64_t[]){1, n});
}

static void add_text(inputs *in) {
  add_data(in, "input_ids", VIV_I64, ids, 2, (const int64_t[]){1, 6});
}

/* The pre-net's dropout stays on; its masks come from the seed. */
Test(speecht5, speech_repeats_with_its_seed) {
  viv_model *m = load(open_runtime(), TTS);
  inputs in = {0};
  results a, b, c;
  add_text(&in);
  add_voice(&in, 12);
  run_task(m, "speak", &in, "{\"seed\":1,\"threshold\":9,\"maxlenratio\":4}", &a);
  run_task(m, "speak", &in, "{\"seed\":1,\"threshold\":9,\"maxlenratio\":4}", &b);
  run_task(m, "speak", &in, "{\"seed\":2,\"threshold\":9,\"maxlenratio\":4}", &c);
  const viv_tensor *x = result_of(&a, "spectrogram"), *y = result_of(&b, "spectrogram");
  const viv_tensor *z = result_of(&c, "spectrogram");
  cr_assert_eq(x->shape[0], 24); /* 6 tokens, ratio 4 */
  cr_assert_arr_eq(x->data, y->data, x->bytes);
  cr_assert_neq(memcmp(x->data, z->data, x->bytes), 0);
}

/* The length of the speaker's vector says nothing about the voice. */
Test(speecht5, a_voice_is_a_direction) {
  viv_model *m = load(open_runtime(), VC);
  inputs one = {0}, two = {0};
  results a, b;
  static float loud[10];
  add_sound(&one, 900);
  add_voice(&one, 10);
  add_sound(&two, 900);
  for (int i = 0; i < 10; i++) loud[i] = 7 * voice[i];
  add_data(&two, "speaker_embeddings", VIV_F32, loud, 1, (const int64_t[]){10});
  const char *params = "{\"prenet_dropout\":0,\"threshold\":9,\"maxlenratio\":1}";
  run_task(m, "speak", &one, params, &a);
  run_task(m, "speak", &two, params, &b);
  const viv_tensor *x = result_of(&a, "spectrogram"), *y = result_of(&b, "spectrogram");
  for (int64_t i = 0; i < x->shape[0] * x->shape[1]; i++)
    cr_assert_float_eq(((const float *)x->data)[i], ((const float *)y->data)[i], 1e-5);
}

/* The two official checkpoints as one: the network's tensors, the vocoder's under "vocoder.". */
static void join_checkpoints(const char *folder) {
  static char name[512][96], text[1 << 16], inner[1 << 14];
  static viv_str names[512];
  static viv_tensor tensors[512];
  const char *const parts[] = {TTS, VOCODER};
  char path[256];
  int64_t n = 0;
  viv_error e = VIV_ERROR_INIT;
  for (int k = 0; k < 2; k++) {
    viv__safetensors *s = NULL; /* stays open: the tensors lie in it */
    snprintf(path, sizeof path, "%s/model.safetensors", parts[k]);
    cr_assert_eq(viv__safetensors_open(path, &s, &e), VIV_OK, "%s", e.message);
    for (int64_t i = 0; i < viv__safetensors_count(s); i++, n++) {
      viv_str own;
      tensors[n].struct_size = sizeof tensors[n];
      viv__safetensors_at(s, i, &own, &tensors[n]);
      snprintf(name[n], sizeof name[n], "%s%.*s", k ? "vocoder." : "", (int)own.len, own.ptr);
      names[n] = viv__str(name[n]);
    }
  }
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  cr_assert_eq(viv__safetensors_write(path, names, tensors, n, &e), VIV_OK, "%s", e.message);
  for (int k = 1; k >= 0; k--) {
    snprintf(path, sizeof path, "%s/config.json", parts[k]);
    FILE *f = fopen(path, "r");
    char *to = k ? inner : text;
    cr_assert(f);
    to[fread(to, 1, k ? sizeof inner - 1 : sizeof text - 1, f)] = 0;
    fclose(f);
  }
  snprintf(path, sizeof path, "%s/config.json", folder);
  FILE *f = fopen(path, "w");
  cr_assert(f);
  fprintf(f, "{\"vocoder\":%s,%s", inner, strchr(text, '{') + 1);
  fclose(f);
}

Test(speecht5, a_vocoder_in_the_same_checkpoint) {
  char folder[] = "/tmp/speecht5.XXXXXX";
  cr_assert(mkdtemp(folder));
  join_checkpoints(folder);
  viv_runtime *rt = open_runtime();
  viv_model *both = load(rt, folder), *vocoder = load(rt, VOCODER);
  inputs in = {0}, mel = {0};
  results a, b;
  add_text(&in);
  run_task(both, "speak", &in, "{\"threshold\":9,\"maxlenratio\":4}", &a);
  add_tensor(&mel, "spectrogram", result_of(&a, "spectrogram"));
  run_task(vocoder, "forward", &mel, NULL, &b);
  const viv_tensor *x = result_of(&a, "waveform"), *y = result_of(&b, "waveform");
  cr_assert_eq(x->bytes, y->bytes);
  cr_assert_arr_eq(x->data, y->data, x->bytes);
  remove_changed(folder);
}

Test(speecht5, bad_requests) {
  viv_runtime *rt = open_runtime();
  viv_model *asr = load(rt, ASR), *tts = load(rt, TTS), *vocoder = load(rt, VOCODER);
  inputs none = {0}, short_one = {0}, sound = {0}, text = {0}, narrow = {0}, mel = {0}, far = {0};
  static const int64_t beyond[2] = {3, 39};
  expect_error(asr, "transcribe", &none, NULL, VIV_BAD_INPUT, "audio");
  add_sound(&short_one, 9);
  expect_error(asr, "transcribe", &short_one, NULL, VIV_BAD_INPUT, "9 samples are too few");
  add_sound(&sound, 900);
  expect_error(asr, "generate", &sound, "{\"max_new_tokens\":0}", VIV_BAD_INPUT, "max_new_tokens");
  expect_error(asr, "speak", &sound, NULL, VIV_NEVER, "no task speak");
  add_data(&sound, "decoder_input_ids", VIV_I64, (const int64_t[]){2, 41}, 2,
           (const int64_t[]){1, 2});
  expect_error(asr, "forward", &sound, NULL, VIV_BAD_INPUT, "item 1 is 41");
  expect_error(tts, "speak", &none, NULL, VIV_BAD_INPUT, "text");
  add_text(&text);
  expect_error(tts, "speak", &text, "{\"threshold\":-1}", VIV_BAD_INPUT, "threshold");
  add_data(&text, "prenet_masks", VIV_F32, wave, 3, (const int64_t[]){1, 2, 18});
  expect_error(tts, "speak", &text, "{\"maxlenratio\":4}", VIV_BAD_INPUT, "prenet_masks");
  add_text(&narrow);
  add_voice(&narrow, 11);
  expect_error(tts, "speak", &narrow, NULL, VIV_BAD_INPUT, "speaker_embeddings");
  add_data(&far, "input_ids", VIV_I64, beyond, 2, (const int64_t[]){1, 2});
  expect_error(tts, "speak", &far, NULL, VIV_BAD_INPUT, "item 1 is 39");
  add_data(&mel, "spectrogram", VIV_F32, wave, 2, (const int64_t[]){10, 9});
  expect_error(vocoder, "forward", &mel, NULL, VIV_BAD_INPUT, "spectrogram");
}

Test(speecht5, checkpoints_that_do_not_fit) {
  viv_runtime *rt = open_runtime();
  refuse_changed(rt, ASR, "\"encoder_layers\": 3", "\"encoder_layers\": 2", "layers.2.");
  refuse_changed(rt, ASR, "\"encoder_max_relative_position\": 6",
                 "\"encoder_max_relative_position\": 7", "pe_k");
  refuse_changed(rt, ASR, "\"scale_embedding\": false", "\"scale_embedding\": true",
                 "scale_embedding");
  refuse_changed(rt, TTS, "\"reduction_factor\": 2", "\"reduction_factor\": 3", "feat_out");
  refuse_changed(rt, TTS, "\"speech_decoder_postnet_kernel\": 5",
                 "\"speech_decoder_postnet_kernel\": 4", "odd");
  refuse_changed(rt, TTS, "\"vocab_size\": 39", "\"vocab_size\": 40", "embed_tokens");
  refuse_changed(rt, VOCODER, "\"upsample_rates\": [", "\"upsample_rates\": [2,", "upsample_rates");
  refuse_changed(rt, VOCODER, "\"model_in_dim\": 10", "\"model_in_dim\": 11", "conv_pre");
  refuse_changed(rt, VOCODER, "\"resblock_dilation_sizes\": [",
                 "\"resblock_dilation_sizes\": [[1],", "resblock_dilation_sizes");
}
