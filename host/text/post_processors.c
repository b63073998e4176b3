/* "post_processor" of tokenizer.json: special tokens put around one text or
 * two, and the white space at the borders of byte-level tokens taken out of
 * their places. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

enum { MAX_PROCESSORS = 16 };
enum kind { TEMPLATE, BERT, ROBERTA, BYTE_LEVEL };

/* A part of a template: a text, or a run of special tokens. */
typedef struct part {
  int32_t text; /* 0 or 1; -1: special tokens */
  int32_t type_id;
  size_t first, n; /* those, in the processor's list */
} part;

typedef struct processor {
  int kind;
  bool trim, prefix; /* BYTE_LEVEL, ROBERTA: places lose white space; but not a
                        first space */
  part *part[2];     /* TEMPLATE: for one text, for two */
  size_t parts[2];
  viv__encoded *token; /* special tokens; BERT, ROBERTA: cls, sep */
  size_t tokens, cap;
} processor;

struct viv__post_processor {
  size_t n;
  processor item[MAX_PROCESSORS];
};

static const char where[] = "tokenizer.json, post_processor";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, where, "out of memory");
}

/* ---- opening ---- */

/* Adds a special token with a spelling of its own. */
static int32_t add_token(processor *p, double id, const char *text, viv_error *error) {
  if (!(id >= 0 && id < MAX_TOKEN_ID) || id != floor(id))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the id of \"%.80s\" is not a whole number from 0 to %d", text,
                    MAX_TOKEN_ID - 1);
  if (p->tokens == p->cap) {
    size_t cap = p->cap ? 2 * p->cap : 8;
    viv__encoded *grown = viv__realloc(p->token, cap * sizeof *grown);
    if (!grown) return no_memory(error);
    p->token = grown;
    p->cap = cap;
  }
  size_t len = strlen(text);
  char *copy = viv__strndup(text, len);
  if (!copy) return no_memory(error);
  p->token[p->tokens++] = (viv__encoded){.id = (int32_t)id,
                                         .word = -1,
                                         .sequence = -1,
                                         .special = true,
                                         .attention = true,
                                         .text = {copy, len}};
  return VIV_OK;
}

/* The tokens of a special_tokens entry. */
static int32_t add_special(const viv_json *node, const char *name, processor *p, part *to,
                           viv_error *error) {
  const viv_json *entry = viv__json_get(viv__json_get(node, "special_tokens"), name);
  const viv_json *ids = viv__json_get(entry, "ids"), *texts = viv__json_get(entry, "tokens");
  if (viv__json_type(ids) != VIV_JSON_ARRAY || viv__json_type(texts) != VIV_JSON_ARRAY ||
      viv__json_count(ids) != viv__json_count(texts))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the template names \"%.80s\", for which "
                    "\"special_tokens\" has no list of ids "
                    "and one of as many tokens",
                    name);
  to->text = -1;
  to->first = p->tokens;
  to->n = (size_t)viv__json_count(ids);
  const cJSON *id = ((const cJSON *)ids)->child, *text = ((const cJSON *)texts)->child;
  for (; id && text; id = id->next, text = text->next) {
    if (!cJSON_IsString(text))
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a token of \"%.80s\" is not a string", name);
    int32_t status =
        add_token(p, cJSON_IsNumber(id) ? id->valuedouble : -1, text->valuestring, error);
    if (status < 0) return status;
  }
  return VIV_OK;
}

static int32_t open_part(const viv_json *node, const viv_json *item, processor *p, part *to,
                         viv_error *error) {
  const viv_json *special = viv__json_get(item, "SpecialToken"),
                 *text = viv__json_get(item, "Sequence"), *one = special ? special : text;
  double type_id = 0;
  if (viv__json_type(one) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "a part of a template is neither a SpecialToken nor a Sequence");
  int32_t status = viv__count_member(one, "type_id", where, INT32_MAX, -1, &type_id, error);
  const char *id = viv__json_text(one, "id", "");
  to->type_id = (int32_t)type_id;
  if (status >= 0 && special) return add_special(node, id, p, to, error);
  if (status >= 0 && strcmp(id, "A") != 0 && strcmp(id, "B") != 0)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence is \"%.40s\"; expected A or B", id);
  to->text = *id == 'B';
  return status;
}

