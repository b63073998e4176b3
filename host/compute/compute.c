/* The table viv.compute/1 and what it runs on. Each file of this folder splits its operations over the
 * pool and hands the pieces to the kernels that fit the processor. No piece's result depends on how
 * the work was split. */
#include "compute/internal.h"

#include <sched.h>
#include <stdlib.h>

void viv__parallel(const viv_compute *c, int64_t n, int64_t grain, viv__body body, void *ctx) {
  viv__pool_run(viv__compute_of(c)->pool, n, grain, body, ctx);
}

static int32_t thread_count(void) {
  const char *text = getenv("VIV_THREADS");
  long n = text ? strtol(text, NULL, 10) : 0;
  cpu_set_t set;
  if (n < 1 && !sched_getaffinity(0, sizeof set, &set)) n = CPU_COUNT(&set);
  return n < 1 ? 1 : n > 1024 ? 1024 : (int32_t)n;
}

static bool has_all(const char *const *features, int n) {
  for (int i = 0; i < n; i++)
    if (!viv__cpu_has(viv__str(features[i]))) return false;
  return true;
}

/* NULL: this processor can't run that set. */
static const viv__kernels *kernels_for(int32_t isa) {
#if defined(__x86_64__)
  static const char *const need[] = {"avx2",     "fma",      "f16c",     "avx512f",
                                     "avx512bw", "avx512dq", "avx512vl", "avx512cd"};
  bool avx2 = has_all(need, 3), avx512 = has_all(need, 8);
  if ((isa == VIV__ISA_AUTO || isa == VIV__ISA_AVX512) && avx512) return &viv__kernels_avx512;
  if ((isa == VIV__ISA_AUTO || isa == VIV__ISA_AVX2) && avx2) return &viv__kernels_avx2;
#endif
  if (isa == VIV__ISA_AUTO || isa == VIV__ISA_PORTABLE) return &viv__kernels_portable;
  return NULL;
}

int32_t viv__compute_new(int32_t threads, int32_t isa, const viv_compute **out, viv_error *error) {
  const viv__kernels *kernels = kernels_for(isa);
  if (!kernels)
    return VIV_FAIL(error, VIV_NEVER, "instruction set",
                    "this processor can't run the kernels for %s; it offers %s",
                    isa == VIV__ISA_AVX512 ? "avx512" : "avx2", viv__cpu_features());
  viv__compute *c = viv__calloc(1, sizeof *c);
  viv__pool *pool = c ? viv__pool_new(threads > 0 ? threads : thread_count()) : NULL;
  if (!pool) {
    viv__free(c);
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no memory for the compute pool");
  }
  c->kernels = kernels;
  c->pool = pool;
  c->blas = viv__blas_load();
  c->table = (viv_compute){
      .struct_size = sizeof(viv_compute),
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .threads = viv__pool_threads(pool),
      .self = c,
      .parallel_for = viv__parallel,
  };
  viv__table_weights(&c->table);
  viv__table_linear(&c->table);
  viv__table_rows(&c->table);
  viv__table_attention(&c->table);
  viv__table_state(&c->table);
  viv__table_conv(&c->table);
  *out = &c->table;
  return VIV_OK;
}

void viv__compute_free(const viv_compute *c) {
  if (!c) return;
  viv__compute *self = c->self;
  viv__pool_free(self->pool);
  viv__free(self);
}

const char *viv__compute_isa(const viv_compute *c) {
  return viv__compute_of(c)->kernels->name;
}

const char *viv__compute_blas(const viv_compute *c) {
  return viv__compute_of(c)->blas ? viv__blas_corename() : "none";
}
