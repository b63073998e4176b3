/* Assignment and recall of queries. */
#include "nn/scene_graph.h"

#include <math.h>
#include <string.h>

/* ---- assignment ---- */

size_t nn_assign_scratch(int64_t n, int64_t m) {
  int64_t most = (n > m ? n : m) + 1;
  return (size_t)most * (3 * sizeof(double) + 2 * sizeof(int64_t) + sizeof(bool)) + 64;
}

/* Rows are the shorter side: element (i, j) of the cost, turned if need be. */
static double at(const double *cost, int64_t n, int64_t m, int64_t i, int64_t j) {
  return n <= m ? cost[i * m + j] : cost[j * m + i];
}

void nn_assign(const double *cost, int64_t n, int64_t m, int32_t *column, void *scratch) {
  int64_t rows = n < m ? n : m, columns = n < m ? m : n;
  double *u = scratch, *v = u + columns + 1, *slack = v + columns + 1;
  int64_t *row_of = (int64_t *)(void *)(slack + columns + 1), *from = row_of + columns + 1;
  bool *seen = (bool *)(from + columns + 1);
  memset(scratch, 0, nn_assign_scratch(n, m));
  /* Row and column numbers from 1; 0 is where a path begins. */
  for (int64_t i = 1; i <= rows; i++) {
    int64_t j = 0;
    row_of[0] = i;
    for (int64_t k = 0; k <= columns; k++) {
      slack[k] = INFINITY;
      seen[k] = false;
    }
    do {
      int64_t r = row_of[j], next = 0;
      double delta = INFINITY;
      seen[j] = true;
      for (int64_t k = 1; k <= columns; k++) {
        if (seen[k]) continue;
        double reduced = at(cost, n, m, r - 1, k - 1) - u[r] - v[k];
        if (reduced < slack[k]) {
          slack[k] = reduced;
          from[k] = j;
        }
        if (slack[k] < delta || !next) {
          delta = slack[k];
          next = k;
        }
      }
      for (int64_t k = 0; k <= columns; k++) {
        if (seen[k]) {
          u[row_of[k]] += delta;
          v[k] -= delta;
        } else {
          slack[k] -= delta;
        }
      }
      j = next;
    } while (row_of[j]);
    for (; j; j = from[j]) row_of[j] = row_of[from[j]];
  }
  for (int64_t i = 0; i < n; i++) column[i] = -1;
  for (int64_t k = 1; k <= columns; k++) {
    if (!row_of[k]) continue;
    if (n <= m)
      column[row_of[k] - 1] = (int32_t)(k - 1);
    else
      column[k - 1] = (int32_t)(row_of[k] - 1);
  }
}

double nn_focal_cost(float logit) {
  double p = 1 / (1 + exp(-(double)logit));
  double yes = 0.25 * (1 - p) * (1 - p) * -log(p + 1e-8);
  double no = 0.75 * p * p * -log(1 - p + 1e-8);
  return yes - no;
}

void nn_one_to_many(const float *min_iou, int64_t queries, int64_t triplets, float tau, int32_t cap,
                    int32_t *triplet) {
  for (int64_t q = 0; q < queries; q++) {
    const float *row = min_iou + q * triplets;
    int64_t best = 0;
    for (int64_t g = 1; g < triplets; g++)
      if (row[g] > row[best]) best = g;
    triplet[q] = triplets && row[best] >= tau ? (int32_t)best : -1;
  }
  /* A query goes when cap others of its triplet are better (the earlier one among equals). */
  for (int64_t q = 0; q < queries; q++) {
    int32_t better = 0;
    if (triplet[q] < 0) continue;
    float mine = min_iou[q * triplets + triplet[q]];
    for (int64_t o = 0; o < queries; o++) {
      if (o == q || triplet[o] != triplet[q]) continue;
      float other = min_iou[o * triplets + triplet[o]];
      better += other > mine || (other == mine && o < q);
    }
    if (better >= cap) triplet[q] = -1; /* the cap best ones stay, so that nobody gains by it */
  }
}

/* ---- recall ---- */

static double pixel_iou(const float *a, const float *b) {
  double w = fmin((double)a[2], (double)b[2]) - fmax((double)a[0], (double)b[0]) + 1;
  double h = fmin((double)a[3], (double)b[3]) - fmax((double)a[1], (double)b[1]) + 1;
  double both = w > 0 && h > 0 ? w * h : 0;
  double one = ((double)a[2] - a[0] + 1) * ((double)a[3] - a[1] + 1);
  double two = ((double)b[2] - b[0] + 1) * ((double)b[3] - b[1] + 1);
  return both / (one + two - both);
}

void nn_first_hits(const nn_graph *truth, const nn_graph *found, double threshold, int64_t *rank) {
  for (int64_t g = 0; g < truth->n; g++) {
    rank[g] = -1;
    for (int64_t i = 0; i < found->n && rank[g] < 0; i++)
      if (found->subject_class[i] == truth->subject_class[g] &&
          found->object_class[i] == truth->object_class[g] &&
          found->predicate[i] == truth->predicate[g] &&
          pixel_iou(found->subject + 4 * i, truth->subject + 4 * g) >= threshold &&
          pixel_iou(found->object + 4 * i, truth->object + 4 * g) >= threshold)
        rank[g] = i;
  }
}
