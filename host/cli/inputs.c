/* Files and texts of the command line as inputs of a job. */
#include "cli/cli.h"

#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"

enum { FILE_LIMIT = 1 << 30 };

viv__input *viv__inputs_add(viv__input_list *list, const char *name, int32_t kind) {
  list->items = viv__need(viv__realloc(list->items, (size_t)(list->n + 1) * sizeof *list->items));
  viv__input *in = &list->items[list->n++];
  memset(in, 0, sizeof *in);
  in->name = viv__need(viv__strdup(name));
  in->value.struct_size = sizeof in->value;
  in->value.kind = kind;
  return in;
}

void viv__inputs_bytes(viv__input *in, char *bytes, size_t len) {
  in->bytes = bytes;
  in->value.bytes = (viv_str){bytes, len};
}

void viv__inputs_tensor(viv__input *in, viv_tensor tensor) {
  in->tensor = tensor;
  in->value.kind = VIV_KIND_TENSOR;
}

void viv__inputs_free(viv__input_list *list) {
  for (int i = 0; i < list->n; i++) {
    viv__free(list->items[i].name);
    viv__free(list->items[i].bytes);
    viv__tensor_drop(&list->items[i].tensor);
  }
  viv__free(list->items);
  memset(list, 0, sizeof *list);
}

/* The list may have moved while it grew, so the inner pointers are set here, at the end. */
const viv_value **viv__inputs_values(const viv__input_list *list) {
  const viv_value **values = viv__need(viv__calloc((size_t)list->n, sizeof *values));
  for (int i = 0; i < list->n; i++) {
    viv__input *in = &list->items[i];
    in->value.name = viv__str(in->name);
    if (in->value.kind == VIV_KIND_TENSOR) in->value.tensor = &in->tensor;
    values[i] = &in->value;
  }
  return values;
}

static bool ends_with(const char *path, const char *extension) {
  size_t a = strlen(path), b = strlen(extension);
  return a > b && !strcasecmp(path + a - b, extension);
}

int32_t viv__media_kind(const char *path) {
  static const char *const images[] = {".png", ".jpg", ".jpeg", ".bmp", ".ppm",
                                       ".pgm", ".pbm", ".pnm",  ".gif", ".webp"};
  static const char *const sounds[] = {".wav", ".flac", ".mp3", ".ogg", ".opus"};
  for (size_t i = 0; i < sizeof images / sizeof *images; i++)
    if (ends_with(path, images[i])) return VIV_KIND_IMAGE;
  for (size_t i = 0; i < sizeof sounds / sizeof *sounds; i++)
    if (ends_with(path, sounds[i])) return VIV_KIND_AUDIO;
  return 0;
}

/* FILE.safetensors or FILE.safetensors:TENSOR. */
static int32_t add_tensor(viv__input_list *list, const char *name, const char *path,
                          viv_error *error) {
  static const char extension[] = ".safetensors";
  const char *cut = strstr(path, ".safetensors:");
  size_t len = cut ? (size_t)(cut - path) + sizeof extension - 1 : strlen(path);
  char *file = viv__need(viv__strndup(path, len));
  const char *wanted = cut ? path + len + 1 : name;
  viv__safetensors *s = NULL;
  viv_tensor t = {.struct_size = sizeof t};
  viv_str found;
  int32_t status = viv__safetensors_open(file, &s, error);
  if (status >= 0 && viv__safetensors_find(s, viv__str(wanted), &t) < 0) {
    if (!cut && viv__safetensors_count(s) == 1)
      status = viv__safetensors_at(s, 0, &found, &t);
    else
      status = VIV_FAIL(error, VIV_BAD_INPUT, path, "the file holds no tensor \"%s\"", wanted);
  }
  if (status >= 0)
    viv__inputs_tensor(viv__inputs_add(list, name, VIV_KIND_TENSOR), viv__tensor_copy(&t));
  viv__safetensors_close(s);
  viv__free(file);
  return status;
}

int32_t viv__inputs_file(viv__input_list *list, const char *name, const char *path,
                         viv_error *error) {
  if (strstr(path, ".safetensors:") || ends_with(path, ".safetensors"))
    return add_tensor(list, name, path, error);
  int32_t kind = viv__media_kind(path);
  if (!kind && ends_with(path, ".json")) kind = VIV_KIND_JSON;
  if (!kind && (ends_with(path, ".txt") || ends_with(path, ".md"))) kind = VIV_KIND_TEXT;
  if (!kind)
    return VIV_FAIL(error, VIV_BAD_INPUT, path,
                    "the name's end does not tell what the file is; known are .png .jpg .wav .flac "
                    ".json .txt .safetensors");
  char *bytes = NULL;
  size_t len = 0;
  int32_t status = viv__read_file(path, FILE_LIMIT, &bytes, &len, error);
  if (status < 0) return status;
  viv__inputs_bytes(viv__inputs_add(list, name, kind), bytes, len);
  return VIV_OK;
}

int32_t viv__inputs_pair(viv__input_list *list, const char *pair, viv_error *error) {
  const char *equals = strchr(pair, '=');
  if (!equals || equals == pair)
    return VIV_FAIL(error, VIV_BAD_INPUT, pair, "--input wants NAME=FILE or NAME=@TEXT");
  char *name = viv__need(viv__strndup(pair, (size_t)(equals - pair)));
  int32_t status = VIV_OK;
  if (equals[1] == '@') {
    char *text = viv__need(viv__strdup(equals + 2));
    viv__inputs_bytes(viv__inputs_add(list, name, VIV_KIND_TEXT), text, strlen(text));
  } else {
    status = viv__inputs_file(list, name, equals + 1, error);
  }
  viv__free(name);
  return status;
}
