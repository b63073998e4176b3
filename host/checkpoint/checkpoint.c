/* A model directory as "tensor by name": finds the weight files, joins shards into one table of
 * names, reads config.json and side files. */
#include "checkpoint/checkpoint.h"

#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <sha256.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint/files.h"

enum {
  MAX_SIDE_FILE = 64 << 20,
  MAX_SHARDS = 1024,
  MAX_LISTED = 5, /* names that an error text lists before "and N more" */
  ENDS = 64 << 10 /* bytes of each end of a file that the id covers */
};

/* One weight file: one of the five is set. */
typedef struct part {
  char *file;   /* its name in the directory */
  char *prefix; /* before the names of its tensors; NULL: none */
  viv__safetensors *safetensors;
  viv__pickle *pickle;
  viv__gguf *gguf;
  viv__tfjs *tfjs;
  viv__tfbundle *tfbundle;
} part;

typedef struct ref {
  uint32_t part;
  int64_t index; /* in the part */
} ref;

typedef struct side_file {
  struct side_file *next;
  char *name, *text;
  size_t len;
  viv_json *document;
  bool parsed; /* document is final, NULL when the text is not JSON */
} side_file;

/* Side files are read when they are first asked for, also through a const checkpoint. */
typedef struct side_files {
  pthread_mutex_t lock;
  side_file *first;
} side_files;

struct viv_checkpoint {
  char *dir;
  part *parts;
  uint32_t part_count;
  int64_t count;
  viv_str *names; /* [count], each in its part's memory or in prefixed */
  char *prefixed; /* names of parts that have a prefix; NULL: there are none */
  ref *refs;      /* [count] */
  viv__names table;
  uint64_t bytes;
  viv_json *config;
  side_files *side;
  viv__gguf *gguf; /* the only part, when that is one: it brings side files of its own */
  viv__tfjs *tfjs; /* likewise */
  bool alone;      /* opened by its own path: the folder's other files are not the model's */
};

static int32_t no_memory(viv_error *error, const char *where) {
  return VIV_FAIL(error, VIV_NOT_NOW, where, "no memory to open the checkpoint");
}

/* ---- paths ---- */

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Whether name is one plain path component: what an index or a request may ask for. */
static bool is_plain(viv_str name) {
  return name.len > 0 && name.len < NAME_MAX && !memchr(name.ptr, '/', name.len) &&
         !memchr(name.ptr, 0, name.len) && !viv__str_eq(name, ".") && !viv__str_eq(name, "..");
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && !strcmp(text + n - m, end);
}

/* Whether folder holds name as a regular file; 0, 1, or VIV_NOT_NOW. */
static int32_t holds(const char *folder, const char *name) {
  char *path = viv__path_join(folder, name);
  if (!path) return VIV_NOT_NOW;
  int32_t found = is_file(path);
  viv__free(path);
  return found;
}

/* ---- parts ---- */

static int64_t part_count(const part *p) {
  return p->safetensors ? viv__safetensors_count(p->safetensors)
         : p->gguf      ? viv__gguf_count(p->gguf)
         : p->tfjs      ? viv__tfjs_count(p->tfjs)
         : p->tfbundle  ? viv__tfbundle_count(p->tfbundle)
                        : viv__pickle_count(p->pickle);
}

static int32_t part_at(const part *p, int64_t index, viv_str *name, viv_tensor *out) {
  return p->safetensors ? viv__safetensors_at(p->safetensors, index, name, out)
         : p->gguf      ? viv__gguf_at(p->gguf, index, name, out)
         : p->tfjs      ? viv__tfjs_at(p->tfjs, index, name, out)
         : p->tfbundle  ? viv__tfbundle_at(p->tfbundle, index, name, out)
                        : viv__pickle_at(p->pickle, index, name, out);
}

static const viv__map *part_map(const part *p) {
  return p->safetensors ? viv__safetensors_map(p->safetensors)
         : p->gguf      ? viv__gguf_map(p->gguf)
         : p->tfjs      ? viv__tfjs_map(p->tfjs)
         : p->tfbundle  ? viv__tfbundle_map(p->tfbundle)
                        : viv__pickle_map(p->pickle);
}

/* The document of a TensorFlow.js model that a .bin belongs to: NAME.json for NAME.bin, model.json
 * for the converter's groupNshardMofK.bin. False: PyTorch's file, or no memory. */
