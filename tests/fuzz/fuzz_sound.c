/* Any bytes as a recording: refused with a text, or all samples can be read and are numbers. */
#include <math.h>
#include <stdlib.h>

#include "media/sound.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv__sound_options o = {.max_samples = 1 << 16};
  viv__sound s;
  viv_error error = VIV_ERROR_INIT;
  if (viv__sound_decode(data, size, "fuzz", &o, &s, &error) < 0) {
    if (s.data || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  if (s.channels < 1 || s.frames < 1 || s.frames * s.channels > o.max_samples) abort();
  for (int64_t i = 0; i < s.frames * s.channels; i++)
    if (!isfinite(s.data[i])) abort();
  viv__sound_free(&s);
  return 0;
}
