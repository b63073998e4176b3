/* Operations that sample maps: resize, grid_sample, deformable attention's core, roi_align. Each output
 * row or item is a piece of its own. */
#include "compute/internal.h"
#include "compute/ops.h"

struct job {
  const viv__ops *ops;
  const void *args;
};

static struct job job_of(const viv_compute *c, const void *args) {
  return (struct job){viv__compute_of(c)->kernels->ops, args};
}

static void resize_range(void *ctx, int64_t begin, int64_t end) {
  const struct job *s = ctx;
  s->ops->resize(s->args, begin, end);
}

static void resize(const viv_compute *c, const viv_resize *args) {
  struct job s = job_of(c, args);
  int64_t rows = args->batch;
  for (int32_t i = 0; i + 1 < args->dims; i++) rows *= args->out_size[i];
  int64_t row = (int64_t)args->out_size[args->dims - 1] * args->channels;
  if (row > 0) viv__parallel(c, rows, viv__grain(row * 4), resize_range, &s);
}

static void grid_sample_range(void *ctx, int64_t begin, int64_t end) {
  const struct job *s = ctx;
  s->ops->grid_sample(s->args, begin, end);
}

static void grid_sample(const viv_compute *c, const viv_grid_sample *args) {
  struct job s = job_of(c, args);
  int64_t row = (int64_t)args->out_width * args->channels;
  viv__parallel(c, (int64_t)args->batch * args->out_height, viv__grain(row * 4), grid_sample_range,
                &s);
}

static void deform_range(void *ctx, int64_t begin, int64_t end) {
  const struct job *s = ctx;
  s->ops->deform(s->args, begin, end);
}

static void deform(const viv_compute *c, const viv_deform *args) {
  struct job s = job_of(c, args);
  int64_t samples = (int64_t)args->levels * args->points;
  viv__parallel(c, (int64_t)args->batch * args->queries * args->heads,
                viv__grain(samples * 4 * args->head_dim), deform_range, &s);
}

static void roi_align_range(void *ctx, int64_t begin, int64_t end) {
  const struct job *s = ctx;
  s->ops->roi_align(s->args, begin, end);
}

static void roi_align(const viv_compute *c, const viv_roi_align *args) {
  struct job s = job_of(c, args);
  viv__parallel(c, args->boxes * args->out_height * args->out_width,
                viv__grain((int64_t)args->channels * 32), roi_align_range, &s);
}

void viv__table_maps(viv_compute *t) {
  t->resize = resize;
  t->grid_sample = grid_sample;
  t->deform = deform;
  t->roi_align = roi_align;
}
