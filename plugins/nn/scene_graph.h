/* Assigning queries to ground truth, and judging scene graphs: what DETRs train and are measured
 * by. Boxes are four floats, x0 y0 x1 y1, unless said otherwise. */
#ifndef PLUGINS_NN_SCENE_GRAPH_H
#define PLUGINS_NN_SCENE_GRAPH_H

#include "nn/nn.h"

/* The assignment of least total cost between rows [n] and columns [m] of cost [n, m], by shortest
 * augmenting paths: column[r] is the row's column, -1 where none is left. scratch:
 * nn_assign_scratch bytes. Official: scipy.optimize.linear_sum_assignment. */
size_t nn_assign_scratch(int64_t n, int64_t m);
void nn_assign(const double *cost, int64_t n, int64_t m, int32_t *column, void *scratch);

/* DETR's matching cost of a class with the focal loss (alpha 0.25, gamma 2), of one logit. */
double nn_focal_cost(float logit);

/* Hydra-SGG's one-to-many part: pairs of a query and a triplet whose smaller IoU (of subject and
 * object) min_iou [queries, triplets] is tau or more, each query with its best triplet only, at
 * most cap queries a triplet, those of the largest min_iou. triplet[q] or -1. */
void nn_one_to_many(const float *min_iou, int64_t queries, int64_t triplets, float tau, int32_t cap,
                    int32_t *triplet);

/* One picture's triplets, predicted or true. */
typedef struct nn_graph {
  int64_t n;
  const float *subject, *object; /* [n, 4] */
  const int32_t *subject_class, *predicate, *object_class;
} nn_graph;
/* For each true triplet the rank (from 0) of the first prediction that finds it: the three names
 * are equal and both boxes overlap by `threshold` or more, counting whole pixels (+1); -1: none
 * does. found is ordered by descending score. Official: evaluate_recall of the scene graph
 * benchmarks. */
void nn_first_hits(const nn_graph *truth, const nn_graph *found, double threshold, int64_t *rank);

#endif
