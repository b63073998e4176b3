/* Cuts a pipe into the picture files that stand in it one after another, as `ffmpeg -f image2pipe`
 * writes them: PNG, JPEG, or binary PGM and PPM. Only lengths and markers are read here; whether a
 * frame is a good picture is the decoder's business. */
#include <string.h>

#include "cli/run.h"

enum { FRAME_LIMIT = 1 << 28 };

static int32_t cut_short(viv_error *error) {
  return VIV_FAIL(error, VIV_BAD_INPUT, "-", "the pipe ends in the middle of a frame");
}

static int32_t take(FILE *from, viv__buf *out, size_t n, viv_error *error) {
  char chunk[1 << 16];
  if (n > FRAME_LIMIT || out->len > FRAME_LIMIT - n)
    return VIV_FAIL(error, VIV_BAD_INPUT, "-", "a frame in the pipe is larger than %d bytes",
                    FRAME_LIMIT);
  while (n) {
    size_t got = fread(chunk, 1, n < sizeof chunk ? n : sizeof chunk, from);
    if (!got) return cut_short(error);
    viv__buf_add(out, chunk, got);
    n -= got;
  }
  if (out->failed) viv__need(NULL);
  return VIV_OK;
}

static uint32_t last_u32(const viv__buf *b, size_t back) {
  const uint8_t *p = (const uint8_t *)b->ptr + b->len - back;
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int32_t take_png(FILE *from, viv__buf *out, viv_error *error) {
  int32_t status = take(from, out, 6, error);
  while (status >= 0) {
    status = take(from, out, 8, error);
    if (status < 0) break;
    bool end = !memcmp(out->ptr + out->len - 4, "IEND", 4);
    status = take(from, out, (size_t)last_u32(out, 8) + 4, error);
    if (end) break;
  }
  return status;
}

/* Marker by marker; the coded data after a scan's header runs to the next marker that is neither a
 * stuffed byte nor a restart. */
static int32_t take_jpeg(FILE *from, viv__buf *out, viv_error *error) {
  int32_t status = VIV_OK;
  int marker = 0;
  while (status >= 0 && marker != 0xd9) {
    if (!marker) {
      status = take(from, out, 2, error);
      if (status < 0) break;
      if ((uint8_t)out->ptr[out->len - 2] != 0xff)
        return VIV_FAIL(error, VIV_BAD_INPUT, "-", "a JPEG in the pipe is damaged");
      marker = (uint8_t)out->ptr[out->len - 1];
      continue;
    }
    status = take(from, out, 2, error);
    if (status < 0) break;
    size_t len = last_u32(out, 4) & 0xffff;
    if (len < 2) return VIV_FAIL(error, VIV_BAD_INPUT, "-", "a JPEG in the pipe is damaged");
    status = take(from, out, len - 2, error);
    bool scan = marker == 0xda;
    marker = 0;
    while (scan && status >= 0 && !marker) {
      status = take(from, out, 1, error);
      if (status < 0 || (uint8_t)out->ptr[out->len - 1] != 0xff) continue;
      do status = take(from, out, 1, error);
      while (status >= 0 && (uint8_t)out->ptr[out->len - 1] == 0xff);
      int byte = status >= 0 ? (uint8_t)out->ptr[out->len - 1] : 0;
      if (byte && (byte < 0xd0 || byte > 0xd7)) marker = byte;
    }
  }
  return status;
}

/* P5 or P6: three numbers, one blank, the pixels. */
static int32_t take_pnm(FILE *from, viv__buf *out, viv_error *error) {
  uint64_t numbers[3] = {0}, channels = out->ptr[1] == '6' ? 3 : 1;
  int at = -1;
  bool inside = false, comment = false;
  while (at < 3) {
    int32_t status = take(from, out, 1, error);
    if (status < 0) return status;
    char c = out->ptr[out->len - 1];
    bool digit = c >= '0' && c <= '9' && !comment;
    if (comment) comment = c != '\n';
    if (c == '#') comment = true;
    if (digit && !inside && ++at > 2) break;
    if (digit) numbers[at] = numbers[at] * 10 + (uint64_t)(c - '0');
    if (at >= 0 && numbers[at] > FRAME_LIMIT) return cut_short(error);
    if (inside && !digit && at == 2) break;
    inside = digit;
  }
  uint64_t bytes = channels * (numbers[2] > 255 ? 2 : 1);
  if (__builtin_mul_overflow(bytes, numbers[0], &bytes) ||
      __builtin_mul_overflow(bytes, numbers[1], &bytes) || bytes > FRAME_LIMIT)
    bytes = (uint64_t)FRAME_LIMIT + 1;
  return take(from, out, bytes, error);
}

int32_t viv__frame_read(FILE *from, viv__buf *out, viv_error *error) {
  int first = fgetc(from);
  if (first == EOF) return VIV_DONE;
  char byte = (char)first;
  viv__buf_add(out, &byte, 1);
  int32_t status = take(from, out, 1, error);
  if (status < 0) return status;
  if (!memcmp(out->ptr, "\x89P", 2)) return take_png(from, out, error);
  if (!memcmp(out->ptr, "\xff\xd8", 2)) return take_jpeg(from, out, error);
  if (!memcmp(out->ptr, "P5", 2) || !memcmp(out->ptr, "P6", 2)) return take_pnm(from, out, error);
  return VIV_FAIL(error, VIV_BAD_INPUT, "-",
                  "the pipe holds no PNG, JPEG, PGM or PPM where a frame should begin; for raw RGB "
                  "frames give --frames WIDTHxHEIGHT");
}
