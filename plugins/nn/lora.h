/* Low-rank adapters beside a linear layer, merged into its matrix when it is loaded.
 *
 *   W' = W + factor B A                    name.lora_A [rank, in], name.lora_B [out, rank]
 *   W' = W + factor (V o B) (U o A)        scaled: name.lora_U [rank, 1], name.lora_V [out, 1]
 *
 * Hu et al., LoRA, arXiv:2106.09685; the scaled form: Cui et al., EndoDAC, arXiv:2405.08672,
 * models/backbones/mylora/layers.py. */
#ifndef PLUGINS_NN_LORA_H
#define PLUGINS_NN_LORA_H

#include "nn/modules.h"

typedef struct nn_lora {
  int32_t rank; /* 0: no adapters */
  bool scaled;  /* rows of A and B have factors of their own */
  float factor;
} nn_lora;

/* As nn_load_linear; with a rank of 0 it is that. */
void nn_load_lora_linear(nn_loader *l, const char *name, int64_t out, int64_t in, bool bias,
                         const nn_lora *lora, nn_linear *linear);

#endif
