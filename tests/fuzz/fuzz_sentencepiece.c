/* libFuzzer: a sentencepiece model as untrusted bytes; what opens must encode and decode. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static viv_str model;

static int32_t read_model(void *context, const char *name, viv_str *bytes, viv_error *error) {
  (void)context;
  if (strcmp(name, "tokenizer.model") != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, name, "there is no such file");
  *bytes = model;
  return VIV_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const viv_str texts[] = {{"", 0}, {" a  b", 5}, {"\xef\xac\x81 xy\n", 7}};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  model = (viv_str){(const char *)data, size};
  if (viv__tokenizer_open_files(read_model, NULL, (viv_str){NULL, 0}, &t, &error) < 0) {
    if (!error.message[0]) abort();
    return 0;
  }
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    int32_t *ids;
    size_t n, len;
    char *text;
    if (viv__tokenizer_encode(t, texts[i], true, true, &ids, &n, &error) < 0) continue;
    if (viv__tokenizer_decode(t, ids, n, true, &text, &len, &error) < 0) abort();
    viv__free(text);
    viv__free(ids);
  }
  viv__tokenizer_close(t);
  return 0;
}
