/* Rounds: what all jobs of a token model want becomes one batch. */
#include "tasks/tokens.h"

#include <stdlib.h>
#include <string.h>

#include "grammar/grammar.h"
#include "tasks/constraint.h"
#include "tasks/task.h"

int32_t viv__tokens_open(viv_model *m, viv_error *error) {
  viv__engine *e = viv__calloc(1, sizeof *e);
  if (e) e->scratch = viv__arena_new(0);
  if (!e || !e->scratch) {
    viv__free(e);
    return VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory");
  }
  m->engine = e;
  return VIV_OK;
}

void viv__tokens_close(viv_model *m) {
  viv__engine *e = m->engine;
  if (!e) return;
  viv__arena_free(e->scratch);
  viv__token_trie_free(e->trie);
  viv__free(e->logits);
  viv__free(e->ids);
  viv__free(e->values);
  viv__free(e);
  m->engine = NULL;
}

const char viv__tokens_tasks[] =
    "[\"generate\",\"forward\",\"score\",\"embed\",\"encode\",\"decode\"]";

int32_t viv__engine_logits(viv_model *m, int64_t rows, viv_error *error) {
  viv__engine *e = m->engine;
  size_t need = (size_t)rows * (size_t)m->info.vocab_size;
  if (need <= e->cap_logits) return VIV_OK;
  float *grown = viv__realloc(e->logits, need * sizeof *grown);
  if (!grown)
    return VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory for %lld rows of logits",
                    (long long)rows);
  e->logits = grown;
  e->cap_logits = need;
  return VIV_OK;
}

/* ---- begin ---- */

int32_t viv__task_fail(viv__task *t, int32_t status, const viv_error *error) {
  t->status = status;
  if (error) t->error = *error;
  return status;
}

int32_t viv__tokens_begin(viv_model *m, viv_job *job, viv_error *error) {
  viv__task *t = viv__calloc(1, sizeof *t);
  if (!t) return VIV_FAIL(error, VIV_NOT_NOW, job->task, "no memory");
  *t = (viv__task){.job = job, .m = m, .status = VIV_MORE, .error = VIV_ERROR_INIT};
  t->counters.struct_size = sizeof t->counters;
  t->begun_ns = viv__now_ns();
  job->task_state = t;
  double chunk = viv__json_num(job->params, "chunk", VIV__MAX_ROWS);
  if (!(chunk >= 1 && chunk <= 1e9))
    return VIV_FAIL(error, VIV_BAD_INPUT, "params.chunk", "must be 1 or more");
  t->chunk = chunk < VIV__MAX_ROWS ? (int64_t)chunk : VIV__MAX_ROWS;
  if (!strcmp(job->task, "generate"))
    t->kind = VIV__GENERATE;
  else if (!strcmp(job->task, "forward"))
    t->kind = VIV__FORWARD;
  else if (!strcmp(job->task, "score"))
    t->kind = VIV__SCORE;
  else if (!strcmp(job->task, "embed"))
    t->kind = VIV__EMBED;
  else
    return VIV_FAIL(error, VIV_NEVER, "task", "\"%s\" is none of this model's tasks: %s", job->task,
                    viv__tokens_tasks);
  if (t->kind == VIV__GENERATE) return viv__generate_begin(t, error);
  if (t->kind == VIV__EMBED) return viv__embed_begin(t, error);
  return viv__forward_begin(t, error);
}

/* ---- emitting ---- */

/* Sends what is ready. False: the consumer is slow, or emitting failed (status says so). */
static bool flush(viv__task *t) {
  if (t->kind == VIV__GENERATE)
    for (int32_t i = 0; i < t->n_rows; i++)
      if (!viv__generate_flush(&t->lanes[i])) return false;
  while (t->complete && t->emitted < t->n_outs) {
    viv__out *out = &t->outs[t->emitted];
    viv_event e = {.struct_size = sizeof e,
                   .kind = VIV_KIND_TENSOR,
                   .flags = out->flags,
                   .name = viv__str(out->name),
                   .tensor = &out->tensor};
    int32_t status = viv__job_emit(t->job, &e);
    if (status == VIV_WAIT) {
      t->job->waiting = true;
      return false;
    }
    if (status < 0) {
      viv__task_fail(t, status, NULL);
      return false;
    }
    viv__free(out->tensor.data);
    out->tensor.data = NULL;
    t->emitted++;
  }
  if (t->complete) t->status = VIV_DONE;
  return true;
}