static int32_t open_template(const viv_json *node, processor *p, viv_error *error) {
  static const char *const keys[2] = {"single", "pair"};
  for (int i = 0; i < 2; i++) {
    const viv_json *list = viv__json_get(node, keys[i]);
    bool seen[2] = {false, false};
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "TemplateProcessing needs a list \"%s\"",
                      keys[i]);
    p->part[i] = viv__calloc((size_t)viv__json_count(list) + 1, sizeof *p->part[i]);
    if (!p->part[i]) return no_memory(error);
    const cJSON *item;
    cJSON_ArrayForEach(item, (const cJSON *)list) {
      part *to = &p->part[i][p->parts[i]++];
      int32_t status = open_part(node, (const viv_json *)item, p, to, error);
      if (status < 0) return status;
      if (to->text >= 0) seen[to->text] = true;
    }
    if (i == 0 && seen[1])
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "the template for a single text asks for a second one");
    if (i == 1 && p->parts[1] && !(seen[0] && seen[1]))
      return VIV_FAIL(error, VIV_BAD_INPUT, where,
                      "the template for a pair must hold both texts, A and B");
  }
  return VIV_OK;
}

/* "cls" and "sep", each as ["token", id]. */
static int32_t open_pair(const viv_json *node, const char *key, processor *p, viv_error *error) {
  const viv_json *list = viv__json_get(node, key), *id = viv__json_item(list, 1);
  viv_str text = viv__json_string(viv__json_item(list, 0));
  if (!text.ptr || viv__json_type(id) != VIV_JSON_NUMBER || viv__json_count(list) != 2)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "\"%s\" must be a list of a token and its id",
                    key);
  return add_token(p, viv__json_number(id), text.ptr, error);
}

static int32_t open_one(const viv_json *node, const char *type, processor *p, viv_error *error) {
  int32_t status = VIV_OK;
  bool roberta = !strcmp(type, "RobertaProcessing"), bytes = !strcmp(type, "ByteLevel");
  if (!strcmp(type, "TemplateProcessing")) {
    p->kind = TEMPLATE;
    return open_template(node, p, error);
  }
  if (!roberta && !bytes && strcmp(type, "BertProcessing") != 0)
    return VIV_FAIL(error, VIV_NEVER, where, "the type \"%.60s\" is not known", type);
  p->kind = roberta ? ROBERTA : bytes ? BYTE_LEVEL : BERT;
  if (roberta || bytes) {
    status = viv__flag_member(node, "trim_offsets", where, 1, &p->trim, error);
    if (status >= 0)
      status = viv__flag_member(node, "add_prefix_space", where, 1, &p->prefix, error);
  }
  if (status >= 0 && !bytes) status = open_pair(node, "cls", p, error);
  if (status >= 0 && !bytes) status = open_pair(node, "sep", p, error);
  return status;
}

static int32_t open_list(const viv_json *node, viv__post_processor *p, viv_error *error) {
  if (viv__json_type(node) != VIV_JSON_OBJECT)
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "must be an object or null");
  const char *type = viv__json_text(node, "type", "");
  if (!strcmp(type, "Sequence")) {
    const viv_json *list = viv__json_get(node, "processors");
    if (viv__json_type(list) != VIV_JSON_ARRAY)
      return VIV_FAIL(error, VIV_BAD_INPUT, where, "a Sequence needs a list \"processors\"");
    const cJSON *item;
    cJSON_ArrayForEach(item, (const cJSON *)list) {
      int32_t status = open_list((const viv_json *)item, p, error);
      if (status < 0) return status;
    }
    return VIV_OK;
  }
  if (p->n == MAX_PROCESSORS)
    return VIV_FAIL(error, VIV_NEVER, where, "more than %d processors", MAX_PROCESSORS);
  for (size_t i = 0; i < p->n; i++)
    if (p->item[i].kind == TEMPLATE && !strcmp(type, "TemplateProcessing"))
      return VIV_FAIL(error, VIV_NEVER, where, "a second TemplateProcessing in a Sequence");
  return open_one(node, type, &p->item[p->n++], error);
}

int32_t viv__post_processor_open(const viv_json *node, viv__post_processor **out,
                                 viv_error *error) {
  viv__post_processor *p = viv__calloc(1, sizeof *p);
  if (!p) return no_memory(error);
  int32_t kind = viv__json_type(node), status = VIV_OK;
  if (kind != VIV_JSON_ABSENT && kind != VIV_JSON_NULL) status = open_list(node, p, error);
  if (status < 0)
    viv__post_processor_free(p);
  else
    *out = p;
  return status;
}

static void free_one(processor *p) {
  for (size_t i = 0; i < p->tokens; i++) viv__free((void *)(uintptr_t)p->token[i].text.ptr);
  viv__free(p->token);
  viv__free(p->part[0]);
  viv__free(p->part[1]);
}

