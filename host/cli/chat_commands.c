/* Commands inside a conversation, and conversations in files.
 *
 * A file holds {"viv_chat": 1, "model", "params", "messages"}: texts, so that any model goes on with
 * it; what was computed for them is in the host's prompt cache, or is computed again. */
#include <stdlib.h>
#include <string.h>

#include "cli/chat.h"

enum { FILE_LIMIT = 64 << 20 };

void viv__chat_say(cJSON *messages, const char *role, const char *content) {
  cJSON *m = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(m, "role", role);
  cJSON_AddStringToObject(m, "content", content);
  cJSON_AddItemToArray(messages, m);
}

void viv__chat_reset(viv__conversation *c, const char *system) {
  char *kept = system ? viv__need(viv__strdup(system)) : NULL; /* it may be part of messages */
  cJSON_Delete(c->messages);
  c->messages = viv__need(cJSON_CreateArray());
  if (kept) viv__chat_say(c->messages, "system", kept);
  viv__free(kept);
}

static const char *text_of(const cJSON *o, const char *key) {
  const cJSON *item = cJSON_GetObjectItemCaseSensitive(o, key);
  return cJSON_IsString(item) ? item->valuestring : NULL;
}

static const char *role_at(const viv__conversation *c, int i) {
  const char *role = text_of(cJSON_GetArrayItem(c->messages, i), "role");
  return role ? role : "";
}

static const char *system_of(const viv__conversation *c) {
  return strcmp(role_at(c, 0), "system") ? NULL : text_of(c->messages->child, "content");
}

static int fail(const viv__conversation *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int fail(const viv__conversation *c, const char *format, ...) {
  viv_error error = VIV_ERROR_INIT;
  va_list args;
  va_start(args, format);
  vsnprintf(error.message, sizeof error.message, format, args);
  va_end(args);
  viv__report(c->json, NULL, VIV_BAD_INPUT, &error);
  return VIV__CHAT_FAILED;
}

static int help(viv__conversation *c, const char *rest) {
  (void)c, (void)rest;
  fprintf(stderr,
          "/save FILE     writes the conversation          /resume FILE  goes on with one\n"
          "/system TEXT   sets the system message          /params K=V   sets a parameter\n"
          "/undo          takes the last question back     /reset        starts over\n"
          "/help          this text                        /exit         ends (Ctrl-D too)\n"
          "A line that ends in \\ goes on in the next one; \"\"\" begins and ends several lines.\n"
          "Ctrl-C stops an answer.\n");
  return VIV__CHAT_DONE;
}

static int save(viv__conversation *c, const char *file) {
  viv_error error = VIV_ERROR_INIT;
  if (!*file) return fail(c, "/save needs the name of a file");
  cJSON *doc = viv__need(cJSON_CreateObject());
  cJSON_AddNumberToObject(doc, "viv_chat", 1);
  const char *name = text_of(c->loaded.about, "name");
  cJSON_AddStringToObject(doc, "model", name ? name : "");
  cJSON_AddItemToObject(doc, "params", viv__need(cJSON_Duplicate(c->params, 1)));
  cJSON_AddItemToObject(doc, "messages", viv__need(cJSON_Duplicate(c->messages, 1)));
  char *text = viv__need(cJSON_Print(doc));
  int32_t status = viv__write_file(file, text, strlen(text), &error);
  cJSON_free(text);
  cJSON_Delete(doc);
  if (status < 0) {
    viv__report(c->json, file, status, &error);
    return VIV__CHAT_FAILED;
  }
  fprintf(stderr, "saved %s\n", file);
  return VIV__CHAT_DONE;
}

static bool readable(const cJSON *doc) {
  const cJSON *messages = cJSON_GetObjectItemCaseSensitive(doc, "messages"), *m;
  if (!cJSON_GetObjectItemCaseSensitive(doc, "viv_chat") || !cJSON_IsArray(messages) ||
      !cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(doc, "params")))
    return false;
  cJSON_ArrayForEach(m, messages) if (!text_of(m, "role") || !text_of(m, "content")) return false;
  return true;
}

static int resume(viv__conversation *c, const char *file) {
  viv_error error = VIV_ERROR_INIT;
  if (!*file) return fail(c, "/resume needs the name of a file");
  cJSON *doc = viv__parse_json_file(file, FILE_LIMIT, &error);
  if (!doc) {
    viv__report(c->json, file, error.code, &error);
    return VIV__CHAT_FAILED;
  }
  if (!readable(doc)) {
    cJSON_Delete(doc);
    return fail(c, "%.300s is no conversation that /save wrote", file);
  }
  cJSON_Delete(c->messages);
  cJSON_Delete(c->params);
  c->messages = cJSON_DetachItemFromObjectCaseSensitive(doc, "messages");
  c->params = cJSON_DetachItemFromObjectCaseSensitive(doc, "params");
  cJSON_Delete(doc);
  fprintf(stderr, "resumed %s: %d messages\n", file, cJSON_GetArraySize(c->messages));
  return VIV__CHAT_DONE;
}

