/* Listed cases of chat templates: a folder with a template.jinja and {"template", "cases": [a call
 * and "expected" or "exception"]}, or {"context", "cases": [{"template", "expected" or
 * "exception"}]}. One row per failing entry, and one for all that hold. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/golden.h"
#include "template/template.h"

struct judge {
  viv__golden_case *c;
  viv__exact *exact;
  viv__template *shared; /* NULL: each entry has its own */
  int64_t now;
};

static const cJSON *member(const cJSON *o, const char *key) {
  return cJSON_GetObjectItemCaseSensitive(o, key);
}

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = member(o, key);
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* "2025-07-04T09:05:03" as seconds of a clock without a zone; -1: the real clock. */
static int64_t clock_of(const cJSON *o, int64_t fallback) {
  struct tm tm;
  const char *text = text_of(o, "now");
  memset(&tm, 0, sizeof tm);
  if (!text || !strptime(text, "%Y-%m-%dT%H:%M:%S", &tm)) return fallback;
  return (int64_t)timegm(&tm);
}

static void differ(struct judge *j, int index, const char *expected, const char *got) {
  size_t same = 0; /* the part that tells them apart is shown */
  while (expected[same] && expected[same] == got[same]) same++;
  size_t from = same > 40 ? same - 40 : 0;
  while (from && (expected[from] & 0xc0) == 0x80) from--;
  cJSON *want = viv__need(cJSON_CreateString(expected + from)),
        *have = viv__need(cJSON_CreateString(got + from));
  char *a = viv__need(cJSON_PrintUnformatted(want)), *b = viv__need(cJSON_PrintUnformatted(have));
  viv__golden_differ(j->c, "cases", index, "at byte %zu: expected %s%.300s got %.300s", same,
                     from ? "..." : "", a, b);
  cJSON_free(a);
  cJSON_free(b);
  cJSON_Delete(want);
  cJSON_Delete(have);
}

static bool spans_hold(const cJSON *wanted, const viv__rendered *r) {
  if (!cJSON_IsArray(wanted)) return true;
  if (cJSON_GetArraySize(wanted) != (int)r->n_spans) return false;
  const cJSON *pair;
  size_t i = 0;
  cJSON_ArrayForEach(pair, wanted) {
    const cJSON *start = cJSON_GetArrayItem(pair, 0), *end = cJSON_GetArrayItem(pair, 1);
    if (!start || !end || start->valueint != (int)r->spans[i].start ||
        end->valueint != (int)r->spans[i].end)
      return false;
    i++;
  }
  return true;
}

static char *exact_member(struct judge *j, int index, const char *key) {
  char number[16];
  snprintf(number, sizeof number, "%d", index);
  const char *const path[] = {"cases", number, key, NULL};
  return viv__exact_text(j->exact, path);
}

static viv_str bytes(const char *text) {
  return viv__str(text && strcmp(text, "null") ? text : NULL);
}

static int32_t render_chat(struct judge *j, int index, const cJSON *entry, viv__rendered *out,
                           viv_error *error) {
  const cJSON *open = member(entry, "continue_final_message");
  char *messages = exact_member(j, index, "messages"), *tools = exact_member(j, index, "tools"),
       *documents = exact_member(j, index, "documents"), *kwargs = exact_member(j, index, "kwargs");
  viv__chat_input in = {.messages = viv__str(messages ? messages : "null"),
                        .tools = bytes(tools),
                        .documents = bytes(documents),
                        .variables = bytes(kwargs),
                        .bos_token = viv__str(text_of(entry, "bos_token")),
                        .eos_token = viv__str(text_of(entry, "eos_token")),
                        .add_generation_prompt =
                            cJSON_IsTrue(member(entry, "add_generation_prompt")),
                        .continue_field = cJSON_IsTrue(open)     ? "content"
                                          : cJSON_IsString(open) ? open->valuestring
                                                                 : NULL,
                        .now = clock_of(entry, j->now)};
  int32_t status = viv__template_chat(j->shared, &in, out, error);
  viv__free(messages);
  viv__free(tools);
  viv__free(documents);
  viv__free(kwargs);
  return status;
}

