/* The worker's answers to calls: loading, texts and tokens, sessions, inspecting. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/worker.h"

enum { DEFAULT_JOBS = 16 };

/* ---- answers ---- */

static void reply(state *s, uint64_t id, int32_t status, const viv_error *error, viv_str json) {
  viv__wire_reply m = {.status = status, .json = json};
  viv__buf b = {0};
  if (status < 0) {
    m.error = *error;
    m.error.code = status;
  }
  viv__wire_put_reply(&b, &m);
  viv__link_put_buf(&s->link, VIV__WIRE_REPLY, id, &b, -1);
}

static void reply_text(state *s, uint64_t id, int32_t status, const viv_error *error,
                       viv_text *text) {
  reply(s, id, status, error, (viv_str){text->ptr, text->len});
  viv_text_free(text);
}

/* ---- calls ---- */

static const viv_json *parameters(viv_str text, viv_json **out, viv_error *error) {
  if (viv__json_parse(text.len ? text.ptr : "{}", text.len ? text.len : 2, "CALL", out, error) < 0)
    return NULL;
  return *out;
}

static void call_load(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_text about = {0};
  const char *params = viv__json_text(p, "params", "");
  int32_t status = s->model ? VIV_FAIL(&error, VIV_BUG, "worker", "it has a model already")
                            : viv_load(s->rt, viv__json_text(p, "path", ""),
                                       *params ? params : NULL, &s->model, &error);
  if (status >= 0) status = viv_describe(s->model, &about, &error);
  double most = viv__json_num(p, "prompt_bytes", 0);
  if (status >= 0 && most >= 1) prompts_begin(s, (uint64_t)most);
  if (status < 0) {
    reply(s, id, status, &error, (viv_str){NULL, 0});
    return;
  }
  viv_json *of = NULL, *json = NULL;
  if (*params) viv__json_parse(params, strlen(params), "params", &of, NULL);
  viv__json_parse(about.ptr, about.len, "about", &json, NULL);
  viv__buf b = {0};
  viv__buf_fmt(&b, "{\"max_jobs\":%d,\"name\":", (int)viv__json_num(of, "max_jobs", DEFAULT_JOBS));
  viv__buf_json(&b, viv__str(viv__json_text(json, "name", "model")));
  viv__buf_fmt(&b, ",\"about\":%s}", about.ptr);
  reply(s, id, VIV_OK, NULL, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv__json_free(of);
  viv__json_free(json);
  viv_text_free(&about);
}

static void call_tokenize(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_str text = viv__json_string(viv__json_get(p, "text"));
  int32_t *ids = NULL;
  uint64_t n = 0;
  int32_t status = viv_tokenize(s->model, text.len ? text.ptr : "", text.len,
                                viv__json_bool(p, "add_special", false), &ids, &n, &error);
  viv__buf b = {0};
  viv__buf_str(&b, "{\"ids\":[");
  for (uint64_t i = 0; status >= 0 && i < n; i++) viv__buf_fmt(&b, "%s%d", i ? "," : "", ids[i]);
  viv__buf_str(&b, "]}");
  reply(s, id, status, &error, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv_ids_free(ids);
}

static void call_detokenize(state *s, uint64_t id, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  const cJSON *list = (const cJSON *)viv__json_get(p, "ids"), *item;
  uint64_t n = 0, count = (uint64_t)viv__json_count((const viv_json *)list);
  int32_t *ids = viv__calloc(count + 1, sizeof *ids);
  viv_text text = {0};
  cJSON_ArrayForEach(item, list) if (ids && n < count) ids[n++] = item->valueint;
  int32_t status = ids ? viv_detokenize(s->model, ids, n, viv__json_bool(p, "skip_special", false),
                                        &text, &error)
                       : VIV_FAIL(&error, VIV_NOT_NOW, "ids", "no memory");
  viv__buf b = {0};
  viv__buf_str(&b, "{\"text\":");
  viv__buf_json(&b, (viv_str){text.ptr, text.len});
  viv__buf_str(&b, "}");
  reply(s, id, status, &error, (viv_str){b.ptr, b.len});
  viv__buf_free(&b);
  viv_text_free(&text);
  viv__free(ids);
}

static int32_t close_session(state *s, uint64_t number) {
  for (held **at = &s->sessions; *at; at = &(*at)->next)
    if ((*at)->id == number) {
      held *h = *at;
      *at = h->next;
      viv_session_close(h->session);
      viv__free(h);
      break;
    }
  return VIV_OK;
}

/* fd: a memfd with a saved session, -1: a fresh one. */
static int32_t open_session(state *s, uint64_t number, int fd, viv_error *error) {
  held *h = viv__calloc(1, sizeof *h);
  if (!h) return VIV_FAIL(error, VIV_NOT_NOW, "session", "no memory");
  int32_t status;
  if (fd < 0) {
    status = viv_session_open(s->model, &h->session, error);
  } else {
    int64_t len = viv__region_size(fd, error);
    void *at = len > 0 ? mmap(NULL, (size_t)len, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    status = at == MAP_FAILED
                 ? VIV_FAIL(error, VIV_BAD_INPUT, "session", "what came can't be read")
                 : viv__session_resume(s->model, at, (size_t)len, "session", &h->session, error);
    if (at != MAP_FAILED) munmap(at, (size_t)len);
  }
  if (status < 0) {
    viv__free(h);
    return status;
  }
  h->id = number;
  h->next = s->sessions;
  s->sessions = h;
  return VIV_OK;
}

static int32_t save_session(state *s, uint64_t number, int *fd, viv_error *error) {
  char *data = NULL;
  size_t len = 0;
  held *h = s->sessions;
  while (h && h->id != number) h = h->next;
  if (!h) return VIV_FAIL(error, VIV_NOT_NOW, "session", "the session is gone; open a new one");
  int32_t status = viv__session_save(h->session, "session", &data, &len, error);
  if (status < 0) return status;
  *fd = frozen_memory("vivarium-session", data, len);
  viv__free(data);
  return *fd >= 0 ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "session", "no shared memory for it");
}

/* session_open, session_resume with a descriptor, session_save, session_close. */
static void call_session(state *s, uint64_t id, viv_str verb, const viv_json *p, int fd) {
  viv_error error = VIV_ERROR_INIT;
  viv__buf b = {0};
  uint64_t number = (uint64_t)viv__json_num(p, "session", 0);
  int saved = -1;
  int32_t status = viv__str_eq(verb, "session_close")  ? close_session(s, number)
                   : viv__str_eq(verb, "session_save") ? save_session(s, number, &saved, &error)
                                                       : open_session(s, number, fd, &error);
  viv__buf_fmt(&b, "{\"session\":%llu}", (unsigned long long)number);
  viv__wire_reply m = {.status = status, .json = {b.ptr, b.len}};
  if (status < 0) m.error = error;
  viv__buf out = {0};
  viv__wire_put_reply(&out, &m);
  viv__link_put_buf(&s->link, VIV__WIRE_REPLY, id, &out, saved);
  viv__buf_free(&b);
}

static void call_inspect(state *s, uint64_t id, viv_str verb, const viv_json *p) {
  viv_error error = VIV_ERROR_INIT;
  viv_text json = {0};
  const char *path = viv__json_text(p, "path", ""), *params = viv__json_text(p, "params", "");
  int32_t status;
  if (viv__str_eq(verb, "why"))
    status = viv_why(s->rt, path, &json, &error);
  else if (viv__str_eq(verb, "plan"))
    status = viv_plan(s->rt, path, *params ? params : NULL, &json, &error);
  else if (viv__str_eq(verb, "plugins"))
    status = viv_plugins(s->rt, &json, &error);
  else
    status = viv_machine(s->rt, &json, &error);
  reply_text(s, id, status, &error, &json);
}

void take_call(state *s, const viv__frame *f, int fd) {
  viv__wire_call m;
  viv_json *json = NULL;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__wire_call_read(f, &m, &error);
  const viv_json *p = status >= 0 ? parameters(m.params, &json, &error) : NULL;
  if (!p)
    reply(s, f->id, VIV_BAD_INPUT, &error, (viv_str){NULL, 0});
  else if (viv__str_eq(m.verb, "load"))
    call_load(s, f->id, p);
  else if (viv__str_eq(m.verb, "tokenize"))
    call_tokenize(s, f->id, p);
  else if (viv__str_eq(m.verb, "detokenize"))
    call_detokenize(s, f->id, p);
  else if (m.verb.len > 8 && !memcmp(m.verb.ptr, "session_", 8))
    call_session(s, f->id, m.verb, p, fd);
  else
    call_inspect(s, f->id, m.verb, p);
  viv__json_free(json);
}

void drop_sessions(state *s) {
  while (s->sessions) close_session(s, s->sessions->id);
}
