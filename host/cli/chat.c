/* viv chat: a conversation. Every turn sends all messages; the host's prompt cache makes that cheap
 * and nothing can fall out of step. */
#include "cli/chat.h"

#include <string.h>
#include <unistd.h>

static void on_event(void *context, const viv_event *e) {
  viv__conversation *c = context;
  if (e->kind == VIV_KIND_PROGRESS && c->terminal && !c->answer.len)
    viv__progress_show("reading", e->progress);
  if (e->kind != VIV_KIND_TEXT || !e->bytes.len) return;
  if (!c->answer.len) viv__progress_clear();
  viv__buf_add(&c->answer, e->bytes.ptr, e->bytes.len);
  if (c->json || !viv__output_open()) return;
  fwrite(e->bytes.ptr, 1, e->bytes.len, stdout);
  fflush(stdout);
}

static void print_answer(const viv__conversation *c, const viv__outcome *outcome) {
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "role", "assistant");
  cJSON_AddStringToObject(o, "content", c->answer.ptr);
  if (outcome->counters)
    cJSON_AddItemToObject(o, "counters", cJSON_Duplicate(outcome->counters, 1));
  viv__print_json(o);
}

static void print_rate(const viv__conversation *c, const viv__outcome *outcome) {
  double made = viv__counter(outcome, "completion_tokens", 0);
  double ms = viv__counter(outcome, "decode_ms", 0);
  if (c->verbose)
    viv__print_counters(outcome);
  else if (c->terminal && made > 0 && ms > 0)
    fprintf(stderr, "[%.0f tokens, %.1f tokens/s]\n", made, made / ms * 1e3);
}

/* One question and its answer. What was said before Ctrl-C stays in the conversation; a question
 * without any answer is taken out again. */
static int turn(viv__conversation *c, const char *line) {
  viv__outcome outcome;
  c->answer.len = 0;
  viv__chat_say(c->messages, "user", line);
  char *messages = viv__need(cJSON_PrintUnformatted(c->messages));
  viv_value value = viv__value_json("messages", messages);
  const viv_value *values[1] = {&value};
  int32_t status =
      viv__job_run(c->loaded.model, "generate", c->params, values, 1, NULL, on_event, c, &outcome);
  cJSON_free(messages);
  viv__progress_clear();
  viv__buf_add(&c->answer, "", 1);
  if (c->answer.failed) viv__need(NULL);
  int code = VIV__EXIT_OK;
  bool said = c->answer.len > 1;
  if (!c->json && said && viv__output_open()) {
    fputc('\n', stdout);
    fflush(stdout);
  }
  if (status >= 0 || (status == VIV_CANCELLED && said))
    viv__chat_say(c->messages, "assistant", c->answer.ptr);
  else
    cJSON_DeleteItemFromArray(c->messages, cJSON_GetArraySize(c->messages) - 1);
  if (status >= 0) {
    if (c->json) print_answer(c, &outcome);
    print_rate(c, &outcome);
  } else if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled%s\n",
            said && c->terminal ? "; the answer so far is kept, /undo takes it back" : "");
    code = VIV__EXIT_CANCELLED;
  } else {
    code = viv__report(c->json, NULL, status, &outcome.error);
  }
  viv__outcome_free(&outcome);
  return code;
}

/* A script wants to know about the first failure and ends there; a person goes on. */
static int converse(viv__conversation *c) {
  int code = VIV__EXIT_OK;
  viv__chat_reader *r = viv__chat_reader_new(c->terminal);
  if (c->terminal)
    fprintf(stderr, "Type a message; /help lists commands, Ctrl-D ends, Ctrl-C stops an answer.\n");
  for (;;) {
    const char *line = "";
    int got = viv__chat_read(r, &line);
    if (got == VIV__CHAT_INTERRUPTED && c->terminal) {
      viv__interrupt_forget();
      fputc('\n', stderr);
      continue;
    }
    if (got == VIV__CHAT_INTERRUPTED) code = VIV__EXIT_CANCELLED;
    if (got != VIV__CHAT_MESSAGE) break;
    if (!*line) continue;
    int done = viv__chat_command(c, line);
    if (done == VIV__CHAT_EXIT) break;
    if (done == VIV__CHAT_FAILED) code = VIV__EXIT_BAD_INPUT;
    if (done == VIV__CHAT_NO_COMMAND) code = turn(c, line);
    if (code && !c->terminal) break;
    viv__interrupt_forget();
  }
  if (c->terminal) fputc('\n', stderr);
  viv__chat_reader_free(r);
  return c->terminal ? VIV__EXIT_OK : code;
}

static int32_t no_chat(const viv__conversation *c, viv_error *error) {
  const cJSON *why = cJSON_GetObjectItemCaseSensitive(c->loaded.about, "chat_error");
  return VIV_FAIL(error, VIV_NEVER, "chat template",
                  "the model has no usable chat template (%s); viv run continues a text",
                  cJSON_IsString(why) ? why->valuestring : "no tokenizer");
}

int viv__cmd_chat(int argc, char **argv) {
  viv__conversation c = {.params = viv__need(cJSON_CreateObject())};
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      VIV__GENERATE_OPTIONS(c.params),
      {"system", 's', VIV__OPT_TEXT, "TEXT", &c.system, "the system message", NULL},
      VIV__LOAD_OPTIONS(load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &c.json, "one JSON object per answer", NULL},
      {"verbose", 'v', VIV__OPT_FLAG, NULL, &c.verbose, "counters after each answer", NULL},
      {0}};
  const viv__usage usage = {"viv chat sambay-reasoner\n"
                            "printf 'What is 7 * 8?\\n' | viv chat sambay-reasoner",
                            "chat [options] MODEL",
                            "Reads lines, answers each, and remembers what was said. /help says "
                            "what else a line may be."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__interrupt_catch();
    viv__sampling_defaults(c.params, VIV__CHAT_TOKENS);
    c.terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !c.json;
    int32_t status = viv__load_model(model, load, &c.loaded, &error);
    if (status >= 0 && !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(c.loaded.about, "chat")))
      status = no_chat(&c, &error);
    if (status < 0) {
      code = viv__report(c.json, model, status, &error);
    } else {
      viv__chat_reset(&c, c.system);
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
