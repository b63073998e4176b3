#include "media/nifti.h"

#include <math.h>
#include <string.h>
#include <zlib.h>

enum { HEADER_1 = 348, HEADER_2 = 540, CODE_U8 = 2, CODE_I16 = 4 };

/* ---- bytes ---- */

/* A file, or the inflated part of one. */
struct source {
  const uint8_t *bytes;
  size_t len;
  bool swap;
};

static uint64_t bits(const struct source *s, size_t at, int n) {
  uint64_t v = 0;
  for (int i = 0; i < n; i++)
    v |= (uint64_t)s->bytes[at + (size_t)(s->swap ? n - 1 - i : i)] << 8 * i;
  return v;
}

static int64_t integer(const struct source *s, size_t at, int n) {
  uint64_t v = bits(s, at, n);
  return n == 8 ? (int64_t)v : (int64_t)(v << (64 - 8 * n)) >> (64 - 8 * n);
}

static double real(const struct source *s, size_t at, int n) {
  uint64_t v = bits(s, at, n);
  if (n == 8) {
    double d;
    memcpy(&d, &v, sizeof d);
    return d;
  }
  uint32_t half = (uint32_t)v;
  float f;
  memcpy(&f, &half, sizeof f);
  return (double)f;
}

/* At most `wanted` bytes of a gzip file into *out; *got: how many there were. */
static int32_t inflate_some(const void *bytes, size_t len, size_t wanted, uint8_t *out, size_t *got,
                            const char *name, viv_error *error) {
  z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes};
  size_t left = len;
  int rc = inflateInit2(&z, 16 + MAX_WBITS);
  if (rc != Z_OK) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
  *got = 0;
  while (rc == Z_OK && *got < wanted) {
    if (!z.avail_in) {
      z.avail_in = (uInt)(left < 1u << 30 ? left : 1u << 30);
      left -= z.avail_in;
    }
    size_t room = wanted - *got < 1u << 30 ? wanted - *got : 1u << 30;
    z.next_out = out + *got;
    z.avail_out = (uInt)room;
    rc = inflate(&z, Z_NO_FLUSH);
    *got += room - z.avail_out;
    /* Files made by appending gzip members are one file. */
    if (rc == Z_STREAM_END && *got < wanted && (z.avail_in || left)) rc = inflateReset(&z);
  }
  inflateEnd(&z);
  if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the compressed file is damaged after %zu bytes",
                    *got);
  return VIV_OK;
}

/* ---- the header ---- */

struct header {
  int64_t dim[8], offset;
  int32_t type, width; /* of a number: its code and bytes */
  double slope, inter;
};

static int32_t number_width(int64_t type) {
  switch (type) {
  case CODE_U8:
  case 256: /* I8 */
    return 1;
  case CODE_I16:
  case 512: /* U16 */
    return 2;
  case 8:   /* I32 */
  case 16:  /* F32 */
  case 768: /* U32 */
    return 4;
  case 64:   /* F64 */
  case 1024: /* I64 */
  case 1280: /* U64 */
    return 8;
  default:
    return 0;
  }
}

static double number_at(const struct source *s, size_t at, const struct header *h) {
  switch (h->type) {
  case CODE_U8:
  case 512:
  case 768:
  case 1280:
    return (double)bits(s, at, h->width);
  case 16:
  case 64:
    return real(s, at, h->width);
  default:
    return (double)integer(s, at, h->width);
  }
}

/* Which version, and its byte order into s->swap. 0: no NIfTI. */
static int version_of(struct source *s) {
  if (s->len < HEADER_1) return 0;
  for (int swap = 0; swap < 2; swap++) {
    s->swap = swap;
    int64_t size = integer(s, 0, 4);
    if (size == HEADER_1) return !memcmp(s->bytes + 344, "n+1", 4) ? 1 : -1;
    if (size == HEADER_2 && s->len >= HEADER_2)
      return !memcmp(s->bytes + 4, "n+2\0\r\n\032\n", 8) ? 2 : -1;
  }
  return 0;
}

