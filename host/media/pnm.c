/* PBM, PGM, PPM, as text (P1 to P3) and binary (P4 to P6). Of a file with several pictures the first
 * is read. */
#include "media/raster.h"

struct pnm {
  viv__raster *r;
  size_t at;
  uint32_t full; /* the value of white */
  bool text, bitmap;
};

static bool blank(uint8_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static void skip_blanks(struct pnm *p) {
  const viv__raster *r = p->r;
  while (p->at < r->len && (blank(r->bytes[p->at]) || r->bytes[p->at] == '#')) {
    if (r->bytes[p->at] == '#')
      while (p->at < r->len && r->bytes[p->at] != '\n') p->at++;
    else
      p->at++;
  }
}

/* A whole number of at most limit; false where none stands. */
static bool number(struct pnm *p, uint32_t limit, uint32_t *out) {
  const viv__raster *r = p->r;
  uint64_t v = 0;
  skip_blanks(p);
  size_t begun = p->at;
  for (; p->at < r->len && r->bytes[p->at] >= '0' && r->bytes[p->at] <= '9'; p->at++)
    if ((v = v * 10 + (uint64_t)(r->bytes[p->at] - '0')) > limit) return false;
  *out = (uint32_t)v;
  return p->at > begun;
}

static int32_t bad(const struct pnm *p, const char *what) {
  return VIV_FAIL(p->r->error, VIV_BAD_INPUT, p->r->name, "the %s %s, at byte %zu", p->r->format,
                  what, p->at);
}

/* The pixels' bytes must be there before memory is taken; text needs at least a digit for each. */
static int32_t check_length(struct pnm *p) {
  const viv__raster *r = p->r;
  uint64_t samples = (uint64_t)r->width * (uint64_t)r->channels, need;
  if (p->bitmap)
    samples = p->text ? (uint64_t)r->width : ((uint64_t)r->width + 7) / 8;
  else if (!p->text && p->full > 255)
    samples *= 2;
  if (__builtin_mul_overflow(samples, (uint64_t)r->height, &need) || need > r->len - p->at)
    return VIV_FAIL(r->error, VIV_BAD_INPUT, r->name,
                    "the %s ends early: %lld x %lld pixels do not fit into %zu bytes", r->format,
                    (long long)r->width, (long long)r->height, r->len);
  return VIV_OK;
}

static int32_t sample(struct pnm *p, uint32_t *v) {
  const viv__raster *r = p->r;
  if (p->text && p->bitmap) { /* digits need no blanks between them */
    skip_blanks(p);
    if (p->at >= r->len || (r->bytes[p->at] != '0' && r->bytes[p->at] != '1'))
      return bad(p, "has no 0 or 1 where a pixel should be");
    *v = r->bytes[p->at++] == '0';
  } else if (p->text) {
    if (!number(p, 65535, v)) return bad(p, "has no number where a pixel should be");
  } else {
    *v = r->bytes[p->at++];
    if (p->full > 255) *v = *v << 8 | r->bytes[p->at++];
  }
  if (*v > p->full) *v = p->full;
  return VIV_OK;
}

static int32_t read_rows(struct pnm *p) {
  viv__raster *r = p->r;
  uint32_t white = r->bits == 16 ? 65535 : 255, v;
  int64_t row = r->width * r->channels;
  for (int64_t i = 0; i < row * r->height; i++) {
    if (p->bitmap && !p->text) {
      int64_t x = i % row;
      v = !(r->bytes[p->at + (size_t)x / 8] >> (7 - x % 8) & 1);
      if (x == row - 1) p->at += (size_t)(row + 7) / 8;
    } else {
      int32_t status = sample(p, &v);
      if (status < 0) return status;
    }
    uint32_t out = (uint32_t)(((uint64_t)v * white + p->full / 2) / p->full);
    if (r->bits == 16)
      ((uint16_t *)(void *)r->raw)[i] = (uint16_t)out;
    else
      r->raw[i] = (uint8_t)out;
  }
  return VIV_OK;
}

int32_t viv__decode_pnm(viv__raster *r) {
  static const char *const formats[] = {"PBM", "PGM", "PPM"};
  int kind = (r->bytes[1] - '1') % 3;
  struct pnm p = {.r = r, .at = 2, .full = 1, .text = r->bytes[1] <= '3', .bitmap = kind == 0};
  uint32_t width, height;
  r->format = formats[kind];
  if (!number(&p, INT32_MAX, &width) || !number(&p, INT32_MAX, &height))
    return bad(&p, "has no width and height");
  if (!p.bitmap && (!number(&p, 65535, &p.full) || !p.full))
    return bad(&p, "has no largest value of 1 to 65535");
  if (p.at >= r->len || !blank(r->bytes[p.at])) return bad(&p, "ends inside its header");
  p.at++;
  r->width = width;
  r->height = height;
  r->channels = kind == 2 ? 3 : 1;
  r->bits = p.full > 255 && r->options->f32 ? 16 : 8;
  int32_t status = r->probe ? VIV_OK : check_length(&p);
  if (status >= 0) status = viv__raster_begin(r);
  return status == VIV_OK ? read_rows(&p) : status;
}
