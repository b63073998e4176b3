/* viv.sampler/1: the one warper and random generator of all strategies. Internal. */
#ifndef VIV_HOST_SAMPLER_H
#define VIV_HOST_SAMPLER_H

#include "vivarium/strategy.h"

extern const viv_sampler_api viv__sampler_api;

#endif
