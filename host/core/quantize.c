/* A checkpoint with its matrices in another form: tensor by tensor, so that the largest one decides
 * how much memory it takes. */
#include "core/quantize.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "compute/quant.h"

enum {
  SMALLEST = 4096,    /* elements of a matrix that is worth it */
  CHUNK = 1 << 20,    /* elements that are floats at a time */
  MAX_SIDE = 64 << 20 /* bytes of a side file */
};

int32_t viv__quantize_dtype(const char *name, const char *group, int32_t *dtype, viv_error *error) {
  static const struct {
    const char *name, *group;
    int32_t dtype;
  } forms[] = {{"int8", "32", VIV_Q8_0},       {"int8", "128", VIV_INT8_G128},
               {"int8", "row", VIV_INT8_ROW},  {"int4", "32", VIV_Q4_1},
               {"int4", "128", VIV_INT4_G128}, {"q8_0", "32", VIV_Q8_0},
               {"q4_0", "32", VIV_Q4_0},       {"q4_1", "32", VIV_Q4_1},
               {"f16", NULL, VIV_F16},         {"bf16", NULL, VIV_BF16}};
  bool known = false;
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (strcmp(name, forms[i].name) != 0) continue;
    known = true;
    if (group && (!forms[i].group || strcmp(group, forms[i].group) != 0)) continue;
    *dtype = forms[i].dtype;
    return VIV_OK;
  }
  if (known)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--group",
                    "%s has no groups of %s: int8 has 32, 128 and row, int4 has 32 and 128", name,
                    group);
  return VIV_FAIL(error, VIV_BAD_INPUT, "--dtype",
                  "\"%s\" is none of int8, int4, q8_0, q4_0, q4_1, f16, bf16", name);
}

/* ---- tensors ---- */

typedef struct work {
  viv_model *m;
  viv__recorder *recorder;
  viv__quantize_plan *plan;
  int64_t n;
  viv_str *names;
  viv_tensor *from, *to; /* [n] */
  viv_arena *arena;      /* a chunk's floats */
  void *made;            /* the tensor in its new form */
  uint64_t made_cap;
  double done;
} work;

static int64_t rows_of(const viv_tensor *t) {
  int64_t rows = 1;
  for (int32_t i = 0; i + 1 < t->ndim; i++) rows *= t->shape[i];
  return rows;
}

/* Bytes of a row in a dtype; 0: impossible. */
static uint64_t row_bytes(int32_t dtype, int64_t columns) {
  if (viv__is_block(dtype) && columns > VIV__BLOCK_COLS) return 0;
  return viv__row_bytes(dtype, columns);
}

/* What the tensor will be written as. */
static viv_tensor target(const work *w, const viv_tensor *from) {
  viv_tensor to = *from;
  int32_t dtype = w->plan->dtype;
  bool number = from->dtype == VIV_F32 || from->dtype == VIV_F64 || from->dtype == VIV_F16 ||
                from->dtype == VIV_BF16 || viv__is_block(from->dtype);
  if (!number || from->ndim < 2 || from->dtype == dtype || !viv__recorded(w->recorder, from))
    return to;
  int64_t rows = rows_of(from), columns = from->shape[from->ndim - 1];
  uint64_t bytes = row_bytes(dtype, columns);
  if (!bytes || rows * columns < SMALLEST) return to;
  to.dtype = dtype;
  to.bytes = bytes * (uint64_t)rows;
  return to;
}

typedef struct rows_job {
  int32_t dtype;
  const float *x, *importance;
  uint8_t *to;
  int64_t columns;
  uint64_t row_bytes;
  const viv_compute *c;
} rows_job;

static void quantize_rows(void *ctx, int64_t begin, int64_t end) {
  const rows_job *j = ctx;
  for (int64_t r = begin; r < end; r++) {
    const float *x = j->x + r * j->columns;
    uint8_t *to = j->to + (uint64_t)r * j->row_bytes;
    if (viv__is_block(j->dtype))
      viv__quantize_row(j->dtype, x, j->importance, to, j->columns);
    else
      j->c->store(j->c, j->dtype, x, to, j->columns);
  }
}

static int32_t told(const work *w, double part, viv_error *error) {
  if (!w->plan->progress || w->plan->progress(w->plan->self, part)) return VIV_OK;
  return VIV_FAIL(error, VIV_CANCELLED, "quantize", "stopped; nothing was written");
}

/* Tensor i in its new form, for the writer. */
static int32_t make(void *ctx, int64_t i, const void **data, viv_error *error) {
  work *w = ctx;
  const viv_tensor *from = &w->from[i], *to = &w->to[i];
  const viv_compute *c = w->m->rt->compute;
  double part = (double)from->bytes / (double)(w->plan->bytes_before + 1);
  *data = from->data;
  if (from->dtype != to->dtype) {
    if (to->bytes > w->made_cap) {
      viv__free(w->made);
      w->made = viv__malloc(to->bytes);
      w->made_cap = w->made ? to->bytes : 0;
    }
    int64_t rows = rows_of(from), columns = from->shape[from->ndim - 1];
    int64_t chunk = columns < CHUNK ? CHUNK / columns : 1;
    uint64_t step = from->bytes / (uint64_t)rows;
    rows_job j = {
        .dtype = to->dtype, .columns = columns, .row_bytes = to->bytes / (uint64_t)rows, .c = c};
    if (w->plan->important) j.importance = viv__recorded_inputs(w->recorder, from);
    for (int64_t r = 0; r < rows && w->made; r += chunk) {
      int64_t n = rows - r < chunk ? rows - r : chunk;
      viv_tensor view = {.struct_size = sizeof view,
                         .flags = VIV_TENSOR_READ_ONLY,
                         .data = (char *)from->data + (uint64_t)r * step,
                         .bytes = (uint64_t)n * step,
                         .dtype = from->dtype,
                         .ndim = 2,
                         .shape = {n, columns}};
      viv__arena_reset(w->arena);
      j.x = c->floats(c, w->arena, &view);
      j.to = (uint8_t *)w->made + (uint64_t)r * j.row_bytes;
      if (!j.x) return VIV_FAIL(error, VIV_NOT_NOW, "quantize", "no memory for a part of a tensor");
      c->parallel_for(c, n, 1, quantize_rows, &j);
      int32_t status = told(w, w->done + part * (double)(r + n) / (double)rows, error);
      if (status < 0) return status;
    }
    if (!w->made) return VIV_FAIL(error, VIV_NOT_NOW, "quantize", "no memory for a tensor");
    *data = w->made;
  }
  w->done += part;
  return told(w, w->done, error);
}

