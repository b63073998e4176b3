/* Any bytes as a picture, in every form that a job may ask for: refused with a text, or all pixels can
 * be read. */
#include <stdlib.h>

#include "media/media.h"

static volatile uint8_t sink; /* keeps the reads */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int32_t channels[] = {3, 1, 4};
  for (int i = 0; i < 3; i++) {
    viv__picture_options o = {
        .channels = channels[i], .orient = i != 2, .f32 = i == 1, .max_pixels = 1 << 16};
    viv__picture p = {0}, header = {0};
    viv_error error = VIV_ERROR_INIT;
    int32_t probed = viv__picture_probe(data, size, "fuzz", &o, &header, NULL);
    if (viv__picture_decode(data, size, "fuzz", &o, &p, &error) < 0) {
      if (p.data || error.code >= 0 || !error.message[0]) abort();
      continue;
    }
    if (probed < 0 || header.width != p.width || header.height != p.height) abort();
    if (p.width < 1 || p.height < 1 || p.channels != channels[i]) abort();
    uint64_t bytes =
        (uint64_t)p.width * (uint64_t)p.height * (uint64_t)p.channels * (p.f32 ? sizeof(float) : 1);
    uint8_t sum = 0;
    for (uint64_t k = 0; k < bytes; k++) sum += ((const uint8_t *)p.data)[k];
    sink = sum;
    viv__picture_free(&p);
  }
  return 0;
}
