/* The daemon's frames and messages: what is written is read again, and nothing else is. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire/wire.h"

static const float floats[6] = {1, 2, 3, 4, 5, 6};

static viv__frame frame_of(int type, uint32_t flags, const viv__buf *b) {
  return (viv__frame){.version = VIV__WIRE_VERSION,
                      .type = (uint16_t)type,
                      .flags = flags,
                      .length = (uint32_t)b->len,
                      .payload = (const uint8_t *)b->ptr};
}

static void a_submit(viv__wire_submit *m) {
  *m = (viv__wire_submit){.model = 3,
                          .session = 9,
                          .priority = -2,
                          .credit = 256,
                          .deadline_ms = 1500,
                          .task = viv__str("generate"),
                          .params = viv__str("{\"top_k\": 4}"),
                          .n_inputs = 3};
  m->inputs[0] = (viv__wire_value){
      .kind = VIV_KIND_TEXT, .name = viv__str("text"), .bytes = viv__str("größer")};
  m->inputs[1] = (viv__wire_value){.kind = VIV_KIND_TENSOR,
                                   .name = viv__str("x"),
                                   .bytes = {(const char *)floats, sizeof floats},
                                   .dtype = VIV_F32,
                                   .ndim = 2,
                                   .shape = {2, 3}};
  m->inputs[2] = (viv__wire_value){.kind = VIV_KIND_IMAGE,
                                   .where = VIV__WIRE_IN_POOL,
                                   .name = viv__str("picture"),
                                   .bytes = {NULL, 70000},
                                   .pool = 5,
                                   .offset = 4096};
}

static void an_event(viv__wire_event *m) {
  *m = (viv__wire_event){.seq = 7,
                         .flags = VIV_EVENT_FINAL,
                         .status = VIV_BAD_INPUT,
                         .progress = 0.5,
                         .error = VIV_ERROR_INIT};
  m->value = (viv__wire_value){
      .kind = VIV_KIND_END, .name = viv__str("end"), .bytes = viv__str("{\"steps\":3}")};
  VIV_FAIL(&m->error, VIV_BAD_INPUT, "x", "has %d axes", 3);
}

Test(wire, a_submit_comes_back_whole) {
  static viv__wire_submit m, r;
  viv__buf b = {0};
  viv_error e = VIV_ERROR_INIT;
  a_submit(&m);
  viv__wire_put_submit(&b, &m);
  viv__frame f = frame_of(VIV__WIRE_SUBMIT, 0, &b);
  cr_assert_eq(viv__wire_submit_read(&f, &r, &e), VIV_OK, "%s: %s", e.where, e.message);
  cr_assert_eq(r.model, 3);
  cr_assert_eq(r.session, 9);
  cr_assert_eq(r.priority, -2);
  cr_assert_eq(r.deadline_ms, 1500);
  cr_assert(viv__str_eq(r.params, "{\"top_k\": 4}"));
  cr_assert(viv__str_eq(r.inputs[0].bytes, "größer"));
  cr_assert_eq(memcmp(r.inputs[1].bytes.ptr, floats, sizeof floats), 0);
  cr_assert_eq(r.inputs[1].shape[1], 3);
  cr_assert_eq(r.inputs[2].pool, 5);
  cr_assert_eq(r.inputs[2].offset, 4096);
  uint64_t pool;
  memcpy(&pool, b.ptr + r.inputs[2].pool_at, sizeof pool);
  cr_assert_eq(pool, 5, "whoever forwards it finds the pool's number");
  viv__buf_free(&b);
}

Test(wire, an_event_comes_back_whole) {
  viv__wire_event m, r;
  viv__buf b = {0};
  viv_error e = VIV_ERROR_INIT;
  an_event(&m);
  viv__wire_put_event(&b, &m);
  viv__frame f = frame_of(VIV__WIRE_EVENT, 0, &b);
  cr_assert_eq(viv__wire_event_read(&f, &r, &e), VIV_OK, "%s: %s", e.where, e.message);
  cr_assert_eq(r.seq, 7);
  cr_assert_eq(r.status, VIV_BAD_INPUT);
  cr_assert_eq(r.progress, 0.5);
  cr_assert_str_eq(r.error.message, "has 3 axes");
  cr_assert_eq(r.error.line, m.error.line);
  viv__buf_free(&b);
}

/* Every prefix of a message lacks something, and one byte behind it is one too many. */
Test(wire, every_cut_is_refused) {
  static viv__wire_submit m, r;
  viv__wire_event me, re;
  viv_error e = VIV_ERROR_INIT;
  for (int which = 0; which < 2; which++) {
    viv__buf b = {0};
    a_submit(&m);
    an_event(&me);
    if (which)
      viv__wire_put_event(&b, &me);
    else
      viv__wire_put_submit(&b, &m);
    size_t whole = b.len;
    viv__buf_add(&b, "x", 1);
    for (size_t cut = 0; cut <= b.len; cut++) {
      if (cut == whole) continue;
      /* A copy of just that length, so that a sanitizer sees a read behind it. */
      char *copy = malloc(cut ? cut : 1);
      memcpy(copy, b.ptr, cut);
      viv__buf part = {.ptr = copy, .len = cut};
      viv__frame f = frame_of(which ? VIV__WIRE_EVENT : VIV__WIRE_SUBMIT, 0, &part);
      int32_t status =
          which ? viv__wire_event_read(&f, &re, &e) : viv__wire_submit_read(&f, &r, &e);
      cr_assert_eq(status, VIV_BAD_INPUT, "%zu of %zu bytes are taken for a message", cut, whole);
      cr_assert(strstr(e.message, "byte"), "%s", e.message);
      free(copy);
    }
    viv__buf_free(&b);
  }
}

