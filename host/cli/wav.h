/* WAVE files as tensors. Internal to host/cli. */
#ifndef VIV_HOST_CLI_WAV_H
#define VIV_HOST_CLI_WAV_H

#include "cli/cli.h"

/* F32 [1, channels, frames], planar; 16-bit samples are divided by 32768. The caller drops *out. */
int32_t viv__wav_decode(const void *data, size_t len, const char *path, viv_tensor *out,
                        int *sampling_rate, viv_error *error);

#endif
