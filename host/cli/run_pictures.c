/* viv run on pictures: a job per picture, so that a bad one does not stop the others. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run.h"

/* ---- the model ---- */

/* The plugin's own description stands under "model". */
static const cJSON *described(const viv__loaded *l, const char *key) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model");
  const cJSON *found = cJSON_GetObjectItemCaseSensitive(own, key);
  return found ? found : cJSON_GetObjectItemCaseSensitive(l->about, key);
}

static const char *task_name(const cJSON *tasks, const cJSON *task) {
  if (cJSON_IsObject(tasks)) return task->string;
  if (cJSON_IsString(task)) return task->valuestring;
  return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(task, "name"));
}

bool viv__gives_task(const viv__loaded *l, const char *name) {
  const cJSON *tasks = described(l, "tasks"), *task;
  cJSON_ArrayForEach(task, tasks) {
    const char *one = task_name(tasks, task);
    if (one && !strcmp(one, name)) return true;
  }
  return false;
}

const viv__task_schema *viv__picture_task(const viv__loaded *l, const char *wanted) {
  const cJSON *tasks = described(l, "tasks"), *task;
  if (wanted) return viv__task_schema_find(wanted);
  cJSON_ArrayForEach(task, tasks) {
    const viv__task_schema *schema = viv__task_schema_find(task_name(tasks, task));
    if (schema) return schema;
  }
  return NULL;
}

int32_t viv__model_vocabulary(const viv__loaded *l, const char *labels, viv__vocabulary *out,
                              viv_error *error) {
  char *path = viv__need(viv__path_join(l->path, "config.json"));
  cJSON *config = access(path, R_OK) ? NULL : viv__parse_json_file(path, 64 << 20, NULL);
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model");
  int32_t status = viv__vocabulary_read(out, own, config, labels, error);
  cJSON_Delete(config);
  viv__free(path);
  return status;
}

/* ---- one picture ---- */

int32_t viv__item_picture(const viv__picture_item *item, const cJSON *params, bool header,
                          viv__picture *out, viv_error *error) {
  viv__picture_options o = {
      .orient = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(params, "exif_orientation")),
      .max_pixels = (int64_t)viv__json_num((const viv_json *)params, "max_pixels", 0),
      .max_side = (int64_t)viv__json_num((const viv_json *)params, "max_side", 0)};
  if (!item->bytes) {
    *out = item->raw;
    out->owned = false;
    return VIV_OK;
  }
  return header ? viv__picture_probe(item->bytes, item->len, item->name, &o, out, error)
                : viv__picture_decode(item->bytes, item->len, item->name, &o, out, error);
}

struct gather {
  viv__results *results;
  int32_t status;
  viv_error *error;
};

static void on_event(void *context, const viv_event *e) {
  struct gather *g = context;
  if (g->status >= 0) g->status = viv__results_take(g->results, e, g->error);
}

viv_value viv__item_value(const viv__picture_item *item, const char *name, viv_tensor *t) {
  *t = (viv_tensor){.struct_size = sizeof *t,
                    .data = item->raw.data,
                    .dtype = VIV_U8,
                    .ndim = 3,
                    .shape = {item->raw.height, item->raw.width, 3}};
  t->bytes = (uint64_t)t->shape[0] * (uint64_t)t->shape[1] * 3;
  viv_value value = viv__value_tensor(name, t);
  if (item->bytes) {
    value.kind = VIV_KIND_IMAGE;
    value.bytes = (viv_str){item->bytes, item->len};
    value.tensor = NULL;
  }
  return value;
}

