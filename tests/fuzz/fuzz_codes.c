/* Any bytes as codes in JSON or NPY, and as what a language model says of its codes: refused with a text,
 * or every code is in its code book, and becomes a token and a code again. */
#include <stdlib.h>
#include <string.h>

#include "media/code_tokens.h"
#include "media/codes.h"

enum { VOCABULARY = 1 << 24 };

static void check(const viv__vtok_header *h, const viv__buf *codes) {
  const int32_t *c = (const int32_t *)(const void *)codes->ptr;
  size_t n = codes->len / sizeof *c, width = (size_t)viv__vtok_width(h);
  if (h->chunks) return; /* counts and scales stand between */
  if (n % width) abort();
  for (size_t i = 0; i < n; i++)
    if (c[i] < 0 || c[i] >= h->size) abort();
  viv__code_tokens t = {.header = *h, .offset = 7, .begin = 1, .end = -1};
  viv_error error = VIV_ERROR_INIT;
  int64_t *tokens = malloc((n + 1) * sizeof *tokens);
  int32_t *again = malloc((n + 1) * sizeof *again);
  int64_t count = viv__code_tokens_from(&t, h, "fuzz", c, (int64_t)n, tokens, &error);
  if (count != (int64_t)n + 1 || tokens[0] != 1) abort();
  if (viv__code_tokens_to(&t, tokens + 1, (int64_t)n, again) != (int64_t)n) abort();
  if (n && memcmp(again, c, n * sizeof *c)) abort();
  free(tokens);
  free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *bytes = (const char *)data;
  viv__vtok_header h = {.codec = "fuzz",
                        .rate = 16000,
                        .channels = 1,
                        .hop = 320,
                        .codebooks = 8,
                        .size = 1024,
                        .group = 1,
                        .bits = 10};
  viv__buf codes = {0};
  viv_error error = VIV_ERROR_INIT;
  int64_t samples = 0;
  bool npy = size && data[0] == 0x93;
  int32_t status = npy ? viv__codes_from_npy(bytes, size, "fuzz", &h, &codes, &samples, &error)
                       : viv__codes_from_json(bytes, size, "fuzz", &h, &codes, &samples, &error);
  if (status < 0 && !error.message[0]) abort();
  if (status >= 0) check(&h, &codes);
  viv__buf_free(&codes);
  if (npy) return 0;
  viv_json *doc = NULL;
  viv__code_tokens t;
  error = (viv_error)VIV_ERROR_INIT;
  if (viv__json_parse(bytes, size, "fuzz", &doc, &error) >= 0 &&
      viv__code_tokens_read(doc, VOCABULARY, "fuzz", &t, &error) >= 0)
    for (int64_t i = 0; i < viv__vtok_width(&t.header); i++)
      if (viv__code_tokens_base(&t, i) + t.header.size > VOCABULARY) abort();
  viv__json_free(doc);
  return 0;
}
