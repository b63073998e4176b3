/* What viv encode and viv decode share: the codec behind a model, codes as JSON and NPY. Internal to
 * host/cli. */
#ifndef VIV_HOST_CLI_CODEC_H
#define VIV_HOST_CLI_CODEC_H

#include "cli/pump.h"
#include "media/vtok.h"

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

enum viv__codes_kind { VIV__CODES_VTOK = 1, VIV__CODES_JSON, VIV__CODES_NPY };
enum viv__codes_kind viv__codes_kind(const char *path); /* 0: the name does not tell */

/* Codes as the tasks stream them, to and from the bytes of a JSON or NPY file. An NPY file is one table
 * [code book, frame] and says nothing of its codec; the header is then the model's. Errors: NEVER
 * (codes that are no table), BAD_INPUT. */
int32_t viv__codes_json(const viv__vtok_header *h, const int32_t *codes, int64_t n, int64_t samples,
                        viv__buf *out, viv_error *error);
int32_t viv__codes_npy(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out,
                       viv_error *error);
int32_t viv__codes_from_json(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                             viv__buf *codes, int64_t *samples, viv_error *error);
int32_t viv__codes_from_npy(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                            viv__buf *codes, int64_t *samples, viv_error *error);
/* A whole file of codes by its name, *h as it says (an .npy file leaves the caller's); BAD_INPUT also when
 * it holds none. */
int32_t viv__codes_load(const char *path, viv__vtok_header *h, viv__buf *codes, int64_t *samples,
                        viv_error *error);
/* n codes without chunks as such a file. */
int32_t viv__codes_save(const char *path, const viv__vtok_header *h, const int32_t *codes,
                        int64_t n, int64_t samples, viv_error *error);

#endif
