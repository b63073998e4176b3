/* Any bytes as JSON: refused with a text, or every node answers every question. */
#include <stdlib.h>

#include "base/base.h"

static void walk(const viv_json *node, int depth) {
  if (depth > 65) abort();
  int32_t type = viv__json_type(node);
  int64_t count = viv__json_count(node);
  if (type < VIV_JSON_NULL || type > VIV_JSON_OBJECT) abort();
  viv__json_number(node);
  viv__json_boolean(node);
  if (type == VIV_JSON_STRING) {
    viv_str text = viv__json_string(node);
    if (text.len && !text.ptr) abort();
  }
  if (type != VIV_JSON_ARRAY && type != VIV_JSON_OBJECT && count != 0) abort();
  for (int64_t i = 0; i < count && i < 64; i++) {
    const viv_json *child = viv__json_item(node, i);
    if (!child) abort();
    if (type == VIV_JSON_OBJECT && !viv__json_member(node, viv__json_key(child))) abort();
    walk(child, depth + 1);
  }
  if (viv__json_item(node, count) || viv__json_item(node, -1)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  viv_json *document = NULL;
  viv_error error = VIV_ERROR_INIT;
  if (viv__json_parse((const char *)data, size, "fuzz", &document, &error) < 0) {
    if (document || error.code >= 0 || !error.message[0]) abort();
    return 0;
  }
  walk(document, 0);
  viv__json_get(document, "weight_map");
  viv__json_num(document, "hidden_size", 1);
  viv__json_bool(document, "tie_word_embeddings", false);
  viv__json_text(document, "model_type", "");
  viv__json_free(document);
  return 0;
}