static void progress(viv__lane *lane) {
  if (lane->n_prompt <= VIV__MAX_ROWS) return;
  viv_event e = {.struct_size = sizeof e,
                 .kind = VIV_KIND_PROGRESS,
                 .name = viv__str("prefill"),
                 .progress = (double)lane->fed / (double)lane->n_prompt};
  viv__job_emit(lane->task->job, &e); /* a slow consumer misses a tick, no more */
}

/* ---- the batch ---- */

/* Whether a want can share a batch with others. */
static bool plain(const viv_strategy_want *w) {
  const viv_batch *b = w->batch;
  return b->input_kind == VIV_INPUT_TOKENS && !b->pos && b->layer_begin == 0 && b->layer_end == 0 &&
         b->mask_kind == VIV_MASK_CAUSAL && b->kv_write == VIV_KV_APPEND && !b->skip_attn &&
         !b->skip_mlp && !b->n_expert_ranks && !b->n_births && !b->n_capture &&
         b->n_rows <= VIV__MAX_ROWS;
}

static bool prefilling(const viv__lane *lane) {
  return lane->fed < lane->n_prompt - 1;
}

static bool add_prefill(viv__batch *b, viv__lane *lane) {
  int64_t n = lane->n_prompt - 1 - lane->fed, room = VIV__MAX_ROWS - b->n;
  if (n > lane->task->chunk) n = lane->task->chunk;
  if (n > room) n = room;
  if (n <= 0 || (b->n && b->flags)) return false;
  b->parts[b->n_parts++] = (viv__part){lane, b->n, (int32_t)n, b->n_logits, 0, true};
  for (int64_t i = 0; i < n; i++) {
    b->tokens[b->n] = lane->prompt[lane->fed + i];
    b->seq[b->n++] = lane->seq;
  }
  return true;
}

static bool add_want(viv__batch *b, viv__lane *lane) {
  const viv_batch *w = lane->want.batch;
  if (b->n + w->n_rows > 2 * VIV__MAX_ROWS || b->n_parts == VIV__MAX_ROWS) return false;
  if (b->n && b->flags != w->flags) return false;
  b->flags = w->flags;
  viv__part *p = &b->parts[b->n_parts++];
  *p = (viv__part){lane, b->n, w->n_rows, b->n_logits, w->n_logit_rows, false};
  for (int32_t i = 0; i < w->n_logit_rows; i++)
    b->logit_rows[b->n_logits++] = b->n + w->logit_rows[i];
  for (int32_t i = 0; i < w->n_rows; i++) {
    b->tokens[b->n] = w->tokens[i];
    b->seq[b->n++] = lane->local[w->seq ? w->seq[i] : 0];
  }
  return true;
}

/* A batch of one job stops when the job does; a shared one runs through. */
int32_t viv__task_poll(void *job) {
  return viv__job_poll(job);
}

static int32_t run_batch(viv_model *m, viv__batch *b, viv_error *error) {
  viv__engine *e = m->engine;
  int32_t status = viv__engine_logits(m, b->n_logits, error);
  if (status < 0) return status;
  viv_job *only = b->parts[0].lane->task->job;
  for (int32_t i = 1; i < b->n_parts; i++)
    if (b->parts[i].lane->task->job != only) only = NULL;
  viv_batch in = {.struct_size = sizeof in,
                  .flags = b->flags,
                  .n_rows = b->n,
                  .tokens = b->tokens,
                  .seq = b->seq,
                  .logit_rows = b->logit_rows,
                  .n_logit_rows = b->n_logits,
                  .scratch = e->scratch,
                  .poll_self = only,
                  .poll = only ? viv__task_poll : NULL};
  viv_eval_out out = {.struct_size = sizeof out, .logits = e->logits};
  status = m->token->eval(m->handle, &in, &out, error);
  viv__arena_reset(e->scratch);
  return status;
}

