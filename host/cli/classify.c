/* viv classify: the likeliest classes of texts, by name. */
#include <string.h>
#include <unistd.h>

#include "cli/run.h"

struct classifying {
  viv__loaded l;
  viv__vocabulary words;
  cJSON *load;
  const char *labels, *pair;
  int64_t top; /* 0: all */
  bool json;
};

static void take_probabilities(void *context, const viv_event *event) {
  viv_tensor *p = context;
  if (event->kind == VIV_KIND_TENSOR && viv__str_eq(event->name, "probabilities") && !p->data &&
      event->tensor->dtype == VIV_F32)
    *p = viv__tensor_copy(event->tensor);
}

/* The class's name, or its number where nobody named it. */
static int32_t class_name(const struct classifying *c, int64_t index, char *room, size_t size,
                          const char **out, viv_error *error) {
  int32_t status = viv__name_of(&c->words.classes, index, out, error);
  if (status < 0 || *out) return status;
  snprintf(room, size, "LABEL_%lld", (long long)index); /* as transformers calls it */
  *out = room;
  return VIV_OK;
}

static int32_t print_json(const struct classifying *c, viv_str text, const viv_tensor *p,
                          const int64_t *order, int64_t n, viv_error *error) {
  cJSON *doc = viv__need(cJSON_CreateObject()), *classes = viv__need(cJSON_CreateArray());
  char *copy = viv__need(viv__strndup(text.ptr, text.len)), room[32];
  int32_t status = VIV_OK;
  cJSON_AddStringToObject(doc, "text", copy);
  viv__free(copy);
  if (c->pair) cJSON_AddStringToObject(doc, "pair", c->pair);
  cJSON_AddItemToObject(doc, "classes", classes);
  for (int64_t i = 0; i < n && status >= 0; i++) {
    const char *name = NULL;
    cJSON *one = viv__need(cJSON_CreateObject());
    cJSON_AddItemToArray(classes, one);
    status = class_name(c, order[i], room, sizeof room, &name, error);
    if (status < 0) break;
    cJSON_AddStringToObject(one, "label", name);
    cJSON_AddNumberToObject(one, "class", (double)order[i]);
    cJSON_AddItemToObject(one, "probability", viv__float_json(((const float *)p->data)[order[i]]));
  }
  if (status < 0)
    cJSON_Delete(doc);
  else
    viv__print_json(doc);
  return status;
}

/* One text: a class a line. Several: a line a text, which begins with its likeliest class. */
static int32_t print_classes(const struct classifying *c, viv_str text, const viv_tensor *p,
                             bool several, viv_error *error) {
  int64_t all = viv__numel(p), n = several ? 1 : all;
  if (c->top && c->top < all) n = c->top;
  int64_t *order = viv__need(viv__calloc((size_t)all, sizeof *order));
  viv__top(p->data, all, order, n);
  int32_t status = VIV_OK;
  if (c->json) {
    status = print_json(c, text, p, order, c->top ? n : all > n ? n : all, error);
  } else {
    for (int64_t i = 0; i < n && status >= 0; i++) {
      char room[32];
      const char *name = NULL;
      status = class_name(c, order[i], room, sizeof room, &name, error);
      if (status < 0) break;
      printf("%s%.4f  %s", several && i ? "  " : "", (double)((const float *)p->data)[order[i]],
             name);
      if (!several) putchar('\n');
    }
    if (several && status >= 0) printf("\t%.*s\n", (int)text.len, text.ptr);
  }
  viv__free(order);
  return status;
}

static int32_t classify_one(const struct classifying *c, viv_str text, bool several,
                            viv_error *error) {
  viv_value first = viv__value_text("text", text.ptr, text.len);
  viv_value second = viv__value_text("text_pair", c->pair, c->pair ? strlen(c->pair) : 0);
  const viv_value *values[2] = {&first, &second};
  viv_tensor p = {0};
  viv__outcome o;
  int32_t status = viv__job_run(c->l.model, "classify", NULL, values, c->pair ? 2 : 1, NULL,
                                take_probabilities, &p, &o);
  if (status < 0) *error = o.error;
  viv__outcome_free(&o);
  if (status >= 0 && (!p.data || viv__numel(&p) < 1))
    status = VIV_FAIL(error, VIV_BUG, "classify", "the model gave no probabilities");
  viv__progress_clear();
  if (status >= 0) status = print_classes(c, text, &p, several, error);
  if (p.data) viv__tensor_drop(&p);
  return status;
}

static int32_t classify(struct classifying *c, const char *model, const viv__texts *texts,
                        viv_error *error) {
  int32_t status = viv__load_model(model, c->load, &c->l, error);
  if (status >= 0) status = viv__model_vocabulary(&c->l, c->labels, &c->words, error);
  for (size_t i = 0; i < texts->n && status >= 0; i++) {
    status = classify_one(c, texts->items[i], texts->n > 1, error);
    if (!isatty(STDOUT_FILENO)) viv__progress_show("classifying", (double)i / (double)texts->n);
  }
  viv__progress_clear();
  return status;
}

int viv__cmd_classify(int argc, char **argv) {
  struct classifying c = {.load = viv__need(cJSON_CreateObject())};
  const viv__opt options[] = {
      {"top", 0, VIV__OPT_INT, "N", &c.top, "the N likeliest (all; of several texts 1)", NULL},
      {"pair", 0, VIV__OPT_TEXT, "TEXT", &c.pair, "each text is read together with this second one",
       NULL},
      {"labels", 0, VIV__OPT_TEXT, "FILE", &c.labels, "names of the classes, one a line or JSON",
       NULL},
      VIV__LOAD_OPTIONS(c.load),
      VIV__LOCAL_OPTION,
      {"json", 0, VIV__OPT_FLAG, NULL, &c.json, "one JSON object per text", NULL},
      {0}};
  const viv__usage usage = {"viv classify roberta-sentiment \"What a lovely day\"\n"
                            "viv classify roberta-sentiment lines.txt",
                            "classify [options] MODEL [TEXT... | FILE | -]",
                            "Prints how likely each class of MODEL is for TEXT; for several texts, "
                            "or the lines of FILE or "
                            "of\nstandard input, each with its likeliest class."};
  const char **args = viv__need(viv__calloc((size_t)argc, sizeof *args));
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, argc, args, &n);
  if (code < 0 && n == 1 && isatty(STDIN_FILENO))
    code = viv__usage_error(argv[0], "no text: give it as arguments, a file or through a pipe");
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    viv__texts texts = {0};
    viv__interrupt_catch();
    int32_t status = viv__texts_read(&texts, args + 1, n - 1, &error);
    if (status >= 0) status = classify(&c, args[0], &texts, &error);
    code = status < 0 ? viv__report(c.json, args[0], status, &error) : VIV__EXIT_OK;
    viv__vocabulary_free(&c.words);
    viv__unload_model(&c.l);
    viv__texts_free(&texts);
  }
  viv__free(args);
  cJSON_Delete(c.load);
  return code;
}
