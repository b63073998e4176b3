/* Any bytes as a GGUF file: refused with a text, or every tensor can be read, and the side files
 * that its metadata stands for are JSON or refused. */
#include <stdlib.h>

#include "checkpoint/checkpoint.h"
#include "text/tokenizer.h"

static volatile uint8_t sink; /* keeps the reads */

/* The side file's text; false when it was refused. */
static bool side(const viv__gguf *g, const char *name, viv__buf *text) {
  viv_error error = VIV_ERROR_INIT;
  viv_json *document = NULL;
  if (viv__gguf_side(g, viv__str(name), text, &error) < 0) {
    if (error.code >= 0 || !error.message[0]) abort();
    return false;
  }
  if (viv__json_parse(text->ptr, text->len, name, &document, &error) < 0) abort();
  viv__json_free(document);
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv__gguf *g = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__gguf_parse(data, size, "fuzz", &g, &error) < 0) {
    if (g || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  uint8_t sum = 0;
  for (int64_t i = 0; i < viv__gguf_count(g); i++) {
    viv_str name;
    viv_tensor t, found;
    if (viv__gguf_at(g, i, &name, &t) < 0 || viv__gguf_find(g, name, &found) < 0 ||
        found.data != t.data || !name.len || !viv__utf8_valid(name.ptr, name.len))
      abort();
    uint64_t bytes = viv__row_bytes(t.dtype, t.shape[t.ndim - 1]);
    for (int32_t d = 0; d + 1 < t.ndim; d++) bytes *= (uint64_t)t.shape[d];
    if (bytes != t.bytes) abort();
    for (uint64_t k = 0; k < t.bytes; k++) sum += ((const uint8_t *)t.data)[k];
  }
  sink = sum;
  viv__buf config = {0}, json = {0}, settings = {0};
  if (!side(g, "config.json", &config)) abort();
  bool both = side(g, "tokenizer.json", &json);
  both &= side(g, "tokenizer_config.json", &settings);
  viv__tokenizer *t = NULL;
  if (both && viv__tokenizer_open((viv_str){json.ptr, json.len},
                                  (viv_str){settings.ptr, settings.len}, &t, &error) >= 0)
    viv__tokenizer_close(t);
  viv__buf_free(&config);
  viv__buf_free(&json);
  viv__buf_free(&settings);
  viv__gguf_close(g);
  return 0;
}
