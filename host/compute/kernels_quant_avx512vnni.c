/* The kernels for block formats for AVX-512 with VNNI. Called only after the check in compute.c;
 * the Makefile gives this file its instruction set. */
#if defined(__x86_64__)
#define LANES 16
#define QUANT_KERNELS viv__quant_avx512vnni
#include "compute/kernels_quant.h"
#endif
