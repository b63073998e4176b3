/* Ends the process, without a trace, while a model is opened. */
#define OPEN bad_open
#include <unistd.h>

#include "../common.h"

static volatile int really = 1;

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  if (really) _exit(0);
  return good_open(host, source, out, error);
}

PLUGIN("exits");
