/* Any bytes as a safetensors file: refused with a text, or every tensor can be found and read. */
#include <stdlib.h>

#include "checkpoint/checkpoint.h"

static volatile uint8_t sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv__safetensors *s = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__safetensors_parse(data, size, "fuzz", &s, &error) < 0) {
    if (s || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  uint8_t sum = 0;
  for (int64_t i = 0; i < viv__safetensors_count(s); i++) {
    viv_str name;
    viv_tensor t, found;
    if (viv__safetensors_at(s, i, &name, &t) < 0 || viv__safetensors_find(s, name, &found) < 0 ||
        found.data != t.data || !name.len || !viv__utf8_valid(name.ptr, name.len))
      abort();
    bool block = viv__is_block(t.dtype);
    uint64_t bytes = viv__dtype_size(t.dtype);
    if (block) bytes = viv__row_bytes(t.dtype, t.shape[t.ndim - 1]);
    for (int32_t d = 0; d < t.ndim - block; d++) bytes *= (uint64_t)t.shape[d];
    if (bytes != t.bytes) abort();
    for (uint64_t k = 0; k < t.bytes; k++) sum += ((const uint8_t *)t.data)[k];
  }
  sink = sum;
  viv__safetensors_close(s);
  return 0;
}
