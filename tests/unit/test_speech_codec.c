/* zoo/models/speech-codec: as many bits as its card promises, and speech that is still that speech. */
#include <math.h>

#include "pass_rt.h"
#include "speech.h"

#define CODEC "zoo/models/speech-codec"

enum { RATE = 16000, HOP = 320, ENTRIES = 1024, WINDOW = 512, STEP = 256, BANDS = 20 };

/* The logarithm of the power in 20 bands up to 5 kHz, 250 Hz each, of one windowed stretch. */
static void bands_of(const float *x, double band[BANDS]) {
  static double turn[WINDOW];
  for (int t = 0; t < WINDOW && turn[0] < 1; t++)
    turn[WINDOW - 1 - t] = cos(2 * M_PI * (WINDOW - 1 - t) / WINDOW); /* turn[0] comes last */
  for (int b = 0; b < BANDS; b++) band[b] = 1e-4;
  for (int k = 1; k <= BANDS * 8; k++) {
    double re = 0, im = 0;
    for (int t = 0; t < WINDOW; t++) {
      double windowed = (0.5 - 0.5 * turn[t]) * (double)x[t];
      re += windowed * turn[k * t % WINDOW];
      im += windowed * turn[(k * t + WINDOW / 4) % WINDOW];
    }
    band[(k - 1) / 8] += re * re + im * im;
  }
  for (int b = 0; b < BANDS; b++) band[b] = log(band[b]);
}

/* How far apart the bands of two sounds are on average, in nepers of power. */
static double distance(const float *x, const float *y, int64_t n) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t at = 0; at + WINDOW <= n; at += 2 * (int64_t)STEP, count++) {
    double a[BANDS], b[BANDS];
    bands_of(x + at, a);
    bands_of(y + at, b);
    for (int i = 0; i < BANDS; i++) sum += fabs(a[i] - b[i]) / BANDS;
  }
  return sum / (double)count;
}

/* Through the codec with so many books; the caller frees. */
static float *through(viv_model *m, const viv__sound *s, int32_t books) {
  char params[48];
  results codes, sound;
  inputs in = {0}, back = {0};
  snprintf(params, sizeof params, "{\"n_quantizers\":%d}", (int)books);
  add_data(&in, "audio", VIV_F32, s->data, 2, (const int64_t[]){1, s->frames});
  run_task(m, "encode", &in, params, &codes);
  cr_assert_eq(codes.status, VIV_OK, "%s: %s", codes.error.where, codes.error.message);
  const viv_tensor *t = result_of(&codes, "audio_codes");
  int64_t frames = (s->frames + HOP - 1) / HOP;
  cr_assert_eq(t->shape[2], books);
  cr_assert_eq(t->shape[3], frames, "%lld frames for %lld samples", (long long)t->shape[3],
               (long long)s->frames);
  static bool seen[ENTRIES];
  int different = 0;
  memset(seen, 0, sizeof seen);
  for (int64_t i = 0; i < books * frames; i++) {
    int64_t code = ((const int64_t *)t->data)[i];
    cr_assert(code >= 0 && code < ENTRIES);
    if (i < frames && !seen[code]) seen[code] = true, different++;
  }
  cr_expect_gt(different, frames / 4, "only %d codes of the first book in use", different);
  add_tensor(&back, "audio_codes", t);
  run_task(m, "decode", &back, NULL, &sound);
  cr_assert_eq(sound.status, VIV_OK, "%s: %s", sound.error.where, sound.error.message);
  t = result_of(&sound, "audio_values");
  cr_assert_geq(t->shape[2], s->frames);
  float *y = malloc((size_t)s->frames * sizeof *y);
  memcpy(y, t->data, (size_t)s->frames * sizeof *y);
  free_results(&codes), free_results(&sound);
  return y;
}

/* Three books are 1.5 kbit/s, six are 3. Speech of a voice that the training never had comes back
 * nearer to itself than the same voice saying something else is. */
Test(speech_codec, speech_survives_at_one_and_a_half_and_three_kilobits) {
  static const struct {
    int32_t books;
    double furthest;
  } rows[] = {{3, 0.95}, {6, 0.92}};
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, CODEC);
  viv__sound s = speech();
  double other = distance(s.data, s.data + 3 * RATE, s.frames - 3 * RATE);
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    float *y = through(m, &s, rows[i].books);
    double far = distance(s.data, y, s.frames);
    cr_log_info("%d books: %.3f, other speech %.3f", (int)rows[i].books, far, other);
    cr_expect_lt(far, rows[i].furthest, "%d books: %.3f", (int)rows[i].books, far);
    cr_expect_lt(far, 0.25 * other, "%d books: %.3f, other speech %.3f", (int)rows[i].books, far,
                 other);
    free(y);
  }
  viv__sound_free(&s);
  viv_unload(m);
  viv_close(rt);
}
