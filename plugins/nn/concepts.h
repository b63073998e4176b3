/* Heads of networks that explain themselves: a class's logit is a sum over things a person can name or
 * look at. Plain functions; any thread. Formulas: the survey of self-interpretable networks,
 * arXiv:2501.15638; Chen et al., arXiv:1806.10574 (prototypes); Koh et al., arXiv:2007.04612 (concept
 * bottlenecks and interventions); Alvarez-Melis and Jaakkola, arXiv:1806.07538 (weights that depend on
 * the input). */
#ifndef PLUGINS_NN_CONCEPTS_H
#define PLUGINS_NN_CONCEPTS_H

#include <stdint.h>

/* |z(place) - prototype|^2 of n prototypes [n, d] at every place of a map: z[s * place + c * channel]
 * is channel c at place s. distances [n, places]. */
void nn_prototype_distances(const float *prototypes, int64_t n, int64_t d, const float *z,
                            int64_t places, int64_t place, int64_t channel, float *distances);
/* ln((distance + 1) / (distance + epsilon)): how much a place is like the prototype. */
float nn_prototype_similarity(float distance, double epsilon);
/* The least of each prototype's distances, the first place that has it, and its similarity, [n] each;
 * nearest and at may be NULL. */
void nn_prototype_nearest(const float *distances, int64_t n, int64_t places, double epsilon,
                          float *nearest, int64_t *at, float *similarity);

/* contributions[k, j] = weight[k, j] concepts[j]; logits[k] = their sum + bias[k]. weight and
 * contributions [classes, n]; bias NULL: none. */
void nn_concept_answer(const float *weight, const float *bias, const float *concepts,
                       int64_t classes, int64_t n, float *contributions, float *logits);

#endif
