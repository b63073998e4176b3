/* Finding plugins and choosing one for a configuration, by manifests alone: no plugin code runs
 * here. A manifest is NAME.json beside NAME.so. */
#include "core/core.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MANIFEST_LIMIT = 1 << 20 };

static void refuse(viv__plugin *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void refuse(viv__plugin *p, const char *format, ...) {
  char text[600];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  p->state = VIV__REFUSED;
  viv__free(p->reason);
  p->reason = viv__strdup(text);
}

static bool is_text_list(const viv_json *list) {
  if (viv__json_type(list) != VIV_JSON_ARRAY) return false;
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (viv__json_type(viv__json_item(list, i)) != VIV_JSON_STRING) return false;
  return true;
}

/* The checks that need nothing but the manifest and the processor. */
static void check_manifest(viv_runtime *rt, viv__plugin *p) {
  const viv_json *m = p->manifest, *abi = viv__json_get(m, "abi");
  if (viv__json_type(m) != VIV_JSON_OBJECT || !*viv__json_text(m, "id", "")) {
    refuse(p, "manifest: \"id\" is missing or no text");
    return;
  }
  p->id = viv__json_text(m, "id", "");
  double major = viv__json_num(abi, "major", -1), minor = viv__json_num(abi, "minor", -1);
  if (major < 0 || minor < 0) {
    refuse(p, "manifest: \"abi\" needs the numbers \"major\" and \"minor\"");
  } else if (major != VIV_ABI_MAJOR) {
    refuse(p, "ABI: the plugin speaks major %g, this host %d.0 to %d.%d", major, VIV_ABI_MAJOR,
           VIV_ABI_MAJOR, VIV_ABI_MINOR);
  } else if (!is_text_list(viv__json_get(m, "interfaces"))) {
    refuse(p, "manifest: \"interfaces\" must be a list of texts");
  } else if (rt->safe_mode && !viv__json_bool(m, "first_party", false)) {
    refuse(p, "safe mode: only first-party plugins are loaded");
  }
  const viv_json *cpu = viv__json_get(m, "cpu");
  for (int64_t i = 0; p->state != VIV__REFUSED && i < viv__json_count(cpu); i++) {
    viv_str feature = viv__json_string(viv__json_item(cpu, i));
    if (!viv__cpu_has(feature))
      refuse(p, "CPU: needs %.*s, which this processor does not offer", (int)feature.len,
             feature.ptr);
  }
}

static int32_t add_plugin(viv_runtime *rt, const char *folder, const char *file, viv_error *error) {
  viv__plugin *grown = viv__realloc(rt->plugins, (rt->n_plugins + 1) * sizeof *grown);
  if (!grown) return VIV_FAIL(error, VIV_NOT_NOW, folder, "no memory for the plugin list");
  rt->plugins = grown;
  viv__plugin *p = &grown[rt->n_plugins];
  memset(p, 0, sizeof *p);
  p->json_path = viv__path_join(folder, file);
  p->so_path = p->json_path ? viv__strdup(p->json_path) : NULL;
  if (!p->so_path) {
    viv__free(p->json_path);
    return VIV_FAIL(error, VIV_NOT_NOW, folder, "no memory for the plugin list");
  }
  memcpy(p->so_path + strlen(p->so_path) - 5, ".so", 4);
  p->id = strrchr(p->json_path, '/') + 1;
  rt->n_plugins++;

  char *text = NULL;
  size_t len = 0;
  viv_error why = VIV_ERROR_INIT;
  struct stat st;
  int32_t status = viv__read_file(p->json_path, MANIFEST_LIMIT, &text, &len, &why);
  if (status >= 0) status = viv__json_parse(text, len, p->json_path, &p->manifest, &why);
  if (status == VIV_NOT_NOW) { /* it may be the one that a model needs */
    viv__free(text);
    if (error && VIV_HAS(error, message)) *error = why;
    return status;
  }
  if (status < 0)
    refuse(p, "manifest: %s", why.message);
  else if (stat(p->so_path, &st))
    refuse(p, "no shared object: %s: %s", p->so_path, strerror(errno));
  else
    check_manifest(rt, p);
  if (p->manifest && *viv__json_text(p->manifest, "id", ""))
    p->id = viv__json_text(p->manifest, "id", "");
  viv__free(text);
  return VIV_OK;
}

static int by_name(const void *a, const void *b) {
  return strcmp(*(char *const *)a, *(char *const *)b);
}

static int32_t scan_folder(viv_runtime *rt, const char *folder, const char **note,
                           viv_error *error) {
  DIR *dir = opendir(folder);
  if (!dir && viv__is_short(errno))
    return VIV_FAIL(error, VIV_NOT_NOW, folder, "can't be read: %s", strerror(errno));
  if (!dir) {
    *note = errno == ENOENT ? "absent" : strerror(errno);
    return VIV_OK;
  }
  *note = "searched";
  char **names = NULL;
  size_t n = 0;
  int32_t status = VIV_OK;
  for (struct dirent *entry; status == VIV_OK && (entry = readdir(dir));) {
    size_t len = strlen(entry->d_name);
    if (len < 6 || entry->d_name[0] == '.' || strcmp(entry->d_name + len - 5, ".json")) continue;
    char **grown = viv__realloc(names, (n + 1) * sizeof *names);
    if (grown) names = grown;
    if (!grown || !(names[n] = viv__strdup(entry->d_name)))
      status = VIV_FAIL(error, VIV_NOT_NOW, folder, "no memory for the plugin list");
    else
      n++;
  }
  closedir(dir);
  if (n) qsort(names, n, sizeof *names, by_name);
  for (size_t i = 0; i < n; i++) {
    if (status == VIV_OK) status = add_plugin(rt, folder, names[i], error);
    viv__free(names[i]);
  }
  viv__free(names);
  return status;
}

int32_t viv__scan(viv_runtime *rt, viv_error *error) {
  for (size_t i = 0; i < rt->n_folders; i++) {
    const char *note = "";
    int32_t status = scan_folder(rt, rt->folders[i], &note, error);
    if (status < 0) return status;
    if (!(rt->folder_notes[i] = viv__strdup(note)))
      return VIV_FAIL(error, VIV_NOT_NOW, rt->folders[i], "no memory");
  }
  /* Of two plugins with one id the first on the path counts. */
  for (size_t i = 0; i < rt->n_plugins; i++)
    for (size_t j = 0; j < i; j++)
      if (rt->plugins[j].state != VIV__REFUSED && !strcmp(rt->plugins[i].id, rt->plugins[j].id)) {
        refuse(&rt->plugins[i], "shadowed: %s comes earlier on the search path",
               rt->plugins[j].so_path);
        break;
      }
  return VIV_OK;
}

void viv__scan_free(viv_runtime *rt) {
  for (size_t i = 0; i < rt->n_plugins; i++) {
    viv__plugin *p = &rt->plugins[i];
    if (p->table && VIV_HAS(p->table, deinit) && p->table->deinit) p->table->deinit(&rt->host);
    viv__free(p->json_path);
    viv__free(p->so_path);
    viv__free(p->reason);
    viv__json_free(p->manifest);
  }
  viv__free(rt->plugins);
  for (size_t i = 0; i < rt->n_folders; i++) {
    viv__free(rt->folders[i]);
    viv__free(rt->folder_notes[i]);
  }
  viv__free(rt->folders);
  viv__free(rt->folder_notes);
}

static bool lists(const viv_json *manifest, const char *key, viv_str name) {
  const viv_json *list = viv__json_get(manifest, key);
  for (int64_t i = 0; i < viv__json_count(list); i++)
    if (viv__same(viv__json_string(viv__json_item(list, i)), name)) return true;
  return false;
}

static bool names_itself(const viv_json *config) {
  return viv__json_get(config, "model_type") || viv__json_get(config, "architectures") ||
         viv__json_get(config, "image_processor_type") ||
         viv__json_get(config, "feature_extractor_type");
}

/* Whether the checkpoint holds every tensor by which the manifest knows its models: for releases that
 * are one file of weights without a config.json. */
static bool has_tensors(const viv_json *manifest, const viv_checkpoint *c) {
  const viv_json *list = viv__json_get(manifest, "tensors");
  int64_t n = viv__json_count(list);
  viv_tensor t;
  for (int64_t i = 0; i < n; i++)
    if (viv__tensor_find(c, viv__json_string(viv__json_item(list, i)), &t) < 0) return false;
  return n > 0;
}

/* Whether the manifest claims this model; otherwise the reason in words. */
static bool serves(const viv__plugin *p, const viv_json *config, const viv_checkpoint *c,
                   char *reason, size_t cap) {
  if (!lists(p->manifest, "interfaces", viv__str(VIV_MODEL_ID))) {
    snprintf(reason, cap, "offers no " VIV_MODEL_ID);
    return false;
  }
  viv_str type = viv__json_string(viv__json_get(config, "model_type"));
  if (type.len && lists(p->manifest, "model_types", type)) return true;
  /* What a preprocessor_config.json says when there is no config.json beside it. */
  static const char *const keys[] = {"image_processor_type", "feature_extractor_type"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    viv_str processor = viv__json_string(viv__json_get(config, keys[i]));
    if (processor.len && lists(p->manifest, "architectures", processor)) return true;
  }
  const viv_json *arch = viv__json_get(config, "architectures");
  for (int64_t i = 0; i < viv__json_count(arch); i++)
    if (lists(p->manifest, "architectures", viv__json_string(viv__json_item(arch, i)))) return true;
  if (!names_itself(config)) {
    if (has_tensors(p->manifest, c)) return true;
    snprintf(reason, cap, "tensors: not those by which it knows its models without a config.json");
    return false;
  }
  viv_str first = viv__json_string(viv__json_item(arch, 0));
  snprintf(reason, cap,
           "architecture: serves neither model_type \"%.*s\" nor architecture \"%.*s\"",
           (int)type.len, type.len ? type.ptr : "", (int)first.len, first.len ? first.ptr : "");
  return false;
}

static void why_row(viv__buf *why, const viv__plugin *p, bool taken, const char *reason) {
  if (!why) return;
  if (why->len && why->ptr[why->len - 1] == '}') viv__buf_str(why, ",");
  viv__buf_str(why, "{\"plugin\":");
  viv__buf_json(why, viv__str(p->id));
  viv__buf_str(why, ",\"file\":");
  viv__buf_json(why, viv__str(p->so_path));
  viv__buf_fmt(why, ",\"taken\":%s,\"reason\":", taken ? "true" : "false");
  viv__buf_json(why, viv__str(reason));
  viv__buf_str(why, "}");
}

/* What to say when no plugin is left. */
static int32_t none_fits(viv_runtime *rt, const viv_json *config, const char *path,
                         const char *wanted, viv_error *error) {
  viv__buf looked = {0};
  for (size_t i = 0; i < rt->n_folders; i++)
    viv__buf_fmt(&looked, "%s%s (%s)", i ? ", " : "", rt->folders[i], rt->folder_notes[i]);
  viv_str type = viv__json_string(viv__json_get(config, "model_type"));
  int32_t status;
  if (!rt->n_plugins)
    status = VIV_FAIL(error, VIV_NEVER, path, "no plugin found: looked in %s",
                      looked.ptr ? looked.ptr : "no folder");
  else if (wanted)
    status = VIV_FAIL(error, VIV_NEVER, path, "plugin \"%s\" can't take this model; see viv why",
                      wanted);
  else if (!names_itself(config))
    status =
        VIV_FAIL(error, VIV_BAD_INPUT, path,
                 "there is no config.json that says what model this is, and no plugin knows it "
                 "by its tensors");
  else
    status = VIV_FAIL(error, VIV_NEVER, path,
                      "no plugin serves model_type \"%.*s\" (%zu plugins looked at in %s); viv why "
                      "tells the reason of each",
                      (int)type.len, type.len ? type.ptr : "", rt->n_plugins,
                      looked.ptr ? looked.ptr : "no folder");
  viv__buf_free(&looked);
  return status;
}

int32_t viv__route(viv_runtime *rt, const viv_checkpoint *c, const char *path, const char *wanted,
                   viv__plugin **out, viv__buf *why, viv_error *error) {
  const viv_json *config = viv__checkpoint_config(c);
  viv__plugin *taken = NULL;
  viv_error failed = VIV_ERROR_INIT;
  bool load_failed = false;
  for (size_t i = 0; i < rt->n_plugins; i++) {
    viv__plugin *p = &rt->plugins[i];
    char reason[sizeof failed.message + 64] = "its manifest claims the model";
    bool fits = false;
    if (p->state == VIV__REFUSED) {
      snprintf(reason, sizeof reason, "%s", p->reason ? p->reason : "refused");
    } else if (wanted && strcmp(p->id, wanted)) {
      snprintf(reason, sizeof reason, "not the plugin that was asked for (%s)", wanted);
    } else if (serves(p, config, c, reason, sizeof reason)) {
      if (taken) {
        snprintf(reason, sizeof reason, "%s was found first", taken->id);
      } else if (viv__plugin_load(rt, p, &failed) < 0) {
        load_failed = true;
        snprintf(reason, sizeof reason, "%s", failed.message);
      } else {
        fits = true;
      }
    }
    if (fits) taken = p;
    why_row(why, p, fits, reason);
  }
  if (!taken && load_failed) {
    if (error && VIV_HAS(error, message)) *error = failed;
    return failed.code;
  }
  if (!taken) return none_fits(rt, config, path, wanted, error);
  *out = taken;
  return VIV_OK;
}

viv__plugin *viv__find_strategy(viv_runtime *rt, viv_str name) {
  for (size_t i = 0; i < rt->n_plugins; i++) {
    viv__plugin *p = &rt->plugins[i];
    if (p->state != VIV__REFUSED && lists(p->manifest, "strategies", name) &&
        viv__plugin_load(rt, p, NULL) == VIV_OK && p->strategy)
      return p;
  }
  return NULL;
}
