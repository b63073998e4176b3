/* libFuzzer: the input is a tokenizer.json, a NUL byte, and a text. Opens, encodes, decodes and
 * streams; the parts of a stream must add up to decode() wherever no byte fallback is involved (see
 * detokenize.c for why not there).
 *
 *   clang-14 -g -O1 -fsanitize=fuzzer,address,undefined -std=c11 -D_GNU_SOURCE -Iabi -Ihost \
 *     tests/fuzz/fuzz_tokenizer.c host/text/[a-z]*.c host/base/[a-z]*.c -lcjson -lmd \
 *     -lpcre2-8 -lutf8proc -lm -o fuzz
 *   ./fuzz NEW tests/fuzz/corpus/tokenizer */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok) {
  if (!ok) abort();
}

/* decode() and a stream of the same ids. */
static void decode_both(const viv__tokenizer *t, const int32_t *ids, size_t n, bool skip,
                        bool compare) {
  char *whole;
  size_t len;
  check(viv__tokenizer_decode(t, ids, n, skip, &whole, &len, NULL) == VIV_OK);
  check(viv__utf8_valid(whole, len));
  viv__buf joined = {0};
  viv__detokenizer *d = viv__detokenizer_new(t, skip);
  viv_str part;
  for (size_t i = 0; i < n; i++) {
    check(viv__detokenizer_add(d, ids[i], &part) == VIV_OK);
    check(viv__utf8_valid(part.ptr, part.len));
    viv__buf_add(&joined, part.ptr, part.len);
  }
  check(viv__detokenizer_finish(d, &part) == VIV_OK);
  viv__buf_add(&joined, part.ptr, part.len);
  if (compare) check(joined.len == len && (!len || !memcmp(joined.ptr, whole, len)));
  viv__detokenizer_free(d);
  viv__buf_free(&joined);
  viv__free(whole);
}

/* Everything that an encoding holds, of one text and of a pair, with the file's own truncation and
 * padding; each place lies within the text. */
static void encode_all(const viv__tokenizer *t, viv_str text) {
  viv__text_pair batch[2] = {{.text = text}, {.text = text, .pair = text}};
  viv__encode_options options = {.add_special = true, .parse_special = true};
  options.truncation = viv__tokenizer_truncation(t);
  options.padding = viv__tokenizer_padding(t);
  if (options.padding.length > 4096 || options.padding.multiple > 4096) options.padding.on = false;
  for (int mode = 0; mode < 2; mode++) {
    viv__encodings made;
    options.code_points = mode;
    if (viv__tokenizer_encode_batch(t, batch, 2, &options, &made, NULL) < 0) continue;
    for (size_t i = 0; i < made.n; i++)
      for (size_t k = 0; k < made.item[i].n; k++) {
        const viv__encoded *token = &made.item[i].token[k];
        check(token->text.ptr && viv__utf8_valid(token->text.ptr, token->text.len));
      }
    viv__encodings_free(&made);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
  size_t len = nul ? (size_t)(nul - data) : size, rest = nul ? size - len - 1 : 0;
  viv_str json = {(const char *)data, len}, text = {(const char *)data + size - rest, rest};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  if (viv__tokenizer_open(json, (viv_str){NULL, 0}, &t, &error) < 0) {
    check(error.message[0] != 0);
    return 0;
  }
  bool compare = !len || !memmem(data, len, "ByteFallback", 12);
  encode_all(t, text);
  for (int mode = 0; mode < 4; mode++) {
    int32_t *ids;
    size_t n;
    int32_t status = viv__tokenizer_encode(t, text, mode & 1, mode & 2, &ids, &n, &error);
    if (status == VIV_OK) {
      decode_both(t, ids, n, mode & 1, compare);
      viv__free(ids);
    } else {
      check(status == VIV_BAD_INPUT && error.message[0] != 0);
    }
  }
  /* Ids that no text gave. */
  int32_t ids[64], vocabulary = viv__tokenizer_size(t);
  size_t n = 0;
  for (size_t i = 0; i < rest && n < 64 && vocabulary; i++) {
    char *one;
    size_t one_len;
    ids[n] = text.ptr[i] * 31 % vocabulary;
    if (viv__tokenizer_decode(t, &ids[n], 1, false, &one, &one_len, NULL) < 0) continue;
    viv__free(one);
    n++;
  }
  decode_both(t, ids, n, false, compare);
  viv__tokenizer_close(t);
  return 0;
}
