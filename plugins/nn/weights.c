/* The weight tables: one walk over them checks all tensors, one looks for tensors that they do not
 * name, a last one prepares them. */
#include "nn/nn.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const viv_compute *nn_compute(const viv_host *host, viv_error *error) {
  const viv_compute *c = NULL;
  if (host->get_extension) c = host->get_extension(host->self, nn_str(VIV_COMPUTE_ID));
  if (!c)
    nn_fail(error, VIV_NEVER, VIV_COMPUTE_ID,
            "this host offers no kernels, and the plugin brings none of its own");
  return c;
}

bool nn_has(const viv_host *host, const viv_model_source *source, const char *name) {
  viv_tensor t = {.struct_size = sizeof t};
  return host->tensor_find(source->checkpoint, nn_str(name), &t) >= 0;
}

int64_t nn_axis(const viv_host *host, const viv_model_source *source, const char *name,
                int32_t axis, int64_t fallback) {
  viv_tensor t = {.struct_size = sizeof t};
  if (host->tensor_find(source->checkpoint, nn_str(name), &t) < 0) return fallback;
  if (axis < 0) axis += t.ndim;
  return axis >= 0 && axis < t.ndim ? t.shape[axis] : fallback;
}

void nn_at(nn_loader *l, const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (vsnprintf(l->prefix, sizeof l->prefix, format, args) < 0) l->prefix[0] = 0;
  va_end(args);
}

/* One line of the log, for what has no room in the error: a checkpoint may lack hundreds of tensors. */
static void log_tensor(const nn_loader *l, const char *what, int len) {
  char line[256];
  int n = snprintf(line, sizeof line, "weights: %.*s", len, what);
  if (n < 0 || !l->host->log) return;
  if ((size_t)n >= sizeof line) n = (int)sizeof line - 1;
  l->host->log(l->host->self, VIV_LOG_WARN, (viv_str){line, (uint64_t)n});
}

/* Adds one mismatch to the report while there is room, else to the log. A tensor that several rows of
 * a table take their part of is reported once. */
static void mismatch(nn_loader *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void mismatch(nn_loader *l, const char *format, ...) {
  char line[256];
  va_list args;
  va_start(args, format);
  if (vsnprintf(line, sizeof line, format, args) < 0) line[0] = 0;
  va_end(args);
  size_t used = strlen(l->report), n = strlen(line);
  if (strstr(l->report, line)) return;
  l->mismatches++;
  if (used + n + 2 < sizeof l->report)
    snprintf(l->report + used, sizeof l->report - used, "%s%s", used ? "; " : "", line);
  else
    log_tensor(l, line, (int)n);
}

static int32_t lines(const char *report) {
  int32_t n = *report ? 1 : 0;
  for (const char *p = report; (p = strstr(p, "; ")); p += 2) n++;
  return n;
}

static const char *dtype_name(int32_t dtype) {
  static const char *const names[] = {"?",   "F32", "F64", "F16", "BF16", "I64",
                                      "I32", "I16", "I8",  "U8",  "BOOL"};
  return dtype > 0 && dtype <= VIV_BOOL ? names[dtype] : "?";
}

/* Floats, and the block formats of quantised weights. */
static bool has_weights(int32_t dtype) {
  return (dtype >= VIV_F32 && dtype <= VIV_BF16) || dtype > VIV_BOOL;
}

/* Shapes are equal when they are so after dropping axes of length 1. */
static bool same_shape(const viv_tensor *t, int32_t ndim, const int64_t *shape) {
  int32_t i = 0;
  for (int32_t a = 0; a < t->ndim; a++) {
    if (t->shape[a] == 1) continue;
    while (i < ndim && shape[i] == 1) i++;
    if (i == ndim || t->shape[a] != shape[i]) return false;
    i++;
  }
  while (i < ndim && shape[i] == 1) i++;
  return i == ndim;
}

static void shape_text(char *text, size_t size, int32_t ndim, const int64_t *shape) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int32_t a = 0; a < ndim && used < size; a++)
    used +=
        (size_t)snprintf(text + used, size - used, "%s%lld", a ? ", " : "", (long long)shape[a]);
  if (used < size) snprintf(text + used, size - used, "]");
}

/* Is the tensor there and as it must be? */
static bool check(nn_loader *l, const char *name, int32_t ndim, const int64_t *shape,
                  viv_tensor *t) {
  char have[160], want[160];
  if (l->host->tensor_find(l->source->checkpoint, nn_str(name), t) < 0) {
    mismatch(l, "%s is missing", name);
    return false;
  }
  if (!same_shape(t, ndim, shape)) {
    shape_text(have, sizeof have, t->ndim, t->shape);
    shape_text(want, sizeof want, ndim, shape);
    mismatch(l, "%s is %s, expected %s", name, have, want);
    return false;
  }
  if (!has_weights(t->dtype)) {
    mismatch(l, "%s has dtype %s, expected a float", name, dtype_name(t->dtype));
    return false;
  }
  return true;
}

