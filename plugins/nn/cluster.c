/* Principal components and k-means. */
#include "nn/cluster.h"

#include <math.h>
#include <string.h>

enum { MOST_SWEEPS = 60 }; /* ten are usual */

/* ---- eigenvalues ---- */

/* Rows (and, of a symmetric matrix, columns) i and j of a turned by the angle of cosine c, sine s. */
static void turn_rows(double *a, int64_t n, int64_t i, int64_t j, double c, double s) {
  for (int64_t k = 0; k < n; k++) {
    double x = a[i * n + k], y = a[j * n + k];
    a[i * n + k] = c * x - s * y;
    a[j * n + k] = s * x + c * y;
  }
}

static void turn_columns(double *a, int64_t n, int64_t i, int64_t j, double c, double s) {
  for (int64_t k = 0; k < n; k++) {
    double x = a[k * n + i], y = a[k * n + j];
    a[k * n + i] = c * x - s * y;
    a[k * n + j] = s * x + c * y;
  }
}

/* Takes a[i, j] to 0; the rows of q collect the rotations. */
static void rotate(double *a, double *q, int64_t n, int64_t i, int64_t j) {
  double theta = (a[j * n + j] - a[i * n + i]) / (2 * a[i * n + j]);
  double t = (theta < 0 ? -1 : 1) / (fabs(theta) + hypot(theta, 1));
  double c = 1 / hypot(t, 1), s = t * c;
  turn_columns(a, n, i, j, c, s);
  turn_rows(a, n, i, j, c, s);
  turn_rows(q, n, i, j, c, s);
}

static void exchange(double *a, double *b, int64_t n) {
  for (int64_t k = 0; k < n; k++) {
    double x = a[k];
    a[k] = b[k];
    b[k] = x;
  }
}

bool nn_eigen(double *a, int64_t n, double *values, double *q) {
  double size = 0, rest = INFINITY;
  for (int64_t i = 0; i < n * n; i++) {
    size += a[i] * a[i];
    q[i] = i / n == i % n;
  }
  if (!isfinite(size)) return false;
  for (int sweep = 0; sweep < MOST_SWEEPS && rest > size * 1e-32; sweep++) {
    rest = 0;
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = i + 1; j < n; j++) {
        double off = a[i * n + j];
        rest += off * off;
        if (off * off > size * 1e-36) rotate(a, q, n, i, j);
      }
  }
  for (int64_t i = 0; i < n; i++) values[i] = a[i * n + i];
  for (int64_t i = 0; i < n; i++) {
    int64_t best = i;
    for (int64_t k = i + 1; k < n; k++)
      if (values[k] > values[best]) best = k;
    exchange(&values[i], &values[best], best == i ? 0 : 1);
    exchange(q + i * n, q + best * n, best == i ? 0 : n);
  }
  memcpy(a, q, (size_t)(n * n) * sizeof *a);
  return rest <= size * 1e-24;
}

/* ---- principal components ---- */

static int64_t smaller(int64_t n, int64_t d) {
  return n < d ? n : d;
}

uint64_t nn_pca_scratch(int64_t n, int64_t d) {
  uint64_t m = (uint64_t)smaller(n, d);
  return (uint64_t)(n * d + d) + 2 * m * m + m;
}

static double dot(const double *a, const double *b, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
  return sum;
}

/* y = x - its mean */
static void centre(const float *x, int64_t n, int64_t d, double *mean, double *y) {
  memset(mean, 0, (size_t)d * sizeof *mean);
  for (int64_t i = 0; i < n * d; i++) mean[i % d] += (double)x[i] / (double)n;
  for (int64_t i = 0; i < n * d; i++) y[i] = (double)x[i] - mean[i % d];
}

/* g [d, d] = the covariance of y [n, d]. */
static void covariance(const double *y, int64_t n, int64_t d, double *g) {
  memset(g, 0, (size_t)(d * d) * sizeof *g);
  for (int64_t r = 0; r < n; r++)
    for (int64_t i = 0; i < d; i++) {
      double f = y[r * d + i] / (double)n;
      for (int64_t j = i; j < d; j++) g[i * d + j] += f * y[r * d + j];
    }
  for (int64_t i = 0; i < d; i++)
    for (int64_t j = 0; j < i; j++) g[i * d + j] = g[j * d + i];
}

/* With fewer rows than columns the eigenvectors come from the rows' products: where those have
 * (l, u), the covariance has l and the direction Y^T u, along which the rows are sqrt(n l) u. */
bool nn_pca(const float *x, int64_t n, int64_t d, int64_t components, double power, double *out,
            double *scratch) {
  int64_t m = smaller(n, d);
  double *y = scratch, *mean = y + n * d, *g = mean + d, *room = g + m * m, *values = room + m * m;
  centre(x, n, d, mean, y);
  if (m == d)
    covariance(y, n, d, g);
  else
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++) g[i * n + j] = dot(y + i * d, y + j * d, d) / (double)n;
  if (!nn_eigen(g, m, values, room)) return false;
  for (int64_t c = 0; c < components; c++) {
    bool real = c < m && values[c] > values[0] * 1e-14;
    double scale = real ? pow(values[c], power) : 0;
    for (int64_t r = 0; r < n; r++) {
      double along = !real    ? 0
                     : m == d ? dot(y + r * d, g + c * d, d)
                              : g[c * n + r] * sqrt((double)n * values[c]);
      out[r * components + c] = along * scale;
    }
  }
  return true;
}

/* ---- k-means ---- */

void nn_unit_doubles(double *x, int64_t n, int64_t d) {
  for (int64_t r = 0; r < n; r++, x += d) {
    double length = sqrt(dot(x, x, d));
    for (int64_t i = 0; i < d && length > 0; i++) x[i] /= length;
  }
}

static int32_t nearest(const double *x, const double *centroids, int64_t k, int64_t d) {
  double best = INFINITY;
  int32_t at = 0;
  for (int64_t c = 0; c < k; c++) {
    double away = 0;
    for (int64_t i = 0; i < d && away < best; i++) {
      double e = x[i] - centroids[c * d + i];
      away += e * e;
    }
    if (away < best) {
      best = away;
      at = (int32_t)c;
    }
  }
  return at;
}

static void assign(const double *x, int64_t n, int64_t d, int64_t k, const double *centroids,
                   int32_t *labels) {
  for (int64_t i = 0; i < n; i++) labels[i] = nearest(x + i * d, centroids, k, d);
}

void nn_kmeans(const double *x, int64_t n, int64_t d, int64_t k, int32_t iterations,
               double *centroids, int32_t *labels) {
  for (int32_t step = 0; step < iterations; step++) {
    assign(x, n, d, k, centroids, labels);
    for (int64_t c = 0; c < k; c++) {
      double count = 0;
      for (int64_t i = 0; i < n; i++) {
        if (labels[i] != c) continue;
        if (count++ == 0) memset(centroids + c * d, 0, (size_t)d * sizeof *centroids);
        for (int64_t j = 0; j < d; j++) centroids[c * d + j] += x[i * d + j];
      }
      for (int64_t j = 0; j < d && count > 0; j++) centroids[c * d + j] /= count;
    }
  }
  assign(x, n, d, k, centroids, labels);
}
