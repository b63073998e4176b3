/* Sessions: what a model keeps between jobs. */
#include "client/client.h"
#include "core/core.h"
#include "tasks/tokens.h"

#include <string.h>

#define SESSION_LIMIT ((size_t)1 << 36)

/* saved, of len bytes: what a daemon is to begin with; NULL: nothing. */
static int32_t open_session(viv_model *m, const char *saved, size_t len, viv_session **out,
                            viv_error *error) {
  if (!m->rt->remote && !m->token && !m->api->session_open)
    return VIV_FAIL(error, VIV_NEVER, m->name, "this model keeps nothing between jobs");
  viv_session *s = viv__calloc(1, sizeof *s);
  if (!s) return VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory for a session");
  s->model = m;
  s->seq = -1;
  atomic_init(&s->refs, 1);
  if (m->rt->remote) {
    int32_t status = saved ? viv__remote_session_resume(m, saved, len, &s->remote_id, error)
                           : viv__remote_session_open(m, &s->remote_id, error);
    if (status < 0) {
      viv__session_unref(s);
      return status;
    }
  } else if (!m->token) {
    int32_t status = viv__reserve(m->rt, m->plan.session_bytes, "session", error);
    if (status == VIV_OK) {
      s->reserved = m->plan.session_bytes;
      s->arena = viv__arena_new(0);
      status = s->arena ? m->api->session_open(m->handle, s->arena, &s->handle, error)
                        : VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory for a session");
    }
    if (status < 0) {
      viv__session_unref(s);
      return status;
    }
  }
  atomic_fetch_add(&m->refs, 1);
  *out = s;
  return VIV_OK;
}

int32_t viv_session_open(viv_model *m, viv_session **out, viv_error *error) {
  if (!m || !out) return VIV_FAIL(error, VIV_BAD_INPUT, "session", "model or out is NULL");
  return open_session(m, NULL, 0, out, error);
}

void viv__session_unref(viv_session *s) {
  if (atomic_fetch_sub(&s->refs, 1) != 1) return;
  viv__release(s->model->rt, s->reserved);
  viv__arena_free(s->arena);
  viv__free(s->tokens);
  viv__free(s);
}

void viv_session_close(viv_session *s) {
  if (!s) return;
  viv_model *m = s->model;
  if (m->rt->remote) {
    viv__remote_session_close(m, s->remote_id);
  } else if (m->handle) {
    viv__model_claim(m);
    int32_t role = viv__thread_role(VIV_THREAD_JOB);
    if (m->token)
      viv__tokens_session_close(s);
    else if (s->handle)
      m->api->session_close(s->handle);
    s->handle = NULL;
    viv__thread_role(role);
    viv__model_unclaim(m);
  }
  viv__session_unref(s);
  viv__model_unref(m);
}

int32_t viv__session_save(viv_session *s, const char *path, char **data, size_t *len,
                          viv_error *error) {
  if (s->model->rt->remote)
    return viv__remote_session_save(s->model, s->remote_id, data, len, error);
  if (!s->model->token)
    return VIV_FAIL(error, VIV_NEVER, s->model->name, "sessions of this model can't be saved");
  viv__model_claim(s->model);
  int32_t role = viv__thread_role(VIV_THREAD_JOB);
  int32_t status = s->busy ? VIV_FAIL(error, VIV_NOT_NOW, path, "a job of the session is running")
                           : viv__tokens_session_save(s, path, data, len, error);
  viv__thread_role(role);
  viv__model_unclaim(s->model);
  return status;
}

int32_t viv_session_save(viv_session *s, const char *path, viv_error *error) {
  char *data = NULL;
  size_t len = 0;
  if (!s || !path) return VIV_FAIL(error, VIV_BAD_INPUT, "session", "session or path is NULL");
  int32_t status = viv__session_save(s, path, &data, &len, error);
  if (status < 0) return status;
  status = viv__write_file(path, data, len, error);
  viv__free(data);
  return status < 0 ? status : VIV_OK;
}

int32_t viv__session_resume(viv_model *m, const char *data, size_t len, const char *path,
                            viv_session **out, viv_error *error) {
  viv_session *s = NULL;
  if (!m->rt->remote && !m->token)
    return VIV_FAIL(error, VIV_NEVER, m->name, "sessions of this model can't be saved");
  int32_t status = open_session(m, m->rt->remote ? data : NULL, len, &s, error);
  if (status < 0) return status;
  if (!m->rt->remote) {
    viv__model_claim(m);
    int32_t role = viv__thread_role(VIV_THREAD_JOB);
    status = viv__tokens_session_load(s, data, len, path, error);
    viv__thread_role(role);
    viv__model_unclaim(m);
  }
  if (status < 0)
    viv_session_close(s);
  else
    *out = s;
  return status;
}

int32_t viv_session_resume(viv_model *m, const char *path, viv_session **out, viv_error *error) {
  char *data = NULL;
  size_t len = 0;
  if (!m || !path || !out)
    return VIV_FAIL(error, VIV_BAD_INPUT, "session", "model, path or out is NULL");
  int32_t status = viv__read_file(path, SESSION_LIMIT, &data, &len, error);
  if (status >= 0) status = viv__session_resume(m, data, len, path, out, error);
  viv__free(data);
  return status;
}