/* Gives each lane its share of the result. */
static void distribute(viv_model *m, viv__batch *b) {
  for (int32_t i = 0; i < b->n_parts; i++) {
    viv__part *p = &b->parts[i];
    viv__lane *lane = p->lane;
    lane->task->evals++;
    if (p->prefill) {
      lane->fed += p->n;
      progress(lane);
      if (!prefilling(lane)) viv__prompt_keep(lane);
      continue;
    }
    viv_error error = VIV_ERROR_INIT;
    float *logits = m->engine->logits + (size_t)p->first_logit * (size_t)m->info.vocab_size;
    int32_t status = viv__generate_result(lane, logits, &error);
    if (status < 0) viv__task_fail(lane->task, status, &error);
  }
}

/* A want that needs its own evaluation: other masks, layers, inputs. */
static int32_t run_alone(viv_model *m, viv__lane *lane, viv_error *error) {
  viv__engine *e = m->engine;
  viv_batch in = *lane->want.batch;
  int32_t status = viv__engine_logits(m, in.n_logit_rows, error);
  if (status < 0) return status;
  int32_t *seq = viv__arena_alloc(e->scratch, (uint64_t)in.n_rows * sizeof *seq);
  float *hidden = NULL;
  if (in.n_capture)
    hidden = viv__malloc((size_t)in.n_capture * (size_t)in.n_rows * (size_t)m->info.d_model * 4);
  if (!seq || (in.n_capture && !hidden)) {
    viv__free(hidden);
    return VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory for the batch");
  }
  for (int32_t i = 0; i < in.n_rows; i++) seq[i] = lane->local[in.seq ? in.seq[i] : 0];
  in.struct_size = sizeof in;
  in.seq = seq;
  in.scratch = e->scratch;
  in.taps = NULL;
  in.poll_self = lane->task->job;
  in.poll = viv__task_poll;
  viv_eval_out out = {.struct_size = sizeof out, .logits = e->logits, .hidden = hidden};
  status = m->token->eval(m->handle, &in, &out, error);
  viv__arena_reset(e->scratch);
  lane->task->evals++;
  if (status >= 0) status = viv__generate_result(lane, e->logits, error);
  viv__free(hidden);
  return status;
}

/* When a shared batch fails, each part is tried alone, so that one job's fault ends one job. */
static void run_parts(viv_model *m, viv__batch *b) {
  for (int32_t i = 0; i < b->n_parts; i++) {
    viv__lane *lane = b->parts[i].lane;
    if (lane->task->status != VIV_MORE) continue;
    viv__batch *one = viv__calloc(1, sizeof *one);
    viv_error error = VIV_ERROR_INIT;
    int32_t status = one ? VIV_OK : VIV_FAIL(&error, VIV_NOT_NOW, m->name, "no memory");
    if (one) {
      if (b->parts[i].prefill)
        add_prefill(one, lane);
      else
        add_want(one, lane);
      status = run_batch(m, one, &error);
      if (status >= 0) distribute(m, one);
    }
    viv__free(one);
    if (status < 0) viv__task_fail(lane->task, status, &error);
  }
}

/* One lane's turn that can't be shared, or its rows into the batch. True: the round is used up. */
static bool serve(viv_model *m, viv__batch *b, viv__task *t) {
  viv_error error = VIV_ERROR_INIT;
  int32_t status = VIV_OK;
  if (t->kind != VIV__GENERATE) {
    if (b->n) return false;
    status = t->kind == VIV__EMBED ? viv__embed_step(t, &error) : viv__forward_step(t, &error);
    if (status < 0) viv__task_fail(t, status, &error);
    return true;
  }
  for (int32_t i = 0; i < t->n_rows && t->status == VIV_MORE; i++) {
    viv__lane *lane = &t->lanes[i];
    if (lane->done) continue;
    if (prefilling(lane)) {
      add_prefill(b, lane);
    } else if (lane->has_want && plain(&lane->want)) {
      add_want(b, lane);
    } else if (lane->has_want && !b->n) {
      status = run_alone(m, lane, &error);
      if (status < 0) viv__task_fail(t, status, &error);
      return true;
    }
  }
  return false;
}

/* Whether the job can make a step now; flushes what waits to be sent first. */
static bool ready(viv_job *job) {
  viv__task *t = job->task_state;
  if (t->status != VIV_MORE) return false;
  int32_t status = viv__job_poll(job);
  if (status < 0) {
    viv__task_fail(t, status, NULL);
    return false;
  }
  if (job->waiting && !atomic_load(&job->kicked)) return false;
  job->waiting = false;
  return flush(t) && t->status == VIV_MORE;
}

