/* The table of services that plugins get. */
#include "core/core.h"
#include "tasks/sampler.h"
#include "tasks/text_inputs.h"

static _Thread_local int32_t thread_role;

int32_t viv__thread_role(int32_t role) {
  int32_t before = thread_role;
  thread_role = role;
  return before;
}

int32_t viv__thread_is(void) {
  return thread_role;
}

static const void *get_extension(void *self, viv_str id) {
  viv_runtime *rt = self;
  if (viv__str_eq(id, VIV_COMPUTE_ID)) return rt->compute;
  if (viv__str_eq(id, VIV_SAMPLER_ID)) return &viv__sampler_api;
  if (viv__str_eq(id, VIV_TEXT_ID)) return &viv__text_api;
  return NULL;
}

static void log_line(void *self, int32_t level, viv_str text) {
  viv__log_line(&((viv_runtime *)self)->log, level, text);
}

static int32_t thread_check(void *self, int32_t thread) {
  (void)self;
  return thread_role == thread;
}

void viv__services_init(viv_runtime *rt) {
  rt->host = (viv_host){
      .struct_size = sizeof(viv_host),
      .abi_major = VIV_ABI_MAJOR,
      .abi_minor = VIV_ABI_MINOR,
      .abi_oldest_major = VIV_ABI_MAJOR,
      .self = rt,
      .get_extension = get_extension,
      .log = log_line,
      .thread_check = thread_check,
      .arena_alloc = viv__arena_alloc,
      .json_member = viv__json_member,
      .json_item = viv__json_item,
      .json_type = viv__json_type,
      .json_count = viv__json_count,
      .json_number = viv__json_number,
      .json_boolean = viv__json_boolean,
      .json_string = viv__json_string,
      .json_key = viv__json_key,
      .tensor_find = viv__tensor_find,
      .tensor_count = viv__tensor_count,
      .tensor_at = viv__tensor_at,
      .checkpoint_file = viv__checkpoint_file,
      .job_poll = viv__job_poll,
      .job_emit = viv__job_emit,
      .job_wants_tap = viv__job_wants_tap,
      .job_arena = viv__job_arena,
      .stream_read = viv__stream_read,
  };
}
