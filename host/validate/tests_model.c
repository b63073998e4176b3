/* Tests of opening a model: that it opens, fails well, and leaves nothing behind. */
#include <malloc.h>
#include <string.h>

#include "validate/tests.h"

/* ---- opening ---- */

static bool open_checkpoint(struct context *c) {
  viv_error error = VIV_ERROR_INIT;
  if (c->checkpoint) return true;
  if (viv__checkpoint_open(c->model, &c->checkpoint, &error) == VIV_OK) return true;
  viv__v_fail(c, "the model %s can't be read: %s", c->model, error.message);
  return false;
}

void viv__v_check_failure(struct context *c, const char *what, int32_t status,
                          const viv_error *error) {
  if (status < VIV_DEADLINE || status > VIV_WAIT) {
    viv__v_fail(c, "%s answered %d, which is no status", what, status);
    return;
  }
  if (status >= 0) return;
  if (!memchr(error->message, 0, sizeof error->message) ||
      !memchr(error->where, 0, sizeof error->where) ||
      !memchr(error->source, 0, sizeof error->source))
    viv__v_fail(c, "%s left an error text without an end", what);
  else if (!error->message[0])
    viv__v_fail(c, "%s failed (%d) without a message", what, status);
  else if (!viv__utf8_valid(error->message, strlen(error->message)))
    viv__v_fail(c, "%s left a message that is not UTF-8", what);
  else if (error->code != status)
    viv__v_fail(c, "%s answered %d, but its error says code %d", what, status, error->code);
}

/* plan, then open, with a configuration. Answers open's status; a failure is checked, not counted.
 * */
static int32_t open_with(struct context *c, const viv_host *host, const viv_json *config,
                         const char *what, struct opened *o, viv_error *error) {
  *o = (struct opened){.host = host};
  o->source = (viv_model_source){.struct_size = sizeof o->source,
                                 .name = viv__str("validator"),
                                 .config = config,
                                 .checkpoint = c->checkpoint};
  viv_memory_plan plan = {.struct_size = sizeof plan};
  *error = (viv_error)VIV_ERROR_INIT;
  viv__v_before(c, VIV_THREAD_LOADER, "plan (%s)", what);
  int32_t planned = c->api->plan(host, &o->source, &plan, error);
  viv__v_after(c);
  viv__v_check_failure(c, "plan", planned, error);
  *error = (viv_error)VIV_ERROR_INIT;
  o->arena = viv__arena_new(ARENA_LIMIT);
  o->source.arena = o->arena;
  viv_plugin_model *const untouched = (viv_plugin_model *)&o->source;
  o->model = untouched;
  viv__v_before(c, VIV_THREAD_LOADER, "open (%s)", what);
  int32_t status = c->api->open(host, &o->source, &o->model, error);
  viv__v_after(c);
  viv__v_check_failure(c, "open", status, error);
  if (status < 0) {
    if (o->model != untouched) viv__v_fail(c, "a failing open wrote to its out-parameter");
    o->model = NULL;
    viv__v_arena_free(c, o->arena);
    o->arena = NULL;
  } else if (o->model == untouched || !o->model) {
    viv__v_fail(c, "open answered %d but gave no model", status);
    o->model = NULL;
  } else if (planned < 0) {
    viv__v_fail(c, "open takes what plan refuses (%s)", what);
  }
  return status;
}

void viv__v_close_it(struct context *c, struct opened *o) {
  if (o->model) {
    viv__v_before(c, VIV_THREAD_LOADER, "close");
    c->api->close(o->model);
    viv__v_after(c);
  }
  o->model = NULL;
  viv__v_arena_free(c, o->arena);
  o->arena = NULL;
}

/* Loads, and opens the checkpoint, for a plugin that offers the model interface. */
static const viv_host *load_model(struct context *c, int flags) {
  const viv_host *host = viv__v_load(c, flags);
  if (!host) return NULL;
  if (!c->api) {
    viv__v_skip(c, "offers no " VIV_MODEL_ID);
    return NULL;
  }
  return open_checkpoint(c) ? host : NULL;
}

bool viv__v_start(struct context *c, struct opened *o, int flags) {
  viv_error error;
  const viv_host *host = load_model(c, flags);
  if (!host) return false;
  int32_t status =
      open_with(c, host, viv__checkpoint_config(c->checkpoint), "the model's config", o, &error);
  if (viv__v_failed(c)) return false;
  if (status >= 0) return true;
  if (c->model_given)
    viv__v_fail(c, "can't open %s: %s", c->model, error.message);
  else
    viv__v_skip(c, "no model to open: give one with --model (it said: %s)", error.message);
  return false;
}

