/* Stream inputs: a bounded ring that the caller fills and one job empties. */
#include "core/core.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct viv_stream {
  pthread_mutex_t lock;
  pthread_cond_t writable;
  char *ring;
  uint64_t capacity, begin, used, taken;
  int bell; /* an eventfd; -1: nobody asks when bytes are taken */
  bool closed;
  int holders;  /* the caller and the job */
  viv_job *job; /* NULL: not attached; kicked when data come */
};

int32_t viv_stream_open(viv_runtime *rt, uint64_t capacity, viv_stream **out, viv_error *error) {
  if (!rt || !out || !capacity || capacity > (uint64_t)1 << 32)
    return VIV_FAIL(error, VIV_BAD_INPUT, "stream", "capacity must be 1 byte to 4 GiB");
  viv_stream *s = viv__calloc(1, sizeof *s);
  char *ring = s ? viv__malloc(capacity) : NULL;
  if (!ring) {
    viv__free(s);
    return VIV_FAIL(error, VIV_NOT_NOW, "stream", "no memory for %llu bytes",
                    (unsigned long long)capacity);
  }
  pthread_mutex_init(&s->lock, NULL);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&s->writable, &attr);
  pthread_condattr_destroy(&attr);
  s->ring = ring;
  s->capacity = capacity;
  s->bell = -1;
  s->holders = 1;
  *out = s;
  return VIV_OK;
}

void viv__stream_unref(viv_stream *s) {
  pthread_mutex_lock(&s->lock);
  bool last = --s->holders == 0;
  pthread_mutex_unlock(&s->lock);
  if (!last) return;
  pthread_cond_destroy(&s->writable);
  pthread_mutex_destroy(&s->lock);
  viv__free(s->ring);
  viv__free(s);
}

void viv__stream_attach(viv_stream *s, viv_job *job) {
  pthread_mutex_lock(&s->lock);
  s->holders++;
  s->job = job;
  pthread_mutex_unlock(&s->lock);
}

void viv__stream_detach(viv_stream *s) {
  pthread_mutex_lock(&s->lock);
  s->job = NULL;
  pthread_cond_broadcast(&s->writable);
  pthread_mutex_unlock(&s->lock);
}

int32_t viv_stream_push(viv_stream *s, const void *data, uint64_t bytes, int64_t timeout_ms) {
  if (!s || (bytes && !data) || bytes > s->capacity) return VIV_BAD_INPUT;
  uint64_t until = viv__now_ns() + (timeout_ms > 0 ? (uint64_t)timeout_ms * 1000000u : 0);
  struct timespec t = {.tv_sec = (time_t)(until / 1000000000u),
                       .tv_nsec = (long)(until % 1000000000u)};
  pthread_mutex_lock(&s->lock);
  while (!s->closed && s->capacity - s->used < bytes) {
    int timed = timeout_ms < 0    ? pthread_cond_wait(&s->writable, &s->lock)
                : timeout_ms == 0 ? ETIMEDOUT
                                  : pthread_cond_timedwait(&s->writable, &s->lock, &t);
    if (timed == ETIMEDOUT) break;
  }
  int32_t status = s->closed ? VIV_BAD_INPUT : s->capacity - s->used < bytes ? VIV_WAIT : VIV_OK;
  if (status == VIV_OK) {
    uint64_t at = (s->begin + s->used) % s->capacity, first = s->capacity - at;
    if (first > bytes) first = bytes;
    memcpy(s->ring + at, data, first);
    memcpy(s->ring, (const char *)data + first, bytes - first);
    s->used += bytes;
  }
  viv_job *job = s->job;
  if (job) viv__job_ref(job);
  pthread_mutex_unlock(&s->lock);
  if (job) {
    viv__job_kick(job);
    viv__job_unref(job);
  }
  return status;
}

int32_t viv__stream_read(viv_stream *s, void *data, uint64_t capacity, uint64_t *bytes) {
  if (viv__thread_is() != VIV_THREAD_JOB) return VIV_BUG;
  return viv__stream_take(s, data, capacity, bytes);
}

void viv__stream_ring(viv_stream *s, int fd) {
  pthread_mutex_lock(&s->lock);
  s->bell = fd;
  pthread_mutex_unlock(&s->lock);
}

uint64_t viv__stream_taken(viv_stream *s) {
  pthread_mutex_lock(&s->lock);
  uint64_t n = s->taken;
  pthread_mutex_unlock(&s->lock);
  return n;
}

int32_t viv__stream_take(viv_stream *s, void *data, uint64_t capacity, uint64_t *bytes) {
  pthread_mutex_lock(&s->lock);
  uint64_t n = s->used < capacity ? s->used : capacity, first = s->capacity - s->begin;
  if (first > n) first = n;
  memcpy(data, s->ring + s->begin, first);
  memcpy((char *)data + first, s->ring, n - first);
  s->begin = (s->begin + n) % s->capacity;
  s->used -= n;
  s->taken += n;
  if (n && s->bell >= 0) {
    uint64_t one = 1;
    if (write(s->bell, &one, sizeof one) < 0) errno = 0; /* it rings already */
  }
  int32_t status = n ? VIV_OK : s->closed ? VIV_DONE : VIV_WAIT;
  if (status == VIV_WAIT && s->job) atomic_store(&s->job->kicked, 0);
  if (n) pthread_cond_broadcast(&s->writable);
  pthread_mutex_unlock(&s->lock);
  if (status == VIV_OK) *bytes = n;
  return status;
}

void viv_stream_close(viv_stream *s) {
  pthread_mutex_lock(&s->lock);
  s->closed = true;
  viv_job *job = s->job;
  if (job) viv__job_ref(job);
  pthread_cond_broadcast(&s->writable);
  pthread_mutex_unlock(&s->lock);
  if (job) {
    viv__job_kick(job);
    viv__job_unref(job);
  }
}

void viv_stream_free(viv_stream *s) {
  if (!s) return;
  viv_stream_close(s);
  viv__stream_unref(s);
}
