/* viv new-plugin NAME: writes a plugin that builds against the installed headers alone, runs, and
 * passes the validator, for its author to change. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/cli.h"

/* ---- the files; @NAME@ becomes the plugin's name ---- */

static const char manifest[] = "{\n"
                               "  \"id\": \"@NAME@\",\n"
                               "  \"version\": \"0.1.0\",\n"
                               "  \"abi\": {\"major\": 1, \"minor\": 0},\n"
                               "  \"kind\": \"model\",\n"
                               "  \"interfaces\": [\"viv.model/1\"],\n"
                               "  \"model_types\": [\"@NAME@\"],\n"
                               "  \"architectures\": [],\n"
                               "  \"tasks\": [\"forward\"],\n"
                               "  \"cpu\": [],\n"
                               "  \"batch\": false,\n"
                               "  \"cancel_latency_ms\": 100,\n"
                               "  \"license\": \"MIT\"\n"
                               "}\n";

static const char plugin_c[] =
    "/* @NAME@ behind viv.model/1: configuration to dimensions, checkpoint to weights, jobs "
    "to steps. */\n"
    "#include <stdio.h>\n"
    "#include <string.h>\n"
    "\n"
    "#include <vivarium/model.h>\n"
    "\n"
    "#include \"forward.h\"\n"
    "\n"
    "#define STR(text) ((viv_str){(text), sizeof(text) - 1})\n"
    "\n"
    "struct viv_plugin_model {\n"
    "  const viv_host *host;\n"
    "  struct model m;\n"
    "};\n"
    "\n"
    "struct viv_plugin_job {\n"
    "  const viv_host *host;\n"
    "  viv_job *job;\n"
    "  const struct model *m;\n"
    "  const viv_tensor *x; /* [rows, dim], lives until job_end */\n"
    "  viv_tensor y;        /* [rows, dim] */\n"
    "  int computed;\n"
    "};\n"
    "\n"
    "/* Fills the caller's error and answers code. where names the input, message says what "
    "to do. */\n"
    "static int32_t fail(viv_error *error, int32_t code, int line, const char *where,\n"
    "                    const char *message) {\n"
    "  if (error && error->struct_size >= sizeof *error) {\n"
    "    error->code = code;\n"
    "    error->line = line;\n"
    "    snprintf(error->source, sizeof error->source, \"%s\", \"@NAME@/plugin.c\");\n"
    "    snprintf(error->where, sizeof error->where, \"%s\", where);\n"
    "    snprintf(error->message, sizeof error->message, \"%s\", message);\n"
    "  }\n"
    "  return code;\n"
    "}\n"
    "#define FAIL(code, where, message) fail(error, (code), __LINE__, (where), (message))\n"
    "\n"
    "/* ---- loading ---- */\n"
    "\n"
    "/* Reads the dimensions. Every number that comes from a file is checked once, here. */\n"
    "static int32_t read_config(const viv_host *host, const viv_model_source *source, struct "
    "model *m,\n"
    "                           viv_error *error) {\n"
    "  double dim = host->json_number(host->json_member(source->config, STR(\"dim\")));\n"
    "  if (!(dim >= 1 && dim <= 65536) || dim != (double)(int32_t)dim)\n"
    "    return FAIL(VIV_BAD_INPUT, \"config.json: dim\", \"must be a whole number from 1 to "
    "65536\");\n"
    "  m->dim = (int32_t)dim;\n"
    "  m->compute = host->get_extension(host->self, STR(VIV_COMPUTE_ID));\n"
    "  if (!m->compute)\n"
    "    return FAIL(VIV_NEVER, VIV_COMPUTE_ID, \"this host does not offer the extension\");\n"
    "  return VIV_OK;\n"
    "}\n"
    "\n"
    "/* Finds the weights and checks their shapes. */\n"
    "static int32_t find_weights(const viv_host *host, const viv_model_source *source,\n"
    "                            const struct model *m, viv_tensor *weight, viv_tensor *bias,\n"
    "                            viv_error *error) {\n"
    "  weight->struct_size = bias->struct_size = sizeof *weight;\n"
    "  if (host->tensor_find(source->checkpoint, STR(\"linear.weight\"), weight) < 0 ||\n"
    "      weight->ndim != 2 || weight->shape[0] != m->dim || weight->shape[1] != m->dim)\n"
    "    return FAIL(VIV_BAD_INPUT, \"linear.weight\", \"must be there with the shape [dim, "
    "dim]\");\n"
    "  if (host->tensor_find(source->checkpoint, STR(\"linear.bias\"), bias) < 0 || "
    "bias->ndim != 1 ||\n"
    "      bias->shape[0] != m->dim)\n"
    "    return FAIL(VIV_BAD_INPUT, \"linear.bias\", \"must be there with the shape [dim]\");\n"
    "  return VIV_OK;\n"
    "}\n"
    "\n"
    "static int32_t plan(const viv_host *host, const viv_model_source *source, "
    "viv_memory_plan *out,\n"
    "                    viv_error *error) {\n"
    "  struct model m = {0};\n"
    "  viv_tensor weight = {0}, bias = {0};\n"
    "  int32_t status = read_config(host, source, &m, error);\n"
    "  if (status == VIV_OK) status = find_weights(host, source, &m, &weight, &bias, error);\n"
    "  if (status < 0) return status;\n"
    "  out->model_bytes = sizeof(viv_plugin_model) + (uint64_t)m.dim * sizeof(float) +\n"
    "                     m.compute->weight_bytes(m.compute, &weight, source->weight_policy) "
    "+ 4096;\n"
    "  out->step_row_bytes = (uint64_t)m.dim * sizeof(float);\n"
    "  return VIV_OK;\n"
    "}\n"
    "\n"
    "static int32_t open_model(const viv_host *host, const viv_model_source *source,\n"
    "                          viv_plugin_model **out, viv_error *error) {\n"
    "  struct model m = {0};\n"
    "  viv_tensor weight = {0}, bias = {0};\n"
    "  viv_weight *prepared = NULL;\n"
    "  int32_t status = read_config(host, source, &m, error);\n"
    "  if (status == VIV_OK) status = find_weights(host, source, &m, &weight, &bias, error);\n"
    "  if (status < 0) return status;\n"
    "  viv_plugin_model *p = host->arena_alloc(source->arena, sizeof *p);\n"
    "  if (!p) return FAIL(VIV_NOT_NOW, \"open\", \"the model's memory is used up\");\n"
    "  status = m.compute->weight_prepare(m.compute, source->arena, &weight, "
    "source->weight_policy,\n"
    "                                     &prepared, error);\n"
    "  if (status < 0) return status;\n"
    "  m.weight = prepared;\n"
    "  m.bias = m.compute->floats(m.compute, source->arena, &bias);\n"
    "  if (!m.bias) return FAIL(VIV_NOT_NOW, \"linear.bias\", \"no memory, or no numbers\");\n"
    "  p->host = host;\n"
    "  p->m = m;\n"
    "  *out = p;\n"
    "  return VIV_OK;\n"
    "}\n"
    "\n"
    "static void close_model(viv_plugin_model *model) {\n"
    "  (void)model; /* everything lies in the model's arena, which the host frees */\n"
    "}\n"
    "\n"
    "static viv_str describe(const viv_plugin_model *model) {\n"
    "  (void)model;\n"
    "  return STR(\"{\\\"tasks\\\":{\\\"forward\\\":{\\\"inputs\\\":{\\\"x\\\":{\\\"kind\\\":"
    "\\\"tensor\\\",\\\"dtype\\\":\\\"F32\\\",\"\n"
    "             \"\\\"shape\\\":[\\\"rows\\\",\\\"dim\\\"]}},\\\"outputs\\\":{\\\"y\\\":{\\"
    "\"kind\\\":\\\"tensor\\\",\"\n"
    "             \"\\\"dtype\\\":\\\"F32\\\",\\\"shape\\\":[\\\"rows\\\",\\\"dim\\\"]}}}}}\""
    ");\n"
    "}\n"
    "\n"
    "/* ---- jobs ---- */\n"
    "\n"
    "static int same(viv_str a, const char *text) {\n"
    "  return a.len == strlen(text) && !memcmp(a.ptr, text, a.len);\n"
    "}\n"
    "\n"
    "static int32_t job_begin(viv_plugin_model *model, const viv_plugin_request *request, "
    "viv_job *job,\n"
    "                         viv_plugin_job **out, viv_error *error) {\n"
    "  const viv_host *host = model->host;\n"
    "  const viv_tensor *x = NULL;\n"
    "  if (!same(request->task, \"forward\"))\n"
    "    return FAIL(VIV_BAD_INPUT, \"task\", \"this model knows the task forward only\");\n"
    "  for (int32_t i = 0; i < request->n_inputs; i++)\n"
    "    if (same(request->inputs[i]->name, \"x\") && request->inputs[i]->kind == "
    "VIV_KIND_TENSOR)\n"
    "      x = request->inputs[i]->tensor;\n"
    "  if (!x || x->dtype != VIV_F32 || x->ndim != 2 || x->shape[1] != model->m.dim)\n"
    "    return FAIL(VIV_BAD_INPUT, \"x\", \"must be an F32 tensor of the shape [rows, "
    "dim]\");\n"
    "  viv_arena *arena = host->job_arena(job);\n"
    "  viv_plugin_job *j = arena ? host->arena_alloc(arena, sizeof *j) : NULL;\n"
    "  float *y = j ? host->arena_alloc(arena, x->bytes) : NULL;\n"
    "  if (!y) return FAIL(VIV_NOT_NOW, \"job\", \"no memory for the result\");\n"
    "  *j = (viv_plugin_job){.host = host, .job = job, .m = &model->m, .x = x};\n"
    "  j->y = (viv_tensor){.struct_size = sizeof j->y,\n"
    "                      .data = y,\n"
    "                      .bytes = x->bytes,\n"
    "                      .dtype = VIV_F32,\n"
    "                      .ndim = 2,\n"
    "                      .shape = {x->shape[0], x->shape[1]}};\n"
    "  *out = j;\n"
    "  return VIV_OK;\n"
    "}\n"
    "\n"
    "/* One step computes everything here. A longer pass makes a bounded piece of work per "
    "step, answers\n"
    " * MORE, and polls at least as often as the manifest's cancel_latency_ms says. */\n"
    "static int32_t job_step(viv_plugin_job *j, viv_error *error) {\n"
    "  (void)error;\n"
    "  int32_t status = j->host->job_poll(j->job);\n"
    "  if (status < 0) return status;\n"
    "  if (!j->computed) forward(j->m, j->x->data, j->x->shape[0], j->y.data);\n"
    "  j->computed = 1; /* after WAIT the step comes again, with the same event */\n"
    "  viv_event event = {.struct_size = sizeof event,\n"
    "                     .kind = VIV_KIND_TENSOR,\n"
    "                     .name = STR(\"y\"),\n"
    "                     .tensor = &j->y};\n"
    "  status = j->host->job_emit(j->job, &event);\n"
    "  return status == VIV_OK ? VIV_DONE : status;\n"
    "}\n"
    "\n"
    "static void job_end(viv_plugin_job *j) {\n"
    "  (void)j;\n"
    "}\n"
    "\n"
    "/* ---- the tables ---- */\n"
    "\n"
    "static const viv_model_api model_api = {.struct_size = sizeof model_api,\n"
    "                                        .abi_major = VIV_ABI_MAJOR,\n"
    "                                        .abi_minor = VIV_ABI_MINOR,\n"
    "                                        .plan = plan,\n"
    "                                        .open = open_model,\n"
    "                                        .close = close_model,\n"
    "                                        .describe = describe,\n"
    "                                        .job_begin = job_begin,\n"
    "                                        .job_step = job_step,\n"
    "                                        .job_end = job_end};\n"
    "\n"
    "static const void *get_interface(viv_str id) {\n"
    "  return same(id, VIV_MODEL_ID) ? &model_api : NULL;\n"
    "}\n"
    "\n"
    "static const viv_plugin plugin = {.struct_size = sizeof plugin,\n"
    "                                  .abi_major = VIV_ABI_MAJOR,\n"
    "                                  .abi_minor = VIV_ABI_MINOR,\n"
    "                                  .id = STR(\"@NAME@\"),\n"
    "                                  .version = STR(\"0.1.0\"),\n"
    "                                  .get_interface = get_interface};\n"
    "\n"
    "const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error) {\n"
    "  if (host->abi_major < VIV_ABI_MAJOR || host->abi_oldest_major > VIV_ABI_MAJOR) {\n"
    "    char text[128];\n"
    "    snprintf(text, sizeof text, \"this plugin speaks ABI %d.0 to %d.%d, the host %u.0 "
    "to %u.%u\",\n"
    "             VIV_ABI_MAJOR, VIV_ABI_MAJOR, VIV_ABI_MINOR, host->abi_oldest_major, "
    "host->abi_major,\n"
    "             host->abi_minor);\n"
    "    FAIL(VIV_NEVER, \"viv_plugin_entry\", text);\n"
    "    return NULL;\n"
    "  }\n"
    "  return &plugin;\n"
    "}\n";

