/* Greedy, sampling and prompt-lookup decoding: the glue. */
#include <stdio.h>
#include <string.h>

#include "strategies/strategies.h"

static const struct strategy_kind *const kinds[] = {&one_by_one_greedy, &one_by_one_sample,
                                                    &prompt_lookup, &beam_search};

static int32_t fail(viv_error *error, int32_t code, const char *where, const char *message) {
  if (error) {
    error->code = code;
    snprintf(error->source, sizeof error->source, "strategies/plugin.c");
    snprintf(error->where, sizeof error->where, "%s", where);
    snprintf(error->message, sizeof error->message, "%s", message);
  }
  return code;
}

static const struct strategy_kind *find(viv_str name) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (strlen(kinds[i]->name) == name.len && !memcmp(kinds[i]->name, name.ptr, name.len))
      return kinds[i];
  return NULL;
}

static int32_t requires_caps(viv_str name, uint32_t *all_of, uint32_t *any_of) {
  const struct strategy_kind *kind = find(name);
  if (!kind) return VIV_NEVER;
  *all_of = kind->all_of;
  *any_of = kind->any_of;
  return VIV_OK;
}

static double number(const viv_host *host, const viv_json *params, const char *key,
                     double fallback) {
  viv_str k = {key, strlen(key)};
  const viv_json *node = host->json_member(params, k);
  return host->json_type(node) == VIV_JSON_NUMBER ? host->json_number(node) : fallback;
}

static int32_t present(const viv_host *host, const viv_json *params, const char *key) {
  viv_str k = {key, strlen(key)};
  return host->json_type(host->json_member(params, k)) > VIV_JSON_NULL;
}

/* Whether the parameters leave the largest logit the largest. */
static int32_t plain(const viv_host *host, const viv_json *params) {
  static const char *const changing[] = {"logit_bias",
                                         "suppress_tokens",
                                         "begin_suppress_tokens",
                                         "allowed_token_ids",
                                         "token_cycle",
                                         "sequence_bias",
                                         "bad_words_ids",
                                         "forced_eos_token_id",
                                         "remove_invalid_values",
                                         "exponential_decay_length_penalty",
                                         "json_schema",
                                         "grammar"};
  for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
    if (present(host, params, changing[i])) return 0;
  return number(host, params, "repetition_penalty", 1) == 1 &&
         number(host, params, "encoder_repetition_penalty", 1) == 1 &&
         number(host, params, "presence_penalty", 0) == 0 &&
         number(host, params, "frequency_penalty", 0) == 0 &&
         number(host, params, "no_repeat_ngram_size", 0) == 0 &&
         number(host, params, "encoder_no_repeat_ngram_size", 0) == 0 &&
         number(host, params, "min_length", 0) == 0;
}

static int32_t create(const viv_host *host, const viv_strategy_setup *setup, viv_strategy **out,
                      viv_error *error) {
  const struct strategy_kind *kind = find(setup->name);
  if (!kind) return fail(error, VIV_NEVER, "strategy", "this plugin does not know the strategy");
  const viv_str id = {VIV_SAMPLER_ID, sizeof VIV_SAMPLER_ID - 1};
  const viv_sampler_api *sampling = host->get_extension(host->self, id);
  if (!sampling) return fail(error, VIV_NEVER, VIV_SAMPLER_ID, "the host offers no sampler");
  viv_strategy *s = host->arena_alloc(setup->arena, kind->state_bytes);
  if (!s) return fail(error, VIV_NOT_NOW, "strategy", "no memory");
  s->kind = kind;
  s->host = host;
  s->sampling = sampling;
  s->arena = setup->arena;
  s->vocab_size = setup->info->vocab_size;
  s->plain = plain(host, setup->params);
  s->counters.struct_size = sizeof s->counters;
  int32_t status = sampling->create(host, setup->arena, setup->params, s->vocab_size, setup->seed,
                                    &s->sampler, error);
  if (status < 0) return status;
  for (int32_t i = 0; i < setup->n_prompt; i++) sampling->accept(s->sampler, setup->prompt[i], 0);
  status = kind->create(s, setup, error);
  if (status >= 0) *out = s;
  return status;
}

static int32_t resume(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                      viv_error *error) {
  return s->kind->resume(s, result, want, error);
}

static void counters(const viv_strategy *s, viv_strategy_counters *out) {
  *out = s->counters;
}

/* All state lies in the job's arena. */
static void destroy(viv_strategy *s) {
  (void)s;
}

int32_t choose(viv_strategy *s, float *logits) {
  int32_t token;
  if (s->sampled) {
    s->sampling->probabilities(s->sampler, logits);
    token = s->sampling->draw(s->sampler, logits);
  } else {
    s->sampling->process(s->sampler, logits);
    token = s->sampling->argmax(s->sampler, logits);
  }
  return token;
}

static const viv_strategy_api api = {
    .struct_size = sizeof api,
    .abi_major = VIV_ABI_MAJOR,
    .abi_minor = VIV_ABI_MINOR,
    .requires_caps = requires_caps,
    .create = create,
    .resume = resume,
    .counters = counters,
    .destroy = destroy,
};

static const void *get_interface(viv_str id) {
  return id.len == sizeof VIV_STRATEGY_ID - 1 && !memcmp(id.ptr, VIV_STRATEGY_ID, id.len) ? &api
                                                                                          : NULL;
}

static const viv_plugin plugin = {
    .struct_size = sizeof plugin,
    .abi_major = VIV_ABI_MAJOR,
    .abi_minor = VIV_ABI_MINOR,
    .id = {"strategies", 10},
    .version = {"0.1.0", 5},
    .get_interface = get_interface,
};

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  if (host->abi_major < VIV_ABI_MAJOR || host->abi_oldest_major > VIV_ABI_MAJOR) {
    fail(error, VIV_NEVER, "ABI", "the plugin speaks 1.0, the host does not");
    return NULL;
  }
  return &plugin;
}
