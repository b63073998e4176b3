/* Recordings as bytes: what is read, and what is refused with which words. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "media/sound.h"

struct bytes {
  uint8_t b[512];
  size_t len;
};

static void put(struct bytes *o, uint32_t value, int n) {
  for (int i = 0; i < n; i++) o->b[o->len++] = (uint8_t)(value >> (8 * i));
}

/* A RIFF WAVE header; format 1 is whole numbers, 3 floats. */
static struct bytes wave(uint32_t format, uint32_t channels, uint32_t rate, uint32_t bits,
                         uint32_t data) {
  struct bytes o = {.len = 0};
  memcpy(o.b, "RIFF    WAVEfmt ", 16);
  memcpy(o.b + 4, &(uint32_t){36 + data}, 4);
  o.len = 16;
  put(&o, 16, 4);
  put(&o, format, 2);
  put(&o, channels, 2);
  put(&o, rate, 4);
  put(&o, rate * channels * bits / 8, 4);
  put(&o, channels * bits / 8, 2);
  put(&o, bits, 2);
  memcpy(o.b + o.len, "data", 4);
  o.len += 4;
  put(&o, data, 4);
  return o;
}

static void refused(const struct bytes *o, size_t len, int64_t max, const char *words) {
  viv__sound s;
  viv_error e = VIV_ERROR_INIT;
  viv__sound_options options = {.max_samples = max};
  int32_t status = viv__sound_decode(o->b, len, "clip.wav", &options, &s, &e);
  cr_assert_eq(status, VIV_BAD_INPUT, "%d %s", status, e.message);
  cr_assert(strstr(e.message, words), "\"%s\" lacks \"%s\"", e.message, words);
  cr_assert_str_eq(e.where, "clip.wav");
  cr_assert_null(s.data);
}

Test(sound, whole_numbers_are_divided_and_channels_lie_apart) {
  struct bytes o = wave(1, 2, 44100, 16, 12);
  static const int16_t in[] = {-32768, 16384, 1, 0, 32767, -1};
  for (int i = 0; i < 6; i++) put(&o, (uint16_t)in[i], 2);
  viv__sound s;
  viv_error e = VIV_ERROR_INIT;
  viv__sound_options options = {0};
  cr_assert_eq(viv__sound_decode(o.b, o.len, "clip.wav", &options, &s, &e), VIV_OK, "%s",
               e.message);
  cr_assert_eq(s.rate, 44100);
  cr_assert_eq(s.channels, 2);
  cr_assert_eq(s.frames, 3);
  static const float want[] = {-1.0f, 1.0f / 32768, 32767.0f / 32768, 0.5f, 0.0f, -1.0f / 32768};
  for (int i = 0; i < 6; i++) cr_assert_eq(s.data[i], want[i], "%d: %g", i, (double)s.data[i]);
  viv__sound_free(&s);
}

Test(sound, what_cannot_be_heard_is_refused) {
  struct bytes o = wave(1, 1, 16000, 16, 8);
  for (int i = 0; i < 4; i++) put(&o, 5, 2);
  refused(&o, 5, 0, "no recording");
  refused(&o, 20, 0, "damaged or cut short");
  refused(&o, o.len, 3, "at most 3");
  struct bytes none = wave(1, 1, 16000, 16, 0);
  refused(&none, none.len, 0, "holds no samples");
  struct bytes slow = wave(1, 1, 1, 16, 2);
  put(&slow, 5, 2);
  refused(&slow, slow.len, 0, "samples a second");
  struct bytes fast = wave(1, 1, 10000000, 16, 2);
  put(&fast, 5, 2);
  refused(&fast, fast.len, 0, "samples a second");
  struct bytes wide = wave(1, 65, 16000, 16, 130);
  for (int i = 0; i < 65; i++) put(&wide, 5, 2);
  refused(&wide, wide.len, 0, "65 channels");
  struct bytes odd = wave(3, 1, 16000, 32, 8);
  put(&odd, 0, 4);
  put(&odd, 0x7fc00000, 4);
  refused(&odd, odd.len, 0, "sample 1 is no finite number");
}

