/* The tokenizer against what the tokenizers library says (tests/data/tokenizer,
 * made by make.py there; stories260K's cases come from the reference
 * implementation of its model). */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

#define DATA "tests/data/tokenizer/"

static viv_str read_data(const char *name) {
  char path[256], *text;
  size_t len;
  snprintf(path, sizeof path, DATA "%s", name);
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__read_file(path, 1 << 20, &text, &len, &error), VIV_OK, "%s", error.message);
  return (viv_str){text, len};
}

static viv_json *parse(viv_str text) {
  viv_json *doc;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__json_parse(text.ptr, text.len, "cases", &doc, &error), VIV_OK, "%s",
               error.message);
  return doc;
}

static viv__tokenizer *open_text(const char *json, const char *config) {
  viv__tokenizer *t = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__tokenizer_open(viv__str(json), viv__str(config), &t, &error);
  cr_assert_eq(status, VIV_OK, "%s: %s", error.where, error.message);
  return t;
}

static viv__tokenizer *open_data(const char *name) {
  char file[64];
  snprintf(file, sizeof file, "%s.json", name);
  viv_str json = read_data(file);
  viv__tokenizer *t = open_text(json.ptr, "");
  viv__free((void *)(uintptr_t)json.ptr);
  return t;
}

/* Ids of a JSON list; the caller frees. */
static int32_t *ids_of(const viv_json *list, size_t *n) {
  *n = (size_t)viv__json_count(list);
  int32_t *ids = malloc((*n + 1) * sizeof *ids);
  for (size_t i = 0; i < *n; i++)
    ids[i] = (int32_t)viv__json_number(viv__json_item(list, (int64_t)i));
  return ids;
}

static void expect_ids(const viv__tokenizer *t, viv_str text, bool special, bool literal,
                       const viv_json *want) {
  size_t n, wanted_n;
  int32_t *ids, *wanted = ids_of(want, &wanted_n);
  cr_assert_eq(viv__tokenizer_encode(t, text, special, literal, &ids, &n, NULL), VIV_OK);
  cr_expect_eq(n, wanted_n, "\"%s\": %zu ids, expected %zu", text.ptr, n, wanted_n);
  for (size_t i = 0; i < n && i < wanted_n; i++)
    cr_expect_eq(ids[i], wanted[i], "\"%s\": id %zu is %d, expected %d", text.ptr, i, ids[i],
                 wanted[i]);
  viv__free(ids);
  free(wanted);
}

static void expect_text(const viv__tokenizer *t, const int32_t *ids, size_t n, bool skip,
                        const char *want) {
  char *text;
  size_t len;
  cr_assert_eq(viv__tokenizer_decode(t, ids, n, skip, &text, &len, NULL), VIV_OK);
  cr_expect_str_eq(text, want);
  cr_expect_eq(len, strlen(want));
  viv__free(text);
}

/* The parts of a stream joined; viv__buf_free. */
static viv__buf stream(const viv__tokenizer *t, const int32_t *ids, size_t n, bool skip) {
  viv__buf joined = {0};
  viv_str part;
  viv__detokenizer *d = viv__detokenizer_new(t, skip);
  cr_assert_not_null(d);
  viv__buf_str(&joined, "");
  for (size_t i = 0; i < n; i++) {
    cr_assert_eq(viv__detokenizer_add(d, ids[i], &part), VIV_OK);
    cr_expect(viv__utf8_valid(part.ptr, part.len));
    viv__buf_add(&joined, part.ptr, part.len);
  }
  cr_assert_eq(viv__detokenizer_finish(d, &part), VIV_OK);
  viv__buf_add(&joined, part.ptr, part.len);
  viv__detokenizer_free(d);
  return joined;
}

/* Whether a stream of the ids gives what decode() gives. */
static bool stream_agrees(const viv__tokenizer *t, const int32_t *ids, size_t n, bool skip) {
  char *text;
  size_t len;
  cr_assert_eq(viv__tokenizer_decode(t, ids, n, skip, &text, &len, NULL), VIV_OK);
  viv__buf joined = stream(t, ids, n, skip);
  bool same = joined.len == len && (!len || !memcmp(joined.ptr, text, len));
  viv__buf_free(&joined);
  viv__free(text);
  return same;
}

