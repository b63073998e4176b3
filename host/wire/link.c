/* A stream socket with descriptors: what came and is no whole frame yet, what waits to leave. */
#include "wire/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 64 << 10 };

void viv__link_open(viv__link *l, int fd) {
  *l = (viv__link){.fd = fd};
}

void viv__link_close(viv__link *l) {
  if (l->fd >= 0) close(l->fd);
  for (int i = 0; i < l->n_fds; i++) close(l->fds[i]);
  for (size_t i = 0; i < l->n_out_fds; i++) close(l->out_fds[i].fd);
  viv__free(l->out_fds);
  viv__buf_free(&l->in);
  viv__buf_free(&l->out);
  *l = (viv__link){.fd = -1};
}

/* ---- receiving ---- */

/* Room for a chunk behind what is unread. */
static bool make_room(viv__link *l) {
  if (l->in_at) {
    memmove(l->in.ptr, l->in.ptr + l->in_at, l->in.len - l->in_at);
    l->in.len -= l->in_at;
    l->in_at = 0;
  }
  if (l->in.cap - l->in.len >= CHUNK) return true;
  /* Memory follows what has come, not what a length promises. */
  size_t cap = l->in.len + CHUNK > l->in.cap * 2 ? l->in.len + CHUNK : l->in.cap * 2;
  char *p = viv__realloc(l->in.ptr, cap);
  if (!p) return false;
  l->in.ptr = p;
  l->in.cap = cap;
  return true;
}

static bool take_fds(viv__link *l, struct msghdr *msg) {
  bool good = !(msg->msg_flags & MSG_CTRUNC);
  for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < n; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      if (l->n_fds < VIV__LINK_FDS) {
        l->fds[l->n_fds++] = fd;
      } else {
        close(fd);
        good = false;
      }
    }
  }
  return good;
}

int32_t viv__link_read(viv__link *l, viv_error *error) {
  union {
    char room[CMSG_SPACE(16 * sizeof(int))];
    struct cmsghdr align;
  } control;
  if (!make_room(l)) return VIV_FAIL(error, VIV_NOT_NOW, "connection", "no memory");
  struct iovec part = {l->in.ptr + l->in.len, l->in.cap - l->in.len};
  struct msghdr msg = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.room,
                       .msg_controllen = sizeof control.room};
  ssize_t n;
  do n = recvmsg(l->fd, &msg, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return VIV_WAIT;
  if (n < 0) return VIV_FAIL(error, VIV_NOT_NOW, "connection", "%s", strerror(errno));
  if (!take_fds(l, &msg))
    return VIV_FAIL(error, VIV_BAD_INPUT, "connection", "too many descriptors came at once");
  if (!n) return VIV_DONE;
  l->in.len += (size_t)n;
  return VIV_OK;
}

int32_t viv__link_next(viv__link *l, viv__frame *frame, int *fd, viv_error *error) {
  *fd = -1;
  size_t n = l->in.len - l->in_at;
  if (!n) {
    if (l->in.cap > CHUNK * 4) viv__buf_free(&l->in); /* a large frame's memory is not kept */
    l->in.len = l->in_at = 0;
    return VIV_WAIT;
  }
  int32_t status = viv__wire_frame(l->in.ptr + l->in_at, n, frame, error);
  if (status != VIV_OK) return status;
  if (frame->flags & VIV__WIRE_FD) {
    if (!l->n_fds)
      return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(frame->type),
                      "its descriptor did not come with it");
    *fd = l->fds[0];
    memmove(l->fds, l->fds + 1, (size_t)--l->n_fds * sizeof *l->fds);
  }
  l->in_at += VIV__WIRE_HEAD + frame->length;
  if (l->in_at == l->in.len && l->n_fds) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(frame->type),
                    "a descriptor came that no frame claims");
  }
  return VIV_OK;
}

/* ---- sending ---- */

bool viv__link_put(viv__link *l, int type, uint64_t id, const void *payload, size_t length,
                   int fd) {
  uint8_t head[VIV__WIRE_HEAD];
  viv__frame frame = {.type = (uint16_t)type,
                      .flags = fd >= 0 ? VIV__WIRE_FD : 0,
                      .length = (uint32_t)length,
                      .id = id};
  bool fits = (int64_t)length <= viv__wire_limit(type) && !l->out.failed;
  if (fits && fd >= 0 && l->n_out_fds == l->cap_out_fds) {
    size_t cap = l->cap_out_fds ? l->cap_out_fds * 2 : 4;
    void *p = viv__realloc(l->out_fds, cap * sizeof *l->out_fds);
    if (p) {
      l->out_fds = p;
      l->cap_out_fds = cap;
    }
    fits = p != NULL;
    l->out.failed = !fits;
  }
  if (!fits) {
    if (fd >= 0) close(fd);
    return false;
  }
  viv__wire_put_head(head, &frame);
  if (fd >= 0) l->out_fds[l->n_out_fds++] = (struct viv__link_fd){l->out.len, fd};
  viv__buf_add(&l->out, head, sizeof head);
  if (length) viv__buf_add(&l->out, payload, length);
  return !l->out.failed;
}

bool viv__link_put_buf(viv__link *l, int type, uint64_t id, viv__buf *message, int fd) {
  bool good = !message->failed;
  if (good)
    good = viv__link_put(l, type, id, message->ptr, message->len, fd);
  else if (fd >= 0)
    close(fd);
  /* The other side would wait for it for ever: without memory for a frame the connection ends. */
  if (message->failed) l->out.failed = true;
  viv__buf_free(message);
  return good;
}

size_t viv__link_pending(const viv__link *l) {
  return l->out.len - l->out_at;
}

/* Sends once, up to the next byte that a descriptor belongs to. */
static ssize_t send_once(viv__link *l) {
  union {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec part = {l->out.ptr + l->out_at, l->out.len - l->out_at};
  struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
  size_t next = 0;
  if (l->n_out_fds && l->out_fds[0].at == l->out_at) {
    msg.msg_control = control.room;
    msg.msg_controllen = sizeof control.room;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &l->out_fds[0].fd, sizeof(int));
    next = 1;
  }
  if (l->n_out_fds > next) part.iov_len = l->out_fds[next].at - l->out_at;
  ssize_t n = sendmsg(l->fd, &msg, MSG_NOSIGNAL);
  if (n > 0 && next) {
    close(l->out_fds[0].fd);
    memmove(l->out_fds, l->out_fds + 1, --l->n_out_fds * sizeof *l->out_fds);
  }
  return n;
}

int32_t viv__link_flush(viv__link *l) {
  if (l->out.failed) return VIV_NOT_NOW;
  while (l->out_at < l->out.len) {
    ssize_t n = send_once(l);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      /* What is gone is forgotten now and then, so that a slow reader's buffer does not only grow. */
      if (l->out_at > (1u << 20)) {
        memmove(l->out.ptr, l->out.ptr + l->out_at, l->out.len - l->out_at);
        for (size_t i = 0; i < l->n_out_fds; i++) l->out_fds[i].at -= l->out_at;
        l->out.len -= l->out_at;
        l->out_at = 0;
      }
      return VIV_WAIT;
    }
    if (n < 0) return VIV_NOT_NOW;
    l->out_at += (size_t)n;
  }
  l->out_at = l->out.len = 0;
  if (l->out.cap > CHUNK * 4) viv__buf_free(&l->out);
  return VIV_OK;
}
