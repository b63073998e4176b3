/* Rotary frequencies and their scaled forms.
 *
 *   f_i = base^(-2i/R), i = 0 .. R/2-1       R = head_dim * partial_rotary_factor
 *
 * all computed in double and rounded once. */
#include "nn/nn.h"

#include <math.h>
#include <stdio.h>

static const double two_pi = 6.283185307179586476925;

/* llama3: long waves are stretched, short ones kept, those between are blended. */
static double llama3(double f, double factor, double low, double high, double original) {
  double wave = two_pi / f;
  if (wave > original / low) return f / factor;
  if (wave < original / high) return f;
  double s = (original / wave - low) / (high - low);
  return (1 - s) * f / factor + s * f;
}

/* yarn: the index at which a wave makes `turns` turns within the original length. */
static double yarn_index(double turns, double rotary, double base, double original) {
  return rotary * log(original / (two_pi * turns)) / (2 * log(base));
}

static double yarn_scale(double factor, double k) {
  return factor <= 1 ? 1 : 1 + 0.1 * k * log(factor);
}

void nn_rope_read(nn_config *c, int64_t head_dim, int64_t max_positions, nn_rope *out) {
  const viv_json *parameters = nn_key(c, "rope_parameters");
  const viv_json *scaling = parameters ? parameters : nn_key(c, "rope_scaling");
  nn_config s = *c;
  if (scaling) {
    s = nn_config_open(c->host, scaling,
                       parameters ? "config.json, rope_parameters" : "config.json, rope_scaling",
                       c->error);
    if (c->status) s.status = c->status;
  }
  /* A key of the inner object counts before the same key at the top. */
  nn_config *at_base = scaling && nn_key(&s, "rope_theta") ? &s : c;
  nn_config *at_part = scaling && nn_key(&s, "partial_rotary_factor") ? &s : c;
  nn_config *at_original = scaling && nn_key(&s, "original_max_position_embeddings") ? &s : c;
  double base = nn_num(at_base, "rope_theta", 10000, 1.0001, 1e15);
  double part = nn_num(at_part, "partial_rotary_factor", 1, 0, 1);
  int64_t original =
      nn_int(at_original, "original_max_position_embeddings", max_positions, 1, 1 << 30);

  int64_t rotary = (int64_t)((double)head_dim * part + 1e-9);
  *out = (nn_rope){.original = original, .scale = 1};
  /* Not a key of official releases: checkpoints whose rows of the query and key projections lie in
   * the other order (GGUF's of the Llama family) say so with it. */
  out->interleaved = nn_flag(c, "rope_interleaved", false);
  if (!c->status && !s.status && (rotary < 2 || rotary % 2 || rotary / 2 > NN_ROPE_MAX))
    c->status = nn_fail(c->error, VIV_BAD_INPUT, c->where,
                        "head_dim %lld times partial_rotary_factor %g rotates %lld dimensions; it "
                        "must be an even number from 2 to %d",
                        (long long)head_dim, part, (long long)rotary, 2 * NN_ROPE_MAX);
  if (c->status || s.status) {
    if (!c->status) c->status = s.status;
    return;
  }
  double R = (double)rotary, L0 = (double)original;
  int32_t half = out->half = (int32_t)(rotary / 2);
  double f[NN_ROPE_MAX];
  for (int32_t i = 0; i < half; i++) f[i] = pow(base, -2.0 * i / R);

  viv_str type = nn_str("default");
  if (scaling)
    type = nn_key(&s, "rope_type") ? nn_text(&s, "rope_type", "default")
                                   : nn_text(&s, "type", "default");
  if (nn_is(type, "default")) {
    /* as they are */
  } else if (nn_is(type, "linear")) {
    double factor = nn_num(&s, "factor", 1, 1e-6, 1e6);
    for (int32_t i = 0; i < half; i++) f[i] /= factor;
  } else if (nn_is(type, "llama3")) {
    double factor = nn_num(&s, "factor", 8, 1e-6, 1e6);
    double low = nn_num(&s, "low_freq_factor", 1, 1e-6, 1e6);
    double high = nn_num(&s, "high_freq_factor", 4, 1e-6, 1e6);
    if (!s.status && high <= low)
      s.status = nn_fail(s.error, VIV_BAD_INPUT, s.where,
                         "high_freq_factor %g must be above low_freq_factor %g", high, low);
    for (int32_t i = 0; i < half && !s.status; i++) f[i] = llama3(f[i], factor, low, high, L0);
  } else if (nn_is(type, "yarn")) {
    double factor = nn_num(&s, "factor", (double)max_positions / L0, 1e-6, 1e6);
    double fast = nn_num(&s, "beta_fast", 32, 1e-6, 1e6);
    double slow = nn_num(&s, "beta_slow", 1, 1e-6, 1e6);
    double mscale = nn_num(&s, "mscale", 0, 0, 1e6);
    double all = nn_num(&s, "mscale_all_dim", 0, 0, 1e6);
    double lo = yarn_index(fast, R, base, L0), hi = yarn_index(slow, R, base, L0);
    if (nn_flag(&s, "truncate", true)) {
      lo = floor(lo);
      hi = ceil(hi);
    }
    lo = fmax(lo, 0);
    hi = fmin(hi, R - 1);
    if (lo == hi) hi += 0.001;
    for (int32_t i = 0; i < half; i++) {
      double r = fmin(fmax((i - lo) / (hi - lo), 0), 1);
      f[i] = r * f[i] / factor + (1 - r) * f[i];
    }
    double given = mscale != 0 && all != 0 ? yarn_scale(factor, mscale) / yarn_scale(factor, all)
                                           : yarn_scale(factor, 1);
    out->scale = (float)nn_num(&s, "attention_factor", given, 0, 1e6);
  } else if (nn_is(type, "longrope") || nn_is(type, "su")) {
    float e[NN_ROPE_MAX];
    nn_numbers(&s, "long_factor", e, half, 1e-6);
    for (int32_t i = 0; i < half; i++) out->long_inv_freq[i] = (float)(f[i] / (double)e[i]);
    nn_numbers(&s, "short_factor", e, half, 1e-6);
    for (int32_t i = 0; i < half; i++) f[i] /= (double)e[i];
    double factor = nn_num(&s, "factor", (double)max_positions / L0, 1e-6, 1e6);
    double given = factor <= 1 || L0 <= 1 ? 1 : sqrt(1 + log(factor) / log(L0));
    out->scale = (float)nn_num(&s, "attention_factor", given, 0, 1e6);
    /* One set for every length is what a Llama 3.1 checkpoint in GGUF says. */
    for (int32_t i = 0; i < half; i++) out->two_sets |= out->long_inv_freq[i] != (float)f[i];
  } else {
    s.status = nn_fail(s.error, VIV_NEVER, s.where,
                       "rope type \"%.*s\" is not supported: default, linear, llama3, yarn and "
                       "longrope are",
                       (int)(type.len > 60 ? 60 : type.len), type.ptr);
  }
  for (int32_t i = 0; i < half; i++) out->inv_freq[i] = (float)f[i];
  if (s.status && !c->status) c->status = s.status;
}
