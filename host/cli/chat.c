/* viv chat: a conversation. Every turn sends all messages; the host's prompt cache makes that cheap
 * and nothing can fall out of step. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { MAX_TOKENS = 1024 };

struct chat {
  viv__loaded loaded;
  cJSON *params, *messages;
  const char *system;
  bool json, verbose, terminal;
  viv__buf answer;
};

static void say(cJSON *messages, const char *role, const char *content) {
  cJSON *m = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(m, "role", role);
  cJSON_AddStringToObject(m, "content", content);
  cJSON_AddItemToArray(messages, m);
}

static void start_over(struct chat *c) {
  cJSON_Delete(c->messages);
  c->messages = viv__need(cJSON_CreateArray());
  if (c->system) say(c->messages, "system", c->system);
}

static void on_event(void *context, const viv_event *e) {
  struct chat *c = context;
  if (e->kind == VIV_KIND_PROGRESS && c->terminal && !c->answer.len)
    viv__progress_show("reading", e->progress);
  if (e->kind != VIV_KIND_TEXT || !e->bytes.len) return;
  if (!c->answer.len) viv__progress_clear();
  viv__buf_add(&c->answer, e->bytes.ptr, e->bytes.len);
  if (c->json || !viv__output_open()) return;
  fwrite(e->bytes.ptr, 1, e->bytes.len, stdout);
  fflush(stdout);
}

/* One question and its answer. A cancelled answer is taken out of the conversation again. */
static int turn(struct chat *c, const char *line) {
  viv__outcome outcome;
  c->answer.len = 0;
  say(c->messages, "user", line);
  char *messages = viv__need(cJSON_PrintUnformatted(c->messages));
  viv_value value = viv__value_json("messages", messages);
  const viv_value *values[1] = {&value};
  int32_t status =
      viv__job_run(c->loaded.model, "generate", c->params, values, 1, NULL, on_event, c, &outcome);
  cJSON_free(messages);
  viv__buf_add(&c->answer, "", 1);
  if (c->answer.failed) viv__need(NULL);
  int code = VIV__EXIT_OK;
  if (!c->json && c->answer.len > 1 && viv__output_open()) fputc('\n', stdout);
  if (status >= 0) {
    say(c->messages, "assistant", c->answer.ptr);
    if (c->json) {
      cJSON *o = viv__need(cJSON_CreateObject());
      cJSON_AddStringToObject(o, "role", "assistant");
      cJSON_AddStringToObject(o, "content", c->answer.ptr);
      if (outcome.counters)
        cJSON_AddItemToObject(o, "counters", cJSON_Duplicate(outcome.counters, 1));
      viv__print_json(o);
    }
    if (c->verbose) viv__print_counters(&outcome);
  } else {
    cJSON_DeleteItemFromArray(c->messages, cJSON_GetArraySize(c->messages) - 1);
    if (status == VIV_CANCELLED) {
      fprintf(stderr, "viv: cancelled\n");
      code = VIV__EXIT_CANCELLED;
    } else {
      code = viv__report(c->json, NULL, status, &outcome.error);
    }
  }
  viv__outcome_free(&outcome);
  return code;
}

static int converse(struct chat *c) {
  char *line = NULL;
  size_t cap = 0;
  int code = VIV__EXIT_OK;
  if (c->terminal)
    fprintf(stderr, "Type a message; /clear starts over, /quit or Ctrl-D ends, Ctrl-C stops an "
                    "answer.\n");
  for (;;) {
    if (c->terminal) fprintf(stderr, "> ");
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) {
      if (viv__interrupted()) code = VIV__EXIT_CANCELLED;
      break;
    }
    while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    if (!n) continue;
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) break;
    if (!strcmp(line, "/clear")) {
      start_over(c);
      continue;
    }
    code = turn(c, line);
    if (code && !c->terminal) break; /* a script wants to know */
    viv__interrupt_forget();
  }
  if (c->terminal && feof(stdin)) fputc('\n', stderr);
  viv__free(line);
  return c->terminal && code != VIV__EXIT_CANCELLED ? VIV__EXIT_OK : code;
}

int viv__cmd_chat(int argc, char **argv) {
  struct chat c = {.params = viv__need(cJSON_CreateObject())};
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      VIV__GENERATE_OPTIONS(c.params),
      {"system", 's', VIV__OPT_TEXT, "TEXT", &c.system, "the system message", NULL},
      VIV__LOAD_OPTIONS(load),
      {"json", 0, VIV__OPT_FLAG, NULL, &c.json, "one JSON object per answer", NULL},
      {"verbose", 'v', VIV__OPT_FLAG, NULL, &c.verbose, "counters after each answer", NULL},
      {0}};
  const viv__usage usage = {"viv chat sambay-reasoner\n"
                            "printf 'What is 7 * 8?\\n' | viv chat sambay-reasoner",
                            "chat [options] MODEL",
                            "Reads lines, answers each, and remembers what was said."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__interrupt_catch();
    viv__sampling_defaults(c.params, MAX_TOKENS);
    c.terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !c.json;
    int32_t status = viv__load_model(model, load, &c.loaded, &error);
    if (status >= 0 && !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c.loaded.about, "chat")))
      status = VIV_FAIL(&error, VIV_NEVER, "tokenizer_config.json",
                        "the model has no chat template; viv run continues a text");
    if (status < 0) {
      code = viv__report(c.json, model, status, &error);
    } else {
      start_over(&c);
      code = converse(&c);
    }
  }
  viv__unload_model(&c.loaded);
  cJSON_Delete(c.params);
  cJSON_Delete(c.messages);
  cJSON_Delete(load);
  viv__buf_free(&c.answer);
  return code;
}
