/* vivd-nats: jobs of a NATS JetStream work queue, run by the vivd of this machine. Internal.
 *
 * Each of its threads takes one message at a time, has vivd run it, stores the result under the message's own
 * id and acknowledges the message then: whoever dies in between, the message comes again, and the second
 * result of an id is dropped by the results' stream. docs/protocol.md has the messages. */
#ifndef VIV_HOST_NATS_BRIDGE_H
#define VIV_HOST_NATS_BRIDGE_H

#include <cjson/cJSON.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

/* A message as a job (message.c). */
typedef struct order {
  cJSON *json;
  const char *model, *task, *reply; /* reply: a subject below the results' */
  char *load, *params;              /* JSON; NULL: none */
  viv_value values[64];
  viv_tensor tensors[64];
  const viv_value *list[64];
  void *owned[64]; /* decoded bytes */
  int n;
} order;

/* The error names the member that is wrong. order_free also after a failure. */
int32_t order_read(order *o, const char *text, size_t len, viv_error *error);
void order_free(order *o);

/* A result as it grows; begin, events, end. */
void result_begin(viv__buf *b, const char *id);
void result_add(viv__buf *b, const viv_event *e);
void result_end(viv__buf *b, int32_t status, const viv_error *error);

#endif