void viv__post_processor_free(viv__post_processor *p) {
  if (!p) return;
  for (size_t i = 0; i < p->n; i++) free_one(&p->item[i]);
  viv__free(p);
}

bool viv__post_processor_wrap(viv__post_processor *p, const viv__encoded *before,
                              const viv__encoded *after) {
  processor t = {.kind = TEMPLATE};
  const viv__encoded *around[2] = {before, after};
  for (int k = 0; k < 2; k++) {
    t.part[k] = viv__calloc(6, sizeof *t.part[k]);
    for (int text = 0; text <= k && t.part[k]; text++)
      for (int i = 0; i < 3; i++) {
        if (i != 1 && !around[i / 2]) continue;
        part *to = &t.part[k][t.parts[k]++];
        *to = (part){.text = text, .type_id = text};
        if (i == 1) continue;
        to->text = -1;
        to->first = t.tokens;
        to->n = 1;
        if (add_token(&t, around[i / 2]->id, around[i / 2]->text.ptr, NULL) < 0) to->n = 0;
      }
  }
  if (!t.part[0] || !t.part[1]) {
    free_one(&t);
    return false;
  }
  /* What trims places stays; other templates go, of which `before` and `after`
   * may be. */
  size_t kept = 0;
  for (size_t i = 0; i < p->n; i++) {
    if (p->item[i].kind == BYTE_LEVEL)
      p->item[kept++] = p->item[i];
    else
      free_one(&p->item[i]);
  }
  p->n = kept;
  if (p->n == MAX_PROCESSORS) p->n--; /* one of so many that trim */
  p->item[p->n++] = t;
  return true;
}

bool viv__post_processor_side(const viv__post_processor *p, int side, viv__encoded *out) {
  for (size_t i = 0; i < p->n; i++) {
    const processor *one = &p->item[i];
    if (one->kind != TEMPLATE || !one->parts[0]) continue;
    const part *at = side ? &one->part[0][one->parts[0] - 1] : &one->part[0][0];
    if (at->text >= 0 || at->n != 1) continue;
    *out = one->token[at->first];
    return true;
  }
  return false;
}

size_t viv__post_processor_added(const viv__post_processor *p, bool pair) {
  size_t added = 0;
  for (size_t i = 0; i < p->n; i++) {
    const processor *one = &p->item[i];
    if (one->kind == BERT) added += pair ? 3 : 2;
    if (one->kind == ROBERTA) added += pair ? 4 : 2;
    for (size_t k = 0; one->kind == TEMPLATE && k < one->parts[pair]; k++)
      added += one->part[pair][k].text < 0 ? one->part[pair][k].n : 0;
  }
  return added;
}

bool viv__post_processor_token(const viv__post_processor *p, size_t n, int32_t *id) {
  for (size_t i = 0; i < p->n; i++) {
    if (n < p->item[i].tokens) {
      *id = p->item[i].token[n].id;
      return true;
    }
    n -= p->item[i].tokens;
  }
  return false;
}

/* ---- running ---- */

static bool is_space(uint32_t cp) {
  return cp == 0x120 || viv__class_of(cp) & CLASS_SPACE;
}

/* Takes the white space at a token's borders out of its place. */
static void trim(viv__encoding *e, bool prefix) {
  for (size_t i = 0; i < e->n; i++) {
    viv__encoded *t = &e->token[i];
    size_t leading = 0, trailing = 0;
    for (size_t at = 0; at < t->text.len && is_space(viv__cp(t->text.ptr, &at));) leading++;
    for (size_t end = t->text.len; end;) {
      size_t at = end = viv__cp_back(t->text.ptr, end);
      if (!is_space(viv__cp(t->text.ptr, &at))) break;
      trailing++;
    }
    if (leading) {
      if ((i == 0 || t->start == 0) && prefix && leading == 1) leading = 0;
      t->start = t->start + leading < t->end ? t->start + (uint32_t)leading : t->end;
    }
    if (trailing && t->end >= trailing)
      t->end = t->end - trailing > t->start ? t->end - (uint32_t)trailing : t->start;
  }
}

static void trim_all(viv__encoding *e, bool prefix) {
  trim(e, prefix);
  for (size_t i = 0; i < e->overflows; i++) trim(&e->overflow[i], prefix);
}

static void set_types(viv__encoding *e, int32_t type_id) {
  for (size_t i = 0; i < e->n; i++) e->token[i].type_id = type_id;
}

static void set_sequence(viv__encoding *e, int32_t sequence) {
  for (size_t i = 0; i < e->n; i++) e->token[i].sequence = sequence;
}

