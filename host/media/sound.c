/* Recordings through libsndfile, from memory and into it. */
#include "media/sound.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <sndfile.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define SNDFILE_FUNCTIONS(X)                                                                       \
  X(open_virtual)                                                                                  \
  X(open_fd) X(close) X(readf_float) X(writef_float) X(writef_int) X(command) X(strerror)
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

/* BAD_INPUT with the library's reason. Without a file it keeps one text for the process: copied
 * before it is shown. */
static int32_t refused(const char *name, const char *what, viv_error *error) {
  char why[128];
  snprintf(why, sizeof why, "%s", sf.strerror(NULL));
  why[strcspn(why, "\n")] = 0;
  return VIV_FAIL(error, VIV_BAD_INPUT, name, "%s: %s", what, why);
}

static int32_t need_library(viv_error *error) {
  pthread_once(&once, open_sndfile);
  if (opened) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, "libsndfile.so.1",
                  "recordings need the library sndfile (Debian: libsndfile1)");
}

static const char unknown_format[] =
    "no recording that is read here (WAV, AIFF, AU, CAF, FLAC, Ogg, MP3)";
static const char damaged[] = "the recording is damaged or cut short";

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
  if (!known_format(bytes, len)) return VIV_FAIL(error, VIV_BAD_INPUT, name, "%s", unknown_format);
  if (need_library(error) < 0) return VIV_NEVER;
  SF_VIRTUAL_IO io = {.get_filelen = file_length,
                      .seek = file_seek,
                      .read = file_read,
                      .write = file_write,
                      .tell = file_tell};
  struct file f = {.bytes = bytes, .len = (sf_count_t)len};
  SF_INFO info = {0};
  SNDFILE *file = sf.open_virtual(&io, SFM_READ, &info, &f);
  if (!file) return refused(name, damaged, error);
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

/* ---- in pieces ---- */

struct viv__sound_reader {
  SNDFILE *file;
  int fd;
  int32_t channels;
  int64_t at;
  char name[256];
};

int32_t viv__sound_open(const char *path, viv__sound_reader **out, int32_t *rate, int32_t *channels,
                        int64_t *frames, viv_error *error) {
  uint8_t head[16] = {0};
  SF_INFO info = {0};
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return VIV_FAIL(error, VIV_BAD_INPUT, path, "can't open: %s", strerror(errno));
  ssize_t n = pread(fd, head, sizeof head, 0);
  int32_t status = n < 0 || !known_format(head, (size_t)n)
                       ? VIV_FAIL(error, VIV_BAD_INPUT, path, "%s", unknown_format)
                       : need_library(error);
  SNDFILE *file = status < 0 ? NULL : sf.open_fd(fd, SFM_READ, &info, 0);
  if (status >= 0 && !file) status = refused(path, damaged, error);
  if (status >= 0) status = check_header(&info, path, SF_COUNT_MAX, error);
  viv__sound_reader *r = status < 0 ? NULL : viv__calloc(1, sizeof *r);
  if (status >= 0 && !r) status = VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  if (status < 0) {
    if (file) sf.close(file);
    close(fd);
    return status;
  }
  *r = (viv__sound_reader){.file = file, .fd = fd, .channels = info.channels};
  snprintf(r->name, sizeof r->name, "%s", path);
  *rate = info.samplerate;
  *channels = info.channels;
  *frames = info.frames == SF_COUNT_MAX ? -1 : info.frames;
  *out = r;
  return VIV_OK;
}

int64_t viv__sound_read(viv__sound_reader *r, float *y, int64_t n, viv_error *error) {
  int64_t got = sf.readf_float(r->file, y, n);
  for (int64_t i = 0; i < got * r->channels; i++)
    if (!isfinite(y[i]))
      return VIV_FAIL(error, VIV_BAD_INPUT, r->name, "sample %lld is no finite number",
                      (long long)(r->at + i / r->channels));
  r->at += got > 0 ? got : 0;
  return got > 0 ? got : 0;
}

void viv__sound_close(viv__sound_reader *r) {
  if (!r) return;
  sf.close(r->file);
  close(r->fd);
  viv__free(r);
}

struct viv__sound_writer {
  SNDFILE *file;
  int fd;
  int32_t channels;
  enum viv__sound_format format;
  char name[256], temp[300];
};

static bool named(const char *path, const char *end) {
  size_t a = strlen(path), b = strlen(end);
  return a > b && !strcasecmp(path + a - b, end);
}

bool viv__sound_file_known(const char *path) {
  return named(path, ".wav") || named(path, ".flac");
}

