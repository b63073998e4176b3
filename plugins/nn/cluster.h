/* Clusters of feature vectors: whitening by principal components, k-means. Everything is computed in
 * double, since a label that flips is a different answer. Nothing allocates: where room is needed,
 * X_scratch() says how many doubles. */
#ifndef PLUGINS_NN_CLUSTER_H
#define PLUGINS_NN_CLUSTER_H

#include "nn/nn.h"

/* Eigenvalues of a symmetric matrix a [n, n] in descending order, eigenvectors in the rows of a, which
 * is overwritten. By Jacobi's rotations, row by row (Golub and Van Loan, Matrix Computations, section
 * 8.5). scratch [n * n]. False: no convergence (a holds what is no number). */
bool nn_eigen(double *a, int64_t n, double *values, double *scratch);

/* The first `components` principal components of x [n, d], each times its eigenvalue (of the
 * covariance) to the power `power`: out [n, components]. Components beyond the rank of x are zeros.
 * Official: faiss PCAMatrix with eigen_power. False: as nn_eigen. */
uint64_t nn_pca_scratch(int64_t n, int64_t d);
bool nn_pca(const float *x, int64_t n, int64_t d, int64_t components, double power, double *out,
            double *scratch);

/* Rows of x [n, d] to length 1; a row of zeros stays. */
void nn_unit_doubles(double *x, int64_t n, int64_t d);

/* Lloyd's k-means over x [n, d] from centroids [k, d], which are updated `iterations` times; labels [n]
 * by the last centroids, the first of equals. A cluster that loses all its points keeps its centroid. */
void nn_kmeans(const double *x, int64_t n, int64_t d, int64_t k, int32_t iterations,
               double *centroids, int32_t *labels);

#endif
