/* The table viv.compute/1 and what it runs on. Each file of this folder splits its operations over the
 * pool and hands the pieces to the kernels that fit the processor. No piece's result depends on how
 * the work was split. */
#include "compute/internal.h"
#include "compute/quant_kernels.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

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

static const char *const isa_names[] = {
    [VIV__ISA_PORTABLE] = "portable",
    [VIV__ISA_AVX2] = "avx2",
    [VIV__ISA_AVX512] = "avx512",
    [VIV__ISA_AVX512VNNI] = "avx512vnni",
};

/* The set that VIV_CPU asks for; -1: it names none. */
static int32_t isa_asked_for(void) {
  const char *text = getenv("VIV_CPU");
  if (!text || !*text) return VIV__ISA_AUTO;
  for (int32_t isa = VIV__ISA_PORTABLE; isa <= VIV__ISA_LAST; isa++)
    if (!strcmp(text, isa_names[isa])) return isa;
  return -1;
}

/* Fills in the kernels of that set; false: this processor can't run it. */
static bool choose_kernels(int32_t isa, viv__compute *c) {
  bool any = isa == VIV__ISA_AUTO;
  c->isa = isa_names[VIV__ISA_PORTABLE];
  c->kernels = &viv__kernels_portable;
  c->quant = &viv__quant_portable;
#if defined(__x86_64__)
  static const char *const need[] = {"avx2",     "fma",      "f16c",     "avx512f",   "avx512bw",
                                     "avx512dq", "avx512vl", "avx512cd", "avx512vnni"};
  bool vnni = has_all(need, 9), avx512 = has_all(need, 8), avx2 = has_all(need, 3);
  if ((any || isa == VIV__ISA_AVX512VNNI) && vnni) {
    c->isa = isa_names[VIV__ISA_AVX512VNNI];
    c->kernels = &viv__kernels_avx512;
    c->quant = &viv__quant_avx512vnni;
    return true;
  }
  if ((any || isa == VIV__ISA_AVX512) && avx512) {
    c->isa = isa_names[VIV__ISA_AVX512];
    c->kernels = &viv__kernels_avx512;
    c->quant = &viv__quant_avx512;
    return true;
  }
  if ((any || isa == VIV__ISA_AVX2) && avx2) {
    c->isa = isa_names[VIV__ISA_AVX2];
    c->kernels = &viv__kernels_avx2;
    c->quant = &viv__quant_avx2;
    return true;
  }
#endif
  return any || isa == VIV__ISA_PORTABLE;
}

int32_t viv__compute_new(int32_t threads, int32_t isa, const viv_compute **out, viv_error *error) {
  if (isa == VIV__ISA_AUTO) isa = isa_asked_for();
  if (isa < 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, "VIV_CPU",
                    "\"%s\" is no set of kernels; there are portable, avx2, avx512 and avx512vnni",
                    getenv("VIV_CPU"));
  viv__compute set;
  if (!choose_kernels(isa, &set))
    return VIV_FAIL(error, VIV_NEVER, "instruction set",
                    "this processor can't run the kernels for %s; it offers %s", isa_names[isa],
                    viv__cpu_features());
  viv__compute *c = viv__calloc(1, sizeof *c);
  viv__pool *pool = c ? viv__pool_new(threads > 0 ? threads : thread_count()) : NULL;
  if (pool) c->scratch = viv__scratch_new(viv__scratch_bytes(viv__pool_threads(pool)));
  if (!pool || !c->scratch) {
    viv__pool_free(pool);
    viv__free(c);
    return VIV_FAIL(error, VIV_NOT_NOW, "memory", "no memory for the compute pool");
  }
  c->isa = set.isa;
  c->kernels = set.kernels;
  c->quant = set.quant;
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
  viv__table_maps(&c->table);
  viv__table_resize_u8(&c->table);
  viv__table_layout(&c->table);
  viv__table_select(&c->table);
  viv__table_sequence(&c->table);
  viv__table_signal(&c->table);
  *out = &c->table;
  return VIV_OK;
}

void viv__compute_free(const viv_compute *c) {
  if (!c) return;
  viv__compute *self = c->self;
  viv__pool_free(self->pool);
  viv__scratch_free(self->scratch);
  viv__free(self);
}

const char *viv__compute_isa(const viv_compute *c) {
  return viv__compute_of(c)->isa;
}

const char *viv__compute_blas(const viv_compute *c) {
  return viv__compute_of(c)->blas ? viv__blas_corename() : "none";
}
