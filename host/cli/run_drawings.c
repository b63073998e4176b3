/* Where --draw puts its pictures: one file, or a folder with one for each of several. */
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/run.h"

int32_t viv__drawings_open(viv__drawings *d, const char *to, int64_t count, const char *what,
                           viv_error *error) {
  struct stat s;
  *d = (viv__drawings){.to = to};
  if (!to) return VIV_OK;
  size_t len = strlen(to);
  bool folder = (!stat(to, &s) && S_ISDIR(s.st_mode)) || (len && to[len - 1] == '/');
  bool png = len > 4 && !strcasecmp(to + len - 4, ".png");
  d->folder = folder || (count != 1 && !png);
  if (count != 1 && !d->folder)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--draw",
                    "several %s are drawn into a folder; \"%s\" names one file", what, to);
  if (!d->folder && !png)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--draw", "\"%s\" should end with .png", to);
  if (d->folder && mkdir(to, 0777) && errno != EEXIST)
    return VIV_FAIL(error, VIV_NEVER, to, "the folder can't be made: %s", strerror(errno));
  return VIV_OK;
}

char *viv__path_in(viv__drawings *d, const char *folder, const char *file, const char *kind) {
  const char *name = strrchr(file, '/') ? strrchr(file, '/') + 1 : file, *dot = strrchr(name, '.');
  size_t stem = dot && dot > name ? (size_t)(dot - name) : strlen(name);
  char *path = viv__textf("%s/%.*s.%s", folder, (int)stem, name, kind);
  for (int64_t i = 0; i < d->n; i++)
    if (!strcmp(d->names[i], path)) {
      viv__free(path);
      path = viv__textf("%s/%s.%s", folder, name, kind);
      break;
    }
  d->names = viv__need(viv__realloc(d->names, (size_t)(d->n + 1) * sizeof *d->names));
  d->names[d->n++] = viv__need(viv__strdup(path));
  return path;
}

int32_t viv__drawings_put(viv__drawings *d, const char *file, const viv__picture *p,
                          viv_error *error) {
  viv__buf png = {0};
  int32_t status = viv__png_encode(&png, p->data, p->width, p->height, 3, 8, error);
  if (status >= 0) {
    char *path = d->folder ? viv__path_in(d, d->to, file, "png") : viv__need(viv__strdup(d->to));
    status = viv__write_file(path, png.ptr, png.len, error);
    viv__free(path);
  }
  viv__buf_free(&png);
  return status;
}

void viv__drawings_free(viv__drawings *d) {
  for (int64_t i = 0; i < d->n; i++) viv__free(d->names[i]);
  viv__free(d->names);
  *d = (viv__drawings){0};
}
