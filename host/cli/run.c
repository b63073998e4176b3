/* viv run: one job. Text streams as it comes; other results are summarised or written to a file. */
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "cli/run.h"
#include "media/sound.h"

enum { MAX_TOKENS = 512 };

/* What the events of one job leave behind. */
struct sink {
  bool json, quiet, open_line;
  const char *out_path;
  viv__tensor_list tensors;
  viv__buf blob; /* the first picture or recording */
  viv__buf text; /* all text, where a file is asked for */
};

static void print_text(struct sink *s, const viv_event *e) {
  if (s->out_path) viv__buf_add(&s->text, e->bytes.ptr, e->bytes.len);
  if (s->json) {
    cJSON *o = viv__need(cJSON_CreateObject());
    char *text = viv__need(viv__strndup(e->bytes.ptr, e->bytes.len));
    char *name = viv__need(viv__strndup(e->name.ptr, e->name.len));
    cJSON_AddStringToObject(o, "event", e->kind == VIV_KIND_JSON ? "json" : "text");
    cJSON_AddStringToObject(o, "name", name);
    viv_json *value = NULL;
    if (e->kind == VIV_KIND_JSON &&
        viv__json_parse(text, e->bytes.len, name, &value, NULL) == VIV_OK)
      cJSON_AddItemToObject(o, "value", (cJSON *)value);
    else
      cJSON_AddStringToObject(o, "text", text);
    viv__free(text);
    viv__free(name);
    viv__print_json(o);
    return;
  }
  if (!e->bytes.len) return;
  viv__progress_clear();
  fwrite(e->bytes.ptr, 1, e->bytes.len, stdout);
  if (e->kind == VIV_KIND_JSON) fputc('\n', stdout);
  fflush(stdout);
  s->open_line = e->kind == VIV_KIND_TEXT && e->bytes.ptr[e->bytes.len - 1] != '\n';
}

static void take_tensor(struct sink *s, const viv_event *e) {
  char *name = viv__need(viv__strndup(e->name.ptr, e->name.len));
  if (s->out_path) viv__tensors_add(&s->tensors, e->name, e->tensor, false);
  if (s->json) {
    cJSON *o = viv__tensor_json(name, e->tensor);
    cJSON_AddStringToObject(o, "event", "tensor");
    viv__print_json(o);
  } else if (!s->out_path) {
    if (s->open_line) fputc('\n', stdout);
    s->open_line = false;
    viv__tensor_print(stdout, name, e->tensor);
  }
  viv__free(name);
}

static void on_event(void *context, const viv_event *e) {
  struct sink *s = context;
  if (!viv__output_open()) return;
  switch (e->kind) {
  case VIV_KIND_TEXT:
  case VIV_KIND_JSON:
    print_text(s, e);
    break;
  case VIV_KIND_TENSOR:
    take_tensor(s, e);
    break;
  case VIV_KIND_PROGRESS:
    if (!s->json && !s->open_line && isatty(STDOUT_FILENO))
      viv__progress_show("reading the prompt", e->progress);
    break;
  case VIV_KIND_IMAGE:
  case VIV_KIND_AUDIO:
    if (!s->blob.len) viv__buf_add(&s->blob, e->bytes.ptr, e->bytes.len);
    break;
  default:
    break;
  }
}

static int32_t write_results(const struct sink *s, const viv__loaded *l, const char *vocoder,
                             viv_error *error) {
  if (!s->out_path) {
    if (s->blob.len)
      fprintf(stderr, "viv: the result is a file of %zu bytes; --out FILE writes it\n",
              s->blob.len);
    return VIV_OK;
  }
  if (s->blob.len) return viv__write_file(s->out_path, s->blob.ptr, s->blob.len, error);
  if (viv__sound_file_known(s->out_path))
    return viv__write_sound(l, &s->tensors, s->out_path, vocoder, error);
  if (s->tensors.n) return viv__tensors_write(&s->tensors, s->out_path, error);
  if (s->text.len) return viv__write_file(s->out_path, s->text.ptr, s->text.len, error);
  return VIV_FAIL(error, VIV_NEVER, s->out_path, "the job gave nothing to write");
}

static void print_end(bool json, const viv__outcome *o) {
  if (!json) return;
  cJSON *end = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(end, "event", "end");
  cJSON_AddStringToObject(end, "status", viv_status_name(o->status));
  if (o->counters) cJSON_AddItemToObject(end, "counters", cJSON_Duplicate(o->counters, 1));
  cJSON_AddNumberToObject(end, "seconds", o->seconds);
  viv__print_json(end);
}

