/* Token files of audio codecs (.vtok, docs/vtok.md). Internal to the host; any thread.
 *
 * A header says which codec made the codes and how they lie, blocks follow, a last block says how much
 * there was, so that a file that was cut anywhere is noticed. It can be written and read through a
 * pipe. In memory codes are what the codec's tasks stream: int32, unit after unit. */
#ifndef VIV_HOST_VTOK_H
#define VIV_HOST_VTOK_H

#include "base/base.h"

enum { VIV__VTOK_MAX_BOOKS = 64, VIV__VTOK_MAX_UNITS = 1 << 16 };

/* What of a codec a file's codes depend on. */
typedef struct viv__vtok_header {
  char codec[32];                       /* family: "encodec", ... */
  char books[32];                       /* a checksum of its code books; empty: unknown */
  int32_t rate;                         /* Hz of the sound */
  int32_t channels;                     /* of the sound */
  int32_t hop;                          /* samples of a frame */
  int32_t codebooks;                    /* that were used, from the first on */
  int32_t size;                         /* codes of a code book */
  int32_t n_strides;                    /* 0: every code book has a code for each frame */
  int32_t strides[VIV__VTOK_MAX_BOOKS]; /* frames of a code, by code book */
  int32_t group; /* frames that come together: a multiple of the strides; 1 without */
  bool chunks;   /* a unit is a chunk: frames, the bits of its f32 scale, its codes */
  int32_t bits;  /* of a code in the file: as few as hold it, 16 or 32 */
} viv__vtok_header;

/* Codes of a unit (of a frame of a chunk, when there are chunks). */
int32_t viv__vtok_width(const viv__vtok_header *h);
/* The fewest bits that hold a code. */
int32_t viv__vtok_bits(int32_t size);
/* VIV_BAD_INPUT with the reason, unless all fields are in range and go together. */
int32_t viv__vtok_check(const viv__vtok_header *h, const char *name, viv_error *error);
/* The header that an object of these keys stands for; bits may be absent. */
int32_t viv__vtok_describe(const viv_json *doc, const char *name, viv__vtok_header *out,
                           viv_error *error);

/* ---- writing: bytes are appended to out ---- */

void viv__vtok_begin(const viv__vtok_header *h, viv__buf *out);
/* n units, or one chunk; codes as above. */
void viv__vtok_block(const viv__vtok_header *h, const int32_t *codes, int64_t n, viv__buf *out);
/* samples of each channel, units (chunks) in all. */
void viv__vtok_end(int64_t samples, int64_t units, viv__buf *out);

/* ---- reading ---- */

/* Up to `room` bytes; 0: the end. Negative: failed, with error. */
typedef int64_t (*viv__vtok_source)(void *context, void *data, uint64_t room, viv_error *error);

typedef struct viv__vtok_reader {
  viv__vtok_source source;
  void *context;
  const char *name; /* in errors */
  viv__vtok_header header;
  viv__buf block;
  int64_t at;      /* bytes read */
  int64_t units;   /* read so far */
  int64_t samples; /* after VIV_DONE: of each channel */
} viv__vtok_reader;

/* Reads the header. name must live as long as the reader. */
int32_t viv__vtok_open(viv__vtok_source source, void *context, const char *name,
                       viv__vtok_reader *out, viv_error *error);
/* The next block's codes into *codes (from its start, int32). VIV_DONE: the file is complete. Errors
 * name the place: a file cut short, a code outside the code book, counts that don't fit. */
int32_t viv__vtok_next(viv__vtok_reader *r, viv__buf *codes, viv_error *error);
void viv__vtok_close(viv__vtok_reader *r);

#endif
