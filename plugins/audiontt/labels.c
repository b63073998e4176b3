/* Pseudo-labels: clips that sound alike get one number, by the teacher's features.
 *
 *   the time mean behind the first block -> PCA, whitened -> unit length -> k-means
 *
 * Official: Sreyan88/LAPE, src/upstream/unfused (its clustering is DeepCluster's). */
#include <math.h>
#include <string.h>

#include "audiontt/audiontt.h"
#include "nn/cluster.h"

/* splitmix64 */
static uint64_t random_of(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

/* k different rows of n: those of the request, else by its seed. */
static int64_t *first_rows(nn_pass *p, int64_t n, int64_t k) {
  int64_t shape[1] = {0};
  const int64_t *given = nn_some_ints(p, "first_centroids", 1, shape);
  int64_t *rows = nn_bytes(p, n, sizeof *rows);
  if (given && shape[0] != k)
    nn_stop(p, VIV_BAD_INPUT, "first_centroids", "names %lld rows, but clusters is %lld",
            (long long)shape[0], (long long)k);
  for (int64_t i = 0; given && i < k; i++) {
    if (given[i] < 0 || given[i] >= n)
      nn_stop(p, VIV_BAD_INPUT, "first_centroids", "row %lld is none of the %lld clips",
              (long long)given[i], (long long)n);
    rows[i] = given[i];
  }
  if (given) return rows;
  uint64_t state = (uint64_t)nn_param_int(p, "seed", 0, 0, INT64_C(1) << 52);
  for (int64_t i = 0; i < n; i++) rows[i] = i;
  for (int64_t i = 0; i < k; i++) {
    int64_t other = i + (int64_t)(random_of(&state) % (uint64_t)(n - i)), row = rows[i];
    rows[i] = rows[other];
    rows[other] = row;
  }
  return rows;
}

static double *doubles(nn_pass *p, uint64_t n) {
  return nn_bytes(p, (int64_t)n, sizeof(double));
}

int32_t audiontt_pseudo_label(nn_pass *p) {
  struct audiontt_seen s = audiontt_look(p, false);
  int64_t n = s.rows, d = s.first_width, most = n < d ? n : d;
  int64_t k = nn_param_int(p, "clusters", 32 < n ? 32 : n, 1, n);
  int64_t m = nn_param_int(p, "pca", 128 < most ? 128 : most, 1, most);
  double power = nn_param_num(p, "eigen_power", -0.5, -2, 2);
  int32_t iterations = (int32_t)nn_param_int(p, "iterations", 20, 1, 10000);
  const int64_t *rows = first_rows(p, n, k);
  double *x = doubles(p, (uint64_t)(n * m)), *centroids = doubles(p, (uint64_t)(k * m));
  int32_t *labels = nn_bytes(p, n, sizeof *labels);
  if (!nn_pca(s.first, n, d, m, power, x, doubles(p, nn_pca_scratch(n, d))))
    nn_stop(p, VIV_BAD_INPUT, "audio", "the clips' features are no finite numbers");
  nn_unit_doubles(x, n, m);
  for (int64_t i = 0; i < k; i++) memcpy(centroids + i * m, x + rows[i] * m, (size_t)m * sizeof *x);
  nn_kmeans(x, n, m, k, iterations, centroids, labels);
  nn_result(p, VIV_I32, labels, NN_DIMS(n), "labels");
  return VIV_DONE;
}
