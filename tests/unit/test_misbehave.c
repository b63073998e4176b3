/* What the host does with plugins that break their promises: tests/plugins, one sin per folder.
 * What goes wrong before a job is refused with its reason; what kills the process in a job is not
 * for libvivarium to survive (vivd puts a process around it), so those tests let a child die. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vivarium/vivarium.h"

#ifndef VIV_TEST_BUILD
#define VIV_TEST_BUILD "build"
#endif

static char dir[] = "/tmp/viv-misbehave-XXXXXX"; /* cache, models and copies of a test */
static char text[1 << 16];
static viv_error error;

static const char *bad_folder(void) {
  const char *from = getenv("VIV_TEST_BAD");
  return from ? from : VIV_TEST_BUILD "/badplugins";
}

static void setup(void) {
  cr_assert(mkdtemp(dir) != NULL);
}

static void teardown(void) {
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", dir);
  cr_expect(system(command) == 0);
}

TestSuite(misbehave, .init = setup, .fini = teardown, .timeout = 60);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_ms(int ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000L}, NULL);
}

static void write_text(const char *path, const char *content) {
  FILE *f = fopen(path, "w");
  cr_assert(f && fputs(content, f) >= 0 && fclose(f) == 0, "%s: %s", path, strerror(errno));
}

static void copy_file(const char *from, const char *to) {
  char command[1024];
  snprintf(command, sizeof command, "cp %s %s", from, to);
  cr_assert(system(command) == 0, "%s", command);
}

/* A model directory whose model_type is served by that plugin alone. */
static const char *model_dir(const char *plugin) {
  static char path[256];
  char file[300], config[128];
  snprintf(path, sizeof path, "%s/model-%s", dir, plugin);
  mkdir(path, 0700);
  snprintf(file, sizeof file, "%s/config.json", path);
  snprintf(config, sizeof config, "{\"model_type\": \"test-%s\"}", plugin);
  write_text(file, config);
  return path;
}

static viv_runtime *open_host(const char *folder) {
  viv_runtime *rt = NULL;
  char cache[256];
  snprintf(cache, sizeof cache, "%s/cache", dir);
  int quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
  viv_options options = {.struct_size = sizeof options,
                         .threads = 1,
                         .plugin_path = folder,
                         .cache_dir = cache,
                         .log_fd = quiet};
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_eq(viv_open(&options, &rt, &error), VIV_OK, "%s", error.message);
  return rt;
}

/* The JSON of viv_why, in text. */
static const char *why(viv_runtime *rt, const char *plugin) {
  viv_text json = {0};
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_geq(viv_why(rt, model_dir(plugin), &json, &error), 0, "%s", error.message);
  snprintf(text, sizeof text, "%.*s", (int)json.len, json.ptr);
  viv_text_free(&json);
  return text;
}

static int32_t load(viv_runtime *rt, const char *plugin, viv_model **out) {
  error = (viv_error){.struct_size = sizeof error};
  return viv_load(rt, model_dir(plugin), NULL, out, &error);
}

static const float numbers[6] = {1, 2, 3, -4, 5.5f, 0};

static viv_job *submit(viv_model *model, int64_t max_queued) {
  viv_job *job = NULL;
  viv_tensor x = {.struct_size = sizeof x,
                  .data = (void *)(uintptr_t)numbers,
                  .bytes = sizeof numbers,
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {2, 3}};
  viv_value value = {
      .struct_size = sizeof value, .kind = VIV_KIND_TENSOR, .name = {"x", 1}, .tensor = &x};
  const viv_value *inputs[] = {&value};
  viv_request request = {.struct_size = sizeof request,
                         .n_inputs = 1,
                         .task = "forward",
                         .inputs = inputs,
                         .max_queued_events = max_queued};
  error = (viv_error){.struct_size = sizeof error};
  cr_assert_eq(viv_submit(model, &request, &job, &error), VIV_OK, "%s", error.message);
  return job;
}

/* Pulls to the end; answers END's status. tensors counts those equal to the input. */
static int32_t drain(viv_job *job, int *tensors) {
  viv_event event = {.struct_size = sizeof event};
  *tensors = 0;
  for (;;) {
    int32_t status = viv_next_event(job, 20000, &event);
    cr_assert_eq(status, VIV_OK, "no event within 20 s (status %d)", status);
    if (event.kind == VIV_KIND_TENSOR && event.tensor->bytes == sizeof numbers &&
        !memcmp(event.tensor->data, numbers, sizeof numbers))
      ++*tensors;
    if (event.flags & VIV_EVENT_FINAL) {
      cr_assert_eq(event.kind, VIV_KIND_END);
      return event.status;
    }
  }
}

