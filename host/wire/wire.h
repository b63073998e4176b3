/* The daemon's wire format: frames, and the messages in them. Internal.
 *
 * docs/protocol.md is the specification; this header is its C side. Encoding and decoding touch no
 * descriptor and no global, so that tests and the fuzzer reach every line. Everything is little
 * endian. Whoever decodes holds each length against the bytes that are there before it is used, and
 * reads each byte once. */
#ifndef VIV_HOST_WIRE_H
#define VIV_HOST_WIRE_H

#include <stdint.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

#define VIV__WIRE_MAGIC 0x31564956u /* "VIV1" */

enum {
  VIV__WIRE_VERSION = 1,
  VIV__WIRE_HEAD = 32,
  VIV__WIRE_INLINE = 64 << 10, /* longer bytes cross in a memfd */
  VIV__WIRE_INPUTS = 256,
  VIV__WIRE_STREAMS = 8,           /* among them */
  VIV__WIRE_FEED_MOST = 64 << 10,  /* bytes of a stream in one frame */
  VIV__WIRE_STREAM_ROOM = 1 << 24, /* bytes of one stream that may be on their way */
  VIV__WIRE_CREDIT = 4096,         /* events that may be on their way to one job's reader */
  VIV__WIRE_REGION_BITS = 20, /* of a result's pool: the worker's number; above them the worker */
  VIV__WIRE_REGION_DATA = 64  /* in a result's pool: before it lies whether it is in use, a u32 */
};

enum viv__wire_type {
  VIV__WIRE_HELLO = 1,   /* client: its version and name */
  VIV__WIRE_WELCOME = 2, /* daemon: its version and name */
  VIV__WIRE_CALL = 3,    /* a verb with JSON */
  VIV__WIRE_REPLY = 4,   /* its one answer */
  VIV__WIRE_SUBMIT = 5,  /* a job */
  VIV__WIRE_EVENT = 6,   /* one of its results */
  VIV__WIRE_CREDIT_MORE = 7,
  VIV__WIRE_CANCEL = 8,
  VIV__WIRE_POOL = 9,     /* a sealed memfd to be named by later jobs */
  VIV__WIRE_UNPOOL = 10,  /* it is not needed any more */
  VIV__WIRE_GOODBYE = 11, /* the reason why the connection is being closed */
  VIV__WIRE_NOTE = 12,    /* worker to daemon: JSON */
  VIV__WIRE_PROMPT = 13,  /* worker to daemon and back: a prompt's state, to be kept */
  VIV__WIRE_FEED = 14,    /* bytes of a job's input stream; none: it has ended */
  VIV__WIRE_ROOM = 15,    /* how many more of them may be sent */
  VIV__WIRE_TYPES = 16
};

enum viv__wire_flags { VIV__WIRE_FD = 1 /* one descriptor comes with the frame's first byte */ };

typedef struct viv__frame {
  uint16_t version, type;
  uint32_t flags;
  uint32_t length; /* of payload */
  uint64_t id;     /* the job's, call's or pool's */
  const uint8_t *payload;
} viv__frame;

/* The longest payload of a type; -1: no such type. */
int64_t viv__wire_limit(int type);
const char *viv__wire_name(int type);
void viv__wire_put_head(uint8_t out[VIV__WIRE_HEAD], const viv__frame *frame);
/* Reads a frame from the beginning of n bytes. VIV_OK: payload points into bytes. VIV_WAIT: more bytes
 * are needed, *out holds the head when there were enough for it. VIV_BAD_INPUT: no frame can ever
 * come of this. */
int32_t viv__wire_frame(const void *bytes, size_t n, viv__frame *out, viv_error *error);

/* ---- values: an input of a job, or what an event carries ---- */

enum viv__wire_where {
  VIV__WIRE_HERE = 0, /* the bytes follow */
  VIV__WIRE_IN_POOL = 1,
  VIV__WIRE_IN_FD = 2 /* the whole of the frame's descriptor */
};

typedef struct viv__wire_value {
  int32_t kind; /* enum viv_kind */
  uint32_t where;
  viv_str name;
  viv_str bytes;         /* HERE; ptr is NULL elsewhere, len holds everywhere */
  uint64_t pool, offset; /* IN_POOL */
  size_t pool_at;        /* where the pool's number stands in the payload, for who forwards it */
  int32_t dtype, ndim;   /* TENSOR */
  int64_t shape[VIV_MAX_DIMS];
} viv__wire_value;

/* ---- messages ---- */

typedef struct viv__wire_hello {
  uint32_t version, abi_major, abi_minor, pid;
  viv_str name;
} viv__wire_hello;
void viv__wire_put_hello(viv__buf *out, const viv__wire_hello *m);
int32_t viv__wire_hello_read(const viv__frame *f, viv__wire_hello *m, viv_error *error);

typedef struct viv__wire_call {
  uint64_t model; /* 0: none */
  viv_str verb, params;
} viv__wire_call;
void viv__wire_put_call(viv__buf *out, const viv__wire_call *m);
int32_t viv__wire_call_read(const viv__frame *f, viv__wire_call *m, viv_error *error);