static bool document_of(const viv_checkpoint *c, const char *file, char out[NAME_MAX + 8]) {
  if (!ends_with(file, ".bin")) return false;
  bool shard = !strncmp(file, "group", 5) && strstr(file, "-shard");
  snprintf(out, NAME_MAX + 8, "%.*s.json", shard ? 5 : (int)strlen(file) - 4,
           shard ? "model" : file);
  return holds(c->dir, out) == 1;
}

/* Adds the file of that name: safetensors, GGUF and TensorFlow's by its name's end, otherwise
 * PyTorch's. */
static int32_t add_part(viv_checkpoint *c, const char *file, viv_error *error) {
  part *grown = viv__realloc(c->parts, (c->part_count + 1) * sizeof *grown);
  if (!grown) return no_memory(error, file);
  c->parts = grown;
  char document[NAME_MAX + 8];
  if (document_of(c, file, document)) file = document;
  part p = {.file = viv__strdup(file)};
  char *path = p.file ? viv__path_join(c->dir, file) : NULL;
  int32_t status = !path ? no_memory(error, file)
                   : ends_with(file, ".safetensors")
                       ? viv__safetensors_open(path, &p.safetensors, error)
                   : ends_with(file, ".json")  ? viv__tfjs_open(path, &p.tfjs, error)
                   : ends_with(file, ".gguf")  ? viv__gguf_open(path, &p.gguf, error)
                   : ends_with(file, ".index") ? viv__tfbundle_open(path, &p.tfbundle, error)
                                               : viv__pickle_open(path, &p.pickle, error);
  viv__free(path);
  if (status < 0) {
    viv__free(p.file);
    return status;
  }
  c->parts[c->part_count++] = p;
  c->gguf = p.gguf;
  c->tfjs = p.tfjs;
  return VIV_OK;
}

/* Puts the prefixes before the names of the parts that have one. */
static int32_t prefix_names(viv_checkpoint *c, viv_error *error) {
  size_t bytes = 0, at = 0;
  for (int64_t i = 0; i < c->count; i++) {
    const char *prefix = c->parts[c->refs[i].part].prefix;
    if (prefix) bytes += strlen(prefix) + (size_t)c->names[i].len;
  }
  if (!bytes) return VIV_OK;
  c->prefixed = viv__malloc(bytes);
  if (!c->prefixed) return no_memory(error, c->dir);
  for (int64_t i = 0; i < c->count; i++) {
    const char *prefix = c->parts[c->refs[i].part].prefix;
    if (!prefix) continue;
    size_t len = strlen(prefix), rest = (size_t)c->names[i].len;
    memcpy(c->prefixed + at, prefix, len);
    memcpy(c->prefixed + at + len, c->names[i].ptr, rest);
    c->names[i] = (viv_str){c->prefixed + at, len + rest};
    at += len + rest;
  }
  return VIV_OK;
}

/* Joins the parts' names into one table. A name that two parts hold is refused. */
static int32_t join(viv_checkpoint *c, viv_error *error) {
  int64_t total = 0;
  for (uint32_t i = 0; i < c->part_count; i++) total += part_count(&c->parts[i]);
  c->names = viv__malloc((size_t)total * sizeof *c->names);
  c->refs = viv__malloc((size_t)total * sizeof *c->refs);
  if (!c->names || !c->refs) return no_memory(error, c->dir);
  for (uint32_t i = 0; i < c->part_count; i++) {
    int64_t n = part_count(&c->parts[i]);
    for (int64_t k = 0; k < n; k++, c->count++) {
      viv_tensor t;
      part_at(&c->parts[i], k, &c->names[c->count], &t);
      c->refs[c->count] = (ref){i, k};
      c->bytes += t.bytes;
    }
  }
  size_t twice = 0;
  int32_t status = prefix_names(c, error);
  if (status < 0) return status;
  status = viv__names_build(&c->table, c->names, (size_t)c->count, &twice);
  if (status == VIV_NOT_NOW) return no_memory(error, c->dir);
  if (status < 0) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    viv__place(where, c->dir, "tensor '%s'", viv__shown(shown, c->names[twice]));
    const char *other = "";
    for (size_t i = 0; i < twice; i++)
      if (viv__same(c->names[i], c->names[twice])) other = c->parts[c->refs[i].part].file;
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the tensor is in two shards, %s and %s", other,
                    c->parts[c->refs[twice].part].file);
  }
  return VIV_OK;
}

/* ---- shards ---- */

/* A list of what is missing, that an error text can hold. */
typedef struct missing {
  viv__buf text;
  int64_t count;
} missing;

