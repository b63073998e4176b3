/* Any bytes as a TensorFlow.js model, the document up to the first zero byte and the weights behind
 * it: refused with a text, or every tensor can be read and config.json is JSON. */
#include <stdlib.h>
#include <string.h>

#include "checkpoint/checkpoint.h"

static volatile uint8_t sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
  size_t document = zero ? (size_t)(zero - data) : size;
  const uint8_t *weights = zero ? zero + 1 : data;
  viv__tfjs *t = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__tfjs_parse(data, document, weights, zero ? size - document - 1 : 0, "fuzz", &t, &error) <
      0) {
    if (t || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  uint8_t sum = 0;
  for (int64_t i = 0; i < viv__tfjs_count(t); i++) {
    viv_str name;
    viv_tensor w;
    if (viv__tfjs_at(t, i, &name, &w) < 0 || !name.len) abort();
    uint64_t bytes = viv__dtype_size(w.dtype);
    for (int32_t d = 0; d < w.ndim; d++) bytes *= (uint64_t)w.shape[d];
    if (bytes != w.bytes) abort();
    for (uint64_t k = 0; k < w.bytes; k++) sum += ((const uint8_t *)w.data)[k];
  }
  sink = sum;
  viv__buf config = {0};
  viv_json *read = NULL;
  if (viv__tfjs_side(t, viv__str("config.json"), &config, &error) < 0 ||
      viv__json_parse(config.ptr, config.len, "config.json", &read, &error) < 0)
    abort();
  viv__json_free(read);
  viv__buf_free(&config);
  viv__tfjs_close(t);
  return 0;
}
