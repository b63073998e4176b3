/* Any bytes as a volume: refused with a text, or all voxels can be read, are numbers, and labels of the
 * volume come back as they were given. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "media/nifti.h"

enum { MOST = 1 << 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv__nifti v, again;
  viv_error error = VIV_ERROR_INIT;
  if (viv__nifti_decode(data, size, "fuzz", MOST, &v, &error) < 0) {
    if (error.code >= 0 || !error.message[0]) abort();
    viv__nifti_free(&v);
    return 0;
  }
  int64_t n = v.size[0] * v.size[1] * v.size[2];
  if (n < 1 || n * v.channels > MOST) abort();
  int32_t *labels = malloc((size_t)n * sizeof *labels);
  for (int64_t i = 0; i < n * v.channels; i++)
    if (!isfinite(v.data[i])) abort();
  for (int64_t i = 0; i < n; i++) labels[i] = (int32_t)(i * 7 % 300);
  viv__buf out = {0};
  if (viv__nifti_labels(&v, labels, size & 1, &out, &error) < 0) abort();
  /* The header is written in floats: a matrix of tiny or huge numbers may not survive. */
  if (viv__nifti_decode(out.ptr, out.len, "again", MOST, &again, &error) >= 0 &&
      !memcmp(again.axis, v.axis, sizeof v.axis) && !memcmp(again.flip, v.flip, sizeof v.flip))
    for (int64_t i = 0; i < n; i++)
      if ((int32_t)again.data[i] != labels[i]) abort();
  viv__nifti_free(&again);
  viv__buf_free(&out);
  free(labels);
  viv__nifti_free(&v);
  return 0;
}
