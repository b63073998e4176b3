/* Bytes from a peer as frames, each read as what its type says. What is read must be written again as
 * the same bytes: the encoding leaves no choice. */
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const viv__frame *f, viv__buf *b) {
  if (!b->failed && (b->len != f->length || (b->len && memcmp(b->ptr, f->payload, b->len))))
    abort();
  viv__buf_free(b);
}

static int32_t read_frame(const viv__frame *f, viv_error *e) {
  static viv__wire_submit submit;
  viv__wire_hello hello;
  viv__wire_call call;
  viv__wire_reply reply;
  viv__wire_event event;
  viv__wire_feed feed;
  viv_str text;
  uint64_t number;
  viv__buf b = {0};
  int32_t status = VIV_OK;
  switch (f->type) {
  case VIV__WIRE_HELLO:
  case VIV__WIRE_WELCOME:
    if ((status = viv__wire_hello_read(f, &hello, e)) >= 0) viv__wire_put_hello(&b, &hello);
    break;
  case VIV__WIRE_CALL:
    if ((status = viv__wire_call_read(f, &call, e)) >= 0) viv__wire_put_call(&b, &call);
    break;
  case VIV__WIRE_REPLY:
    if ((status = viv__wire_reply_read(f, &reply, e)) >= 0) viv__wire_put_reply(&b, &reply);
    break;
  case VIV__WIRE_SUBMIT:
    if ((status = viv__wire_submit_read(f, &submit, e)) >= 0) viv__wire_put_submit(&b, &submit);
    break;
  case VIV__WIRE_EVENT:
    if ((status = viv__wire_event_read(f, &event, e)) >= 0) viv__wire_put_event(&b, &event);
    break;
  case VIV__WIRE_CREDIT_MORE:
  case VIV__WIRE_POOL:
  case VIV__WIRE_PROMPT:
    if ((status = viv__wire_number_read(f, &number, e)) >= 0) viv__wire_put_number(&b, number);
    break;
  case VIV__WIRE_FEED:
    if ((status = viv__wire_feed_read(f, &feed, e)) >= 0) viv__wire_put_feed(&b, &feed);
    break;
  case VIV__WIRE_ROOM:
    if ((status = viv__wire_room_read(f, &feed, e)) >= 0) viv__wire_put_room(&b, &feed);
    break;
  case VIV__WIRE_GOODBYE:
  case VIV__WIRE_NOTE:
    if ((status = viv__wire_text_read(f, &text, e)) >= 0) viv__buf_add(&b, text.ptr, text.len);
    break;
  default:
    return VIV_OK;
  }
  if (status >= 0) same(f, &b);
  return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  for (size_t at = 0; at < size;) {
    viv__frame f;
    viv_error e = VIV_ERROR_INIT;
    int32_t status = viv__wire_frame(data + at, size - at, &f, &e);
    if (status == VIV_OK) status = read_frame(&f, &e);
    if (status == VIV_WAIT) break;
    if (status < 0) {
      if (!*e.message) abort();
      break;
    }
    at += VIV__WIRE_HEAD + f.length;
  }
  return 0;
}
