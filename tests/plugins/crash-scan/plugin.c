/* Dies of a segmentation fault at the first contact. */
#include "../common.h"

static int *volatile nowhere;

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  (void)host;
  (void)error;
  *nowhere = 1;
  return NULL;
}
