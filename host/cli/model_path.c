/* Finding what MODEL names, and loading it. */
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CATALOG_LIMIT = 8 << 20 };

/* The folder of the running executable; false when the system does not tell. */
static bool executable_folder(char *out, size_t cap) {
  ssize_t n = readlink("/proc/self/exe", out, cap - 1);
  if (n <= 0) return false;
  out[n] = 0;
  char *slash = strrchr(out, '/');
  if (!slash) return false;
  *slash = 0;
  return true;
}

/* Where a zoo may lie, most particular first: what VIV_ZOO says, the source tree beside the build
 * folder, the installation that the executable belongs to, the prefix it was configured for. The
 * folder of the models is the second column's; the catalogue stands in the first's. */
static int zoo_roots(char *roots[4]) {
  char exe[4096];
  int n = 0;
  const char *zoo = getenv("VIV_ZOO");
  if (zoo && *zoo) roots[n++] = viv__textf("%s", zoo);
  if (executable_folder(exe, sizeof exe)) {
    roots[n++] = viv__textf("%s/../zoo", exe);
    roots[n++] = viv__textf("%s/../share/vivarium", exe);
  }
  roots[n++] = viv__textf("%s/share/vivarium", VIV_PREFIX);
  return n;
}

int viv__zoo_folders(char *folders[8]) {
  char *roots[4];
  int n = 0, n_roots = zoo_roots(roots);
  const char *zoo = getenv("VIV_ZOO");
  if (zoo && *zoo) folders[n++] = viv__textf("%s", zoo); /* VIV_ZOO may name the models' folder */
  for (int i = 0; i < n_roots; i++) {
    folders[n++] = viv__textf("%s/models", roots[i]);
    viv__free(roots[i]);
  }
  return n;
}

char *viv__catalog_path(viv_error *error) {
  char *roots[4], *found = NULL;
  viv__buf looked = {0};
  int n = zoo_roots(roots);
  for (int i = 0; i < n; i++) {
    char *path = viv__textf("%s/catalog.json", roots[i]);
    if (!found && !access(path, R_OK))
      found = path;
    else {
      viv__buf_fmt(&looked, "%s%s", i ? ", " : "", path);
      viv__free(path);
    }
    viv__free(roots[i]);
  }
  if (!found)
    VIV_FAIL(error, VIV_NEVER, "catalog.json", "no catalogue found; looked at %s", looked.ptr);
  viv__buf_free(&looked);
  return found;
}

static bool is_folder(const char *path) {
  struct stat st;
  return !stat(path, &st) && S_ISDIR(st.st_mode);
}

char *viv__model_place(const char *model, viv_error *error) {
  char *path = viv__model_path(model, error), *real = path ? realpath(path, NULL) : NULL;
  char *place = real ? viv__need(viv__strdup(real)) : NULL;
  free(real);
  if (!place) return path;
  viv__free(path);
  return place;
}

char *viv__model_path(const char *model, viv_error *error) {
  if (!access(model, F_OK)) return viv__need(viv__strdup(model));
  char *folders[8], *found = NULL;
  int n = viv__zoo_folders(folders);
  viv__buf looked = {0};
  bool plain = model[0] && model[0] != '/' && model[0] != '.'; /* a path is not a name in the zoo */
  for (int i = 0; i < n; i++) {
    char *path = viv__textf("%s/%s", folders[i], model);
    if (plain && !found && is_folder(path))
      found = path;
    else
      viv__free(path);
    viv__buf_fmt(&looked, "%s%s", i ? ", " : "", folders[i]);
    viv__free(folders[i]);
  }
  if (!found && plain)
    VIV_FAIL(error, VIV_NEVER, model,
             "no such model: neither a path nor a name in %s; viv list --models shows the names",
             looked.ptr);
  else if (!found)
    VIV_FAIL(error, VIV_NEVER, model, "no such model directory or file");
  viv__buf_free(&looked);
  return found;
}

int32_t viv__open_runtime(viv_runtime **out, viv_error *error) {
  viv_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  return viv_open(&options, out, error);
}

cJSON *viv__text_json(viv_text *text) {
  viv_json *json = NULL;
  viv__json_parse(text->ptr ? text->ptr : "", text->len, "library", &json, NULL);
  viv_text_free(text);
  return (cJSON *)json;
}

cJSON *viv__parse_json_file(const char *path, size_t limit, viv_error *error) {
  char *text = NULL;
  size_t len = 0;
  viv_json *json = NULL;
  if (viv__read_file(path, limit ? limit : CATALOG_LIMIT, &text, &len, error) < 0) return NULL;
  viv__json_parse(text, len, path, &json, error);
  viv__free(text);
  return (cJSON *)json;
}

/* Into a runtime that is there, or into a new one of its own. */
static int32_t load(viv_runtime *beside, const char *model, const cJSON *options, viv__loaded *out,
                    viv_error *error) {
  memset(out, 0, sizeof *out);
  viv__loaded l = {.path = viv__model_path(model, error)};
  if (!l.path) return VIV_NEVER;
  char *what = viv__textf("loading %s ...", model);
  viv__progress_show(what, -1);
  viv__free(what);

  char *params = options && options->child ? viv__need(cJSON_PrintUnformatted(options)) : NULL;
  viv_text about = {0};
  int32_t status = beside ? VIV_OK : viv__open_for_models(&l.rt, error);
  if (status >= 0) status = viv_load(beside ? beside : l.rt, l.path, params, &l.model, error);
  if (status >= 0) status = viv_describe(l.model, &about, error);
  viv__progress_clear();
  cJSON_free(params);
  if (status < 0) {
    viv__unload_model(&l);
    return status;
  }
  l.about = viv__text_json(&about);
  if (!l.about) l.about = viv__need(cJSON_CreateObject());
  *out = l;
  return VIV_OK;
}

int32_t viv__load_model(const char *model, const cJSON *params, viv__loaded *out,
                        viv_error *error) {
  return load(NULL, model, params, out, error);
}

int32_t viv__load_beside(const viv__loaded *first, const char *model, viv__loaded *out,
                         viv_error *error) {
  return load(first->rt, model, NULL, out, error);
}

void viv__unload_model(viv__loaded *l) {
  if (l->model) viv_unload(l->model);
  if (l->rt) viv_close(l->rt);
  viv__free(l->path);
  cJSON_Delete(l->about);
  memset(l, 0, sizeof *l);
}

/* tasks is a list of names, a list of objects with a name, or an object by name. */
bool viv__has_task(const viv__loaded *l, const char *task) {
  const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(l->about, "tasks"), *t;
  cJSON_ArrayForEach(t, tasks) {
    const cJSON *name = cJSON_IsString(t) ? t : cJSON_GetObjectItemCaseSensitive(t, "name");
    const char *text = cJSON_IsString(name) ? name->valuestring : t->string;
    if (text && !strcmp(text, task)) return true;
  }
  return false;
}