/* other: the second picture of the job, and k [4, 4] the camera of both; NULL: none. */
static int32_t run_job(const viv__loaded *l, const viv__task_schema *schema, const cJSON *params,
                       const viv__picture_item *item, const viv__picture_item *other,
                       const float *k, viv__results *results, viv__outcome *outcome,
                       viv_error *error) {
  viv_tensor t[3] = {{0}};
  viv_value value[3];
  const viv_value *values[] = {&value[0], &value[1], &value[2]};
  int32_t n = 1;
  value[0] = viv__item_value(item, schema->inputs[0] ? schema->inputs[0] : "image", &t[0]);
  if (other) value[n++] = viv__item_value(other, schema->inputs[1], &t[1]);
  if (k) {
    t[2] = (viv_tensor){.struct_size = sizeof t[2],
                        .dtype = VIV_F32,
                        .ndim = 2,
                        .shape = {4, 4},
                        .bytes = 16 * sizeof *k};
    memcpy(&t[2].data, &k, sizeof k); /* only read */
    value[n++] = viv__value_tensor("K", &t[2]);
  }
  struct gather g = {.results = results, .error = error};
  results->schema = schema;
  int32_t status =
      viv__job_run(l->model, schema->name, params, values, n, NULL, on_event, &g, outcome);
  if (status < 0) {
    *error = outcome->error;
    error->code = status;
    return status;
  }
  if (g.status < 0) return g.status;
  return viv__results_check(results, 1, error);
}

int32_t viv__picture_job(const viv__loaded *l, const viv__task_schema *schema,
                         const viv__detector *detector, const cJSON *params,
                         const viv__picture_item *item, viv__results *results,
                         viv__outcome *outcome, viv_error *error) {
  if (!detector) return run_job(l, schema, params, item, NULL, NULL, results, outcome, error);
  cJSON *prompted = viv__need(cJSON_Duplicate(params, 1));
  int64_t n = 0;
  double seconds = 0;
  int32_t status = viv__detector_prompts(detector, item, prompted, &n, &seconds, error);
  results->schema = schema;
  if (status >= 0 && n)
    status = run_job(l, schema, prompted, item, NULL, NULL, results, outcome, error);
  outcome->seconds += seconds;
  cJSON_Delete(prompted);
  return status;
}

int64_t viv__image_id(const char *path, int64_t fallback) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  size_t digits = strspn(name, "0123456789");
  if (!digits || digits > 15 || name[digits] != '.') return fallback;
  return strtoll(name, NULL, 10);
}

/* ---- what a person reads ---- */

static void print_object(const cJSON *o) {
  const cJSON *label = cJSON_GetObjectItemCaseSensitive(o, "label");
  const cJSON *number = cJSON_GetObjectItemCaseSensitive(o, "class");
  const cJSON *score = cJSON_GetObjectItemCaseSensitive(o, "score");
  const cJSON *box = cJSON_GetObjectItemCaseSensitive(o, "box");
  const cJSON *share = cJSON_GetObjectItemCaseSensitive(o, "share");
  if (!score) score = cJSON_GetObjectItemCaseSensitive(o, "probability");
  if (cJSON_IsString(label))
    printf("  %-20s", label->valuestring);
  else if (number)
    printf("  class %-14.0f", number->valuedouble);
  else
    printf("  %-20s", "object");
  if (score) printf(" %5.2f", score->valuedouble);
  if (share) printf(" %5.1f %%", 100 * share->valuedouble);
  if (box && cJSON_GetArraySize(box) == 4) {
    double b[4];
    for (int i = 0; i < 4; i++) b[i] = cJSON_GetArrayItem(box, i)->valuedouble;
    printf("  at %.0f,%.0f  %.0f x %.0f", b[0], b[1], b[2] - b[0], b[3] - b[1]);
  }
  printf("\n");
}

static const char *name_in(const cJSON *o, const char *key, char buffer[32]) {
  const cJSON *end = cJSON_GetObjectItemCaseSensitive(o, key);
  const cJSON *label = cJSON_IsString(end) ? end : cJSON_GetObjectItemCaseSensitive(end, "label");
  if (cJSON_IsString(label)) return label->valuestring;
  snprintf(buffer, 32, "class %.0f",
           cJSON_GetNumberValue(
               cJSON_GetObjectItemCaseSensitive(end ? end : o, end ? "class" : "predicate_class")));
  return buffer;
}

