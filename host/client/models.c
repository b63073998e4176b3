/* Models and sessions of a daemon: what is asked for by calls. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/client.h"
#include "wire/wire.h"

static int32_t absolute(const char *path, char out[PATH_MAX], viv_error *error) {
  if (realpath(path, out)) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, path, "no model here: %s", strerror(errno));
}

static int32_t failed_text(viv__buf *b, viv_error *error) {
  viv__buf_free(b);
  return VIV_FAIL(error, VIV_NOT_NOW, "call", "no memory");
}

/* {"path": absolute, "params": text} */
static int32_t place(const char *path, const char *params, viv__buf *b, viv_error *error) {
  char real[PATH_MAX];
  int32_t status = path ? absolute(path, real, error) : VIV_OK;
  if (status < 0) return status;
  viv__buf_str(b, "{");
  if (path) {
    viv__buf_str(b, "\"path\":");
    viv__buf_json(b, viv__str(real));
  }
  if (path && params) {
    viv__buf_str(b, ",\"params\":");
    viv__buf_json(b, viv__str(params));
  }
  viv__buf_str(b, "}");
  return b->failed ? failed_text(b, error) : VIV_OK;
}

int32_t viv__remote_inspect(viv_runtime *rt, const char *verb, const char *path, const char *params,
                            viv_text *json, viv_error *error) {
  viv__buf b = {0};
  int32_t status = place(path, params, &b, error);
  if (status >= 0) status = viv__remote_call(rt, 0, verb, b.ptr, json, error);
  viv__buf_free(&b);
  return status;
}

/* {"model": number, "name": text, "about": what viv_describe says} */
static int32_t take_model(viv_model *m, const viv_text *answer, const char *path,
                          viv_error *error) {
  viv_json *json = NULL;
  int32_t status = viv__json_parse(answer->ptr, answer->len, "load", &json, error);
  if (status < 0) return status;
  const viv_json *about = viv__json_get(json, "about");
  m->remote_id = (uint64_t)viv__json_num(json, "model", 0);
  char *text = about ? cJSON_PrintUnformatted((const cJSON *)about) : NULL;
  m->remote_about = text ? viv__strdup(text) : NULL;
  m->name = viv__strdup(viv__json_text(json, "name", path));
  m->path = viv__strdup(path);
  cJSON_free(text);
  viv__json_free(json);
  if (m->remote_id && m->remote_about && m->name && m->path) return VIV_OK;
  return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory, or the daemon's answer is not whole");
}

int32_t viv__remote_load(viv_runtime *rt, const char *path, const char *params, viv_model **out,
                         viv_error *error) {
  viv__buf b = {0};
  viv_text answer = {0};
  viv_model *m = NULL;
  int32_t status = place(path, params, &b, error);
  if (status >= 0) status = viv__remote_call(rt, 0, "load", b.ptr, &answer, error);
  viv__buf_free(&b);
  if (status < 0) return status;
  m = viv__model_new(rt);
  status =
      m ? take_model(m, &answer, path, error) : VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  viv_text_free(&answer);
  if (status < 0) {
    if (m) viv__model_unref(m);
    return status;
  }
  pthread_mutex_lock(&rt->lock);
  m->next = rt->models;
  rt->models = m;
  pthread_mutex_unlock(&rt->lock);
  *out = m;
  return VIV_OK;
}

int32_t viv__remote_tokenize(viv_model *m, viv_str text, bool add_special, int32_t **ids,
                             uint64_t *n, viv_error *error) {
  viv__buf b = {0};
  viv_text answer = {0};
  viv_json *json = NULL;
  viv__buf_fmt(&b, "{\"add_special\":%s,\"text\":", add_special ? "true" : "false");
  viv__buf_json(&b, text);
  viv__buf_str(&b, "}");
  if (b.failed) return failed_text(&b, error);
  int32_t status = viv__remote_call(m->rt, m->remote_id, "tokenize", b.ptr, &answer, error);
  viv__buf_free(&b);
  if (status >= 0) status = viv__json_parse(answer.ptr, answer.len, "tokenize", &json, error);
  viv_text_free(&answer);
  if (status < 0) return status;
  const cJSON *list = (const cJSON *)viv__json_get(json, "ids"), *item;
  uint64_t count = (uint64_t)viv__json_count((const viv_json *)list), i = 0;
  *ids = viv__calloc(count ? count : 1, sizeof **ids);
  cJSON_ArrayForEach(item, list) if (*ids && i < count)(*ids)[i++] = item->valueint;
  *n = count;
  viv__json_free(json);
  return *ids ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "tokenize", "no memory");
}

