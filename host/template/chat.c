/* Opening and rendering templates; what stands around a conversation's template. */
#include <string.h>

#include "template/internal.h"

static const char config_name[] = "tokenizer_config.json, chat_template";
static const char jinja_name[] = "chat_template.jinja";

/* ---- opening ---- */

/* CR LF and CR become LF; one line break at the end goes. */
static struct str normalised(vm *v, viv_str text) {
  struct text t = {0};
  for (size_t i = 0; i < text.len; i++) {
    size_t from = i;
    while (i < text.len && text.ptr[i] != '\r') i++;
    viv__t_put(v, &t, text.ptr + from, i - from);
    if (i >= text.len) break;
    viv__t_puts(v, &t, "\n");
    i += i + 1 < text.len && text.ptr[i + 1] == '\n';
  }
  if (t.len && t.ptr[t.len - 1] == '\n') t.len--;
  return *viv__t_text(v, &t).s;
}

int32_t viv__template_open(viv_str text, const char *name, viv__template **out, viv_error *error) {
  size_t whole = viv__utf8_whole(text.ptr, text.len);
  if (whole < text.len) return VIV_FAIL(error, VIV_BAD_INPUT, name, "not UTF-8 at byte %zu", whole);
  viv__template *t = viv__calloc(1, sizeof *t);
  if (t) t->pool = viv__t_pool();
  if (t) t->name = viv__strdup(name);
  if (!t || !t->pool || !t->name) {
    viv__template_close(t);
    return VIV_FAIL(error, VIV_NOT_NOW, name, "out of memory");
  }
  vm v = {.pool = t->pool, .error = error, .name = t->name, .t = t};
  if (setjmp(v.out)) {
    viv__template_close(t);
    return v.status;
  }
  v.source = t->source = normalised(&v, text);
  t->body = viv__t_parse(&v, viv__t_lex(&v));
  *out = t;
  return VIV_OK;
}

void viv__template_close(viv__template *t) {
  if (!t) return;
  viv__t_pool_free(t->pool);
  viv__free(t->name);
  viv__free(t);
}

/* ---- rendering ---- */

void viv__rendered_free(viv__rendered *r) {
  viv__free(r->text);
  viv__free(r->spans);
  *r = (viv__rendered){0};
}

/* Copies what was rendered out of the pool. */
static int32_t give(vm *v, size_t len, viv__rendered *out, viv_error *error) {
  *out = (viv__rendered){.len = len, .n_spans = v->n_spans};
  out->text = viv__malloc(len + 1);
  out->spans = viv__malloc((v->n_spans + 1) * sizeof *out->spans);
  if (!out->text || !out->spans) {
    viv__rendered_free(out);
    return VIV_FAIL(error, VIV_NOT_NOW, v->name, "out of memory");
  }
  if (len) memcpy(out->text, v->root.ptr, len);
  out->text[len] = 0;
  if (v->n_spans) memcpy(out->spans, v->spans, v->n_spans * sizeof *out->spans);
  return VIV_OK;
}

static void begin(vm *v, const viv__template *t, int64_t now) {
  v->t = t;
  v->name = t->name;
  v->source = t->source;
  v->sink = &v->root;
  v->now = now;
  v->scope = viv__t_alloc(v, sizeof *v->scope);
}

static void define(vm *v, const char *name, value x) {
  viv__t_dict_set(v, &v->scope->vars, viv__t_cstr(v, name), x);
}

/* Members of a JSON object become variables. */
static void define_all(vm *v, viv_str object, const char *name) {
  if (!object.len) return;
  value d = viv__t_read(v, object, name);
  if (d.kind == V_NONE) return;
  if (d.kind != V_DICT) viv__t_fail(v, VIV_BAD_INPUT, "%s must be a JSON object", name);
  for (size_t i = 0; i < d.d->n; i++)
    viv__t_dict_set(v, &v->scope->vars, d.d->at[i].key, d.d->at[i].val);
}

/* Python's templates begin in a scope inside of their variables. */
static void run_inside(vm *v, const viv__template *t) {
  struct scope *inner = viv__t_alloc(v, sizeof *inner);
  inner->up = v->scope;
  v->scope = inner;
  viv__t_run(v, t->body);
}

int32_t viv__template_render(const viv__template *t, viv_str context, int64_t now,
                             viv__rendered *out, viv_error *error) {
  vm v = {.pool = viv__t_pool(), .error = error, .name = t->name};
  int32_t status;
  if (!v.pool) return VIV_FAIL(error, VIV_NOT_NOW, t->name, "out of memory");
  if (setjmp(v.out)) {
    status = v.status;
  } else {
    begin(&v, t, now);
    define_all(&v, context, "context");
    run_inside(&v, t);
    status = give(&v, v.root.len, out, error);
  }
  viv__t_pool_free(v.pool);
  return status;
}

