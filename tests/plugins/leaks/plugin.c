/* Forgets 64 KiB with every model it opens. */
#define OPEN bad_open
#include <stdlib.h>

#include "../common.h"

static void *volatile forgotten;

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  forgotten = malloc(64 << 10);
  if (forgotten) memset(forgotten, 1, 64 << 10);
  return good_open(host, source, out, error);
}

PLUGIN("leaks");
