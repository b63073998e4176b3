/* OpenBLAS, for the matrix products that need not be STRICT (convolutions, gemm).
 *
 * Loaded at run time, so that the program starts without it. Older releases guess the core from
 * lists of models and may take SSE kernels (a third of the speed) on one they don't know, so
 * the core type is named while it loads: SkylakeX for AVX-512, Haswell for AVX2. A user's own
 * OPENBLAS_CORETYPE wins. */
#include "compute/internal.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* CBLAS's enums, which are fixed by its binary interface. */
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };

typedef void (*cblas_sgemm_fn)(int order, int ta, int tb, int m, int n, int k, float alpha,
                               const float *a, int lda, const float *b, int ldb, float beta,
                               float *c, int ldc);

static pthread_once_t once = PTHREAD_ONCE_INIT;
static cblas_sgemm_fn sgemm;
static char corename[32] = "none";

static const char *core_for_cpu(void) {
  if (viv__cpu_has(viv__str("avx512f")) && viv__cpu_has(viv__str("avx512bw")) &&
      viv__cpu_has(viv__str("avx512dq")) && viv__cpu_has(viv__str("avx512vl")) &&
      viv__cpu_has(viv__str("avx512cd")))
    return "SkylakeX";
  if (viv__cpu_has(viv__str("avx2")) && viv__cpu_has(viv__str("fma"))) return "Haswell";
  return NULL;
}

static void set_variable(const char *name, const char *value, char **saved) {
  const char *old = getenv(name);
  *saved = old ? strdup(old) : NULL;
  setenv(name, value, 1);
}

static void restore_variable(const char *name, char *saved) {
  if (saved)
    setenv(name, saved, 1);
  else
    unsetenv(name);
  free(saved);
}

static void load(void) {
  const char *core = getenv("OPENBLAS_CORETYPE") ? NULL : core_for_cpu();
  if (core) setenv("OPENBLAS_CORETYPE", core, 1);
  /* Otherwise its constructor starts a thread for each core. */
  char *threads;
  set_variable("OPENBLAS_NUM_THREADS", "1", &threads);
  void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  restore_variable("OPENBLAS_NUM_THREADS", threads);
  if (core) unsetenv("OPENBLAS_CORETYPE");
  if (!lib) return;
  void *fn = dlsym(lib, "cblas_sgemm");
  void *set = dlsym(lib, "openblas_set_num_threads");
  void *name = dlsym(lib, "openblas_get_corename");
  if (!fn) return;
  memcpy(&sgemm, &fn, sizeof fn);
  if (set) {
    void (*set_num_threads)(int);
    memcpy(&set_num_threads, &set, sizeof set);
    set_num_threads(1);
  }
  strcpy(corename, "unknown");
  if (name) {
    char *(*get_corename)(void);
    memcpy(&get_corename, &name, sizeof name);
    const char *text = get_corename();
    size_t len = text ? strnlen(text, sizeof corename - 1) : 0;
    if (len) {
      memcpy(corename, text, len);
      corename[len] = 0;
    }
  }
}

bool viv__blas_load(void) {
  pthread_once(&once, load);
  return sgemm != NULL;
}

const char *viv__blas_corename(void) {
  viv__blas_load();
  return corename;
}

void viv__blas_sgemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc) {
  sgemm(ROW_MAJOR, trans_a ? TRANS : NO_TRANS, trans_b ? TRANS : NO_TRANS, (int)m, (int)n, (int)k,
        alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}