static const char *refusal(viv__wire_submit *m) {
  static viv__wire_submit r;
  static viv_error e;
  viv__buf b = {0};
  e = (viv_error)VIV_ERROR_INIT;
  viv__wire_put_submit(&b, m);
  viv__frame f = frame_of(VIV__WIRE_SUBMIT, 0, &b);
  int32_t status = viv__wire_submit_read(&f, &r, &e);
  viv__buf_free(&b);
  return status == VIV_OK ? "taken" : e.message;
}

Test(wire, impossible_jobs_are_refused) {
  static viv__wire_submit m;
  a_submit(&m);
  m.credit = 0;
  cr_assert(strstr(refusal(&m), "credit"));
  m.credit = VIV__WIRE_CREDIT + 1;
  cr_assert(strstr(refusal(&m), "credit"));
  a_submit(&m);
  m.deadline_ms = -1;
  cr_assert(strstr(refusal(&m), "deadline"));
  a_submit(&m);
  m.task = (viv_str){NULL, 0};
  cr_assert(strstr(refusal(&m), "task"));
  a_submit(&m);
  m.inputs[0].bytes = (viv_str){"\xff\xfe", 2};
  cr_assert_str_eq(refusal(&m), "taken", "an input's bytes are the library's to check");
  m.task = (viv_str){"\xff", 1};
  cr_assert(strstr(refusal(&m), "UTF-8"));
  a_submit(&m);
  m.inputs[1].shape[0] = INT64_MAX;
  cr_assert(strstr(refusal(&m), "shape"));
  a_submit(&m);
  m.inputs[1].dtype = 12345;
  cr_assert(strstr(refusal(&m), "shape"));
  a_submit(&m);
  m.inputs[2].offset = UINT64_MAX - 5;
  cr_assert(strstr(refusal(&m), "overflows"));
  a_submit(&m);
  m.inputs[2].kind = VIV_KIND_TEXT;
  cr_assert(strstr(refusal(&m), "text must lie"));
  a_submit(&m);
  m.inputs[0].kind = VIV_KIND_STREAM;
  cr_assert(strstr(refusal(&m), "stream's bytes"));
  a_submit(&m);
  m.inputs[0].kind = VIV_KIND_END;
  cr_assert(strstr(refusal(&m), "event"));
}