static void print_relation(const cJSON *o) {
  char a[32], b[32], c[32];
  printf("  %s %s %s %5.2f\n", name_in(o, "subject", a), name_in(o, "predicate", b),
         name_in(o, "object", c),
         cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(o, "score")));
}

static void print_text(const cJSON *line) {
  const cJSON *item, *depth = cJSON_GetObjectItemCaseSensitive(line, "depth");
  const cJSON *objects = cJSON_GetObjectItemCaseSensitive(line, "objects");
  const cJSON *relations = cJSON_GetObjectItemCaseSensitive(line, "relations");
  const cJSON *embedding = cJSON_GetObjectItemCaseSensitive(line, "embedding");
  if (!objects) objects = cJSON_GetObjectItemCaseSensitive(line, "classes");
  printf("%s  %.0f x %.0f\n", cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "file")),
         cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(line, "width")),
         cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(line, "height")));
  cJSON_ArrayForEach(item, objects) print_object(item);
  cJSON_ArrayForEach(item, relations) print_relation(item);
  if (depth)
    printf("  depth %g to %g\n",
           cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(depth, "min")),
           cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(depth, "max")));
  if (embedding)
    printf("  embedding of %d numbers (--json shows them)\n", cJSON_GetArraySize(embedding));
  if ((objects && !objects->child) || (relations && !relations->child))
    printf("  nothing above the threshold\n");
}

/* ---- the batch ---- */

struct batch {
  const viv__loaded *l;
  const viv__task_schema *schema;
  const viv__picture_run *o;
  viv__detector *detector; /* NULL: none */
  cJSON *params;
  double threshold;
  viv__vocabulary words;
  double polygons; /* how far they may miss a mask */
  double lens[4];  /* fx, fy, cx, cy that were given */
  viv__camera *camera;
  bool own_lens;           /* the camera tells each picture's lens */
  viv__picture_item other; /* the right picture, or the frame before; no name: there is none */
  int32_t other_size[2];
  bool coco, lines, file;  /* file: --out is no JSON but the result itself */
  const char *folder_kind; /* --out is a folder of such files; NULL: it is not */
  cJSON *found;            /* COCO's array */
  viv__buf text;           /* for --out */
  viv__drawings drawings;
  int64_t n, failed;
  int32_t last_status;
  double job_seconds;
};

/* A name in the folder for what the item gave. */
static char *path_in(struct batch *b, const char *folder, const viv__picture_item *item,
                     const char *kind) {
  char *frame = item->frame ? viv__textf("frame-%06lld", (long long)item->frame) : NULL;
  char *path = viv__path_in(&b->drawings, folder, frame ? frame : item->name, kind);
  viv__free(frame);
  return path;
}

static int32_t draw(struct batch *b, const viv__picture_item *item, const viv__results *r,
                    viv_error *error) {
  viv__picture picture = {0};
  int32_t status = viv__item_picture(item, b->params, false, &picture, error);
  if (status >= 0) status = viv__results_draw(r, 0, &b->words, b->threshold, &picture, error);
  if (status >= 0 && b->o->preview) {
    viv__progress_clear();
    status = viv__preview(&picture, b->o->preview_as, error);
  }
  if (status >= 0 && b->o->draw) {
    char *frame = item->frame ? viv__textf("frame-%06lld", (long long)item->frame) : NULL;
    status = viv__drawings_put(&b->drawings, frame ? frame : item->name, &picture, error);
    viv__free(frame);
  }
  viv__picture_free(&picture);
  return status;
}

/* Prints a picture's line, or keeps it for --out. */
static void put_line(struct batch *b, cJSON *line) {
  viv__progress_clear();
  if (b->o->out && !b->file) {
    char *text = viv__need(cJSON_PrintUnformatted(line));
    viv__buf_str(&b->text, text);
    viv__buf_str(&b->text, "\n");
    cJSON_free(text);
  } else if (b->lines) {
    viv__print_json(cJSON_Duplicate(line, 1));
  } else if (viv__output_open()) {
    print_text(line);
    fflush(stdout);
  }
  cJSON_Delete(line);
}