static void check_cases(const char *name) {
  char file[64];
  snprintf(file, sizeof file, "%s.cases.json", name);
  viv_str json = read_data(file);
  viv_json *cases = parse(json);
  viv__tokenizer *t = open_data(name);
  for (int64_t i = 0, n = viv__json_count(cases); i < n; i++) {
    const viv_json *c = viv__json_item(cases, i), *list = viv__json_get(c, "ids");
    expect_ids(t, viv__str(viv__json_text(c, "text", "")), viv__json_bool(c, "special", false),
               viv__json_bool(c, "parse", false), list);
    size_t count;
    int32_t *ids = ids_of(list, &count);
    expect_text(t, ids, count, false, viv__json_text(c, "decoded", ""));
    expect_text(t, ids, count, true, viv__json_text(c, "skipped", ""));
    cr_expect(stream_agrees(t, ids, count, true));
    free(ids);
  }
  viv__tokenizer_close(t);
  viv__json_free(cases);
  viv__free((void *)(uintptr_t)json.ptr);
}

Test(tokenizer, gpt2) {
  check_cases("gpt2");
}
Test(tokenizer, starcoder) {
  check_cases("starcoder");
}
Test(tokenizer, cl100k) {
  check_cases("cl100k");
}
Test(tokenizer, o200k) {
  check_cases("o200k");
}
Test(tokenizer, qwen2) {
  check_cases("qwen2");
}
Test(tokenizer, roberta) {
  check_cases("roberta");
}
Test(tokenizer, llama2) {
  check_cases("llama2");
}
Test(tokenizer, mistral) {
  check_cases("mistral");
}
Test(tokenizer, unk) {
  check_cases("unk");
}
Test(tokenizer, unk_fused) {
  check_cases("unk-fused");
}

Test(tokenizer, stories260K) {
  viv_str json = read_data("stories260K.cases.json");
  viv_json *golden = parse(json);
  viv__tokenizer *t = open_data("stories260K");
  static const char *const lists[] = {"encode", "special"};
  for (int k = 0; k < 2; k++) {
    const viv_json *list = viv__json_get(golden, lists[k]);
    for (int64_t i = 0, n = viv__json_count(list); i < n; i++) {
      const viv_json *c = viv__json_item(list, i);
      expect_ids(t, viv__str(viv__json_text(c, "text", "")), true, true, viv__json_get(c, "ids"));
      if (!k) continue;
      size_t count;
      int32_t *ids = ids_of(viv__json_get(c, "ids"), &count);
      expect_text(t, ids, count, true, viv__json_text(c, "decoded", ""));
      expect_text(t, ids, count, false, viv__json_text(c, "decoded_with_special", ""));
      free(ids);
    }
  }
  const viv_json *streams = viv__json_get(golden, "stream");
  for (int64_t i = 0, n = viv__json_count(streams); i < n; i++) {
    const viv_json *shown = viv__json_get(viv__json_item(streams, i), "shown");
    size_t count;
    int32_t *ids = ids_of(viv__json_get(viv__json_item(streams, i), "ids"), &count);
    viv__detokenizer *d = viv__detokenizer_new(t, true);
    viv__buf sofar = {0};
    for (size_t k = 0; k < count; k++) {
      viv_str part;
      cr_assert_eq(viv__detokenizer_add(d, ids[k], &part), VIV_OK);
      viv__buf_add(&sofar, part.ptr, part.len);
      cr_expect_str_eq(sofar.len ? sofar.ptr : "",
                       viv__json_string(viv__json_item(shown, (int64_t)k)).ptr);
    }
    viv__buf_free(&sofar);
    viv__detokenizer_free(d);
    free(ids);
  }
  viv__tokenizer_close(t);
  viv__json_free(golden);
  viv__free((void *)(uintptr_t)json.ptr);
}

/* Random ids, most of them halves of characters. */
Test(tokenizer, random_streams) {
  static const char *const names[] = {"gpt2", "o200k", "qwen2", "roberta", "unk", "unk-fused"};
  uint32_t random = 1;
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    viv__tokenizer *t = open_data(names[k]);
    for (int round = 0; round < 2000; round++) {
      int32_t ids[24];
      size_t n = 1 + (random >> 16) % 24;
      for (size_t i = 0; i < n; i++) {
        random = random * 1664525 + 1013904223;
        ids[i] = (int32_t)((random >> 8) % (uint32_t)(round & 1 ? 256 : viv__tokenizer_size(t)));
      }
      cr_expect(stream_agrees(t, ids, n, round & 2), "%s, round %d", names[k], round);
    }
    viv__tokenizer_close(t);
  }
}

