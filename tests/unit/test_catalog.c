/* zoo/catalog.json: complete, well typed, and true where that can be checked. */
#include <criterion/criterion.h>
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/base.h"

enum { SYSTEMS = 71, LIMIT = 4 << 20 };

static viv_json *catalog;

static void open_catalog(void) {
  viv_error error = VIV_ERROR_INIT;
  char *text = NULL;
  size_t len = 0;
  cr_assert_eq(viv__read_file("zoo/catalog.json", LIMIT, &text, &len, &error), VIV_OK, "%s",
               error.message);
  cr_assert_eq(viv__json_parse(text, len, "catalog.json", &catalog, &error), VIV_OK, "%s",
               error.message);
  viv__free(text);
}

static void close_catalog(void) {
  viv__json_free(catalog);
}

TestSuite(catalog, .init = open_catalog, .fini = close_catalog);

static bool exists(const char *path) {
  struct stat st;
  return !stat(path, &st);
}

static bool is_texts(const viv_json *list, bool may_be_empty) {
  if (viv__json_type(list) != VIV_JSON_ARRAY) return false;
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (!viv__json_string(viv__json_item(list, i)).len) return false;
  return may_be_empty || viv__json_count(list) > 0;
}

static void check_fields(const viv_json *row, const char *name) {
  static const char *const texts[] = {"system", "paper", "checkpoint", "state"};
  static const char *const lists[] = {"tasks", "plugin", "page"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    cr_expect_eq(viv__json_type(viv__json_get(row, texts[i])), VIV_JSON_STRING, "%s: \"%s\"", name,
                 texts[i]);
  for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
    cr_expect(is_texts(viv__json_get(row, lists[i]), false), "%s: \"%s\"", name, lists[i]);
  cr_expect(is_texts(viv__json_get(row, "golden"), true), "%s: \"golden\"", name);
  const char *state = viv__json_text(row, "state", "");
  cr_expect(!strcmp(state, "planned") || !strcmp(state, "runs") || !strcmp(state, "verified"),
            "%s: state \"%s\"", name, state);
}

/* Kept cases may hold 25 MB; what has no room is listed. */
static bool is_elsewhere(viv_str golden) {
  char *text = NULL;
  size_t len = 0;
  bool found = false;
  cr_assert_eq(viv__read_file("tests/goldens/elsewhere", LIMIT, &text, &len, NULL), VIV_OK);
  for (char *rest = text, *line; !found && (line = strsep(&rest, "\n"));)
    found = strlen(line) == golden.len && !memcmp(line, golden.ptr, golden.len);
  viv__free(text);
  return found;
}

/* What runs has a plugin; what is verified has golden cases, and the tests hold them. */
static void check_truth(const viv_json *row, const char *name) {
  const char *state = viv__json_text(row, "state", "");
  const viv_json *plugins = viv__json_get(row, "plugin"), *cases = viv__json_get(row, "golden");
  char path[512];
  if (!strcmp(state, "planned")) return;
  for (int64_t i = 0; i < viv__json_count(plugins); i++) {
    viv_str plugin = viv__json_string(viv__json_item(plugins, i));
    snprintf(path, sizeof path, "plugins/%.*s/manifest.json", (int)plugin.len, plugin.ptr);
    cr_expect(exists(path), "%s: %s is not there", name, path);
  }
  if (strcmp(state, "verified")) return;
  cr_expect(viv__json_count(cases) > 0, "%s: verified by no golden case", name);
  for (int64_t i = 0; i < viv__json_count(cases); i++) {
    viv_str golden = viv__json_string(viv__json_item(cases, i));
    snprintf(path, sizeof path, "tests/goldens/%.*s/meta.json", (int)golden.len, golden.ptr);
    bool kept = exists(path), listed = is_elsewhere(golden);
    cr_expect(kept || listed, "%s: %s is neither there nor listed in elsewhere", name, path);
    cr_expect(!(kept && listed), "%s: %s is there, and listed in elsewhere", name, path);
  }
}

static int64_t kept_bytes;

static int add_bytes(const char *path, const struct stat *st, int kind, struct FTW *at) {
  (void)path, (void)at;
  if (kind == FTW_F) kept_bytes += st->st_size;
  return 0;
}

Test(catalog, kept_golden_cases_stay_small) {
  cr_assert_eq(nftw("tests/goldens", add_bytes, 16, FTW_PHYS), 0);
  cr_expect_leq(kept_bytes, 25000000, "%lld bytes", (long long)kept_bytes);
}

Test(catalog, holds_each_system_once) {
  const viv_json *systems = viv__json_get(catalog, "systems");
  bool seen[SYSTEMS + 1] = {false};
  cr_assert_eq(viv__json_count(systems), SYSTEMS);
  for (int64_t i = 0; i < SYSTEMS; i++) {
    double number = viv__json_num(viv__json_item(systems, i), "number", 0);
    cr_assert(number >= 1 && number <= SYSTEMS && number == (int)number, "number %g", number);
    cr_expect_not(seen[(int)number], "number %g stands twice", number);
    seen[(int)number] = true;
  }
}

Test(catalog, fields_are_present_and_typed) {
  static const char *const sections[] = {"systems", "bases"};
  for (size_t s = 0; s < 2; s++) {
    const viv_json *rows = viv__json_get(catalog, sections[s]);
    cr_assert_gt(viv__json_count(rows), 0, "%s", sections[s]);
    for (int64_t i = 0; i < viv__json_count(rows); i++) {
      const viv_json *row = viv__json_item(rows, i);
      check_fields(row, viv__json_text(row, "system", "?"));
    }
  }
}

Test(catalog, states_are_true) {
  static const char *const sections[] = {"systems", "bases"};
  for (size_t s = 0; s < 2; s++) {
    const viv_json *rows = viv__json_get(catalog, sections[s]);
    for (int64_t i = 0; i < viv__json_count(rows); i++) {
      const viv_json *row = viv__json_item(rows, i);
      check_truth(row, viv__json_text(row, "system", "?"));
    }
  }
}

Test(catalog, sambay_and_llama_are_verified) {
  int found = 0;
  static const char *const sections[] = {"systems", "bases"};
  for (size_t s = 0; s < 2; s++) {
    const viv_json *rows = viv__json_get(catalog, sections[s]);
    for (int64_t i = 0; i < viv__json_count(rows); i++) {
      const viv_json *row = viv__json_item(rows, i);
      viv_str plugin = viv__json_string(viv__json_item(viv__json_get(row, "plugin"), 0));
      if (strcmp(viv__json_text(row, "state", ""), "verified")) continue;
      found += viv__str_eq(plugin, "sambay") || viv__str_eq(plugin, "llama");
    }
  }
  cr_assert_eq(found, 2);
}
