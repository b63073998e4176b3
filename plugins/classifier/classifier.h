/* Image classifiers: a backbone, a pooling, a head.
 *
 *   pictures -> pixel_values [B, 3, H, W] -> backbone -> last_hidden_state
 *     -> pooled features [B, width] -> head -> logits [B, classes]
 *
 * A variant is one file: which model_type it serves, its configuration, its tables, and the way from
 * pixels to features. The rest (pictures, tasks, opening) is common: plugin.c, tasks.c. */
#ifndef PLUGINS_CLASSIFIER_H
#define PLUGINS_CLASSIFIER_H

#include "nn/modules.h"
#include "classifier/picture.h"
#include "nn/vit.h"
#include "vivarium/explain.h"

enum { CLASSIFIER_MODEL_BYTES = 1 << 17 };

struct classifier_model;

/* What a variant's pass answers; memory of the pass. */
struct classifier_features {
  int64_t batch;       /* pictures times their views */
  int64_t views;       /* of each picture behind one another, the picture as it is first; 0: 1 */
  const float *pooled; /* [batch, width], the head's input */
  const float *hidden; /* last_hidden_state: [batch, n, d], or [batch, d, height, width] */
  int32_t ndim;
  int64_t shape[4];
  const float *first; /* pooler_output [batch, first_width]; NULL: none */
  int64_t first_width;
  int64_t extra; /* tokens before the patches, the class token first; 0: there is none */
  /* For explanations: the grid of the tokens, where in pooled their mean begins (of models that have
   * `means`), and the norm that it went through, NULL: none. */
  int32_t grid[2];
  int64_t mean_at;
  const nn_norm *after;
};

struct classifier_variant {
  const char *model_type;
  const char *architecture; /* the first of config.json's must be it; NULL: any */
  uint64_t bytes;           /* of its struct, which begins with struct classifier_model */
  /* Dimensions, classes, width, and how to prepare pictures unless preprocessor_config.json says. */
  void (*config)(nn_config *k, const viv_model_source *source, struct classifier_model *m);
  /* Memory beside the struct: how much, and taking it. NULL: none. */
  uint64_t (*more)(const struct classifier_model *m);
  int32_t (*begin)(const viv_host *host, viv_arena *arena, struct classifier_model *m,
                   viv_error *error);
  nn_tables_fn tables;
  struct classifier_features (*network)(nn_pass *p, const classifier_pictures *in);
  /* Instead of the head: logits [pictures, classes]; with emit the official tensors are handed over.
   * NULL: the head is applied to the features. */
  const float *(*answer)(nn_pass *p, const struct classifier_features *f, bool emit);
};

/* A head whose logits are sums over concepts (concepts.c). */
enum classifier_concept_kind {
  CLASSIFIER_PROTOTYPE = 1,
  CLASSIFIER_BOTTLENECK = 2,
  CLASSIFIER_SENN = 3
};
struct classifier_concepts {
  int32_t kind; /* 0: the model has no such head */
  int64_t n, d; /* concepts or prototypes; channels of a prototype */
  double epsilon;
  const float *prototypes;    /* [n, d] */
  const float *weight, *bias; /* [classes, n], [classes] or NULL */
  nn_linear concept, theta;
  bool added; /* add_on before the prototypes */
  nn_conv add_on[2];
};

/* Logits [batch, classes]; of concept heads also what they are made of. Memory of the pass. */
struct classifier_answer {
  const float *logits;
  const float *concepts;      /* [batch, n]; NULL: no such head */
  const float *contributions; /* [batch, classes, n] */
  const float *distances;     /* [batch, n, height, width] of prototypes, else NULL */
  int32_t height, width;
};

extern const struct classifier_variant classifier_sla;
extern const struct classifier_variant classifier_illama;
extern const struct classifier_variant classifier_resnet;
extern const struct classifier_variant classifier_convnext;
extern const struct classifier_variant classifier_swin;
extern const struct classifier_variant classifier_vit;
extern const struct classifier_variant classifier_beit;
extern const struct classifier_variant classifier_cae;
extern const struct classifier_variant classifier_dinov2;
extern const struct classifier_variant classifier_dinov2_registers;

struct classifier_model {
  nn_net net;
  const struct classifier_variant *variant;
  classifier_rules prepare;
  int64_t width;                       /* of the features */
  int64_t classes;                     /* 0: no head */
  bool rolls;                          /* attention can be followed from layer to layer */
  bool means;                          /* pooled holds the mean of hidden, perhaps normed */
  int64_t map_channels;                /* of hidden; 0: width */
  nn_linear head;                      /* [classes, width] */
  struct classifier_concepts concepts; /* instead of the head */
  char about[320], kinds[640];
};

/* plugin.c */
/* Classes of a head whose weight is called `name`; 0: the checkpoint has none. */
int64_t classifier_classes(nn_config *k, const viv_model_source *source, const char *name);
/* Exactly n numbers of a list. */
void classifier_list(nn_config *k, const char *key, int32_t *out, int32_t n, int64_t hi);
/* A map as a variant's last_hidden_state, its mean over the places as its features. */
struct classifier_features classifier_pool_map(nn_pass *p, const nn_map *x);

/* explain.c */
extern const viv_explain_api classifier_explain_api;
void classifier_say_kinds(struct classifier_model *m); /* once rolls, means and classes are known */
int32_t classifier_explain(nn_pass *p);
/* To be called before each block with its input x [batch, n, d], by models whose attention rolls. */
void classifier_watch(nn_pass *p, const nn_vit *vit, int32_t layer, int64_t batch, int64_t n,
                      const float *bias, const float *x);

/* concepts.c */
/* After the variant's config: concept_head, which gives the model its classes. */
void classifier_read_concepts(nn_config *k, const viv_model_source *source,
                              struct classifier_model *m);
void classifier_load_concepts(nn_loader *l, struct classifier_model *m);
/* By the variant's own answer, its concepts or its linear head; emit: hands over what the official
 * networks give besides the logits. Only of models that have classes. */
struct classifier_answer classifier_answer_of(nn_pass *p, const struct classifier_features *f,
                                              bool emit);

/* tasks.c */
extern const nn_task classifier_tasks[];

#endif
