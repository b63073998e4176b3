/* The one allocator, and arenas on it. A test counts and fails allocations through
 * viv__fail_alloc; the environment variable VIV_FAIL_ALLOC=k does the same for a whole process. */
#include "base/base.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_long alloc_count;
static atomic_long fail_at; /* 0: never */

long viv__fail_alloc(long k) {
  long made = atomic_exchange(&alloc_count, 0);
  atomic_store(&fail_at, k);
  return made;
}

static bool must_fail(void) {
  long n = atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed) + 1;
  return atomic_load_explicit(&fail_at, memory_order_relaxed) == n;
}

void *viv__malloc(size_t bytes) {
  return must_fail() ? NULL : malloc(bytes ? bytes : 1);
}

void *viv__calloc(size_t n, size_t bytes) {
  return must_fail() ? NULL : calloc(n ? n : 1, bytes ? bytes : 1);
}

void *viv__realloc(void *p, size_t bytes) {
  return must_fail() ? NULL : realloc(p, bytes ? bytes : 1);
}

void viv__free(void *p) {
  free(p);
}

char *viv__strndup(const char *s, size_t n) {
  char *copy = viv__malloc(n + 1);
  if (!copy) return NULL;
  if (n) memcpy(copy, s, n);
  copy[n] = 0;
  return copy;
}

char *viv__strdup(const char *s) {
  return viv__strndup(s, strlen(s));
}

/* ---- arenas ---- */

enum { ALIGN = 64, FIRST_BLOCK = 16 * 1024, LARGE_PAGE = 2 << 20 };

typedef struct block {
  struct block *next;
  size_t cap, used; /* of data */
  char *data;       /* aligned */
} block;

struct viv_arena {
  uint64_t limit, used;
  bool large_pages;
  block *head; /* the block being filled stands first */
};

viv_arena *viv__arena_new(uint64_t limit) {
  viv_arena *a = viv__calloc(1, sizeof *a);
  if (a) a->limit = limit;
  return a;
}

void viv__arena_large_pages(viv_arena *a) {
  a->large_pages = true;
}

static block *block_new(size_t cap, bool large_pages) {
  if (cap > SIZE_MAX - sizeof(block) - 2 * LARGE_PAGE || must_fail()) return NULL;
  large_pages = large_pages && cap >= 2 * LARGE_PAGE;
  size_t header = (sizeof(block) + ALIGN - 1) / ALIGN * ALIGN;
  size_t align = large_pages ? LARGE_PAGE : ALIGN;
  size_t bytes = (header + cap + align - 1) / align * align;
  block *b = aligned_alloc(align, bytes);
  if (!b) return NULL;
#ifdef MADV_HUGEPAGE
  if (large_pages) (void)madvise(b, bytes, MADV_HUGEPAGE); /* a wish: ordinary pages will do */
#endif
  *b = (block){.cap = cap, .data = (char *)b + header};
  return b;
}

void *viv__arena_raw(viv_arena *a, uint64_t bytes) {
  if (bytes > (uint64_t)1 << 46) return NULL;
  size_t need = ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN;
  if (!need) need = ALIGN;
  if (a->limit && (need > a->limit || a->used > a->limit - need)) return NULL;
  block *b = a->head;
  if (!b || b->cap - b->used < need) {
    size_t cap = b ? b->cap * 2 : FIRST_BLOCK;
    if (cap > (size_t)64 << 20) cap = (size_t)64 << 20;
    if (cap < need) cap = need;
    block *fresh = block_new(cap, a->large_pages);
    if (!fresh && cap > need) fresh = block_new(need, a->large_pages);
    if (!fresh) return NULL;
    fresh->next = a->head;
    a->head = b = fresh;
  }
  void *p = b->data + b->used;
  b->used += need;
  a->used += need;
  return p;
}

void *viv__arena_alloc(viv_arena *a, uint64_t bytes) {
  void *p = viv__arena_raw(a, bytes);
  if (p) memset(p, 0, ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN);
  return p;
}

char *viv__arena_str(viv_arena *a, viv_str s) {
  char *copy = viv__arena_raw(a, s.len + 1);
  if (!copy) return NULL;
  if (s.len) memcpy(copy, s.ptr, s.len);
  copy[s.len] = 0;
  return copy;
}

void viv__arena_reset(viv_arena *a) {
  block *largest = NULL;
  for (block *b = a->head; b; b = b->next)
    if (!largest || b->cap > largest->cap) largest = b;
  for (block *b = a->head, *next; b; b = next) {
    next = b->next;
    if (b != largest) free(b);
  }
  if (largest) {
    largest->next = NULL;
    largest->used = 0;
  }
  a->head = largest;
  a->used = 0;
}

uint64_t viv__arena_used(const viv_arena *a) {
  return a ? a->used : 0;
}

void viv__arena_free(viv_arena *a) {
  if (!a) return;
  for (block *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(a);
}
