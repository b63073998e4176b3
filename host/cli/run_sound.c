/* viv run on recordings: a job per file. Text is printed as it comes, classes by their names, codes as
 * numbers; --json or --format json gives one object per recording. */
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/run.h"
#include "media/sound.h"

/* ---- what is asked ---- */

bool viv__sounds_named(const char *const *args, int n) {
  for (int i = 0; i < n; i++)
    if (viv__media_kind(args[i]) != VIV_KIND_AUDIO || strpbrk(args[i], "\n")) return false;
  return n > 0;
}

static const cJSON *described(const viv__loaded *l, const char *key) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model");
  return cJSON_GetObjectItemCaseSensitive(own, key);
}

const char *viv__first_task(const viv__loaded *l) {
  const cJSON *tasks = described(l, "tasks");
  return cJSON_IsArray(tasks) && tasks->child ? cJSON_GetStringValue(tasks->child) : NULL;
}

static bool ends_with(const char *path, const char *extension) {
  size_t a = strlen(path), b = strlen(extension);
  return a > b && !strcasecmp(path + a - b, extension);
}

/* Files that hold what one recording gave. */
static bool to_one_file(const char *path) {
  return ends_with(path, ".safetensors") || viv__sound_file_known(path);
}

/* ---- sound as a result ---- */

/* The vocoder's waveform [1, samples] of a spectrogram. */
static void on_waveform(void *context, const viv_event *e) {
  viv_tensor *out = context;
  if (e->kind == VIV_KIND_TENSOR && viv__str_eq(e->name, "waveform") && !out->data &&
      e->tensor->dtype == VIV_F32)
    *out = viv__tensor_copy(e->tensor);
}

static int32_t vocode(const char *model, const viv_tensor *spectrogram, viv_tensor *out,
                      double *rate, viv_error *error) {
  viv__loaded l = {0};
  viv__outcome outcome = {0};
  viv_value value = viv__value_tensor("spectrogram", spectrogram);
  const viv_value *values[] = {&value};
  int32_t status = viv__load_model(model, NULL, &l, error);
  if (status >= 0) {
    status = viv__job_run(l.model, "forward", NULL, values, 1, NULL, on_waveform, out, &outcome);
    if (status < 0) *error = outcome.error;
  }
  if (status >= 0 && !out->data)
    status = VIV_FAIL(error, VIV_BAD_INPUT, model, "this model makes no waveform of a spectrogram");
  const cJSON *own = status >= 0 ? described(&l, "sampling_rate") : NULL;
  if (cJSON_IsNumber(own)) *rate = own->valuedouble;
  viv__outcome_free(&outcome);
  viv__unload_model(&l);
  return status;
}

int32_t viv__write_sound(const viv__loaded *l, const viv__tensor_list *results, const char *path,
                         const char *vocoder, viv_error *error) {
  const viv_tensor *t = viv__tensors_find(results, "waveform");
  if (!t) t = viv__tensors_find(results, "audio_values");
  const viv_tensor *mel = viv__tensors_find(results, "spectrogram");
  const cJSON *own = described(l, "sampling_rate");
  double rate = cJSON_IsNumber(own) ? own->valuedouble : 16000;
  viv_tensor made = {0};
  int32_t status = VIV_OK;
  if (!t && mel && vocoder) {
    status = vocode(vocoder, mel, &made, &rate, error);
    t = &made;
  } else if (!t && mel) {
    status = VIV_FAIL(error, VIV_NEVER, "--vocoder",
                      "the model gives a spectrogram; a vocoder (HiFi-GAN) makes sound of it");
  }
  if (status >= 0 && (!t || t->dtype != VIV_F32 || t->ndim < 1 || viv__numel(t) < 1))
    status = VIV_FAIL(error, VIV_NEVER, path, "the job gave no sound");
  if (status >= 0) {
    viv__sound sound = {.rate = (int32_t)rate, .data = t->data, .frames = t->shape[t->ndim - 1]};
    int64_t channels = viv__numel(t) / sound.frames;
    sound.channels = channels < INT32_MAX ? (int32_t)channels : INT32_MAX;
    status = viv__sound_save(&sound, path, error);
  }
  if (made.data) viv__tensor_drop(&made);
  return status;
}

/* ---- one recording ---- */

