/* The sampler: what transformers' numbers don't show: bias, seeds, forgetting, refusals. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/base.h"
#include "tasks/sampler.h"

enum { V = 8 };

static viv_sampler *make_for(viv_arena *arena, const char *text, int32_t vocab, uint64_t seed,
                             viv_error *error) {
  static const viv_host host = {.struct_size = sizeof host, .arena_alloc = viv__arena_alloc};
  viv_json *params = NULL;
  viv_sampler *s = NULL;
  cr_assert_eq(viv__json_parse(text, strlen(text), "params", &params, NULL), VIV_OK);
  int32_t status = viv__sampler_api.create(&host, arena, params, vocab, seed, &s, error);
  viv__json_free(params);
  return status < 0 ? NULL : s;
}

static viv_sampler *make(viv_arena *arena, const char *text, uint64_t seed, viv_error *error) {
  return make_for(arena, text, V, seed, error);
}

Test(sampler, bias_moves_logits) {
  viv_arena *arena = viv__arena_new(0);
  viv_sampler *s = make(arena, "{\"logit_bias\":{\"3\":5,\"0\":-100}}", 0, NULL);
  float logits[V] = {4, 1, 1, 0, 1, 1, 1, 1};
  viv__sampler_api.process(s, logits);
  cr_assert_eq(viv__sampler_api.argmax(s, logits), 3);
  cr_assert_eq(logits[0], -96);
  viv__arena_free(arena);
}

Test(sampler, equal_seeds_draw_the_same) {
  viv_arena *arena = viv__arena_new(0);
  viv_sampler *a = make(arena, "{}", 7, NULL), *b = make(arena, "{}", 7, NULL),
              *c = make(arena, "{}", 8, NULL);
  float p[V];
  int same = 0;
  for (int i = 0; i < V; i++) p[i] = 1.0f / V;
  for (int i = 0; i < 100; i++) {
    int32_t x = viv__sampler_api.draw(a, p);
    cr_assert_eq(x, viv__sampler_api.draw(b, p));
    same += x == viv__sampler_api.draw(c, p);
  }
  cr_assert_lt(same, 60);
  viv__arena_free(arena);
}

/* The numbers of the published generator (xoshiro256**, seeded by splitmix64) for seed 42, and what is
 * drawn with them: the same on every machine. */
Test(sampler, a_seed_is_the_same_everywhere) {
  enum { WIDE = 64, DRAWS = 24 };
  static const double uniforms[] = {0.083862971059882163, 0.37898025066266861, 0.68004341102813937,
                                    0.92469294532538759};
  static const int32_t ids[DRAWS] = {60, 48, 53, 50, 34, 29, 37, 14, 60, 34, 43, 53,
                                     40, 56, 42, 53, 4,  10, 32, 38, 16, 25, 30, 37};
  viv_arena *arena = viv__arena_new(0);
  viv_sampler *s =
      make_for(arena, "{\"temperature\":0.8,\"top_p\":0.95,\"top_k\":40}", WIDE, 42, NULL);
  for (int i = 0; i < 4; i++) cr_assert_eq(viv__sampler_api.uniform(s), uniforms[i]);
  for (int i = 0; i < DRAWS; i++) {
    float logits[WIDE];
    uint32_t random = 1u + (uint32_t)i;
    for (int k = 0; k < WIDE; k++) {
      random = random * 1664525u + 1013904223u;
      logits[k] = (float)(random >> 20) / 512.0f;
    }
    viv__sampler_api.probabilities(s, logits);
    cr_assert_eq(viv__sampler_api.draw(s, logits), ids[i], "draw %d", i);
  }
  viv__arena_free(arena);
}

Test(sampler, history_is_forgotten) {
  viv_arena *arena = viv__arena_new(0);
  viv_sampler *s = make(arena, "{\"no_repeat_ngram_size\":1}", 0, NULL);
  float logits[V] = {0};
  viv__sampler_api.accept(s, 2, 1);
  viv__sampler_api.process(s, logits);
  cr_assert(isinf(logits[2]));
  memset(logits, 0, sizeof logits);
  viv__sampler_api.accept(s, 0, -1);
  viv__sampler_api.process(s, logits);
  cr_assert_eq(logits[2], 0);
  viv__arena_free(arena);
}

Test(sampler, refusals_name_the_parameter) {
  static const char *const bad[][2] = {
      {"{\"top_p\":2}", "top_p"},
      {"{\"logit_bias\":{\"8\":1}}", "logit_bias"},
      {"{\"bad_words_ids\":[[]]}", "bad_words_ids"},
      {"{\"sequence_bias\":[[[1],\"x\"]]}", "sequence_bias"},
      {"{\"suppress_tokens\":[1.5]}", "suppress_tokens"},
      {"{\"exponential_decay_length_penalty\":[1,1.4]}", "exponential_decay_length_penalty"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    viv_arena *arena = viv__arena_new(0);
    viv_error error = VIV_ERROR_INIT;
    cr_assert_null(make(arena, bad[i][0], 0, &error));
    cr_assert_str_eq(error.where, bad[i][1]);
    viv__arena_free(arena);
  }
}
