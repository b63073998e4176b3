/* NIfTI volumes as files: bytes in, numbers in the patient's frame out, and labels back. Internal to the
 * host; any thread.
 *
 * NIfTI-1 and NIfTI-2 in one file (.nii), plain or gzip, either byte order. Axes are turned so that they
 * run to the patient's right, front and head (RAS), by the file's own matrix. What the header says is held
 * against the limits and the file's length before memory is taken. Official: nifti1.h and nifti2.h of
 * the NIfTI Data Format Working Group; axes as nibabel's io_orientation. */
#ifndef VIV_HOST_NIFTI_H
#define VIV_HOST_NIFTI_H

#include "base/base.h"

/* All channels together: 2 GiB as floats. */
#define VIV__NIFTI_MAX_VOXELS (INT64_C(1) << 29)
enum { VIV__NIFTI_MAX_SIDE = 4096, VIV__NIFTI_MAX_CHANNELS = 64 };

typedef struct viv__nifti {
  int64_t size[3];   /* along right, front, head */
  double spacing[3]; /* mm, likewise */
  int64_t channels;  /* the file's fourth axis */
  float *data;       /* [channels, size]; what is no number in the file is 0 */
  int64_t no_numbers; /* how many of them were none */
  int32_t axis[3];   /* which of the file's axes runs to the right, front, head */
  bool flip[3];      /* the file's axis runs the other way */
  double pixdim[4];  /* as in the file: the quaternion's sign, then the spacing of its axes */
  double quaternion[3], offset[3], rows[3][4];
  int32_t quaternion_code, rows_code, units;
} viv__nifti;

/* Fills *out. name stands in front of errors. max_voxels 0: VIV__NIFTI_MAX_VOXELS. Errors: BAD_INPUT (no
 * NIfTI, damaged, a header that lies, above a limit), NEVER (a kind of number that has no order), NOT_NOW
 * (memory). */
int32_t viv__nifti_decode(const void *bytes, size_t len, const char *name, int64_t max_voxels,
                          viv__nifti *out, viv_error *error);
void viv__nifti_free(viv__nifti *volume);

/* Appends labels [size] of the volume `like` as a NIfTI-1 file with that volume's axes and place in the
 * patient: bytes where they suffice, else 16 bits. gzip: compressed. BAD_INPUT: a label below 0 or above
 * 32767. */
int32_t viv__nifti_labels(const viv__nifti *like, const int32_t *labels, bool gzip, viv__buf *out,
                          viv_error *error);

#endif
