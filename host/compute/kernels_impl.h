/* The kernels over vectors of LANES floats. Included once by each instruction set's file, which
 * defines the vector type vf and its operations (v_load, v_fma, ...) before; see kernels_avx2.c.
 *
 * Everything here is static: a function with a symbol of its own, compiled for a wide instruction
 * set, could be the copy that the linker picks for the whole program. */

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#include "compute/ops.h"

#include "compute/kernels_math.h"
#include "compute/kernels_linear.h"
#include "compute/kernels_rows.h"
#include "compute/kernels_attention.h"
#include "compute/kernels_state.h"
#include "compute/kernels_conv.h"
#define TURN_LANES LANES
#include "compute/kernels_gates.h"
#include "compute/kernels_maps.h"
#include "compute/kernels_u8.h"
#include "compute/kernels_layout.h"
#include "compute/kernels_signal.h"
#define OPS static const viv__ops own_ops
#include "compute/kernels_ops.h"

const viv__kernels KERNELS = {
    .name = KERNELS_NAME,
    .lanes = LANES,
    .tile_rows = LINEAR_ROWS,
    .linear = linear,
    .layer_norm = layer_norm,
    .rms_norm = rms_norm,
    .softmax = softmax,
    .unary = unary,
    .unary_with = unary_with,
    .gate = gate_kernel,
    .axpy = axpy,
    .multiply = multiply,
    .scale_shift = scale_shift,
    .rope = rope,
    .attention = attention,
    .attention_merge = attention_merge,
    .causal_conv = causal_conv,
    .scan = scan,
    .store = store,
    .load = load,
    .ops = &own_ops,
    .conv_tile = conv_tile,
    .conv_strip = conv_strip,
    .transpose = transpose,
    .winograd_in = winograd_in,
    .winograd_out = winograd_out,
    .conv_depthwise = conv_depthwise,
    .pool_rows = pool_rows,
};
