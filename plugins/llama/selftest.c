/* Checks of the plugin's own arithmetic: rotary frequencies need JSON, which only a host can parse,
 * so what is checked here is the paged cache, on memory of its own. */
#include <string.h>

#include "llama/llama.h"

enum { MEMORY = 96 * 1024, PAGE = 4 };

struct stack {
  char *memory;
  uint64_t used;
};

static void *take(viv_arena *arena, uint64_t bytes) {
  struct stack *s = (struct stack *)arena;
  uint64_t need = (bytes + 63) / 64 * 64;
  if (need > MEMORY - s->used) return NULL;
  void *p = s->memory + s->used;
  s->used += need;
  memset(p, 0, need);
  return p;
}

#define EXPECT(x)                                                                                  \
  if (!(x)) return nn_fail(error, VIV_BUG, "selftest", "the cache: %s does not hold", #x)

static int32_t write(nn_kv *kv, int32_t seq, int64_t base, int64_t n, int32_t value,
                     viv_error *error) {
  nn_kv_seq *s = nn_kv_get(kv, seq);
  for (int32_t l = 0; l < kv->n_layers; l++) {
    int32_t rc = nn_kv_reserve(kv, s, l, base, base + n, error);
    if (rc < 0) return rc;
    for (int64_t t = base; t < base + n; t++) {
      *(int32_t *)nn_kv_k(kv, s, l, t) = value + (int32_t)t;
      *(int32_t *)nn_kv_v(kv, s, l, t) = -value - (int32_t)t;
    }
    nn_kv_commit(kv, s, l, base, base + n);
  }
  s->last_base = base;
  return VIV_OK;
}

static int32_t value(const nn_kv *kv, int32_t seq, int32_t layer, int64_t token) {
  return *(int32_t *)nn_kv_k(kv, nn_kv_get(kv, seq), layer, token);
}

static int32_t run(const viv_host *host, viv_error *error) {
  _Alignas(64) char memory[MEMORY];
  struct stack stack = {memory, 0};
  viv_host mine = {.struct_size = sizeof mine, .self = host->self, .arena_alloc = take};
  nn_kv_layer layer[2] = {{4, 4, 0}, {4, 4, 3}}; /* the second looks back 3 tokens */
  nn_kv kv;
  int32_t a, b, rc;
  nn_kv_init(&kv, &mine, (viv_arena *)(void *)&stack, layer, 2, PAGE, 2, 1000, 0);

  if ((rc = nn_kv_open(&kv, &a, error)) < 0) return rc;
  for (int32_t t = 0; t < 20; t += 5)
    if ((rc = write(&kv, a, t, 5, 100, error)) < 0) return rc;
  EXPECT(nn_kv_len(&kv, a) == 20);
  EXPECT(value(&kv, a, 0, 0) == 100 && value(&kv, a, 1, 19) == 119);
  EXPECT(nn_kv_get(&kv, a)->run[1].first == 12);

  /* A fork does not see what is written to the other side, also within a shared page. */
  if ((rc = nn_kv_fork(&kv, a, &b, error)) < 0) return rc;
  if ((rc = write(&kv, b, 20, 2, 500, error)) < 0) return rc;
  if ((rc = write(&kv, a, 20, 2, 300, error)) < 0) return rc;
  EXPECT(value(&kv, a, 0, 21) == 321 && value(&kv, b, 0, 21) == 521);
  EXPECT(value(&kv, b, 0, 18) == 118);

  /* Old keys of the window are gone; the last batch can be cut. */
  EXPECT(nn_kv_truncate(&kv, a, 4, NULL) == VIV_NEVER);
  EXPECT(nn_kv_truncate(&kv, a, 21, error) == VIV_OK && nn_kv_len(&kv, a) == 21);

  /* Gather keeps the path; a snapshot brings back the same. */
  int32_t path[1] = {1};
  EXPECT(nn_kv_gather(&kv, b, 20, path, 1, error) == VIV_OK);
  EXPECT(nn_kv_len(&kv, b) == 21 && value(&kv, b, 0, 20) == 521);
  char saved[4096];
  uint64_t bytes = 0;
  EXPECT(nn_kv_snapshot(&kv, b, saved, sizeof saved, &bytes, error) == VIV_OK);
  EXPECT(bytes <= sizeof saved);
  int32_t restored;
  if ((rc = nn_kv_restore(&kv, saved, bytes, &restored, error)) < 0) return rc;
  EXPECT(value(&kv, restored, 0, 20) == 521 && value(&kv, restored, 1, 19) == 119);
  saved[bytes / 2] ^= 1;
  EXPECT(nn_kv_restore(&kv, saved, bytes, &restored, NULL) == VIV_BAD_INPUT);

  /* A full arena changes nothing. */
  stack.used = MEMORY;
  rc = VIV_OK;
  for (int32_t t = 21; t < 400 && rc == VIV_OK; t += 8) rc = write(&kv, a, t, 8, 100, NULL);
  EXPECT(rc == VIV_NOT_NOW && value(&kv, a, 0, 20) == 320);
  return VIV_OK;
}

const nn_selftest_api llama_selftest = {
    NN_ABI(nn_selftest_api),
    .run = run,
};