static int32_t byte_id(const viv__tokenizer *t, unsigned byte) {
  char name[8];
  snprintf(name, sizeof name, "<0x%02X>", byte & 255u);
  return viv__tokenizer_id(t, name);
}

/* Runs of byte tokens that are whole characters, or that begin with what begins
 * no character, agree with decode(). */
Test(tokenizer, byte_fallback_streams) {
  viv__tokenizer *t = open_data("llama2");
  uint32_t random = 7;
  for (int round = 0; round < 2000; round++) {
    int32_t ids[64];
    size_t n = 0;
    while (n < 40) {
      random = random * 1664525 + 1013904223;
      uint32_t r = random >> 8;
      if (r % 3 == 0) {
        static const unsigned char emoji[] = {0xf0, 0x9f, 0x98, 0x80};
        for (int i = 0; i < 4; i++) ids[n++] = byte_id(t, emoji[i]);
      } else if (r % 3 == 1) {
        ids[n++] = viv__tokenizer_id(t, "e");
        ids[n++] = byte_id(t, 0x80 | (r >> 4 & 63));
        for (unsigned i = 0; i < r % 5; i++) ids[n++] = byte_id(t, r >> (4 * i));
      }
      ids[n++] = viv__tokenizer_id(t, r & 64 ? "\xe2\x96\x81" : "e");
    }
    cr_expect(stream_agrees(t, ids, n, true), "round %d", round);
  }
  viv__tokenizer_close(t);
}

/* What is complete is shown at once; a run that turns out invalid can't be
 * taken back, and the stream goes on. */
Test(tokenizer, byte_fallback_shows_at_once) {
  viv__tokenizer *t = open_data("llama2");
  viv__detokenizer *d = viv__detokenizer_new(t, true);
  viv_str part;
  viv__detokenizer_add(d, byte_id(t, 0xc3), &part);
  cr_expect_eq(part.len, 0);
  viv__detokenizer_add(d, byte_id(t, 0xa9), &part);
  cr_expect(viv__str_eq(part, "\xc3\xa9"));
  viv__detokenizer_add(d, byte_id(t, 0xff), &part);
  cr_expect_eq(part.len, 0);
  viv__detokenizer_finish(d, &part);
  cr_expect(viv__str_eq(part, "\xef\xbf\xbd"));
  cr_expect_eq(viv__detokenizer_add(d, 1 << 20, &part), VIV_BAD_INPUT);
  viv__detokenizer_free(d);
  viv__tokenizer_close(t);
}

#define HEAD                                                                                       \
  "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},"                             \
  "\"merges\":[\"a b\"]}"

Test(tokenizer, small_questions) {
  viv__tokenizer *t =
      open_text(HEAD ",\"added_tokens\":[{\"id\":3,\"content\":\"<x>\",\"special\":true}]}", "");
  cr_expect_eq(viv__tokenizer_size(t), 4);
  cr_expect_eq(viv__tokenizer_id(t, "<x>"), 3);
  cr_expect_eq(viv__tokenizer_id(t, "ab"), 2);
  cr_expect_eq(viv__tokenizer_id(t, "zz"), -1);
  cr_expect(viv__tokenizer_is_special(t, 3));
  cr_expect_not(viv__tokenizer_is_special(t, 2));
  cr_expect_not(viv__tokenizer_is_special(t, 5));
  int32_t *ids, five = 5;
  size_t n;
  char *text;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__tokenizer_encode(t, viv__str("<x>ab"), false, true, &ids, &n, NULL), VIV_OK);
  cr_expect(n == 2 && ids[0] == 3 && ids[1] == 2);
  viv__free(ids);
  /* Not parsed, the special token is text, and these characters have no token.
   */
  cr_assert_eq(viv__tokenizer_encode(t, viv__str("<x>ab"), false, false, &ids, &n, NULL), VIV_OK);
  cr_expect(n == 1 && ids[0] == 2);
  viv__free(ids);
  cr_expect_eq(viv__tokenizer_encode(t, viv__str("ab\xff"), false, true, &ids, &n, &error),
               VIV_BAD_INPUT);
  cr_expect_not_null(strstr(error.message, "byte 2"));
  cr_expect_eq(viv__tokenizer_decode(t, &five, 1, false, &text, &n, &error), VIV_BAD_INPUT);
  cr_expect_not_null(strstr(error.message, "id 5"));
  viv__tokenizer_close(t);
}

