/* The tasks of a detector: the official tensors by three steps, and a person's picture through all
 * of them. */
#include "detr/detr.h"

int32_t detr_preprocess_task(nn_pass *p) {
  const struct detr_model *m = nn_net_of(p);
  detr_prepare_images(p, &m->prepare, true);
  return VIV_DONE;
}

static int32_t forward(nn_pass *p) {
  const struct detr_model *m = nn_net_of(p);
  struct detr_batch batch = detr_read_batch(p, &m->prepare);
  struct detr_found f = m->variant->network(p, &batch);
  nn_result(p, VIV_F32, f.logits, NN_DIMS(f.batch, f.queries, f.classes), "logits");
  nn_result(p, VIV_F32, f.boxes, NN_DIMS(f.batch, f.queries, 4), "pred_boxes");
  return VIV_DONE;
}

/* sizes [n, 2] height, width; NULL: boxes stay fractions. */
static void emit_all(nn_pass *p, const struct detr_found *f, const int64_t *sizes,
                     double threshold) {
  const struct detr_model *m = nn_net_of(p);
  int64_t top_k = nn_param_int(p, "top_k", m->top_k ? m->top_k : f->queries, 1, 1 << 24);
  threshold = nn_param_num(p, "threshold", threshold, -1, 1);
  for (int32_t b = 0; b < f->batch; b++)
    detr_emit_detections(p, f, b, m->softmax, top_k, threshold, sizes ? sizes[2 * b] : 1,
                         sizes ? sizes[2 * b + 1] : 1);
}

static int32_t postprocess(nn_pass *p) {
  const struct detr_model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, m->labels};
  struct detr_found f = {.logits = nn_need_floats(p, "logits", 3, shape)};
  int64_t box_shape[3] = {shape[0], shape[1], 4};
  f.boxes = nn_need_floats(p, "pred_boxes", 3, box_shape);
  if (shape[0] > INT32_MAX || shape[1] > INT32_MAX / 2)
    nn_stop(p, VIV_BAD_INPUT, "logits", "is too large");
  f.batch = (int32_t)shape[0];
  f.queries = (int32_t)shape[1];
  f.classes = (int32_t)shape[2];
  emit_all(p, &f, detr_target_sizes(p, f.batch), 0.5);
  return VIV_DONE;
}

/* Every instance comes out unless the request has a threshold: whoever shows them chooses. */
static int32_t detect(nn_pass *p) {
  const struct detr_model *m = nn_net_of(p);
  struct detr_batch batch = detr_prepare_images(p, &m->prepare, false);
  struct detr_found f = m->variant->network(p, &batch);
  emit_all(p, &f, batch.sizes, 0);
  return VIV_DONE;
}

const nn_task detr_tasks[] = {{"preprocess", detr_preprocess_task},
                              {"forward", forward},
                              {"postprocess", postprocess},
                              {"detect", detect},
                              {NULL, NULL}};