/* A whole round with a plugin that works. */
static void works(viv_runtime *rt, const char *plugin) {
  viv_model *model = NULL;
  int tensors;
  cr_assert_eq(load(rt, plugin, &model), VIV_OK, "%s: %s", plugin, error.message);
  viv_job *job = submit(model, 0);
  cr_assert_eq(drain(job, &tensors), VIV_OK);
  cr_assert_eq(tensors, 1);
  viv_job_free(job);
  viv_unload(model);
}

/* ---- good ones ---- */

Test(misbehave, good_works) {
  viv_runtime *rt = open_host(bad_folder());
  works(rt, "good");
  cr_assert(strstr(why(rt, "good"), "\"taken\":true"), "%s", text);
  viv_close(rt);
}

Test(misbehave, newer_minor_with_longer_structs_works) {
  viv_runtime *rt = open_host(bad_folder());
  works(rt, "newer-minor");
  viv_close(rt);
}

Test(misbehave, extensions_are_offered) {
  viv_runtime *rt = open_host(bad_folder());
  works(rt, "no-extensions");
  works(rt, "needs-extensions");
  viv_close(rt);
}

/* ---- refused, with the reason ---- */

static void refused(const char *plugin, const char *reason) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  cr_assert_lt(load(rt, plugin, &model), 0, "%s was loaded", plugin);
  cr_expect(model == NULL);
  cr_expect(strstr(error.message, reason), "viv_load says \"%s\", not \"%s\"", error.message,
            reason);
  cr_expect(strstr(why(rt, plugin), reason), "viv_why does not say \"%s\": %s", reason, text);
  works(rt, "good"); /* the others are not harmed */
  viv_close(rt);
}

Test(misbehave, wrong_major_is_refused) {
  refused("wrong-major", "answered with ABI 2.0");
}

Test(misbehave, older_struct_is_refused) {
  refused("older-struct", "shorter than version 1");
}

Test(misbehave, missing_entry_is_refused) {
  refused("missing-entry", "viv_plugin_entry");
}

Test(misbehave, the_plugins_own_refusal_is_told) {
  refused("entry-null", "ABI 7.0 to 7.3");
}

Test(misbehave, crash_in_scan_is_caught) {
  refused("crash-scan", "while it was loaded");
}

Test(misbehave, hang_in_scan_is_caught_once) {
  double start = now();
  refused("hang-scan", "hung");
  cr_expect_lt(now() - start, 15, "the scan's limit is 5 s");
  /* The quarantine is remembered: a new runtime does not run it again. */
  start = now();
  refused("hang-scan", "quarantined");
  cr_expect_lt(now() - start, 3, "a quarantined plugin was run again");
}

Test(misbehave, a_changed_file_leaves_quarantine) {
  char folder[64], from[512], so[512], json[512];
  snprintf(folder, sizeof folder, "%s/plugins", dir);
  mkdir(folder, 0700);
  snprintf(so, sizeof so, "%s/crash-scan.so", folder);
  snprintf(json, sizeof json, "%s/crash-scan.json", folder);
  snprintf(from, sizeof from, "%s/crash-scan.json", bad_folder());
  copy_file(from, json);
  snprintf(from, sizeof from, "%s/crash-scan.so", bad_folder());
  copy_file(from, so);
  viv_runtime *rt = open_host(folder);
  cr_expect(strstr(why(rt, "crash-scan"), "while it was loaded"), "%s", text);
  viv_close(rt);
  rt = open_host(folder);
  cr_expect(strstr(why(rt, "crash-scan"), "quarantined"), "%s", text);
  viv_close(rt);
  /* Another content is another plugin: it is tried, and refused for a reason of its own. */
  unlink(so);
  snprintf(from, sizeof from, "%s/wrong-major.so", bad_folder());
  copy_file(from, so);
  rt = open_host(folder);
  cr_expect(!strstr(why(rt, "crash-scan"), "quarantined"), "%s", text);
  cr_expect(strstr(text, "ABI 2.0"), "%s", text);
  viv_close(rt);
}

/* ---- manifests ---- */

static void manifest_refused(const char *manifest, int with_so, int mode, const char *reason) {
  char folder[64], from[512], so[128], json[128];
  snprintf(folder, sizeof folder, "%s/plugins", dir);
  mkdir(folder, 0700);
  snprintf(so, sizeof so, "%s/good.so", folder);
  snprintf(json, sizeof json, "%s/good.json", folder);
  write_text(json, manifest);
  if (with_so) {
    snprintf(from, sizeof from, "%s/good.so", bad_folder());
    copy_file(from, so);
    cr_assert_eq(chmod(so, (mode_t)mode), 0);
  }
  viv_runtime *rt = open_host(folder);
  viv_model *model = NULL;
  cr_expect_lt(load(rt, "good", &model), 0);
  cr_expect(strstr(why(rt, "good"), reason), "expected \"%s\": %s", reason, text);
  viv_close(rt);
}

