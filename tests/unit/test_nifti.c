/* Volumes as files: numbers land where the file's matrix says, labels go back to the same places, and a
 * header that lies is refused before memory is taken. */
#include <math.h>

#include <zlib.h>

#include "media/nifti.h"
#include "rt.h"

/* A NIfTI-1 file of 2 x 3 x 4 numbers 0 .. 23 (the first axis fastest), spacing 1 x 2 x 3 mm, its axes
 * to the right, front and head. */
enum { SPACE = 24, HEADER = 352 };
struct file {
  uint8_t bytes[HEADER + SPACE * 8];
  size_t len;
};

static void put16(struct file *f, size_t at, int v) {
  f->bytes[at] = (uint8_t)v;
  f->bytes[at + 1] = (uint8_t)(v >> 8);
}

static void put_float(struct file *f, size_t at, float x) {
  memcpy(f->bytes + at, &x, sizeof x);
}

static struct file plain(void) {
  struct file f = {.len = HEADER + SPACE};
  static const int dim[] = {3, 2, 3, 4, 1, 1, 1, 1};
  put16(&f, 0, 348);
  for (size_t i = 0; i < 8; i++) put16(&f, 40 + 2 * i, dim[i]);
  put16(&f, 70, 2);
  put16(&f, 72, 8);
  for (size_t i = 1; i < 4; i++) put_float(&f, 76 + 4 * i, (float)i);
  put_float(&f, 76, 1);
  put_float(&f, 108, HEADER);
  put16(&f, 254, 1);
  for (size_t i = 0; i < 3; i++) put_float(&f, 280 + 20 * i, (float)(i + 1));
  memcpy(f.bytes + 344, "n+1", 4);
  for (int i = 0; i < SPACE; i++) f.bytes[HEADER + i] = (uint8_t)i;
  return f;
}

static viv__nifti decode(const void *bytes, size_t len) {
  viv__nifti v;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__nifti_decode(bytes, len, "test", 0, &v, &e), VIV_OK, "%s", e.message);
  return v;
}

static void refuse(const struct file *f, const char *words) {
  viv__nifti v;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_lt(viv__nifti_decode(f->bytes, f->len, "the-name", 0, &v, &e), 0, "read in spite: %s",
               words);
  cr_assert(strstr(e.message, words), "\"%s\" does not say \"%s\"", e.message, words);
  cr_assert_str_eq(e.where, "the-name");
  cr_assert_null(v.data);
}

Test(nifti, numbers_in_the_patients_order) {
  struct file f = plain();
  viv__nifti v = decode(f.bytes, f.len);
  cr_assert_eq(v.size[0], 2);
  cr_assert_eq(v.size[1], 3);
  cr_assert_eq(v.size[2], 4);
  cr_assert_eq(v.channels, 1);
  cr_assert_float_eq(v.spacing[2], 3, 1e-6);
  for (int x = 0; x < 2; x++)
    for (int y = 0; y < 3; y++)
      for (int z = 0; z < 4; z++)
        cr_assert_eq(v.data[(x * 3 + y) * 4 + z], (float)(x + 2 * y + 6 * z));
  viv__nifti_free(&v);
}

/* The file's first axis runs to the head, its second to the left, its third to the front. */
static struct file turned(void) {
  struct file f = plain();
  for (size_t i = 0; i < 12; i++) put_float(&f, 280 + 4 * i, 0);
  put_float(&f, 280 + 4 * 1, -2);
  put_float(&f, 296 + 4 * 2, 3);
  put_float(&f, 312 + 4 * 0, 1);
  return f;
}

Test(nifti, turned_axes_are_turned_back_and_labels_go_where_they_belong) {
  struct file f = turned();
  viv__nifti v = decode(f.bytes, f.len);
  cr_assert_eq(v.size[0], 3);
  cr_assert_eq(v.size[1], 4);
  cr_assert_eq(v.size[2], 2);
  cr_assert_float_eq(v.spacing[0], 2, 1e-6);
  int32_t labels[SPACE];
  for (int x = 0; x < 3; x++)
    for (int y = 0; y < 4; y++)
      for (int z = 0; z < 2; z++) {
        int at = (x * 4 + y) * 2 + z;
        cr_assert_eq(v.data[at], (float)(z + 2 * (2 - x) + 6 * y));
        labels[at] = (int32_t)v.data[at];
      }
  for (int gzip = 0; gzip < 2; gzip++) {
    viv__buf out = {0};
    viv_error e = VIV_ERROR_INIT;
    cr_assert_eq(viv__nifti_labels(&v, labels, gzip, &out, &e), VIV_OK);
    if (!gzip) cr_assert_arr_eq(out.ptr + HEADER, f.bytes + HEADER, SPACE);
    viv__nifti again = decode(out.ptr, out.len);
    cr_assert_arr_eq(again.data, v.data, SPACE * sizeof(float));
    cr_assert_arr_eq(again.axis, v.axis, sizeof v.axis);
    viv__nifti_free(&again);
    viv__buf_free(&out);
  }
  viv__nifti_free(&v);
}