static void miss(missing *m, const char *name, const char *of) {
  char shown[VIV__SHOWN], file[VIV__SHOWN];
  if (m->count++ >= MAX_LISTED) return;
  viv__buf_fmt(&m->text, "%s%s", m->text.len ? ", " : "", viv__shown(shown, viv__str(name)));
  if (of) viv__buf_fmt(&m->text, " (of %s)", viv__shown(file, viv__str(of)));
}

/* Reports and frees the list; VIV_OK when nothing is missing. */
static int32_t miss_end(missing *m, const char *where, const char *what, viv_error *error) {
  int32_t status = VIV_OK;
  char more[48] = "";
  if (m->count > MAX_LISTED)
    snprintf(more, sizeof more, " and %" PRId64 " more", m->count - MAX_LISTED);
  if (m->text.failed)
    status = no_memory(error, where);
  else if (m->count)
    status = VIV_FAIL(error, VIV_BAD_INPUT, where, "%" PRId64 " %s missing: %s%s", m->count, what,
                      m->text.ptr, more);
  viv__buf_free(&m->text);
  return status;
}

/* Collects the shards' names in the order of their first mention. map is the weight_map; shard
 * [number of entries] receives each entry's shard. */
static int32_t list_shards(const cJSON *map, uint32_t *shard, const char *where, const char **files,
                           uint32_t *count, viv_error *error) {
  const cJSON *e;
  size_t i = 0;
  cJSON_ArrayForEach(e, map) {
    char shown[VIV__SHOWN];
    if (!cJSON_IsString(e))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "weight_map names no file for tensor '%s'",
                      viv__shown(shown, viv__str(e->string)));
    if (!is_plain(viv__str(e->valuestring)))
      return VIV_FAIL(
          error, VIV_BAD_INPUT, where,
          "weight_map names the shard '%s'; a plain file name of this folder is expected",
          viv__shown(shown, viv__str(e->valuestring)));
    uint32_t k = i ? shard[i - 1] : 0;
    if (k >= *count || strcmp(files[k], e->valuestring) != 0)
      for (k = 0; k < *count && strcmp(files[k], e->valuestring) != 0; k++) continue;
    if (k == *count) {
      if (k == MAX_SHARDS)
        return VIV_FAIL(error, VIV_BAD_INPUT, where, "weight_map names more than %d shards",
                        MAX_SHARDS);
      files[(*count)++] = e->valuestring;
    }
    shard[i++] = k;
  }
  return VIV_OK;
}

static int32_t open_shards(viv_checkpoint *c, const cJSON *map, uint32_t *shard, const char *where,
                           const char **files, viv_error *error) {
  uint32_t count = 0;
  int32_t status = list_shards(map, shard, where, files, &count, error);
  if (status < 0) return status;
  missing gone = {0};
  for (uint32_t k = 0; k < count; k++) {
    int32_t found = holds(c->dir, files[k]);
    if (found < 0)
      gone.text.failed = true;
    else if (!found)
      miss(&gone, files[k], NULL);
  }
  if ((status = miss_end(&gone, where, "shards are", error)) < 0) return status;
  for (uint32_t k = 0; k < count; k++)
    if ((status = add_part(c, files[k], error)) < 0) return status;
  if ((status = join(c, error)) < 0) return status;
  const cJSON *e;
  size_t i = 0;
  missing lost = {0};
  cJSON_ArrayForEach(e, map) {
    int64_t at = viv__names_find(&c->table, viv__str(e->string));
    if (at < 0 || c->refs[at].part != shard[i]) miss(&lost, e->string, files[shard[i]]);
    i++;
  }
  return miss_end(&lost, where, "tensors are not in the shards that the index names;", error);
}

/* {"weight_map": {tensor: file, ...}}. Reports all missing shards, then all missing tensors. */
static int32_t open_index(viv_checkpoint *c, const char *name, viv_error *error) {
  char *where = viv__path_join(c->dir, name), *text = NULL;
  size_t len = 0;
  if (!where) return no_memory(error, name);
  viv_json *document = NULL;
  int32_t status = viv__read_file(where, MAX_SIDE_FILE, &text, &len, error);
  if (status >= 0) status = viv__json_parse(text, len, where, &document, error);
  viv__free(text);
  if (status >= 0) {
    const viv_json *map = viv__json_get(document, "weight_map");
    int64_t n = viv__json_count(map);
    if (viv__json_type(map) != VIV_JSON_OBJECT || !n) {
      status = VIV_FAIL(error, VIV_BAD_INPUT, where,
                        "the index has no \"weight_map\" of tensor names to shards");
    } else {
      uint32_t *shard = viv__malloc((size_t)n * sizeof *shard);
      const char **files = viv__malloc(MAX_SHARDS * sizeof *files);
      status = shard && files ? open_shards(c, (const cJSON *)map, shard, where, files, error)
                              : no_memory(error, where);
      viv__free(shard);
      viv__free((void *)files);
    }
  }
  viv__json_free(document);
  viv__free(where);
  return status;
}