static void read_fields(const struct source *s, int version, struct header *h, viv__nifti *v) {
  bool two = version == 2;
  int wide = two ? 8 : 4;
  for (size_t i = 0; i < 8; i++)
    h->dim[i] = two ? integer(s, 16 + 8 * i, 8) : integer(s, 40 + 2 * i, 2);
  h->type = (int32_t)integer(s, two ? 12 : 70, 2);
  h->width = number_width(h->type);
  double offset = two ? (double)integer(s, 168, 8) : real(s, 108, 4);
  h->offset = offset >= 0 && offset < 1e15 ? (int64_t)offset : -1;
  h->slope = real(s, two ? 176 : 112, wide);
  h->inter = real(s, two ? 184 : 116, wide);
  for (size_t i = 0; i < 4; i++) v->pixdim[i] = real(s, (two ? 104 : 76) + (size_t)wide * i, wide);
  v->quaternion_code = (int32_t)integer(s, two ? 344 : 252, two ? 4 : 2);
  v->rows_code = (int32_t)integer(s, two ? 348 : 254, two ? 4 : 2);
  v->units = (int32_t)bits(s, two ? 500 : 123, two ? 4 : 1) & 63;
  for (size_t i = 0; i < 3; i++) {
    v->quaternion[i] = real(s, (two ? 352 : 256) + (size_t)wide * i, wide);
    v->offset[i] = real(s, (two ? 376 : 268) + (size_t)wide * i, wide);
    for (size_t k = 0; k < 4; k++)
      v->rows[i][k] = real(s, (two ? 400 : 280) + (size_t)wide * (4 * i + k), wide);
  }
}

static int32_t check_fields(const struct header *h, int version, int64_t most, const char *name,
                            viv_error *error) {
  int64_t n = 1;
  if (h->dim[0] < 1 || h->dim[0] > 7)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the header names %lld axes", (long long)h->dim[0]);
  for (int64_t i = 1; i <= h->dim[0]; i++) {
    int64_t limit = i < 4 ? VIV__NIFTI_MAX_SIDE : i == 4 ? VIV__NIFTI_MAX_CHANNELS : 1;
    if (h->dim[i] < 1 || h->dim[i] > limit)
      return VIV_FAIL(error, VIV_BAD_INPUT, name,
                      "axis %lld of the volume has the length %lld, 1 to %lld are read",
                      (long long)i, (long long)h->dim[i], (long long)limit);
    n *= h->dim[i];
  }
  if (n > most)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the header names %lld voxels, the limit is %lld",
                    (long long)n, (long long)most);
  if (!h->width)
    return VIV_FAIL(error, VIV_NEVER, name, "numbers of the kind %d are not read", (int)h->type);
  if (h->offset < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, name,
                    "where the header puts the voxels is no place in a file");
  if (h->offset < (version == 2 ? HEADER_2 : HEADER_1))
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the voxels begin inside the header");
  return VIV_OK;
}

/* ---- axes ---- */

/* The file's axes in the patient, m[row][axis]: by the matrix, by the quaternion, or by the spacing
 * alone, when the first axis runs to the left. */
static void directions(const viv__nifti *v, double m[3][3]) {
  double b = v->quaternion[0], c = v->quaternion[1], d = v->quaternion[2];
  double rest = 1 - b * b - c * c - d * d, a = rest > 0 ? sqrt(rest) : 0;
  double turned[3][3] = {{a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)},
                         {2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)},
                         {2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c}};
  for (int i = 0; i < 3; i++)
    for (int k = 0; k < 3; k++) {
      double side = fabs(v->pixdim[1 + k]), sign = k == 2 && v->pixdim[0] < 0 ? -1 : 1;
      m[i][k] = v->rows_code > 0         ? v->rows[i][k]
                : v->quaternion_code > 0 ? turned[i][k] * side * sign
                                         : (i == k) * (i ? side : -side);
    }
}

static int32_t orient(const int64_t *dim, const char *name, viv__nifti *v, viv_error *error) {
  double m[3][3], length[3];
  bool taken[3] = {false};
  int order[3] = {0, 1, 2};
  directions(v, m);
  for (int k = 0; k < 3; k++) {
    length[k] = sqrt(m[0][k] * m[0][k] + m[1][k] * m[1][k] + m[2][k] * m[2][k]);
    if (!isfinite(length[k]) || !(length[k] > 0) || length[k] > 1e6)
      return VIV_FAIL(error, VIV_BAD_INPUT, name,
                      "the header gives axis %d no direction in the patient", k + 1);
    for (int i = 0; i < 3; i++) m[i][k] /= length[k];
  }
  /* The axis that follows one direction most clearly chooses first. */
  for (int i = 0; i < 3; i++)
    for (int k = i + 1; k < 3; k++) {
      double best[2] = {0, 0};
      for (int r = 0; r < 3; r++) {
        best[0] = fmax(best[0], fabs(m[r][order[i]]));
        best[1] = fmax(best[1], fabs(m[r][order[k]]));
      }
      if (best[1] <= best[0]) continue;
      int swap = order[i];
      order[i] = order[k];
      order[k] = swap;
    }
  for (int i = 0; i < 3; i++) {
    int axis = order[i], to = -1;
    for (int r = 0; r < 3; r++)
      if (!taken[r] && (to < 0 || fabs(m[r][axis]) > fabs(m[to][axis]))) to = r;
    taken[to] = true;
    v->axis[to] = axis;
    v->flip[to] = m[to][axis] < 0;
    v->size[to] = dim[1 + axis];
    v->spacing[to] = length[axis];
  }
  return VIV_OK;
}

