/* viv serve, ps, top, load, unload, stop, metrics, logs: the daemon, and what is in it. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "client/client.h"
#include "wire/wire.h"

bool viv__local;

int32_t viv__open_for_models(viv_runtime **out, viv_error *error) {
  if (!viv__local) {
    int32_t status = viv_connect(NULL, out, error);
    /* Nobody listens there: this process does it itself. A daemon that refuses is told of. */
    if (status != VIV_NOT_NOW) return status;
  }
  return viv__open_runtime(out, error);
}

/* One call to the daemon; NULL after a report, *code is set then. params is freed. */
static cJSON *ask(const char *verb, cJSON *params, bool json, int *code) {
  viv_error error = VIV_ERROR_INIT;
  viv_runtime *rt = NULL;
  viv_text text = {0};
  char *printed = params ? viv__need(cJSON_PrintUnformatted(params)) : NULL;
  int32_t status = viv_connect(NULL, &rt, &error);
  if (status >= 0) status = viv__remote_call(rt, 0, verb, printed, &text, &error);
  if (rt) viv_close(rt);
  cJSON_free(printed);
  cJSON_Delete(params);
  cJSON *doc = status >= 0 ? viv__text_json(&text) : NULL;
  *code = doc ? VIV__EXIT_OK : viv__report(json, NULL, status < 0 ? status : VIV_BUG, &error);
  return doc;
}

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : "";
}

static double number_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsNumber(item) ? item->valuedouble : 0;
}

/* ---- serve ---- */

/* The daemon's program beside this one; false: this one's place can't be found. */
static bool vivd_path(char out[PATH_MAX + 8]) {
  ssize_t n = readlink("/proc/self/exe", out, PATH_MAX);
  char *slash = n > 0 ? memrchr(out, '/', (size_t)n) : NULL;
  if (slash) memcpy(slash + 1, "vivd", sizeof "vivd");
  return slash;
}

/* Beside this program, else on PATH. */
static void run_vivd(char *const *args) {
  char path[PATH_MAX + 8];
  if (vivd_path(path)) execv(path, args);
  execvp("vivd", args);
}

/* What `vivd --sandbox` prints; NULL: it can't be run. */
static cJSON *sandbox(void) {
  char line[2048] = "", path[PATH_MAX + 8];
  int ends[2];
  if (!vivd_path(path) || pipe(ends)) return NULL;
  pid_t child = fork();
  if (!child) {
    dup2(ends[1], STDOUT_FILENO);
    execl(path, "vivd", "--sandbox", (char *)NULL);
    _exit(127);
  }
  close(ends[1]);
  FILE *f = fdopen(ends[0], "r");
  bool read_it = f && fgets(line, sizeof line, f);
  if (f) fclose(f);
  if (child > 0) waitpid(child, NULL, 0);
  return read_it ? cJSON_Parse(line) : NULL;
}

cJSON *viv__daemon_about(void) {
  cJSON *o = viv__need(cJSON_CreateObject()), *confined = sandbox();
  char *path = viv__wire_socket_path();
  viv_runtime *rt = NULL;
  bool running = viv_connect(NULL, &rt, NULL) >= 0;
  if (rt) viv_close(rt);
  cJSON_AddStringToObject(o, "socket", path ? path : "");
  cJSON_AddBoolToObject(o, "running", running);
  if (confined) cJSON_AddItemToObject(o, "workers", confined);
  viv__free(path);
  return o;
}

