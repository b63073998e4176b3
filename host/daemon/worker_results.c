/* The way of large results out of a worker: regions that one connection sees, and that are used again.
 *
 * A region's first word says whether a result lies in it. The worker sets it, the client clears it when
 * the result was read. That is all that the worker ever reads of what a client may write: whoever clears it
 * early spoils its own results. Other connections have other regions. */
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/daemon.h"

#define REGION_LEAST (UINT64_C(1) << 20)
#define CLIENT_MOST (UINT64_C(256) << 20)
enum { REGIONS = 256, CLIENT_REGIONS = 32 };

typedef struct region {
  uint64_t number, client, bytes;
  uint8_t *at; /* NULL: the slot is free */
} region;

struct results {
  region regions[REGIONS];
  uint64_t last;
};

results *results_new(void) {
  return calloc(1, sizeof(results));
}

static _Atomic uint32_t *used(const region *g) {
  return (_Atomic uint32_t *)(void *)g->at;
}

static bool make_region(region *g, uint64_t owner, uint64_t number, uint64_t room, int *fd) {
  void *at = NULL;
  *fd = viv__region_make("vivarium-results", room, &at);
  if (*fd < 0) return false;
  *g = (region){.number = number, .client = owner, .bytes = room, .at = at};
  return true;
}

bool results_place(results *r, uint64_t owner, uint64_t bytes, result_place *out) {
  region *best = NULL, *free_slot = NULL;
  uint64_t held = 0, room = REGION_LEAST;
  int n = 0;
  if (bytes > CLIENT_MOST) return false;
  while (room < bytes + VIV__WIRE_REGION_DATA) room *= 2;
  for (region *g = r->regions; g < r->regions + REGIONS; g++) {
    if (!g->at) {
      free_slot = g;
      continue;
    }
    if (g->client != owner) continue;
    held += g->bytes;
    n++;
    if (g->bytes >= room && (!best || g->bytes < best->bytes) &&
        !atomic_load_explicit(used(g), memory_order_acquire))
      best = g;
  }
  out->fd = -1;
  if (!best) {
    if (!free_slot || n >= CLIENT_REGIONS || held + room > CLIENT_MOST ||
        r->last + 1 >= UINT64_C(1) << VIV__WIRE_REGION_BITS ||
        !make_region(free_slot, owner, r->last + 1, room, &out->fd))
      return false;
    r->last++;
    best = free_slot;
  }
  atomic_store_explicit(used(best), 1, memory_order_relaxed);
  out->number = best->number;
  out->at = best->at + VIV__WIRE_REGION_DATA;
  return true;
}

void results_forget(results *r, uint64_t owner) {
  for (region *g = r->regions; g < r->regions + REGIONS; g++)
    if (g->at && g->client == owner) {
      munmap(g->at, g->bytes);
      g->at = NULL;
    }
}