static void count(nn_loader *l, const viv_tensor *t, int64_t begin, int64_t end, int64_t total,
                  int64_t cols, enum nn_weight_kind kind) {
  const viv_compute *c = l->compute;
  int32_t policy = l->source->weight_policy;
  if (kind == NN_FLOATS)
    l->bytes += (uint64_t)total * (uint64_t)cols * sizeof(float) + 64;
  else if (begin == 0 && end == total)
    l->bytes += c->weight_bytes(c, t, policy);
  else
    l->bytes += c->weight_rows_bytes(c, t, end - begin, policy);
}

static void load(nn_loader *l, const char *name, const viv_tensor *t, void *field, int64_t begin,
                 int64_t end, int64_t total, int64_t cols, enum nn_weight_kind kind) {
  const viv_compute *c = l->compute;
  if (kind == NN_FLOATS) {
    const float *x = c->floats(c, l->source->arena, t);
    if (!x) {
      l->status = nn_fail(l->error, VIV_NOT_NOW, name, "no memory for a copy of this tensor");
      return;
    }
    x += begin * cols;
    memcpy(field, &x, sizeof x);
    return;
  }
  viv_weight *w = NULL;
  int32_t policy = l->source->weight_policy;
  int32_t rc = begin == 0 && end == total
                   ? c->weight_prepare(c, l->source->arena, t, policy, &w, l->error)
                   : c->weight_rows(c, l->source->arena, t, begin, end, policy, &w, l->error);
  if (rc < 0)
    l->status = rc;
  else
    memcpy(field, &w, sizeof w);
}

/* ---- tensors that no table names ---- */

/* Up to LOT names of the checkpoint by their hash; one walk over the tables strikes out what they
 * claim. The memory is the stack's, for plan() has no arena. */
enum { LOT = 1024, SLOTS = 2 * LOT };
struct nn_lot {
  viv_str name[SLOTS]; /* ptr NULL: free */
  bool claimed[SLOTS];
};

static bool same_name(viv_str a, viv_str b) {
  return a.len == b.len && !memcmp(a.ptr, b.ptr, a.len);
}

/* Where the name stands, or the free slot where it would. */
static uint32_t slot_of(const struct nn_lot *lot, viv_str name) {
  uint32_t h = 2166136261u; /* FNV-1a */
  for (size_t i = 0; i < name.len; i++) h = (h ^ (unsigned char)name.ptr[i]) * 16777619u;
  h %= SLOTS;
  while (lot->name[h].ptr && !same_name(lot->name[h], name)) h = (h + 1) % SLOTS;
  return h;
}

/* Does the text match the pattern, where * stands for anything? */
static bool matches(viv_str name, const char *pattern) {
  uint64_t at = 0, retry = 0;
  const char *star = NULL;
  while (at < name.len) {
    if (*pattern == '*') {
      star = pattern++;
      retry = at;
    } else if (*pattern == name.ptr[at]) {
      pattern++;
      at++;
    } else if (star) {
      pattern = star + 1;
      at = ++retry;
    } else {
      return false;
    }
  }
  while (*pattern == '*') pattern++;
  return !*pattern;
}

void nn_ignore(nn_loader *l, const char *pattern) {
  if (l->pass != NN_CLAIM) return;
  for (uint32_t i = 0; i < SLOTS; i++)
    if (l->lot->name[i].ptr && matches(l->lot->name[i], pattern)) l->lot->claimed[i] = true;
}

/* Adds one name to the list while there is room, else to the log. */
static void stranger(nn_loader *l, viv_str name) {
  int len = (int)(name.len < 100 ? name.len : 100);
  size_t used = strlen(l->strangers);
  l->n_strangers++;
  if (used + (size_t)len + 3 > sizeof l->strangers) {
    char line[160];
    int n = snprintf(line, sizeof line, "%.*s is not part of this architecture", len, name.ptr);
    log_tensor(l, line, n);
    return;
  }
  snprintf(l->strangers + used, sizeof l->strangers - used, "%s%.*s", used ? ", " : "", len,
           name.ptr);
  l->n_named++;
}

