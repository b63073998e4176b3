/* Never comes back from the first contact. */
#include <time.h>

#include "../common.h"

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  (void)host;
  (void)error;
  for (;;) nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
}