static const char forward_h[] =
    "/* The model: its dimensions, its weights, its pass. */\n"
    "#ifndef FORWARD_H\n"
    "#define FORWARD_H\n"
    "\n"
    "#include <vivarium/compute.h>\n"
    "\n"
    "struct model {\n"
    "  const viv_compute *compute;\n"
    "  int32_t dim;              /* config.json: dim */\n"
    "  const viv_weight *weight; /* linear.weight [dim, dim] */\n"
    "  const float *bias;        /* linear.bias [dim] */\n"
    "};\n"
    "\n"
    "void forward(const struct model *m, const float *x, int64_t rows, float *y);\n"
    "\n"
    "#endif\n";

static const char forward_c[] =
    "/* One linear layer, row by row:  y = W x + b\n"
    " *\n"
    " * This file is the paper: write the pass here as a reader would check it, the formula "
    "first and a\n"
    " * shape on every pointer. Threads, number formats and files are the host's business. */\n"
    "#include \"forward.h\"\n"
    "\n"
    "/*   x  [rows, dim]\n"
    " *   y  [rows, dim]\n"
    " */\n"
    "void forward(const struct model *m, const float *x, int64_t rows, float *y) {\n"
    "  m->compute->linear(m->compute, m->weight, m->bias, x, y, rows);\n"
    "}\n";

