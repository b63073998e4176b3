/* Chat messages to text, for the template forms that need no interpreter.
 *
 * The chat_template of tokenizer_config.json is a Jinja program. Two forms are common enough to be
 * recognised by what stands in them; both write every message alike:
 *
 *   ChatML       <|im_start|>ROLE\nCONTENT<|im_end|>\n ...  <|im_start|>assistant\n
 *                (SmolLM2, Qwen2, ...). A first message that is no system message is preceded by
 *                the template's own system text, if it has one.
 *   Phi          <|ROLE|>CONTENT<|end|> ...  <|assistant|>
 *                (Phi-4-mini; Phi-3 with a line break after the role and after <|end|>)
 *
 * A template that says more than these forms do (trims contents, treats thinking, calls tools) is
 * refused rather than rendered nearly right. */
#include "text/tokenizer.h"

#include <cjson/cJSON.h>
#include <string.h>

static const char place[] = "tokenizer_config.json, chat_template";

/* What the forms can't do; where a template mentions one of these its text would differ. */
static const char *const beyond[] = {"trim",     ".strip(",    "split(",   "enable_thinking",
                                     "<think>",  "<|im_sep|>", "strftime", "bos_token",
                                     "namespace"};

/* The template's text: a string, or the entry named "default" of a list of templates. */
static const char *template_text(const viv_json *config) {
  const viv_json *node = viv__json_get(config, "chat_template");
  if (viv__json_type(node) == VIV_JSON_STRING) return viv__json_text(config, "chat_template", NULL);
  const cJSON *item;
  cJSON_ArrayForEach(item, (const cJSON *)node) {
    const viv_json *entry = (const viv_json *)item;
    if (!strcmp(viv__json_text(entry, "name", ""), "default"))
      return viv__json_text(entry, "template", NULL);
  }
  return NULL;
}

/* Appends Jinja string text, in which \n stands for a line break. */
static void add_unescaped(viv__buf *out, const char *text, size_t len) {
  for (size_t i = 0; i < len; i++) {
    bool line = text[i] == '\\' && i + 1 < len && text[i + 1] == 'n';
    viv__buf_add(out, line ? "\n" : text + i, 1);
    i += line;
  }
}

/* The system text that a ChatML template writes by itself: what stands between the marks of a
 * system message without leaving the Jinja string. */
static bool default_system(const char *text, const char **start, size_t *len) {
  static const char open[] = "<|im_start|>system";
  for (const char *at = text; (at = strstr(at, open));) {
    at += sizeof open - 1;
    if (*at == '\n')
      at++;
    else if (at[0] == '\\' && at[1] == 'n')
      at += 2;
    else
      continue;
    const char *end = strstr(at, "<|im_end|>");
    if (!end || (size_t)(end - at) != strcspn(at, "'\"{}<")) continue;
    *start = at;
    *len = (size_t)(end - at);
    return true;
  }
  return false;
}

static bool one_of(const char *role, const char *const *roles, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (!strcmp(role, roles[i])) return true;
  return false;
}

/* Role and content of a message; contents other than text are refused. */
static int32_t read_message(const viv_json *message, size_t index, const char *text,
                            const char **role, const char **content, viv_error *error) {
  static const char *const roles[] = {"system", "user", "assistant"};
  char where[48];
  snprintf(where, sizeof where, "messages[%zu]", index);
  *role = viv__json_text(message, "role", NULL);
  *content = viv__json_text(message, "content", NULL);
  if (!*role) return VIV_FAIL(error, VIV_BAD_INPUT, where, "needs a string \"role\"");
  /* A template that mentions tools or refusals may do something else with another role. */
  bool known = one_of(*role, roles, sizeof roles / sizeof *roles);
  if (!known && (strstr(text, "tool") || strstr(text, "raise_exception")))
    return VIV_FAIL(
        error, VIV_NEVER, where,
        "this template may treat the role \"%.40s\" in its own way, which needs a Jinja "
        "interpreter; system, user and assistant are known",
        *role);
  if (!*content) return VIV_FAIL(error, VIV_BAD_INPUT, where, "needs a string \"content\"");
  if (viv__json_get(message, "tool_calls"))
    return VIV_FAIL(error, VIV_NEVER, where, "\"tool_calls\" need the template interpreter");
  return VIV_OK;
}