/* The samples of a file that was written. */
static viv__sound again(const char *path) {
  viv__sound s;
  viv_error e = VIV_ERROR_INIT;
  viv__sound_options options = {0};
  char *bytes = NULL;
  size_t len = 0;
  cr_assert_eq(viv__read_file(path, 1 << 20, &bytes, &len, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(viv__sound_decode(bytes, len, path, &options, &s, &e), VIV_OK, "%s", e.message);
  viv__free(bytes);
  return s;
}

Test(sound, what_is_written_is_read_again) {
  static const char *const names[] = {"a.wav", "b.FLAC"};
  float x[2 * 5000];
  for (int i = 0; i < 10000; i++) x[i] = (float)((i * 7919) % 2001 - 1000) / 1000.0f * 1.1f;
  const viv__sound wave = {.channels = 2, .rate = 24000, .frames = 5000, .data = x};
  for (int k = 0; k < 2; k++) {
    viv_error e = VIV_ERROR_INIT;
    char path[64];
    snprintf(path, sizeof path, "/tmp/viv-sound-%d-%s", (int)getpid(), names[k]);
    cr_assert(viv__sound_file_known(path));
    cr_assert_eq(viv__sound_save(&wave, path, &e), VIV_OK, "%s", e.message);
    viv__sound s = again(path), t;
    cr_assert_eq(s.channels, 2);
    cr_assert_eq(s.rate, 24000);
    cr_assert_eq(s.frames, 5000);
    for (int i = 0; i < 10000; i++) {
      float wanted = x[i] > 1 ? 1 : x[i] < -1 ? -1 : x[i]; /* louder is clipped */
      cr_assert_float_eq(s.data[i], wanted, 1.0 / 32767);
    }
    /* What once went through 16 bits does not change when it does so again. */
    cr_assert_eq(viv__sound_save(&s, path, &e), VIV_OK, "%s", e.message);
    t = again(path);
    cr_assert_arr_eq(t.data, s.data, 10000 * sizeof *s.data);
    viv__sound_free(&s);
    viv__sound_free(&t);
    unlink(path);
  }
}

/* What other programs write is read: half a second of a tone comes back with its pitch. */
Test(sound, formats_of_other_programs_are_read) {
  static const struct {
    const char *name;
    int format, rate;
  } kinds[] = {{"vorbis.ogg", SF_FORMAT_OGG | SF_FORMAT_VORBIS, 22050},
               {"opus.opus", SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000},
               {"layer3.mp3", SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100},
               {"lossless.flac", SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 96000},
               {"float.wav", SF_FORMAT_WAV | SF_FORMAT_DOUBLE, 11025},
               {"rf64.wav", SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 16000},
               {"apple.aiff", SF_FORMAT_AIFF | SF_FORMAT_PCM_24, 32000},
               {"sun.au", SF_FORMAT_AU | SF_FORMAT_ULAW, 8000},
               {"core.caf", SF_FORMAT_CAF | SF_FORMAT_PCM_32, 44100}};
  void *so = dlopen("libsndfile.so.1", RTLD_NOW | RTLD_LOCAL);
  cr_assert(so, "libsndfile is not here");
  __typeof__(&sf_open) open_file;
  __typeof__(&sf_writef_float) write_file;
  __typeof__(&sf_close) close_file;
  *(void **)&open_file = dlsym(so, "sf_open");
  *(void **)&write_file = dlsym(so, "sf_writef_float");
  *(void **)&close_file = dlsym(so, "sf_close");
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    char path[96];
    static float x[2 * 48000];
    SF_INFO info = {.samplerate = kinds[k].rate, .channels = 2, .format = kinds[k].format};
    snprintf(path, sizeof path, "/tmp/viv-sound-%d-%s", (int)getpid(), kinds[k].name);
    SNDFILE *f = open_file(path, SFM_WRITE, &info);
    cr_assert(f, "%s can't be written here", kinds[k].name);
    int half = kinds[k].rate / 2;
    for (int i = 0; i < half; i++) {
      x[2 * i] = 0.5f * sinf(2 * (float)M_PI * 440 * (float)i / (float)kinds[k].rate);
      x[2 * i + 1] = -x[2 * i];
    }
    write_file(f, x, half);
    close_file(f);
    viv__sound s = again(path);
    unlink(path);
    cr_assert_eq(s.rate, kinds[k].rate, "%s: %d Hz", kinds[k].name, (int)s.rate);
    cr_assert_eq(s.channels, 2);
    cr_assert(s.frames >= half && s.frames < half + 5000, "%s: %lld samples", kinds[k].name,
              (long long)s.frames);
    int crossings = 0;
    for (int64_t i = 1; i < s.frames; i++) crossings += s.data[i - 1] < 0 && s.data[i] >= 0;
    cr_assert(crossings > 205 && crossings < 240, "%s: %d periods instead of 220", kinds[k].name,
              crossings);
    viv__sound_free(&s);
  }
}

Test(sound, levels_are_the_nearest_whole_numbers) {
  cr_assert_eq(viv__sound_level(1.4f / 32768, 16), 1);
  cr_assert_eq(viv__sound_level(-1.6f / 32768, 16), -2);
  cr_assert_eq(viv__sound_level(2, 16), 32767);
  cr_assert_eq(viv__sound_level(-2, 16), -32768);
  cr_assert_eq(viv__sound_level(1, 24), 8388607);
  cr_assert_eq(viv__sound_level(0.0f / 0.0f, 16), -32768);
}

Test(sound, what_can_not_be_written) {
  float x[4] = {0};
  viv__sound s = {.channels = 1, .rate = 16000, .frames = 4, .data = x};
  viv_error e = VIV_ERROR_INIT;
  char path[64];
  snprintf(path, sizeof path, "/tmp/viv-sound-%d.wav", (int)getpid());
  cr_assert_eq(viv__sound_save(&s, "x.ogg", &e), VIV_BAD_INPUT);
  s.channels = 65;
  cr_assert_eq(viv__sound_save(&s, path, &e), VIV_BAD_INPUT);
  s.channels = 1;
  s.rate = 0;
  cr_assert_eq(viv__sound_save(&s, path, &e), VIV_BAD_INPUT);
  s.rate = 16000;
  s.frames = 0;
  cr_assert_eq(viv__sound_save(&s, path, &e), VIV_BAD_INPUT);
  cr_assert_eq(access(path, F_OK), -1, "a file that could not be written is left behind");
}