/* As in the library tokens that the vocabulary lacks are numbered from its end
 * on. */
Test(tokenizer, added_ids) {
  viv__tokenizer *t =
      open_text(HEAD ",\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"},"
                     "{\"id\":7,\"content\":\"ab\"},{\"id\":1,\"content\":\"<y>\"}]}",
                "");
  cr_expect_eq(viv__tokenizer_id(t, "<x>"), 3);
  cr_expect_eq(viv__tokenizer_id(t, "ab"), 2);
  cr_expect_eq(viv__tokenizer_id(t, "<y>"), 4);
  viv__tokenizer_close(t);
}

Test(tokenizer, config_rebuilds_the_template) {
  static const char json[] =
      HEAD ",\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true}]}";
  viv__tokenizer *t =
      open_text(json, "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":true,"
                      "\"bos_token\":{\"content\":\"<s>\"}}");
  int32_t *ids;
  size_t n;
  cr_assert_eq(viv__tokenizer_encode(t, viv__str("ab"), true, true, &ids, &n, NULL), VIV_OK);
  cr_expect(n == 2 && ids[0] == 3 && ids[1] == 2);
  viv__free(ids);
  viv__tokenizer_close(t);
}

#define UNIGRAM "{\"model\":{\"type\":\"Unigram\","
#define WORDPIECE "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\","

/* Every refusal names what it refuses, and the section in which it stands. */
Test(tokenizer, refusals) {
  static const struct {
    const char *json, *where, *names;
    int32_t status;
  } files[] = {
      {"", "tokenizer.json", "JSON", VIV_BAD_INPUT},
      {"[]", "tokenizer.json", "object", VIV_BAD_INPUT},
      {"{}", "tokenizer.json", "model", VIV_BAD_INPUT},
      {"{\"version\":\"2.0\"}", "tokenizer.json", "2.0", VIV_NEVER},
      {"{\"a\":\"\xff\"}", "tokenizer.json", "UTF-8 at byte 6", VIV_BAD_INPUT},
      {"{\"model\":{\"type\":\"Nope\"}}", "model", "Nope", VIV_NEVER},
      {UNIGRAM "\"vocab\":{}}}", "model", "vocab", VIV_BAD_INPUT},
      {UNIGRAM "\"vocab\":[[\"a\"]]}}", "model", "entry 0", VIV_BAD_INPUT},
      {UNIGRAM "\"vocab\":[[\"a\",-1]],\"unk_id\":1}}", "model", "unk_id", VIV_BAD_INPUT},
      {WORDPIECE "\"vocab\":{}}}", "model", "continuing_subword_prefix", VIV_BAD_INPUT},
      {WORDPIECE "\"continuing_subword_prefix\":\"##\",\"vocab\":{}}}", "model",
       "max_input_chars_per_word", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":[],\"merges\":[]}}", "model", "vocab", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "model", "\"a\"", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", "model", "\"a\"", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":4000000},\"merges\":[]}}", "tokenizer.json", "sparse",
       VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a z\"]}}", "model", "\"z\"", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}", "model", "\"aa\"", VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "model", "two tokens",
       VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\",\"a\",\"a\"]]}}", "model", "merge 0",
       VIV_BAD_INPUT},
      {"{\"model\":{\"vocab\":{},\"merges\":[],\"dropout\":0.1}}", "model", "dropout", VIV_NEVER},
      {HEAD ",\"normalizer\":{\"type\":\"Nope\"}}", "normalizer", "Nope", VIV_NEVER},
      {HEAD ",\"normalizer\":{\"type\":\"Strip\"}}", "normalizer", "strip_left", VIV_BAD_INPUT},
      {HEAD ",\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_"
            "charsmap\":\"@\"}}",
       "normalizer", "base64 at byte 0", VIV_BAD_INPUT},
      {HEAD ",\"pre_tokenizer\":{\"type\":\"Nope\"}}", "pre_tokenizer", "Nope", VIV_NEVER},
      {HEAD ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(x\"},"
            "\"behavior\":\"Isolated\",\"invert\":false}}",
       "pre_tokenizer", "(x", VIV_NEVER},
      {HEAD ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"["
            "a&&b]\"},"
            "\"behavior\":\"Isolated\",\"invert\":false}}",
       "pre_tokenizer", "&& in a set is not supported at byte 2", VIV_NEVER},
      {HEAD ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
            "\"behavior\":\"Sideways\"}}",
       "pre_tokenizer", "Sideways", VIV_BAD_INPUT},
      {HEAD ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"ab\"}}", "pre_tokenizer",
       "one character", VIV_BAD_INPUT},
      {HEAD ",\"decoder\":{\"type\":\"CTC\"}}", "decoder", "pad_token", VIV_BAD_INPUT},
      {HEAD ",\"post_processor\":{\"type\":\"Nope\"}}", "post_processor", "Nope", VIV_NEVER},
      {HEAD ",\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",99],"
            "\"sep\":[\"x\",0]}}",
       "post_processor", "99", VIV_BAD_INPUT},
      {HEAD ",\"added_tokens\":{}}", "tokenizer.json", "added_tokens", VIV_BAD_INPUT},
      {HEAD ",\"added_tokens\":[{\"content\":\"x\"}]}", "added_tokens, entry 0", "\"id\"",
       VIV_BAD_INPUT},
      {HEAD ",\"truncation\":{\"max_length\":-1}}", "truncation", "max_length", VIV_BAD_INPUT},
      {HEAD ",\"padding\":{\"strategy\":{\"Fixed\":1e12}}}", "padding", "Fixed", VIV_BAD_INPUT},
  };
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    viv__tokenizer *t = NULL;
    viv_error error = VIV_ERROR_INIT;
    int32_t status = viv__tokenizer_open(viv__str(files[i].json), viv__str(""), &t, &error);
    cr_expect_eq(status, files[i].status, "%s: %d %s", files[i].json, status, error.message);
    cr_expect(strstr(error.message, files[i].names), "%s: %s", files[i].json, error.message);
    cr_expect(strstr(error.where, files[i].where), "%s: %s", files[i].json, error.where);
    cr_expect_null(t);
  }
}