/* Walks the volume in the patient's order; *at is the place in the file's. */
struct walk {
  int64_t step[3], begin;
};

static struct walk walk_of(const viv__nifti *v) {
  int64_t stored[3], stride[3] = {1, 1, 1};
  struct walk w = {.begin = 0};
  for (int r = 0; r < 3; r++) stored[v->axis[r]] = v->size[r];
  stride[1] = stored[0];
  stride[2] = stored[0] * stored[1];
  for (int r = 0; r < 3; r++) {
    int64_t s = stride[v->axis[r]];
    w.step[r] = v->flip[r] ? -s : s;
    if (v->flip[r]) w.begin += (v->size[r] - 1) * s;
  }
  return w;
}

/* ---- decoding ---- */

static void read_voxels(const struct source *s, const struct header *h, viv__nifti *v) {
  struct walk w = walk_of(v);
  bool scaled = isfinite(h->slope) && h->slope != 0;
  double slope = scaled ? h->slope : 1, inter = scaled && isfinite(h->inter) ? h->inter : 0;
  int64_t space = v->size[0] * v->size[1] * v->size[2];
  float *to = v->data;
  for (int64_t c = 0; c < v->channels; c++)
    for (int64_t i = 0; i < v->size[0]; i++)
      for (int64_t j = 0; j < v->size[1]; j++) {
        int64_t at = c * space + w.begin + i * w.step[0] + j * w.step[1];
        for (int64_t k = 0; k < v->size[2]; k++, at += w.step[2]) {
          double x = number_at(s, (size_t)at * (size_t)h->width, h) * slope + inter;
          bool number = isfinite(x) && fabs(x) < 3e38;
          *to++ = number ? (float)x : 0;
          v->no_numbers += !number;
        }
      }
}

static int32_t decode(const void *bytes, size_t len, uint8_t **inflated, const char *name,
                      int64_t most, viv__nifti *v, viv_error *error) {
  struct header h = {.type = 0};
  uint8_t head[HEADER_2];
  const uint8_t *raw = bytes;
  bool gzip = len > 2 && raw[0] == 0x1f && raw[1] == 0x8b;
  int32_t status = VIV_OK;
  struct source s = {raw, len, false};
  if (gzip) {
    status = inflate_some(bytes, len, sizeof head, head, &s.len, name, error);
    s.bytes = head;
  }
  if (status < 0) return status;
  int version = version_of(&s);
  if (version == 0) return VIV_FAIL(error, VIV_BAD_INPUT, name, "this is no NIfTI volume");
  if (version < 0)
    return VIV_FAIL(
        error, VIV_BAD_INPUT, name,
        "a header without its voxels (.hdr with .img) is not read: make one .nii of it");
  read_fields(&s, version, &h, v);
  status = check_fields(&h, version, most, name, error);
  if (status < 0) return status;
  for (int64_t i = h.dim[0] + 1; i < 8; i++) h.dim[i] = 1;
  v->channels = h.dim[4];
  status = orient(h.dim, name, v, error);
  if (status < 0) return status;
  size_t n = (size_t)(h.dim[1] * h.dim[2] * h.dim[3] * h.dim[4]) * (size_t)h.width;
  size_t whole = (size_t)h.offset + n;
  if (gzip) {
    /* A file of a few bytes does not hold gigabytes: deflate packs at most 1032 to 1. */
    if (whole / 1100 > len)
      return VIV_FAIL(error, VIV_BAD_INPUT, name,
                      "the header names %zu bytes, which %zu compressed "
                      "ones can't hold",
                      whole, len);
    if (!(*inflated = viv__malloc(whole))) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
    status = inflate_some(bytes, len, whole, *inflated, &s.len, name, error);
    s.bytes = *inflated;
  }
  if (status < 0) return status;
  if (s.len < whole)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "the file ends after %zu of %zu bytes", s.len,
                    whole);
  s.bytes += h.offset;
  v->data =
      viv__malloc((size_t)(v->channels * v->size[0] * v->size[1] * v->size[2]) * sizeof *v->data);
  if (!v->data) return VIV_FAIL(error, VIV_NOT_NOW, name, "no memory");
  read_voxels(&s, &h, v);
  return VIV_OK;
}

int32_t viv__nifti_decode(const void *bytes, size_t len, const char *name, int64_t max_voxels,
                          viv__nifti *out, viv_error *error) {
  uint8_t *inflated = NULL;
  memset(out, 0, sizeof *out);
  int32_t status = decode(bytes, len, &inflated, name,
                          max_voxels ? max_voxels : VIV__NIFTI_MAX_VOXELS, out, error);
  viv__free(inflated);
  return status;
}

