/* The smallest strategy: always the most probable token. */
#include <string.h>

#include "vivarium/strategy.h"

#define STR(text) ((viv_str){(text), sizeof(text) - 1})

static const char name[] = "museum-argmax";

struct viv_strategy {
  viv_batch batch;
  int32_t token; /* the row to evaluate next, and its arrays */
  int32_t seq;
  int32_t logit_row;
  int32_t emit;
  int32_t emit_row;
  int64_t calls;
};

static int32_t fail(viv_error *error, int32_t code, const char *message) {
  if (error) {
    error->code = code;
    strncpy(error->message, message, sizeof error->message - 1);
  }
  return code;
}

static int is_mine(viv_str id) {
  return id.len == sizeof name - 1 && !memcmp(id.ptr, name, sizeof name - 1);
}

static int32_t requires_caps(viv_str id, uint32_t *all_of, uint32_t *any_of) {
  if (!is_mine(id)) return VIV_NEVER;
  *all_of = 0;
  *any_of = 0;
  return VIV_OK;
}

static int32_t create(const viv_host *host, const viv_strategy_setup *setup, viv_strategy **out,
                      viv_error *error) {
  if (!is_mine(setup->name)) return fail(error, VIV_NEVER, "no strategy of this name");
  if (setup->n_prompt < 1) return fail(error, VIV_BAD_INPUT, "the prompt is empty");
  viv_strategy *s = host->arena_alloc(setup->arena, sizeof *s);
  if (!s) return fail(error, VIV_NOT_NOW, "no memory for the strategy");
  s->token = setup->prompt[setup->n_prompt - 1];
  *out = s;
  return VIV_OK;
}

static int32_t resume(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                      viv_error *error) {
  if (result) {
    if (result->n_rows != 1 || !result->ids) return fail(error, VIV_BUG, "expected one row");
    s->emit = s->token = result->ids[0];
    want->n_emit = 1;
    want->emit = &s->emit;
    want->emit_row = &s->emit_row;
  }
  s->calls++;
  want->logit_mode = VIV_LOGITS_ARGMAX;
  s->batch = (viv_batch){.struct_size = sizeof s->batch,
                         .n_rows = 1,
                         .input_kind = VIV_INPUT_TOKENS,
                         .tokens = &s->token,
                         .seq = &s->seq,
                         .logit_rows = &s->logit_row,
                         .n_logit_rows = 1};
  want->batch = &s->batch;
  return VIV_MORE;
}

static void counters(const viv_strategy *s, viv_strategy_counters *out) {
  out->target_calls = s->calls;
}

static void destroy(viv_strategy *s) {
  (void)s;
}

static const viv_strategy_api strategy_api = {.struct_size = sizeof strategy_api,
                                              .abi_major = VIV_ABI_MAJOR,
                                              .abi_minor = VIV_ABI_MINOR,
                                              .requires_caps = requires_caps,
                                              .create = create,
                                              .resume = resume,
                                              .counters = counters,
                                              .destroy = destroy};

static const void *get_interface(viv_str id) {
  if (id.len == sizeof VIV_STRATEGY_ID - 1 && !memcmp(id.ptr, VIV_STRATEGY_ID, id.len))
    return &strategy_api;
  return NULL;
}

static const viv_plugin plugin = {.struct_size = sizeof plugin,
                                  .abi_major = VIV_ABI_MAJOR,
                                  .abi_minor = VIV_ABI_MINOR,
                                  .id = STR("museum-argmax"),
                                  .version = STR("1.0.0"),
                                  .get_interface = get_interface};

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  if (host->abi_major < 1 || host->abi_oldest_major > 1) {
    fail(error, VIV_NEVER, "speaks ABI 1.0 to 1.0, which the host's range does not hold");
    return NULL;
  }
  return &plugin;
}