/* ---- the directory ---- */

/* Files that hold no weights, or not the model's: a trainer's state, a golden case's vectors. */
static bool is_other_state(const char *name) {
  static const char *const others[] = {"training_args.bin",  "optimizer.bin", "optimizer.pt",
                                       "optimizer.pth",      "scheduler.bin", "scheduler.pt",
                                       "scheduler.pth",      "scaler.pt",     "inputs.safetensors",
                                       "outputs.safetensors"};
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (!strcmp(name, others[i])) return true;
  return !strncmp(name, "rng_state", 9);
}

/* The files of one kind in a directory: how many there are and the first two by name. */
typedef struct found {
  int count;
  char first[NAME_MAX + 1], second[NAME_MAX + 1];
} found;

static void find_add(found *f, const char *name) {
  char copy[NAME_MAX + 1];
  snprintf(copy, sizeof copy, "%s", name);
  if (!f->count || strcmp(copy, f->first) < 0) {
    memcpy(f->second, f->first, sizeof copy);
    memcpy(f->first, copy, sizeof copy);
  } else if (f->count == 1 || strcmp(copy, f->second) < 0) {
    memcpy(f->second, copy, sizeof copy);
  }
  f->count++;
}

enum { SAFETENSORS, PICKLES, GGUFS, BUNDLES, KINDS };

static int32_t list_weights(const char *folder, found files[KINDS], viv_error *error) {
  DIR *d = opendir(folder);
  if (!d)
    return VIV_FAIL(error, VIV_BAD_INPUT, folder, "can't list the folder: %s", strerror(errno));
  int32_t status = VIV_OK;
  for (struct dirent *e; status >= 0 && (e = readdir(d));) {
    if (e->d_name[0] == '.') continue;
    bool st = ends_with(e->d_name, ".safetensors"), gguf = ends_with(e->d_name, ".gguf");
    bool pt =
        ends_with(e->d_name, ".pt") || ends_with(e->d_name, ".pth") || ends_with(e->d_name, ".bin");
    bool tf = ends_with(e->d_name, ".index");
    if ((!st && !pt && !gguf && !tf) || is_other_state(e->d_name)) continue;
    int32_t there = holds(folder, e->d_name);
    if (there < 0)
      status = no_memory(error, folder);
    else if (there)
      find_add(&files[st ? SAFETENSORS : gguf ? GGUFS : tf ? BUNDLES : PICKLES], e->d_name);
  }
  closedir(d);
  return status;
}

/* {"weight_files": {file: prefix, ..}} of config.json: a release whose networks lie in a file each. */
static int32_t open_named(viv_checkpoint *c, const viv_json *list, viv_error *error) {
  char where[VIV__PLACE], shown[VIV__SHOWN];
  const cJSON *e;
  viv__place(where, c->dir, "config.json, weight_files");
  if (viv__json_type(list) != VIV_JSON_OBJECT || !viv__json_count(list) ||
      viv__json_count(list) > MAX_SHARDS)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "must be an object of 1 to %d files, each with the prefix of its tensors",
                    MAX_SHARDS);
  cJSON_ArrayForEach(e, (const cJSON *)list) {
    bool whole = ends_with(e->string, ".gguf") || ends_with(e->string, ".json"); /* models alone */
    if (!cJSON_IsString(e) || whole || !is_plain(viv__str(e->string)) ||
        strlen(e->valuestring) > NAME_MAX)
      return VIV_FAIL(
          error, VIV_BAD_INPUT, where,
          "'%s' must be a safetensors or PyTorch file of this folder, with a prefix as text",
          viv__shown(shown, viv__str(e->string)));
    int32_t status = add_part(c, e->string, error);
    if (status < 0) return status;
    part *p = &c->parts[c->part_count - 1];
    if (*e->valuestring && !(p->prefix = viv__strdup(e->valuestring)))
      return no_memory(error, c->dir);
  }
  return join(c, error);
}