/* json holds when status is not negative, else error. */
typedef struct viv__wire_reply {
  int32_t status;
  viv_str json;
  viv_error error;
} viv__wire_reply;
void viv__wire_put_reply(viv__buf *out, const viv__wire_reply *m);
int32_t viv__wire_reply_read(const viv__frame *f, viv__wire_reply *m, viv_error *error);

typedef struct viv__wire_submit {
  uint64_t model, session; /* session 0: none */
  int32_t priority;
  uint32_t credit; /* events that may be sent before more credit comes */
  int64_t deadline_ms;
  viv_str task, params; /* params empty: none */
  uint32_t n_inputs;
  viv__wire_value inputs[VIV__WIRE_INPUTS];
} viv__wire_submit;
enum { VIV__WIRE_SUBMIT_SESSION = 8, VIV__WIRE_SUBMIT_DEADLINE = 24 }; /* places in the payload */
void viv__wire_put_submit(viv__buf *out, const viv__wire_submit *m);
int32_t viv__wire_submit_read(const viv__frame *f, viv__wire_submit *m, viv_error *error);

typedef struct viv__wire_event {
  uint64_t seq;
  uint32_t flags; /* enum viv_event_flags */
  int32_t status;
  double progress;
  viv__wire_value value; /* its kind is the event's */
  viv_error error;       /* of an END with a failure */
} viv__wire_event;
void viv__wire_put_event(viv__buf *out, const viv__wire_event *m);
int32_t viv__wire_event_read(const viv__frame *f, viv__wire_event *m, viv_error *error);

/* FEED: bytes of the job's stream number so many (0: its first input of that kind); empty: its end.
 * ROOM: how many more may be sent, 1 to VIV__WIRE_STREAM_ROOM; bytes is empty then. */
typedef struct viv__wire_feed {
  uint32_t stream;
  viv_str bytes;
  uint64_t room;
} viv__wire_feed;
void viv__wire_put_feed(viv__buf *out, const viv__wire_feed *m);
int32_t viv__wire_feed_read(const viv__frame *f, viv__wire_feed *m, viv_error *error);
void viv__wire_put_room(viv__buf *out, const viv__wire_feed *m);
int32_t viv__wire_room_read(const viv__frame *f, viv__wire_feed *m, viv_error *error);

/* CREDIT_MORE: events; POOL, PROMPT: bytes. */
void viv__wire_put_number(viv__buf *out, uint64_t number);
int32_t viv__wire_number_read(const viv__frame *f, uint64_t *number, viv_error *error);
/* GOODBYE, NOTE. */
int32_t viv__wire_text_read(const viv__frame *f, viv_str *text, viv_error *error);

/* ---- a connection's two buffers (link.c) ---- */

enum { VIV__LINK_FDS = 64 };

/* One end of a stream socket, without a loop or a lock of its own. */
typedef struct viv__link {
  int fd;
  viv__buf in, out;
  size_t in_at, out_at;
  int fds[VIV__LINK_FDS]; /* that came and no frame has claimed yet */
  int n_fds;
  struct viv__link_fd {
    size_t at; /* leaves with the byte at this place of out */
    int fd;
  } * out_fds;
  size_t n_out_fds, cap_out_fds;
} viv__link;

void viv__link_open(viv__link *l, int fd);
void viv__link_close(viv__link *l); /* and every descriptor it holds */
/* Reads once. VIV_OK: something came. VIV_WAIT: it would block. VIV_DONE: the peer has closed.
 * VIV_BAD_INPUT: too many descriptors. VIV_NOT_NOW: memory or the system. */
int32_t viv__link_read(viv__link *l, viv_error *error);
/* The next whole frame; its payload is valid until the next read. *fd is the caller's, -1: none. */
int32_t viv__link_next(viv__link *l, viv__frame *frame, int *fd, viv_error *error);
/* Queues a frame; takes fd over (-1: none), also on failure. False: no memory. */
bool viv__link_put(viv__link *l, int type, uint64_t id, const void *payload, size_t length, int fd);
/* The same with a message that one of the put functions wrote; frees it. */
bool viv__link_put_buf(viv__link *l, int type, uint64_t id, viv__buf *message, int fd);
/* Sends what is queued. VIV_OK: all of it; VIV_WAIT: the socket is full; VIV_NOT_NOW: the peer is
 * gone. */
int32_t viv__link_flush(viv__link *l);
size_t viv__link_pending(const viv__link *l);

/* ---- regions of shared memory (region.c) ---- */

/* A memfd of that many bytes, mapped for writing when map is not NULL, that can neither shrink nor
 * grow. -1: errno says why. */
int viv__region_make(const char *name, uint64_t bytes, void **map);
/* No one, this process included, can write it any more. The writable mapping must be gone. */
int viv__region_freeze(int fd);
/* Whether fd is a memfd of exactly that many bytes whose size is sealed (frozen: also its content);
 * anything else is refused with the reason. */
int32_t viv__region_check(int fd, uint64_t bytes, bool frozen, viv_error *error);

/* The bytes of a memfd whose size is sealed; -1: it is none. */
int64_t viv__region_size(int fd, viv_error *error);

/* Where a daemon listens: $VIV_SOCKET, $XDG_RUNTIME_DIR/vivarium/vivd.sock, for root and where there is
 * no such folder /run/vivarium/vivd.sock. viv__free. NULL: no memory. */
char *viv__wire_socket_path(void);

#endif
