/* Dies of a segmentation fault while a model is opened. */
#define OPEN bad_open
#include "../common.h"

static int *volatile nowhere;

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  *nowhere = 1;
  return good_open(host, source, out, error);
}

PLUGIN("crash-open");