struct hearing {
  const viv__loaded *l;
  const viv__task_schema *schema; /* NULL: a task without one */
  const viv__picture_run *o;
  const char *task;
  cJSON *params;
  const viv__input_list *more; /* inputs besides the recording */
  viv__vocabulary words;
  bool lines, several; /* lines: JSON is printed or written */
  viv__buf written;    /* for --out: lines, or text */
  viv__drawings drawings;
  /* Of the recording that is heard: */
  const char *file;
  cJSON *line;
  viv__results results;
  viv__tensor_list tensors;
  bool titled, open_line;
  int32_t status;
  viv_error *error;
};

static void print_title(struct hearing *h) {
  viv__progress_clear();
  if (!h->titled && h->several) printf("%s\n", h->file);
  h->titled = true;
}

static void take_text(struct hearing *h, viv_str text) {
  cJSON *old = cJSON_GetObjectItemCaseSensitive(h->line, "text");
  char *all = viv__textf("%s%.*s", old ? old->valuestring : "", (int)text.len, text.ptr);
  cJSON_DeleteItemFromObjectCaseSensitive(h->line, "text");
  cJSON_AddStringToObject(h->line, "text", all);
  viv__free(all);
  if (h->lines || h->o->out || !text.len) return;
  print_title(h);
  fwrite(text.ptr, 1, text.len, stdout);
  fflush(stdout);
  h->open_line = text.ptr[text.len - 1] != '\n';
}

/* Several values of one name are a list; "segments" is one even when there is but one. */
static void take_json(struct hearing *h, const viv_event *e) {
  viv_json *value = NULL;
  char *name = viv__need(viv__strndup(e->name.ptr, e->name.len));
  if (viv__json_parse(e->bytes.ptr, e->bytes.len, name, &value, NULL) == VIV_OK) {
    cJSON *list = cJSON_GetObjectItemCaseSensitive(h->line, name);
    if (!list && !strcmp(name, "segments")) list = cJSON_AddArrayToObject(h->line, name);
    if (cJSON_IsArray(list))
      cJSON_AddItemToArray(list, (cJSON *)value);
    else if (!list)
      cJSON_AddItemToObject(h->line, name, (cJSON *)value);
    else
      viv__json_free(value);
  }
  viv__free(name);
}

static void on_event(void *context, const viv_event *e) {
  struct hearing *h = context;
  if (h->status < 0 || !viv__output_open()) return;
  if (e->kind == VIV_KIND_TEXT) take_text(h, e->bytes);
  if (e->kind == VIV_KIND_JSON) take_json(h, e);
  if (e->kind == VIV_KIND_PROGRESS && !h->open_line) viv__progress_show(h->file, e->progress);
  if (e->kind != VIV_KIND_TENSOR) return;
  if (h->schema) h->status = viv__results_take(&h->results, e, h->error);
  viv__tensors_add(&h->tensors, e->name, e->tensor, false);
}

/* Whole numbers as nested lists, without axes of length 1 in front. */
static cJSON *numbers(const viv_tensor *t, int axis, int64_t *at) {
  while (axis < t->ndim - 1 && t->shape[axis] == 1) axis++;
  cJSON *list = viv__need(cJSON_CreateArray());
  for (int64_t i = 0; i < t->shape[axis]; i++)
    cJSON_AddItemToArray(list, axis + 1 < t->ndim
                                   ? numbers(t, axis + 1, at)
                                   : cJSON_CreateNumber(viv__tensor_number(t, (*at)++)));
  return list;
}

static bool whole(const viv_tensor *t) {
  return (t->dtype == VIV_I64 || t->dtype == VIV_I32) && t->ndim > 0;
}

/* Whether the schema tells what tensor i is. */
static bool explained(const struct hearing *h, size_t i) {
  int64_t row;
  return h->schema &&
         viv__field_find(h->schema, viv__str(h->tensors.names[i]), h->tensors.items[i].ndim, &row);
}

/* Tensors that no schema explains: codes in full, others by their sizes. */
static void add_tensors(struct hearing *h) {
  for (size_t i = 0; i < h->tensors.n; i++) {
    const viv_tensor *t = &h->tensors.items[i];
    const char *name = h->tensors.names[i];
    int64_t at = 0;
    if (explained(h, i)) continue;
    cJSON_AddItemToObject(h->line, name, whole(t) ? numbers(t, 0, &at) : viv__tensor_json(name, t));
  }
}