static void find_strangers(nn_loader *l, nn_tables_fn tables, void *model) {
  const viv_host *host = l->host;
  const viv_checkpoint *checkpoint = l->source->checkpoint;
  int64_t n = host->tensor_count(checkpoint);
  struct nn_lot lot;
  l->lot = &lot;
  l->pass = NN_CLAIM;
  for (int64_t begin = 0; begin < n; begin += LOT) {
    int64_t end = begin + LOT < n ? begin + LOT : n;
    viv_tensor t = {.struct_size = sizeof t};
    viv_str name;
    memset(&lot, 0, sizeof lot);
    for (int64_t i = begin; i < end; i++)
      if (host->tensor_at(checkpoint, i, &name, &t) >= 0) lot.name[slot_of(&lot, name)] = name;
    tables(l, model);
    for (int64_t i = begin; i < end; i++)
      if (host->tensor_at(checkpoint, i, &name, &t) >= 0 && !lot.claimed[slot_of(&lot, name)])
        stranger(l, name);
  }
  l->lot = NULL;
}

/* ---- the walks ---- */

bool nn_find(nn_loader *l, const char *name, int32_t ndim, const int64_t *shape, viv_tensor *out) {
  char full[320];
  snprintf(full, sizeof full, "%s%s", l->prefix, name);
  *out = (viv_tensor){.struct_size = sizeof *out};
  if (l->pass == NN_CHECK) return check(l, full, ndim, shape, out);
  if (l->pass == NN_CLAIM) {
    l->lot->claimed[slot_of(l->lot, nn_str(full))] = true; /* a free slot's mark means nothing */
    return false;
  }
  if (l->status) return false;
  if (l->host->tensor_find(l->source->checkpoint, nn_str(full), out) >= 0) return true;
  l->status = nn_fail(l->error, VIV_BUG, full, "the tensor was there when it was checked");
  return false;
}

void nn_load(nn_loader *l, const char *name, void *field, int64_t begin, int64_t end, int64_t total,
             int64_t cols, enum nn_weight_kind kind, bool wanted) {
  viv_tensor t;
  int64_t shape[2] = {total, cols};
  if (!wanted || !nn_find(l, name, cols == 1 ? 1 : 2, shape, &t)) return;
  /* A 1x1 convolution's kernel has axes of length 1 that a matrix has not. */
  if (t.ndim > 2) {
    t.ndim = cols == 1 ? 1 : 2;
    memcpy(t.shape, shape, sizeof shape);
  }
  if (l->pass == NN_CHECK)
    count(l, &t, begin, end, total, cols, kind);
  else
    load(l, name, &t, field, begin, end, total, cols, kind);
}

int32_t nn_weights_check(const viv_host *host, const viv_compute *compute,
                         const viv_model_source *source, nn_tables_fn tables, void *model,
                         uint64_t *bytes, viv_error *error) {
  nn_loader l = {.host = host, .compute = compute, .source = source, .error = error};
  l.pass = NN_CHECK;
  tables(&l, model);
  if (bytes) *bytes = l.bytes;
  find_strangers(&l, tables, model);
  if (!l.mismatches && !l.n_strangers) return VIV_OK;

  char wrong[560] = "", strange[352] = "", more[64] = "";
  if (l.mismatches) {
    int32_t rest = l.mismatches - lines(l.report);
    if (rest > 0) snprintf(more, sizeof more, "; and %d more, which the log names", (int)rest);
    snprintf(wrong, sizeof wrong, "%d tensor%s of the checkpoint do%s not fit config.json: %s%s",
             (int)l.mismatches, l.mismatches == 1 ? "" : "s", l.mismatches == 1 ? "es" : "",
             l.report, more);
  }
  if (l.n_strangers) {
    int64_t rest = l.n_strangers - l.n_named;
    *more = 0;
    if (rest > 0)
      snprintf(more, sizeof more, " and %lld more, which the log names", (long long)rest);
    snprintf(strange, sizeof strange, "%s%lld tensor%s not part of this architecture: %s%s",
             l.mismatches ? "; " : "", (long long)l.n_strangers,
             l.n_strangers == 1 ? " is" : "s are", l.strangers, more);
  }
  return nn_fail(error, VIV_BAD_INPUT, "weights", "%s%s", wrong, strange);
}

int32_t nn_weights_load(const viv_host *host, const viv_compute *compute,
                        const viv_model_source *source, nn_tables_fn tables, void *model,
                        viv_error *error) {
  int32_t rc = nn_weights_check(host, compute, source, tables, model, NULL, error);
  if (rc < 0) return rc;
  nn_loader l = {.host = host, .compute = compute, .source = source, .error = error};
  l.pass = NN_PREPARE;
  tables(&l, model);
  return l.status;
}
