/* A connection on the loop: reads as soon as something is there, and never stops reading, so that a
 * peer that leaves is noticed at once. */
#include "daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { LONG_TURN_MS = 2 };

static void lose(peer *p, const viv_error *why) {
  if (!p->open) return;
  p->lost(p, why);
}

static void frames(peer *p) {
  viv__frame f;
  int fd;
  viv_error error = VIV_ERROR_INIT;
  while (p->open) {
    int32_t status = viv__link_next(&p->link, &f, &fd, &error);
    if (status == VIV_WAIT) return;
    if (status < 0) {
      lose(p, &error);
      return;
    }
    p->frame(p, &f, fd);
  }
}

static void on_closed(uv_handle_t *handle) {
  peer *p = handle->data;
  viv__link_close(&p->link);
  p->closed(p);
}

static void on_ready(uv_poll_t *poll, int status, int events) {
  peer *p = poll->data;
  viv_error error = VIV_ERROR_INIT;
  if (events & UV_WRITABLE) {
    uv_poll_start(&p->poll, UV_READABLE, on_ready);
    p->writing = false;
    peer_pass(p, 0, 0, NULL, 0, -1);
  }
  if (!(events & UV_READABLE) && status >= 0) return;
  int32_t got = viv__link_read(&p->link, &error);
  vivd *d = p->d;
  if (got == VIV_OK)
    frames(p);
  else if (got != VIV_WAIT)
    lose(p, got == VIV_DONE ? NULL : &error);
  /* When one of the many that are ready took long, a worker's start for example, what the others are to get
   * does not wait for the rest. */
  if (uv_hrtime() / 1000000 > uv_now(&d->loop) + LONG_TURN_MS) {
    peers_flush(d);
    uv_update_time(&d->loop);
  }
}

int peer_open(vivd *d, peer *p, int fd) {
  viv__link_open(&p->link, fd);
  p->d = d;
  int failed = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ? -errno : 0;
  if (!failed) failed = uv_poll_init(&d->loop, &p->poll, fd);
  if (failed) return failed;
  p->poll.data = p;
  p->open = true;
  uv_poll_start(&p->poll, UV_READABLE, on_ready);
  return 0;
}

static void forget_dirty(peer *p) {
  for (peer **at = &p->d->dirty; *at; at = &(*at)->dirty_next)
    if (*at == p) {
      *at = p->dirty_next;
      break;
    }
  p->dirty = false;
}

void peer_close(peer *p) {
  if (!p->open) return;
  p->open = false;
  viv__link_flush(&p->link);
  if (p->dirty) forget_dirty(p);
  uv_close((uv_handle_t *)&p->poll, on_closed);
}

void peer_drain(peer *p) {
  viv_error error = VIV_ERROR_INIT;
  while (p->open && viv__link_read(&p->link, &error) == VIV_OK) frames(p);
}

static void mark(peer *p) {
  if (p->dirty || !p->open) return;
  p->dirty = true;
  p->dirty_next = p->d->dirty;
  p->d->dirty = p;
}

/* type 0 queues nothing: what waits is to be sent. */
void peer_pass(peer *p, int type, uint64_t id, const void *payload, size_t length, int fd) {
  if (!p->open) {
    if (fd >= 0) close(fd);
    return;
  }
  if (type) viv__link_put(&p->link, type, id, payload, length, fd);
  mark(p);
}

void peer_send(peer *p, int type, uint64_t id, viv__buf *message, int fd) {
  if (!p->open) {
    viv__buf_free(message);
    if (fd >= 0) close(fd);
    return;
  }
  if (!viv__link_put_buf(&p->link, type, id, message, fd)) p->link.out.failed = true;
  mark(p);
}

/* A reader that does not read holds at most this much; it was given credit for no more than is sane. */
enum { SLOW_LIMIT = 256 << 20 };

void peers_flush(vivd *d) {
  while (d->dirty) {
    peer *p = d->dirty;
    viv_error error = VIV_ERROR_INIT;
    d->dirty = p->dirty_next;
    p->dirty = false;
    if (!p->open || p->writing) continue;
    int32_t status = viv__link_flush(&p->link);
    if (status == VIV_WAIT && viv__link_pending(&p->link) > SLOW_LIMIT)
      status = VIV_FAIL(&error, VIV_NOT_NOW, "connection", "the peer does not read");
    if (status == VIV_WAIT) {
      p->writing = true;
      uv_poll_start(&p->poll, UV_READABLE | UV_WRITABLE, on_ready);
    } else if (status < 0) {
      /* A worker's last events may still wait to be read. */
      lose(p, error.code ? &error : NULL);
    }
  }
}