static void put_error(struct batch *b, cJSON *line, const char *name, int32_t status,
                      const viv_error *error) {
  viv__report(false, name, status, error);
  if (b->coco || (!b->lines && (b->file || !b->o->out))) {
    cJSON_Delete(line);
    return;
  }
  cJSON *e = cJSON_AddObjectToObject(line, "error");
  cJSON_AddStringToObject(e, "code", viv_status_name(status));
  cJSON_AddStringToObject(e, "message", error->message);
  cJSON_AddStringToObject(e, "where", error->where);
  put_line(b, line);
}

static bool is_safetensors(const char *path) {
  size_t len = strlen(path);
  return len > 12 && !strcmp(path + len - 12, ".safetensors");
}

static bool is_points(const char *path) {
  size_t len = strlen(path);
  return len > 4 && !strcasecmp(path + len - 4, ".ply");
}

/* Depth with the picture's colours. */
static int32_t write_points(const struct batch *b, const viv__picture_item *item,
                            const viv__results *r, const char *path, viv_error *error) {
  viv__picture picture = {0};
  viv__buf out = {0};
  const char *kind = cJSON_GetStringValue(described(b->l, "depth"));
  bool inverse = kind && !strcmp(kind, "inverse");
  int32_t status = viv__item_picture(item, b->params, false, &picture, error);
  if (status >= 0) status = viv__results_points(r, 0, &picture, b->lens, inverse, &out, error);
  if (status >= 0) status = viv__write_file(path, out.ptr, out.len, error);
  viv__buf_free(&out);
  viv__picture_free(&picture);
  return status;
}

static int32_t write_file(const viv__task_schema *schema, const viv__results *r, const char *path,
                          viv_error *error) {
  viv__tensor_list list = {0};
  if (!is_safetensors(path)) return viv__results_file(r, 0, path, error);
  for (const viv__field_schema *f = schema->fields; f->name; f++) {
    const viv_tensor *t = viv__result(r, 0, f->field);
    char name[64];
    snprintf(name, sizeof name, "%s%s", f->name, f->numbered ? ".0" : "");
    if (t) viv__tensors_add(&list, viv__str(name), t, false);
  }
  int32_t status = viv__tensors_write(&list, path, error);
  viv__tensors_free(&list);
  return status;
}

/* The result itself, to --out or into it. */
static int32_t write_result(struct batch *b, const viv__picture_item *item, const viv__results *r,
                            viv_error *error) {
  char *path = b->folder_kind ? path_in(b, b->o->out, item, b->folder_kind)
                              : viv__need(viv__strdup(b->o->out));
  int32_t status = is_points(path) ? write_points(b, item, r, path, error)
                                   : write_file(b->schema, r, path, error);
  viv__free(path);
  return status;
}

/* The job of a picture and the one that goes with it. */
static int32_t run_frame(struct batch *b, const viv__picture_item *item, const viv__picture *header,
                         viv__results *results, viv__outcome *outcome, viv_error *error) {
  int32_t form = b->schema->form;
  if (form == VIV__ONE_PICTURE)
    return viv__picture_job(b->l, b->schema, b->detector, b->params, item, results, outcome, error);
  bool both = b->other.name != NULL;
  if (form == VIV__PAIR)
    return run_job(b->l, b->schema, b->params, item, &b->other, NULL, results, outcome, error);
  if (both && (b->other_size[0] != header->height || b->other_size[1] != header->width))
    return VIV_FAIL(error, VIV_BAD_INPUT, item->name,
                    "the frame is %d x %d, but %s is %d x %d: frames of one camera have one size",
                    header->width, header->height, b->other.name, b->other_size[1],
                    b->other_size[0]);
  float w = (float)header->width, h = (float)header->height;
  float k[16] = {(float)b->lens[0] / w,
                 0,
                 (float)b->lens[2] / w,
                 0,
                 0,
                 (float)b->lens[1] / h,
                 (float)b->lens[3] / h,
                 0,
                 0,
                 0,
                 1,
                 0,
                 0,
                 0,
                 0,
                 1};
  return run_job(b->l, b->schema, b->params, item, both ? &b->other : NULL, both ? k : NULL,
                 results, outcome, error);
}