static int32_t render_small(struct judge *j, const cJSON *entry, viv__rendered *out,
                            viv_error *error) {
  static const char *const path[] = {"context", NULL};
  const char *text = text_of(entry, "template");
  viv__template *t = NULL;
  char *context = viv__exact_text(j->exact, path);
  int32_t status = text ? viv__template_open(viv__str(text), "template", &t, error)
                        : VIV_FAIL(error, VIV_BAD_INPUT, "cases.json", "an entry has no template");
  if (status >= 0) status = viv__template_render(t, bytes(context), j->now, out, error);
  viv__template_close(t);
  viv__free(context);
  return status;
}

/* The text of raise_exception is compared; of other failures only that there is one, with a reason:
 * their wording is Python's. */
static bool judge_entry(struct judge *j, int index, const cJSON *entry) {
  const cJSON *exception = member(entry, "exception");
  const char *expected = text_of(entry, "expected"), *type = text_of(exception, "type");
  const char *message = text_of(exception, "message");
  viv_error error = VIV_ERROR_INIT;
  viv__rendered r = {0};
  int32_t status =
      j->shared ? render_chat(j, index, entry, &r, &error) : render_small(j, entry, &r, &error);
  bool holds = false;
  char said[1100];
  snprintf(said, sizeof said, "failure: %s (%s)", error.message, error.where);
  if (exception) {
    holds = status < 0 && *error.message &&
            (!type || strcmp(type, "TemplateError") || !message || !strcmp(message, error.message));
    if (!holds)
      differ(j, index, message ? message : "a failure", status < 0 ? error.message : r.text);
  } else if (status < 0 || !expected) {
    differ(j, index, expected ? expected : "\"expected\" is missing", status < 0 ? said : r.text);
  } else if (strcmp(expected, r.text) || r.len != strlen(r.text)) {
    differ(j, index, expected, r.text);
  } else if (!spans_hold(member(entry, "generation_spans"), &r)) {
    viv__buf spans = {0};
    char *wanted = viv__need(cJSON_PrintUnformatted(member(entry, "generation_spans")));
    for (size_t i = 0; i < r.n_spans; i++)
      viv__buf_fmt(&spans, "%s[%zu,%zu]", i ? "," : "[", r.spans[i].start, r.spans[i].end);
    viv__buf_str(&spans, r.n_spans ? "]" : "[]");
    differ(j, index, wanted, spans.ptr ? spans.ptr : "");
    cJSON_free(wanted);
    viv__buf_free(&spans);
  } else {
    holds = true;
  }
  viv__rendered_free(&r);
  return holds;
}

/* The file that "template" names, inside of the case. */
static bool open_shared(struct judge *j, const char *name) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__need(viv__path_join(j->c->dir, name)), *text = NULL;
  size_t len = 0;
  int32_t status = strchr(name, '/')
                       ? VIV_FAIL(&error, VIV_BAD_INPUT, name, "is not in the case")
                       : viv__read_file(path, VIV__GOLDEN_LIST_LIMIT, &text, &len, &error);
  if (status >= 0) status = viv__template_open((viv_str){text, len}, name, &j->shared, &error);
  if (status < 0)
    viv__golden_refuse(j->c, VIV__GOLDEN_FAILED, "%s: %s", error.where, error.message);
  viv__free(text);
  viv__free(path);
  return status >= 0;
}

static void judge_all(struct judge *j) {
  const cJSON *entry;
  int index = 0, held = 0;
  const char *name = text_of(j->c->list, "template");
  if (name && !open_shared(j, name)) return;
  cJSON_ArrayForEach(entry, member(j->c->list, "cases")) held += judge_entry(j, index++, entry);
  viv__golden_tally(j->c, "cases", index - held, index);
}

bool viv__golden_templates(viv__golden_case *c) {
  const cJSON *first = viv__golden_first_entry(c);
  char *text = NULL;
  size_t len = 0;
  viv_error error = VIV_ERROR_INIT;
  bool ours =
      (text_of(c->list, "template") && member(first, "messages")) || text_of(first, "template");
  struct judge j = {.c = c, .now = clock_of(member(c->meta, "run"), -1)};
  if (ours) {
    int32_t status = viv__read_file(c->list_path, VIV__GOLDEN_LIST_LIMIT, &text, &len, &error);
    if (status >= 0) status = viv__exact_open((viv_str){text, len}, "cases.json", &j.exact, &error);
    if (status < 0)
      viv__golden_refuse(c, VIV__GOLDEN_FAILED, "%s: %s", error.where, error.message);
    else
      judge_all(&j);
  }
  viv__template_close(j.shared);
  viv__exact_close(j.exact);
  viv__free(text);
  return ours;
}
