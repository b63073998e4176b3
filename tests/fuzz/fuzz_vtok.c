/* Any bytes as a token file: refused with a text, or every code is in its code book. */
#include <stdlib.h>
#include <string.h>

#include "media/vtok.h"

struct bytes {
  const uint8_t *ptr;
  size_t len, at;
};

static int64_t take(void *context, void *data, uint64_t room, viv_error *error) {
  struct bytes *b = context;
  (void)error;
  size_t n = b->len - b->at < room ? b->len - b->at : room;
  if (n) memcpy(data, b->ptr + b->at, n);
  b->at += n;
  return (int64_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct bytes b = {data, size, 0};
  viv__vtok_reader r;
  viv__buf codes = {0};
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__vtok_open(take, &b, "fuzz", &r, &error);
  while (status == VIV_OK) {
    status = viv__vtok_next(&r, &codes, &error);
    if (status != VIV_OK) break;
    const int32_t *c = (const int32_t *)(const void *)codes.ptr;
    size_t n = codes.len / sizeof *c, from = r.header.chunks ? 2 : 0;
    if (n < 1 + from || (n - from) % (size_t)viv__vtok_width(&r.header)) abort();
    for (size_t i = from; i < n; i++)
      if (c[i] < 0 || c[i] >= r.header.size) abort();
  }
  if (status < 0 && !error.message[0]) abort();
  viv__vtok_close(&r);
  viv__buf_free(&codes);
  return 0;
}
