/* A template and its variables, both untrusted: the bytes up to the first NUL are the template, the
 * rest is a JSON object. Compiling and rendering must end, and leave nothing behind. */
#include <stdlib.h>
#include <string.h>

#include "template/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char messages[] =
      "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":"
      "\"Yo\"}],\"a\":1,\"b\":2.5,\"l\":[3,1,2],\"d\":{\"k\":[1]},\"u\":\"\xc3\xa9\"}";
  const char *text = (const char *)data;
  size_t len = strnlen(text, size);
  viv_str context = {messages, sizeof messages - 1};
  if (len + 1 < size) context = (viv_str){text + len + 1, size - len - 1};
  viv__template *t = NULL;
  viv__rendered r = {0};
  viv_error error = VIV_ERROR_INIT;
  if (viv__template_open((viv_str){text, len}, "fuzz", &t, &error) < 0) return 0;
  if (viv__template_render(t, context, 0, &r, &error) >= 0 && !viv__utf8_valid(r.text, r.len))
    abort();
  viv__rendered_free(&r);
  viv__chat_input in = {.messages = viv__str("[{\"role\":\"user\",\"content\":\" x \"}]"),
                        .continue_field = "content"};
  if (viv__template_chat(t, &in, &r, &error) >= 0) viv__rendered_free(&r);
  viv__template_close(t);
  return 0;
}