/* Opens what config.json names as weight_files. VIV_DONE: it names none. */
static int32_t open_weight_files(viv_checkpoint *c, viv_error *error) {
  viv_str text;
  viv_json *config = NULL;
  int32_t status = viv__checkpoint_read(c, "config.json", &text, NULL);
  if (status == VIV_NOT_NOW) return no_memory(error, c->dir);
  if (status < 0) return VIV_DONE;
  status = viv__json_parse(text.ptr, (size_t)text.len, "config.json", &config, error);
  const viv_json *list = status < 0 ? NULL : viv__json_get(config, "weight_files");
  if (status >= 0) status = list ? open_named(c, list, error) : VIV_DONE;
  viv__json_free(config);
  return status;
}

/* The directory's weights, safetensors before PyTorch's. None at all is fine: the caller may want
 * nothing but the side files. Several files without an index are not: no choice would be right. */
static int32_t open_weights(viv_checkpoint *c, viv_error *error) {
  static const struct {
    const char *index, *usual;
  } kinds[KINDS] = {{"model.safetensors.index.json", "model.safetensors"},
                    {"pytorch_model.bin.index.json", "pytorch_model.bin"},
                    {NULL, "model.gguf"},
                    {NULL, "model.ckpt.index"}};
  found files[KINDS] = {0};
  int32_t status = list_weights(c->dir, files, error);
  if (status < 0) return status;
  for (int k = 0; k < KINDS; k++) {
    int32_t there = kinds[k].index ? holds(c->dir, kinds[k].index) : 0;
    if (there < 0) return no_memory(error, c->dir);
    if (there) return open_index(c, kinds[k].index, error);
    there = holds(c->dir, kinds[k].usual);
    if (there < 0) return no_memory(error, c->dir);
    if (there || files[k].count == 1) {
      status = add_part(c, there ? kinds[k].usual : files[k].first, error);
      return status < 0 ? status : join(c, error);
    }
  }
  for (int k = GGUFS; k < KINDS; k++)
    if (files[k].count > 1)
      return VIV_FAIL(error, VIV_BAD_INPUT, c->dir,
                      "the folder holds %d %s (%.80s, %.80s%s): open one by its own path",
                      files[k].count, k == GGUFS ? "GGUF files" : "TensorFlow checkpoints",
                      files[k].first, files[k].second, files[k].count > 2 ? ", ..." : "");
  if (files[SAFETENSORS].count > 1 || files[PICKLES].count > 1) {
    status = open_weight_files(c, error);
    if (status != VIV_DONE) return status;
  }
  for (int k = 0; k < GGUFS; k++)
    if (files[k].count > 1)
      return VIV_FAIL(
          error, VIV_BAD_INPUT, c->dir,
          "the folder holds %d weight files (%.80s, %.80s%s) and no %s: add the index of "
          "the shards, name the files in config.json as weight_files, or open one by its own path",
          files[k].count, files[k].first, files[k].second, files[k].count > 2 ? ", ..." : "",
          kinds[k].index);
  return VIV_OK;
}

/* The snapshot folder of a Hugging Face cache folder "models--org--name": the one that refs/main
 * names, or the only one. *out stays NULL when path is not such a folder. */
static int32_t find_snapshot(const char *path, char **out, viv_error *error) {
  char *snapshots = viv__path_join(path, "snapshots"), *refs = viv__path_join(path, "refs/main");
  char *text = NULL, *taken = NULL;
  size_t len = 0;
  int32_t status = VIV_OK;
  if (!snapshots || !refs) {
    status = no_memory(error, path);
  } else if (is_folder(snapshots) && holds(path, "config.json") != 1) {
    if (is_file(refs)) {
      status = viv__read_file(refs, 4096, &text, &len, error);
      while (status >= 0 && len && strchr(" \r\n\t", text[len - 1])) len--;
      if (status >= 0 && !is_plain((viv_str){text, len}))
        status = VIV_FAIL(error, VIV_BAD_INPUT, refs, "this does not name a snapshot");
    } else {
      DIR *d = opendir(snapshots);
      int n = 0;
      for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        n++;
        viv__free(text);
        text = viv__strdup(e->d_name);
      }
      if (d) closedir(d);
      len = text ? strlen(text) : 0;
      if (n == 1 && !text)
        status = no_memory(error, path);
      else if (n != 1)
        status = VIV_FAIL(error, VIV_BAD_INPUT, path,
                          "a cache folder with %d snapshots and no refs/main: open one of its "
                          "snapshots by path",
                          n);
    }
    if (status >= 0) {
      char *name = viv__strndup(text, len);
      taken = name ? viv__path_join(snapshots, name) : NULL;
      viv__free(name);
      if (!taken) {
        status = no_memory(error, path);
      } else if (!is_folder(taken)) {
        status = VIV_FAIL(error, VIV_NEVER, taken,
                          "refs/main names this snapshot, which is not there: download it again");
        viv__free(taken);
      } else {
        *out = taken;
      }
    }
  }
  viv__free(snapshots);
  viv__free(refs);
  viv__free(text);
  return status;
}

