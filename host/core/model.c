/* Loading models, and handing jobs to them. */
#include "client/client.h"
#include "core/core.h"
#include "tasks/tokens.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ACTIVE = 16 };

/* ---- loading ---- */

static const struct {
  const char *name;
  int32_t policy;
} policies[] = {{"as-stored", VIV_WEIGHTS_AS_STORED}, {"f32", VIV_WEIGHTS_F32},
                {"bf16", VIV_WEIGHTS_BF16},           {"f16", VIV_WEIGHTS_F16},
                {"int8", VIV_WEIGHTS_INT8},           {"int4", VIV_WEIGHTS_INT4}};

static int32_t weight_policy(const viv_json *params, int32_t *policy, viv_error *error) {
  const char *wanted = viv__json_text(params, "weights", "as-stored");
  for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
    if (!strcmp(wanted, policies[i].name)) {
      *policy = policies[i].policy;
      return VIV_OK;
    }
  return VIV_FAIL(error, VIV_BAD_INPUT, "params.weights",
                  "\"%s\" is none of as-stored, f32, bf16, f16, int8, int4", wanted);
}

/* Opens the directory, finds the plugin, asks for the plan. On success the model holds checkpoint,
 * plugin and plan; the caller frees it with discard on failure. */
static int32_t prepare(viv_runtime *rt, const char *path, const char *params, viv_model *m,
                       viv_model_source *source, viv_error *error) {
  int32_t status = VIV_OK, policy = VIV_WEIGHTS_AS_STORED;
  if (params) status = viv__json_parse(params, strlen(params), "params", &m->params, error);
  if (status == VIV_OK && params && viv__json_type(m->params) != VIV_JSON_OBJECT)
    status = VIV_FAIL(error, VIV_BAD_INPUT, "params", "must be a JSON object");
  if (status == VIV_OK) status = weight_policy(m->params, &policy, error);
  if (status == VIV_OK) status = viv__checkpoint_open(path, &m->checkpoint, error);
  if (status < 0) return status;
  const viv_json *config = viv__checkpoint_config(m->checkpoint);
  if (!config)
    return VIV_FAIL(error, VIV_BAD_INPUT, path,
                    "there is no config.json: nothing says what model this is");
  pthread_mutex_lock(&rt->lock);
  status = viv__route(rt, m->checkpoint, path, viv__json_text(m->params, "plugin", NULL),
                      &m->plugin, NULL, error);
  pthread_mutex_unlock(&rt->lock);
  if (status < 0) return status;
  m->api = m->plugin->model;
  m->token = m->plugin->token;
  if (!m->api)
    return VIV_FAIL(error, VIV_BUG, m->plugin->id,
                    "its manifest promises " VIV_MODEL_ID ", the plugin does not offer it whole");
  const char *dir = viv__checkpoint_dir(m->checkpoint), *base = strrchr(dir, '/');
  /* A file that is the whole model goes by its own name. */
  const char *file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
  bool alone = !viv__checkpoint_folder(m->checkpoint);
  m->name = viv__strdup(alone ? file : base && base[1] ? base + 1 : dir);
  m->path = alone ? viv__path_join(dir, file) : viv__strdup(dir);
  if (!m->name || !m->path) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  m->weight_bytes = viv__checkpoint_bytes(m->checkpoint);
  *source = (viv_model_source){.struct_size = sizeof *source,
                               .weight_policy = policy,
                               .name = viv__str(m->name),
                               .config = config,
                               .params = m->params,
                               .checkpoint = m->checkpoint};
  m->plan = (viv_memory_plan){.struct_size = sizeof m->plan};
  int32_t role = viv__thread_role(VIV_THREAD_LOADER);
  status = m->api->plan(&rt->host, source, &m->plan, error);
  viv__thread_role(role);
  return status;
}

/* What one sequence of the longest useful length would take; the budget is held against the weights
 * and the model's fixed part when it is loaded, and against each sequence when a job starts. */
static uint64_t fixed_bytes(const viv_model *m) {
  return m->weight_bytes + m->plan.model_bytes + m->plan.step_bytes;
}

static void discard(viv_model *m) {
  viv__tokenizer_close(m->tokenizer);
  viv__free(m->tokenizer_error);
  viv__chat_close(m->chat);
  viv__free(m->chat_error);
  viv__arena_free(m->arena);
  viv__checkpoint_close(m->checkpoint);
  viv__json_free(m->params);
  viv__free(m->name);
  viv__free(m->path);
  viv__free(m->remote_about);
  viv__free(m->eos);
  pthread_cond_destroy(&m->wake);
  pthread_mutex_destroy(&m->lock);
  viv__free(m);
}

