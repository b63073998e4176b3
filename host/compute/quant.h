/* Block formats: what a row of weights looks like when it is unpacked, and rows from and to floats.
 * Internal.
 *
 * Every block format is read as x = scale (q - zero) + minimum: q is a byte, zero a constant of the
 * format, scale and minimum belong to a unit of 16 or 32 elements. The layouts of GGUF's types are
 * those of ggml's block structures (ggml-common.h, ggml-quants.c). */
#ifndef VIV_HOST_QUANT_H
#define VIV_HOST_QUANT_H

#include <stdbool.h>
#include <stdint.h>

#include "vivarium/core.h"

typedef struct viv__format {
  int32_t dtype; /* enum viv_dtype */
  int16_t span;  /* elements that are unpacked at once: those of a block */
  int16_t unit;  /* elements that share a scale and a minimum: 16 or 32 */
  uint8_t zero;  /* the q of the value 0, or of the minimum */
  bool minimum;  /* false: minimum is 0 */
} viv__format;

/* NULL: dtype is no block format. */
const viv__format *viv__format_of(int32_t dtype);

/* Matrices of block formats have rows of at most this many elements: what the scratch memory of a
 * product is made for. */
enum { VIV__BLOCK_COLS = 65536 };

/* Elements [begin, begin + n) of a row of cols elements, which is at any alignment, as floats; begin
 * and n are multiples of the block (INT8_ROW: begin is one of 32). */
void viv__dequantize_row(int32_t dtype, const void *row, int64_t cols, int64_t begin, int64_t n,
                         float *x);

/* Formats that viv__quantize_row can write: INT8_ROW, INT8_G128, INT4_G128, Q4_0, Q4_1, Q8_0. */
bool viv__can_quantize(int32_t dtype);

/* A row of n floats in a block format, to viv__row_bytes(dtype, n) bytes. 8 bits: the largest value of
 * a group decides its scale. 4 bits: of several scales the one with the least sum of
 * importance[i] (x[i] - x'[i])^2 is taken; importance NULL: 1. A value that is no number becomes 0, an
 * infinite one the largest finite one of f16. */
void viv__quantize_row(int32_t dtype, const float *x, const float *importance, void *row,
                       int64_t n);

#endif
