/* Refuses every host. */
#include "../common.h"

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  (void)host;
  fail(error, VIV_NEVER, "viv_plugin_entry", "this plugin speaks ABI 7.0 to 7.3, the host 1.0");
  return NULL;
}
