/* Which instructions this process may use: what the processor has and the system saves. */
#include "compute/compute.h"

#include <pthread.h>
#include <string.h>

static char features[512];
static pthread_once_t features_once = PTHREAD_ONCE_INIT;

static void add(const char *name) {
  size_t len = strlen(features);
  if (len + strlen(name) + 2 > sizeof features) return;
  if (len) features[len++] = ',';
  strcpy(features + len, name);
}

static void detect(void) {
#if defined(__x86_64__)
  /* GCC's own detection also asks xgetbv whether the system saves the wide registers. */
  __builtin_cpu_init();
#define HAVE(name)                                                                                 \
  if (__builtin_cpu_supports(name)) add(name)
  HAVE("sse4.2");
  HAVE("avx");
  HAVE("avx2");
  HAVE("fma");
  HAVE("f16c");
  HAVE("avx512f");
  HAVE("avx512cd");
  HAVE("avx512bw");
  HAVE("avx512dq");
  HAVE("avx512vl");
  HAVE("avx512vnni");
  HAVE("avx512bf16");
#undef HAVE
#elif defined(__aarch64__)
  add("neon");
#endif
}

const char *viv__cpu_features(void) {
  pthread_once(&features_once, detect);
  return features;
}

bool viv__cpu_has(viv_str feature) {
  const char *at = viv__cpu_features();
  while (*at) {
    size_t len = strcspn(at, ",");
    if (len == feature.len && !memcmp(at, feature.ptr, len)) return true;
    at += len + (at[len] == ',');
  }
  return false;
}
