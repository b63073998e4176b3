/* viv eval: questions with known answers, many in flight so that the host can batch them. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "cli/eval_coco.h"

enum { MAX_TOKENS = 512, MAX_JOBS = 256, POLL_MS = 50, LINE_LIMIT = 64 << 20 };

struct question {
  char *task, *question, *answer;
};

struct slot {
  viv_job *job; /* NULL: free */
  size_t question;
  viv__buf text;
};

struct tally {
  const char *task;
  int asked, right, failed;
};

struct eval {
  viv__loaded loaded;
  cJSON *params;
  char *params_text;
  struct question *questions;
  size_t n, next, done;
  struct slot *slots;
  int64_t n_slots, limit;
  struct tally tallies[64];
  int n_tallies;
  double tokens, prompt_tokens;
  bool json, verbose, cancelled;
  viv_error error; /* of the last job that failed */
};

/* ---- the file ---- */

static char *member(const viv_json *line, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive((const cJSON *)line, key);
  if (cJSON_IsString(item)) return viv__need(viv__strdup(item->valuestring));
  if (cJSON_IsNumber(item)) return viv__textf("%.15g", item->valuedouble);
  return NULL;
}

static int32_t read_questions(struct eval *e, const char *path, viv_error *error) {
  char *text = NULL;
  size_t len = 0;
  int32_t status = viv__read_file(path, LINE_LIMIT, &text, &len, error);
  int line_number = 0;
  for (char *line = text, *next; status >= 0 && line && *line; line = next) {
    size_t n = strcspn(line, "\n");
    next = line + n + (line[n] == '\n');
    line_number++;
    if (strspn(line, " \t\r") >= n) continue;
    if (e->limit && (int64_t)e->n >= e->limit) break;
    viv_json *doc = NULL;
    viv_error why = VIV_ERROR_INIT;
    struct question q = {0};
    if (viv__json_parse(line, n, path, &doc, &why) >= 0)
      q = (struct question){member(doc, "task"), member(doc, "question"), member(doc, "answer")};
    viv__json_free(doc);
    if (!q.question || !q.answer)
      status = VIV_FAIL(error, VIV_BAD_INPUT, path,
                        "line %d: expected {\"task\", \"question\", \"answer\"}%s%s", line_number,
                        why.message[0] ? ": " : "", why.message);
    if (!q.task) q.task = viv__need(viv__strdup("all"));
    e->questions = viv__need(viv__realloc(e->questions, (e->n + 1) * sizeof *e->questions));
    e->questions[e->n++] = q;
  }
  viv__free(text);
  if (status >= 0 && !e->n)
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "no question in the file");
  return status;
}

/* ---- answers ---- */

/* What counts as the answer: the text after the thinking, without blanks around it. */
static char *answer_in(const viv__buf *text) {
  const char *from = text->ptr ? text->ptr : "", *end = from + text->len;
  static const char mark[] = "</think>";
  for (const char *p = from; (p = memmem(p, (size_t)(end - p), mark, sizeof mark - 1));)
    from = p += sizeof mark - 1;
  while (from < end && strchr(" \t\r\n", *from)) from++;
  while (end > from && strchr(" \t\r\n", end[-1])) end--;
  return viv__need(viv__strndup(from, (size_t)(end - from)));
}

static struct tally *tally_of(struct eval *e, const char *task) {
  for (int i = 0; i < e->n_tallies; i++)
    if (!strcmp(e->tallies[i].task, task)) return &e->tallies[i];
  int last = (int)(sizeof e->tallies / sizeof *e->tallies) - 1;
  if (e->n_tallies > last)
    return &e->tallies[last]; /* too many tasks: the last row takes the rest */
  e->tallies[e->n_tallies].task = task;
  return &e->tallies[e->n_tallies++];
}

