/* viv.sampler/1: the one warper and random generator of all strategies. Internal. */
#ifndef VIV_HOST_SAMPLER_H
#define VIV_HOST_SAMPLER_H

#include "vivarium/strategy.h"

extern const viv_sampler_api viv__sampler_api;

/* What a job's grammar lets through. next answers with a mask of the tokens that may follow
 * ([vocab_size] bits, 64 to a word), or NULL when it has failed; advance moves on by a token, restart
 * goes back to where the text begins. */
typedef struct viv__sampler_guide {
  const uint64_t *(*next)(void *context);
  void (*advance)(void *context, int32_t token);
  void (*restart)(void *context);
  void *context;
} viv__sampler_guide;

/* Samplers that are created on this thread from now on obey the guide, until NULL is given. A
 * strategy creates its sampler inside its own create, where the host knows for which job; the guide
 * must live as long as the sampler. */
void viv__sampler_offer(const viv__sampler_guide *guide);

#endif
