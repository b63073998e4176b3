/* Why a network answered as it did: which parts of its input decided. Plain functions; any thread.
 * Formulas: the survey of self-interpretable networks, arXiv:2501.15638; Abnar and Zuidema,
 * arXiv:2005.00928 (rollout); Zhou et al., arXiv:1512.04150 and Selvaraju et al., arXiv:1610.02391
 * (class activation); Sundararajan et al., arXiv:1703.01365 (integrated gradients); Petsiuk et al.,
 * arXiv:1806.07421 (deletion and insertion). */
#ifndef PLUGINS_NN_EXPLAIN_H
#define PLUGINS_NN_EXPLAIN_H

#include "nn/vit.h"

/* Attention rollout, a layer at a time: rollout [n, n] (the identity before the first layer) becomes
 * A rollout, where A = attention / 2 + I / 2 with rows that sum to 1. attention [n, n] is the mean over
 * the heads. room [2 n n]. */
void nn_rollout(const viv_compute *c, const float *attention, int64_t n, float *rollout,
                float *room);
/* The mean over the heads of what block `layer` would attend to with the input x [batch, n, d]: out
 * [batch, n, n]. bias: as nn_vit_block_biased. */
void nn_vit_attention_mean(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                           const float *bias, const float *x, float *out);

/* Class activation: out[s] = sum over c of gradient[c] map[s * place + c * channel] for n places, cut
 * off below 0 if `relu` (Grad-CAM, whose gradient is the mean of dy/dmap over the places). */
void nn_class_activation(const float *map, int64_t n, int64_t place, const float *gradient,
                         int64_t channels, int64_t channel, bool relu, float *out);
/* What g [d], a gradient at a layer norm's result, is at its input x [d]. */
void nn_norm_gradient(const nn_norm *norm, const float *x, const float *g, float *out);

/* A picture x [3, height, width] with cell `at` of ceil(height / patch) x ceil(width / patch) squares
 * set to `value`. */
void nn_occlude(const float *x, int64_t height, int64_t width, int64_t patch, int64_t at,
                float value, float *out);

/* A number that a network makes of n numbers. */
typedef double (*nn_number_of)(void *self, const double *x);
/* dF/dx by central differences with steps of h: 2 n calls. x is changed and restored. */
void nn_gradient(nn_number_of f, void *self, double *x, int64_t n, double h, double *out);
/* IG_i = (x_i - from_i) * mean over s of dF/dx_i at from + (s - 1/2) / steps (x - from); 2 n steps
 * calls. Answers the gap of completeness, sum IG - (F(x) - F(from)). room [2 n]. */
double nn_integrated_gradients(nn_number_of f, void *self, const double *x, const double *from,
                               int64_t n, int32_t steps, double h, double *room, double *out);

/* How well scores [n] rank what decides F: x's features give way to
 * those of `from` one at a time, the highest score first (of equal ones the first): deletion [n + 1] is
 * F after each, insertion [n + 1] the same from `from` to x. 2 n + 2 calls. room [2 n]. */
void nn_deletion_insertion(nn_number_of f, void *self, const double *x, const double *from,
                           const double *scores, int64_t n, double *room, double *deletion,
                           double *insertion);
/* The area under a curve of n > 1 points spread evenly over [0, 1]: trapezium rule. */
double nn_curve_area(const double *curve, int64_t n);

#endif