/* Sets c->dir to the directory's real path. */
static int32_t set_dir(viv_checkpoint *c, const char *path, viv_error *error) {
  char resolved[PATH_MAX];
  if (!realpath(path, resolved))
    return VIV_FAIL(error, VIV_NEVER, path, "can't resolve the path: %s", strerror(errno));
  c->dir = viv__strdup(resolved);
  return c->dir ? VIV_OK : no_memory(error, path);
}

static int32_t open_folder(viv_checkpoint *c, const char *path, viv_error *error) {
  char *snapshot = NULL;
  int32_t status = find_snapshot(path, &snapshot, error);
  if (status >= 0) status = set_dir(c, snapshot ? snapshot : path, error);
  viv__free(snapshot);
  return status < 0 ? status : open_weights(c, error);
}

/* One file by its path: weights, or an index of shards. The folder is the link's when the path is a
 * symbolic link, since config.json lies beside the link. */
static int32_t open_file(viv_checkpoint *c, const char *path, viv_error *error) {
  const char *slash = strrchr(path, '/'), *file = slash ? slash + 1 : path;
  char *folder =
      slash ? viv__strndup(path, slash == path ? 1 : (size_t)(slash - path)) : viv__strdup(".");
  if (!folder) return no_memory(error, path);
  int32_t status = set_dir(c, folder, error);
  viv__free(folder);
  if (status < 0) return status;
  if (ends_with(file, ".index.json")) return open_index(c, file, error);
  status = add_part(c, file, error);
  c->alone = c->gguf || c->tfjs;
  return status < 0 ? status : join(c, error);
}

static int32_t read_config(viv_checkpoint *c, viv_error *error) {
  viv_str text;
  int32_t status = viv__checkpoint_read(c, "config.json", &text, error);
  /* A folder that only prepares inputs is still a model: its processor's file says which. */
  const char *file = status == VIV_NEVER ? "preprocessor_config.json" : "config.json";
  if (status == VIV_NEVER) status = viv__checkpoint_read(c, file, &text, NULL);
  if (status == VIV_NEVER) return VIV_OK;
  if (status < 0) return status;
  char *where = viv__path_join(c->dir, file);
  if (!where) return no_memory(error, c->dir);
  status = viv__json_parse(text.ptr, (size_t)text.len, where, &c->config, error);
  if (status >= 0 && viv__json_type(c->config) != VIV_JSON_OBJECT)
    status = VIV_FAIL(error, VIV_BAD_INPUT, where, "the configuration must be a JSON object");
  viv__free(where);
  return status;
}

/* What a PyTorch file says beside its tensors (a release's own configuration, names of its classes)
 * stands in the configuration under "checkpoint". */
static int32_t add_values(viv_checkpoint *c, viv_error *error) {
  const viv__pickle *p = c->part_count == 1 ? c->parts[0].pickle : NULL;
  const viv_json *values = p ? viv__pickle_values(p) : NULL;
  /* A release of nothing but weights: some plugin may know them by their names. */
  if (p && !values && !c->config && !(c->config = (viv_json *)cJSON_CreateObject()))
    return no_memory(error, c->dir);
  if (!values || viv__json_get(c->config, "checkpoint")) return VIV_OK;
  if (!c->config) c->config = (viv_json *)cJSON_CreateObject();
  cJSON *copy = c->config ? cJSON_Duplicate((const cJSON *)values, 1) : NULL;
  if (copy && cJSON_AddItemToObject((cJSON *)c->config, "checkpoint", copy)) return VIV_OK;
  cJSON_Delete(copy);
  return no_memory(error, c->dir);
}

