/* Any bytes as a TensorFlow checkpoint: the first two are the length of the data, which stands before
 * the index. Refused with a text, or every tensor can be read. */
#include <stdlib.h>

#include "checkpoint/checkpoint.h"

static volatile uint8_t sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) return 0;
  size_t len = (size_t)data[0] | (size_t)data[1] << 8;
  if (len > size - 2) len = size - 2;
  viv__tfbundle *t = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__tfbundle_parse(data + 2 + len, size - 2 - len, data + 2, len, "fuzz", &t, &error) < 0) {
    if (t || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  uint8_t sum = 0;
  for (int64_t i = 0; i < viv__tfbundle_count(t); i++) {
    viv_str name;
    viv_tensor w;
    if (viv__tfbundle_at(t, i, &name, &w) < 0 || !name.len) abort();
    uint64_t bytes = viv__dtype_size(w.dtype);
    for (int32_t d = 0; d < w.ndim; d++) bytes *= (uint64_t)w.shape[d];
    if (bytes != w.bytes) abort();
    for (uint64_t k = 0; k < w.bytes; k++) sum += ((const uint8_t *)w.data)[k];
  }
  sink = sum;
  viv__tfbundle_close(t);
  return 0;
}
