/* Needs viv.compute/1 and says so politely to a host that offers none: this is how it should be. */
#define OPEN polite_open
#include "../common.h"

static int32_t polite_open(const viv_host *host, const viv_model_source *source,
                           viv_plugin_model **out, viv_error *error) {
  if (!host->get_extension(host->self, STR("viv.compute/1")))
    return fail(error, VIV_NEVER, "viv.compute/1", "the host does not offer this extension");
  return good_open(host, source, out, error);
}

PLUGIN("no-extensions");