static void print_numbers(const cJSON *list) {
  const cJSON *item;
  if (cJSON_IsArray(list->child)) {
    cJSON_ArrayForEach(item, list) print_numbers(item);
    return;
  }
  cJSON_ArrayForEach(item, list)
      printf("%s%.0f", item == list->child ? "" : " ", item->valuedouble);
  putchar('\n');
}

/* What a person reads: classes with their probabilities, codes, and what else there is. */
static void print_found(struct hearing *h) {
  const cJSON *item, *classes = cJSON_GetObjectItemCaseSensitive(h->line, "classes");
  const cJSON *embedding = cJSON_GetObjectItemCaseSensitive(h->line, "embedding");
  if (!h->open_line) print_title(h);
  cJSON_ArrayForEach(item, classes) {
    const cJSON *label = cJSON_GetObjectItemCaseSensitive(item, "label");
    double chance = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "probability"));
    if (label)
      printf("%.4f  %s\n", chance, label->valuestring);
    else
      printf("%.4f  class %.0f\n", chance,
             cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "class")));
  }
  if (embedding)
    printf("embedding of %d numbers (--json shows them)\n", cJSON_GetArraySize(embedding));
  for (size_t i = 0; i < h->tensors.n; i++) {
    const char *name = h->tensors.names[i];
    const viv_tensor *t = &h->tensors.items[i];
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(h->line, name);
    if (explained(h, i)) continue;
    if (whole(t) && !strncmp(name, "audio_codes", 11))
      print_numbers(list);
    else
      viv__tensor_print(stdout, name, t);
  }
}

static void put_line(struct hearing *h) {
  const cJSON *text = cJSON_GetObjectItemCaseSensitive(h->line, "text");
  if (h->o->out && to_one_file(h->o->out)) return;
  if (h->lines) {
    char *json = viv__need(cJSON_PrintUnformatted(h->line));
    if (h->o->out)
      viv__buf_fmt(&h->written, "%s\n", json);
    else if (viv__output_open())
      puts(json);
    cJSON_free(json);
  } else if (h->o->out) {
    if (text) viv__buf_fmt(&h->written, "%s\n", text->valuestring);
  } else if (viv__output_open()) {
    if (h->open_line) putchar('\n');
    h->open_line = false;
    if (!text) print_found(h);
  }
  fflush(stdout);
}

static int32_t draw(struct hearing *h, const viv_value *recording, viv_error *error) {
  viv__sound_options options = {0};
  viv__sound sound;
  viv__picture picture;
  int32_t status = viv__sound_decode(recording->bytes.ptr, recording->bytes.len, h->file, &options,
                                     &sound, error);
  if (status < 0) return status;
  status = viv__sound_draw(&sound, h->line, &h->tensors, &picture, error);
  viv__sound_free(&sound);
  if (status < 0) return status;
  if (h->o->preview) {
    viv__progress_clear();
    status = viv__preview(&picture, h->o->preview_as, error);
  }
  if (status >= 0 && h->o->draw) status = viv__drawings_put(&h->drawings, h->file, &picture, error);
  viv__picture_free(&picture);
  return status;
}

static int32_t hear(struct hearing *h, const char *file, viv__outcome *outcome, viv_error *error) {
  viv__input_list inputs = {0};
  int32_t status = viv__inputs_file(&inputs, "audio", file, error);
  h->file = file;
  h->titled = h->open_line = false;
  h->status = VIV_OK;
  h->error = error;
  h->results = (viv__results){.schema = h->schema};
  h->line = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(h->line, "file", file);
  cJSON_AddStringToObject(h->line, "task", h->task);
  if (status >= 0) {
    int n = h->more->n;
    const viv_value **more = viv__inputs_values(h->more), **own = viv__inputs_values(&inputs);
    const viv_value **all = viv__need(viv__calloc((size_t)n + 1, sizeof *all));
    all[0] = own[0];
    memcpy(all + 1, more, (size_t)n * sizeof *all);
    status = viv__job_run(h->l->model, h->task, h->params, all, n + 1, NULL, on_event, h, outcome);
    if (status < 0) *error = outcome->error;
    viv__free(more);
    viv__free(own);
    viv__free(all);
  }
  viv__progress_clear();
  if (status >= 0) status = h->status;
  if (status >= 0 && h->schema) status = viv__results_check(&h->results, 1, error);
  if (status >= 0 && h->schema) {
    const cJSON *threshold = cJSON_GetObjectItemCaseSensitive(h->params, "threshold");
    status = viv__results_json(&h->results, 0, &h->words, threshold ? threshold->valuedouble : 0,
                               h->line, error);
  }
  if (status >= 0 && (h->o->draw || h->o->preview)) {
    const viv_value **own = viv__inputs_values(&inputs);
    status = draw(h, own[0], error);
    viv__free(own);
  }
  if (status >= 0) {
    add_tensors(h);
    put_line(h);
  }
  if (status >= 0 && h->o->out && viv__sound_file_known(h->o->out))
    status = viv__write_sound(h->l, &h->tensors, h->o->out, h->o->vocoder, error);
  else if (status >= 0 && h->o->out && to_one_file(h->o->out))
    status = viv__tensors_write(&h->tensors, h->o->out, error);
  viv__inputs_free(&inputs);
  viv__results_free(&h->results);
  viv__tensors_free(&h->tensors);
  h->tensors = (viv__tensor_list){0};
  cJSON_Delete(h->line);
  return status;
}

