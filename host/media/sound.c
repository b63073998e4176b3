/* Recordings through libsndfile, from memory and into it. */
#include "media/sound.h"

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <sndfile.h>
#include <string.h>
#include <strings.h>

#define SNDFILE_FUNCTIONS(X) X(open_virtual) X(close) X(readf_float) X(writef_short) X(strerror)
static struct {
#define MEMBER(name) __typeof__(&sf_##name) name;
  SNDFILE_FUNCTIONS(MEMBER)
#undef MEMBER
} sf;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool opened;

/* The library and the six codecs behind it stay open, as cairo does. */
static void open_sndfile(void) {
  void *so = dlopen("libsndfile.so.1", RTLD_NOW | RTLD_LOCAL);
  bool all = so != NULL;
#define LOAD(name)                                                                                 \
  if (all) *(void **)&sf.name = dlsym(so, "sf_" #name);                                            \
  all = all && sf.name;
  SNDFILE_FUNCTIONS(LOAD)
#undef LOAD
  opened = all;
}

/* ---- bytes in memory as the library's file ---- */

struct file {
  const uint8_t *bytes;
  sf_count_t len, at;
};

static sf_count_t file_length(void *context) {
  return ((struct file *)context)->len;
}

static sf_count_t file_seek(sf_count_t offset, int whence, void *context) {
  struct file *f = context;
  sf_count_t base = whence == SEEK_CUR ? f->at : whence == SEEK_END ? f->len : 0, to = 0;
  if (__builtin_add_overflow(base, offset, &to) || to < 0 || to > f->len) return -1;
  return f->at = to;
}

static sf_count_t file_read(void *to, sf_count_t count, void *context) {
  struct file *f = context;
  sf_count_t n = count < 0 ? 0 : count > f->len - f->at ? f->len - f->at : count;
  if (n) memcpy(to, f->bytes + f->at, (size_t)n);
  f->at += n;
  return n;
}

static sf_count_t file_write(const void *from, sf_count_t count, void *context) {
  (void)from, (void)count, (void)context;
  return 0;
}

static sf_count_t file_tell(void *context) {
  return ((struct file *)context)->at;
}

/* ---- decoding ---- */

/* The library also reads two dozen forgotten formats, and guesses raw ones: those parsers are not
 * for untrusted bytes. */
static bool known_format(const uint8_t *b, size_t len) {
  static const char *const marks[] = {"RIFF", "RIFX", "RF64", "riff", "FORM",
                                      ".snd", "caff", "fLaC", "OggS", "ID3"};
  if (len < 12) return false;
  for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
    if (!memcmp(b, marks[i], strlen(marks[i]))) return true;
  return b[0] == 0xff && (b[1] & 0xe0) == 0xe0;
}

static int32_t check_header(const SF_INFO *info, const char *name, int64_t max, viv_error *error) {
  if (info->channels < 1 || info->channels > VIV__SOUND_MAX_CHANNELS)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "%d channels; 1 to %d are read", info->channels,
                    VIV__SOUND_MAX_CHANNELS);
  if (info->samplerate < VIV__SOUND_MIN_RATE || info->samplerate > VIV__SOUND_MAX_RATE)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "%d samples a second; %d to %d are read",
                    info->samplerate, VIV__SOUND_MIN_RATE, VIV__SOUND_MAX_RATE);
  /* A compressed stream may not know its length, which then is a huge number. */
  if (info->frames > max / info->channels && info->frames != SF_COUNT_MAX)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "%lld samples in each of %d channels; at most %lld in all are read",
                    (long long)info->frames, info->channels, (long long)max);
  return VIV_OK;
}

/* All samples as they stand in the file, channels side by side. */
static int32_t read_all(SNDFILE *file, const SF_INFO *info, const char *name, int64_t max,
                        viv__buf *all, viv_error *error) {
  enum { BLOCK = 4096 };
  float block[BLOCK];
  sf_count_t step = BLOCK / info->channels, got;
  int64_t n = 0;
  while ((got = sf.readf_float(file, block, step)) > 0) {
    int64_t fresh = got * info->channels;
    for (int64_t i = 0; i < fresh; i++)
      if (!isfinite(block[i]))
        return VIV_FAIL(error, VIV_BAD_INPUT, name, "sample %lld is no finite number",
                        (long long)((n + i) / info->channels));
    if ((n += fresh) > max)
      return VIV_FAIL(error, VIV_BAD_INPUT, name, "more than %lld samples in all channels",
                      (long long)max);
    viv__buf_add(all, block, (size_t)fresh * sizeof *block);
    if (all->failed) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
  }
  if (!n) return VIV_FAIL(error, VIV_BAD_INPUT, name, "the recording holds no samples");
  return VIV_OK;
}

static int32_t planar(const viv__buf *all, const SF_INFO *info, const char *name,
                      const viv__sound_options *options, viv__sound *out, viv_error *error) {
  size_t c = (size_t)info->channels, frames = all->len / (c * sizeof(float));
  float *data = options->arena ? viv__arena_alloc(options->arena, all->len) : viv__malloc(all->len);
  if (!data) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
  for (size_t i = 0; i < c; i++)
    for (size_t t = 0; t < frames; t++)
      memcpy(&data[i * frames + t], all->ptr + (t * c + i) * sizeof(float), sizeof(float));
  *out = (viv__sound){.channels = info->channels,
                      .rate = info->samplerate,
                      .frames = (int64_t)frames,
                      .data = data,
                      .owned = !options->arena};
  return VIV_OK;
}

