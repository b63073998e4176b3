/* Checkpoints that are almost right: a kept golden case whose config.json says something else. */
#ifndef TESTS_CHANGED_H
#define TESTS_CHANGED_H

#include <dirent.h>
#include <sys/stat.h>

#include "rt.h"

/* folder gets the config.json of model with `from` replaced by `to`. */
static inline void change_config(const char *folder, const char *model, const char *from,
                                 const char *to) {
  static char text[1 << 16];
  char path[4096];
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
}

static inline void link_into(const char *folder, const char *file) {
  char path[4096], target[4096];
  cr_assert(realpath(file, target));
  snprintf(path, sizeof path, "%s/%s", folder, strrchr(file, '/') + 1);
  cr_assert_eq(symlink(target, path), 0);
}

/* An empty folder, valid until the next call. */
static inline char *changed_folder(void) {
  static char folder[64];
  snprintf(folder, sizeof folder, "/tmp/changed.XXXXXX");
  cr_assert(mkdtemp(folder));
  return folder;
}

/* A folder that links the files of model, but for a config.json with `from` replaced by `to`. */
static inline char *changed_model(const char *model, const char *from, const char *to) {
  char *folder = changed_folder(), path[4096];
  DIR *dir = opendir(model);
  cr_assert(dir);
  for (struct dirent *e; (e = readdir(dir));) {
    if (e->d_name[0] == '.' || !strcmp(e->d_name, "config.json")) continue;
    snprintf(path, sizeof path, "%s/%s", model, e->d_name);
    link_into(folder, path);
  }
  closedir(dir);
  change_config(folder, model, from, to);
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

/* Such a checkpoint does not open; this is why. */
static inline viv_error refusal_of(viv_runtime *rt, const char *model, const char *from,
                                   const char *to) {
  char *folder = changed_model(model, from, to);
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  int32_t status = viv_load(rt, folder, NULL, &m, &e);
  cr_assert_lt(status, 0, "%s opened in spite of %s", model, to);
  remove_changed(folder);
  return e;
}

/* The message says so. */
static inline void refuse_model(viv_runtime *rt, const char *model, const char *from,
                                const char *to, const char *says) {
  viv_error e = refusal_of(rt, model, from, to);
  cr_assert(strstr(e.message, says), "%s: %s", e.where, e.message);
}

/* The message or its place does. */
static inline void refuse_changed(viv_runtime *rt, const char *model, const char *from,
                                  const char *to, const char *says) {
  viv_error e = refusal_of(rt, model, from, to);
  cr_assert(strstr(e.message, says) || strstr(e.where, says), "%s: %s", e.where, e.message);
}

#endif