/* A text of one piece, whose merges would take years one by one. */
Test(tokenizer, long_piece, .timeout = 20) {
  viv__tokenizer *t = open_text(HEAD "}", "");
  enum { N = 1000000 };
  char *text = malloc(2 * N);
  for (size_t i = 0; i < 2 * N; i++) text[i] = i & 1 ? 'b' : 'a';
  int32_t *ids;
  size_t n;
  cr_assert_eq(viv__tokenizer_encode(t, (viv_str){text, 2 * N}, true, true, &ids, &n, NULL),
               VIV_OK);
  cr_expect_eq(n, N);
  viv__free(ids);
  free(text);
  viv__tokenizer_close(t);
}

/* Open, encode, stream with the k-th allocation failing: an answer of NOT_NOW,
 * or all is done. */
static int32_t whole_way(viv_str json) {
  viv__tokenizer *t = NULL;
  int32_t *ids = NULL;
  size_t n = 0;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__tokenizer_open(json, viv__str(""), &t, &error);
  if (status < 0) return status;
  viv_str text = viv__str("<|im_start|>Cafe\xcc\x81 <think> the 12\n\n\xe4\xb8\xad");
  status = viv__tokenizer_encode(t, text, true, true, &ids, &n, &error);
  viv__detokenizer *d = status == VIV_OK ? viv__detokenizer_new(t, false) : NULL;
  if (status == VIV_OK && !d) status = VIV_NOT_NOW;
  viv_str part;
  for (size_t i = 0; i < n && status == VIV_OK; i++)
    status = viv__detokenizer_add(d, ids[i], &part);
  if (status == VIV_OK) status = viv__detokenizer_finish(d, &part);
  viv__detokenizer_free(d);
  char *all;
  if (status == VIV_OK) status = viv__tokenizer_decode(t, ids, n, true, &all, &n, &error);
  if (status == VIV_OK) viv__free(all);
  viv__free(ids);
  viv__tokenizer_close(t);
  return status;
}

static void fail_each(const char *name) {
  viv_str json = read_data(name);
  int32_t status = VIV_NOT_NOW;
  long k = 1;
  for (; status != VIV_OK && k < 100000; k++) {
    viv__fail_alloc(k);
    status = whole_way(json);
    cr_assert(status == VIV_OK || status == VIV_NOT_NOW, "allocation %ld: %d", k, status);
  }
  viv__fail_alloc(0);
  cr_expect_eq(status, VIV_OK);
  cr_expect_gt(k, 20);
  viv__free((void *)(uintptr_t)json.ptr);
}

Test(tokenizer, every_allocation_fails_once) {
  fail_each("qwen2.json");
  fail_each("llama2.json");
}