int viv__cmd_serve(int argc, char **argv) {
  const char *config = NULL, *socket_path = NULL, *level = NULL;
  bool json = false;
  const viv__opt options[] = {
      {"config", 0, VIV__OPT_TEXT, "FILE", &config, "configuration and policy", NULL},
      {"socket", 0, VIV__OPT_TEXT, "PATH", &socket_path, "listen there", NULL},
      {"log", 0, VIV__OPT_TEXT, "LEVEL", &level, "error, warn, info or debug", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the log is JSON always", NULL},
      {0}};
  const viv__usage usage = {"viv serve\nviv serve --log debug", "serve [options]",
                            "Runs the daemon, vivd, in the foreground until it is interrupted. "
                            "Other viv commands use it\n"
                            "while it runs. SIGTERM, or viv stop, lets running jobs end first."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  const char *args[8] = {"vivd"};
  int at = 1;
  if (config) args[at++] = "--config", args[at++] = config;
  if (socket_path) args[at++] = "--socket", args[at++] = socket_path;
  if (level) args[at++] = "--log", args[at++] = level;
  run_vivd((char *const *)(uintptr_t)args);
  viv_error error = VIV_ERROR_INIT;
  int32_t status = VIV_FAIL(&error, VIV_NEVER, "vivd", "can't be run: %s", strerror(errno));
  return viv__report(json, NULL, status, &error);
}

/* ---- ps ---- */

static void print_ps(const cJSON *doc) {
  const cJSON *m, *list = cJSON_GetObjectItemCaseSensitive(doc, "models");
  char bytes[32], resident[32], left[32];
  printf("%-4s %-28s %-9s %10s %10s %7s %6s %7s %7s %8s\n", "id", "model", "state", "planned",
         "resident", "running", "queued", "jobs/s", "tok/s", "leaves");
  cJSON_ArrayForEach(m, list) {
    bool pinned = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(m, "pinned"));
    const cJSON *unloads = cJSON_GetObjectItemCaseSensitive(m, "unloads_in_s");
    snprintf(left, sizeof left, "%s", pinned ? "pinned" : "-");
    if (cJSON_IsNumber(unloads)) snprintf(left, sizeof left, "%.0f s", unloads->valuedouble);
    printf("%-4.0f %-28s %-9s %10s %10s %7.0f %6.0f %7.1f %7.1f %8s\n", number_of(m, "model"),
           text_of(m, "name"), text_of(m, "state"), viv__size_text(number_of(m, "bytes"), bytes),
           viv__size_text(number_of(m, "resident_bytes"), resident), number_of(m, "running"),
           number_of(m, "queued"), number_of(m, "jobs_per_s"), number_of(m, "tokens_per_s"), left);
    if (*text_of(m, "cause")) printf("     %s\n", text_of(m, "cause"));
  }
}

int viv__cmd_ps(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "all that is known, as JSON", NULL}, {0}};
  const viv__usage usage = {"viv ps", "ps [options]",
                            "The daemon's models: state, memory, jobs, and when each one leaves."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  cJSON *doc = ask("ps", NULL, json, &code);
  if (!doc) return code;
  if (json) {
    viv__print_json(doc);
    return VIV__EXIT_OK;
  }
  print_ps(doc);
  cJSON_Delete(doc);
  return VIV__EXIT_OK;
}

/* ---- top ---- */

static void print_top(const cJSON *doc) {
  char budget[32];
  printf("vivd %s, up %.0f s: %.0f connections, %.0f jobs, models of %s at most%s\n\n",
         text_of(doc, "version"), number_of(doc, "uptime_s"), number_of(doc, "clients"),
         number_of(doc, "jobs"), viv__size_text(number_of(doc, "budget_bytes"), budget),
         cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(doc, "draining")) ? ", draining" : "");
  print_ps(doc);
}