static int32_t one(struct batch *b, const viv__picture_item *item, cJSON *line, viv_error *error) {
  viv__results results = {.polygons = b->o->polygons ? &b->polygons : NULL};
  viv__outcome outcome = {0};
  viv__picture header = {0};
  int32_t status = viv__item_picture(item, b->params, true, &header, error);
  if (status >= 0) status = run_frame(b, item, &header, &results, &outcome, error);
  if (status >= 0 && b->own_lens)
    status = viv__camera_lens(b->camera, b->params, item, &header, b->lens, error);
  if (status >= 0 && b->o->camera)
    status = viv__camera_step(b->camera, b->params, b->other.name ? &b->other : NULL, item, &header,
                              error);
  b->other_size[0] = header.height;
  b->other_size[1] = header.width;
  b->job_seconds += outcome.seconds;
  cJSON_AddNumberToObject(line, "width", header.width);
  cJSON_AddNumberToObject(line, "height", header.height);
  if (header.animated) cJSON_AddTrueToObject(line, "animated");
  cJSON_AddStringToObject(line, "task", b->schema->name);
  if (status >= 0 && b->coco)
    status = viv__results_coco(&results, 0, &b->words, b->threshold,
                               viv__image_id(item->name, b->n), b->found, error);
  else if (status >= 0)
    status = viv__results_json(&results, 0, &b->words, b->threshold, line, error);
  if (status >= 0 && b->file) status = write_result(b, item, &results, error);
  if (status >= 0 && (b->o->draw || b->o->preview)) status = draw(b, item, &results, error);
  viv__outcome_free(&outcome);
  viv__results_free(&results);
  return status;
}

static void show_progress(const struct batch *b, const char *name, int64_t count) {
  char text[96];
  const char *slash = strrchr(name, '/');
  if (count >= 0 && count < 2) return;
  snprintf(text, sizeof text, "%.60s", slash ? slash + 1 : name);
  viv__progress_show(text, count > 0 ? (double)b->n / (double)count : -1);
}

/* The picture beside the one that came, for pairs. */
static int32_t take_right(struct batch *b, viv__picture_source *source, const char *left,
                          viv_error *error) {
  viv__item_free(&b->other);
  int32_t status = viv__source_next(source, &b->other, error);
  if (status != VIV_DONE) return status;
  return VIV_FAIL(error, VIV_BAD_INPUT, left,
                  "a left picture without a right one: name them in pairs, left first");
}

/* Frees the picture, or keeps it for the next one's job. A frame that failed is nobody's past. */
static void let_go(struct batch *b, viv__picture_item *item, int32_t status) {
  bool frames = b->schema->form == VIV__SEQUENCE || b->o->camera;
  if (frames) {
    viv__item_free(&b->other);
    b->other = status >= 0 ? *item : (viv__picture_item){0};
    if (status < 0) viv__item_free(item);
  } else {
    viv__item_free(item);
  }
}

static int32_t run_all(struct batch *b, viv__picture_source *source) {
  viv__picture_item item;
  for (;;) {
    viv_error error = VIV_ERROR_INIT;
    int32_t status = viv__source_next(source, &item, &error);
    if (status == VIV_DONE) return VIV_OK;
    if (viv__interrupted()) status = VIV_CANCELLED;
    cJSON *line = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(line, "file", item.name);
    if (item.frame) cJSON_AddNumberToObject(line, "frame", (double)item.frame);
    show_progress(b, item.name, viv__source_count(source));
    b->n++;
    if (status >= 0 && b->schema->form == VIV__PAIR) {
      status = take_right(b, source, item.name, &error);
      if (status >= 0) cJSON_AddStringToObject(line, "right", b->other.name);
    }
    if (status >= 0) status = one(b, &item, line, &error);
    if (status == VIV_CANCELLED) {
      cJSON_Delete(line);
      viv__item_free(&item);
      return status;
    }
    if (status < 0) {
      b->failed++;
      b->last_status = status;
      put_error(b, line, item.name, status, &error);
    } else if (b->coco) {
      cJSON_Delete(line);
    } else {
      put_line(b, line);
    }
    let_go(b, &item, status);
  }
}