/* A whole number among the parameters of loading; fallback when it is absent. */
static int32_t load_count(const viv_model *m, const char *key, int64_t fallback, int64_t most,
                          int64_t *out, viv_error *error) {
  double v = viv__json_num(m->params, key, (double)fallback);
  if (!(v >= 1 && v <= (double)most) || v != (double)(int64_t)v)
    return VIV_FAIL(error, VIV_BAD_INPUT, key, "must be a whole number from 1 to %lld",
                    (long long)most);
  *out = (int64_t)v;
  return VIV_OK;
}

viv_model *viv__model_new(viv_runtime *rt) {
  viv_model *m = viv__calloc(1, sizeof *m);
  if (!m) return NULL;
  m->rt = rt;
  atomic_init(&m->refs, 1);
  pthread_mutex_init(&m->lock, NULL);
  pthread_cond_init(&m->wake, NULL);
  m->max_active = MAX_ACTIVE;
  return m;
}

/* A model without a usable chat template still continues texts; messages will say why not. */
static int32_t load_chat(viv_model *m, viv_str config, viv_error *error) {
  viv_str jinja;
  viv_error why = VIV_ERROR_INIT;
  int32_t status = viv__checkpoint_read(m->checkpoint, "chat_template.jinja", &jinja, &why);
  if (status < 0) jinja = (viv_str){NULL, 0};
  if (status != VIV_NOT_NOW) status = viv__chat_open(config, jinja, &m->chat, &why);
  if (status == VIV_NOT_NOW) {
    if (error && VIV_HAS(error, message)) *error = why;
    return status;
  }
  viv__buf b = {0};
  viv__buf_fmt(&b, "%s: %s", why.where, why.message);
  if (status < 0) m->chat_error = viv__strdup(b.ptr ? b.ptr : why.message);
  viv__buf_free(&b);
  return VIV_OK;
}

static int32_t read_checkpoint(void *checkpoint, const char *name, viv_str *bytes,
                               viv_error *error) {
  return viv__checkpoint_read(checkpoint, name, bytes, error);
}

static int32_t load_tokenizer(viv_model *m, viv_error *error) {
  viv_str config;
  viv_error why = VIV_ERROR_INIT;
  int32_t status = viv__checkpoint_read(m->checkpoint, "tokenizer_config.json", &config, &why);
  if (status < 0) config = (viv_str){NULL, 0};
  if (status != VIV_NOT_NOW)
    status = viv__tokenizer_open_files(read_checkpoint, m->checkpoint, config, &m->tokenizer, &why);
  if (status == VIV_OK) return load_chat(m, config, error);
  if (status == VIV_NOT_NOW) {
    if (error && VIV_HAS(error, message)) *error = why;
    return status;
  }
  /* A model without a tokenizer still takes and gives ids; text inputs will say why not. */
  m->tokenizer_error = viv__strdup(why.message);
  return VIV_OK;
}

static int32_t open_tokens(viv_model *m, viv_error *error) {
  m->info = (viv_token_info){.struct_size = sizeof m->info};
  int32_t status = m->token->info(m->handle, &m->info);
  if (status < 0 || m->info.vocab_size <= 0 || m->info.d_model <= 0 || m->info.n_layers <= 0)
    return VIV_FAIL(error, VIV_BUG, m->plugin->id, "its token-model info is missing or senseless");
  int64_t most = m->info.context_max ? m->info.context_max : INT64_C(1) << 40;
  status = load_count(m, "context", most, most, &most, error);
  if (status < 0) return status;
  if (m->info.context_max || viv__json_get(m->params, "context")) m->info.context_max = most;
  status = load_tokenizer(m, error);
  return status == VIV_OK ? viv__tokens_open(m, error) : status;
}

