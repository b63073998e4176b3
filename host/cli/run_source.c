/* The pictures that a command line names: files, folders, globs, and frames in a pipe. */
#include <dirent.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run.h"

enum { FILE_LIMIT = 1 << 30, MAX_FRAME_SIDE = 32768 };

struct viv__picture_source {
  char **paths;
  int64_t n, at;
  bool pipe;
  int32_t frame_w, frame_h; /* of raw frames; 0: files in the pipe */
};

static bool is_folder(const char *path) {
  struct stat s;
  return !stat(path, &s) && S_ISDIR(s.st_mode);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_picture(const struct dirent *e) {
  return viv__media_kind(e->d_name) == VIV_KIND_IMAGE;
}

static void add_path(viv__picture_source *s, char *path) {
  s->paths = viv__need(viv__realloc(s->paths, (size_t)(s->n + 1) * sizeof *s->paths));
  s->paths[s->n++] = path;
}

/* Adds a folder's pictures in the order of their names; answers how many. */
static int add_folder(viv__picture_source *s, const char *folder) {
  struct dirent **entries = NULL;
  int n = scandir(folder, &entries, is_picture, by_name);
  for (int i = 0; i < n; i++) {
    add_path(s, viv__need(viv__path_join(folder, entries[i]->d_name)));
    free(entries[i]);
  }
  free(entries);
  return n;
}

static int add_glob(viv__picture_source *s, const char *pattern) {
  glob_t found;
  int n = 0;
  if (!strpbrk(pattern, "*?[") || glob(pattern, 0, NULL, &found)) return 0;
  for (size_t i = 0; i < found.gl_pathc; i++)
    if (viv__media_kind(found.gl_pathv[i]) == VIV_KIND_IMAGE) {
      add_path(s, viv__need(viv__strdup(found.gl_pathv[i])));
      n++;
    }
  globfree(&found);
  return n;
}

bool viv__pictures_named(const char *const *args, int n) {
  viv__picture_source s = {0};
  bool named = false;
  for (int i = 0; i < n && !named; i++) {
    named = viv__media_kind(args[i]) == VIV_KIND_IMAGE && !strpbrk(args[i], " \n");
    if (!access(args[i], F_OK))
      named = is_folder(args[i]) ? add_folder(&s, args[i]) > 0
                                 : viv__media_kind(args[i]) == VIV_KIND_IMAGE;
    else if (!named)
      named = add_glob(&s, args[i]) > 0;
  }
  for (int64_t i = 0; i < s.n; i++) viv__free(s.paths[i]);
  viv__free(s.paths);
  return named;
}

static int32_t add_argument(viv__picture_source *s, const char *arg, viv_error *error) {
  if (!access(arg, F_OK)) {
    if (!is_folder(arg)) {
      add_path(s, viv__need(viv__strdup(arg)));
      return VIV_OK;
    }
    if (add_folder(s, arg) > 0) return VIV_OK;
    return VIV_FAIL(error, VIV_NEVER, arg, "the folder holds no picture");
  }
  if (add_glob(s, arg) > 0) return VIV_OK;
  if (strpbrk(arg, "*?[")) return VIV_FAIL(error, VIV_NEVER, arg, "no picture has such a name");
  add_path(s, viv__need(viv__strdup(arg))); /* fails in its turn, so that the others are done */
  return VIV_OK;
}

static int32_t read_frame_size(viv__picture_source *s, const char *frames, viv_error *error) {
  int end = 0;
  if (sscanf(frames, "%dx%d%n", &s->frame_w, &s->frame_h, &end) != 2 || frames[end] ||
      s->frame_w < 1 || s->frame_h < 1 || s->frame_w > MAX_FRAME_SIDE ||
      s->frame_h > MAX_FRAME_SIDE)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--frames",
                    "\"%s\" is no size like 640x480 with sides of 1 to %d", frames, MAX_FRAME_SIDE);
  return VIV_OK;
}

int32_t viv__source_open(const char *const *args, int n, const char *frames,
                         viv__picture_source **out, viv_error *error) {
  viv__picture_source *s = viv__need(viv__calloc(1, sizeof *s));
  int32_t status = VIV_OK;
  s->pipe = n == 0 || (n == 1 && !strcmp(args[0], "-"));
  if (frames && !s->pipe)
    status = VIV_FAIL(error, VIV_BAD_INPUT, "--frames", "raw frames come through a pipe: \"-\"");
  else if (frames)
    status = read_frame_size(s, frames, error);
  for (int i = 0; i < n && !s->pipe && status >= 0; i++) status = add_argument(s, args[i], error);
  if (status < 0)
    viv__source_close(s);
  else
    *out = s;
  return status;
}

int64_t viv__source_count(const viv__picture_source *s) {
  return s->pipe ? -1 : s->n;
}

/* Raw frames of RGB bytes, one after another. */
static int32_t next_raw(viv__picture_source *s, viv__picture_item *item, viv_error *error) {
  size_t bytes = (size_t)s->frame_w * (size_t)s->frame_h * 3, have;
  item->raw = (viv__picture){.width = s->frame_w,
                             .height = s->frame_h,
                             .channels = 3,
                             .data = viv__need(viv__malloc(bytes)),
                             .format = "frame",
                             .owned = true};
  have = fread(item->raw.data, 1, bytes, stdin);
  if (have == bytes) return VIV_OK;
  viv__picture_free(&item->raw);
  if (!have) return VIV_DONE;
  return VIV_FAIL(error, VIV_BAD_INPUT, item->name,
                  "the pipe ends in the middle of a frame: %zu of %zu bytes", have, bytes);
}

int32_t viv__source_next(viv__picture_source *s, viv__picture_item *item, viv_error *error) {
  memset(item, 0, sizeof *item);
  if (!s->pipe) {
    if (s->at == s->n) return VIV_DONE;
    item->name = viv__need(viv__strdup(s->paths[s->at++]));
    return viv__read_file(item->name, FILE_LIMIT, &item->bytes, &item->len, error);
  }
  if (s->at < 0) return VIV_DONE; /* after a broken frame nothing in the pipe can be trusted */
  item->frame = ++s->at;
  item->name = viv__textf("frame %lld", (long long)item->frame);
  viv__buf b = {0};
  int32_t status = s->frame_w ? next_raw(s, item, error) : viv__frame_read(stdin, &b, error);
  if (status == VIV_OK && !s->frame_w) {
    item->bytes = b.ptr;
    item->len = b.len;
    return VIV_OK;
  }
  viv__buf_free(&b);
  if (status < 0) s->at = -1;
  if (status == VIV_DONE) viv__item_free(item);
  return status;
}

void viv__source_close(viv__picture_source *s) {
  if (!s) return;
  for (int64_t i = 0; i < s->n; i++) viv__free(s->paths[i]);
  viv__free(s->paths);
  viv__free(s);
}

void viv__item_free(viv__picture_item *item) {
  free(item->name);
  viv__free(item->bytes);
  viv__picture_free(&item->raw);
  memset(item, 0, sizeof *item);
}
