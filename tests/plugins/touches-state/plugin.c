/* Changes the environment of the process while a model is opened. */
#define OPEN bad_open
#include <stdlib.h>

#include "../common.h"

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  setenv("OMP_NUM_THREADS", "1", 1);
  return good_open(host, source, out, error);
}

PLUGIN("touches-state");