static int32_t write_weights(work *w, const char *dst, viv_error *error) {
  const viv_checkpoint *checkpoint = w->m->checkpoint;
  viv__quantize_plan *p = w->plan;
  w->n = viv__tensor_count(checkpoint);
  w->names = viv__calloc((size_t)w->n, sizeof *w->names);
  w->from = viv__calloc((size_t)w->n, sizeof *w->from);
  w->to = viv__calloc((size_t)w->n, sizeof *w->to);
  w->arena = viv__arena_new(0);
  char *path = viv__path_join(dst, "model.safetensors");
  int32_t status = VIV_OK;
  p->bytes_before = p->bytes_after = 0;
  p->taken = p->kept = 0;
  if (!w->names || !w->from || !w->to || !w->arena || !path)
    status = VIV_FAIL(error, VIV_NOT_NOW, dst, "no memory for the list of tensors");
  for (int64_t i = 0; i < w->n && status >= 0; i++) {
    viv__tensor_at(checkpoint, i, &w->names[i], &w->from[i]);
    w->to[i] = target(w, &w->from[i]);
    p->bytes_before += w->from[i].bytes;
    p->bytes_after += w->to[i].bytes;
    *(w->to[i].dtype == w->from[i].dtype ? &p->kept : &p->taken) += 1;
  }
  if (status >= 0) status = viv__safetensors_make(path, w->names, w->to, w->n, make, w, error);
  viv__free(path);
  viv__free(w->names);
  viv__free(w->from);
  viv__free(w->to);
  viv__free(w->made);
  viv__arena_free(w->arena);
  return status;
}

/* ---- side files ---- */

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), k = strlen(end);
  return n >= k && !strcmp(text + n - k, end);
}

static bool is_weights(const char *name) {
  static const char *const ends[] = {".safetensors", ".bin",  ".pt",        ".pth",
                                     ".gguf",        ".ckpt", ".index.json"};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    if (ends_with(name, ends[i])) return true;
  return false;
}

static int32_t write_side(const char *dst, const char *name, const char *text, size_t len,
                          viv_error *error) {
  char *path = viv__path_join(dst, name);
  if (!path) return VIV_FAIL(error, VIV_NOT_NOW, dst, "no memory");
  int32_t status = viv__write_file(path, text, len, error);
  viv__free(path);
  return status;
}

/* The files that every reader of the model asks for come from the checkpoint, since a GGUF file has
 * them inside; the folder's others are copied. */
static int32_t copy_sides(viv_model *m, const char *dst, viv_error *error) {
  static const char *const usual[] = {"config.json", "tokenizer.json", "tokenizer_config.json",
                                      "chat_template.jinja"};
  enum { USUAL = sizeof usual / sizeof *usual };
  int32_t status = VIV_OK;
  for (size_t i = 0; i < USUAL && status >= 0; i++) {
    viv_str text;
    if (viv__checkpoint_read(m->checkpoint, usual[i], &text, NULL) >= 0)
      status = write_side(dst, usual[i], text.ptr, text.len, error);
  }
  const char *folder = viv__checkpoint_folder(m->checkpoint);
  DIR *d = folder ? opendir(folder) : NULL;
  for (struct dirent *e; d && status >= 0 && (e = readdir(d));) {
    bool done = *e->d_name == '.' || is_weights(e->d_name);
    for (size_t i = 0; i < USUAL; i++) done |= !strcmp(e->d_name, usual[i]);
    char *path = done ? NULL : viv__path_join(folder, e->d_name), *text = NULL;
    size_t len = 0;
    struct stat st;
    if (path && stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= MAX_SIDE) {
      status = viv__read_file(path, MAX_SIDE, &text, &len, error);
      if (status >= 0) status = write_side(dst, e->d_name, text, len, error);
    }
    viv__free(text);
    viv__free(path);
  }
  if (d) closedir(d);
  return status;
}

/* Makes the folder; one that holds something is left alone. */
static int32_t make_folder(const char *dst, viv_error *error) {
  if (mkdir(dst, 0777) == 0) return VIV_OK;
  if (errno != EEXIST)
    return VIV_FAIL(error, VIV_BAD_INPUT, dst, "can't make the folder: %s", strerror(errno));
  DIR *d = opendir(dst);
  bool empty = d != NULL;
  for (struct dirent *e; d && (e = readdir(d));)
    empty = empty && (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."));
  if (d) closedir(d);
  return empty ? VIV_OK
               : VIV_FAIL(error, VIV_BAD_INPUT, dst,
                          "there is something already: name a folder that is new or empty");
}

int32_t viv__quantize(viv_model *m, viv__recorder *r, const char *dst, viv__quantize_plan *plan,
                      viv_error *error) {
  work w = {.m = m, .recorder = r, .plan = plan};
  int32_t status = make_folder(dst, error);
  if (status >= 0) status = write_weights(&w, dst, error);
  return status < 0 ? status : copy_sides(m, dst, error);
}