/* The prompt: an argument, "-" or a pipe for standard input. A picture or recording that is named
 * where a prompt stands is sent as what it is. */
static int32_t add_prompt(viv__input_list *inputs, const char *prompt, bool wanted,
                          viv_error *error) {
  size_t len = 0;
  bool from_stdin = prompt ? !strcmp(prompt, "-") : wanted && !isatty(STDIN_FILENO);
  int32_t media = prompt && !access(prompt, R_OK) ? viv__media_kind(prompt) : 0;
  if (media)
    return viv__inputs_file(inputs, media == VIV_KIND_IMAGE ? "image" : "audio", prompt, error);
  if (from_stdin) {
    char *text = viv__read_stdin(&len);
    viv__inputs_bytes(viv__inputs_add(inputs, "text", VIV_KIND_TEXT), text, len);
  } else if (prompt) {
    char *text = viv__need(viv__strdup(prompt));
    viv__inputs_bytes(viv__inputs_add(inputs, "text", VIV_KIND_TEXT), text, strlen(text));
  } else if (wanted) {
    return VIV_FAIL(error, VIV_BAD_INPUT, NULL,
                    "no prompt: give it as an argument or through a pipe (viv run --help)");
  }
  return VIV_OK;
}

/* The model's task when none was named: generate, else the only one, else a question back. */
static const char *choose_task(const viv__loaded *l, const char *wanted, viv_error *error) {
  if (wanted) return wanted;
  const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(l->about, "tasks");
  const char *first = tasks ? NULL : viv__first_task(l);
  if (first) return first;
  if (!tasks || viv__has_task(l, "generate")) return "generate";
  if (cJSON_GetArraySize(tasks) == 1) {
    const cJSON *name = cJSON_IsString(tasks->child)
                            ? tasks->child
                            : cJSON_GetObjectItemCaseSensitive(tasks->child, "name");
    if (cJSON_IsString(name)) return name->valuestring;
  }
  char *list = cJSON_PrintUnformatted(tasks);
  VIV_FAIL(error, VIV_BAD_INPUT, "--task", "the model has several tasks, name one: %s",
           list ? list : "");
  cJSON_free(list);
  return NULL;
}

struct run_options {
  const char *task;
  viv__picture_run picture;
  bool raw;
  viv__pcm pcm;
  cJSON *params, *load, *boxes_from;
  viv__list inputs, points, boxes;
};

/* Everything but pictures: one job of the loaded model. */
static int run_once(const char *model, viv__loaded *l, const char *prompt, struct run_options *o) {
  viv_error error = VIV_ERROR_INIT;
  viv__input_list inputs = {0};
  struct sink sink = {.json = o->picture.json, .out_path = o->picture.out};
  viv__outcome outcome = {.status = VIV_OK};
  int32_t status = VIV_OK;
  for (int i = 0; i < o->inputs.n && status >= 0; i++)
    status = viv__inputs_pair(&inputs, o->inputs.items[i], &error);
  bool text_task = !o->task || !strcmp(o->task, "generate");
  if (status >= 0) status = add_prompt(&inputs, prompt, text_task && !o->inputs.n, &error);
  const char *task = status >= 0 ? choose_task(l, o->task, &error) : NULL;
  if (!task) {
    if (status >= 0) status = error.code;
  } else {
    if (!strcmp(task, "generate")) {
      viv__sampling_defaults(o->params, MAX_TOKENS);
      bool chat = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(l->about, "chat"));
      if (!o->raw && chat && !cJSON_GetObjectItemCaseSensitive(o->params, "chat"))
        cJSON_AddTrueToObject(o->params, "chat");
    }
    const viv_value **values = viv__inputs_values(&inputs);
    status =
        viv__job_run(l->model, task, o->params, values, inputs.n, NULL, on_event, &sink, &outcome);
    viv__free(values);
    error = outcome.error;
    viv__progress_clear();
    if (viv__output_open()) {
      if (sink.open_line) fputc('\n', stdout);
      fflush(stdout);
    }
    if (status >= 0) status = write_results(&sink, l, o->picture.vocoder, &error);
    print_end(o->picture.json, &outcome);
  }
  int code = VIV__EXIT_OK;
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->picture.json && !outcome.status, model, status, &error);
  }
  if (o->picture.verbose && task && status >= 0) viv__print_counters(&outcome);
  viv__outcome_free(&outcome);
  viv__tensors_free(&sink.tensors);
  viv__buf_free(&sink.blob);
  viv__buf_free(&sink.text);
  viv__inputs_free(&inputs);
  return code;
}

