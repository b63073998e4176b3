/* Scratch memory of products: buffers of one size that calls borrow. One is made with the table, so
 * that a call can always go on, if only after another one is done; more are made as concurrent calls
 * ask for them, and kept. */
#include "compute/scratch.h"

#include <pthread.h>

#include "base/base.h"

struct buffer {
  struct buffer *next;
  void *memory;
};

struct viv__scratch {
  int64_t bytes;
  pthread_mutex_t lock;
  pthread_cond_t returned;
  struct buffer *free;
};

/* The buffer's own struct stands before its memory, and a pointer to it right before. */
static struct buffer *buffer_new(int64_t bytes) {
  struct buffer *b = viv__malloc((size_t)bytes + 128);
  if (!b) return NULL;
  uintptr_t at = ((uintptr_t)b + sizeof *b + sizeof b + 63) / 64 * 64;
  b->next = NULL;
  b->memory = (char *)b + (at - (uintptr_t)b);
  ((struct buffer **)b->memory)[-1] = b;
  return b;
}

viv__scratch *viv__scratch_new(int64_t bytes) {
  viv__scratch *s = viv__calloc(1, sizeof *s);
  if (!s) return NULL;
  s->bytes = bytes;
  s->free = buffer_new(bytes);
  if (!s->free) {
    viv__free(s);
    return NULL;
  }
  pthread_mutex_init(&s->lock, NULL);
  pthread_cond_init(&s->returned, NULL);
  return s;
}

void viv__scratch_free(viv__scratch *s) {
  if (!s) return;
  while (s->free) {
    struct buffer *next = s->free->next;
    viv__free(s->free);
    s->free = next;
  }
  pthread_cond_destroy(&s->returned);
  pthread_mutex_destroy(&s->lock);
  viv__free(s);
}

void *viv__scratch_take(viv__scratch *s) {
  pthread_mutex_lock(&s->lock);
  if (!s->free) s->free = buffer_new(s->bytes);
  while (!s->free) pthread_cond_wait(&s->returned, &s->lock);
  struct buffer *b = s->free;
  s->free = b->next;
  pthread_mutex_unlock(&s->lock);
  return b->memory;
}

void viv__scratch_give(viv__scratch *s, void *memory) {
  struct buffer *b = ((struct buffer **)memory)[-1];
  pthread_mutex_lock(&s->lock);
  b->next = s->free;
  s->free = b;
  pthread_cond_signal(&s->returned);
  pthread_mutex_unlock(&s->lock);
}