#define MANIFEST(id, abi, cpu)                                                                     \
  "{\"id\":" id ",\"version\":\"1\",\"abi\":" abi ",\"kind\":\"model\","                           \
  "\"interfaces\":[\"viv.model/1\"],\"model_types\":[\"test-good\"],\"architectures\":[],"         \
  "\"tasks\":[\"forward\"],\"cpu\":" cpu ",\"batch\":false,\"cancel_latency_ms\":50,"              \
  "\"license\":\"MIT\"}"

Test(misbehave, manifest_of_another_major) {
  manifest_refused(MANIFEST("\"good\"", "{\"major\":2,\"minor\":0}", "[]"), 1, 0755, "major 2");
}

Test(misbehave, manifest_without_id) {
  manifest_refused(MANIFEST("17", "{\"major\":1,\"minor\":0}", "[]"), 1, 0755, "\\\"id\\\"");
}

Test(misbehave, manifest_that_is_no_json) {
  manifest_refused("{\"id\": ", 1, 0755, "not valid JSON");
}

Test(misbehave, manifest_without_shared_object) {
  manifest_refused(MANIFEST("\"good\"", "{\"major\":1,\"minor\":0}", "[]"), 0, 0,
                   "no shared object");
}

Test(misbehave, manifest_wants_a_processor_feature) {
  manifest_refused(MANIFEST("\"good\"", "{\"major\":1,\"minor\":0}", "[\"warp9\"]"), 1, 0755,
                   "warp9");
}

Test(misbehave, manifest_and_binary_disagree) {
  manifest_refused(MANIFEST("\"other\"", "{\"major\":1,\"minor\":0}", "[]"), 1, 0755,
                   "the manifest says");
}

/* A manifest may carry the hash of the object that it was made for. */
Test(misbehave, manifest_of_another_build) {
  manifest_refused("{\"id\":\"good\",\"version\":\"1\",\"abi\":{\"major\":1,\"minor\":0},"
                   "\"interfaces\":[\"viv.model/1\"],\"model_types\":[\"test-good\"],"
                   "\"sha256\":\"00000000000000000000000000000000\"}",
                   1, 0755, "signature");
}

Test(misbehave, file_that_anybody_may_write) {
  manifest_refused(MANIFEST("\"good\"", "{\"major\":1,\"minor\":0}", "[]"), 1, 0777, "write");
}

/* ---- misbehaving in a job, survivably ---- */

Test(misbehave, bad_events_are_not_taken) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  viv_event event = {.struct_size = sizeof event};
  cr_assert_eq(load(rt, "bad-emit", &model), VIV_OK, "%s", error.message);
  viv_job *job = submit(model, 0);
  int counted = 0;
  while (viv_next_event(job, 10000, &event) == VIV_OK && event.kind != VIV_KIND_END) {
    cr_expect(event.name.len != 3 || memcmp(event.name.ptr, "bad", 3), "a bad event came through");
    if (event.kind != VIV_KIND_TEXT) continue;
    counted++;
    cr_expect(event.bytes.len == 1 && event.bytes.ptr[0] == '0', "%.*s of 8 bad events were taken",
              (int)event.bytes.len, event.bytes.ptr);
  }
  /* Going on after a BUG answer is allowed; failing the job for it is, too. */
  cr_expect(counted == 1 || event.status == VIV_BUG, "END says %d", event.status);
  viv_job_free(job);
  viv_unload(model);
  viv_close(rt);
}

Test(misbehave, emit_from_a_thread_of_its_own_is_a_bug) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  int tensors;
  cr_assert_eq(load(rt, "wrong-thread", &model), VIV_OK, "%s", error.message);
  viv_job *job = submit(model, 0);
  cr_expect_eq(drain(job, &tensors), VIV_BUG);
  cr_expect_eq(tensors, 0);
  viv_job_free(job);
  viv_unload(model);
  viv_close(rt);
}

Test(misbehave, endless_events_are_bounded_and_cancelled) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  viv_event event = {.struct_size = sizeof event};
  int tensors;
  cr_assert_eq(load(rt, "endless-events", &model), VIV_OK, "%s", error.message);
  viv_job *job = submit(model, 8);
  for (uint64_t i = 0; i < 100; i++) {
    cr_assert_eq(viv_next_event(job, 10000, &event), VIV_OK);
    cr_assert_eq(event.seq, i);
  }
  pause_ms(200); /* nobody reads: the queue fills and the job waits */
  viv_job_cancel(job);
  cr_expect_eq(drain(job, &tensors), VIV_CANCELLED);
  cr_expect_leq(tensors, 9, "%d events were queued for a consumer that did not read", tensors);
  viv_job_free(job);
  works(rt, "good");
  viv_unload(model);
  viv_close(rt);
}

