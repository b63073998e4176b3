/* Prototypes and concepts. */
#include "nn/concepts.h"

#include <math.h>
#include <stddef.h>

void nn_prototype_distances(const float *prototypes, int64_t n, int64_t d, const float *z,
                            int64_t places, int64_t place, int64_t channel, float *distances) {
  for (int64_t k = 0; k < n; k++)
    for (int64_t s = 0; s < places; s++) {
      double sum = 0;
      for (int64_t c = 0; c < d; c++) {
        double off = (double)z[s * place + c * channel] - (double)prototypes[k * d + c];
        sum += off * off;
      }
      distances[k * places + s] = (float)sum;
    }
}

float nn_prototype_similarity(float distance, double epsilon) {
  return (float)log(((double)distance + 1) / ((double)distance + epsilon));
}

void nn_prototype_nearest(const float *distances, int64_t n, int64_t places, double epsilon,
                          float *nearest, int64_t *at, float *similarity) {
  for (int64_t k = 0; k < n; k++) {
    const float *row = distances + k * places;
    int64_t best = 0;
    for (int64_t s = 1; s < places; s++)
      if (row[s] < row[best]) best = s;
    if (nearest) nearest[k] = row[best];
    if (at) at[k] = best;
    similarity[k] = nn_prototype_similarity(row[best], epsilon);
  }
}

void nn_concept_answer(const float *weight, const float *bias, const float *concepts,
                       int64_t classes, int64_t n, float *contributions, float *logits) {
  for (int64_t k = 0; k < classes; k++) {
    double sum = bias ? (double)bias[k] : 0;
    for (int64_t j = 0; j < n; j++)
      sum += (double)(contributions[k * n + j] = weight[k * n + j] * concepts[j]);
    logits[k] = (float)sum;
  }
}
