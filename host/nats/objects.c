/* Results that no message holds: objects of a JetStream object store, as the NATS clients that have one read
 * and write them (their architecture decision 20). libnats has none, but an object store is a stream by
 * agreement: an object's bytes are messages of $O.BUCKET.C.ID, in order, and one message of
 * $O.BUCKET.M.NAME-in-base64 says which id, how many bytes and chunks, and their SHA-256.
 *
 * Who stores may be killed after any chunk, and another one begins again. The object's id is made of its name and
 * its bytes, and each chunk's message id of that and its number: what is stored already is dropped by the
 * stream, so that the chunks lie there once and in order, whoever wrote them. */
#include <sha256.h>
#include <stdlib.h>
#include <string.h>

#include "nats/bridge.h"

#define BUCKET "vivarium"
enum { CHUNK = 128 * 1024, HEADERS = 1024, ID = 22 };

natsStatus objects_prepare(jsCtx *js, int64_t remember_ns) {
  const char *subjects[] = {"$O." BUCKET ".C.>", "$O." BUCKET ".M.>"};
  jsStreamConfig c;
  jsErrCode code = 0;
  jsStreamConfig_Init(&c);
  c.Name = "OBJ_" BUCKET;
  c.Subjects = subjects;
  c.SubjectsLen = 2;
  c.Storage = js_FileStorage;
  c.Discard = js_DiscardNew;
  c.AllowRollup = true;
  c.AllowDirect = true;
  c.Duplicates = remember_ns;
  natsStatus s = js_AddStream(NULL, js, &c, NULL, &code);
  return code == JSStreamNameExistErr ? NATS_OK : s;
}

/* Base64 as in names of files and subjects. */
static void add_base64(viv__buf *b, const void *bytes, size_t n) {
  size_t from = b->len;
  base64_add(b, bytes, n);
  for (; !b->failed && from < b->len; from++)
    if (b->ptr[from] == '+' || b->ptr[from] == '/') b->ptr[from] = b->ptr[from] == '+' ? '-' : '_';
}

static void digest_of(viv_str a, viv_str b, uint8_t out[SHA256_DIGEST_LENGTH]) {
  SHA2_CTX ctx;
  SHA256Init(&ctx);
  SHA256Update(&ctx, (const uint8_t *)a.ptr, a.len);
  SHA256Update(&ctx, (const uint8_t *)b.ptr, b.len);
  SHA256Final(out, &ctx);
}

static void make_id(const char *name, const uint8_t digest[SHA256_DIGEST_LENGTH], char id[ID + 1]) {
  static const char letters[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  uint8_t mixed[SHA256_DIGEST_LENGTH];
  digest_of(viv__str(name), (viv_str){(const char *)digest, SHA256_DIGEST_LENGTH}, mixed);
  for (int i = 0; i < ID; i++) id[i] = letters[mixed[i] % 62];
  id[ID] = 0;
}

/* The message that describes an object; taken over by the caller. NULL: there is none. */
static natsMsg *find(jsCtx *js, const char *subject) {
  natsMsg *msg = NULL;
  return js_GetLastMsg(&msg, js, "OBJ_" BUCKET, subject, NULL, NULL) == NATS_OK ? msg : NULL;
}

static natsStatus put_chunks(const hand *h, const char *id, const viv__buf *data, size_t chunk) {
  char subject[64], name[64];
  natsStatus s = NATS_OK;
  uint64_t told = viv__now_ns();
  snprintf(subject, sizeof subject, "$O." BUCKET ".C.%s", id);
  for (size_t at = 0, n = 0; s == NATS_OK && at < data->len; at += chunk, n++) {
    jsPubOptions o;
    jsPubOptions_Init(&o);
    snprintf(name, sizeof name, "%s-%zu", id, n);
    o.MsgId = name;
    size_t len = data->len - at < chunk ? data->len - at : chunk;
    s = js_Publish(NULL, h->js, subject, data->ptr + at, (int)len, &o, NULL);
    if (viv__now_ns() - told > h->patience_ns) {
      natsMsg_InProgress(h->msg, NULL);
      told = viv__now_ns();
    }
  }
  return s;
}

static natsStatus put_info(const hand *h, const char *subject, const viv__buf *info) {
  natsMsg *msg = NULL;
  natsStatus s = natsMsg_Create(&msg, subject, NULL, info->ptr, (int)info->len);
  if (s == NATS_OK) s = natsMsgHeader_Set(msg, JSMsgRollup, JSMsgRollupSubject);
  if (s == NATS_OK) s = js_PublishMsg(NULL, h->js, msg, NULL, NULL);
  natsMsg_Destroy(msg);
  return s;
}

natsStatus object_put(const hand *h, const char *name, const viv__buf *data, viv__buf *info) {
  viv__buf subject = {0};
  uint8_t digest[SHA256_DIGEST_LENGTH];
  char id[ID + 1];
  int64_t most = natsConnection_GetMaxPayload(h->nats) - HEADERS;
  size_t chunk = most < CHUNK ? (size_t)(most > 0 ? most : 1) : CHUNK;
  viv__buf_str(&subject, "$O." BUCKET ".M.");
  add_base64(&subject, name, strlen(name));
  natsStatus s = subject.failed ? NATS_NO_MEMORY : NATS_OK;
  natsMsg *there = s == NATS_OK ? find(h->js, subject.ptr) : NULL;
  if (there) { /* the first one counts, as among results */
    viv__buf_add(info, natsMsg_GetData(there), (size_t)natsMsg_GetDataLength(there));
    natsMsg_Destroy(there);
  } else if (s == NATS_OK) {
    digest_of((viv_str){data->ptr, data->len}, (viv_str){NULL, 0}, digest);
    make_id(name, digest, id);
    s = put_chunks(h, id, data, chunk);
    viv__buf_str(info, "{\"name\":");
    viv__buf_json(info, viv__str(name));
    viv__buf_fmt(info,
                 ",\"options\":{\"max_chunk_size\":%zu},\"bucket\":\"" BUCKET
                 "\",\"nuid\":\"%s\",\"size\":%zu,\"chunks\":%zu,\"digest\":\"SHA-256=",
                 chunk, id, data->len, (data->len + chunk - 1) / chunk);
    add_base64(info, digest, sizeof digest);
    viv__buf_str(info, "\"}");
    if (s == NATS_OK) s = info->failed ? NATS_NO_MEMORY : put_info(h, subject.ptr, info);
  }
  viv__buf_free(&subject);
  return s == NATS_OK && info->failed ? NATS_NO_MEMORY : s;
}

bool object_needed(const hand *h, const viv__buf *data) {
  return (int64_t)data->len > natsConnection_GetMaxPayload(h->nats) - HEADERS;
}
