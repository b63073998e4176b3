/* Tokenizers of checkpoints without a tokenizer.json, windows and padding, and
 * texts that would keep a careless tokenizer busy. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

typedef struct file {
  const char *name, *text;
  size_t len; /* 0: terminated */
} file;

/* Files end with one without a name. */
static int32_t read_file(void *context, const char *name, viv_str *bytes,
                         viv_error *error) {
  for (const file *f = context; f->name; f++) {
    if (strcmp(f->name, name) != 0)
      continue;
    *bytes = (viv_str){f->text, f->len ? f->len : strlen(f->text)};
    return VIV_OK;
  }
  return VIV_FAIL(error, VIV_BAD_INPUT, name, "there is no such file");
}

static int32_t open_files(const file *files, const char *config,
                          viv__tokenizer **t, viv_error *error) {
  return viv__tokenizer_open_files(read_file, (void *)(uintptr_t)files,
                                   viv__str(config), t, error);
}

static void expect_ids(const viv__tokenizer *t, const char *text, bool special,
                       size_t n, const int32_t *want) {
  int32_t *ids;
  size_t got;
  cr_assert_eq(
      viv__tokenizer_encode(t, viv__str(text), special, true, &ids, &got, NULL),
      VIV_OK);
  cr_assert_eq(got, n, "\"%s\": %zu ids, expected %zu", text, got, n);
  for (size_t i = 0; i < n; i++)
    cr_expect_eq(ids[i], want[i], "\"%s\": id %zu is %d", text, i, ids[i]);
  viv__free(ids);
}

Test(tokenizer_files, vocab_and_merges) {
  static const file files[] = {
      {"vocab.json",
       "{\"a\":0,\"b\":1,\"\xc4\xa0\":2,\"ab\":3,\"\xc4\xa0\x61\x62\":4}", 0},
      {"merges.txt", "#version: 0.2\na b\n\xc4\xa0 ab\n", 0},
      {0}};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(open_files(files, "", &t, &error), VIV_OK, "%s", error.message);
  expect_ids(t, "ab ab", true, 2, (int32_t[]){3, 4});
  viv__tokenizer_close(t);
}

Test(tokenizer_files, bert_vocabulary) {
  static const file files[] = {
      {"vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\n##s\n,\n", 0}, {0}};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(open_files(files, "", &t, &error), VIV_OK, "%s", error.message);
  expect_ids(t, "Words, WORD x", true, 7, (int32_t[]){2, 4, 5, 6, 4, 1, 3});
  viv__tokenizer_close(t);
  cr_assert_eq(open_files(files, "{\"do_lower_case\":false}", &t, &error),
               VIV_OK);
  expect_ids(t, "Words words", false, 3, (int32_t[]){1, 4, 5});
  viv__tokenizer_close(t);
}

/* A sentencepiece model of the pieces <unk> <s> </s> ▁ a b ab ▁ab (as "kind": 1 Unigram, 2 BPE; 4, the
 * one of characters, has the first six). */
static size_t sentencepiece(char kind, char *out) {
  static const struct {
    const char *text;
    float score;
    char type;
  } pieces[] = {{"<unk>", 0, 2}, {"<s>", 0, 3},
                {"</s>", 0, 3},  {"\xe2\x96\x81", -4, 1},
                {"a", -5, 1},    {"b", -6, 1},
                {"ab", -1, 1},   {"\xe2\x96\x81\x61\x62", -2, 1}};
  size_t n = 0;
  for (size_t i = 0; i < (kind == 4 ? 6 : 8); i++) {
    size_t len = strlen(pieces[i].text);
    out[n++] = 10;
    out[n++] = (char)(len + 9);
    out[n++] = 10;
    out[n++] = (char)len;
    memcpy(out + n, pieces[i].text, len);
    n += len;
    out[n++] = 21;
    memcpy(out + n, &pieces[i].score, 4);
    n += 4;
    out[n++] = 24;
    out[n++] = pieces[i].type;
  }
  const char trainer[] = {18, 2, 24, kind};
  memcpy(out + n, trainer, 4);
  return n + 4;
}