Test(misbehave, endless_job_is_ended_by_free) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  cr_assert_eq(load(rt, "endless-events", &model), VIV_OK, "%s", error.message);
  viv_job_free(submit(model, 8));
  viv_unload(model);
  viv_close(rt);
}

Test(misbehave, ignoring_a_cancel_harms_nobody_else) {
  viv_runtime *rt = open_host(bad_folder());
  viv_model *model = NULL;
  int tensors;
  cr_assert_eq(load(rt, "ignores-cancel", &model), VIV_OK, "%s", error.message);
  double start = now();
  viv_job *job = submit(model, 0);
  pause_ms(100);
  viv_job_cancel(job);
  works(rt, "good");
  viv_event
      event; /* END has not come: neither the cancel nor the other model's job waited for it */
  cr_expect_eq(viv_next_event(job, 0, &event), VIV_WAIT);
  cr_expect_eq(drain(job, &tensors), VIV_CANCELLED);
  cr_expect_gt(now() - start, 1.0);
  viv_job_free(job);
  viv_unload(model);
  viv_close(rt);
}

Test(misbehave, leaks_and_prints_still_work) {
  int saved = dup(1), null = open("/dev/null", O_WRONLY);
  dup2(null, 1);
  viv_runtime *rt = open_host(bad_folder());
  works(rt, "leaks");
  works(rt, "prints");
  viv_close(rt);
  dup2(saved, 1);
}

/* ---- misbehaving fatally: the death must be the plugin's own ---- */

enum { SURVIVED = 77 };

/* Runs a job of the plugin in a child; answers how the child ended. */
static int child_status(const char *plugin, int with_job) {
  char path[256];
  snprintf(path, sizeof path, "%s", model_dir(plugin));
  pid_t child = fork();
  cr_assert_geq(child, 0);
  if (child == 0) {
    alarm(30);
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    viv_runtime *rt = open_host(bad_folder());
    viv_model *model = NULL;
    int tensors;
    if (viv_load(rt, path, NULL, &model, &error) < 0) _exit(78);
    if (!with_job) _exit(SURVIVED);
    viv_job *job = submit(model, 0);
    drain(job, &tensors);
    viv_job_free(job);
    viv_unload(model);
    viv_close(rt);
    _exit(SURVIVED);
  }
  int status = 0;
  cr_assert_eq(waitpid(child, &status, 0), child);
  return status;
}

/* A sanitizer turns the signal into an exit of its own. */
static int died_of(int status, int signal_number) {
  if (WIFSIGNALED(status)) return WTERMSIG(status) == signal_number;
  return WIFEXITED(status) && WEXITSTATUS(status) != SURVIVED && WEXITSTATUS(status) != 78 &&
         WEXITSTATUS(status) != 0;
}

Test(misbehave, crash_in_open_is_the_plugins) {
  int status = child_status("crash-open", 0);
  cr_expect(died_of(status, SIGSEGV), "status %x", status);
}

Test(misbehave, crash_in_step_is_the_plugins) {
  int status = child_status("crash-step", 1);
  cr_expect(died_of(status, SIGSEGV), "status %x", status);
}

Test(misbehave, abort_is_the_plugins) {
  int status = child_status("aborts", 1);
  cr_expect(died_of(status, SIGABRT), "status %x", status);
}

Test(misbehave, exit_in_open_is_the_plugins) {
  int status = child_status("exits", 1);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

Test(misbehave, overrun_does_not_hang_the_host) {
  int status = child_status("overruns-output", 1);
  cr_expect(!(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM), "the host hung");
}

Test(misbehave, hang_in_step_leaves_the_rest_alive) {
  char path[256];
  snprintf(path, sizeof path, "%s", model_dir("hang-step"));
  pid_t child = fork();
  cr_assert_geq(child, 0);
  if (child == 0) {
    alarm(30);
    viv_runtime *rt = open_host(bad_folder());
    viv_model *model = NULL;
    viv_event event = {.struct_size = sizeof event};
    if (viv_load(rt, path, NULL, &model, &error) < 0) _exit(78);
    viv_job *job = submit(model, 0);
    pause_ms(50);
    viv_job_cancel(job);
    works(rt, "good");
    if (viv_next_event(job, 100, &event) != VIV_WAIT) _exit(79);
    _exit(SURVIVED); /* viv_close would wait for the step for ever, as documented */
  }
  int status = 0;
  cr_assert_eq(waitpid(child, &status, 0), child);
  cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == SURVIVED, "status %x", status);
}