static int32_t open_model(viv_model *m, viv_model_source *source, viv_error *error) {
  viv_runtime *rt = m->rt;
  int64_t max_jobs = MAX_ACTIVE;
  int32_t status = load_count(m, "max_jobs", MAX_ACTIVE, 4 * MAX_ACTIVE, &max_jobs, error);
  if (status == VIV_OK) status = viv__reserve(rt, fixed_bytes(m), m->name, error);
  if (status < 0) return status;
  m->max_active = (int)max_jobs;
  m->reserved = fixed_bytes(m);
  m->arena = viv__arena_new(0);
  if (!m->arena) return VIV_FAIL(error, VIV_NOT_NOW, m->name, "no memory");
  viv__arena_large_pages(m->arena);
  source->arena = m->arena;
  int32_t role = viv__thread_role(VIV_THREAD_LOADER);
  viv_error why = VIV_ERROR_INIT;
  status = m->api->open(&rt->host, source, &m->handle, &why);
  if (status < 0 && error && VIV_HAS(error, message)) *error = why;
  if (status >= 0 && !m->handle)
    status = VIV_FAIL(error, VIV_BUG, m->plugin->id, "open answered OK without a model");
  if (status >= 0) status = m->token ? open_tokens(m, error) : load_tokenizer(m, error);
  viv__thread_role(role);
  if (status >= 0 && pthread_create(&m->thread, NULL, viv__worker, m))
    status = VIV_FAIL(error, VIV_NOT_NOW, m->name, "no thread for the model's worker");
  if (status >= 0) m->has_thread = true;
  return status < 0 ? status : VIV_OK;
}

static void close_handle(viv_model *m) {
  int32_t role = viv__thread_role(VIV_THREAD_LOADER);
  viv__tokens_close(m);
  if (m->handle) m->api->close(m->handle);
  m->handle = NULL;
  viv__thread_role(role);
  viv__release(m->rt, m->reserved);
  m->reserved = 0;
}

int32_t viv_load(viv_runtime *rt, const char *path, const char *params, viv_model **out,
                 viv_error *error) {
  if (!rt || !path || !out)
    return VIV_FAIL(error, VIV_BAD_INPUT, "viv_load", "runtime, path or out is NULL");
  if (rt->remote) return viv__remote_load(rt, path, params, out, error);
  viv_model *m = viv__model_new(rt);
  if (!m) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  viv_model_source source;
  int32_t status = prepare(rt, path, params, m, &source, error);
  if (status >= 0) status = open_model(m, &source, error);
  if (status < 0) {
    close_handle(m);
    discard(m);
    return status;
  }
  pthread_mutex_lock(&rt->lock);
  m->next = rt->models;
  rt->models = m;
  pthread_mutex_unlock(&rt->lock);
  viv__logf(&rt->log, VIV_LOG_INFO, "loaded %s with plugin %s", m->path, m->plugin->id);
  *out = m;
  return VIV_OK;
}

void viv__model_unref(viv_model *m) {
  if (atomic_fetch_sub(&m->refs, 1) == 1) discard(m);
}

void viv_unload(viv_model *m) {
  if (!m) return;
  viv_runtime *rt = m->rt;
  pthread_mutex_lock(&rt->lock);
  for (viv_model **at = &rt->models; *at; at = &(*at)->next)
    if (*at == m) {
      *at = m->next;
      break;
    }
  pthread_mutex_unlock(&rt->lock);
  if (rt->remote) {
    viv__remote_settle(m);
    viv__model_unref(m);
    return;
  }
  pthread_mutex_lock(&m->lock);
  m->stopping = true;
  pthread_cond_broadcast(&m->wake);
  pthread_mutex_unlock(&m->lock);
  if (m->has_thread) pthread_join(m->thread, NULL);
  close_handle(m);
  viv__model_unref(m);
}

/* ---- documents ---- */

static void plan_json(const viv_model *m, viv__buf *b) {
  const viv_memory_plan *p = &m->plan;
  viv__buf_fmt(b,
               "{\"weights_bytes\":%llu,\"model_bytes\":%llu,\"session_bytes\":%llu,"
               "\"session_token_bytes\":%llu,\"step_bytes\":%llu,\"step_row_bytes\":%llu,"
               "\"context_max\":%lld,\"needed_bytes\":%llu,\"budget_bytes\":%llu,"
               "\"available_bytes\":%llu}",
               (unsigned long long)m->weight_bytes, (unsigned long long)p->model_bytes,
               (unsigned long long)p->session_bytes, (unsigned long long)p->session_token_bytes,
               (unsigned long long)p->step_bytes, (unsigned long long)p->step_row_bytes,
               (long long)p->context_max, (unsigned long long)(fixed_bytes(m) + p->session_bytes),
               (unsigned long long)m->rt->budget,
               (unsigned long long)(m->rt->budget - atomic_load(&m->rt->reserved)));
}