/* A model with a usable tokenizer: what is no picture is a text for it. */
static bool reads_text(const viv__loaded *l) {
  const cJSON *fault = cJSON_GetObjectItemCaseSensitive(l->about, "tokenizer");
  return cJSON_IsString(fault) && !*fault->valuestring;
}

/* Whether the arguments ask for a task of pictures, and which. NULL: for something else. */
static const viv__task_schema *picture_task(const viv__loaded *l, const struct run_options *o,
                                            const char *const *args, int n) {
  const viv__picture_run *p = &o->picture;
  bool asked = p->draw || p->format || p->labels || p->frames || p->preview || p->detector.model ||
               p->intrinsics || p->camera || p->polygons;
  bool piped = n == 0 || !strcmp(args[0], "-");
  if (o->inputs.n || (!n && isatty(STDIN_FILENO))) return NULL;
  if (!asked && !viv__pictures_named(args, n) && reads_text(l)) return NULL;
  if (!asked && !viv__pictures_named(args, n) && !(piped && !viv__has_task(l, "generate")) &&
      !viv__task_schema_find(o->task))
    return NULL;
  return viv__picture_task(l, o->task);
}

/* A model that would not look at what is pointed at: the answer would seem to be about it. */
static bool unasked(const viv__loaded *l, const struct run_options *o, viv_error *error) {
  const char *option = o->points.n && !viv__takes_prompt(l, "point_coords") ? "--point"
                       : o->boxes.n && !viv__takes_prompt(l, "boxes")       ? "--box"
                                                                            : NULL;
  if (option) VIV_FAIL(error, VIV_NEVER, option, "this model can't be pointed at things so");
  return option != NULL;
}

static int run(const char *model, const char *const *args, int n, struct run_options *o) {
  viv_error error = VIV_ERROR_INIT;
  viv__loaded l = {0};
  int code;
  int32_t status = viv__prompts_read(&o->points, &o->boxes, o->params, &error);
  if (status >= 0) status = viv__load_model(model, o->load, &l, &error);
  bool sounds = viv__sounds_named(args, n), volumes = viv__volumes_named(args, n);
  const viv__task_schema *schema =
      status >= 0 && !sounds && !volumes ? picture_task(&l, o, args, n) : NULL;
  if (status == VIV_CANCELLED) {
    fprintf(stderr, "viv: cancelled\n");
    code = VIV__EXIT_CANCELLED;
  } else if (status < 0) {
    code = viv__report(o->picture.json, model, status, &error);
  } else if (schema && unasked(&l, o, &error)) {
    code = viv__report(o->picture.json, model, error.code, &error);
  } else if (schema) {
    code = viv__run_pictures(&l, schema, args, n, &o->picture, o->params);
  } else if (viv__codes_asked(&l, args, n, o->picture.out)) {
    code = viv__run_codes(&l, n ? args[0] : NULL, o->picture.out, o->picture.json, o->params);
  } else if (volumes) {
    code = viv__run_volumes(&l, o->task, args, n, &o->picture, o->params);
  } else if (o->pcm.kind) {
    code = n == 1 && !strcmp(args[0], "-")
               ? viv__run_live(&l, model, o->task, &o->pcm, o->picture.json, o->params)
               : viv__usage_error("run", "--pcm is about standard input: MODEL -");
  } else if (sounds) {
    code = viv__run_sounds(&l, o->task, args, n, &o->inputs, &o->picture, o->params);
  } else if (n > 1) {
    code = viv__usage_error("run", "\"%s\" is one argument too many for a prompt", args[1]);
  } else {
    code = run_once(model, &l, n ? args[0] : NULL, o);
  }
  viv__unload_model(&l);
  return code;
}