Test(wire, heads_are_held_against_the_limits) {
  uint8_t head[VIV__WIRE_HEAD];
  viv__frame f = {.type = VIV__WIRE_CANCEL, .id = 4}, r;
  viv_error e = VIV_ERROR_INIT;
  viv__wire_put_head(head, &f);
  cr_assert_eq(viv__wire_frame(head, sizeof head, &r, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(r.id, 4);
  for (size_t n = 1; n < sizeof head; n++) cr_assert_eq(viv__wire_frame(head, n, &r, &e), VIV_WAIT);
  for (size_t i = 0; i < sizeof head; i++) {
    if (i >= 16 && i < 24) continue; /* the number may be any */
    uint8_t was = head[i];
    head[i] ^= 0x80;
    int32_t status = viv__wire_frame(head, sizeof head, &r, &e);
    cr_assert_eq(status, VIV_BAD_INPUT, "byte %zu may be anything", i);
    head[i] = was;
  }
  for (int type = 1; type < VIV__WIRE_TYPES; type++) {
    f = (viv__frame){.type = (uint16_t)type, .length = (uint32_t)viv__wire_limit(type)};
    viv__wire_put_head(head, &f);
    cr_assert_neq(viv__wire_frame(head, sizeof head, &r, &e), VIV_BAD_INPUT);
    f.length++;
    viv__wire_put_head(head, &f);
    cr_assert_eq(viv__wire_frame(head, sizeof head, &r, &e), VIV_BAD_INPUT);
  }
}

/* Frames of all sizes, some with a descriptor, through a socket that takes little at a time. */
Test(wire, a_link_keeps_frames_and_descriptors_together) {
  int ends[2], small = 4096;
  cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
  setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  viv__link a, b;
  viv_error e = VIV_ERROR_INIT;
  viv__link_open(&a, ends[0]);
  viv__link_open(&b, ends[1]);
  char *payload = calloc(1, 200000);
  for (int i = 0; i < 50; i++) {
    int fd = i % 3 ? -1 : viv__region_make("test", 4096 * (uint64_t)(i + 1), NULL);
    memset(payload, i, 200000);
    cr_assert(viv__link_put(&a, VIV__WIRE_CALL, (uint64_t)i, payload, (size_t)i * 4000, fd));
  }
  int got = 0;
  while (got < 50) {
    viv__frame f;
    int fd;
    viv__link_flush(&a);
    cr_assert_geq(viv__link_read(&b, &e), 0, "%s", e.message);
    while (viv__link_next(&b, &f, &fd, &e) == VIV_OK) {
      cr_assert_eq(f.id, (uint64_t)got);
      cr_assert_eq(f.length, (uint32_t)got * 4000);
      for (uint32_t k = 0; k < f.length; k += 999) cr_assert_eq(f.payload[k], got);
      cr_assert_eq(fd >= 0, got % 3 == 0);
      if (fd >= 0) {
        cr_assert_eq(viv__region_check(fd, 4096 * (uint64_t)(got + 1), false, &e), VIV_OK);
        close(fd);
      }
      got++;
    }
  }
  free(payload);
  viv__link_close(&a);
  viv__link_close(&b);
}

Test(wire, only_sealed_memory_is_taken) {
  viv_error e = VIV_ERROR_INIT;
  void *map = NULL;
  int fd = viv__region_make("test", 8192, &map);
  cr_assert_eq(viv__region_check(fd, 8192, false, &e), VIV_OK);
  cr_assert_eq(viv__region_check(fd, 4096, false, &e), VIV_BAD_INPUT);
  cr_assert_eq(viv__region_check(fd, 8192, true, &e), VIV_BAD_INPUT);
  cr_assert_neq(ftruncate(fd, 4096), 0, "it shrinks though it is sealed");
  close(fd);
  fd = viv__region_make("test", 8192, NULL);
  cr_assert_eq(viv__region_freeze(fd), 0);
  cr_assert_eq(viv__region_check(fd, 8192, true, &e), VIV_OK);
  cr_assert_lt(write(fd, "x", 1), 0, "it is written though it is sealed");
  close(fd);
  cr_assert_eq(viv__region_check(STDIN_FILENO, 0, false, &e), VIV_BAD_INPUT);
}

Test(wire, only_plain_bytes_of_a_result_lie_in_a_region) {
  static const struct {
    int32_t kind, status;
    uint32_t where, flags;
  } cases[] = {{VIV_KIND_IMAGE, VIV_OK, VIV__WIRE_IN_POOL, 0},
               {VIV_KIND_IMAGE, VIV_OK, VIV__WIRE_IN_POOL, VIV__WIRE_FD},
               {VIV_KIND_AUDIO, VIV_OK, VIV__WIRE_IN_POOL, 0},
               {VIV_KIND_TEXT, VIV_BAD_INPUT, VIV__WIRE_IN_POOL, 0},
               {VIV_KIND_JSON, VIV_BAD_INPUT, VIV__WIRE_IN_POOL, 0},
               {VIV_KIND_END, VIV_BAD_INPUT, VIV__WIRE_IN_POOL, 0},
               {VIV_KIND_IMAGE, VIV_OK, VIV__WIRE_IN_FD, VIV__WIRE_FD},
               {VIV_KIND_IMAGE, VIV_BAD_INPUT, VIV__WIRE_IN_FD, 0},
               {VIV_KIND_IMAGE, VIV_BAD_INPUT, VIV__WIRE_HERE, VIV__WIRE_FD}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    viv__wire_event m = {.value = {.kind = cases[i].kind, .where = cases[i].where}}, r;
    bool pooled = cases[i].where == VIV__WIRE_IN_POOL;
    m.value.name = viv__str("y");
    m.value.bytes = (viv_str){"0123456789", 10};
    m.value.pool = pooled ? 5 : 0;
    m.value.offset = pooled ? 64 : 0;
    m.flags = cases[i].kind == VIV_KIND_END ? VIV_EVENT_FINAL : 0;
    viv__buf b = {0};
    viv_error e = VIV_ERROR_INIT;
    viv__wire_put_event(&b, &m);
    viv__frame f = {.type = VIV__WIRE_EVENT,
                    .flags = cases[i].flags,
                    .length = (uint32_t)b.len,
                    .payload = (const uint8_t *)b.ptr};
    cr_assert_eq(viv__wire_event_read(&f, &r, &e), cases[i].status, "case %zu: %s", i, e.message);
    if (cases[i].status == VIV_OK && pooled) cr_assert(r.value.pool == 5 && r.value.pool_at > 0);
    viv__buf_free(&b);
  }
}