static uint64_t parameters(const viv_model *m) {
  uint64_t n = 0;
  for (int64_t i = 0; i < viv__tensor_count(m->checkpoint); i++) {
    viv_str name;
    viv_tensor t = {.struct_size = sizeof t};
    if (viv__tensor_at(m->checkpoint, i, &name, &t) < 0) continue;
    uint64_t elements = 1;
    for (int32_t d = 0; d < t.ndim; d++) elements *= (uint64_t)t.shape[d];
    n += elements;
  }
  return n;
}

int32_t viv_plan(viv_runtime *rt, const char *path, const char *params, viv_text *json,
                 viv_error *error) {
  if (!rt || !path || !json)
    return VIV_FAIL(error, VIV_BAD_INPUT, "viv_plan", "runtime, path or json is NULL");
  if (rt->remote) return viv__remote_inspect(rt, "plan", path, params, json, error);
  viv_model *m = viv__model_new(rt);
  if (!m) return VIV_FAIL(error, VIV_NOT_NOW, path, "no memory");
  viv_model_source source;
  int32_t status = prepare(rt, path, params, m, &source, error);
  if (status >= 0) {
    viv__buf b = {0};
    viv__buf_str(&b, "{\"model\":");
    viv__buf_json(&b, viv__str(m->name));
    viv__buf_str(&b, ",\"plugin\":");
    viv__buf_json(&b, viv__str(m->plugin->id));
    viv__buf_fmt(&b, ",\"parameters\":%llu,\"plan\":", (unsigned long long)parameters(m));
    plan_json(m, &b);
    viv__buf_str(&b, "}");
    status = viv__give_text(&b, json, error);
  }
  discard(m);
  return status < 0 ? status : VIV_OK;
}

int32_t viv_describe(viv_model *m, viv_text *json, viv_error *error) {
  if (!m || !json) return VIV_FAIL(error, VIV_BAD_INPUT, "viv_describe", "model or json is NULL");
  viv__buf b = {0};
  if (m->rt->remote) {
    viv__buf_str(&b, m->remote_about);
    return viv__give_text(&b, json, error);
  }
  viv__buf_str(&b, "{\"name\":");
  viv__buf_json(&b, viv__str(m->name));
  viv__buf_str(&b, ",\"path\":");
  viv__buf_json(&b, viv__str(m->path));
  viv__buf_str(&b, ",\"plugin\":");
  viv__buf_json(&b, viv__str(m->plugin->id));
  viv__buf_fmt(&b, ",\"parameters\":%llu,\"weights_bytes\":%llu", (unsigned long long)parameters(m),
               (unsigned long long)m->weight_bytes);
  if (m->token) {
    viv__buf_fmt(
        &b, ",\"vocab_size\":%d,\"n_layers\":%d,\"d_model\":%d,\"context_max\":%lld,\"caps\":%u",
        m->info.vocab_size, m->info.n_layers, m->info.d_model, (long long)m->info.context_max,
        m->info.caps);
    viv__buf_fmt(&b, ",\"chat\":%s", m->chat ? "true" : "false");
    if (m->chat_error) {
      viv__buf_str(&b, ",\"chat_error\":");
      viv__buf_json(&b, viv__str(m->chat_error));
    }
    viv__buf_str(&b, ",\"tokenizer\":");
    viv__buf_json(&b, viv__str(m->tokenizer         ? ""
                               : m->tokenizer_error ? m->tokenizer_error
                                                    : "none"));
    viv__buf_fmt(&b, ",\"tasks\":%s", viv__tokens_tasks);
    const viv_json *codes = viv__json_get(viv__checkpoint_config(m->checkpoint), "audio_tokens");
    char *text = viv__json_type(codes) == VIV_JSON_OBJECT
                     ? cJSON_PrintUnformatted((const cJSON *)codes)
                     : NULL;
    if (text) viv__buf_fmt(&b, ",\"audio_tokens\":%s", text);
    cJSON_free(text);
  } else if (m->tokenizer) {
    viv__buf_str(&b, ",\"tokenizer\":\"\"");
  }
  viv_str own = m->api->describe ? m->api->describe(m->handle) : (viv_str){NULL, 0};
  if (own.len) {
    viv__buf_str(&b, ",\"model\":");
    viv__buf_add(&b, own.ptr, own.len);
  }
  const viv_explain_api *explain = m->plugin->explain;
  viv_str kinds = explain && explain->kinds ? explain->kinds(m->handle) : (viv_str){NULL, 0};
  if (kinds.len) {
    viv__buf_str(&b, ",\"explain\":");
    viv__buf_add(&b, kinds.ptr, kinds.len);
  }
  viv__buf_str(&b, ",\"plan\":");
  plan_json(m, &b);
  viv__buf_str(&b, "}");
  return viv__give_text(&b, json, error);
}