int viv__cmd_run(int argc, char **argv) {
  struct run_options o = {.pcm.channels = 1,
                          .params = viv__need(cJSON_CreateObject()),
                          .load = viv__need(cJSON_CreateObject()),
                          .boxes_from = viv__need(cJSON_CreateObject())};
  const viv__opt options[] = {
      VIV__GENERATE_OPTIONS(o.params),
      {"raw", 0, VIV__OPT_FLAG, NULL, &o.raw, "no chat template around the prompt", NULL},
      {"task", 0, VIV__OPT_TEXT, "NAME", &o.task, "the task, where a model has several", NULL},
      {"input", 'i', VIV__OPT_LIST, "NAME=FILE", &o.inputs,
       "an input from a file, or NAME=@TEXT; may be repeated", NULL},
      {"out", 'o', VIV__OPT_TEXT, "FILE", &o.picture.out,
       "write the tensors (.safetensors), the file, the text or the JSON made; into FOLDER/", NULL},
      {"draw", 0, VIV__OPT_TEXT, "OUT", &o.picture.draw,
       "pictures, recordings: draw the results, into a .png or a folder", NULL},
      {"preview", 0, VIV__OPT_FLAG, NULL, &o.picture.preview,
       "pictures, recordings: show the drawing on the terminal", NULL},
      {"preview-as", 0, VIV__OPT_TEXT, "WAY", &o.picture.preview_as,
       "kitty, sixel or blocks, where the terminal is not known", NULL},
      {"format", 0, VIV__OPT_TEXT, "KIND", &o.picture.format,
       "pictures: json (a line each), or coco's results; files in FOLDER/: png, pfm, npy, ply",
       NULL},
      {"threshold", 0, VIV__OPT_NUMBER, "X", o.params, "pictures: leave out scores below X",
       "threshold"},
      {"point", 0, VIV__OPT_LIST, "X,Y", &o.points,
       "pictures: what lies there (X,Y,0: what does not); may be repeated", NULL},
      {"box", 0, VIV__OPT_LIST, "X0,Y0,X1,Y1", &o.boxes,
       "pictures: what lies in the box; may be repeated", NULL},
      VIV__DETECTOR_OPTIONS(o.picture.detector, o.boxes_from),
      {"intrinsics", 0, VIV__OPT_TEXT, "FX,FY,CX,CY", &o.picture.intrinsics,
       "depth as points (.ply) or from several frames: the camera, in pixels", NULL},
      {"polygons", 0, VIV__OPT_TEXT, "PX", &o.picture.polygons,
       "masks as polygons that miss them by at most PX pixels (0: exact)", NULL},
      {"camera", 0, VIV__OPT_TEXT, "FILE", &o.picture.camera,
       "frames: write the camera's motion and intrinsics, as JSON", NULL},
      {"labels", 0, VIV__OPT_TEXT, "FILE", &o.picture.labels,
       "pictures: names of the classes, one a line or JSON", NULL},
      {"pcm", 0, VIV__OPT_TEXT, "KIND", &o.pcm.kind,
       "sound: standard input holds samples, s16 or f32", NULL},
      {"rate", 0, VIV__OPT_INT, "HZ", &o.pcm.rate, "sound: their rate", NULL},
      {"channels", 0, VIV__OPT_INT, "N", &o.pcm.channels, "sound: their channels (1)", NULL},
      {"vocoder", 0, VIV__OPT_TEXT, "MODEL", &o.picture.vocoder,
       "speech: makes sound of the spectrogram for --out FILE.wav", NULL},
      {"frames", 0, VIV__OPT_TEXT, "WxH", &o.picture.frames,
       "pictures: standard input holds raw RGB frames of this size", NULL},
      VIV__LOAD_OPTIONS(o.load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &o.picture.json, "one JSON object per event", NULL},
      {"verbose", 'v', VIV__OPT_FLAG, NULL, &o.picture.verbose, "counters and tokens/s at the end",
       NULL},
      {0}};
  const viv__usage usage = {
      "viv run sambay-reasoner \"What is 12 + 30?\"\n"
      "viv run --temp 0.8 --seed 7 -v models/stories260K \"Once upon a time\"\n"
      "viv run --task forward -i input_ids=ids.safetensors --out logits.safetensors MODEL\n"
      "viv run MODEL photo.jpg --draw out.png\n"
      "viv run POSE-MODEL photos/ --detector DETECTOR --draw drawn/",
      "run [options] MODEL [PROMPT | PICTURE... | RECORDING... | CODES | FOLDER | -]",
      "Runs MODEL once; on pictures and recordings, once for each. The prompt, or a video's "
      "frames, come from the "
      "argument\nor from standard input."};
  const char **args = viv__need(viv__calloc((size_t)argc, sizeof *args));
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, argc, args, &n);
  if (code < 0 && n > 2 && !viv__pictures_named(args + 1, n - 1) &&
      !viv__volumes_named(args + 1, n - 1) && !viv__sounds_named(args + 1, n - 1))
    code = viv__usage_error(argv[0], "\"%s\" is one argument too many (usage: viv %s)", args[2],
                            usage.synopsis);
  if (code < 0) code = viv__detector_usage(argv[0], &o.picture.detector, o.boxes_from);
  if (code < 0) {
    viv__interrupt_catch();
    code = run(args[0], args + 1, n - 1, &o);
  }
  viv__free(args);
  cJSON_Delete(o.params);
  cJSON_Delete(o.load);
  cJSON_Delete(o.boxes_from);
  return code;
}