int32_t viv__sound_decode(const void *bytes, size_t len, const char *name,
                          const viv__sound_options *options, viv__sound *out, viv_error *error) {
  *out = (viv__sound){0};
  if (!known_format(bytes, len))
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "no recording that is read here (WAV, AIFF, AU, CAF, FLAC, Ogg, MP3)");
  pthread_once(&once, open_sndfile);
  if (!opened)
    return VIV_FAIL(error, VIV_NEVER, "libsndfile.so.1",
                    "recordings need the library sndfile (Debian: libsndfile1)");
  SF_VIRTUAL_IO io = {.get_filelen = file_length,
                      .seek = file_seek,
                      .read = file_read,
                      .write = file_write,
                      .tell = file_tell};
  struct file f = {.bytes = bytes, .len = (sf_count_t)len};
  SF_INFO info = {0};
  SNDFILE *file = sf.open_virtual(&io, SFM_READ, &info, &f);
  if (!file) {
    char why[128];
    /* Without a file the library keeps one text for the process: copied before it is shown. */
    snprintf(why, sizeof why, "%s", sf.strerror(NULL));
    why[strcspn(why, "\n")] = 0;
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the recording is damaged or cut short: %s", why);
  }
  int64_t max = options->max_samples > 0 ? options->max_samples : VIV__SOUND_MAX_SAMPLES;
  viv__buf all = {0};
  int32_t status = check_header(&info, name, max, error);
  if (status >= 0) status = read_all(file, &info, name, max, &all, error);
  sf.close(file);
  if (status >= 0) status = planar(&all, &info, name, options, out, error);
  viv__buf_free(&all);
  return status;
}

void viv__sound_free(viv__sound *sound) {
  if (sound->owned) viv__free(sound->data);
  *sound = (viv__sound){0};
}

/* ---- encoding ---- */

/* A file that grows; the library goes back to its header when it knows the length. */
struct sink {
  char *bytes;
  sf_count_t len, cap, at;
};

static sf_count_t sink_length(void *context) {
  return ((struct sink *)context)->len;
}

static sf_count_t sink_seek(sf_count_t offset, int whence, void *context) {
  struct sink *s = context;
  sf_count_t base = whence == SEEK_CUR ? s->at : whence == SEEK_END ? s->len : 0, to = 0;
  if (__builtin_add_overflow(base, offset, &to) || to < 0 || to > s->len) return -1;
  return s->at = to;
}

static sf_count_t sink_read(void *to, sf_count_t count, void *context) {
  struct sink *s = context;
  sf_count_t n = count < 0 ? 0 : count > s->len - s->at ? s->len - s->at : count;
  if (n) memcpy(to, s->bytes + s->at, (size_t)n);
  s->at += n;
  return n;
}

static sf_count_t sink_write(const void *from, sf_count_t count, void *context) {
  struct sink *s = context;
  if (count <= 0) return 0;
  if (s->at + count > s->cap) {
    sf_count_t cap = 2 * (s->at + count) + 4096;
    char *grown = viv__realloc(s->bytes, (size_t)cap);
    if (!grown) return 0;
    s->bytes = grown;
    s->cap = cap;
  }
  memcpy(s->bytes + s->at, from, (size_t)count);
  s->at += count;
  if (s->at > s->len) s->len = s->at;
  return count;
}

static sf_count_t sink_tell(void *context) {
  return ((struct sink *)context)->at;
}

static int format_of(const char *path) {
  const char *dot = strrchr(path, '.');
  if (dot && !strcasecmp(dot, ".wav")) return SF_FORMAT_WAV | SF_FORMAT_PCM_16;
  if (dot && !strcasecmp(dot, ".flac")) return SF_FORMAT_FLAC | SF_FORMAT_PCM_16;
  return 0;
}

bool viv__sound_file_known(const char *path) {
  return format_of(path) != 0;
}

static bool write_all(SNDFILE *file, const viv__sound *s) {
  enum { BLOCK = 4096 };
  short block[BLOCK];
  int64_t step = BLOCK / s->channels;
  for (int64_t at = 0; at < s->frames; at += step) {
    int64_t n = s->frames - at < step ? s->frames - at : step;
    for (int64_t i = 0; i < n * s->channels; i++) {
      float x = s->data[i % s->channels * s->frames + at + i / s->channels] * 32768.0f;
      block[i] = (short)lrintf(!(x > -32768.0f) ? -32768.0f : x > 32767.0f ? 32767.0f : x);
    }
    if (sf.writef_short(file, block, n) != n) return false;
  }
  return true;
}

int32_t viv__sound_encode(const viv__sound *s, const char *path, viv__buf *out, viv_error *error) {
  SF_INFO info = {.samplerate = s->rate, .channels = s->channels, .format = format_of(path)};
  if (!info.format)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "sound is written as .wav or .flac");
  if (s->channels < 1 || s->channels > VIV__SOUND_MAX_CHANNELS || s->frames < 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%d channels of %lld samples are no recording",
                    (int)s->channels, (long long)s->frames);
  pthread_once(&once, open_sndfile);
  if (!opened)
    return VIV_FAIL(error, VIV_NEVER, "libsndfile.so.1",
                    "recordings need the library sndfile (Debian: libsndfile1)");
  SF_VIRTUAL_IO io = {.get_filelen = sink_length,
                      .seek = sink_seek,
                      .read = sink_read,
                      .write = sink_write,
                      .tell = sink_tell};
  struct sink sink = {0};
  SNDFILE *file = sf.open_virtual(&io, SFM_WRITE, &info, &sink);
  if (!file)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%d channels at %d Hz can't be written so",
                    (int)s->channels, (int)s->rate);
  bool good = write_all(file, s);
  good = !sf.close(file) && good;
  if (good) viv__buf_add(out, sink.bytes, (size_t)sink.len);
  viv__free(sink.bytes);
  return good && !out->failed ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
}
