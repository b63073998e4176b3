/* viv list: the catalogue of systems, and the models of the zoo. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

static const char *text_of(const cJSON *row, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, key);
  return cJSON_IsString(item) ? item->valuestring : "";
}

/* A list of texts as one; a text as it is. Freed by the caller. */
static char *joined(const cJSON *row, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(row, key), *part;
  if (cJSON_IsString(item)) return viv__need(viv__strdup(item->valuestring));
  viv__buf b = {0};
  cJSON_ArrayForEach(part, item) if (cJSON_IsString(part))
      viv__buf_fmt(&b, "%s%s", b.len ? ", " : "", part->valuestring);
  viv__buf_add(&b, "", 1);
  return viv__need(b.ptr);
}

struct filter {
  const char *state;
  bool markdown;
};

static void print_row(const cJSON *row, const char *number, const struct filter *f) {
  char *tasks = joined(row, "tasks"), *plugin = joined(row, "plugin");
  if (!f->state || !strcmp(text_of(row, "state"), f->state))
    printf(f->markdown ? "| %s | %s | %s | %s | %s |\n" : "%3s  %-44.44s %-34.34s %-22.22s %s\n",
           number, text_of(row, "system"), tasks, plugin, text_of(row, "state"));
  viv__free(tasks);
  viv__free(plugin);
}

static void print_section(const cJSON *rows, const struct filter *f) {
  const cJSON *row;
  cJSON_ArrayForEach(row, rows) {
    const cJSON *n = cJSON_GetObjectItemCaseSensitive(row, "number");
    char number[16] = "";
    if (cJSON_IsNumber(n)) snprintf(number, sizeof number, "%d", n->valueint);
    print_row(row, number, f);
  }
}

static int list_catalog(bool json, const struct filter *f) {
  viv_error error = VIV_ERROR_INIT;
  char *path = viv__catalog_path(&error);
  cJSON *catalog = path ? viv__parse_json_file(path, 0, &error) : NULL;
  viv__free(path);
  if (!catalog) return viv__report(json, NULL, error.code, &error);
  if (json) {
    viv__print_json(catalog);
    return VIV__EXIT_OK;
  }
  if (f->markdown)
    printf("| # | system | tasks | plugin | state |\n| --- | --- | --- | --- | --- |\n");
  else
    printf("%3s  %-44s %-34s %-22s %s\n", "#", "system", "tasks", "plugin", "state");
  print_section(cJSON_GetObjectItemCaseSensitive(catalog, "systems"), f);
  print_section(cJSON_GetObjectItemCaseSensitive(catalog, "bases"), f);
  cJSON_Delete(catalog);
  return VIV__EXIT_OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The subfolders of one zoo folder that hold a config.json. */
static size_t models_in(const char *folder, char ***names) {
  size_t n = 0;
  DIR *dir = opendir(folder);
  for (struct dirent *e; dir && (e = readdir(dir));) {
    char *config = viv__textf("%s/%s/config.json", folder, e->d_name);
    if (e->d_name[0] != '.' && !access(config, R_OK)) {
      *names = viv__need(viv__realloc(*names, (n + 1) * sizeof **names));
      (*names)[n++] = viv__need(viv__strdup(e->d_name));
    }
    viv__free(config);
  }
  if (dir) closedir(dir);
  if (n) qsort(*names, n, sizeof **names, by_name);
  return n;
}

static bool listed(const cJSON *all, const char *name) {
  const cJSON *o;
  cJSON_ArrayForEach(o, all) if (!strcmp(text_of(o, "name"), name)) return true;
  return false;
}

/* One model: a line, or an object of the list. */
static void list_model(const char *folder, const char *name, cJSON *all, bool json) {
  char *path = viv__textf("%s/%s", folder, name), *config_path = viv__textf("%s/config.json", path);
  cJSON *config = viv__parse_json_file(config_path, 1 << 20, NULL);
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "name", name);
  cJSON_AddStringToObject(o, "model_type", text_of(config, "model_type"));
  cJSON_AddStringToObject(o, "path", path);
  if (!json) printf("%-28s %-16s %s\n", name, text_of(config, "model_type"), path);
  cJSON_AddItemToArray(all, o);
  cJSON_Delete(config);
  viv__free(config_path);
  viv__free(path);
}

/* Of two models of one name the first counts, as for viv run. */
static int list_models(bool json) {
  char *folders[8];
  int n_folders = viv__zoo_folders(folders);
  cJSON *all = viv__need(cJSON_CreateArray());
  for (int i = 0; i < n_folders; i++) {
    char **names = NULL;
    size_t n = models_in(folders[i], &names);
    for (size_t j = 0; j < n; j++) {
      if (!listed(all, names[j])) list_model(folders[i], names[j], all, json);
      viv__free(names[j]);
    }
    viv__free(names);
    viv__free(folders[i]);
  }
  if (!cJSON_GetArraySize(all) && !json)
    fprintf(stderr, "viv: no models found; viv doctor shows where they were looked for\n");
  if (json)
    viv__print_json(all);
  else
    cJSON_Delete(all);
  return VIV__EXIT_OK;
}

int viv__cmd_list(int argc, char **argv) {
  bool json = false, models = false;
  struct filter f = {0};
  const viv__opt options[] = {
      {"models", 'm', VIV__OPT_FLAG, NULL, &models, "the models of the zoo instead", NULL},
      {"state", 0, VIV__OPT_TEXT, "STATE", &f.state, "only planned, runs or verified", NULL},
      {"markdown", 0, VIV__OPT_FLAG, NULL, &f.markdown, "as a Markdown table", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the catalogue itself", NULL},
      {0}};
  const viv__usage usage = {"viv list\nviv list --state verified\nviv list --models",
                            "list [options]",
                            "Lists the systems of the catalogue: number, name, tasks, plugin and "
                            "state.\nverified means that golden vectors of the official "
                            "implementation pass."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  if (f.state && strcmp(f.state, "planned") && strcmp(f.state, "runs") &&
      strcmp(f.state, "verified"))
    return viv__usage_error(argv[0], "--state is planned, runs or verified");
  return models ? list_models(json) : list_catalog(json, &f);
}