Test(tokenizer_files, sentencepiece_models) {
  char bytes[512];
  for (char kind = 1; kind <= 2; kind++) {
    size_t len = sentencepiece(kind, bytes);
    const file files[] = {{"tokenizer.model", bytes, len}, {0}};
    viv__tokenizer *t;
    viv_error error = VIV_ERROR_INIT;
    cr_assert_eq(open_files(files, "{\"tokenizer_class\":\"LlamaTokenizer\"}",
                            &t, &error),
                 VIV_OK, "%s", error.message);
    expect_ids(t, "ab  ba", true, 5,
               (int32_t[]){1, 7, 3, 5, 4}); /* spaces are one */
    int32_t ids[] = {1, 7, 3, 5};
    char *text;
    size_t n;
    cr_assert_eq(viv__tokenizer_decode(t, ids, 4, true, &text, &n, NULL),
                 VIV_OK);
    cr_expect_str_eq(text, "ab b");
    viv__free(text);
    viv__tokenizer_close(t);
    /* Cut anywhere it is refused by name, or a smaller model. */
    for (size_t cut = 0; cut < len; cut++) {
      const file half[] = {{"tokenizer.model", bytes, cut ? cut : 1}, {0}};
      if (open_files(half, "", &t, &error) >= 0)
        viv__tokenizer_close(t);
      else
        cr_expect_str_eq(error.where, "tokenizer.model");
    }
  }
}

Test(tokenizer_files, a_sentencepiece_model_of_characters) {
  char bytes[512];
  const file files[] = {{"spm_char.model", bytes, sentencepiece(4, bytes)}, {0}};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(open_files(files, "{\"tokenizer_class\":\"SpeechT5Tokenizer\"}", &t, &error), VIV_OK,
               "%s", error.message);
  expect_ids(t, "ab ba", true, 7, (int32_t[]){3, 4, 5, 3, 5, 4, 2});
  viv__tokenizer_close(t);
}

Test(tokenizer_files, no_files) {
  static const file none[] = {{0}};
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_expect_eq(open_files(none, "", &t, &error), VIV_BAD_INPUT);
  cr_expect_not_null(strstr(error.message, "vocab.txt"));
}

#define LETTERS                                                                \
  "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"<s>\":2,\"c\":3}" \
  ",\"merges\":[]},"                                                           \
  "\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true}],"

/* Windows that share tokens, each with the special token, padded on the left.
 */
Test(tokenizer_files, windows_and_padding) {
  static const char json[] =
      LETTERS "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
              "{\"SpecialToken\":"
              "{\"id\":\"s\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
              "\"type_id\":0}}],\"pair\":"
              "[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{"
              "\"id\":\"B\",\"type_id\":"
              "1}}],\"special_tokens\":{\"s\":{\"id\":\"s\",\"ids\":[2],"
              "\"tokens\":[\"<s>\"]}}},"
              "\"truncation\":{\"max_length\":3,\"stride\":1},\"padding\":{"
              "\"strategy\":{\"Fixed\":"
              "4},\"direction\":\"Left\",\"pad_id\":3,\"pad_token\":\"c\"}}";
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__tokenizer_open(viv__str(json), viv__str(""), &t, &error),
               VIV_OK, "%s", error.message);
  viv__encode_options options = {.add_special = true,
                                 .truncation = viv__tokenizer_truncation(t),
                                 .padding = viv__tokenizer_padding(t)};
  viv__text_pair text = {.text = viv__str("aba")};
  viv__encodings made;
  cr_assert_eq(
      viv__tokenizer_encode_batch(t, &text, 1, &options, &made, &error),
      VIV_OK);
  const viv__encoding *e = &made.item[0];
  cr_assert_eq(e->n, 4);
  cr_assert_eq(e->overflows, 1);
  static const int32_t want[2][4] = {{3, 2, 0, 1}, {3, 2, 1, 0}};
  for (int w = 0; w < 2; w++)
    for (int i = 0; i < 4; i++)
      cr_expect_eq((w ? e->overflow : e)->token[i].id, want[w][i],
                   "window %d, token %d", w, i);
  cr_expect_not(e->token[0].attention);
  cr_expect(e->token[1].special);
  cr_expect_eq(e->overflow[0].token[2].start, 1);
  viv__encodings_free(&made);
  int32_t *ids;
  size_t n;
  cr_assert_eq(
      viv__tokenizer_encode_within(t, text.text, true, true, 2, &ids, &n, NULL),
      VIV_OK);
  cr_expect(n == 2 && ids[0] == 2 && ids[1] == 0,
            "the special token stays, the text is cut");
  viv__free(ids);
  options.truncation.stride = 2; /* as many as a window has room for */
  cr_expect_eq(
      viv__tokenizer_encode_batch(t, &text, 1, &options, &made, &error),
      VIV_BAD_INPUT);
  viv__tokenizer_close(t);
}

/* A regular expression that needs exponential time is given up; one that does
 * not, is not. */
