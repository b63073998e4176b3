/* The compute table behind viv.compute/1 and the pool it runs on. Internal. */
#ifndef VIV_HOST_COMPUTE_H
#define VIV_HOST_COMPUTE_H

#include "base/base.h"
#include "vivarium/compute.h"

enum viv__isa {
  VIV__ISA_AUTO = 0, /* what VIV_CPU names (portable, avx2, avx512, avx512vnni), else the best */
  VIV__ISA_PORTABLE = 1,
  VIV__ISA_AVX2 = 2,
  VIV__ISA_AVX512 = 3,
  VIV__ISA_AVX512VNNI = 4,
  VIV__ISA_LAST = VIV__ISA_AVX512VNNI
};

/* threads 0: VIV_THREADS, else one per core the process may use. One table per runtime: nothing
 * global but OpenBLAS, which is loaded once per process with OPENBLAS_CORETYPE set when it would
 * fall back to a core below what the processor offers. Each table has its own threads. */
int32_t viv__compute_new(int32_t threads, int32_t isa, const viv_compute **out, viv_error *error);
void viv__compute_free(const viv_compute *c);
/* "avx512vnni", "avx512", "avx2", "portable"; the BLAS core's name; comma-separated processor features. */
const char *viv__compute_isa(const viv_compute *c);
const char *viv__compute_blas(const viv_compute *c);
const char *viv__cpu_features(void); /* static text: "sse4.2,avx2,fma,f16c,avx512f,..." */
bool viv__cpu_has(viv_str feature);
#endif
