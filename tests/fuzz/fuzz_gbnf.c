/* A grammar in GBNF from anywhere, up to the first NUL, and a text to hold against it: compiling must end,
 * and what is refused at a byte stays refused. */
#include <stdlib.h>
#include <string.h>

#include "grammar/grammar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const char *text = (const char *)data;
  size_t len = strnlen(text, size);
  viv_error error = VIV_ERROR_INIT;
  viv__grammar *g = NULL;
  int32_t status = viv__grammar_gbnf((viv_str){text, len}, &g, &error);
  if (status < 0 && !*error.message) abort();
  viv__matcher *m = status < 0 ? NULL : viv__matcher_new(g, NULL);
  for (size_t i = len + 1; m && i < size && i < len + 500; i++)
    if (!viv__matcher_bytes(m, text + i, 1)) {
      if (viv__matcher_complete(m) || viv__matcher_bytes(m, "1", 1)) abort();
      break;
    }
  viv__matcher_free(m);
  viv__grammar_free(g);
  return 0;
}
