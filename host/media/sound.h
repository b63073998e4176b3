/* Recordings as files: bytes in, samples out, and back. Internal to the host; any thread.
 *
 * Read by libsndfile, which is opened with the first recording and not before: WAV (RIFF, RF64, W64),
 * AIFF, AU, CAF, FLAC, Ogg (Vorbis, Opus, FLAC) and MP3. What the header says is held against the
 * limits before memory is taken, and memory is taken only for samples that were really decoded. */
#ifndef VIV_HOST_SOUND_H
#define VIV_HOST_SOUND_H

#include "base/base.h"

/* All channels together: 1 GiB as floats, which is 4.6 hours of one channel at 16 kHz. */
#define VIV__SOUND_MAX_SAMPLES (INT64_C(1) << 28)
enum {
  VIV__SOUND_MAX_CHANNELS = 64,
  VIV__SOUND_MIN_RATE = 1000,   /* Hz; below, a header is damaged rather than meant */
  VIV__SOUND_MAX_RATE = 768000, /* Hz */
};

typedef struct viv__sound_options {
  int64_t max_samples; /* of all channels together; 0: VIV__SOUND_MAX_SAMPLES */
  viv_arena *arena;    /* where the samples go; NULL: viv__sound_free frees them */
} viv__sound_options;

typedef struct viv__sound {
  int32_t channels, rate; /* rate in Hz */
  int64_t frames;         /* samples of a channel, 1 or more */
  float *data;            /* [channels, frames], whole numbers divided by 2^(bits - 1) */
  bool owned;
} viv__sound;

/* Fills *out. name stands in front of errors. Errors: BAD_INPUT (no recording, damaged, empty, a
 * sample that is no number, above a limit), NEVER (no libsndfile on this machine), NOT_NOW
 * (memory). */
int32_t viv__sound_decode(const void *bytes, size_t len, const char *name,
                          const viv__sound_options *options, viv__sound *out, viv_error *error);
void viv__sound_free(viv__sound *sound);

/* ---- recordings that are too long for memory ---- */

typedef struct viv__sound_reader viv__sound_reader;
/* The file's samples in pieces. Errors as above; *rate, *channels and *frames (-1: the file does not
 * say) are filled. */
int32_t viv__sound_open(const char *path, viv__sound_reader **out, int32_t *rate, int32_t *channels,
                        int64_t *frames, viv_error *error);
/* Up to n samples of each channel, side by side, to y. Answers how many; 0: the end. Negative: a
 * sample that is no finite number. */
int64_t viv__sound_read(viv__sound_reader *r, float *y, int64_t n, viv_error *error);
void viv__sound_close(viv__sound_reader *r);

enum viv__sound_format { VIV__SOUND_S16 = 1, VIV__SOUND_S24, VIV__SOUND_F32 };
typedef struct viv__sound_writer viv__sound_writer;
/* A new file, .wav or .flac by its name; it takes that name when it is finished. Errors: BAD_INPUT
 * (another name, F32 in FLAC, a rate or channel count that the format lacks), NEVER, NOT_NOW. */
int32_t viv__sound_create(const char *path, int32_t rate, int32_t channels,
                          enum viv__sound_format format, viv__sound_writer **out, viv_error *error);
/* n samples of each channel, side by side; times 2^(bits - 1) and cut to the bits, unless F32. */
int32_t viv__sound_write(viv__sound_writer *w, const float *x, int64_t n, viv_error *error);
/* keep false: the file is removed. w is gone either way. */
int32_t viv__sound_finish(viv__sound_writer *w, bool keep, viv_error *error);
/* Whether a file of that name is one that is written: .wav, .flac. */
bool viv__sound_file_known(const char *path);
/* A sample as a whole number of that many bits, 2 to 32: the nearest, cut to what they hold. */
int32_t viv__sound_level(float x, int32_t bits);
/* A whole recording as such a file, in 16 bits a sample. Errors as above. */
int32_t viv__sound_save(const viv__sound *sound, const char *path, viv_error *error);

#endif
