/* Chat templates: the Jinja programs by which checkpoints say how messages become text. Internal.
 *
 * A small interpreter of the language that such templates are written in, with the official
 * renderer's settings: trim_blocks and lstrip_blocks on, no autoescape, break and continue, the
 * tag `generation`, Python's values when printing, json.dumps behind `tojson`. It is a sandbox: a
 * template sees the values it is given and nothing else, changes none of them, and ends after a
 * bounded number of steps, with bounded memory, depth and output. Both template and values are
 * untrusted.
 *
 * Not offered, and refused by name with line and column when a template is opened: include, import,
 * extends, block, autoescape, the filters random, pprint and urlize. */
#ifndef VIV_HOST_TEMPLATE_H
#define VIV_HOST_TEMPLATE_H

#include "base/base.h"

typedef struct viv__template viv__template;

/* Compiles a template. name is what errors call it. BAD_INPUT: it is no template (where names line
 * and column). NEVER: it uses what is not offered. */
int32_t viv__template_open(viv_str text, const char *name, viv__template **out, viv_error *error);
void viv__template_close(viv__template *t);

/* A stretch of the rendered text, in code points; end is exclusive. */
typedef struct viv__span {
  size_t start, end;
} viv__span;

typedef struct viv__rendered {
  char *text; /* terminated */
  size_t len;
  viv__span *spans; /* [n_spans] what stood in `generation` tags */
  size_t n_spans;
} viv__rendered;
void viv__rendered_free(viv__rendered *r);

/* Renders with the members of context, the text of a JSON object, as variables. now: what
 * strftime_now reads, seconds since 1970 as a local clock shows them, or negative for the real
 * clock. BAD_INPUT: the template raises an exception (raise_exception's text is the message), or
 * uses its values in a way that fails. Thread-safe: a template is not changed by rendering. */
int32_t viv__template_render(const viv__template *t, viv_str context, int64_t now,
                             viv__rendered *out, viv_error *error);

/* What one conversation is rendered from. JSON texts; an empty one stands for none. */
typedef struct viv__chat_input {
  viv_str messages;             /* list of {role, content, ...} */
  viv_str tools;                /* list of JSON schemas; none: null */
  viv_str documents;            /* list of {title, text}; none: null */
  viv_str variables;            /* object: further variables of the template */
  viv_str bos_token, eos_token; /* ptr NULL: undefined in the template, unless in variables */
  bool add_generation_prompt;
  const char *continue_field; /* the last message is left open after this field; NULL: it is not */
  int64_t now;                /* as above */
} viv__chat_input;
/* The text ends right after the last message's content when continue_field is set. */
int32_t viv__template_chat(const viv__template *t, const viv__chat_input *in, viv__rendered *out,
                           viv_error *error);

/* The templates of a checkpoint: one, or several by name. config: text of tokenizer_config.json
 * (chat_template is a text or a list of {name, template}; its special tokens become variables).
 * jinja: text of chat_template.jinja, which wins, or empty. NEVER: there is no template. */
typedef struct viv__chat viv__chat;
int32_t viv__chat_open(viv_str config, viv_str jinja, viv__chat **out, viv_error *error);
void viv__chat_close(viv__chat *chat);
/* With tools the template named "tool_use" is taken where there is one, else "default". */
int32_t viv__chat_text(const viv__chat *chat, const viv__chat_input *in, viv__rendered *out,
                       viv_error *error);

/* Open, render, close: the text of a conversation, viv__free. */
int32_t viv__chat_render(viv_str config, viv_str jinja, const viv__chat_input *in, char **text,
                         size_t *len, viv_error *error);

/* Keeps a JSON document's numbers and texts as they stand where cJSON would make every number a
 * double: the compact text of the value at path ("cases", "3", "messages"; NULL ends it), viv__free.
 * NULL: it is not there. */
typedef struct viv__exact viv__exact;
int32_t viv__exact_open(viv_str json, const char *name, viv__exact **out, viv_error *error);
char *viv__exact_text(viv__exact *e, const char *const *path);
void viv__exact_close(viv__exact *e);
#endif