/* ---- conversations ---- */

static const char tag[] = "CONTINUE_FINAL_MESSAGE_TAG ";
static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};

/* A message without its null members, with its reasoning under the names that templates read. */
static value message_of(vm *v, value m) {
  value out = viv__t_dict(v), why = {.kind = V_MISSING}, had;
  for (size_t i = 0; i < 3 && why.kind == V_MISSING; i++)
    if (!viv__t_get(v, m.d, reasoning[i], &why) || why.kind == V_NONE) why.kind = V_MISSING;
  if (why.kind != V_MISSING && !viv__t_get(v, m.d, "thinking", &had))
    viv__t_dict_set(v, out.d, viv__t_cstr(v, "thinking"), why);
  for (size_t i = 0; i < m.d->n; i++)
    if (m.d->at[i].val.kind != V_NONE) viv__t_dict_set(v, out.d, m.d->at[i].key, m.d->at[i].val);
  if (why.kind != V_MISSING) viv__t_dict_set(v, out.d, viv__t_cstr(v, "reasoning_content"), why);
  return out;
}

static value messages_of(vm *v, viv_str json) {
  value list = viv__t_read(v, json, "messages"), out = viv__t_list(v, V_LIST, 0);
  if (list.kind != V_LIST)
    viv__t_fail(v, VIV_BAD_INPUT, "messages must be a list of {role, content}");
  for (size_t i = 0; i < list.l->n; i++) {
    if (list.l->items[i].kind != V_DICT)
      viv__t_fail(v, VIV_BAD_INPUT, "messages[%zu] must be an object {role, content}", i);
    viv__t_push(v, out.l, message_of(v, list.l->items[i]));
  }
  return out;
}

static value tagged(vm *v, value text) {
  struct text t = {0};
  if (text.kind != V_STR)
    viv__t_fail(v, VIV_BAD_INPUT, "only a text can be continued, not a %s", viv__t_type(text));
  viv__t_put_str(v, &t, text.s);
  viv__t_puts(v, &t, tag);
  return viv__t_text(v, &t);
}

/* Puts the tag behind the text of the last message that is to be continued; answers that text. */
static const struct str *tag_message(vm *v, value messages, const char *field) {
  value text, blocks;
  if (!messages.l->n)
    viv__t_fail(v, VIV_BAD_INPUT, "continue_final_message is set but the conversation is empty!");
  struct dict *last = messages.l->items[messages.l->n - 1].d;
  if (!viv__t_get(v, last, field, &text))
    viv__t_fail(v, VIV_BAD_INPUT,
                "continue_final_message is set but the final message has no \"%s\" to continue!",
                field);
  if (text.kind == V_LIST) {
    for (size_t i = text.l->n; i--;) {
      blocks = text.l->items[i];
      if (blocks.kind != V_DICT || !viv__t_get(v, blocks.d, "text", &text)) continue;
      viv__t_dict_set(v, blocks.d, viv__t_cstr(v, "text"), tagged(v, text));
      return text.s;
    }
    viv__t_fail(v, VIV_BAD_INPUT,
                "continue_final_message is set but we could not find any text to continue in the "
                "final message!");
  }
  bool reasons = false, read = false;
  for (size_t i = 0; i < 3; i++) reasons = reasons || !strcmp(field, reasoning[i]);
  for (size_t i = 0; reasons && i < 3; i++) {
    value other;
    if (!viv__t_get(v, last, reasoning[i], &other) || !viv__t_equal(v, other, text)) continue;
    viv__t_dict_set(v, last, viv__t_cstr(v, reasoning[i]), tagged(v, text));
    read = read || memmem(v->source.ptr, v->source.len, reasoning[i], strlen(reasoning[i]));
  }
  if (!reasons) {
    viv__t_dict_set(v, last, viv__t_cstr(v, field), tagged(v, text));
    read = memmem(v->source.ptr, v->source.len, field, strlen(field));
  }
  if (!read)
    viv__t_fail(v, VIV_BAD_INPUT,
                "continue_final_message is set to \"%s\" but this is not an accepted field in the "
                "chat_template",
                field);
  return text.s;
}

/* Where the text ends that is to be continued. A template that trims the message has taken the
 * tag's space too; then the message's own trailing space goes as well. */
