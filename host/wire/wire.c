/* Encoding and decoding of frames and messages. */
#include "wire/wire.h"

#include <endian.h>
#include <string.h>

#define KIB(n) ((int64_t)(n) << 10)
#define MIB(n) ((int64_t)(n) << 20)

static const struct {
  const char *name;
  int64_t limit;
} types[VIV__WIRE_TYPES] = {[VIV__WIRE_HELLO] = {"HELLO", 512},
                            [VIV__WIRE_WELCOME] = {"WELCOME", 512},
                            [VIV__WIRE_CALL] = {"CALL", MIB(16)},
                            [VIV__WIRE_REPLY] = {"REPLY", MIB(64)},
                            [VIV__WIRE_SUBMIT] = {"SUBMIT", MIB(32)},
                            [VIV__WIRE_EVENT] = {"EVENT", MIB(1)},
                            [VIV__WIRE_CREDIT_MORE] = {"CREDIT", 8},
                            [VIV__WIRE_CANCEL] = {"CANCEL", 0},
                            [VIV__WIRE_POOL] = {"POOL", 8},
                            [VIV__WIRE_UNPOOL] = {"UNPOOL", 0},
                            [VIV__WIRE_GOODBYE] = {"GOODBYE", KIB(4)},
                            [VIV__WIRE_NOTE] = {"NOTE", MIB(1)},
                            [VIV__WIRE_PROMPT] = {"PROMPT", 8},
                            [VIV__WIRE_FEED] = {"FEED", 4 + VIV__WIRE_FEED_MOST},
                            [VIV__WIRE_ROOM] = {"ROOM", 12}};

int64_t viv__wire_limit(int type) {
  return type > 0 && type < VIV__WIRE_TYPES ? types[type].limit : -1;
}

const char *viv__wire_name(int type) {
  return type > 0 && type < VIV__WIRE_TYPES ? types[type].name : "unknown";
}

/* ---- numbers ---- */

static void put32(viv__buf *b, uint32_t v) {
  v = htole32(v);
  viv__buf_add(b, &v, sizeof v);
}

static void put64(viv__buf *b, uint64_t v) {
  v = htole64(v);
  viv__buf_add(b, &v, sizeof v);
}

static void put_double(viv__buf *b, double v) {
  uint64_t bits;
  memcpy(&bits, &v, sizeof bits);
  put64(b, bits);
}

static void put_text(viv__buf *b, viv_str s) {
  put32(b, (uint32_t)s.len);
  if (s.len) viv__buf_add(b, s.ptr, s.len);
}

/* A place in a payload. Once something is missing everything reads as zero and failed stays set. */
typedef struct cursor {
  const uint8_t *at, *end, *begin;
  bool failed;
  const char *why; /* what was wrong first */
} cursor;

static cursor begin(const viv__frame *f) {
  return (cursor){f->payload, f->payload + f->length, f->payload, false, NULL};
}

static void refuse(cursor *c, const char *why) {
  if (!c->failed) c->why = why;
  c->failed = true;
}

static const uint8_t *take(cursor *c, uint64_t n) {
  if (c->failed || n > (uint64_t)(c->end - c->at)) {
    refuse(c, "it ends too early");
    return NULL;
  }
  const uint8_t *p = c->at;
  c->at += n;
  return p;
}

static uint32_t get32(cursor *c) {
  uint32_t v = 0;
  const uint8_t *p = take(c, sizeof v);
  if (p) memcpy(&v, p, sizeof v);
  return le32toh(v);
}

static uint64_t get64(cursor *c) {
  uint64_t v = 0;
  const uint8_t *p = take(c, sizeof v);
  if (p) memcpy(&v, p, sizeof v);
  return le64toh(v);
}

static double get_double(cursor *c) {
  uint64_t bits = get64(c);
  double v;
  memcpy(&v, &bits, sizeof v);
  return v;
}

/* UTF-8 of at most limit bytes. */
static viv_str get_text(cursor *c, uint64_t limit) {
  uint32_t len = get32(c);
  if (!c->failed && len > limit) refuse(c, "a text is too long");
  const uint8_t *p = take(c, len);
  if (!p || !len) return (viv_str){NULL, 0};
  if (!viv__utf8_valid((const char *)p, len)) refuse(c, "a text is not UTF-8");
  if (memchr(p, 0, len)) refuse(c, "a text holds a NUL");
  return c->failed ? (viv_str){NULL, 0} : (viv_str){(const char *)p, len};
}

/* Everything was read and nothing is left over. */
static int32_t finish(cursor *c, const viv__frame *f, viv_error *error) {
  if (!c->failed && c->at != c->end) refuse(c, "bytes are left over behind it");
  if (!c->failed) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(f->type), "byte %zu of %u: %s",
                  (size_t)(c->at - c->begin), f->length, c->why);
}

