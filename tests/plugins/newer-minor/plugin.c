/* Built against a later minor of this major: its structs are longer, its table offers interfaces
 * that this host has never heard of, and it answers with the minor that the host speaks. It must
 * work. */
#include "../common.h"

#define NEWEST_MINOR 99

static int32_t later(void) {
  return VIV_NEVER;
}

static const struct {
  viv_model_api api;
  int32_t (*later[7])(void);
} model_api = {.api = {.struct_size = sizeof model_api,
                       .abi_major = VIV_ABI_MAJOR,
                       .abi_minor = NEWEST_MINOR,
                       .plan = good_plan,
                       .open = good_open,
                       .close = good_close,
                       .describe = good_describe,
                       .job_begin = good_begin,
                       .job_step = good_step,
                       .job_end = good_end},
               .later = {later, later, later, later, later, later, later}};

static const void *get_interface(viv_str id) {
  return is_model_id(id) ? &model_api : NULL;
}

typedef struct longer_plugin {
  viv_plugin plugin;
  uint64_t later[5];
} longer_plugin;

#define TABLE(minor)                                                                               \
  {                                                                                                \
    .plugin = {.struct_size = sizeof(longer_plugin),                                               \
               .abi_major = VIV_ABI_MAJOR,                                                         \
               .abi_minor = minor,                                                                 \
               .id = STR("newer-minor"),                                                           \
               .version = STR("0.1.0"),                                                            \
               .get_interface = get_interface},                                                    \
    .later = {                                                                                     \
      1,                                                                                           \
      2,                                                                                           \
      3,                                                                                           \
      4,                                                                                           \
      5                                                                                            \
    }                                                                                              \
  }

const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {
  static const longer_plugin newest = TABLE(NEWEST_MINOR), oldest = TABLE(0);
  return check_host(host, error, host->abi_minor >= NEWEST_MINOR ? &newest.plugin : &oldest.plugin);
}