static size_t cut_at_tag(vm *v, const struct str *message) {
  size_t len = sizeof tag - 2; /* without the space */
  const char *text = v->root.ptr ? v->root.ptr : "", *at = NULL, *next = text, *end = text + v->root.len;
  const struct str *bare = viv__t_strip(v, message, viv__t_none(), true, true).s;
  while (next && (next = memmem(next, (size_t)(end - next), tag, len))) at = next++;
  if (!at || !memmem(text, v->root.len, bare->ptr, bare->len))
    viv__t_fail(v, VIV_BAD_INPUT,
                "continue_final_message is set but the final message does not appear in the chat "
                "after applying the chat template: it may drop or change the message");
  if ((size_t)(end - at) > len && at[len] == ' ') return (size_t)(at - text);
  struct str before = {text, (size_t)(at - text), 0, false};
  return viv__t_strip(v, &before, viv__t_none(), false, true).s->len;
}

static value list_or_none(vm *v, viv_str json, const char *name) {
  if (!json.len) return viv__t_none();
  value list = viv__t_read(v, json, name);
  if (list.kind == V_NONE) return list;
  if (list.kind != V_LIST) viv__t_fail(v, VIV_BAD_INPUT, "%s must be a list of objects", name);
  for (size_t i = 0; i < list.l->n; i++)
    if (list.l->items[i].kind != V_DICT)
      viv__t_fail(v, VIV_BAD_INPUT, "%s[%zu] must be an object", name, i);
  return list;
}

static int32_t render_chat(const viv__template *t, viv_str config, const viv__chat_input *in,
                           viv__rendered *out, viv_error *error) {
  vm v = {.pool = viv__t_pool(), .error = error, .name = t->name};
  int32_t status;
  if (!v.pool) return VIV_FAIL(error, VIV_NOT_NOW, t->name, "out of memory");
  if (setjmp(v.out)) {
    status = v.status;
  } else {
    begin(&v, t, in->now);
    define_all(&v, config, "special tokens");
    if (in->bos_token.ptr)
      define(&v, "bos_token", viv__t_str(&v, in->bos_token.ptr, in->bos_token.len));
    if (in->eos_token.ptr)
      define(&v, "eos_token", viv__t_str(&v, in->eos_token.ptr, in->eos_token.len));
    define_all(&v, in->variables, "template variables");
    value messages = messages_of(&v, in->messages);
    const struct str *open =
        in->continue_field ? tag_message(&v, messages, in->continue_field) : NULL;
    define(&v, "messages", messages);
    define(&v, "tools", list_or_none(&v, in->tools, "tools"));
    define(&v, "documents", list_or_none(&v, in->documents, "documents"));
    define(&v, "add_generation_prompt", viv__t_bool(in->add_generation_prompt));
    run_inside(&v, t);
    status = give(&v, open ? cut_at_tag(&v, open) : v.root.len, out, error);
  }
  viv__t_pool_free(v.pool);
  return status;
}

int32_t viv__template_chat(const viv__template *t, const viv__chat_input *in, viv__rendered *out,
                           viv_error *error) {
  return render_chat(t, (viv_str){NULL, 0}, in, out, error);
}

/* ---- a checkpoint's templates ---- */

enum { MAX_TEMPLATES = 16 };

struct viv__chat {
  viv__template *templates[MAX_TEMPLATES];
  char *names[MAX_TEMPLATES];
  int n;
  viv__buf tokens; /* JSON object of the special tokens */
};

static void add_token(viv__buf *b, const viv_json *config, const char *key) {
  const viv_json *node = viv__json_get(config, key);
  const char *text = viv__json_type(node) == VIV_JSON_STRING
                         ? viv__json_text(config, key, NULL)
                         : viv__json_text(node, "content", NULL);
  if (!text) return;
  viv__buf_fmt(b, "%s\"%s\":", b->len > 1 ? "," : "", key);
  viv__buf_json(b, viv__str(text));
}

static int32_t add_template(viv__chat *c, const char *name, viv_str text, const char *place,
                            viv_error *error) {
  if (c->n == MAX_TEMPLATES)
    return VIV_FAIL(error, VIV_BAD_INPUT, place, "more than %d templates", MAX_TEMPLATES);
  c->names[c->n] = viv__strdup(name);
  if (!c->names[c->n]) return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
  return viv__template_open(text, place, &c->templates[c->n++], error);
}

static int32_t add_templates(viv__chat *c, const viv_json *node, viv_error *error) {
  int32_t status = VIV_OK;
  if (viv__json_type(node) == VIV_JSON_STRING)
    return add_template(c, "default", viv__json_string(node), config_name, error);
  for (int64_t i = 0; status == VIV_OK && i < viv__json_count(node); i++) {
    const viv_json *entry = viv__json_item(node, i);
    const char *name = viv__json_text(entry, "name", NULL);
    if (!name || viv__json_type(viv__json_get(entry, "template")) != VIV_JSON_STRING)
      return VIV_FAIL(error, VIV_BAD_INPUT, config_name,
                      "entry %lld must be {\"name\", \"template\"}", (long long)i);
    char place[120];
    snprintf(place, sizeof place, "%s \"%.40s\"", config_name, name);
    status =
        add_template(c, name, viv__json_string(viv__json_get(entry, "template")), place, error);
  }
  return status;
}

