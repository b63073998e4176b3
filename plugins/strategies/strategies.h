/* The strategies of this plugin. Each is a table of functions over its own state; plugin.c picks one
 * by name. */
#ifndef STRATEGIES_H
#define STRATEGIES_H

#include "vivarium/strategy.h"

struct strategy_kind {
  const char *name;
  uint32_t all_of, any_of; /* capabilities that the model must have */
  uint32_t state_bytes;    /* of the struct that begins with struct viv_strategy */
  int32_t (*create)(viv_strategy *s, const viv_strategy_setup *setup, viv_error *error);
  int32_t (*resume)(viv_strategy *s, const viv_strategy_result *result, viv_strategy_want *want,
                    viv_error *error);
};

/* What all strategies keep. Lives in the job's arena. */
struct viv_strategy {
  const struct strategy_kind *kind;
  const viv_host *host;
  const viv_sampler_api *sampling;
  viv_sampler *sampler;
  viv_arena *arena;
  int32_t vocab_size;
  int32_t plain;   /* greedy without penalties: the host's argmax is enough */
  int32_t sampled; /* 1: draw, 0: argmax */
  viv_strategy_counters counters;
};

extern const struct strategy_kind one_by_one_greedy, one_by_one_sample, prompt_lookup, beam_search;

/* The token that the strategy's rule (argmax or a draw) chooses from one row of logits. */
int32_t choose(viv_strategy *s, float *logits);

#endif
