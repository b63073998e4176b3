/* Two-stage DETRs: every cell of the encoder's output proposes a box, the best become queries.
 * Official: gen_encoder_output_proposals of Deformable DETR and DINO. */
#include <math.h>
#include <string.h>

#include "detr/detr.h"

/* Unpadded rows and columns of a level of one picture. */
static void real_size(const struct detr_levels *lv, int32_t b, int32_t l, float out[2]) {
  int32_t h = lv->shape[2 * l], w = lv->shape[2 * l + 1];
  out[0] = (float)w;
  out[1] = (float)h;
  if (!lv->padding) return;
  const uint8_t *padding = lv->padding + b * lv->start[lv->n] + lv->start[l];
  int32_t rows = 0, columns = 0;
  for (int32_t i = 0; i < h; i++) rows += !padding[i * w];
  for (int32_t j = 0; j < w; j++) columns += !padding[j];
  out[0] = (float)columns;
  out[1] = (float)rows;
}

float *detr_proposals(nn_pass *p, const struct detr_levels *lv, bool logit, float outside,
                      uint8_t *usable) {
  int64_t cells = lv->start[lv->n];
  float *out = nn_room(p, lv->batch * cells * 4), *at = out; /* [B, S, 4] */
  for (int32_t b = 0; b < lv->batch; b++)
    for (int32_t l = 0; l < lv->n; l++) {
      float size[2], side = 0.05f * (float)(1 << l);
      real_size(lv, b, l, size);
      const uint8_t *padding = lv->padding ? lv->padding + b * cells + lv->start[l] : NULL;
      int32_t w = lv->shape[2 * l + 1], n = lv->shape[2 * l] * w;
      for (int32_t i = 0; i < n; i++, at += 4) {
        float box[4] = {((float)(i % w) + 0.5f) / size[0], ((float)(i / w) + 0.5f) / size[1], side,
                        side};
        bool good = !(padding && padding[i]);
        for (int32_t k = 0; k < 4; k++) good = good && box[k] > 0.01f && box[k] < 0.99f;
        for (int32_t k = 0; k < 4; k++)
          at[k] = logit ? good ? logf(box[k] / (1 - box[k])) : outside : good ? box[k] : 0;
        if (usable) usable[(at - out) / 4] = good;
      }
    }
  return out;
}

void detr_drop_rows(float *x, const uint8_t *usable, int64_t rows, int64_t d) {
  for (int64_t r = 0; r < rows; r++)
    if (!usable[r]) memset(x + r * d, 0, (size_t)d * sizeof *x);
}

int32_t *detr_top_cells(nn_pass *p, const float *logits, int64_t batch, int64_t cells,
                        int64_t classes, int64_t columns, int64_t k) {
  const viv_compute *c = nn_compute_of(p);
  if (k > cells)
    nn_stop(p, VIV_BAD_INPUT, "pixel_values",
            "the picture gives %lld cells, but the model chooses %lld: use a larger one",
            (long long)cells, (long long)k);
  int32_t *index = nn_bytes(p, batch * k, sizeof *index);
  nn_mark mark = nn_here(p);
  float *best = nn_room(p, batch * cells);
  for (int64_t i = 0; i < batch * cells; i++) {
    best[i] = logits[i * classes];
    for (int64_t j = 1; j < columns; j++)
      if (logits[i * classes + j] > best[i]) best[i] = logits[i * classes + j];
  }
  c->top_k(c, best, batch, cells, k, NULL, index);
  nn_release(p, mark);
  detr_tap_ints(p, index, NN_DIMS(batch, k), "topk_index");
  return index;
}

float *detr_pick_rows(nn_pass *p, const float *x, const int32_t *index, int64_t batch,
                      int64_t cells, int64_t k, int64_t d) {
  float *out = nn_room(p, batch * k * d);
  for (int64_t i = 0; i < batch * k; i++)
    memcpy(out + i * d, x + (i / k * cells + index[i]) * d, (size_t)d * sizeof *out);
  return out;
}