/* ---- level 4 ---- */

void viv__v_test_no_extensions(struct context *c) {
  const viv_host *host = viv__v_load(c, HOST_NO_EXTENSIONS);
  if (!host || !c->api || !open_checkpoint(c)) return;
  struct opened o;
  viv_error error;
  /* Refusing is fine; crashing is not. */
  open_with(c, host, viv__checkpoint_config(c->checkpoint), "no extensions", &o, &error);
  viv__v_close_it(c, &o);
}

/* ---- level 5: open fails well ---- */

void viv__v_test_open_bad_config(struct context *c) {
  const viv_host *host = load_model(c, 0);
  if (!host) return;
  static const char *const bad[] = {"{}",
                                    "[]",
                                    "null",
                                    "\"config\"",
                                    "{\"model_type\":17}",
                                    "{\"model_type\":null,\"hidden_size\":-1}"};
  struct opened o;
  viv_error error;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    viv_json *config = NULL;
    if (viv__json_parse(bad[i], strlen(bad[i]), "config.json", &config, NULL) < 0) continue;
    open_with(c, host, config, bad[i], &o, &error);
    viv__v_close_it(c, &o);
    viv__json_free(config);
  }
  open_with(c, host, NULL, "no config.json", &o, &error);
  viv__v_close_it(c, &o);
}

bool viv__v_readable_describe(struct context *c, const struct opened *o, viv_json **out) {
  viv__v_before(c, 0, "describe");
  viv_str text = c->api->describe(o->model);
  viv__v_after(c);
  viv_error error = VIV_ERROR_INIT;
  if (text.len && viv__json_parse(text.ptr, text.len, "describe", out, &error) < 0)
    viv__v_fail(c, "describe: %s", error.message);
  else if (!text.len || viv__json_type(*out) != VIV_JSON_OBJECT)
    viv__v_fail(c, "describe gave no JSON object");
  return !viv__v_failed(c);
}

void viv__v_test_opens(struct context *c) {
  struct opened o;
  if (!viv__v_start(c, &o, 0)) return;
  viv_json *doc = NULL;
  viv__v_readable_describe(c, &o, &doc);
  viv__json_free(doc);
  viv__v_close_it(c, &o);
}

/* ---- level 8: resources ---- */

/* A sanitizer's allocator does not report through mallinfo2. */
size_t __sanitizer_get_current_allocated_bytes(void) __attribute__((weak));

static int64_t bytes_in_use(void) {
  if (__sanitizer_get_current_allocated_bytes)
    return (int64_t)__sanitizer_get_current_allocated_bytes();
  struct mallinfo2 info = mallinfo2();
  return (int64_t)(info.uordblks + info.hblkhd);
}

/* Whether the model opens at all; answers its config. */
static bool opens_once(struct context *c, struct opened *o, const viv_json **config) {
  if (!viv__v_start(c, o, 0)) return false;
  viv__v_close_it(c, o);
  *config = viv__checkpoint_config(c->checkpoint);
  return true;
}

void viv__v_test_leaks(struct context *c) {
  struct opened o;
  const viv_json *config;
  if (!opens_once(c, &o, &config)) return;
  viv_error error;
  int64_t before = 0;
  int rounds = 100;
  uint64_t began = viv__now_ns();
  viv__v_watch_state(false);
  for (int i = 0; i < rounds + 4 && !viv__v_failed(c); i++) {
    if (i == 4) {
      before = bytes_in_use();
      double each = (double)(viv__now_ns() - began) / 4;
      if (each * rounds > 8e9) rounds = (int)(8e9 / each) + 1; /* large models: fewer rounds */
    }
    open_with(c, o.host, config, "again", &o, &error);
    viv__v_close_it(c, &o);
  }
  int64_t grown = bytes_in_use() - before;
  if (grown > 16 << 10)
    viv__v_fail(c, "%d times open and close left %lld bytes more in use", rounds, (long long)grown);
}

