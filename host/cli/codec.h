/* What viv encode and viv decode share: the codec behind a model, files of codes. Internal to
 * host/cli. */
#ifndef VIV_HOST_CLI_CODEC_H
#define VIV_HOST_CLI_CODEC_H

#include "cli/pump.h"
#include "media/codes.h"

typedef struct viv__codec {
  viv__vtok_header header; /* codebooks: all of the model; bits: as few as hold a code */
  int32_t used;            /* code books when nobody says how many */
  int64_t lookahead[2];    /* samples behind a block that encode and decode wait for */
} viv__codec;

/* What the model says of itself. VIV_NEVER: it is no audio codec. */
int32_t viv__codec_of(const viv__loaded *l, const char *model, viv__codec *out, viv_error *error);
/* VIV_BAD_INPUT with the difference, unless the model can decode such codes. */
int32_t viv__codec_same(const viv__codec *c, const viv__vtok_header *file, const char *name,
                        viv_error *error);
double viv__codec_kbps(const viv__vtok_header *h);

/* The bytes of an NPY file: one table [code book, frame]. NEVER: codes that are no table. */
int32_t viv__codes_npy(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out,
                       viv_error *error);
/* A whole file of codes by its name, *h as it says (an .npy file leaves the caller's); BAD_INPUT also when
 * it holds none. */
int32_t viv__codes_load(const char *path, viv__vtok_header *h, viv__buf *codes, int64_t *samples,
                        viv_error *error);
/* n codes without chunks as such a file. */
int32_t viv__codes_save(const char *path, const viv__vtok_header *h, const int32_t *codes,
                        int64_t n, int64_t samples, viv_error *error);

#endif
