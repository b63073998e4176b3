/* Codes of audio codecs as JSON and NPY, beside token files (vtok.h). Internal to the host; any thread. */
#ifndef VIV_HOST_CODES_H
#define VIV_HOST_CODES_H

#include "media/vtok.h"

enum viv__codes_kind { VIV__CODES_VTOK = 1, VIV__CODES_JSON, VIV__CODES_NPY };
enum viv__codes_kind viv__codes_kind(const char *path); /* 0: the name does not tell */
/* VIV_NEVER unless the codes are one table [code book, frame], which is all that NPY holds. */
int32_t viv__codes_table(const viv__vtok_header *h, const char *name, viv_error *error);

/* Codes as the tasks stream them, to and from the bytes of a file; what is read is appended to *codes. An
 * NPY file says nothing of its codec: *h is the model's, and then has the file's number of code books.
 * Errors: NEVER (codes that are no table), BAD_INPUT, NOT_NOW. */
int32_t viv__codes_json(const viv__vtok_header *h, const int32_t *codes, int64_t n, int64_t samples,
                        viv__buf *out, viv_error *error);
int32_t viv__codes_from_json(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                             viv__buf *codes, int64_t *samples, viv_error *error);
int32_t viv__codes_from_npy(const char *bytes, size_t len, const char *name, viv__vtok_header *h,
                            viv__buf *codes, int64_t *samples, viv_error *error);

#endif