/* ---- frames ---- */

void viv__wire_put_head(uint8_t out[VIV__WIRE_HEAD], const viv__frame *f) {
  uint32_t magic = htole32(VIV__WIRE_MAGIC), flags = htole32(f->flags), length = htole32(f->length);
  uint16_t version = htole16(VIV__WIRE_VERSION), type = htole16(f->type);
  uint64_t id = htole64(f->id), zero = 0;
  memcpy(out, &magic, 4);
  memcpy(out + 4, &version, 2);
  memcpy(out + 6, &type, 2);
  memcpy(out + 8, &flags, 4);
  memcpy(out + 12, &length, 4);
  memcpy(out + 16, &id, 8);
  memcpy(out + 24, &zero, 8);
}

int32_t viv__wire_frame(const void *bytes, size_t n, viv__frame *out, viv_error *error) {
  *out = (viv__frame){0};
  if (n < VIV__WIRE_HEAD) {
    /* What can't become a frame is refused at its first wrong byte. */
    uint32_t magic = htole32(VIV__WIRE_MAGIC);
    if (memcmp(bytes, &magic, n < 4 ? n : 4))
      return VIV_FAIL(error, VIV_BAD_INPUT, "frame", "does not begin with VIV1");
    return VIV_WAIT;
  }
  viv__frame head = {.length = VIV__WIRE_HEAD, .payload = bytes};
  cursor c = begin(&head);
  uint32_t magic = get32(&c), both = get32(&c);
  out->version = both & 0xffff;
  out->type = (uint16_t)(both >> 16);
  out->flags = get32(&c);
  out->length = get32(&c);
  out->id = get64(&c);
  uint64_t reserved = get64(&c);
  int64_t limit = viv__wire_limit(out->type);
  if (magic != VIV__WIRE_MAGIC)
    return VIV_FAIL(error, VIV_BAD_INPUT, "frame", "does not begin with VIV1");
  if (out->version != VIV__WIRE_VERSION)
    return VIV_FAIL(error, VIV_BAD_INPUT, "frame", "version %u; this side speaks %d", out->version,
                    VIV__WIRE_VERSION);
  if (limit < 0) return VIV_FAIL(error, VIV_BAD_INPUT, "frame", "there is no type %u", out->type);
  if ((int64_t)out->length > limit)
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(out->type),
                    "%u bytes are more than the %lld that it may have", out->length,
                    (long long)limit);
  if ((out->flags & ~(uint32_t)VIV__WIRE_FD) || reserved)
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(out->type),
                    "unknown flags, or a reserved field is not zero");
  if (n - VIV__WIRE_HEAD < out->length) return VIV_WAIT;
  out->payload = (const uint8_t *)bytes + VIV__WIRE_HEAD;
  return VIV_OK;
}

/* ---- values ---- */

enum { NAME_LIMIT = 4096 };

static void put_value(viv__buf *b, const viv__wire_value *v) {
  put32(b, (uint32_t)v->kind);
  put32(b, v->where);
  put64(b, v->bytes.len);
  put64(b, v->pool);
  put64(b, v->offset);
  put32(b, (uint32_t)v->dtype);
  put32(b, (uint32_t)v->ndim);
  for (int32_t i = 0; i < v->ndim; i++) put64(b, (uint64_t)v->shape[i]);
  put_text(b, v->name);
  if (v->where == VIV__WIRE_HERE && v->bytes.len) viv__buf_add(b, v->bytes.ptr, v->bytes.len);
}

/* The bytes that a tensor's shape needs; UINT64_MAX: none can. */
static uint64_t shape_bytes(const viv__wire_value *v) {
  uint64_t bytes = viv__dtype_size(v->dtype);
  if (!bytes) return UINT64_MAX;
  for (int32_t i = 0; i < v->ndim; i++)
    if (v->shape[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)v->shape[i], &bytes))
      return UINT64_MAX;
  return bytes;
}