static void judge(struct eval *e, struct slot *s, const viv_event *end) {
  const struct question *q = &e->questions[s->question];
  struct tally *t = tally_of(e, q->task);
  viv__outcome outcome = {.error = VIV_ERROR_INIT};
  viv__outcome_take(&outcome, end);
  char *answer = answer_in(&s->text);
  bool right = end->status >= 0 && !strcmp(answer, q->answer);
  t->asked++;
  t->right += right;
  if (end->status < 0) {
    t->failed++;
    e->error = outcome.error;
    e->error.code = end->status;
    if (end->status == VIV_CANCELLED) e->cancelled = true;
  }
  e->tokens += viv__counter(&outcome, "completion_tokens", 0);
  e->prompt_tokens += viv__counter(&outcome, "prompt_tokens", 0);
  e->done++;
  if (e->verbose && !right)
    fprintf(stderr, "wrong  %s: %s -> \"%s\", expected \"%s\"\n", q->task, q->question, answer,
            q->answer);
  viv__free(answer);
  viv__outcome_free(&outcome);
}

/* ---- jobs in flight ---- */

static int32_t start(struct eval *e, struct slot *s, viv_error *error) {
  const char *question = e->questions[e->next].question;
  viv_value value = viv__value_text("text", question, strlen(question));
  const viv_value *values[1] = {&value};
  viv_request request = {.struct_size = sizeof request,
                         .task = "generate",
                         .params = e->params_text,
                         .inputs = values,
                         .n_inputs = 1};
  s->text.len = 0;
  s->question = e->next++;
  return viv_submit(e->loaded.model, &request, &s->job, error);
}

/* Takes what the job has to give, without waiting. */
static void drain(struct eval *e, struct slot *s) {
  viv_event event = {.struct_size = sizeof event};
  int32_t status;
  while ((status = viv_next_event(s->job, 0, &event)) == VIV_OK) {
    if (event.kind == VIV_KIND_TEXT) viv__buf_add(&s->text, event.bytes.ptr, event.bytes.len);
    if (!(event.flags & VIV_EVENT_FINAL)) continue;
    judge(e, s, &event);
    viv_job_free(s->job);
    s->job = NULL;
    return;
  }
}

static void wait_for_any(const struct eval *e) {
  struct pollfd fds[MAX_JOBS];
  nfds_t n = 0;
  for (int64_t i = 0; i < e->n_slots; i++)
    if (e->slots[i].job)
      fds[n++] = (struct pollfd){.fd = viv_job_fd(e->slots[i].job), .events = POLLIN};
  if (n) poll(fds, n, POLL_MS);
}

static int32_t ask_all(struct eval *e, viv_error *error) {
  int32_t status = VIV_OK;
  bool told = false;
  while (e->done < e->next || (e->next < e->n && status >= 0 && !told)) {
    for (int64_t i = 0; i < e->n_slots && e->next < e->n && !told && status >= 0; i++)
      if (!e->slots[i].job) {
        status = start(e, &e->slots[i], error);
        if (status < 0) e->next--;
      }
    if (viv__interrupted() && !told) {
      told = true;
      for (int64_t i = 0; i < e->n_slots; i++)
        if (e->slots[i].job) viv_job_cancel(e->slots[i].job);
    }
    wait_for_any(e);
    for (int64_t i = 0; i < e->n_slots; i++)
      if (e->slots[i].job) drain(e, &e->slots[i]);
    if (!e->json) viv__progress_show("asking", (double)e->done / (double)e->n);
  }
  viv__progress_clear();
  if (told) e->cancelled = true;
  return status;
}

/* ---- the table ---- */

