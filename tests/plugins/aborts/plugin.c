/* Aborts when a job begins, as an assertion would. */
#define BEGIN bad_begin
#include <stdlib.h>

#include "../common.h"

static volatile int really = 1;

static int32_t bad_begin(viv_plugin_model *model, const viv_plugin_request *request, viv_job *job,
                         viv_plugin_job **out, viv_error *error) {
  if (really) abort();
  return good_begin(model, request, job, out, error);
}

PLUGIN("aborts");
