/* Checkpoints that are almost right: a kept golden case whose config.json says something else. */
#ifndef TESTS_CHANGED_H
#define TESTS_CHANGED_H

#include <dirent.h>
#include <sys/stat.h>

#include "rt.h"

/* A folder that links the files of model, but for a config.json with `from` replaced by `to`. */
static inline char *changed_model(const char *model, const char *from, const char *to) {
  static char folder[64], text[1 << 16];
  char path[4096], target[4096];
  snprintf(folder, sizeof folder, "/tmp/changed.XXXXXX");
  cr_assert(mkdtemp(folder));
  DIR *dir = opendir(model);
  cr_assert(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.' || !strcmp(e->d_name, "config.json")) continue;
    snprintf(path, sizeof path, "%s/%s", model, e->d_name);
    cr_assert(realpath(path, target));
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    cr_assert_eq(symlink(target, path), 0);
  }
  closedir(dir);
  snprintf(path, sizeof path, "%s/config.json", model);
  FILE *f = fopen(path, "r");
  cr_assert(f);
  text[fread(text, 1, sizeof text - 1, f)] = 0;
  fclose(f);
  char *at = strstr(text, from);
  cr_assert(at, "%s holds no %s", path, from);
  snprintf(path, sizeof path, "%s/config.json", folder);
  f = fopen(path, "w");
  cr_assert(f);
  fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  fclose(f);
  return folder;
}

static inline void remove_changed(const char *folder) {
  char path[4096];
  DIR *dir = opendir(folder);
  cr_assert(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
    if (e->d_name[0] != '.') unlink(path);
  }
  closedir(dir);
  rmdir(folder);
}

/* Such a checkpoint is refused, and the message or its place holds these words. */
static inline void refuse_changed(viv_runtime *rt, const char *model, const char *from,
                                  const char *to, const char *says) {
  char *folder = changed_model(model, from, to);
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  int32_t status = viv_load(rt, folder, NULL, &m, &e);
  cr_assert_lt(status, 0, "%s opened in spite of %s", model, to);
  cr_assert(strstr(e.message, says) || strstr(e.where, says), "%s: %s", e.where, e.message);
  remove_changed(folder);
}

#endif