static void print_table(const struct eval *e, double seconds) {
  int asked = 0, right = 0, failed = 0;
  printf("%-24s %8s %8s %9s\n", "task", "asked", "right", "accuracy");
  for (int i = 0; i < e->n_tallies; i++) {
    const struct tally *t = &e->tallies[i];
    printf("%-24s %8d %8d %8.1f%%\n", t->task, t->asked, t->right, 100.0 * t->right / t->asked);
    asked += t->asked;
    right += t->right;
    failed += t->failed;
  }
  printf("%-24s %8d %8d %8.1f%%\n", "all", asked, right, asked ? 100.0 * right / asked : 0);
  if (failed) printf("%d jobs failed: %s\n", failed, e->error.message);
  printf("%.0f tokens in %.2f s: %.1f tokens/s generated, %.1f with the prompts\n", e->tokens,
         seconds, e->tokens / seconds, (e->tokens + e->prompt_tokens) / seconds);
}

static void print_result_json(const struct eval *e, double seconds) {
  cJSON *doc = viv__need(cJSON_CreateObject()), *tasks = cJSON_AddObjectToObject(doc, "tasks");
  int asked = 0, right = 0, failed = 0;
  for (int i = 0; i < e->n_tallies; i++) {
    const struct tally *t = &e->tallies[i];
    cJSON *o = cJSON_AddObjectToObject(tasks, t->task);
    cJSON_AddNumberToObject(o, "asked", t->asked);
    cJSON_AddNumberToObject(o, "right", t->right);
    cJSON_AddNumberToObject(o, "accuracy", t->asked ? (double)t->right / t->asked : 0);
    asked += t->asked;
    right += t->right;
    failed += t->failed;
  }
  cJSON_AddNumberToObject(doc, "asked", asked);
  cJSON_AddNumberToObject(doc, "right", right);
  cJSON_AddNumberToObject(doc, "failed", failed);
  cJSON_AddNumberToObject(doc, "accuracy", asked ? (double)right / asked : 0);
  cJSON_AddNumberToObject(doc, "completion_tokens", e->tokens);
  cJSON_AddNumberToObject(doc, "seconds", seconds);
  cJSON_AddNumberToObject(doc, "tokens_per_second", e->tokens / seconds);
  viv__print_json(doc);
}

static int evaluate(struct eval *e, const char *model, const char *file, const cJSON *load) {
  viv_error error = VIV_ERROR_INIT;
  int32_t status = read_questions(e, file, &error);
  if (status >= 0) status = viv__load_model(model, load, &e->loaded, &error);
  if (status < 0) return viv__report(e->json, NULL, status, &error);
  viv__sampling_defaults(e->params, MAX_TOKENS);
  bool chat = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(e->loaded.about, "chat"));
  if (chat && !cJSON_GetObjectItemCaseSensitive(e->params, "chat"))
    cJSON_AddTrueToObject(e->params, "chat");
  e->params_text = viv__need(cJSON_PrintUnformatted(e->params));
  e->slots = viv__need(viv__calloc((size_t)e->n_slots, sizeof *e->slots));
  uint64_t begun = viv__now_ns();
  status = ask_all(e, &error);
  double seconds = (double)(viv__now_ns() - begun) * 1e-9;
  if (e->cancelled) {
    fprintf(stderr, "viv: cancelled after %zu of %zu questions\n", e->done, e->n);
    return VIV__EXIT_CANCELLED;
  }
  if (status < 0) return viv__report(e->json, model, status, &error);
  if (e->json)
    print_result_json(e, seconds);
  else
    print_table(e, seconds);
  for (int i = 0; i < e->n_tallies; i++)
    if (e->tallies[i].failed) return VIV__EXIT_FAILED;
  return VIV__EXIT_OK;
}

static void release(struct eval *e) {
  for (int64_t i = 0; e->slots && i < e->n_slots; i++) {
    if (e->slots[i].job) viv_job_free(e->slots[i].job);
    viv__buf_free(&e->slots[i].text);
  }
  for (size_t i = 0; i < e->n; i++) {
    viv__free(e->questions[i].task);
    viv__free(e->questions[i].question);
    viv__free(e->questions[i].answer);
  }
  viv__free(e->questions);
  viv__free(e->slots);
  viv__unload_model(&e->loaded);
  cJSON_free(e->params_text);
}

