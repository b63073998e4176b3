/* Its table ends before get_interface: shorter than anything that version 1 ever was. */
#include "../common.h"

static const viv_plugin plugin = {.struct_size = offsetof(viv_plugin, get_interface),
                                  .abi_major = VIV_ABI_MAJOR,
                                  .id = STR("older-struct"),
                                  .version = STR("0.1.0")};
const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  return check_host(host, error, &plugin);
}
