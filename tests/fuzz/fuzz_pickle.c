/* Any bytes as a PyTorch file, in either form: refused with a text, or every tensor can be read. */
#include <stdlib.h>

#include "checkpoint/checkpoint.h"

static volatile uint8_t sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv__pickle *p = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__pickle_parse(data, size, "fuzz", &p, &error) < 0) {
    if (p || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  uint8_t sum = 0;
  for (int64_t i = 0; i < viv__pickle_count(p); i++) {
    viv_str name;
    viv_tensor t;
    if (viv__pickle_at(p, i, &name, &t) < 0 || !name.len || !viv__utf8_valid(name.ptr, name.len))
      abort();
    uint64_t bytes = viv__dtype_size(t.dtype);
    for (int32_t d = 0; d < t.ndim; d++) bytes *= (uint64_t)t.shape[d];
    if (bytes != t.bytes) abort();
    for (uint64_t k = 0; k < t.bytes; k++) sum += ((const uint8_t *)t.data)[k];
  }
  sink = sum;
  viv__pickle_close(p);
  return 0;
}
