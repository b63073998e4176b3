/* Writes to standard output, which belongs to the program around the host. */
#define OPEN bad_open
#include <unistd.h>

#include "../common.h"

static int32_t bad_open(const viv_host *host, const viv_model_source *source,
                        viv_plugin_model **out, viv_error *error) {
  static const char text[] = "loading the model...\n";
  if (write(1, text, sizeof text - 1) < 0) return fail(error, VIV_NOT_NOW, "stdout", "is closed");
  return good_open(host, source, out, error);
}

PLUGIN("prints");
