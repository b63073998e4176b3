/* viv session: the state of a conversation in a file. What was computed for a long prompt is kept,
 * and another process goes on from there, bit for bit. */
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { MAX_TOKENS = 256 };

struct talk {
  bool json, any, newline;
};

static void on_event(void *context, const viv_event *e) {
  struct talk *t = context;
  if (e->kind != VIV_KIND_TEXT || !e->bytes.len || !viv__output_open()) return;
  t->any = true;
  t->newline = e->bytes.ptr[e->bytes.len - 1] == '\n';
  if (t->json) {
    cJSON *o = viv__need(cJSON_CreateObject());
    char *text = viv__need(viv__strndup(e->bytes.ptr, e->bytes.len));
    cJSON_AddStringToObject(o, "event", "text");
    cJSON_AddStringToObject(o, "text", text);
    viv__free(text);
    viv__print_json(o);
    return;
  }
  fwrite(e->bytes.ptr, 1, e->bytes.len, stdout);
  fflush(stdout);
}

struct session_options {
  cJSON *params, *load;
  bool json, verbose, update;
};

static int32_t generate(const viv__loaded *l, viv_session *session, const char *prompt,
                        const struct session_options *o, viv_error *error) {
  struct talk talk = {.json = o->json};
  viv__outcome outcome;
  viv_value value = viv__value_text("text", prompt, strlen(prompt));
  const viv_value *values[1] = {&value};
  int32_t status =
      viv__job_run(l->model, "generate", o->params, values, 1, session, on_event, &talk, &outcome);
  if (talk.any && !talk.newline && !o->json && viv__output_open()) fputc('\n', stdout);
  if (status < 0) *error = outcome.error;
  if (o->verbose && status >= 0) viv__print_counters(&outcome);
  viv__outcome_free(&outcome);
  return status;
}

static void saved(const struct session_options *o, const char *file) {
  if (!o->json) {
    fprintf(stderr, "saved %s\n", file);
    return;
  }
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(doc, "event", "saved");
  cJSON_AddStringToObject(doc, "file", file);
  viv__print_json(doc);
}

static int session(bool resume, const char *model, const char *file, const char *prompt,
                   struct session_options *o) {
  viv_error error = VIV_ERROR_INIT;
  viv__loaded l;
  viv_session *s = NULL;
  viv__local = true; /* a daemon keeps no files for its clients */
  int32_t status = viv__load_model(model, o->load, &l, &error);
  if (status >= 0)
    status = resume ? viv_session_resume(l.model, file, &s, &error)
                    : viv_session_open(l.model, &s, &error);
  if (status >= 0) {
    bool chat = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(l.about, "chat"));
    viv__sampling_defaults(o->params, MAX_TOKENS);
    if (chat && !cJSON_GetObjectItemCaseSensitive(o->params, "chat"))
      cJSON_AddTrueToObject(o->params, "chat");
    if (prompt) status = generate(&l, s, prompt, o, &error);
    if (status >= 0 && (!resume || o->update)) {
      status = viv_session_save(s, file, &error);
      if (status >= 0) saved(o, file);
    }
  }
  int code = VIV__EXIT_OK;
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->json, resume ? file : model, status, &error);
  }
  if (s) viv_session_close(s);
  viv__unload_model(&l);
  return code;
}

int viv__cmd_session(int argc, char **argv) {
  struct session_options o = {.params = viv__need(cJSON_CreateObject()),
                              .load = viv__need(cJSON_CreateObject())};
  bool raw = false;
  const viv__opt options[] = {
      VIV__GENERATE_OPTIONS(o.params),
      {"raw", 0, VIV__OPT_FLAG, NULL, &raw, "no chat template around the prompt", NULL},
      {"update", 'u', VIV__OPT_FLAG, NULL, &o.update, "resume: write the file again at the end",
       NULL},
      VIV__LOAD_OPTIONS(o.load),
      {"json", 0, VIV__OPT_FLAG, NULL, &o.json, "JSON lines", NULL},
      {"verbose", 'v', VIV__OPT_FLAG, NULL, &o.verbose, "counters at the end", NULL},
      {0}};
  const viv__usage usage = {"viv session save sambay-reasoner talk.viv \"My number is 12.\"\n"
                            "viv session resume sambay-reasoner talk.viv \"What is it plus 30?\"",
                            "session [options] save|resume MODEL FILE [PROMPT]",
                            "save: answers PROMPT in a new session and writes the session to FILE."
                            "\nresume: goes on from FILE, in this or any later process."};
  const char *args[4] = {NULL, NULL, NULL, NULL};
  int n = 0, code = viv__options(&usage, options, argc, argv, 3, 4, args, &n);
  if (code < 0) {
    bool resume = !strcmp(args[0], "resume");
    if (raw) cJSON_AddFalseToObject(o.params, "chat");
    if (!resume && strcmp(args[0], "save")) {
      code = viv__usage_error(argv[0], "\"%s\" is neither save nor resume", args[0]);
    } else if (resume && !args[3] && !o.update) {
      code = viv__usage_error(argv[0], "resume needs a PROMPT to go on with");
    } else {
      viv__interrupt_catch();
      code = session(resume, args[1], args[2], args[3], &o);
    }
  }
  cJSON_Delete(o.params);
  cJSON_Delete(o.load);
  return code;
}
