/* Takes it for granted that the host offers viv.compute/1. */
#define OPEN bad_open
#include "../common.h"

#include "vivarium/compute.h"

static volatile int32_t threads;

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  const viv_compute *compute = host->get_extension(host->self, STR("viv.compute/1"));
  threads = compute->threads;
  return good_open(host, source, out, error);
}

PLUGIN("needs-extensions");
