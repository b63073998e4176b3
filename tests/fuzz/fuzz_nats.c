/* Jobs of a work queue: any bytes are a job or are refused with the place, and nothing leaks. What is read
 * can be used: names, bytes and shapes lie where they say. */
#include "nats/message.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of the library's core, which fuzzers are built without; results are not what is read here. */
const char *viv_status_name(int32_t status) {
  return status < 0 ? "failed" : "ok";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  order *o = calloc(1, sizeof *o);
  viv_error e = VIV_ERROR_INIT;
  if (!o) return 0;
  int32_t status = order_read(o, (const char *)data, size, &e);
  if (status < 0 && !*e.message) abort();
  volatile unsigned char sum = 0;
  for (int i = 0; i < o->n && status >= 0; i++) {
    const viv_value *v = o->list[i];
    const unsigned char *at = v->tensor ? v->tensor->data : (const void *)v->bytes.ptr;
    uint64_t n = v->tensor ? v->tensor->bytes : v->bytes.len;
    for (uint64_t k = 0; k < n; k++) sum ^= at[k];
    for (uint64_t k = 0; k < v->name.len; k++) sum ^= (unsigned char)v->name.ptr[k];
  }
  order_free(o);
  free(o);
  return 0;
}