int viv__cmd_eval(int argc, char **argv) {
  struct eval e = {
      .params = viv__need(cJSON_CreateObject()), .n_slots = 16, .error = VIV_ERROR_INIT};
  cJSON *load = viv__need(cJSON_CreateObject());
  cJSON *boxes_from = viv__need(cJSON_CreateObject());
  viv__eval_coco coco = {0};
  const viv__opt options[] = {
      {"limit", 'l', VIV__OPT_INT, "N", &e.limit, "only the first N questions or pictures", NULL},
      {"coco", 0, VIV__OPT_TEXT, "FILE", &coco.annotations,
       "pictures: COCO's annotations; AP of boxes or keypoints", NULL},
      {"results", 0, VIV__OPT_TEXT, "FILE", &coco.results,
       "pictures: what was found, in COCO's results format", NULL},
      {"kind", 0, VIV__OPT_TEXT, "KIND", &coco.kind,
       "pictures: boxes or keypoints; else what the results hold", NULL},
      {"task", 0, VIV__OPT_TEXT, "NAME", &coco.task, "pictures: the model's task", NULL},
      {"labels", 0, VIV__OPT_TEXT, "FILE", &coco.labels, "pictures: names of the classes", NULL},
      {"out", 'o', VIV__OPT_TEXT, "FILE", &coco.out, "pictures: write the results", NULL},
      VIV__DETECTOR_OPTIONS(coco.detector, boxes_from),
      {"jobs", 'j', VIV__OPT_INT, "N", &e.n_slots, "N questions in flight (16)", NULL},
      VIV__GENERATE_OPTIONS(e.params),
      VIV__LOAD_OPTIONS(load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &e.json, "the result as one JSON object", NULL},
      {"verbose", 'v', VIV__OPT_FLAG, NULL, &e.verbose, "show the wrong answers", NULL},
      {0}};
  const viv__usage usage = {
      "viv eval sambay-reasoner zoo/models/sambay-reasoner/eval.jsonl\n"
      "viv eval --coco annotations.json --results results.json\n"
      "viv eval --coco annotations.json MODEL FOLDER",
      "eval [options] MODEL FILE.jsonl | --coco FILE (--results FILE | MODEL FOLDER)",
      "Asks every question of FILE (lines {\"task\", \"question\", \"answer\"}) and counts the "
      "answers that\nare equal to the expected text. Thinking before </think> does not count.\n"
      "With --coco: average precision of what a model finds in a folder's pictures."};
  const char *args[2] = {NULL, NULL};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 2, args, &n);
  bool ready = coco.annotations && coco.results ? n == 0 : n == 2;
  if (code < 0 && !ready)
    code = viv__usage_error(argv[0], "something is missing or too much (usage: viv %s)",
                            usage.synopsis);
  if (code < 0 && coco.results && !coco.annotations)
    code = viv__usage_error(argv[0], "--results is judged by --coco FILE");
  if (code < 0 && (e.n_slots < 1 || e.n_slots > MAX_JOBS))
    code = viv__usage_error(argv[0], "--jobs is 1 to %d", MAX_JOBS);
  if (code < 0 && coco.detector.model && (!coco.annotations || coco.results))
    code = viv__usage_error(argv[0], "--detector helps a MODEL on the pictures of --coco FILE");
  if (code < 0) code = viv__detector_usage(argv[0], &coco.detector, boxes_from);
  if (code < 0) {
    viv__interrupt_catch();
    coco.json = e.json;
    coco.limit = e.limit;
    code = coco.annotations ? viv__eval_pictures(&coco, args[0], args[1], e.params, load)
                            : evaluate(&e, args[0], args[1], load);
  }
  release(&e);
  cJSON_Delete(e.params);
  cJSON_Delete(load);
  cJSON_Delete(boxes_from);
  return code;
}