void viv__v_test_no_memory(struct context *c) {
  struct opened o;
  const viv_json *config;
  if (!opens_once(c, &o, &config)) return;
  viv_error error;
  viv__v_fail_arena(0);
  open_with(c, o.host, config, "counting allocations", &o, &error);
  viv__v_close_it(c, &o);
  long made = viv__v_fail_arena(0);
  long stride = made / 400 + 1; /* a bounded number of tries */
  for (long k = 1; k <= made && !viv__v_failed(c); k += stride) {
    char what[64];
    snprintf(what, sizeof what, "allocation %ld of %ld fails", k, made);
    viv__v_fail_arena(k);
    int32_t status = open_with(c, o.host, config, what, &o, &error);
    viv__v_fail_arena(0);
    if (status < 0 && status != VIV_NOT_NOW)
      viv__v_fail(c, "out of memory (%s) it answered %d (%s), not NOT_NOW", what, status,
                  error.message);
    viv__v_close_it(c, &o);
  }
}

/* ---- level 9: fuzz ---- */

/* Replaces the value of a random key of a JSON text. Answers false when the text has none. */
static bool mutate(viv__buf *out, viv_str text, uint64_t *random) {
  static const char *const values[] = {"0",     "-1",   "1",        "2147483647", "-2147483648",
                                       "1e308", "0.5",  "\"text\"", "null",       "[]",
                                       "{}",    "true", "[1,-1,0]", "9e18",       "3"};
  size_t colons = 0, pick;
  bool quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] == '\\')
      i++;
    else if (text.ptr[i] == '"')
      quoted = !quoted;
    else if (text.ptr[i] == ':' && !quoted)
      colons++;
  }
  if (!colons) return false;
  pick = (size_t)(viv__v_next_random(random) % colons);
  quoted = false;
  for (size_t i = 0; i < text.len; i++) {
    if (text.ptr[i] == '\\')
      i++;
    else if (text.ptr[i] == '"')
      quoted = !quoted;
    else if (text.ptr[i] == ':' && !quoted && pick-- == 0) {
      size_t end = i + 1;
      int depth = 0;
      bool in = false;
      for (; end < text.len; end++) {
        char ch = text.ptr[end];
        if (in && ch == '\\')
          end++;
        else if (ch == '"')
          in = !in;
        else if (!in && (ch == '{' || ch == '['))
          depth++;
        else if (!in && (ch == '}' || ch == ']') && depth-- == 0)
          break;
        else if (!in && ch == ',' && depth == 0)
          break;
      }
      viv__buf_add(out, text.ptr, i + 1);
      viv__buf_str(out, values[viv__v_next_random(random) % (sizeof values / sizeof *values)]);
      if (end < text.len) viv__buf_add(out, text.ptr + end, text.len - end);
      return !out->failed;
    }
  }
  return false;
}

void viv__v_test_fuzz_config(struct context *c) {
  const viv_host *host = load_model(c, 0);
  if (!host) return;
  char *text = NULL, *path = viv__path_join(viv__checkpoint_dir(c->checkpoint), "config.json");
  size_t len = 0;
  uint64_t random = c->seed, until = viv__now_ns() + 10000000000u;
  if (!path || viv__read_file(path, 1 << 20, &text, &len, NULL) < 0)
    viv__v_skip(c, "the model has no config.json to mutate");
  for (int i = 0; text && i < 300 && !viv__v_failed(c) && viv__now_ns() < until; i++) {
    viv__buf mutant = {0};
    viv_json *config = NULL;
    struct opened o;
    viv_error error;
    char what[200];
    /* One to three values at once. */
    bool made = mutate(&mutant, (viv_str){text, len}, &random);
    for (uint64_t more = viv__v_next_random(&random) % 3; made && more; more--) {
      viv__buf twice = {0};
      made = mutate(&twice, (viv_str){mutant.ptr, mutant.len}, &random);
      viv__buf_free(&mutant);
      mutant = twice;
    }
    /* The input stands in the report when it is short; the seed makes it again when it is not. */
    snprintf(what, sizeof what, "config mutation %d of seed %llu%s%.140s", i,
             (unsigned long long)c->seed, made && mutant.len < 140 ? ": " : "",
             made && mutant.len < 140 ? mutant.ptr : "");
    if (made && viv__json_parse(mutant.ptr, mutant.len, "mutant", &config, NULL) == VIV_OK) {
      open_with(c, host, config, what, &o, &error);
      viv__v_close_it(c, &o);
    }
    viv__json_free(config);
    viv__buf_free(&mutant);
  }
  viv__free(text);
  viv__free(path);
}