int32_t viv__sound_create(const char *path, int32_t rate, int32_t channels,
                          enum viv__sound_format format, viv__sound_writer **out,
                          viv_error *error) {
  static const int formats[] = {0, SF_FORMAT_PCM_16, SF_FORMAT_PCM_24, SF_FORMAT_FLOAT};
  bool flac = named(path, ".flac");
  if (!viv__sound_file_known(path))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "a recording is written as .wav or .flac");
  if (channels < 1 || channels > VIV__SOUND_MAX_CHANNELS)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%d channels; 1 to %d are written", (int)channels,
                    VIV__SOUND_MAX_CHANNELS);
  if (flac && format == VIV__SOUND_F32)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "FLAC holds no float samples");
  if (need_library(error) < 0) return VIV_NEVER;
  SF_INFO info = {.samplerate = rate,
                  .channels = channels,
                  .format = (flac ? SF_FORMAT_FLAC : SF_FORMAT_WAV) | formats[format]};
  viv__sound_writer *w = viv__calloc(1, sizeof *w);
  if (!w) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  int n = snprintf(w->name, sizeof w->name, "%s", path), status = VIV_OK;
  snprintf(w->temp, sizeof w->temp, "%s.%d.tmp", path, (int)getpid());
  w->channels = channels;
  w->format = format;
  w->fd =
      n >= (int)sizeof w->name ? -1 : open(w->temp, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (w->fd < 0)
    status = VIV_FAIL(error, VIV_NOT_NOW, path, "can't write: %s", strerror(errno));
  else if (!(w->file = sf.open_fd(w->fd, SFM_WRITE, &info, 0)))
    status = refused(path, "no such recording can be written", error);
  if (status < 0) {
    if (w->fd >= 0) close(w->fd), unlink(w->temp);
    viv__free(w);
    return status;
  }
  sf.command(w->file, SFC_SET_ADD_PEAK_CHUNK, NULL, SF_FALSE); /* it would hold the time of day */
  *out = w;
  return VIV_OK;
}

int32_t viv__sound_level(float x, int32_t bits) {
  double most = (double)(INT64_C(1) << (bits - 1)), y = rint((double)x * most);
  return (int32_t)(!(y > -most) ? -most : y < most ? y : most - 1);
}

/* Whole numbers are made here and not by the library, whose rounding is another for each format. */
static int64_t write_levels(const viv__sound_writer *w, const float *x, int64_t n) {
  enum { BLOCK = 4096 };
  int32_t bits = w->format == VIV__SOUND_S16 ? 16 : 24, block[BLOCK];
  int64_t step = BLOCK / w->channels, done = 0;
  while (done < n) {
    int64_t some = n - done < step ? n - done : step;
    for (int64_t i = 0; i < some * w->channels; i++)
      block[i] = viv__sound_level(x[done * w->channels + i], bits) * (1 << (32 - bits));
    if (sf.writef_int(w->file, block, some) != some) break;
    done += some;
  }
  return done;
}

int32_t viv__sound_write(viv__sound_writer *w, const float *x, int64_t n, viv_error *error) {
  int64_t done =
      w->format == VIV__SOUND_F32 ? sf.writef_float(w->file, x, n) : write_levels(w, x, n);
  if (done == n) return VIV_OK;
  return VIV_FAIL(error, VIV_NOT_NOW, w->name, "can't write: %s", sf.strerror(w->file));
}

int32_t viv__sound_finish(viv__sound_writer *w, bool keep, viv_error *error) {
  int32_t status = VIV_OK;
  bool good = !sf.close(w->file);
  good = !close(w->fd) && good;
  if (keep && (!good || rename(w->temp, w->name)))
    status = VIV_FAIL(error, VIV_NOT_NOW, w->name, "can't write: %s", strerror(errno));
  if (!keep || status < 0) unlink(w->temp);
  viv__free(w);
  return status;
}

int32_t viv__sound_save(const viv__sound *s, const char *path, viv_error *error) {
  enum { BLOCK = 4096 };
  float block[BLOCK];
  viv__sound_writer *w = NULL;
  if (s->frames < 1)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%lld samples are no recording",
                    (long long)s->frames);
  int32_t status = viv__sound_create(path, s->rate, s->channels, VIV__SOUND_S16, &w, error);
  if (status < 0) return status;
  int64_t step = BLOCK / s->channels;
  for (int64_t at = 0; status >= 0 && at < s->frames; at += step) {
    int64_t n = s->frames - at < step ? s->frames - at : step;
    for (int64_t i = 0; i < n * s->channels; i++)
      block[i] = s->data[i % s->channels * s->frames + at + i / s->channels];
    status = viv__sound_write(w, block, n, error);
  }
  viv_error late = VIV_ERROR_INIT;
  int32_t closed = viv__sound_finish(w, status >= 0, &late);
  if (status < 0 || closed >= 0) return status;
  if (error) *error = late;
  return closed;
}