void viv__tokens_round(viv_model *m) {
  viv_job *jobs[64];
  int n = 0;
  for (viv_job *job = m->active; job && n < 64; job = job->next)
    if (ready(job)) jobs[n++] = job;
  if (!n) return;
  viv__batch *b = &m->engine->batch;
  b->n = b->n_logits = b->n_parts = 0;
  b->flags = 0;
  uint64_t turn = m->engine->turn++;
  bool used = false;
  for (int i = 0; i < n && !used; i++)
    used = serve(m, b, jobs[(turn + (uint64_t)i) % (uint64_t)n]->task_state);
  if (b->n) {
    viv_error error = VIV_ERROR_INIT;
    int32_t status = run_batch(m, b, &error);
    if (status >= 0)
      distribute(m, b);
    else if (b->n_parts > 1)
      run_parts(m, b);
    else
      viv__task_fail(b->parts[0].lane->task, status, &error);
  }
  for (int i = 0; i < n; i++) {
    viv__task *t = jobs[i]->task_state;
    if (t->status == VIV_MORE) flush(t);
  }
}

/* ---- the end ---- */

int32_t viv__tokens_status(viv_job *job, viv_error *error) {
  viv__task *t = job->task_state;
  if (t->status < 0 && error) *error = t->error;
  return t->status;
}

static char *counters(viv__task *t) {
  viv__buf b = {0};
  double prefill =
      (double)(t->prefilled_ns > t->begun_ns ? t->prefilled_ns - t->begun_ns : 0) / 1e6;
  double decode = t->prefilled_ns ? (double)(viv__now_ns() - t->prefilled_ns) / 1e6 : 0;
  viv__buf_fmt(&b,
               "{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,\"prefill_ms\":%.3f,"
               "\"decode_ms\":%.3f,\"evals\":%lld",
               (long long)t->prompt_tokens, (long long)t->new_tokens, prefill, decode,
               (long long)t->evals);
  int64_t known = 0;
  for (int32_t i = 0; t->lanes && i < t->n_rows; i++) known += t->lanes[i].known;
  if (known) viv__buf_fmt(&b, ",\"known_tokens\":%lld", (long long)known);
  if (t->kind == VIV__GENERATE) {
    const char *finish = t->lanes && t->lanes[0].finish ? t->lanes[0].finish : "cancelled";
    viv__buf_fmt(&b,
                 ",\"finish_reason\":\"%s\",\"target_calls\":%lld,\"drafted\":%lld,"
                 "\"accepted\":%lld",
                 finish, (long long)t->counters.target_calls, (long long)t->counters.drafted,
                 (long long)t->counters.accepted);
  }
  viv__buf_str(&b, "}");
  if (b.failed) viv__buf_free(&b);
  return b.ptr;
}

static void free_lane(viv__lane *lane) {
  viv__generate_release(lane);
  viv__constraint_close(lane->constraint);
  viv__json_free(lane->results);
  for (size_t i = 0; i < lane->n_taps; i++) {
    viv__free(lane->taps[i].name);
    viv__buf_free(&lane->taps[i].data);
  }
  viv__free(lane->taps);
  viv__free(lane->prompt);
  viv__free(lane->column);
  viv__free(lane->mirror);
  viv__free(lane->out);
  viv__free(lane->raw);
  viv__buf_free(&lane->logprobs);
  viv__free(lane->step_logits);
  viv__detokenizer_free(lane->detokenizer);
  viv__buf_free(&lane->text);
  viv__buf_free(&lane->whole);
}

char *viv__tokens_end(viv_model *m, viv_job *job) {
  viv__task *t = job->task_state;
  if (!t) return NULL;
  char *text = counters(t);
  for (int32_t i = 0; t->lanes && i < t->n_rows; i++) free_lane(&t->lanes[i]);
  viv__free(t->lanes);
  for (size_t i = 0; i < t->n_outs; i++) {
    viv__free(t->outs[i].name);
    viv__free(t->outs[i].tensor.data);
  }
  viv__free(t->outs);
  viv__free(t->logits);
  viv__free(t->nll);
  viv__free(t->argmax);
  viv__free(t->pooled);
  viv__grammar_free(t->grammar);
  viv__release(m->rt, t->reserved);
  viv__free(t);
  job->task_state = NULL;
  return text;
}
