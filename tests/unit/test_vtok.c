/* Token files: what is written is read again, and a file that was cut or changed is refused with the
 * place. */
#include <criterion/criterion.h>
#include <string.h>

#include "media/vtok.h"

struct bytes {
  const char *ptr;
  size_t len, at, piece;
};

/* At most `piece` bytes at once, as a pipe gives them. */
static int64_t take(void *context, void *data, uint64_t room, viv_error *error) {
  struct bytes *b = context;
  (void)error;
  size_t n = b->len - b->at;
  if (n > room) n = room;
  if (n > b->piece) n = b->piece;
  memcpy(data, b->ptr + b->at, n);
  b->at += n;
  return (int64_t)n;
}

static viv__vtok_header plain(void) {
  viv__vtok_header h = {.codec = "encodec",
                        .books = "0123",
                        .rate = 24000,
                        .channels = 1,
                        .hop = 320,
                        .codebooks = 3,
                        .size = 1000,
                        .group = 1,
                        .bits = 10};
  return h;
}

static viv__vtok_header levels(void) {
  viv__vtok_header h = plain();
  h.n_strides = 3;
  h.group = 4;
  h.strides[0] = 4, h.strides[1] = 2, h.strides[2] = 1;
  return h;
}

static viv__vtok_header chunked(void) {
  viv__vtok_header h = plain();
  h.chunks = true;
  return h;
}

/* Blocks of 5 and 2 units; of chunks, two of 5 and 2 frames. */
static void fill(const viv__vtok_header *h, viv__buf *file, viv__buf *codes) {
  viv__vtok_begin(h, file);
  for (int32_t k = 0, n = 5; k < 2; k++, n = 2) {
    int32_t block[128], at = 0;
    float scale = 0.25f;
    if (h->chunks) {
      block[at++] = n;
      memcpy(&block[at++], &scale, sizeof scale);
    }
    for (int32_t i = 0; i < n * viv__vtok_width(h); i++) block[at++] = (i * 389 + k) % h->size;
    viv__vtok_block(h, block, h->chunks ? 1 : n, file);
    viv__buf_add(codes, block, (size_t)at * sizeof *block);
  }
  viv__vtok_end(2200, h->chunks ? 2 : 7, file);
}

static int32_t read_all(const char *ptr, size_t len, size_t piece, viv__buf *all,
                        viv__vtok_reader *r, viv_error *error) {
  struct bytes b = {ptr, len, 0, piece};
  viv__buf codes = {0};
  int32_t status = viv__vtok_open(take, &b, "speech.vtok", r, error);
  while (status == VIV_OK) {
    status = viv__vtok_next(r, &codes, error);
    if (status == VIV_OK) viv__buf_add(all, codes.ptr, codes.len);
  }
  viv__buf_free(&codes);
  viv__vtok_close(r);
  return status;
}

static void round_trip(viv__vtok_header h, int32_t bits) {
  viv__buf file = {0}, codes = {0}, all = {0};
  viv__vtok_reader r;
  viv_error e = VIV_ERROR_INIT;
  h.bits = bits;
  fill(&h, &file, &codes);
  cr_assert_eq(read_all(file.ptr, file.len, 3, &all, &r, &e), VIV_DONE, "%s", e.message);
  cr_assert_eq(all.len, codes.len);
  cr_assert_arr_eq(all.ptr, codes.ptr, codes.len);
  cr_assert_eq(r.samples, 2200);
  cr_assert_eq(r.header.codebooks, 3);
  cr_assert_str_eq(r.header.codec, "encodec");
  cr_assert_str_eq(r.header.books, "0123");
  viv__buf_free(&file);
  viv__buf_free(&codes);
  viv__buf_free(&all);
}

Test(vtok, what_is_written_is_read_again) {
  static const int32_t bits[] = {10, 16, 32};
  for (int i = 0; i < 3; i++) {
    round_trip(plain(), bits[i]);
    round_trip(levels(), bits[i]);
    round_trip(chunked(), bits[i]);
  }
}

Test(vtok, codes_are_packed_into_as_few_bits_as_hold_them) {
  viv__vtok_header h = plain();
  viv__buf file = {0};
  int32_t codes[3] = {1, 2, 999};
  viv__vtok_block(&h, codes, 1, &file);
  static const uint8_t want[] = {1, 0, 0, 0, 4, 0, 0, 0, 1, 8, 0x70, 0x3e};
  cr_assert_eq(file.len, sizeof want);
  cr_assert_arr_eq(file.ptr, want, sizeof want);
  viv__buf_free(&file);
}

Test(vtok, a_file_cut_anywhere_is_refused) {
  viv__vtok_header all[] = {plain(), levels(), chunked()};
  for (int i = 0; i < 3; i++) {
    viv__buf file = {0}, codes = {0}, got = {0};
    fill(&all[i], &file, &codes);
    for (size_t len = 0; len < file.len; len++) {
      viv__vtok_reader r;
      viv_error e = VIV_ERROR_INIT;
      cr_assert_eq(read_all(file.ptr, len, 4096, &got, &r, &e), VIV_BAD_INPUT, "%zu bytes", len);
      cr_assert(strstr(e.message, "cut short"), "%zu bytes: %s", len, e.message);
      cr_assert_str_eq(e.where, "speech.vtok");
    }
    viv__buf_add(&file, "x", 1);
    viv__vtok_reader r;
    viv_error e = VIV_ERROR_INIT;
    cr_assert_eq(read_all(file.ptr, file.len, 4096, &got, &r, &e), VIV_BAD_INPUT);
    cr_assert(strstr(e.message, "bytes follow"), "%s", e.message);
    viv__buf_free(&file);
    viv__buf_free(&codes);
    viv__buf_free(&got);
  }
}

static void refused(viv__vtok_header h, const char *words) {
  viv__buf file = {0}, codes = {0}, got = {0};
  viv__vtok_reader r;
  viv_error e = VIV_ERROR_INIT;
  viv__vtok_begin(&h, &file);
  cr_assert_eq(read_all(file.ptr, file.len, 4096, &got, &r, &e), VIV_BAD_INPUT, "%s", words);
  cr_assert(strstr(e.message, words), "\"%s\" lacks \"%s\"", e.message, words);
  viv__buf_free(&file);
  viv__buf_free(&codes);
  viv__buf_free(&got);
}

Test(vtok, headers_that_make_no_sense_are_refused) {
  viv__vtok_header h = plain();
  h.rate = 1;
  refused(h, "sampling_rate is 1");
  h.rate = 10000000;
  refused(h, "sampling_rate is 10000000");
  h = plain();
  h.channels = 64;
  refused(h, "channels is 64");
  h = plain();
  h.codebooks = 0;
  refused(h, "codebooks is 0");
  h = plain();
  h.bits = 9;
  refused(h, "bits is 9");
  h = levels();
  h.strides[1] = 3;
  refused(h, "stride 3 of code book 1");
}

Test(vtok, codes_outside_the_code_book_are_refused_with_their_place) {
  viv__vtok_header h = plain();
  viv__buf file = {0}, got = {0};
  viv__vtok_reader r;
  viv_error e = VIV_ERROR_INIT;
  int32_t codes[6] = {1, 2, 3, 4, 1000, 6};
  viv__vtok_begin(&h, &file);
  viv__vtok_block(&h, codes, 2, &file);
  viv__vtok_end(640, 2, &file);
  cr_assert_eq(read_all(file.ptr, file.len, 4096, &got, &r, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "code 1000 in unit 1"), "%s", e.message);
  viv__buf_free(&file);
  viv__buf_free(&got);
}
