/* viv why, plugins, doctor, version: what the library says of itself, in words. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/tree.h"

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : "";
}

/* The list inside a document that may be the list itself. */
static const cJSON *list_of(const cJSON *doc, const char *key) {
  const cJSON *list = cJSON_GetObjectItemCaseSensitive(doc, key);
  return list ? list : doc;
}

/* Opens a runtime, asks one question, closes. NULL after a report; *code is then set. */
static cJSON *ask(int32_t (*question)(viv_runtime *, viv_text *, viv_error *), bool json,
                  int *code) {
  viv_error error = VIV_ERROR_INIT;
  viv_runtime *rt = NULL;
  viv_text text = {0};
  int32_t status = viv__open_for_models(&rt, &error);
  if (status >= 0) status = question(rt, &text, &error);
  cJSON *doc = status >= 0 ? viv__text_json(&text) : NULL;
  if (!doc) *code = viv__report(json, NULL, status < 0 ? status : VIV_BUG, &error);
  if (rt) viv_close(rt);
  return doc;
}

/* ---- why ---- */

static void print_why(const cJSON *doc) {
  const cJSON *row, *list = list_of(doc, "candidates");
  bool taken = false;
  cJSON_ArrayForEach(row, list) {
    bool this_one = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "taken"));
    taken |= this_one;
    printf("%s %-16s %s\n", this_one ? "->" : "  ", text_of(row, "plugin"), text_of(row, "reason"));
    if (this_one) printf("   %-16s %s\n", "", text_of(row, "file"));
  }
  if (!taken)
    printf("no plugin takes this model; viv doctor shows where plugins were looked for\n");
}

int viv__cmd_why(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the whole answer as JSON", NULL},
      VIV__LOCAL_OPTION,
      {0}};
  const viv__usage usage = {"viv why sambay-reasoner", "why [options] MODEL",
                            "Says which plugin takes MODEL, and why each other one does not.\n"
                            "Exit code 3 when none does."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code >= 0) return code;
  viv_error error = VIV_ERROR_INIT;
  viv_runtime *rt = NULL;
  viv_text text = {0};
  char *path = viv__model_place(model, &error);
  int32_t status = path ? viv__open_for_models(&rt, &error) : VIV_NEVER;
  if (status >= 0) status = viv_why(rt, path, &text, &error);
  cJSON *doc = text.ptr ? viv__text_json(&text) : NULL;
  code = VIV__EXIT_OK;
  if (status < 0) {
    if (doc && !json) print_why(doc);
    code = viv__report(json, model, status, &error);
  } else if (doc) {
    const cJSON *row;
    code = VIV__EXIT_NEVER;
    cJSON_ArrayForEach(
        row,
        list_of(doc,
                "candidates")) if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(row, "taken")))
        code = VIV__EXIT_OK;
    if (!json)
      print_why(doc);
    else
      viv__print_json(cJSON_Duplicate(doc, 1));
  }
  cJSON_Delete(doc);
  if (rt) viv_close(rt);
  viv__free(path);
  return code;
}

/* ---- plugins ---- */

static void print_plugins(const cJSON *doc) {
  const cJSON *row, *list = list_of(doc, "plugins");
  printf("%-18s %-10s %-10s %s\n", "plugin", "version", "state", "serves, or why refused");
  cJSON_ArrayForEach(row, list) {
    const cJSON *manifest = cJSON_GetObjectItemCaseSensitive(row, "manifest"), *item;
    const char *reason = text_of(row, "reason");
    const char *version = text_of(manifest ? manifest : row, "version");
    const char *id = *text_of(row, "id") ? text_of(row, "id") : text_of(manifest, "id");
    printf("%-18s %-10s %-10s %s", id, *version ? version : "-", text_of(row, "state"), reason);
    static const char *const keys[] = {"architectures", "model_types", "strategies"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys && !*reason; i++) {
      const cJSON *names = cJSON_GetObjectItemCaseSensitive(manifest ? manifest : row, keys[i]);
      cJSON_ArrayForEach(item, names) if (cJSON_IsString(item)) printf("%s ", item->valuestring);
    }
    fputc('\n', stdout);
  }
  if (!cJSON_GetArraySize(list)) printf("none; viv doctor shows where they were looked for\n");
}

int viv__cmd_plugins(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "manifests, states and refusals as JSON", NULL},
      VIV__LOCAL_OPTION,
      {0}};
  const viv__usage usage = {"viv plugins", "plugins [options]",
                            "Lists the plugins on the search path; refused ones with the reason."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  cJSON *doc = ask(viv_plugins, json, &code);
  if (!doc) return code;
  if (json) {
    viv__print_json(doc);
    return VIV__EXIT_OK;
  }
  print_plugins(doc);
  cJSON_Delete(doc);
  return VIV__EXIT_OK;
}

/* ---- doctor ---- */

static void problem(cJSON *problems, const char *what, const char *remedy) {
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "problem", what);
  cJSON_AddStringToObject(o, "remedy", remedy);
  cJSON_AddItemToArray(problems, o);
}

static void check_plugins(const cJSON *plugins, cJSON *problems) {
  const cJSON *row, *list = list_of(plugins, "plugins");
  if (!cJSON_GetArraySize(list))
    problem(problems, "no plugin was found",
            "make plugins, or set VIV_PLUGIN_PATH to the folder that holds them");
  cJSON_ArrayForEach(row, list) {
    const char *reason = text_of(row, "reason");
    if (!*reason || !strncmp(reason, "shadowed", 8)) continue; /* the earlier one serves */
    char *what = viv__textf("plugin %s is refused: %s", text_of(row, "id"), reason);
    problem(problems, what, "rebuild it for this host, or remove it from the plugin folder");
    viv__free(what);
  }
}

