/* COCO's measure of detectors: average precision and recall of boxes and of keypoints, equal to
 * pycocotools' COCOeval (iouType "bbox" and "keypoints"). Pure functions; any thread. */
#ifndef VIV_HOST_COCO_H
#define VIV_HOST_COCO_H

#include "base/base.h"

enum viv__coco_kind { VIV__COCO_BOXES = 1, VIV__COCO_KEYPOINTS = 2 };

enum { VIV__COCO_JOINTS = 17, VIV__COCO_THRESHOLDS = 10, VIV__COCO_STATS = 12 };

/* Boxes are x, y, width, height; joints x, y, v in COCO's order. */
typedef struct viv__coco_truth {
  int64_t image, category;
  double box[4], area;
  bool crowd;
  int32_t num_keypoints;
  const double *joints; /* [VIV__COCO_JOINTS * 3]; NULL for boxes */
} viv__coco_truth;

typedef struct viv__coco_detection {
  int64_t image, category;
  double box[4]; /* of keypoints: not read, the joints' own box counts */
  double score;
  const double *joints;
} viv__coco_detection;

typedef struct viv__coco_input {
  enum viv__coco_kind kind;
  const viv__coco_truth *truths;
  const viv__coco_detection *detections;
  const int64_t *categories; /* ascending; others are not counted */
  int64_t n_truths, n_detections, n_categories;
} viv__coco_input;

/* stats in the order of summarize(): AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl of
 * boxes; AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl of keypoints. -1: no ground truth. */
typedef struct viv__coco_result {
  double stats[VIV__COCO_STATS];
  int32_t n_stats;
  double ap[VIV__COCO_THRESHOLDS]; /* all sizes, at IoU (or OKS) 0.50, 0.55, .. 0.95 */
} viv__coco_result;

/* recall [VIV__COCO_THRESHOLDS, n_categories], all sizes, or NULL. Errors: NOT_NOW (memory). */
int32_t viv__coco_evaluate(const viv__coco_input *in, viv__coco_result *out, double *recall,
                           viv_error *error);
/* IoU or OKS of one detection with one truth. */
double viv__coco_similarity(enum viv__coco_kind kind, const viv__coco_detection *detection,
                            const viv__coco_truth *truth);

#endif
