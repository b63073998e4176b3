/* The ground the host stands on: texts, buffers, arenas, JSON, files. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"

Test(base, utf8_is_cut_at_whole_characters) {
  cr_assert_eq(viv__utf8_whole("a\xc3\xa4", 3), 3);
  cr_assert_eq(viv__utf8_whole("a\xc3", 2), 1);
  cr_assert_eq(viv__utf8_whole("\xf0\x9f\x99\x82x", 5), 5);
  cr_assert_eq(viv__utf8_whole("\xf0\x9f\x99", 3), 0);
  const char *bad[] = {"\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80",
                       "\x80",     "\xe0\x80\x80", "\xff"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    cr_assert_not(viv__utf8_valid(bad[i], strlen(bad[i])), "bad text %zu was taken", i);
}

Test(base, errors_are_cut_at_a_character_and_name_the_place) {
  char longer[2000];
  viv_error e = VIV_ERROR_INIT;
  memset(longer, 0, sizeof longer);
  for (int i = 0; i + 2 < (int)sizeof longer; i += 2) memcpy(longer + i, "\xc3\xa4", 2);
  cr_assert_eq(VIV_FAIL(&e, VIV_BAD_INPUT, longer, "x%s", longer), VIV_BAD_INPUT);
  cr_assert(viv__utf8_valid(e.message, strlen(e.message)));
  cr_assert(viv__utf8_valid(e.where, strlen(e.where)));
  cr_assert_eq(e.code, VIV_BAD_INPUT);
  cr_assert(strstr(e.source, "test_base.c"));
  viv_error older = {.struct_size = 8}; /* a caller whose struct ends before the texts */
  VIV_FAIL(&older, VIV_NEVER, "x", "y");
  cr_assert_eq(older.message[0], 0);
  cr_assert_eq(VIV_FAIL(NULL, VIV_NEVER, "x", "y"), VIV_NEVER);
}

Test(base, globs) {
  cr_assert(viv__glob("layer.*", viv__str("layer.3.mixer")));
  cr_assert(viv__glob("*.mixer", viv__str("layer.3.mixer")));
  cr_assert(viv__glob("layer.?", viv__str("layer.3")));
  cr_assert_not(viv__glob("layer.?", viv__str("layer.13")));
  cr_assert(viv__glob("a*b*c", viv__str("axxbyybzzc")));
  cr_assert_not(viv__glob("a*b*c", viv__str("axxbyybzz")));
  cr_assert(viv__glob("*", viv__str("")));
}

Test(base, an_arena_is_zeroed_aligned_and_limited) {
  viv_arena *a = viv__arena_new(1 << 20);
  for (int i = 1; i < 200; i++) {
    unsigned char *p = viv__arena_alloc(a, (uint64_t)i * 7);
    cr_assert_not_null(p);
    cr_assert_eq((uintptr_t)p % 64, 0);
    for (int k = 0; k < i * 7; k++) cr_assert_eq(p[k], 0);
    memset(p, 0xff, (size_t)i * 7);
  }
  cr_assert_null(viv__arena_alloc(a, 2 << 20));
  cr_assert_null(viv__arena_alloc(a, UINT64_MAX));
  viv__arena_reset(a);
  cr_assert_eq(viv__arena_used(a), 0);
  unsigned char *p = viv__arena_alloc(a, 5000);
  for (int k = 0; k < 5000; k++) cr_assert_eq(p[k], 0, "a reset arena is not zeroed");
  viv__arena_free(a);
}

Test(base, an_arena_of_large_pages_is_an_arena) {
  viv_arena *a = viv__arena_new(0);
  viv__arena_large_pages(a);
  for (int i = 0; i < 3; i++) {
    uint64_t bytes = i == 1 ? 9000001 : 100;
    unsigned char *p = viv__arena_alloc(a, bytes);
    cr_assert_not_null(p);
    cr_assert_eq((uintptr_t)p % 64, 0);
    for (uint64_t k = 0; k < bytes; k++) cr_assert_eq(p[k], 0);
    memset(p, 0xff, bytes);
  }
  cr_assert_null(viv__arena_alloc(a, UINT64_MAX));
  viv__arena_free(a);
}

Test(base, untrusted_json_is_refused_with_the_byte) {
  static const struct {
    const char *text, *word;
  } bad[] = {{"{\"a\":1} x", "byte 8"}, {"[1,2", "JSON"}, {"", "JSON"}, {"{\"a\":}", "JSON"}};
  viv_json *doc = NULL;
  viv_error e = VIV_ERROR_INIT;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    cr_assert_eq(viv__json_parse(bad[i].text, strlen(bad[i].text), "f", &doc, &e), VIV_BAD_INPUT);
    cr_assert(strstr(e.message, bad[i].word), "%s: %s", bad[i].text, e.message);
  }
  char deep[400];
  memset(deep, '[', sizeof deep);
  cr_assert_eq(viv__json_parse(deep, sizeof deep, "f", &doc, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "64 levels at byte 64"), "%s", e.message);
  cr_assert_eq(viv__json_parse("[1]\0[2]", 7, "f", &doc, &e), VIV_BAD_INPUT);
  cr_assert_eq(viv__json_parse(" {\"a\":[true,\"[[\"]} ", 19, "f", &doc, &e), VIV_OK);
  cr_assert_eq(viv__json_count(viv__json_get(doc, "a")), 2);
  cr_assert_eq(viv__json_type(viv__json_get(viv__json_get(doc, "no"), "way")), VIV_JSON_ABSENT);
  viv__json_free(doc);
}

Test(base, json_texts_round_trip) {
  viv__buf b = {0};
  viv_json *doc = NULL;
  const char text[] = "a\"b\\c\n\t\x01\xc3\xa4\x7f";
  viv__buf_json(&b, viv__str(text));
  cr_assert_eq(viv__json_parse(b.ptr, b.len, "f", &doc, NULL), VIV_OK);
  viv_str back = viv__json_string(doc);
  cr_assert_eq(back.len, sizeof text - 1);
  cr_assert_arr_eq(back.ptr, text, sizeof text - 1);
  viv__json_free(doc);
  viv__buf_free(&b);
}

Test(base, files_are_replaced_whole) {
  char path[] = "/tmp/viv-base-XXXXXX", hash[65], *data = NULL;
  size_t len = 0;
  viv_error e = VIV_ERROR_INIT;
  close(mkstemp(path));
  cr_assert_eq(viv__write_file(path, "abc", 3, &e), VIV_OK);
  cr_assert_eq(viv__read_file(path, 3, &data, &len, &e), VIV_OK);
  cr_assert_str_eq(data, "abc");
  viv__free(data);
  cr_assert_eq(viv__read_file(path, 2, &data, &len, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "limit of 2"), "%s", e.message);
  cr_assert_eq(viv__hash_file(path, hash, &e), VIV_OK);
  cr_assert_str_eq(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  unlink(path);
  cr_assert_eq(viv__read_file(path, 3, &data, &len, &e), VIV_NEVER);
  cr_assert_lt(viv__write_file("/no/such/folder/file", "x", 1, &e), 0);
  cr_assert(strstr(e.message, "No such file"), "%s", e.message);
}
