/* Checkpoints whose configuration says something else than their weights. */
#ifndef TESTS_CHANGED_MODEL_H
#define TESTS_CHANGED_MODEL_H

#include <stdlib.h>
#include <unistd.h>

#include "rt.h"

/* A folder with the model's weights by a link and a configuration with `from` replaced by `to`. */
static inline char *changed_model(const char *model, const char *from, const char *to) {
  static char folder[64];
  snprintf(folder, sizeof folder, "/tmp/viv_changed.XXXXXX");
  cr_assert(mkdtemp(folder));
  char path[4096], target[4096], text[8192];
  snprintf(path, sizeof path, "%s/model.safetensors", model);
  cr_assert(realpath(path, target));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  cr_assert_eq(symlink(target, path), 0);
  snprintf(path, sizeof path, "%s/config.json", model);
  FILE *f = fopen(path, "r");
  cr_assert(f);
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  char *at = strstr(text, from);
  cr_assert(at, "%s holds no %s", path, from);
  snprintf(path, sizeof path, "%s/config.json", folder);
  f = fopen(path, "w");
  cr_assert(f);
  fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fclose(f);
  return folder;
}

/* A checkpoint whose configuration was changed so does not open, and the error says why. */
static inline void refuse_model(viv_runtime *rt, const char *model, const char *from,
                                const char *to, const char *says) {
  char *folder = changed_model(model, from, to), path[128];
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  int32_t status = viv_load(rt, folder, NULL, &m, &e);
  cr_assert_lt(status, 0, "%s opened in spite of %s", model, to);
  cr_assert(strstr(e.message, says), "%s: %s", e.where, e.message);
  snprintf(path, sizeof path, "%s/config.json", folder);
  unlink(path);
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  unlink(path);
  rmdir(folder);
}

#endif