/* ---- jobs ---- */

int32_t viv_submit(viv_model *m, const viv_request *request, viv_job **out, viv_error *error) {
  viv_job *job = NULL;
  if (m && m->rt->remote && out) return viv__remote_submit(m, request, out, error);
  int32_t status = out ? viv__job_new(m, request, &job, error)
                       : VIV_FAIL(error, VIV_BAD_INPUT, "viv_submit", "out is NULL");
  if (status < 0) return status;
  viv__job_ref(job); /* the loop's, then the queue's */
  *out = job;
  viv__loop_submit(m->rt, job);
  return VIV_OK;
}

int32_t viv_submit_text(viv_model *m, const char *text, const char *params, viv_job **out,
                        viv_error *error) {
  viv_value input = {.struct_size = sizeof input, .kind = VIV_KIND_TEXT, .name = viv__str("text")};
  input.bytes = viv__str(text);
  const viv_value *inputs[] = {&input};
  viv_request request = {.struct_size = sizeof request,
                         .task = "generate",
                         .params = params,
                         .n_inputs = 1,
                         .inputs = inputs};
  return viv_submit(m, &request, out, error);
}

int32_t viv_run_inline(viv_model *m, const viv_request *request, viv_job **out, viv_error *error) {
  viv_job *job = NULL;
  if (m && m->rt->remote && out) return viv__remote_submit(m, request, out, error);
  int32_t status = out ? viv__job_new(m, request, &job, error)
                       : VIV_FAIL(error, VIV_BAD_INPUT, "viv_run_inline", "out is NULL");
  if (status < 0) return status;
  for (int32_t i = 0; i < job->request.n_inputs; i++)
    if (job->inputs[i]->kind == VIV_KIND_STREAM) {
      viv__job_unref(job);
      return VIV_FAIL(error, VIV_BAD_INPUT, "inputs",
                      "a stream can't be fed while the caller is inside viv_run_inline");
    }
  job->unbounded = true; /* nobody reads while it runs */
  if (!viv__model_claim_idle(job)) {
    viv__job_unref(job);
    return VIV_FAIL(error, VIV_NOT_NOW, m->name, "the model is busy; submit the job instead");
  }
  viv__run_here(job, 0);
  viv__model_unclaim(m);
  *out = job;
  return VIV_OK;
}

/* ---- tokens ---- */

static int32_t need_tokenizer(viv_model *m, viv_error *error) {
  if (m && m->tokenizer) return VIV_OK;
  return VIV_FAIL(error, VIV_NEVER, m ? m->name : NULL, "the model has no usable tokenizer: %s",
                  m && m->tokenizer_error ? m->tokenizer_error : "not a text model");
}

int32_t viv_tokenize(viv_model *m, const char *text, uint64_t len, int32_t add_special,
                     int32_t **ids, uint64_t *n, viv_error *error) {
  if (m && m->rt->remote)
    return viv__remote_tokenize(m, (viv_str){text, len}, add_special != 0, ids, n, error);
  int32_t status = need_tokenizer(m, error);
  size_t count = 0;
  if (status == VIV_OK)
    status = viv__tokenizer_encode(m->tokenizer, (viv_str){text, len}, add_special != 0, true, ids,
                                   &count, error);
  if (status == VIV_OK) *n = count;
  return status;
}

int32_t viv_detokenize(viv_model *m, const int32_t *ids, uint64_t n, int32_t skip_special,
                       viv_text *text, viv_error *error) {
  if (m && m->rt->remote) return viv__remote_detokenize(m, ids, n, skip_special != 0, text, error);
  int32_t status = need_tokenizer(m, error);
  char *ptr = NULL;
  size_t len = 0;
  if (status == VIV_OK)
    status = viv__tokenizer_decode(m->tokenizer, ids, n, skip_special != 0, &ptr, &len, error);
  if (status == VIV_OK) *text = (viv_text){ptr, len};
  return status;
}

void viv_ids_free(int32_t *ids) {
  viv__free(ids);
}
