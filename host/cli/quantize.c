/* viv quantize: a checkpoint with its matrices in fewer bits, and what that costs. */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/quantize.h"

enum { TEXT_LIMIT = 64 << 20 };

/* What the perplexity is measured on when no text is given. */
static const char own_text[] =
    "The old bridge over the river was closed in spring, when the ice had pushed one of its four "
    "piers out of line. For two months everybody who wanted to go to the market had to take the "
    "ferry, which ran twice a day and carried eleven people, or walk the long way round by the "
    "mill. The miller had never sold so much bread.\n\n"
    "In May a young engineer came with a theodolite, a tent and a box of books. She measured the "
    "pier from both banks, at dawn and at noon, because iron grows in the sun, and wrote all "
    "numbers into a table. The pier had moved by nineteen centimetres. It moved no more. The "
    "council asked whether the bridge could be opened again; she answered that it could carry "
    "people and sheep, but no carts, until the arch beside the pier had been built anew.\n\n"
    "So the arch was built anew. Masons cut the stones in the quarry, because it is cheaper to "
    "carry a small stone than a large one, and numbered each of them with red chalk. When the "
    "last stone was in its place, the carpenters knocked out the wedges under the wooden frame, "
    "one after the other, and the arch settled by the width of a finger. The engineer stood "
    "below it while they did so. People said that this was brave. She said that it was "
    "arithmetic.\n";

struct quantizing {
  const char *source, *target, *dtype, *group, *text_file, *calibrate;
  bool json, lines;
  char *text;
  size_t text_len;
  viv__score before, after;
  bool scored;
  viv__quantize_plan plan;
};

static bool on_progress(void *self, double part) {
  (void)self;
  viv__progress_show("quantizing", part);
  return !viv__interrupted();
}

static int32_t read_texts(struct quantizing *q, char **calibrate, size_t *len, viv_error *error) {
  int32_t status = VIV_OK;
  if (q->text_file)
    status = viv__read_file(q->text_file, TEXT_LIMIT, &q->text, &q->text_len, error);
  else
    q->text = viv__need(viv__strdup(own_text));
  if (!q->text_file) q->text_len = strlen(own_text);
  if (status >= 0 && q->calibrate)
    status = viv__read_file(q->calibrate, TEXT_LIMIT, calibrate, len, error);
  return status;
}

/* A text scored by the written checkpoint, which is so proved to load. */
static int32_t score_target(struct quantizing *q, const cJSON *load, viv_error *error) {
  viv__loaded l;
  viv__local = true; /* it is scored once and not wanted again */
  int32_t status = viv__load_model(q->target, load, &l, error);
  if (status < 0) return status;
  if (q->scored)
    status = viv__score_text(l.model, (viv_str){q->text, q->text_len}, VIV__SCORE_WINDOW, q->lines,
                             &q->after, error);
  viv__unload_model(&l);
  return status;
}

/* Models that score no texts (pictures, sounds) are quantised all the same, unmeasured. */
static int32_t quantize(struct quantizing *q, const cJSON *load, viv_error *error) {
  char *calibrate = NULL, *path = NULL;
  char *params = load->child ? viv__need(cJSON_PrintUnformatted(load)) : NULL;
  size_t len = 0;
  viv_runtime *rt = NULL;
  viv_model *model = NULL;
  viv__recorder *recorder = NULL;
  int32_t status = read_texts(q, &calibrate, &len, error);
  if (status >= 0 && !(path = viv__model_path(q->source, error))) status = VIV_NEVER;
  if (status >= 0) status = viv__open_runtime(&rt, error);
  if (status >= 0) recorder = viv__need(viv__record(rt));
  if (status >= 0) status = viv_load(rt, path, params, &model, error);
  if (status >= 0 && calibrate) {
    viv__score unused = {0};
    status = viv__score_text(model, (viv_str){calibrate, len}, VIV__SCORE_WINDOW, q->lines, &unused,
                             error);
    viv__free(unused.argmax);
    q->plan.important = true;
  }
  if (status >= 0) status = viv__quantize(model, recorder, q->target, &q->plan, error);
  viv__progress_clear();
  /* Behind the quantising, so that only the calibration text's products were noted by then. */
  viv_error unscored = VIV_ERROR_INIT;
  q->scored =
      status >= 0 && viv__score_text(model, (viv_str){q->text, q->text_len}, VIV__SCORE_WINDOW,
                                     q->lines, &q->before, &unscored) >= 0;
  if (model) viv_unload(model);
  viv__record_end(recorder);
  if (rt) viv_close(rt);
  viv__free(path);
  viv__free(calibrate);
  cJSON_free(params);
  return status < 0 ? status : score_target(q, load, error);
}

