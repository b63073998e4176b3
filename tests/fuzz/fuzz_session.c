/* Saved sessions and kept prompts: what is read has one encoding, and lies within the bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tasks/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char id[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
  enum { VOCAB = 512 };
  viv__saved saved;
  viv_error e = VIV_ERROR_INIT;
  char *copy = malloc(size ? size : 1);
  if (!copy) return 0;
  if (size) memcpy(copy, data, size);
  int32_t status = viv__saved_read(id, "model", VOCAB, copy, size, "fuzz", &saved, &e);
  if (status < 0 && !*e.message) abort();
  if (status >= 0) {
    if (viv__saved_head(id, copy) != (int64_t)saved.n) abort();
    if (VIV__SAVED_HEAD + saved.n * 4 + 8 + saved.bytes != size) abort();
    if (saved.snapshot + saved.bytes != copy + size) abort();
    for (uint64_t i = 0; i < saved.n; i++)
      if (saved.tokens[i] < 0 || saved.tokens[i] >= VOCAB) abort();
  }
  free(copy);
  return 0;
}
