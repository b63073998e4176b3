/* Sessions of token models as files: everything that was said, and the model's own snapshot.
 *
 *   magic "VIVSESS1" | id of the checkpoint, 64 hex digits | u64 n tokens | i32 tokens[n] |
 *   u64 bytes of the snapshot | snapshot
 *
 * Little endian. A file is untrusted: lengths are held against its size, tokens against the
 * vocabulary, the snapshot is checked by the plugin. A snapshot that the plugin refuses (another
 * version of it) is no loss: the tokens are fed again. */
#include "tasks/tokens.h"

#include <string.h>

static const char magic[8] = {'V', 'I', 'V', 'S', 'E', 'S', 'S', '1'};
enum { ID = 64, HEAD = VIV__SAVED_HEAD };

void viv__tokens_session_close(viv_session *s) {
  if (s->seq >= 0) s->model->token->seq_close(s->model->handle, s->seq);
  s->seq = -1;
}

int32_t viv__saved_write(viv_model *m, const char *id, int32_t seq, const int32_t *tokens,
                         uint64_t n, const char *path, char **out, size_t *len, viv_error *error) {
  uint64_t bytes = 0;
  bool can = (m->info.caps & VIV_CAP_SNAPSHOT) && seq >= 0;
  int32_t status = can ? m->token->snapshot(m->handle, seq, NULL, 0, &bytes, error) : VIV_OK;
  if (status < 0) return status;
  size_t size = HEAD + n * 4 + 8 + bytes;
  char *data = viv__malloc(size), *at = data;
  if (!data) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory for %zu bytes", size);
  memcpy(at, magic, 8);
  memcpy(at + 8, id, ID);
  memcpy(at + 8 + ID, &n, 8);
  at += HEAD;
  if (n) memcpy(at, tokens, n * 4);
  memcpy(at + n * 4, &bytes, 8);
  if (can) status = m->token->snapshot(m->handle, seq, at + n * 4 + 8, bytes, &bytes, error);
  if (status < 0) {
    viv__free(data);
    return status;
  }
  *out = data;
  *len = size;
  return VIV_OK;
}

int64_t viv__saved_head(const char *id, const char data[VIV__SAVED_HEAD]) {
  uint64_t n;
  memcpy(&n, data + 8 + ID, 8);
  bool good = !memcmp(data, magic, 8) && !memcmp(data + 8, id, ID) && n <= INT32_MAX;
  return good ? (int64_t)n : -1;
}

int32_t viv__saved_read(const char *id, const char *name, int32_t vocab, const char *data,
                        size_t len, const char *path, viv__saved *out, viv_error *error) {
  uint64_t n, bytes;
  if (len < HEAD + 8 || memcmp(data, magic, 8))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "is no saved session");
  if (memcmp(data + 8, id, ID))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "was saved with another model than %s", name);
  memcpy(&n, data + 8 + ID, 8);
  if (n > (len - HEAD - 8) / 4)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "is cut short: %zu bytes for %llu tokens", len,
                    (unsigned long long)n);
  memcpy(&bytes, data + HEAD + n * 4, 8);
  if (bytes != len - HEAD - n * 4 - 8)
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "its snapshot has %zu bytes instead of %llu",
                    (size_t)(len - HEAD - n * 4 - 8), (unsigned long long)bytes);
  const int32_t *tokens = (const int32_t *)(const void *)(data + HEAD);
  for (uint64_t i = 0; i < n; i++)
    if (tokens[i] < 0 || tokens[i] >= vocab)
      return VIV_FAIL(error, VIV_BAD_INPUT, path, "token %llu is %d; the vocabulary has %d",
                      (unsigned long long)i, tokens[i], vocab);
  *out = (viv__saved){tokens, n, bytes, data + HEAD + n * 4 + 8};
  return VIV_OK;
}

int32_t viv__tokens_session_save(viv_session *s, const char *path, char **out, size_t *len,
                                 viv_error *error) {
  char id[ID + 1];
  viv__checkpoint_id(s->model->checkpoint, id);
  return viv__saved_write(s->model, id, s->seq, s->tokens, (uint64_t)s->n_tokens, path, out, len,
                          error);
}

int32_t viv__tokens_session_load(viv_session *s, const char *data, size_t len, const char *path,
                                 viv_error *error) {
  viv_model *m = s->model;
  viv__saved saved;
  char id[ID + 1];
  viv__checkpoint_id(m->checkpoint, id);
  int32_t status = viv__saved_read(id, m->name, m->info.vocab_size, data, len, path, &saved, error);
  if (status < 0) return status;
  s->tokens = viv__malloc(saved.n * 4);
  if (!s->tokens) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  memcpy(s->tokens, saved.tokens, saved.n * 4);
  s->n_tokens = s->cap_tokens = (int64_t)saved.n;
  if (!saved.bytes || !(m->info.caps & VIV_CAP_SNAPSHOT)) return VIV_OK;
  status = m->token->seq_open(m->handle, &s->seq, error);
  if (status < 0) return status;
  viv_error why = VIV_ERROR_INIT;
  status = m->token->restore(m->handle, s->seq, saved.snapshot, saved.bytes, &why);
  int64_t held = status >= 0 ? m->token->seq_len(m->handle, s->seq) : -1;
  if (held < 0 || held > s->n_tokens) {
    viv__logf(&m->rt->log, VIV_LOG_WARN,
              "%s: the snapshot can't be used (%s); tokens are fed again", path, why.message);
    viv__tokens_session_close(s);
  }
  return VIV_OK;
}