Test(nifti, labels_above_255_take_two_bytes) {
  struct file f = plain();
  viv__nifti v = decode(f.bytes, f.len);
  int32_t labels[SPACE] = {300};
  viv__buf out = {0};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__nifti_labels(&v, labels, false, &out, &e), VIV_OK);
  viv__nifti again = decode(out.ptr, out.len);
  cr_assert_eq(again.data[0], 300);
  labels[3] = -1;
  cr_assert_eq(viv__nifti_labels(&v, labels, false, &out, &e), VIV_BAD_INPUT);
  viv__nifti_free(&again);
  viv__nifti_free(&v);
  viv__buf_free(&out);
}

Test(nifti, scaled_numbers_of_every_kind_and_both_byte_orders) {
  struct file f = plain();
  put16(&f, 70, 4);
  put_float(&f, 112, 0.5f);
  put_float(&f, 116, -10);
  for (int i = 0; i < SPACE; i++) put16(&f, HEADER + 2 * (size_t)i, 2 * i - 8);
  f.len = HEADER + 2 * SPACE;
  viv__nifti v = decode(f.bytes, f.len);
  for (int i = 0; i < 4; i++) cr_assert_eq(v.data[i], (float)(6 * i) - 14);
  viv__nifti_free(&v);
  /* The same file as another machine would write it. */
  struct file g = f;
  for (size_t i = 0; i < 4; i++) g.bytes[i] = f.bytes[3 - i];
  for (size_t at = 40; at < 76; at += 2) {
    g.bytes[at] = f.bytes[at + 1];
    g.bytes[at + 1] = f.bytes[at];
  }
  for (size_t at = 252; at < 256; at += 2) {
    g.bytes[at] = f.bytes[at + 1];
    g.bytes[at + 1] = f.bytes[at];
  }
  for (size_t at = 76; at < 328; at += at == 120 ? 136 : 4)
    for (size_t i = 0; i < 4 && at != 120; i++) g.bytes[at + i] = f.bytes[at + 3 - i];
  for (size_t at = HEADER; at < f.len; at += 2) {
    g.bytes[at] = f.bytes[at + 1];
    g.bytes[at + 1] = f.bytes[at];
  }
  v = decode(g.bytes, g.len);
  for (int i = 0; i < 4; i++) cr_assert_eq(v.data[i], (float)(6 * i) - 14);
  viv__nifti_free(&v);
}

Test(nifti, what_is_no_number_is_zero) {
  struct file f = plain();
  put16(&f, 70, 16);
  f.len = HEADER + 4 * SPACE;
  for (size_t i = 0; i < SPACE; i++) put_float(&f, HEADER + 4 * i, i ? (float)i : NAN);
  viv__nifti v = decode(f.bytes, f.len);
  cr_assert_eq(v.data[0], 0);
  cr_assert_eq(v.data[1], 6);
  cr_assert_eq(v.no_numbers, 1);
  viv__nifti_free(&v);
}

Test(nifti, headers_that_lie_are_refused) {
  struct file f = plain();
  f.len = 100;
  refuse(&f, "no NIfTI");
  f = plain();
  f.len--;
  refuse(&f, "ends after 375 of 376");
  f = plain();
  put16(&f, 40, 9);
  refuse(&f, "9 axes");
  f = plain();
  put16(&f, 42, -3);
  refuse(&f, "axis 1");
  f = plain();
  for (size_t i = 0; i < 3; i++) put16(&f, 42 + 2 * i, 4000);
  refuse(&f, "64000000000 voxels");
  f = plain();
  put16(&f, 40, 5);
  put16(&f, 50, 3);
  refuse(&f, "axis 5");
  f = plain();
  put16(&f, 70, 128);
  refuse(&f, "kind 128");
  f = plain();
  put_float(&f, 108, 12);
  refuse(&f, "inside the header");
  f = plain();
  put_float(&f, 108, NAN);
  refuse(&f, "no place in a file");
  f = plain();
  put_float(&f, 108, 1e30f);
  refuse(&f, "no place in a file");
  f = plain();
  f.bytes[344] = 'x';
  refuse(&f, ".hdr");
  f = plain();
  for (size_t i = 0; i < 12; i++) put_float(&f, 280 + 4 * i, 0);
  refuse(&f, "axis 1 no direction");
}

/* A few compressed bytes whose header names gigabytes. */
Test(nifti, compressed_bombs_and_torn_files_are_refused) {
  struct file f = plain(), packed = {.len = 0};
  uLongf room = sizeof packed.bytes;
  for (int bomb = 0; bomb < 2; bomb++) {
    if (bomb)
      for (size_t i = 0; i < 3; i++) put16(&f, 42 + 2 * i, 700);
    z_stream z = {.next_in = f.bytes,
                  .avail_in = (uInt)f.len,
                  .next_out = packed.bytes,
                  .avail_out = (uInt)room};
    cr_assert_eq(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    packed.len = z.total_out;
    deflateEnd(&z);
    if (bomb) {
      refuse(&packed, "can't hold");
      continue;
    }
    viv__nifti v = decode(packed.bytes, packed.len);
    cr_assert_eq(v.data[23], 23);
    viv__nifti_free(&v);
    packed.len -= 20;
    refuse(&packed, "ends after");
    packed.len += 20;
    packed.bytes[40] ^= 0x55;
    packed.bytes[41] ^= 0x55;
    viv_error e = VIV_ERROR_INIT;
    if (viv__nifti_decode(packed.bytes, packed.len, "damaged", 0, &v, &e) < 0)
      cr_assert(e.message[0]);
    viv__nifti_free(&v);
  }
}