/* KEY=JSON or KEY=TEXT; KEY= goes back to the default. */
static void set_param(viv__conversation *c, const char *pair, size_t len) {
  size_t key_len = strcspn(pair, "=");
  char *key = viv__need(viv__strndup(pair, key_len));
  char *text = viv__need(viv__strndup(pair + key_len + 1, len - key_len - 1));
  viv_json *json = NULL;
  cJSON_DeleteItemFromObjectCaseSensitive(c->params, key);
  /* Whether tokens are drawn follows from the others, see viv__sampling_defaults. */
  cJSON_DeleteItemFromObjectCaseSensitive(c->params, "do_sample");
  if (*text) {
    if (viv__json_parse(text, strlen(text), "parameter", &json, NULL) < 0)
      json = viv__need(cJSON_CreateString(text));
    cJSON_AddItemToObject(c->params, key, (cJSON *)json);
  }
  viv__sampling_defaults(c->params, VIV__CHAT_TOKENS);
  viv__free(key);
  viv__free(text);
}

static int params(viv__conversation *c, const char *rest) {
  const cJSON *p;
  for (const char *at = rest; *at;) {
    size_t len = strcspn(at, " ");
    const char *equals = memchr(at, '=', len);
    if (!equals || equals == at) return fail(c, "/params: \"%.*s\" is not KEY=VALUE", (int)len, at);
    set_param(c, at, len);
    at += len;
    at += strspn(at, " ");
  }
  cJSON_ArrayForEach(p, c->params) {
    char *text = viv__need(cJSON_PrintUnformatted(p));
    fprintf(stderr, "%s=%s\n", p->string, text);
    cJSON_free(text);
  }
  return VIV__CHAT_DONE;
}

static int set_system(viv__conversation *c, const char *text) {
  const char *now = system_of(c);
  if (!*text) {
    fprintf(stderr, "%s\n", now ? now : "(no system message)");
    return VIV__CHAT_DONE;
  }
  if (now) cJSON_DeleteItemFromArray(c->messages, 0);
  cJSON *m = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(m, "role", "system");
  cJSON_AddStringToObject(m, "content", text);
  if (!cJSON_InsertItemInArray(c->messages, 0, m)) viv__need(NULL);
  return VIV__CHAT_DONE;
}

static int reset(viv__conversation *c, const char *rest) {
  (void)rest;
  viv__chat_reset(c, system_of(c));
  return VIV__CHAT_DONE;
}

/* Takes messages away up to and with the last question. */
static int undo(viv__conversation *c, const char *rest) {
  int last = cJSON_GetArraySize(c->messages) - 1;
  (void)rest;
  int question = last;
  while (question >= 0 && strcmp(role_at(c, question), "user")) question--;
  if (question < 0) return fail(c, "nothing was asked yet");
  for (; last >= question; last--) cJSON_DeleteItemFromArray(c->messages, last);
  return VIV__CHAT_DONE;
}

static int leave(viv__conversation *c, const char *rest) {
  (void)c, (void)rest;
  return VIV__CHAT_EXIT;
}

int viv__chat_command(viv__conversation *c, const char *line) {
  static const struct {
    const char *name;
    int (*run)(viv__conversation *c, const char *rest);
  } commands[] = {{"/help", help},     {"/save", save},         {"/resume", resume},
                  {"/params", params}, {"/system", set_system}, {"/reset", reset},
                  {"/clear", reset},   {"/undo", undo},         {"/exit", leave},
                  {"/quit", leave}};
  if (*line != '/') return VIV__CHAT_NO_COMMAND;
  size_t len = strcspn(line, " \t\n");
  for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
    if (strlen(commands[i].name) == len && !memcmp(line, commands[i].name, len))
      return commands[i].run(c, line + len + strspn(line + len, " \t"));
  /* A mistyped command is no question; "/usr/bin ..." is one. */
  if (len > 1 && strspn(line + 1, "abcdefghijklmnopqrstuvwxyz") == len - 1)
    return fail(
        c, "there is no command %.*s: /help lists them, \"\"\" before and after a text asks it",
        (int)(len < 40 ? len : 40), line);
  return VIV__CHAT_NO_COMMAND;
}
