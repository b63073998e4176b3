/* Answers with another major than the host offered, whatever its manifest says. */
#include "../common.h"

MODEL_API;
static const void *get_interface(viv_str id) {
  return is_model_id(id) ? &model_api : NULL;
}
static const viv_plugin plugin = {.struct_size = sizeof plugin,
                                  .abi_major = 2,
                                  .id = STR("wrong-major"),
                                  .version = STR("0.1.0"),
                                  .get_interface = get_interface};
const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  (void)host;
  (void)error;
  return &plugin;
}