int32_t viv__checkpoint_open(const char *path, viv_checkpoint **out, viv_error *error) {
  struct stat st;
  if (stat(path, &st) != 0)
    return VIV_FAIL(error, VIV_NEVER, path, "no model here: %s", strerror(errno));
  if (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))
    return VIV_FAIL(error, VIV_BAD_INPUT, path, "a model must be a folder or a regular file");
  viv_checkpoint *c = viv__calloc(1, sizeof *c);
  if (!c) return no_memory(error, path);
  c->side = viv__calloc(1, sizeof *c->side);
  int32_t status = VIV_OK;
  if (!c->side)
    status = no_memory(error, path);
  else
    pthread_mutex_init(&c->side->lock, NULL);
  if (status >= 0)
    status = S_ISDIR(st.st_mode) ? open_folder(c, path, error) : open_file(c, path, error);
  if (status >= 0) status = read_config(c, error);
  if (status >= 0) status = add_values(c, error);
  if (status < 0) {
    viv__checkpoint_close(c);
    return status;
  }
  *out = c;
  return VIV_OK;
}

void viv__checkpoint_close(viv_checkpoint *c) {
  if (!c) return;
  viv__names_free(&c->table);
  for (uint32_t i = 0; i < c->part_count; i++) {
    viv__safetensors_close(c->parts[i].safetensors);
    viv__pickle_close(c->parts[i].pickle);
    viv__gguf_close(c->parts[i].gguf);
    viv__tfjs_close(c->parts[i].tfjs);
    viv__tfbundle_close(c->parts[i].tfbundle);
    viv__free(c->parts[i].file);
    viv__free(c->parts[i].prefix);
  }
  viv__free(c->parts);
  viv__free(c->names);
  viv__free(c->prefixed);
  viv__free(c->refs);
  viv__json_free(c->config);
  if (c->side) {
    for (side_file *f = c->side->first, *next; f; f = next) {
      next = f->next;
      viv__json_free(f->document);
      viv__free(f->name);
      viv__free(f->text);
      viv__free(f);
    }
    pthread_mutex_destroy(&c->side->lock);
    viv__free(c->side);
  }
  viv__free(c->dir);
  viv__free(c);
}

const char *viv__checkpoint_dir(const viv_checkpoint *c) {
  return c->dir;
}

const char *viv__checkpoint_folder(const viv_checkpoint *c) {
  return c->alone ? NULL : c->dir;
}

const viv_json *viv__checkpoint_config(const viv_checkpoint *c) {
  return c->config;
}

/* ---- side files ---- */

/* What the weights' own file says in the place of that side file. */
static int32_t side_of_weights(const viv_checkpoint *c, viv_str name, side_file *f,
                               viv_error *error) {
  viv__buf text = {0};
  int32_t status = c->gguf ? viv__gguf_side(c->gguf, name, &text, error)
                           : viv__tfjs_side(c->tfjs, name, &text, error);
  if (status < 0) {
    viv__buf_free(&text);
    return status;
  }
  f->text = text.ptr;
  f->len = text.len;
  return VIV_OK;
}

static int32_t side_of_folder(const viv_checkpoint *c, side_file *f, viv_error *error) {
  char *path = viv__path_join(c->dir, f->name);
  struct stat st;
  int32_t status = VIV_OK;
  if (!path)
    status = no_memory(error, c->dir);
  else if (stat(path, &st) != 0)
    status = VIV_FAIL(error, VIV_NEVER, path, "the model has no such file: %s", strerror(errno));
  else if (!S_ISREG(st.st_mode))
    status = VIV_FAIL(error, VIV_BAD_INPUT, path, "a side file must be a regular file");
  else
    status = viv__read_file(path, MAX_SIDE_FILE, &f->text, &f->len, error);
  viv__free(path);
  return status;
}

/* With the lock held: the side file of that name, read when this is the first time. A GGUF file's
 * own metadata counts before what lies beside it in its folder. */
static int32_t side_get(const viv_checkpoint *c, viv_str name, side_file **out, viv_error *error) {
  /* The one file in a subfolder that official releases keep beside the model. */
  if (!is_plain(name) && !viv__str_eq(name, "1_Pooling/config.json")) {
    char shown[VIV__SHOWN];
    return VIV_FAIL(error, VIV_BAD_INPUT, c->dir,
                    "'%s' is not a plain file name of the model's folder", viv__shown(shown, name));
  }
  for (side_file *f = c->side->first; f; f = f->next) {
    if (viv__str_eq(name, f->name)) {
      *out = f;
      return VIV_OK;
    }
  }
  side_file *f = viv__calloc(1, sizeof *f);
  if (f) f->name = viv__strndup(name.ptr, (size_t)name.len);
  int32_t status = f && f->name ? VIV_NEVER : no_memory(error, c->dir);
  if (status == VIV_NEVER && c->gguf) status = side_of_weights(c, name, f, error);
  if (status == VIV_NEVER && !c->alone) /* why the metadata serves not, is the better answer */
    status = side_of_folder(c, f, c->gguf || c->tfjs ? NULL : error);
  if (status == VIV_NEVER && c->tfjs) status = side_of_weights(c, name, f, error);
  if (status < 0) {
    if (f) viv__free(f->name);
    viv__free(f);
    return status;
  }
  f->next = c->side->first;
  c->side->first = f;
  *out = f;
  return VIV_OK;
}