static void check_zoo(cJSON *doc, cJSON *problems) {
  viv_error error = VIV_ERROR_INIT;
  char *folders[8], *catalog = viv__catalog_path(&error);
  cJSON *zoo = cJSON_AddObjectToObject(doc, "zoo");
  cJSON_AddStringToObject(zoo, "catalog", catalog ? catalog : "");
  cJSON *list = cJSON_AddArrayToObject(zoo, "folders");
  int n = viv__zoo_folders(folders), present = 0;
  for (int i = 0; i < n; i++) {
    cJSON *o = viv__need(cJSON_CreateObject());
    bool here = !access(folders[i], R_OK);
    present += here;
    cJSON_AddStringToObject(o, "path", folders[i]);
    cJSON_AddBoolToObject(o, "present", here);
    cJSON_AddItemToArray(list, o);
    viv__free(folders[i]);
  }
  if (!catalog) problem(problems, "the catalogue was not found", "set VIV_ZOO to the zoo's folder");
  if (!present)
    problem(problems, "no folder of zoo models was found", "set VIV_ZOO to the zoo's folder");
  viv__free(catalog);
}

static void check_cache(const cJSON *machine, cJSON *problems) {
  const char *cache = text_of(machine, "cache_dir");
  if (!*cache)
    problem(problems, "no cache folder could be made",
            "set XDG_CACHE_HOME to a folder that can be written");
  else if (access(cache, W_OK))
    problem(problems, "the cache folder can't be written",
            "set XDG_CACHE_HOME to a folder that can be written");
}

/* One folder a line, with what was found there. */
static void print_folders(const char *title, const cJSON *folders) {
  const cJSON *f;
  printf("\n%s\n", title);
  cJSON_ArrayForEach(f, folders) {
    const cJSON *present = cJSON_GetObjectItemCaseSensitive(f, "present");
    const char *note = text_of(f, "note");
    if (present) note = cJSON_IsTrue(present) ? "present" : "absent";
    printf("  %-10s %s\n", note, text_of(f, "path"));
  }
}

int viv__cmd_doctor(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "everything as one JSON object", NULL}, {0}};
  const viv__usage usage = {
      "viv doctor", "doctor [options]",
      "Shows the processor's features, the kernels and BLAS core in use, "
      "memory, the plugin\nfolders, the daemon and the zoo; says what is missing and "
      "what to do. Exit code 1 when something is."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  viv__local = true; /* this process' own folders and kernels are looked at */
  cJSON *machine = ask(viv_machine, json, &code);
  if (!machine) return code;
  cJSON *plugins = ask(viv_plugins, json, &code);
  if (!plugins) {
    cJSON_Delete(machine);
    return code;
  }
  cJSON *doc = viv__need(cJSON_CreateObject()), *problems = viv__need(cJSON_CreateArray());
  cJSON_AddStringToObject(doc, "version", viv_version());
  cJSON_AddItemToObject(doc, "machine", machine);
  cJSON_AddItemToObject(doc, "plugins", plugins);
  cJSON *daemon = viv__daemon_about();
  cJSON_AddItemToObject(doc, "daemon", daemon);
  if (!cJSON_HasObjectItem(daemon, "workers"))
    problem(problems, "the daemon's program, vivd, can't be run", "install it beside viv");
  check_zoo(doc, problems);
  check_plugins(plugins, problems);
  check_cache(machine, problems);
  cJSON_AddItemToObject(doc, "problems", problems);
  code = cJSON_GetArraySize(problems) ? VIV__EXIT_FAILED : VIV__EXIT_OK;
  if (json) {
    viv__print_json(doc);
    return code;
  }
  printf("vivarium %s\n\nmachine\n", viv_version());
  viv__print_tree(machine, 2);
  printf("\nplugins\n");
  print_plugins(plugins);
  print_folders("plugin folders", cJSON_GetObjectItemCaseSensitive(plugins, "folders"));
  printf("\ndaemon\n");
  viv__print_tree(daemon, 2);
  const cJSON *zoo = cJSON_GetObjectItemCaseSensitive(doc, "zoo"), *p;
  printf("\ncatalogue\n  %s\n", text_of(zoo, "catalog"));
  print_folders("zoo models", cJSON_GetObjectItemCaseSensitive(zoo, "folders"));
  printf("\n%s\n", code ? "problems" : "nothing is missing");
  cJSON_ArrayForEach(p, problems)
      printf("  %s\n    -> %s\n", text_of(p, "problem"), text_of(p, "remedy"));
  cJSON_Delete(doc);
  return code;
}

/* ---- version ---- */

int viv__cmd_version(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {{"json", 0, VIV__OPT_FLAG, NULL, &json, "as a JSON object", NULL},
                              {0}};
  const viv__usage usage = {"viv version", "version [options]",
                            "Prints the version and the plugin ABI's."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  if (json) {
    cJSON *o = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(o, "version", viv_version());
    cJSON_AddNumberToObject(o, "abi_major", VIV_ABI_MAJOR);
    cJSON_AddNumberToObject(o, "abi_minor", VIV_ABI_MINOR);
    viv__print_json(o);
  } else {
    printf("viv %s (plugin ABI %d.%d)\n", viv_version(), VIV_ABI_MAJOR, VIV_ABI_MINOR);
  }
  return VIV__EXIT_OK;
}