/* On a terminal each look takes the place of the one before; elsewhere they follow each other. */
int viv__cmd_top(int argc, char **argv) {
  bool json = false;
  int64_t interval = 1, count = 0;
  const viv__opt options[] = {
      {"interval", 0, VIV__OPT_INT, "S", &interval, "seconds between two looks (1)", NULL},
      {"count", 0, VIV__OPT_INT, "N", &count, "so many looks (until it is interrupted)", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "a line of JSON for each look", NULL},
      {0}};
  const viv__usage usage = {"viv top\nviv top --interval 5 --count 3", "top [options]",
                            "The daemon's models as they work, until it is interrupted."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  if (interval < 1 || interval > 3600 || count < 0) {
    viv_error error = VIV_ERROR_INIT;
    int32_t status = VIV_FAIL(&error, VIV_BAD_INPUT, "--interval, --count",
                              "must be 1 to 3600 seconds, and no negative number of looks");
    return viv__report(json, NULL, status, &error);
  }
  bool live = !json && isatty(STDOUT_FILENO);
  viv__interrupt_catch();
  for (int64_t i = 0; !viv__interrupted() && (!count || i < count); i++) {
    for (int64_t waited = 0; i && waited < interval * 10 && !viv__interrupted(); waited++)
      usleep(100000);
    if (viv__interrupted()) break;
    cJSON *doc = ask("ps", NULL, json, &code);
    if (!doc) return code;
    if (json) {
      viv__print_json(doc);
    } else {
      if (live) fputs("\033[H\033[J", stdout);
      print_top(doc);
      cJSON_Delete(doc);
    }
    fflush(stdout);
  }
  return VIV__EXIT_OK;
}

/* ---- load, unload ---- */

int viv__cmd_load(int argc, char **argv) {
  bool json = false, pin = false;
  int64_t keep = -1;
  cJSON *load = viv__need(cJSON_CreateObject());
  const viv__opt options[] = {
      {"pin", 0, VIV__OPT_FLAG, NULL, &pin, "it stays until it is unloaded", NULL},
      {"keep-alive", 0, VIV__OPT_INT, "S", &keep, "it leaves after S idle seconds; 0: never", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the model as JSON", NULL},
      VIV__LOAD_OPTIONS(load),
      {0}};
  const viv__usage usage = {"viv load sambay-reasoner --pin", "load [options] MODEL",
                            "Loads MODEL in the daemon and waits until it is ready."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    char *path = viv__model_path(model, &error), *real = path ? realpath(path, NULL) : NULL;
    char *params = load->child ? viv__need(cJSON_PrintUnformatted(load)) : NULL;
    cJSON *call = viv__need(cJSON_CreateObject()), *doc = NULL;
    cJSON_AddStringToObject(call, "path", real ? real : "");
    if (params) cJSON_AddStringToObject(call, "params", params);
    if (pin) cJSON_AddTrueToObject(call, "pin");
    if (keep >= 0) cJSON_AddNumberToObject(call, "keep_alive_s", (double)keep);
    if (real)
      doc = ask("load", call, json, &code);
    else
      code = viv__report(json, model, VIV_NEVER, &error);
    if (!real) cJSON_Delete(call);
    if (doc && json)
      viv__print_json(cJSON_Duplicate(doc, 1));
    else if (doc)
      printf("%.0f %s\n", number_of(doc, "model"), text_of(doc, "name"));
    cJSON_Delete(doc);
    cJSON_free(params);
    viv__free(path);
    free(real);
  }
  cJSON_Delete(load);
  return code;
}

/* A verb about one of the daemon's models: its number, its name, or what names it elsewhere. */
static int about_model(const char *verb, const char *model, bool json) {
  int code;
  char *path = viv__model_path(model, NULL), *real = path ? realpath(path, NULL) : NULL;
  cJSON *call = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(call, "model", real ? real : model);
  cJSON *doc = ask(verb, call, json, &code);
  if (doc && json)
    viv__print_json(doc);
  else
    cJSON_Delete(doc);
  viv__free(path);
  free(real);
  return code;
}

int viv__cmd_unload(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {{"json", 0, VIV__OPT_FLAG, NULL, &json, "the answer as JSON", NULL},
                              {0}};
  const viv__usage usage = {
      "viv unload sambay-reasoner", "unload [options] MODEL",
      "Takes MODEL, a name or a number of viv ps, out of the daemon when its\n"
      "running and waiting jobs have ended."};
  const char *model = NULL;
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, 1, &model, &n);
  return code >= 0 ? code : about_model("unload", model, json);
}

/* ---- the daemon as a whole ---- */

int viv__cmd_stop(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {{"json", 0, VIV__OPT_FLAG, NULL, &json, "the answer as JSON", NULL},
                              {0}};
  const viv__usage usage = {"viv stop", "stop [options]",
                            "Ends the daemon once its running and waiting jobs have ended."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  cJSON *doc = ask("stop", NULL, json, &code);
  if (doc && json)
    viv__print_json(doc);
  else
    cJSON_Delete(doc);
  return code;
}

int viv__cmd_metrics(int argc, char **argv) {
  bool json = false;
  const viv__opt options[] = {
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "the text in a JSON object", NULL}, {0}};
  const viv__usage usage = {"viv metrics", "metrics [options]",
                            "The daemon's figures in Prometheus' text format."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  cJSON *doc = ask("metrics", NULL, json, &code);
  if (!doc) return code;
  if (json) {
    viv__print_json(doc);
    return VIV__EXIT_OK;
  }
  fputs(text_of(doc, "text"), stdout);
  cJSON_Delete(doc);
  return VIV__EXIT_OK;
}

int viv__cmd_logs(int argc, char **argv) {
  bool json = false;
  const char *level = NULL;
  const viv__opt options[] = {
      {"level", 0, VIV__OPT_TEXT, "LEVEL", &level, "from now on: error, warn, info, debug", NULL},
      {"json", 0, VIV__OPT_FLAG, NULL, &json, "all lines in one JSON object", NULL},
      {0}};
  const viv__usage usage = {"viv logs\nviv logs --level debug", "logs [options]",
                            "The daemon's last log lines, each a JSON object."};
  int n = 0, code = viv__options(&usage, options, argc, argv, 0, 0, NULL, &n);
  if (code >= 0) return code;
  cJSON *params = NULL, *doc;
  if (level) {
    params = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(params, "level", level);
  }
  doc = ask(level ? "log-level" : "logs", params, json, &code);
  if (!doc) return code;
  if (json) {
    viv__print_json(doc);
    return VIV__EXIT_OK;
  }
  const cJSON *line;
  cJSON_ArrayForEach(line, cJSON_GetObjectItemCaseSensitive(doc, "lines"))
      puts(cJSON_IsString(line) ? line->valuestring : "");
  cJSON_Delete(doc);
  return VIV__EXIT_OK;
}
