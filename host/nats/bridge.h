/* vivd-nats: jobs of a NATS JetStream work queue, run by the vivd of this machine. Internal.
 *
 * Each of its threads takes one message at a time, has vivd run it, stores the result under the message's own
 * id and acknowledges the message then: whoever dies in between, the message comes again, and the second
 * result of an id is dropped by the results' stream. docs/protocol.md has the messages. */
#ifndef VIV_HOST_NATS_BRIDGE_H
#define VIV_HOST_NATS_BRIDGE_H

#include <cjson/cJSON.h>
#include <nats/nats.h>

#include "base/base.h"
#include "vivarium/vivarium.h"

/* One of the threads, and the message that it works on. */
typedef struct hand {
  natsConnection *nats;
  jsCtx *js;
  natsSubscription *queue;
  natsMsg *msg;
  uint64_t patience_ns; /* after which the queue must be told that the job still runs */
  viv_runtime *rt;
} hand;

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
/* The same of one that lies in the object store; info: the object's. */
void result_elsewhere(viv__buf *b, const char *id, const viv__buf *info, int32_t status);
void base64_add(viv__buf *b, const void *bytes, size_t len);

/* Results that are too long for a message (objects.c). */
natsStatus objects_prepare(jsCtx *js, int64_t remember_ns);
bool object_needed(const hand *h, const viv__buf *data);
/* Stores data as the object of that name, unless there is one; info: what describes the one that is there. */
natsStatus object_put(const hand *h, const char *name, const viv__buf *data, viv__buf *info);

#endif