int32_t viv__chat_open(viv_str config, viv_str jinja, viv__chat **out, viv_error *error) {
  static const char *const tokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
  viv_json *json = NULL;
  int32_t status = VIV_OK;
  viv__chat *c = viv__calloc(1, sizeof *c);
  if (!c) return VIV_FAIL(error, VIV_NOT_NOW, config_name, "out of memory");
  if (config.len)
    status = viv__json_parse(config.ptr, config.len, "tokenizer_config.json", &json, error);
  viv__buf_str(&c->tokens, "{");
  for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++)
    add_token(&c->tokens, json, tokens[i]);
  viv__buf_str(&c->tokens, "}");
  if (status == VIV_OK && c->tokens.failed)
    status = VIV_FAIL(error, VIV_NOT_NOW, config_name, "out of memory");
  if (status == VIV_OK)
    status = jinja.len ? add_template(c, "default", jinja, jinja_name, error)
                       : add_templates(c, viv__json_get(json, "chat_template"), error);
  viv__json_free(json);
  if (status == VIV_OK && !c->n)
    status = VIV_FAIL(error, VIV_NEVER, "tokenizer_config.json",
                      "has no \"chat_template\"; give the prompt as text");
  if (status != VIV_OK) {
    viv__chat_close(c);
    return status;
  }
  *out = c;
  return VIV_OK;
}

void viv__chat_close(viv__chat *c) {
  if (!c) return;
  for (int i = 0; i < c->n; i++) {
    viv__template_close(c->templates[i]);
    viv__free(c->names[i]);
  }
  viv__buf_free(&c->tokens);
  viv__free(c);
}

static const viv__template *named(const viv__chat *c, const char *name) {
  for (int i = 0; i < c->n; i++)
    if (!strcmp(c->names[i], name)) return c->templates[i];
  return NULL;
}

int32_t viv__chat_text(const viv__chat *c, const viv__chat_input *in, viv__rendered *out,
                       viv_error *error) {
  const viv__template *t = in->tools.len ? named(c, "tool_use") : NULL;
  if (!t) t = named(c, "default");
  if (!t) return VIV_FAIL(error, VIV_NEVER, config_name, "there is no template named \"default\"");
  return render_chat(t, (viv_str){c->tokens.ptr, c->tokens.len}, in, out, error);
}

int32_t viv__chat_render(viv_str config, viv_str jinja, const viv__chat_input *in, char **text,
                         size_t *len, viv_error *error) {
  viv__chat *c = NULL;
  viv__rendered r;
  int32_t status = viv__chat_open(config, jinja, &c, error);
  if (status == VIV_OK) status = viv__chat_text(c, in, &r, error);
  viv__chat_close(c);
  if (status != VIV_OK) return status;
  *text = r.text;
  *len = r.len;
  viv__free(r.spans);
  return VIV_OK;
}

/* ---- parts of a document ---- */

struct viv__exact {
  struct pool *pool;
  value root;
};

int32_t viv__exact_open(viv_str json, const char *name, viv__exact **out, viv_error *error) {
  viv__exact *e = viv__calloc(1, sizeof *e);
  if (e) e->pool = viv__t_pool();
  if (!e || !e->pool) {
    viv__free(e);
    return VIV_FAIL(error, VIV_NOT_NOW, name, "out of memory");
  }
  vm v = {.pool = e->pool, .error = error, .name = name};
  if (setjmp(v.out)) {
    viv__exact_close(e);
    return v.status;
  }
  e->root = viv__t_read(&v, json, name);
  *out = e;
  return VIV_OK;
}

static bool walk(vm *v, value x, const char *const *path, struct text *out) {
  struct json_style style = {.item = viv__t_cstr(v, ",").s, .key = viv__t_cstr(v, ":").s};
  for (; *path; path++) {
    wide i = 0;
    if (x.kind == V_DICT) {
      if (!viv__t_get(v, x.d, *path, &x)) return false;
    } else if (x.kind == V_LIST && viv__t_read_int(*path, strlen(*path), 10, &i) &&
               i < (wide)x.l->n) {
      x = x.l->items[i];
    } else {
      return false;
    }
  }
  viv__t_json(v, out, x, &style);
  return true;
}

char *viv__exact_text(viv__exact *e, const char *const *path) {
  vm v = {.pool = e->pool, .name = "json"};
  if (setjmp(v.out) || !walk(&v, e->root, path, &v.root)) return NULL;
  return viv__strndup(v.root.ptr, v.root.len);
}

void viv__exact_close(viv__exact *e) {
  if (!e) return;
  viv__t_pool_free(e->pool);
  viv__free(e);
}
