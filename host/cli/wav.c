/* A recording as the numbers in its file: RIFF WAVE, whole or float samples, nothing resampled.
 *
 * Only for tensors that go under an official argument name; under `audio` the bytes travel as they
 * are and the host decodes them. The file is untrusted: every length is held against the bytes that
 * are really there. */
#include "cli/wav.h"

#include <string.h>

enum { FORMAT_PCM = 1, FORMAT_FLOAT = 3, FORMAT_EXTENSIBLE = 0xFFFE, MAX_CHANNELS = 64 };

struct wav {
  const uint8_t *format, *data;
  size_t format_len, data_len;
};

static uint32_t u16(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const uint8_t *p) {
  return u16(p) | u16(p + 2) << 16;
}

static int32_t find_chunks(const uint8_t *bytes, size_t len, const char *path, struct wav *w,
                           viv_error *error) {
  if (len < 12 || memcmp(bytes, "RIFF", 4) || memcmp(bytes + 8, "WAVE", 4))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "not a RIFF WAVE file");
  for (size_t at = 12; at + 8 <= len;) {
    size_t size = u32(bytes + at + 4), room = len - at - 8;
    bool is_data = !memcmp(bytes + at, "data", 4);
    if (size > room) {
      if (!is_data)
        return VIV_FAIL(error, VIV_BAD_INPUT, path,
                        "chunk at byte %zu claims %zu bytes, %zu follow", at, size, room);
      size = room; /* a recorder that was stopped leaves the length unset */
    }
    if (!memcmp(bytes + at, "fmt ", 4)) {
      w->format = bytes + at + 8;
      w->format_len = size;
    } else if (is_data && !w->data) {
      w->data = bytes + at + 8;
      w->data_len = size;
    }
    at += 8 + size + (size & 1);
  }
  if (!w->format || w->format_len < 16 || !w->data)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "the WAVE file has no %s chunk",
                    w->data ? "complete fmt" : "data");
  return VIV_OK;
}

static float sample(const uint8_t *p, uint32_t kind, uint32_t bits) {
  float f;
  double d;
  switch (bits) {
  case 8:
    return ((float)p[0] - 128.0f) / 128.0f;
  case 16:
    return (float)(int16_t)u16(p) / 32768.0f;
  case 24:
    return (float)((int32_t)((uint32_t)p[0] << 8 | u16(p + 1) << 16) >> 8) / 8388608.0f;
  case 64:
    memcpy(&d, p, sizeof d);
    return (float)d;
  default:
    if (kind != FORMAT_FLOAT) return (float)((double)(int32_t)u32(p) / 2147483648.0);
    memcpy(&f, p, sizeof f);
    return f;
  }
}

int32_t viv__wav_decode(const void *data, size_t len, const char *path, viv_tensor *out,
                        int *sampling_rate, viv_error *error) {
  struct wav w = {0};
  int32_t status = find_chunks(data, len, path, &w, error);
  if (status < 0) return status;
  uint32_t kind = u16(w.format), channels = u16(w.format + 2), bits = u16(w.format + 14);
  if (kind == FORMAT_EXTENSIBLE && w.format_len >= 26) kind = u16(w.format + 24);
  bool whole = kind == FORMAT_PCM && (bits == 8 || bits == 16 || bits == 24 || bits == 32);
  bool real = kind == FORMAT_FLOAT && (bits == 32 || bits == 64);
  if (!whole && !real)
    return VIV_FAIL(error, VIV_NEVER, path, "WAVE format %u with %u bits is not read here", kind,
                    bits);
  if (channels < 1 || channels > MAX_CHANNELS)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "%u channels; 1 to %d are read", channels,
                    MAX_CHANNELS);
  size_t width = bits / 8, frames = w.data_len / (width * channels);
  int64_t shape[3] = {1, channels, (int64_t)frames};
  *out = viv__tensor_make(VIV_F32, 3, shape);
  float *to = out->data; /* [1, channels, frames] */
  for (size_t t = 0; t < frames; t++)
    for (size_t c = 0; c < channels; c++)
      to[c * frames + t] = sample(w.data + (t * channels + c) * width, kind, bits);
  if (sampling_rate) *sampling_rate = (int)(u32(w.format + 4) & 0x7fffffff);
  return VIV_OK;
}