Test(tokenizer_files, regex_limits, .timeout = 120) {
  static const char slow[] =
      LETTERS "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"("
              "a*)*(a*)*[bc]\"},"
              "\"behavior\":\"Isolated\",\"invert\":false}}";
  static const char plain[] =
      LETTERS "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":"
              "\"a.*b|x\"},"
              "\"behavior\":\"Isolated\",\"invert\":false}}";
  enum { N = 100000 };
  char *text = malloc(N);
  memset(text, 'a', N);
  for (int k = 0; k < 2; k++) {
    viv__tokenizer *t;
    viv_error error = VIV_ERROR_INIT;
    int32_t *ids;
    size_t n;
    cr_assert_eq(viv__tokenizer_open(viv__str(k ? plain : slow), viv__str(""),
                                     &t, &error),
                 VIV_OK);
    int32_t status = viv__tokenizer_encode(t, (viv_str){text, N}, true, true,
                                           &ids, &n, &error);
    cr_expect_eq(status, k ? VIV_OK : VIV_BAD_INPUT);
    if (!k)
      cr_expect_not_null(strstr(error.message, "too many steps"));
    if (status == VIV_OK)
      viv__free(ids);
    viv__tokenizer_close(t);
  }
  free(text);
}

/* Merges that lead back to where they began: each takes a symbol away, so
 * encoding ends. */
Test(tokenizer_files, cyclic_merges_end, .timeout = 20) {
  static const char *const models[] = {
      /* the right side is nothing but the prefix: a and ## make a again */
      "{\"model\":{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\","
      "\"vocab\":{\"a\":0,\"##\":1,"
      "\"##a\":2,\"aa\":3},\"merges\":[[\"a\",\"##\"],[\"a\",\"##a\"],[\"aa\","
      "\"##\"]]}}",
      "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\":0,\"a\":1,\"aa\":2},"
      "\"merges\":[[\"\",\"a\"],[\"a\","
      "\"\"],[\"a\",\"a\"],[\"\",\"aa\"]]}}",
      /* the same merge over and over */
      "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"aa\":1,\"aaa\":2},"
      "\"merges\":[\"a a\",\"a a\","
      "\"aa a\",\"a aa\",\"a a\"]}}"};
  enum { N = 200000 };
  char *text = malloc(N);
  memset(text, 'a', N);
  for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
    viv__tokenizer *t;
    viv_error error = VIV_ERROR_INIT;
    int32_t *ids;
    size_t n;
    cr_assert_eq(
        viv__tokenizer_open(viv__str(models[i]), viv__str(""), &t, &error),
        VIV_OK, "%zu: %s", i, error.message);
    cr_assert_eq(viv__tokenizer_encode(t, (viv_str){text, N}, true, true, &ids,
                                       &n, &error),
                 VIV_OK);
    cr_expect(n > 0 && n <= N, "%zu ids", n);
    viv__free(ids);
    viv__tokenizer_close(t);
  }
  free(text);
}

/* Ids that no token has, between those that tokens have: never given, and named
 * when they are to be decoded. An added token has the next id by count, as in
 * the library, whatever the file says. */
Test(tokenizer_files, vocabulary_with_holes) {
  static const char json[] =
      "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2,\"b\":7,\"ab\":300},"
      "\"merges\":[\"a b\"]},"
      "\"added_tokens\":[{\"id\":900,\"content\":\"<s>\",\"special\":true}]}";
  viv__tokenizer *t;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__tokenizer_open(viv__str(json), viv__str(""), &t, &error),
               VIV_OK, "%s", error.message);
  expect_ids(t, "aab<s>b", true, 4, (int32_t[]){2, 300, 3, 7});
  int32_t ids[] = {2, 299, 7};
  char *text;
  size_t n;
  cr_expect_eq(viv__tokenizer_decode(t, ids, 3, false, &text, &n, &error),
               VIV_BAD_INPUT);
  cr_expect(strstr(error.message, "299"), "%s", error.message);
  viv__tokenizer_close(t);
}

/* The official libraries take no bytes, only characters: what is none is
 * refused where it stands. */
Test(tokenizer_files, text_that_is_not_utf8) {
  static const char *const texts[] = {"ab\xff", "ab\xe4\xb8", "ab\xc0\x80",
                                      "ab\xed\xa0\x80", "ab\xf5\x80\x80\x80"};
  viv__tokenizer *t;
  cr_assert_eq(viv__tokenizer_open(viv__str(LETTERS "\"version\":\"1.0\"}"),
                                   viv__str(""), &t, NULL),
               VIV_OK);
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    viv_error error = VIV_ERROR_INIT;
    int32_t *ids;
    size_t n;
    cr_expect_eq(viv__tokenizer_encode(t, viv__str(texts[i]), true, true, &ids,
                                       &n, &error),
                 VIV_BAD_INPUT);
    cr_expect(strstr(error.message, "UTF-8"), "%zu: %s", i, error.message);
    cr_expect(strstr(error.message, "byte 2"), "%zu: %s", i, error.message);
  }
  viv__tokenizer_close(t);
}