static int32_t write_out(struct batch *b, viv_error *error) {
  if (b->o->camera) {
    int32_t status = viv__camera_write(b->camera, b->o->camera, error);
    if (status < 0) return status;
  }
  if (!b->coco) {
    if (!b->o->out || b->file) return VIV_OK;
    return viv__write_file(b->o->out, b->text.ptr ? b->text.ptr : "", b->text.len, error);
  }
  if (!b->o->out) {
    viv__print_json(b->found);
    b->found = NULL;
    return VIV_OK;
  }
  char *text = viv__need(cJSON_PrintUnformatted(b->found));
  int32_t status = viv__write_file(b->o->out, text, strlen(text), error);
  cJSON_free(text);
  return status;
}

/* The exit code: of a single picture its failure's own; of a batch 10 and how many failed, so that a
 * script can tell, at most 99. */
static int end_of(const struct batch *b) {
  if (!b->failed) return VIV__EXIT_OK;
  if (b->n == 1) return viv__exit_code(b->last_status);
  fprintf(stderr, "viv: %lld of %lld pictures failed\n", (long long)b->failed, (long long)b->n);
  return b->failed > 89 ? 99 : 10 + (int)b->failed;
}

/* Whether --out is a folder for a file per picture, and of which kind. */
static int32_t prepare_folder(struct batch *b, viv_error *error) {
  static const char *const kinds[] = {"png", "pfm", "npy", "ply"};
  const char *path = b->o->out, *wanted = b->o->format;
  struct stat s;
  size_t len = path ? strlen(path) : 0;
  const char *kind = wanted ? NULL : kinds[0];
  for (size_t i = 0; wanted && i < sizeof kinds / sizeof *kinds; i++)
    if (!strcmp(wanted, kinds[i])) kind = kinds[i];
  bool folder = len && (path[len - 1] == '/' || (!stat(path, &s) && S_ISDIR(s.st_mode)));
  if (!folder && wanted && kind)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--format", "%s files go into a folder: -o FOLDER/",
                    wanted);
  if (!folder || !kind) return VIV_OK;
  b->folder_kind = kind;
  if (mkdir(path, 0777) && errno != EEXIST)
    return VIV_FAIL(error, VIV_NEVER, path, "the folder can't be made: %s", strerror(errno));
  return VIV_OK;
}

/* The camera that --intrinsics gives, for what needs one; of a single picture the model may know it. */
static int32_t prepare_lens(struct batch *b, int64_t count, viv_error *error) {
  bool points = b->folder_kind ? !strcmp(b->folder_kind, "ply") : b->o->out && is_points(b->o->out);
  bool frames = b->schema->form == VIV__SEQUENCE && count != 1;
  if (points && !b->o->intrinsics && b->schema->form == VIV__ONE_PICTURE) {
    viv_error none = VIV_ERROR_INIT;
    b->own_lens =
        viv__camera_open(b->l, &b->camera, &none) >= 0 && viv__camera_sees_lens(b->camera);
    if (b->own_lens) return VIV_OK;
  }
  if (points && !b->o->intrinsics)
    return VIV_FAIL(
        error, VIV_BAD_INPUT, "--out",
        "points need the camera, which this model does not tell: --intrinsics FX,FY,CX,CY in "
        "pixels of the picture");
  if (frames && !b->o->intrinsics)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--task",
                    "%s needs the camera: --intrinsics FX,FY,CX,CY in pixels of the frames",
                    b->schema->name);
  if (!b->o->intrinsics) return VIV_OK;
  if (!points && b->schema->form != VIV__SEQUENCE)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--intrinsics",
                    "only points (-o FILE.ply) and tasks over several frames need a camera");
  return viv__intrinsics_read(b->o->intrinsics, b->lens, error);
}