int32_t viv__checkpoint_read(viv_checkpoint *c, const char *name, viv_str *out, viv_error *error) {
  side_file *f = NULL;
  pthread_mutex_lock(&c->side->lock);
  int32_t status = side_get(c, viv__str(name), &f, error);
  pthread_mutex_unlock(&c->side->lock);
  if (status < 0) return status;
  *out = (viv_str){f->text, f->len};
  return VIV_OK;
}

const viv_json *viv__checkpoint_file(const viv_checkpoint *c, viv_str name) {
  if (viv__str_eq(name, "config.json")) return c->config;
  side_file *f = NULL;
  pthread_mutex_lock(&c->side->lock);
  int32_t status = side_get(c, name, &f, NULL);
  if (status >= 0 && !f->parsed) {
    f->parsed = viv__json_parse(f->text, f->len, f->name, &f->document, NULL) != VIV_NOT_NOW;
  }
  pthread_mutex_unlock(&c->side->lock);
  return status < 0 ? NULL : f->document;
}

/* ---- tensors ---- */

int64_t viv__tensor_count(const viv_checkpoint *c) {
  return c->count;
}

int32_t viv__tensor_at(const viv_checkpoint *c, int64_t index, viv_str *name, viv_tensor *out) {
  if (index < 0 || index >= c->count) return VIV_NEVER;
  viv_str own; /* without the prefix */
  int32_t status = part_at(&c->parts[c->refs[index].part], c->refs[index].index, &own, out);
  if (name) *name = c->names[index];
  return status;
}

int32_t viv__tensor_find(const viv_checkpoint *c, viv_str name, viv_tensor *out) {
  return viv__tensor_at(c, viv__names_find(&c->table, name), NULL, out);
}

uint64_t viv__checkpoint_bytes(const viv_checkpoint *c) {
  return c->bytes;
}

/* ---- the id ---- */

static void hash_number(SHA2_CTX *h, uint64_t value) {
  uint8_t bytes[8];
  for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)(value >> 8 * i);
  SHA256Update(h, bytes, sizeof bytes);
}

/* Three short samples of a tensor's data: a fine-tune that left a file's ends alone still shows. */
static void hash_samples(SHA2_CTX *h, const viv_tensor *t) {
  enum { SAMPLE = 64 };
  const uint8_t *data = t->data;
  size_t n = t->bytes < SAMPLE ? (size_t)t->bytes : SAMPLE;
  if (!n) return;
  SHA256Update(h, data, n);
  SHA256Update(h, data + (t->bytes - n) / 2, n);
  SHA256Update(h, data + (t->bytes - n), n);
}

void viv__checkpoint_id(const viv_checkpoint *c, char out[65]) {
  SHA2_CTX h;
  SHA256Init(&h);
  for (uint32_t i = 0; i < c->part_count; i++) {
    const viv__map *map = part_map(&c->parts[i]);
    size_t n = map->len < ENDS ? map->len : ENDS;
    hash_number(&h, map->len);
    SHA256Update(&h, map->data, n);
    SHA256Update(&h, map->data + (map->len - n), n);
  }
  for (int64_t i = 0; i < c->count; i++) {
    viv_str name;
    viv_tensor t;
    viv__tensor_at(c, i, &name, &t);
    hash_number(&h, name.len);
    SHA256Update(&h, (const uint8_t *)name.ptr, name.len);
    hash_number(&h, (uint64_t)t.dtype);
    hash_number(&h, (uint64_t)t.ndim);
    for (int32_t d = 0; d < t.ndim; d++) hash_number(&h, (uint64_t)t.shape[d]);
    hash_number(&h, t.bytes);
    hash_samples(&h, &t);
  }
  uint8_t digest[SHA256_DIGEST_LENGTH];
  SHA256Final(digest, &h);
  for (int i = 0; i < SHA256_DIGEST_LENGTH; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}
