/* viv embed: texts as vectors, and the texts nearest to a query. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "tasks/results.h"

enum { BATCH_TOKENS = 4096, BATCH_ROWS = 64 };

/* One text: its place among the texts, its ids. */
struct row {
  viv_str text;
  int64_t *ids, n;
};

struct embedding {
  viv__loaded l;
  cJSON *params;
  struct row *rows;
  size_t n, total; /* total: with the query, which is last */
  int64_t width;
  float *values; /* [n, width] */
};

static void add_row(struct embedding *e, viv_str text) {
  if ((e->n & (e->n - 1)) == 0)
    e->rows = viv__need(viv__realloc(e->rows, (e->n ? 2 * e->n : 1) * sizeof *e->rows));
  e->rows[e->n++] = (struct row){.text = text};
  e->total = e->n;
}

/* ---- ids ---- */

static void take_ids(void *context, const viv_event *event) {
  struct row *row = context;
  if (event->kind != VIV_KIND_TENSOR || !viv__str_eq(event->name, "input_ids")) return;
  row->n = viv__numel(event->tensor);
  row->ids = viv__need(viv__calloc((size_t)row->n + 1, sizeof *row->ids));
  for (int64_t i = 0; i < row->n; i++) row->ids[i] = viv__tensor_integer(event->tensor, i);
}

static int32_t encode_rows(struct embedding *e, viv_error *error) {
  cJSON *params = viv__need(cJSON_CreateObject());
  int32_t status = VIV_OK;
  cJSON_AddTrueToObject(params, "truncation");
  for (size_t i = 0; i < e->n && status >= 0; i++) {
    viv_value value = viv__value_text("text", e->rows[i].text.ptr, e->rows[i].text.len);
    const viv_value *values[1] = {&value};
    viv__outcome o;
    status = viv__job_run(e->l.model, "encode", params, values, 1, NULL, take_ids, &e->rows[i], &o);
    if (status < 0) *error = o.error;
    viv__outcome_free(&o);
    if (status >= 0 && e->rows[i].n < 1)
      status = VIV_FAIL(error, VIV_BAD_INPUT, "text", "text %zu gives no tokens", i + 1);
  }
  cJSON_Delete(params);
  return status;
}

/* ---- vectors ---- */

struct taking {
  struct embedding *e;
  const size_t *order; /* the rows of this batch */
  size_t n;
  bool got;
};

static void take_vectors(void *context, const viv_event *event) {
  struct taking *t = context;
  struct embedding *e = t->e;
  const viv_tensor *x = event->tensor;
  if (event->kind != VIV_KIND_TENSOR || !viv__str_eq(event->name, "embeddings")) return;
  if (x->ndim != 2 || x->shape[0] != (int64_t)t->n || x->dtype != VIV_F32) return;
  if (!e->values) {
    e->width = x->shape[1];
    e->values = viv__need(viv__calloc(e->n * (size_t)e->width + 1, sizeof *e->values));
  }
  if (x->shape[1] != e->width) return;
  for (size_t i = 0; i < t->n; i++)
    memcpy(e->values + t->order[i] * (size_t)e->width,
           (const float *)x->data + i * (size_t)e->width, (size_t)e->width * sizeof(float));
  t->got = true;
}

static int32_t run_batch(struct embedding *e, const size_t *order, size_t n, viv_error *error) {
  int64_t length = e->rows[order[0]].n, shape[2] = {(int64_t)n, length};
  viv_tensor ids = viv__tensor_make(VIV_I64, 2, shape);
  for (size_t i = 0; i < n; i++)
    memcpy((int64_t *)ids.data + (int64_t)i * length, e->rows[order[i]].ids,
           (size_t)length * sizeof(int64_t));
  viv_value value = viv__value_tensor("input_ids", &ids);
  const viv_value *values[1] = {&value};
  struct taking t = {.e = e, .order = order, .n = n};
  viv__outcome o;
  int32_t status =
      viv__job_run(e->l.model, "embed", e->params, values, 1, NULL, take_vectors, &t, &o);
  if (status < 0) *error = o.error;
  viv__outcome_free(&o);
  viv__tensor_drop(&ids);
  if (status >= 0 && !t.got)
    status = VIV_FAIL(error, VIV_BUG, "embeddings", "the model gave none of the asked shape");
  return status;
}

static const struct row *sorted_rows;