static const char export_map[] = "{\n"
                                 "  global: viv_plugin_entry;\n"
                                 "  local: *;\n"
                                 "};\n";

static const char makefile[] =
    "# make            builds @NAME@.so and @NAME@.json\n"
    "# make model      writes a tiny model for it: y = x + 0.5, and an input x\n"
    "# make check      what viv-validate says about it\n"
    "# make run        runs the model\n"
    "# make install    puts the plugin where the host looks for it\n"
    "CC     ?= cc\n"
    "CFLAGS ?= -O2 -g\n"
    "ABI    := $(shell pkg-config --cflags vivarium)\n"
    "\n"
    "all: @NAME@.so @NAME@.json\n"
    "\n"
    "@NAME@.so: plugin.c forward.c forward.h export.map\n"
    "\t$(CC) -std=c11 $(CFLAGS) -Wall -Wextra -fPIC -fvisibility=hidden $(ABI) -shared "
    "-Wl,-z,defs \\\n"
    "\t  -Wl,--version-script=export.map -o $@ plugin.c forward.c -lm\n"
    "\n"
    "@NAME@.json: manifest.json\n"
    "\tcp manifest.json $@\n"
    "\n"
    "# A safetensors file is the length of its header (8 bytes), the header (JSON), the "
    "numbers.\n"
    "ZERO := \\000\\000\\000\\000\n"
    "ONE  := \\000\\000\\200\\077\n"
    "HALF := \\000\\000\\000\\077\n"
    "\n"
    "model: model/config.json model/model.safetensors x.safetensors\n"
    "\n"
    "model/config.json:\n"
    "\tmkdir -p model\n"
    "\tprintf '{\"model_type\": \"@NAME@\", \"dim\": 4}\\n' > $@\n"
    "\n"
    "model/model.safetensors:\n"
    "\tmkdir -p model\n"
    "\tprintf '\\240\\000\\000\\000\\000\\000\\000\\000' > $@\n"
    "\tprintf '%-160s' '{\"linear.weight\":{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets"
    "\":[0,64]},\"linear.bias\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[64,80]}}' "
    ">> $@\n"
    "\tprintf '$(ONE)$(ZERO)$(ZERO)$(ZERO)$(ZERO)$(ONE)$(ZERO)$(ZERO)' >> $@\n"
    "\tprintf '$(ZERO)$(ZERO)$(ONE)$(ZERO)$(ZERO)$(ZERO)$(ZERO)$(ONE)' >> $@\n"
    "\tprintf '$(HALF)$(HALF)$(HALF)$(HALF)' >> $@\n"
    "\n"
    "x.safetensors:\n"
    "\tprintf '\\120\\000\\000\\000\\000\\000\\000\\000' > $@\n"
    "\tprintf '%-80s' '{\"x\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]}}' "
    ">> $@\n"
    "\tprintf '$(ZERO)$(ONE)$(HALF)$(ONE)$(ONE)$(ONE)$(HALF)$(ZERO)' >> $@\n"
    "\n"
    "check: all model\n"
    "\tviv-validate --model model @NAME@.so\n"
    "\n"
    "run: all model\n"
    "\tVIV_PLUGIN_PATH=. viv run model --task forward -i x=x.safetensors\n"
    "\n"
    "install: all\n"
    "\tinstall -d $(DESTDIR)$(shell pkg-config --variable=plugindir vivarium)\n"
    "\tinstall -m 755 @NAME@.so $(DESTDIR)$(shell pkg-config --variable=plugindir vivarium)\n"
    "\tinstall -m 644 @NAME@.json $(DESTDIR)$(shell pkg-config --variable=plugindir vivarium)\n"
    "\n"
    "clean:\n"
    "\trm -rf @NAME@.so @NAME@.json model x.safetensors\n"
    "\n"
    ".PHONY: all model check run install clean\n";

