/* The kernels for block formats for AVX2 with FMA and F16C. Called only after the check in compute.c;
 * the Makefile gives this file its instruction set. */
#if defined(__x86_64__)
#define LANES 8
#define QUANT_KERNELS viv__quant_avx2
#include "compute/kernels_quant.h"
#endif
