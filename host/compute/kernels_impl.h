/* The kernels over vectors of LANES floats. Included once by each instruction set's file, which
 * defines the vector type vf and its operations (v_load, v_fma, ...) before; see kernels_avx2.c.
 *
 * Everything here is static: a function with a symbol of its own, compiled for a wide instruction
 * set, could be the copy that the linker picks for the whole program. */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#include "compute/kernels_math.h"
#include "compute/kernels_linear.h"
#include "compute/kernels_rows.h"
#include "compute/kernels_attention.h"
#include "compute/kernels_state.h"

const viv__kernels KERNELS = {
    .name = KERNELS_NAME,
    .lanes = LANES,
    .tile_rows = LINEAR_ROWS,
    .linear = linear,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .unary = unary,
    .gate = gate_kernel,
    .axpy = axpy,
    .rope = rope,
    .attention = attention,
    .causal_conv = causal_conv,
    .scan = scan,
    .store = store,
    .load = load,
};