static void print_result(const struct quantizing *q) {
  const viv__quantize_plan *p = &q->plan;
  char before[32], after[32];
  if (q->json) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(doc, "path", q->target);
    cJSON_AddStringToObject(doc, "dtype", viv__dtype_name(p->dtype));
    cJSON_AddNumberToObject(doc, "tensors", (double)p->taken);
    cJSON_AddNumberToObject(doc, "tensors_kept", (double)p->kept);
    cJSON_AddNumberToObject(doc, "bytes_before", (double)p->bytes_before);
    cJSON_AddNumberToObject(doc, "bytes_after", (double)p->bytes_after);
    if (q->scored) {
      cJSON_AddNumberToObject(doc, "perplexity_before", q->before.perplexity);
      cJSON_AddNumberToObject(doc, "perplexity_after", q->after.perplexity);
    }
    viv__print_json(doc);
    return;
  }
  printf("%s: %lld matrices as %s, %lld tensors as they were, %s -> %s\n", q->target,
         (long long)p->taken, viv__dtype_name(p->dtype), (long long)p->kept,
         viv__size_text((double)p->bytes_before, before),
         viv__size_text((double)p->bytes_after, after));
  if (q->scored)
    printf("perplexity of %lld tokens: %.4f -> %.4f (x %.4f)\n", (long long)q->before.tokens,
           q->before.perplexity, q->after.perplexity, q->after.perplexity / q->before.perplexity);
  else
    printf("perplexity not measured: the model scores no text\n");
}

int viv__cmd_quantize(int argc, char **argv) {
  struct quantizing q = {.dtype = "int8"};
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      {"dtype", 0, VIV__OPT_TEXT, "KIND", &q.dtype,
       "int8 (the default), int4, q8_0, q4_0, q4_1, f16 or bf16", NULL},
      {"group", 'g', VIV__OPT_TEXT, "N", &q.group,
       "values that share a scale: 32 (the default), 128 or row", NULL},
      {"calibrate", 0, VIV__OPT_TEXT, "FILE", &q.calibrate,
       "weigh errors by what the model computes on this text", NULL},
      {"text", 0, VIV__OPT_TEXT, "FILE", &q.text_file,
       "measure the perplexity on this text, not on the built-in one", NULL},
      {"lines", 'l', VIV__OPT_FLAG, NULL, &q.lines, "each line of these is a text of its own",
       NULL},
      {"plugin", 0, VIV__OPT_SET, "ID", load, "take this plugin", "plugin"},
      {"json", 0, VIV__OPT_FLAG, NULL, &q.json, "the result as one JSON object", NULL},
      {0}};
  const viv__usage usage = {
      "viv quantize sambay-reasoner reasoner-int8\n"
      "viv quantize --dtype int4 --group 128 model.gguf model-int4",
      "quantize [options] MODEL FOLDER",
      "Writes MODEL's checkpoint to FOLDER with its matrices in fewer bits, and the perplexity of\n"
      "a text before and after. Vectors, small matrices and those whose rows are not a multiple "
      "of\n"
      "the group stay as they are. docs/formats.md has the layout of the file."};
  const char *args[2] = {NULL, NULL};
  viv_error error = VIV_ERROR_INIT;
  int n = 0, code = viv__options(&usage, options, argc, argv, 2, 2, args, &n);
  if (code < 0) {
    q.source = args[0];
    q.target = args[1];
    q.plan.progress = on_progress;
    viv__interrupt_catch();
    int32_t status = viv__quantize_dtype(q.dtype, q.group, &q.plan.dtype, &error);
    if (status >= 0) status = quantize(&q, load, &error);
    viv__progress_clear();
    if (status >= 0) print_result(&q);
    code = status < 0 ? viv__report(q.json, q.source, status, &error) : VIV__EXIT_OK;
  }
  viv__free(q.text);
  viv__free(q.before.argmax);
  viv__free(q.after.argmax);
  cJSON_Delete(load);
  return code;
}