static int32_t render_chatml(const char *text, const viv_json *messages, bool add_generation,
                             viv__buf *out, viv_error *error) {
  const char *system, *role, *content;
  size_t len, index = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, (const cJSON *)messages) {
    int32_t status = read_message((const viv_json *)item, index, text, &role, &content, error);
    if (status < 0) return status;
    if (index++ == 0 && strcmp(role, "system") != 0 && default_system(text, &system, &len)) {
      viv__buf_str(out, "<|im_start|>system\n");
      add_unescaped(out, system, len);
      viv__buf_str(out, "<|im_end|>\n");
    }
    viv__buf_str(out, "<|im_start|>");
    viv__buf_str(out, role);
    viv__buf_str(out, "\n");
    viv__buf_str(out, content);
    viv__buf_str(out, "<|im_end|>\n");
  }
  if (add_generation) viv__buf_str(out, "<|im_start|>assistant\n");
  return VIV_OK;
}

static int32_t render_phi(const char *text, const viv_json *config, const viv_json *messages,
                          bool add_generation, viv__buf *out, viv_error *error) {
  bool lines = strstr(text, "<|end|>\\n") || strstr(text, "<|end|>\n");
  const char *role, *content;
  size_t index = 0;
  const cJSON *item;
  cJSON_ArrayForEach(item, (const cJSON *)messages) {
    const viv_json *message = (const viv_json *)item;
    int32_t status = read_message(message, index++, text, &role, &content, error);
    if (status < 0) return status;
    viv__buf_str(out, "<|");
    viv__buf_str(out, role);
    viv__buf_str(out, lines ? "|>\n" : "|>");
    viv__buf_str(out, content);
    const char *tools = viv__json_text(message, "tools", NULL);
    if (tools && !strcmp(role, "system") && strstr(text, "<|/tool|>")) {
      viv__buf_str(out, "<|tool|>");
      viv__buf_str(out, tools);
      viv__buf_str(out, "<|/tool|>");
    }
    viv__buf_str(out, lines ? "<|end|>\n" : "<|end|>");
  }
  const viv_json *eos = viv__json_get(config, "eos_token");
  if (add_generation)
    viv__buf_str(out, lines ? "<|assistant|>\n" : "<|assistant|>");
  else if (strstr(text, "eos_token"))
    viv__buf_str(out, viv__json_text(eos, "content", viv__json_text(config, "eos_token", "")));
  return VIV_OK;
}

static int32_t render(const viv_json *config, const viv_json *messages, bool add_generation,
                      viv__buf *out, viv_error *error) {
  if (viv__json_type(messages) != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, "messages", "must be a list of {role, content}");
  const char *text = template_text(config);
  if (!text)
    return VIV_FAIL(error, VIV_NEVER, "tokenizer_config.json",
                    "has no \"chat_template\"; give the prompt as text");
  bool chatml = strstr(text, "<|im_start|>") && strstr(text, "<|im_end|>");
  bool phi = !chatml && strstr(text, "<|end|>") && strstr(text, "<|assistant|>");
  if (!chatml && !phi)
    return VIV_FAIL(
        error, VIV_NEVER, place,
        "this template needs a Jinja interpreter, which this version lacks; the forms of "
        "ChatML and Phi are known. Give the prompt as text");
  for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++)
    if (strstr(text, beyond[i]))
      return VIV_FAIL(
          error, VIV_NEVER, place,
          "this %s template also uses \"%s\", which needs a Jinja interpreter. Give the "
          "prompt as text",
          chatml ? "ChatML" : "Phi", beyond[i]);
  if (chatml) return render_chatml(text, messages, add_generation, out, error);
  return render_phi(text, config, messages, add_generation, out, error);
}

int32_t viv__chat_render(viv_str tokenizer_config, const viv_json *messages, bool add_generation,
                         char **text, size_t *len, viv_error *error) {
  viv_json *config = NULL;
  int32_t status = viv__json_parse(tokenizer_config.ptr, tokenizer_config.len,
                                   "tokenizer_config.json", &config, error);
  viv__buf out = {0};
  if (status >= 0) status = render(config, messages, add_generation, &out, error);
  viv__json_free(config);
  if (status >= 0) viv__buf_add(&out, "", 1); /* terminated also when empty */
  if (status >= 0 && out.failed) status = VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
  if (status < 0) {
    viv__buf_free(&out);
    return status;
  }
  *text = out.ptr;
  *len = out.len - 1;
  return VIV_OK;
}