static int by_length(const void *a, const void *b) {
  size_t i = *(const size_t *)a, j = *(const size_t *)b;
  int64_t m = sorted_rows[i].n, n = sorted_rows[j].n;
  return m != n ? (m < n ? -1 : 1) : (i > j) - (i < j);
}

/* Rows of one length share a batch, so that nothing is padded and a text's vector does not depend on
 * what stands beside it. */
static int32_t embed_rows(struct embedding *e, viv_error *error) {
  size_t *order = viv__need(viv__calloc(e->n, sizeof *order)), done = 0;
  int32_t status = VIV_OK;
  for (size_t i = 0; i < e->n; i++) order[i] = i;
  sorted_rows = e->rows;
  qsort(order, e->n, sizeof *order, by_length);
  while (done < e->n && status >= 0) {
    int64_t length = e->rows[order[done]].n;
    size_t n = 1;
    while (done + n < e->n && n < BATCH_ROWS && e->rows[order[done + n]].n == length &&
           (int64_t)(n + 1) * length <= BATCH_TOKENS)
      n++;
    status = run_batch(e, order + done, n, error);
    done += n;
    viv__progress_show("embedding", (double)done / (double)e->n);
  }
  viv__progress_clear();
  viv__free(order);
  return status;
}

/* ---- results ---- */

static double cosine(const struct embedding *e, size_t i, size_t j) {
  const float *a = e->values + i * (size_t)e->width, *b = e->values + j * (size_t)e->width;
  double dot = 0, aa = 0, bb = 0;
  for (int64_t k = 0; k < e->width; k++) {
    dot += (double)a[k] * (double)b[k];
    aa += (double)a[k] * (double)a[k];
    bb += (double)b[k] * (double)b[k];
  }
  return dot / fmax(sqrt(aa) * sqrt(bb), 1e-12);
}

struct match {
  size_t row;
  double score;
};

static int by_score(const void *a, const void *b) {
  const struct match *x = a, *y = b;
  if (x->score != y->score) return x->score > y->score ? -1 : 1;
  return (x->row > y->row) - (x->row < y->row);
}

static void print_match(const struct embedding *e, const struct match *m, bool json) {
  viv_str text = e->rows[m->row].text;
  if (!json) {
    printf("%7.4f  %.*s\n", m->score, (int)text.len, text.ptr);
    return;
  }
  cJSON *doc = viv__need(cJSON_CreateObject());
  char *copy = viv__need(viv__strndup(text.ptr, text.len));
  cJSON_AddNumberToObject(doc, "score", m->score);
  cJSON_AddNumberToObject(doc, "line", (double)m->row + 1);
  cJSON_AddStringToObject(doc, "text", copy);
  viv__free(copy);
  viv__print_json(doc);
}

/* The query is the last row. */
static void print_matches(const struct embedding *e, int64_t top, bool json) {
  size_t n = e->n - 1;
  struct match *m = viv__need(viv__calloc(n + 1, sizeof *m));
  for (size_t i = 0; i < n; i++) m[i] = (struct match){i, cosine(e, i, n)};
  qsort(m, n, sizeof *m, by_score);
  for (size_t i = 0; i < n && (int64_t)i < top; i++) print_match(e, &m[i], json);
  viv__free(m);
}

static cJSON *vector_json(const struct embedding *e, size_t i) {
  cJSON *doc = viv__need(cJSON_CreateObject());
  char *copy = viv__need(viv__strndup(e->rows[i].text.ptr, e->rows[i].text.len));
  cJSON_AddStringToObject(doc, "text", copy);
  cJSON_AddItemToObject(
      doc, "embedding",
      viv__need(cJSON_CreateFloatArray(e->values + i * (size_t)e->width, (int)e->width)));
  viv__free(copy);
  return doc;
}

static void print_vectors(const struct embedding *e, bool json) {
  for (size_t i = 0; i < e->n && json; i++) viv__print_json(vector_json(e, i));
  if (json) return;
  if (e->n == 2) {
    printf("similarity %.4f\n", cosine(e, 0, 1));
    return;
  }
  for (size_t i = 0; i < e->n; i++) {
    for (int64_t k = 0; k < e->width; k++)
      printf("%s%.9g", k ? " " : "", (double)e->values[i * (size_t)e->width + (size_t)k]);
    putchar('\n');
  }
}

static bool ends_with(const char *path, const char *end) {
  size_t n = strlen(path), m = strlen(end);
  return n >= m && !strcmp(path + n - m, end);
}