static const char readme[] =
    "@NAME@: a Vivarium plugin.\n"
    "\n"
    "  forward.c      the pass; start here\n"
    "  plugin.c       configuration to dimensions, checkpoint to weights, jobs to steps\n"
    "  manifest.json  what it serves: hosts choose by it, without running the plugin\n"
    "  Makefile       needs a C compiler and the installed headers (pkg-config vivarium), "
    "nothing else\n"
    "\n"
    "make, make check, make run. The tiny model of `make model` is one linear layer: y = x + "
    "0.5.\n"
    "\n"
    "To serve an architecture of your own: put its model_type into manifest.json, read its "
    "config.json in\n"
    "read_config, its tensors in find_weights and open_model, and write its pass in "
    "forward.c.\n";

static const struct {
  const char *name, *text;
} files[] = {{"manifest.json", manifest}, {"plugin.c", plugin_c},     {"forward.h", forward_h},
             {"forward.c", forward_c},    {"export.map", export_map}, {"Makefile", makefile},
             {"README", readme}};

/* ---- the verb ---- */

static bool valid_name(const char *name) {
  if (*name < 'a' || *name > 'z' || strlen(name) > 63) return false;
  for (const char *p = name; *p; p++)
    if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != '-') return false;
  return true;
}

/* Writes one template; a file that exists is left alone and is an error. */
static bool write_one(const char *folder, const char *name, const char *file, const char *text) {
  char *path = viv__path_join(folder, file);
  FILE *f = path ? fopen(path, "wx") : NULL;
  bool ok = f != NULL;
  while (ok && *text) {
    const char *at = strstr(text, "@NAME@");
    size_t n = at ? (size_t)(at - text) : strlen(text);
    ok = fwrite(text, 1, n, f) == n && (!at || fputs(name, f) >= 0);
    text += n + (at ? 6 : 0);
  }
  int why = errno;
  if (f && fclose(f)) ok = false;
  if (!ok) fprintf(stderr, "viv: %s: %s\n", path ? path : file, strerror(why));
  viv__free(path);
  return ok;
}