/* ---- all of them ---- */

static int32_t prepare(struct hearing *h, int n, viv_error *error) {
  const char *format = h->o->format, *out = h->o->out;
  if (format && strcmp(format, "json"))
    return VIV_FAIL(error, VIV_BAD_INPUT, "--format", "recordings know json, not \"%s\"", format);
  if (out && n > 1 && to_one_file(out))
    return VIV_FAIL(error, VIV_BAD_INPUT, "--out",
                    "\"%s\" holds the result of one recording; several go to .jsonl or .txt", out);
  int32_t status = viv__drawings_open(&h->drawings, h->o->draw, n, "recordings", error);
  if (status < 0) return status;
  h->several = n > 1;
  h->lines = h->o->json || format || (out && (ends_with(out, ".json") || ends_with(out, ".jsonl")));
  if (!h->task) h->task = viv__first_task(h->l);
  if (!h->task)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--task",
                    "the model does not say what it does with a "
                    "recording; name the task");
  h->schema = viv__task_schema_find(h->task);
  return viv__model_vocabulary(h->l, h->o->labels, &h->words, error);
}

int viv__run_sounds(const viv__loaded *l, const char *task, const char *const *args, int n,
                    const viv__list *more, const viv__picture_run *o, cJSON *params) {
  viv_error error = VIV_ERROR_INIT;
  viv__input_list inputs = {0};
  struct hearing h = {.l = l, .o = o, .task = task, .params = params, .more = &inputs};
  int failed = 0, code = VIV__EXIT_OK;
  int32_t status = VIV_OK, last = VIV_OK;
  for (int i = 0; i < more->n && status >= 0; i++)
    status = viv__inputs_pair(&inputs, more->items[i], &error);
  if (status >= 0) status = prepare(&h, n, &error);
  for (int i = 0; i < n && status >= 0; i++) {
    viv_error own = VIV_ERROR_INIT;
    viv__outcome outcome = {0};
    int32_t rc = viv__interrupted() ? VIV_CANCELLED : hear(&h, args[i], &outcome, &own);
    if (rc >= 0 && o->verbose) viv__print_counters(&outcome);
    viv__outcome_free(&outcome);
    if (rc == VIV_CANCELLED) status = rc;
    if (rc >= 0 || rc == VIV_CANCELLED) continue;
    viv__report(o->json, args[i], last = rc, &own);
    failed++;
  }
  bool text = o->out && !to_one_file(o->out);
  if (status >= 0 && text && h.written.len)
    status = viv__write_file(o->out, h.written.ptr, h.written.len, &error);
  else if (status >= 0 && text && !failed)
    status = VIV_FAIL(&error, VIV_NEVER, o->out,
                      "the job gave no text; tensors go to .safetensors, all else to .json");
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->json, NULL, status, &error);
  } else if (failed) {
    if (n > 1) fprintf(stderr, "viv: %d of %d recordings failed\n", failed, n);
    code = n == 1 ? viv__exit_code(last) : failed > 89 ? 99 : 10 + failed;
  }
  viv__inputs_free(&inputs);
  viv__drawings_free(&h.drawings);
  viv__buf_free(&h.written);
  viv__vocabulary_free(&h.words);
  return code;
}