int32_t viv__remote_detokenize(viv_model *m, const int32_t *ids, uint64_t n, bool skip_special,
                               viv_text *text, viv_error *error) {
  viv__buf b = {0};
  viv_text answer = {0};
  viv_json *json = NULL;
  viv__buf_fmt(&b, "{\"skip_special\":%s,\"ids\":[", skip_special ? "true" : "false");
  for (uint64_t i = 0; i < n; i++) viv__buf_fmt(&b, "%s%d", i ? "," : "", ids[i]);
  viv__buf_str(&b, "]}");
  if (b.failed) return failed_text(&b, error);
  int32_t status = viv__remote_call(m->rt, m->remote_id, "detokenize", b.ptr, &answer, error);
  viv__buf_free(&b);
  if (status >= 0) status = viv__json_parse(answer.ptr, answer.len, "detokenize", &json, error);
  viv_text_free(&answer);
  if (status < 0) return status;
  viv_str s = viv__json_string(viv__json_get(json, "text"));
  *text = (viv_text){viv__strndup(s.len ? s.ptr : "", s.len), s.len};
  viv__json_free(json);
  return text->ptr ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "detokenize", "no memory");
}

/* {"session": number} */
static int32_t session_of(viv_text *answer, uint64_t *id, viv_error *error) {
  viv_json *json = NULL;
  int32_t status = viv__json_parse(answer->ptr, answer->len, "session", &json, error);
  *id = (uint64_t)viv__json_num(json, "session", 0);
  viv__json_free(json);
  viv_text_free(answer);
  return status < 0 ? status : VIV_OK;
}

int32_t viv__remote_session_open(viv_model *m, uint64_t *id, viv_error *error) {
  viv_text answer = {0};
  int32_t status = viv__remote_call(m->rt, m->remote_id, "session_open", "{}", &answer, error);
  return status < 0 ? status : session_of(&answer, id, error);
}

int32_t viv__remote_session_save(viv_model *m, uint64_t id, char **data, size_t *len,
                                 viv_error *error) {
  char params[48];
  int fd = -1;
  snprintf(params, sizeof params, "{\"session\":%llu}", (unsigned long long)id);
  int32_t status =
      viv__remote_call_with(m->rt, m->remote_id, "session_save", params, -1, NULL, &fd, error);
  if (status < 0) return status;
  int64_t bytes = fd >= 0 ? viv__region_size(fd, error) : -1;
  void *at = bytes > 0 ? mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
  if (fd >= 0) close(fd);
  if (at == MAP_FAILED) return VIV_FAIL(error, VIV_BUG, "vivd", "sent no session");
  *data = viv__malloc((size_t)bytes);
  *len = (size_t)bytes;
  if (*data) memcpy(*data, at, *len);
  munmap(at, (size_t)bytes);
  return *data ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, "session", "no memory");
}

int32_t viv__remote_session_resume(viv_model *m, const char *data, size_t len, uint64_t *id,
                                   viv_error *error) {
  char params[48];
  viv_text answer = {0};
  void *at = NULL;
  int fd = viv__region_make("vivarium-session", len, &at);
  if (fd < 0) return VIV_FAIL(error, VIV_NOT_NOW, "session", "no shared memory of %zu bytes", len);
  memcpy(at, data, len);
  munmap(at, len);
  if (viv__region_freeze(fd)) {
    close(fd);
    return VIV_FAIL(error, VIV_NOT_NOW, "session", "its memory can't be sealed");
  }
  snprintf(params, sizeof params, "{\"bytes\":%zu}", len);
  int32_t status = viv__remote_call_with(m->rt, m->remote_id, "session_resume", params, fd, &answer,
                                         NULL, error);
  return status < 0 ? status : session_of(&answer, id, error);
}

void viv__remote_session_close(viv_model *m, uint64_t id) {
  char params[48];
  snprintf(params, sizeof params, "{\"session\":%llu}", (unsigned long long)id);
  viv__remote_call(m->rt, m->remote_id, "session_close", params, NULL, NULL);
}