int viv__cmd_new_plugin(int argc, char **argv) {
  const char *dir = NULL, *args[1] = {NULL};
  int n = 0;
  bool json = false;
  const viv__opt options[] = {
      {"dir", 'd', VIV__OPT_TEXT, "DIR", &dir, "write into DIR instead of ./NAME", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the folder and its files as one JSON object", NULL},
      {0}};
  const viv__usage usage = {"viv new-plugin my-model\nviv new-plugin my-model --dir src/my-model",
                            "new-plugin [options] NAME",
                            "Writes a complete plugin: a tiny linear model to start from."};
  int code = viv__options(&usage, options, argc, argv, 1, 1, args, &n);
  if (code >= 0) return code;
  const char *name = args[0];
  if (!valid_name(name))
    return viv__usage_error("new-plugin",
                            "\"%s\" is no name for a plugin: a to z, 0 to 9 and -, a letter first, "
                            "at most 63",
                            name);
  if (!dir) dir = name;
  if (mkdir(dir, 0777) && errno != EEXIST) {
    fprintf(stderr, "viv: %s: %s\n", dir, strerror(errno));
    return VIV__EXIT_FAILED;
  }
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (!write_one(dir, name, files[i].name, files[i].text)) return VIV__EXIT_FAILED;
  if (json) {
    cJSON *out = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(out, "files");
    cJSON_AddStringToObject(out, "plugin", name);
    cJSON_AddStringToObject(out, "folder", dir);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
      cJSON_AddItemToArray(list, cJSON_CreateString(files[i].name));
    viv__print_json(out);
    return viv__finish_output(VIV__EXIT_OK);
  }
  printf("%s: %zu files. Next: make -C %s check run\n", dir, sizeof files / sizeof *files, dir);
  return viv__finish_output(VIV__EXIT_OK);
}