void viv__nifti_free(viv__nifti *volume) {
  viv__free(volume->data);
  memset(volume, 0, sizeof *volume);
}

/* ---- encoding ---- */

static void put(uint8_t *to, uint64_t v, int n) {
  for (int i = 0; i < n; i++) to[i] = (uint8_t)(v >> 8 * i);
}

static void put_float(uint8_t *to, double x) {
  float f = (float)x;
  uint32_t v;
  memcpy(&v, &f, sizeof v);
  put(to, v, 4);
}

static void put_header(const viv__nifti *v, int32_t type, uint8_t head[HEADER_1 + 4]) {
  memset(head, 0, HEADER_1 + 4);
  put(head, HEADER_1, 4);
  put(head + 40, 3, 2);
  for (int r = 0; r < 3; r++) put(head + 42 + 2 * v->axis[r], (uint64_t)v->size[r], 2);
  for (int i = 4; i < 8; i++) put(head + 40 + 2 * i, 1, 2);
  put(head + 70, (uint64_t)type, 2);
  put(head + 72, type == CODE_U8 ? 8 : 16, 2);
  for (int i = 0; i < 4; i++) put_float(head + 76 + 4 * i, v->pixdim[i]);
  put_float(head + 108, HEADER_1 + 4);
  put_float(head + 112, 1);
  head[123] = (uint8_t)v->units;
  put(head + 252, (uint64_t)v->quaternion_code, 2);
  put(head + 254, (uint64_t)v->rows_code, 2);
  for (int i = 0; i < 3; i++) {
    put_float(head + 256 + 4 * i, v->quaternion[i]);
    put_float(head + 268 + 4 * i, v->offset[i]);
    for (int k = 0; k < 4; k++) put_float(head + 280 + 4 * (4 * i + k), v->rows[i][k]);
  }
  memcpy(head + 344, "n+1", 4);
}

static int32_t deflate_into(viv__buf *out, const uint8_t *bytes, size_t len, viv_error *error) {
  z_stream z = {.next_in = (Bytef *)(uintptr_t)bytes};
  uint8_t block[1 << 14];
  int rc =
      deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  if (rc != Z_OK) return VIV_FAIL(error, VIV_NOT_NOW, "labels", "no memory");
  do {
    if (!z.avail_in) {
      z.avail_in = (uInt)(len < 1u << 30 ? len : 1u << 30);
      len -= z.avail_in;
    }
    z.next_out = block;
    z.avail_out = sizeof block;
    rc = deflate(&z, len ? Z_NO_FLUSH : Z_FINISH);
    viv__buf_add(out, block, sizeof block - z.avail_out);
  } while (rc == Z_OK || (rc == Z_BUF_ERROR && len));
  deflateEnd(&z);
  return out->failed || rc != Z_STREAM_END ? VIV_FAIL(error, VIV_NOT_NOW, "labels", "no memory")
                                           : VIV_OK;
}

int32_t viv__nifti_labels(const viv__nifti *like, const int32_t *labels, bool gzip, viv__buf *out,
                          viv_error *error) {
  int64_t n = like->size[0] * like->size[1] * like->size[2];
  int32_t most = 0;
  for (int64_t i = 0; i < n; i++) {
    if (labels[i] < 0 || labels[i] > INT16_MAX)
      return VIV_FAIL(error, VIV_BAD_INPUT, "labels", "label %d has no place in a NIfTI file",
                      (int)labels[i]);
    most = labels[i] > most ? labels[i] : most;
  }
  int32_t width = most < 256 ? 1 : 2;
  size_t len = HEADER_1 + 4 + (size_t)n * (size_t)width;
  uint8_t *file = viv__malloc(len);
  if (!file) return VIV_FAIL(error, VIV_NOT_NOW, "labels", "no memory");
  put_header(like, width == 1 ? CODE_U8 : CODE_I16, file);
  struct walk w = walk_of(like);
  for (int64_t i = 0; i < like->size[0]; i++)
    for (int64_t j = 0; j < like->size[1]; j++)
      for (int64_t k = 0; k < like->size[2]; k++) {
        int64_t at = w.begin + i * w.step[0] + j * w.step[1] + k * w.step[2];
        put(file + HEADER_1 + 4 + at * width, (uint64_t)*labels++, width);
      }
  int32_t status = VIV_OK;
  if (gzip)
    status = deflate_into(out, file, len, error);
  else
    viv__buf_add(out, file, len);
  viv__free(file);
  if (status >= 0 && out->failed) status = VIV_FAIL(error, VIV_NOT_NOW, "labels", "no memory");
  return status;
}