static int32_t prepare(struct batch *b, viv__picture_source *source, viv_error *error) {
  int64_t count = viv__source_count(source);
  int32_t status = prepare_folder(b, error);
  if (status >= 0) status = prepare_lens(b, count, error);
  if (status < 0) return status;
  const char *format = b->o->format && !b->folder_kind ? b->o->format : "json";
  b->coco = !strcmp(format, "coco");
  if (!b->coco && strcmp(format, "json"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "--format",
                    "\"%s\" is none of json, coco, png, pfm, npy, ply", format);
  b->file = b->folder_kind || (b->o->out && (is_points(b->o->out) || is_safetensors(b->o->out) ||
                                             viv__results_file_known(b->o->out)));
  if (b->schema->form == VIV__PAIR && count > 0) count = (count + 1) / 2;
  if (b->file && (b->coco || (!b->folder_kind && count != 1)))
    return VIV_FAIL(
        error, VIV_BAD_INPUT, "--out",
        "\"%s\" holds the result of one picture; several go to .json, .jsonl or FOLDER/",
        b->o->out);
  if (b->schema->form != VIV__ONE_PICTURE && b->o->detector.model)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--detector", "%s takes no boxes", b->schema->name);
  if (b->o->polygons) {
    char *end;
    b->polygons = strtod(b->o->polygons, &end);
    if (end == b->o->polygons || *end || !(b->polygons >= 0 && b->polygons < 1e6))
      return VIV_FAIL(error, VIV_BAD_INPUT, "--polygons", "\"%s\" is no number of pixels",
                      b->o->polygons);
  }
  b->lines = b->o->json || b->o->format || !isatty(STDOUT_FILENO);
  if (b->coco) b->found = viv__need(cJSON_CreateArray());
  const cJSON *threshold = cJSON_GetObjectItemCaseSensitive(b->params, "threshold");
  b->threshold = threshold ? threshold->valuedouble : b->coco ? -INFINITY : b->schema->threshold;
  if (!cJSON_GetObjectItemCaseSensitive(b->params, "exif_orientation"))
    cJSON_AddTrueToObject(b->params, "exif_orientation");
  status = viv__drawings_open(&b->drawings, b->o->draw, count, "pictures", error);
  if (status >= 0 && b->o->camera && !b->camera) status = viv__camera_open(b->l, &b->camera, error);
  if (status >= 0) status = viv__model_vocabulary(b->l, b->o->labels, &b->words, error);
  if (status < 0) return status;
  return viv__detector_open(b->l, b->schema, &b->o->detector, b->params, &b->detector, error);
}

int viv__run_pictures(const viv__loaded *l, const viv__task_schema *schema, const char *const *args,
                      int n, const viv__picture_run *o, cJSON *params) {
  viv_error error = VIV_ERROR_INIT;
  viv__picture_source *source = NULL;
  struct batch b = {.l = l, .schema = schema, .o = o, .params = params};
  uint64_t begun = viv__now_ns();
  int code = VIV__EXIT_OK;
  int32_t status = viv__source_open(args, n, o->frames, &source, &error);
  if (status >= 0) status = prepare(&b, source, &error);
  if (status >= 0) status = run_all(&b, source);
  viv__progress_clear();
  if (status >= 0) status = write_out(&b, &error);
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled after %lld pictures\n", (long long)b.n - 1);
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->json, NULL, status, &error);
  } else {
    code = end_of(&b);
  }
  double seconds = (double)(viv__now_ns() - begun) * 1e-9;
  if (o->verbose && status >= 0 && b.n)
    fprintf(stderr, "%lld pictures in %.2f s (%.2f a second), %.1f ms a job\n", (long long)b.n,
            seconds, (double)b.n / seconds, b.job_seconds / (double)b.n * 1e3);
  viv__drawings_free(&b.drawings);
  viv__buf_free(&b.text);
  cJSON_Delete(b.found);
  viv__vocabulary_free(&b.words);
  viv__item_free(&b.other);
  viv__camera_close(b.camera);
  viv__detector_close(b.detector);
  viv__source_close(source);
  return code;
}
