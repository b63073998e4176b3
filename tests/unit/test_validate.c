/* viv-validate must find each sin of tests/plugins, in the test that looks for it, and nothing in
 * the plugins that behave. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/base.h"

#ifndef VIV_TEST_BUILD
#define VIV_TEST_BUILD "build"
#endif

static const char *build(void) {
  const char *from = getenv("VIV_TEST_BUILD");
  return from ? from : VIV_TEST_BUILD;
}

/* Runs the validator; answers its exit status and its JSON. */
static int run(const char *plugin, const char *options, viv_json **out) {
  char command[1024];
  viv__buf text = {0};
  char chunk[4096];
  size_t n;
  snprintf(command, sizeof command, "%s/viv-validate --json %s %s/%s.so", build(), options, build(),
           plugin);
  FILE *pipe = popen(command, "r");
  cr_assert(pipe != NULL);
  while ((n = fread(chunk, 1, sizeof chunk, pipe)) > 0) viv__buf_add(&text, chunk, n);
  int status = pclose(pipe);
  cr_assert(WIFEXITED(status), "%s: status %x", command, status);
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__json_parse(text.ptr, text.len, command, out, &error), VIV_OK, "%s: %s", command,
               error.message);
  viv__buf_free(&text);
  return WEXITSTATUS(status);
}

static void passes(const char *plugin, const char *options) {
  viv_json *doc = NULL;
  int status = run(plugin, options, &doc);
  const viv_json *tests = viv__json_get(doc, "tests");
  for (int64_t i = 0; i < viv__json_count(tests); i++) {
    const viv_json *t = viv__json_item(tests, i);
    cr_expect(strcmp(viv__json_text(t, "result", ""), "fail"), "%s: %s: %s", plugin,
              viv__json_text(t, "name", ""), viv__json_text(t, "reason", ""));
  }
  cr_expect_eq(status, 0);
  viv__json_free(doc);
}

/* The test must fail, with these words in its reason. */
static void fails(const char *plugin, const char *test, const char *words) {
  viv_json *doc = NULL;
  char path[128], options[128];
  bool found = false;
  snprintf(path, sizeof path, "badplugins/%s", plugin);
  /* The plugins that hang do so for the whole limit: a fifth of it shows the same. */
  snprintf(options, sizeof options, "--test %s %s", test,
           strncmp(plugin, "hang", 4) ? "" : "--slower 0.2");
  int status = run(path, options, &doc);
  const viv_json *tests = viv__json_get(doc, "tests");
  for (int64_t i = 0; i < viv__json_count(tests); i++) {
    const viv_json *t = viv__json_item(tests, i);
    if (strcmp(viv__json_text(t, "name", ""), test)) continue;
    const char *reason = viv__json_text(t, "reason", "");
    found = true;
    cr_expect_str_eq(viv__json_text(t, "result", ""), "fail", "%s passes %s", plugin, test);
    cr_expect(strstr(reason, words), "%s: %s: expected \"%s\" in \"%s\"", plugin, test, words,
              reason);
  }
  cr_expect(found);
  cr_expect_eq(status, 1);
  viv__json_free(doc);
}

TestSuite(validate, .timeout = 120);

Test(validate, good_plugins_pass) {
  passes("badplugins/good", "");
  passes("badplugins/newer-minor", "");
  passes("badplugins/no-extensions", "");
}

Test(validate, museum_passes) {
  passes("museum/1.0-draft/identity", "");
  passes("museum/1.0-draft/counter", "");
  passes("museum/1.0-draft/argmax", "");
}

Test(validate, our_plugins_pass) {
  passes("plugins/llama", "--model tests/models/stories260K");
  passes("plugins/sambay", "--model zoo/models/sambay-reasoner");
  passes("plugins/strategies", "");
}

static const struct {
  const char *plugin, *test, *words;
} sins[] = {
    {"missing-entry", "exports", "does not export viv_plugin_entry"},
    {"wrong-thread", "imports", "pthread_create"},
    {"crash-scan", "loads", "in viv_plugin_entry"},
    {"hang-scan", "loads", "still running"},
    {"entry-null", "loads", "ABI 7.0 to 7.3"},
    {"older-struct", "table", "version 1 has"},
    {"wrong-major", "table", "ABI 2.0"},
    {"wrong-major", "host-other-major", "accepts a host"},
    {"needs-extensions", "no-extensions", "in open (no extensions)"},
    {"crash-open", "opens", "in open"},
    {"exits", "opens", "ended the process with status 0"},
    {"prints", "opens", "standard output"},
    {"touches-state", "opens", "changed the environment"},
    {"aborts", "job-runs", "in job_begin"},
    {"crash-step", "job-runs", "in job_step"},
    {"hang-step", "job-runs", "still running"},
    {"endless-events", "job-runs", "does not end"},
    {"bad-emit", "job-runs", "struct_size"},
    {"emits-nan", "job-runs", "NaN"},
    {"drops-events", "job-wait", "instead of WAIT"},
    {"overruns-output", "job-runs", "past the end"},
    {"wrong-thread", "job-runs", "job_emit from a thread"},
    {"ignores-cancel", "cancel-latency", "a cancel took"},
    {"leaks", "leaks", "more in use"},
};

Test(validate, every_sin_is_found) {
  for (size_t i = 0; i < sizeof sins / sizeof *sins; i++)
    fails(sins[i].plugin, sins[i].test, sins[i].words);
}

Test(validate, seeds_make_runs_repeatable) {
  viv_json *one = NULL;
  run("badplugins/good", "--seed 42 --test fuzz-config", &one);
  cr_expect_eq(viv__json_num(one, "seed", 0), 42);
  viv__json_free(one);
}

Test(validate, levels_limit_the_tests) {
  viv_json *doc = NULL;
  cr_expect_eq(run("badplugins/ignores-cancel", "--level 5", &doc), 0,
               "cancelling is a matter of level 7");
  const viv_json *tests = viv__json_get(doc, "tests");
  for (int64_t i = 0; i < viv__json_count(tests); i++)
    cr_expect_leq(viv__json_num(viv__json_item(tests, i), "level", 99), 5);
  viv__json_free(doc);
}

Test(validate, in_process_finds_the_same) {
  passes("badplugins/good", "--in-process");
}

Test(validate, wrong_command_lines_are_not_a_pass) {
  char command[512];
  const char *const lines[] = {"",
                               "''",
                               "/nonexistent.so",
                               "--level 11 x.so",
                               "--test nothing x.so",
                               "--no-such-option x.so"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    snprintf(command, sizeof command, "%s/viv-validate %s >/dev/null 2>&1", build(), lines[i]);
    int status = system(command);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 2, "\"%s\": %x", lines[i], status);
  }
}

/* A truncated or garbled shared object is read without trust. */
Test(validate, broken_files_are_refused) {
  char command[768];
  char dir[] = "/tmp/viv-validate-test-XXXXXX";
  cr_assert(mkdtemp(dir) != NULL);
  const int cuts[] = {0, 3, 63, 64, 500, 5000, 12000};
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
    snprintf(command, sizeof command,
             "head -c %d %s/badplugins/good.so > %s/cut.so; cp %s/badplugins/good.json %s/cut.json;"
             "%s/viv-validate --json --level 2 %s/cut.so > /dev/null 2>&1",
             cuts[i], build(), dir, build(), dir, build(), dir);
    int status = system(command);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 1, "%d bytes: %x", cuts[i], status);
  }
  snprintf(command, sizeof command, "rm -rf %s", dir);
  cr_expect(system(command) == 0);
}