static void get_value(cursor *c, viv__wire_value *v) {
  v->kind = (int32_t)get32(c);
  v->where = get32(c);
  uint64_t len = get64(c);
  v->pool_at = (size_t)(c->at - c->begin);
  v->pool = get64(c);
  v->offset = get64(c);
  v->dtype = (int32_t)get32(c);
  v->ndim = (int32_t)get32(c);
  if (v->kind < VIV_KIND_TENSOR || v->kind > VIV_KIND_END) refuse(c, "a value is of no known kind");
  if (v->where > VIV__WIRE_IN_FD) refuse(c, "a value lies at no known place");
  if (v->kind == VIV_KIND_STREAM && (v->where != VIV__WIRE_HERE || len))
    refuse(c, "a stream's bytes come later");
  if (v->ndim < 0 || v->ndim > VIV_MAX_DIMS) refuse(c, "a tensor has too many axes");
  for (int32_t i = 0; i < v->ndim && !c->failed; i++) v->shape[i] = (int64_t)get64(c);
  v->name = get_text(c, NAME_LIMIT);
  if (c->failed) return;
  if (v->kind == VIV_KIND_TENSOR) {
    if (shape_bytes(v) != len) refuse(c, "a tensor's shape and bytes differ");
  } else if (v->ndim || v->dtype) {
    refuse(c, "only a tensor has a shape");
  }
  /* A text is checked before it is copied; one that another process may write in between would not
   * be the one that was checked. */
  if (v->where == VIV__WIRE_IN_POOL && v->kind == VIV_KIND_TEXT)
    refuse(c, "a text must lie in the frame");
  if (v->where != VIV__WIRE_IN_POOL && (v->pool || v->offset))
    refuse(c, "a pool is named where none is used");
  if (v->where == VIV__WIRE_IN_POOL && v->offset + len < len) refuse(c, "a place overflows");
  v->bytes = (viv_str){NULL, len};
  if (v->where == VIV__WIRE_HERE) v->bytes.ptr = (const char *)take(c, len);
}

static void put_error(viv__buf *b, const viv_error *e) {
  put32(b, (uint32_t)e->code);
  put32(b, (uint32_t)e->line);
  put_text(b, viv__str(e->source));
  put_text(b, viv__str(e->where));
  put_text(b, viv__str(e->message));
}

static void get_error(cursor *c, viv_error *e) {
  *e = (viv_error)VIV_ERROR_INIT;
  e->code = (int32_t)get32(c);
  e->line = (int32_t)get32(c);
  viv_str source = get_text(c, sizeof e->source - 1), where = get_text(c, sizeof e->where - 1);
  viv_str message = get_text(c, sizeof e->message - 1);
  if (c->failed) return;
  if (source.len) memcpy(e->source, source.ptr, source.len);
  if (where.len) memcpy(e->where, where.ptr, where.len);
  if (message.len) memcpy(e->message, message.ptr, message.len);
}

/* ---- messages ---- */

void viv__wire_put_hello(viv__buf *b, const viv__wire_hello *m) {
  put32(b, m->version);
  put32(b, m->abi_major);
  put32(b, m->abi_minor);
  put32(b, m->pid);
  put_text(b, m->name);
}

int32_t viv__wire_hello_read(const viv__frame *f, viv__wire_hello *m, viv_error *error) {
  cursor c = begin(f);
  *m = (viv__wire_hello){get32(&c), get32(&c), get32(&c), get32(&c), {NULL, 0}};
  m->name = get_text(&c, 256);
  return finish(&c, f, error);
}

void viv__wire_put_call(viv__buf *b, const viv__wire_call *m) {
  put64(b, m->model);
  put_text(b, m->verb);
  put_text(b, m->params);
}

int32_t viv__wire_call_read(const viv__frame *f, viv__wire_call *m, viv_error *error) {
  cursor c = begin(f);
  m->model = get64(&c);
  m->verb = get_text(&c, 64);
  m->params = get_text(&c, f->length);
  return finish(&c, f, error);
}

void viv__wire_put_reply(viv__buf *b, const viv__wire_reply *m) {
  put32(b, (uint32_t)m->status);
  if (m->status < 0)
    put_error(b, &m->error);
  else
    put_text(b, m->json);
}

int32_t viv__wire_reply_read(const viv__frame *f, viv__wire_reply *m, viv_error *error) {
  cursor c = begin(f);
  m->status = (int32_t)get32(&c);
  m->json = (viv_str){NULL, 0};
  if (m->status < 0)
    get_error(&c, &m->error);
  else
    m->json = get_text(&c, f->length);
  return finish(&c, f, error);
}

void viv__wire_put_submit(viv__buf *b, const viv__wire_submit *m) {
  put64(b, m->model);
  put64(b, m->session);
  put32(b, (uint32_t)m->priority);
  put32(b, m->credit);
  put64(b, (uint64_t)m->deadline_ms);
  put_text(b, m->task);
  put_text(b, m->params);
  put32(b, m->n_inputs);
  for (uint32_t i = 0; i < m->n_inputs; i++) put_value(b, &m->inputs[i]);
}

