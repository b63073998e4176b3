/* Prompts whose beginning the model has read before: the state that it left is taken up instead.
 *
 * The state kept is that behind the last token which is fed before a choice is made, so that the same prompt, and
 * one that continues it (the next turn of a chat), need not be read again; a model that can cut its state
 * takes up any common beginning. What is kept is a saved session's bytes (session_file.c) and, because a wrong
 * number in a state would go unnoticed, their SHA-256 as 64 hex digits. Only models whose rows do not depend on the rows beside them take part:
 * the tokens that follow are then the same, bit for bit. */
#include "tasks/task.h"
#include "tasks/tokens.h"

#include <string.h>

/* Fewer tokens are read again sooner than a state is written and found. */
enum { LEAST = 64 };

static const viv__prompts *keeper(const viv__lane *lane) {
  const viv_model *m = lane->task->m;
  const uint32_t needed = VIV_CAP_STRICT_ROWS | VIV_CAP_SNAPSHOT;
  bool takes_part = m->rt->prompts && lane->owns_seq && (m->info.caps & needed) == needed &&
                    !(m->info.caps & VIV_CAP_ENCODER) && lane->n_prompt > LEAST;
  return takes_part ? m->rt->prompts : NULL;
}

enum { HASH = 64 };

/* The bytes before the hash; 0: they are not what was kept. */
static size_t checked(const char *data, size_t len) {
  char hash[HASH + 1];
  if (len < HASH) return 0;
  viv__hash_bytes(data, len - HASH, hash);
  return memcmp(data + len - HASH, hash, HASH) ? 0 : len - HASH;
}

/* How much of it is this prompt's beginning; 0: nothing that helps. */
static int64_t common(const viv__lane *lane, const viv__saved *saved, bool cut) {
  int64_t n = 0, most = lane->n_prompt - 1;
  while (n < most && n < (int64_t)saved->n && lane->prompt[n] == saved->tokens[n]) n++;
  return n < LEAST || (n < (int64_t)saved->n && !cut) ? 0 : n;
}

static int32_t take_up(viv__lane *lane, const viv__saved *saved, int64_t n, viv_error *error) {
  viv_model *m = lane->task->m;
  int32_t status = m->token->restore(m->handle, lane->seq, saved->snapshot, saved->bytes, error);
  if (status >= 0 && m->token->seq_len(m->handle, lane->seq) != (int64_t)saved->n)
    status = VIV_FAIL(error, VIV_BAD_INPUT, "prompt", "the state holds another number of tokens");
  if (status >= 0 && n < (int64_t)saved->n)
    status = m->token->seq_truncate(m->handle, lane->seq, n, error);
  return status;
}

int32_t viv__prompt_take_up(viv__lane *lane, viv_error *error) {
  viv_model *m = lane->task->m;
  const viv__prompts *p = keeper(lane);
  bool cut = m->info.caps & VIV_CAP_TRUNCATE;
  char *data = NULL;
  size_t len = 0;
  viv__saved saved;
  viv_error why = VIV_ERROR_INIT;
  if (!p || !p->find(p->self, lane->prompt, lane->n_prompt - 1, LEAST, cut, &data, &len))
    return VIV_OK;
  len = checked(data, len);
  int32_t status =
      len ? viv__saved_read(p->id, m->name, m->info.vocab_size, data, len, "prompt", &saved, &why)
          : VIV_FAIL(&why, VIV_BAD_INPUT, "prompt", "its bytes are not those that were kept");
  int64_t n = status >= 0 ? common(lane, &saved, cut) : 0;
  if (n) status = take_up(lane, &saved, n, &why);
  viv__free(data);
  if (status >= 0) {
    lane->fed = lane->known = n;
    return VIV_OK;
  }
  /* What lies on a disk may be anything: the prompt is read as if there had been nothing. */
  viv__logf(&m->rt->log, VIV_LOG_WARN, "a kept prompt can't be used: %s", why.message);
  m->token->seq_close(m->handle, lane->seq);
  lane->seq = -1;
  status = m->token->seq_open(m->handle, &lane->seq, error);
  lane->local[0] = lane->seq;
  return status;
}

void viv__prompt_keep(viv__lane *lane) {
  viv_model *m = lane->task->m;
  const viv__prompts *p = keeper(lane);
  uint64_t bytes = 0;
  char *data = NULL;
  size_t len = 0;
  if (!p || lane->fed - lane->known < LEAST) return;
  if (m->token->snapshot(m->handle, lane->seq, NULL, 0, &bytes, NULL) < 0 || bytes > p->most ||
      viv__saved_write(m, p->id, lane->seq, lane->prompt, (uint64_t)lane->fed, "prompt", &data,
                       &len, NULL) < 0)
    return;
  char *whole = len + HASH < p->most ? viv__realloc(data, len + HASH + 1) : NULL;
  if (whole) {
    viv__hash_bytes(whole, len, whole + len);
    p->keep(p->self, whole, len + HASH);
    data = whole;
  }
  viv__free(data);
}