static int32_t write_file(const struct embedding *e, const char *path, viv_error *error) {
  viv__buf b = {0};
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_F32,
                  .ndim = 2,
                  .shape = {(int64_t)e->n, e->width},
                  .bytes = e->n * (size_t)e->width * sizeof *e->values,
                  .data = e->values};
  if (ends_with(path, ".safetensors")) {
    viv__tensor_list list = {0};
    viv__tensors_add(&list, viv__str("embeddings"), &t, false);
    int32_t status = viv__tensors_write(&list, path, error);
    viv__tensors_free(&list);
    return status;
  }
  if (ends_with(path, ".npy")) {
    viv__npy_write(&t, &b);
  } else {
    for (size_t i = 0; i < e->n; i++) {
      cJSON *doc = vector_json(e, i);
      char *line = viv__need(cJSON_PrintUnformatted(doc));
      viv__buf_str(&b, line);
      viv__buf_str(&b, "\n");
      cJSON_free(line);
      cJSON_Delete(doc);
    }
  }
  int32_t status = b.failed ? VIV_FAIL(error, VIV_NOT_NOW, path, "no memory")
                            : viv__write_file(path, b.ptr, b.len, error);
  viv__buf_free(&b);
  return status;
}

/* ---- the verb ---- */

struct embed_options {
  const char *query, *out;
  int64_t top;
  bool json;
  cJSON *load;
};

static int32_t embed(struct embedding *e, const char *model, const struct embed_options *o,
                     viv_error *error) {
  if (o->query) add_row(e, viv__str(o->query));
  int32_t status = viv__load_model(model, o->load, &e->l, error);
  if (status >= 0) status = encode_rows(e, error);
  if (status >= 0) status = embed_rows(e, error);
  if (status < 0) return status;
  if (o->query) print_matches(e, o->top, o->json);
  if (o->query) e->n--; /* files hold the texts alone */
  if (o->out) return write_file(e, o->out, error);
  if (!o->query) print_vectors(e, o->json);
  return VIV_OK;
}

int viv__cmd_embed(int argc, char **argv) {
  struct embed_options o = {.top = 10, .load = viv__need(cJSON_CreateObject())};
  struct embedding e = {.params = viv__need(cJSON_CreateObject())};
  bool plain = false;
  const viv__opt options[] = {
      {"query", 'q', VIV__OPT_TEXT, "TEXT", &o.query, "print the texts nearest to TEXT", NULL},
      {"top", 0, VIV__OPT_INT, "N", &o.top, "how many of them (10)", NULL},
      {"pooling", 0, VIV__OPT_SET, "KIND", e.params, "mean of the tokens, cls: the first, or last",
       "pooling"},
      {"no-normalize", 0, VIV__OPT_FLAG, NULL, &plain, "vectors of any length", NULL},
      {"out", 'o', VIV__OPT_TEXT, "FILE", &o.out, "write .npy, .safetensors or .jsonl", NULL},
      VIV__LOAD_OPTIONS(o.load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &o.json, "one JSON object per text", NULL},
      {0}};
  const viv__usage usage = {
      "viv embed all-MiniLM-L6-v2 lines.txt --query \"a song\"\n"
      "viv embed all-MiniLM-L6-v2 \"A man plays\" \"Someone makes music\"\n"
      "viv embed all-MiniLM-L6-v2 lines.txt -o vectors.npy",
      "embed [options] MODEL [TEXT... | FILE | -]",
      "Embeds each TEXT, or each line of FILE or standard input; two texts give their similarity."};
  const char **args = viv__need(viv__calloc((size_t)argc, sizeof *args));
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, argc, args, &n);
  if (code < 0 && n == 1 && isatty(STDIN_FILENO))
    code = viv__usage_error(argv[0], "no text: give it as arguments, a file or through a pipe");
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__texts texts = {0};
    if (plain) cJSON_AddFalseToObject(e.params, "normalize");
    viv__interrupt_catch();
    int32_t status = viv__texts_read(&texts, args + 1, n - 1, &error);
    for (size_t i = 0; i < texts.n; i++) add_row(&e, texts.items[i]);
    if (status >= 0) status = embed(&e, args[0], &o, &error);
    code = status < 0 ? viv__report(o.json, args[0], status, &error) : VIV__EXIT_OK;
    viv__unload_model(&e.l);
    for (size_t i = 0; i < e.total; i++) viv__free(e.rows[i].ids);
    viv__free(e.rows);
    viv__free(e.values);
    viv__texts_free(&texts);
  }
  viv__free(args);
  cJSON_Delete(e.params);
  cJSON_Delete(o.load);
  return code;
}