/* BERT and RoBERTa: a window between two tokens, of which before may be NULL.
 */
static void enclose(viv__encoding *e, const viv__encoded *before, const viv__encoded *after,
                    int32_t type_id) {
  viv__encoding out = {.failed = e->failed};
  viv__encoded open = before ? *before : (viv__encoded){0}, close = *after;
  open.type_id = close.type_id = type_id;
  if (before) viv__encoding_add(&out, open);
  for (size_t i = 0; i < e->n; i++) {
    e->token[i].special = false;
    e->token[i].attention = true;
    viv__encoding_add(&out, e->token[i]);
  }
  viv__encoding_add(&out, close);
  viv__free(e->token);
  e->token = out.token;
  e->n = out.n;
  e->cap = out.cap;
  e->failed = out.failed;
}

static void enclose_all(const processor *p, viv__encoding *e, bool second) {
  bool roberta = p->kind == ROBERTA;
  const viv__encoded *cls = &p->token[0], *sep = &p->token[1];
  const viv__encoded *before = !second ? cls : roberta ? sep : NULL;
  for (size_t i = 0; i <= e->overflows; i++) {
    viv__encoding *window = i ? &e->overflow[i - 1] : e;
    if (i && roberta) set_types(window, 0);
    enclose(window, before, sep, second && !roberta);
    e->failed |= window->failed;
  }
}

/* A processor turns the list of encodings into another; a template's has a part
 * for each of its own. */
typedef struct list {
  viv__encoding *item;
  size_t n;
  bool failed;
} list;

static void run_template(const processor *p, list *l, bool special) {
  bool pair = l->n == 2;
  list out = {viv__calloc(p->parts[pair] + 1, sizeof *out.item), 0, false};
  if (!out.item) {
    l->failed = true;
    return;
  }
  for (size_t i = 0; i < p->parts[pair]; i++) {
    const part *from = &p->part[pair][i];
    viv__encoding *to = &out.item[out.n];
    if (from->text >= 0) {
      viv__encoding *text = &l->item[from->text];
      set_types(text, from->type_id);
      set_sequence(text, from->text);
      out.failed |= !viv__encoding_copy(to, text, true);
      out.n++;
    } else if (special) {
      for (size_t k = 0; k < from->n; k++) {
        viv__encoded token = p->token[from->first + k];
        token.type_id = from->type_id;
        viv__encoding_add(to, token);
      }
      out.failed |= to->failed;
      out.n++;
    }
  }
  for (size_t i = 0; i < l->n; i++) viv__encoding_free(&l->item[i]);
  viv__free(l->item);
  out.failed |= l->failed;
  *l = out;
}

static void run(const processor *p, list *l, bool special) {
  if (p->trim)
    for (size_t i = 0; i < l->n; i++) trim_all(&l->item[i], p->prefix);
  if (p->kind == BYTE_LEVEL)
    for (size_t i = 0; i < l->n; i++) set_sequence(&l->item[i], (int32_t)i);
  if (p->kind == ROBERTA)
    for (size_t i = 0; i < l->n; i++) set_types(&l->item[i], 0);
  if (p->kind == TEMPLATE) run_template(p, l, special);
  if ((p->kind == BERT || p->kind == ROBERTA) && special)
    for (size_t i = 0; i < l->n; i++) enclose_all(p, &l->item[i], i > 0);
}

void viv__post_process(const viv__post_processor *p, viv__encoding *first, viv__encoding *pair,
                       bool add_special, viv__encoding *out) {
  list l = {viv__calloc(2, sizeof *l.item), pair ? 2 : 1, false};
  *out = (viv__encoding){0};
  if (!l.item) {
    out->failed = true;
    return;
  }
  l.item[0] = *first;
  if (pair) l.item[1] = *pair;
  *first = (viv__encoding){0};
  if (pair) *pair = (viv__encoding){0};
  for (size_t i = 0; i < l.n; i++) {
    l.failed |= l.item[i].failed;
    set_sequence(&l.item[i], (int32_t)i);
    for (size_t k = 0; k < l.item[i].overflows; k++)
      set_sequence(&l.item[i].overflow[k], (int32_t)i);
    if (p->n) set_types(&l.item[i], (int32_t)i);
  }
  for (size_t i = 0; i < p->n && !l.failed; i++) run(&p->item[i], &l, add_special);
  for (size_t i = 0; i < l.n; i++) {
    if (i)
      viv__encoding_merge(out, &l.item[i]);
    else
      *out = l.item[i];
    if (i) viv__encoding_free(&l.item[i]);
  }
  out->failed |= l.failed;
  viv__free(l.item);
}
