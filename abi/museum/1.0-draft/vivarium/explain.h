/* viv.explain/1, optional: what a model can say about why it answered as it did. Asked for from a
 * plugin with get_interface, like every optional interface; absent is NULL and must be survived. */
#ifndef VIVARIUM_EXPLAIN_H
#define VIVARIUM_EXPLAIN_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

#define VIV_EXPLAIN_ID "viv.explain/1"

typedef struct viv_explain_api {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;

  /* A JSON array of the kinds of explanation a job may ask for with the parameter "explain"
   * ("attention", "prototypes", ...), each with its name, shape and meaning. [any] */
  viv_str (*kinds)(const viv_plugin_model *model);
} viv_explain_api;

#ifdef __cplusplus
}
#endif
#endif