int32_t viv__wire_submit_read(const viv__frame *f, viv__wire_submit *m, viv_error *error) {
  cursor c = begin(f);
  m->model = get64(&c);
  m->session = get64(&c);
  m->priority = (int32_t)get32(&c);
  m->credit = get32(&c);
  m->deadline_ms = (int64_t)get64(&c);
  m->task = get_text(&c, 256);
  m->params = get_text(&c, 16 << 20);
  m->n_inputs = get32(&c);
  if (!c.failed && !m->task.len) refuse(&c, "it names no task");
  if (!c.failed && (m->credit < 1 || m->credit > VIV__WIRE_CREDIT)) refuse(&c, "impossible credit");
  if (!c.failed && m->deadline_ms < 0) refuse(&c, "the deadline is negative");
  if (!c.failed && m->n_inputs > VIV__WIRE_INPUTS) refuse(&c, "too many inputs");
  int streams = 0;
  for (uint32_t i = 0; i < m->n_inputs && !c.failed; i++) {
    get_value(&c, &m->inputs[i]);
    if (m->inputs[i].where == VIV__WIRE_IN_FD) refuse(&c, "an input can't lie in a descriptor");
    if (m->inputs[i].kind > VIV_KIND_STREAM) refuse(&c, "an event is no input");
    streams += m->inputs[i].kind == VIV_KIND_STREAM;
    if (streams > VIV__WIRE_STREAMS) refuse(&c, "too many streams");
  }
  return finish(&c, f, error);
}

void viv__wire_put_event(viv__buf *b, const viv__wire_event *m) {
  put64(b, m->seq);
  put32(b, m->flags);
  put32(b, (uint32_t)m->status);
  put_double(b, m->progress);
  put_value(b, &m->value);
  if (m->status < 0) put_error(b, &m->error);
}

int32_t viv__wire_event_read(const viv__frame *f, viv__wire_event *m, viv_error *error) {
  cursor c = begin(f);
  m->seq = get64(&c);
  m->flags = get32(&c);
  m->status = (int32_t)get32(&c);
  m->progress = get_double(&c);
  get_value(&c, &m->value);
  if (!c.failed && m->value.kind == VIV_KIND_STREAM) refuse(&c, "a stream is no result");
  bool pooled = m->value.where == VIV__WIRE_IN_POOL;
  if (!c.failed && pooled && m->value.kind != VIV_KIND_TENSOR && m->value.kind != VIV_KIND_IMAGE &&
      m->value.kind != VIV_KIND_AUDIO)
    refuse(&c, "only tensors, pictures and sounds lie in a pool");
  if (!c.failed && !pooled &&
      (m->value.where == VIV__WIRE_IN_FD) != ((f->flags & VIV__WIRE_FD) != 0))
    refuse(&c, "the descriptor and the value's place contradict");
  bool end = m->value.kind == VIV_KIND_END;
  if (!c.failed && end != ((m->flags & VIV_EVENT_FINAL) != 0)) refuse(&c, "END and FINAL differ");
  if (!c.failed && m->status < 0 && !end) refuse(&c, "only END can fail");
  if (m->status < 0) get_error(&c, &m->error);
  return finish(&c, f, error);
}

void viv__wire_put_feed(viv__buf *b, const viv__wire_feed *m) {
  put32(b, m->stream);
  viv__buf_add(b, m->bytes.ptr, m->bytes.len);
}

int32_t viv__wire_feed_read(const viv__frame *f, viv__wire_feed *m, viv_error *error) {
  cursor c = begin(f);
  *m = (viv__wire_feed){.stream = get32(&c)};
  if (!c.failed && m->stream >= VIV__WIRE_STREAMS) refuse(&c, "a job has no so many streams");
  m->bytes.len = c.failed ? 0 : f->length - 4;
  m->bytes.ptr = (const char *)take(&c, m->bytes.len);
  return finish(&c, f, error);
}

void viv__wire_put_room(viv__buf *b, const viv__wire_feed *m) {
  put32(b, m->stream);
  put64(b, m->room);
}

int32_t viv__wire_room_read(const viv__frame *f, viv__wire_feed *m, viv_error *error) {
  cursor c = begin(f);
  *m = (viv__wire_feed){.stream = get32(&c)};
  m->room = get64(&c);
  if (!c.failed && m->stream >= VIV__WIRE_STREAMS) refuse(&c, "a job has no so many streams");
  if (!c.failed && (!m->room || m->room > VIV__WIRE_STREAM_ROOM)) refuse(&c, "impossible room");
  return finish(&c, f, error);
}

void viv__wire_put_number(viv__buf *b, uint64_t number) {
  put64(b, number);
}

int32_t viv__wire_number_read(const viv__frame *f, uint64_t *number, viv_error *error) {
  cursor c = begin(f);
  *number = get64(&c);
  return finish(&c, f, error);
}

int32_t viv__wire_text_read(const viv__frame *f, viv_str *text, viv_error *error) {
  if (!viv__utf8_valid((const char *)f->payload, f->length))
    return VIV_FAIL(error, VIV_BAD_INPUT, viv__wire_name(f->type), "the text is not UTF-8");
  *text = (viv_str){(const char *)f->payload, f->length};
  return VIV_OK;
}
