/* "added_tokens" of tokenizer.json: spellings that are tokens wherever they
 * stand.
 *
 * Those that are not normalised are looked for in the text as it is, the others
 * in what the normaliser made of what lies between, by their own normalised
 * form. */
#include "text/text.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

enum { MAX_SPELLING = 2048 };

static const char place[] = "tokenizer.json, added_tokens";

static int32_t no_memory(viv_error *error) {
  return VIV_FAIL(error, VIV_NOT_NOW, place, "out of memory");
}

/* ---- opening ---- */

static int32_t read_flags(const viv_json *node, const char *where, viv__added_token *a,
                          viv_error *error) {
  int32_t status = viv__flag_member(node, "special", where, 0, &a->special, error);
  if (status >= 0) status = viv__flag_member(node, "single_word", where, 0, &a->single_word, error);
  if (status >= 0) status = viv__flag_member(node, "lstrip", where, 0, &a->lstrip, error);
  if (status >= 0) status = viv__flag_member(node, "rstrip", where, 0, &a->rstrip, error);
  /* A special one is not normalised unless it says so; one that is not, is
   * unless it says so. */
  if (status >= 0)
    status = viv__flag_member(node, "normalized", where, !a->special, &a->normalized, error);
  return status;
}

static int32_t read_one(const viv_json *node, size_t index, viv__added_token *a, viv_error *error) {
  char where[64];
  snprintf(where, sizeof where, "%s, entry %zu", place, index);
  viv_str text = viv__json_string(viv__json_get(node, "content"));
  double id = viv__json_num(node, "id", -1);
  if (!text.ptr) return VIV_FAIL(error, VIV_BAD_INPUT, where, "has no string \"content\"");
  if (!(id >= 0 && id < MAX_TOKEN_ID) || id != floor(id))
    return VIV_FAIL(error, VIV_BAD_INPUT, where,
                    "the \"id\" of \"%.80s\" is not a whole number from 0 to %d", text.ptr,
                    MAX_TOKEN_ID - 1);
  if (text.len > MAX_SPELLING)
    return VIV_FAIL(error, VIV_NEVER, where, "has %zu bytes; at most %d", (size_t)text.len,
                    MAX_SPELLING);
  int32_t status = read_flags(node, where, a, error);
  if (status < 0) return status;
  a->text = viv__strndup(text.ptr, text.len);
  a->len = text.len;
  return a->text ? VIV_OK : no_memory(error);
}

static int32_t normal_form(const viv__normalizer *n, viv__added_token *a, viv_error *error) {
  viv__aligned text = {0}, spare = {0};
  viv__aligned_original(&text, a->text, a->len, 0);
  if (!text.failed) viv__normalize(n, &text, &spare);
  bool failed = text.failed || spare.failed;
  bool same = !failed && text.len == a->len && !memcmp(text.text, a->text, a->len);
  if (!failed && !same) {
    a->form = viv__strndup(text.len ? text.text : "", text.len);
    a->form_len = text.len;
    failed = !a->form;
  }
  viv__aligned_free(&text);
  viv__aligned_free(&spare);
  return failed ? no_memory(error) : VIV_OK;
}

/* The list's spellings, of which an earlier entry with the same one is dropped;
 * *n: how many are left. */
static int32_t read_all(const cJSON *list, viv__added *added, viv_error *error) {
  viv__trie seen = {0};
  const cJSON *item;
  size_t index = 0;
  int32_t status = VIV_OK;
  cJSON_ArrayForEach(item, list) {
    viv__added_token a = {0};
    status = read_one((const viv_json *)item, index++, &a, error);
    uint64_t node = 0, known = 0;
    bool ends = false;
    size_t i = 0;
    while (status >= 0 && i < a.len &&
           viv__trie_step(&seen, &node, (unsigned char)a.text[i], &ends, &known))
      i++;
    if (status < 0 || !a.len) {
      viv__free(a.text);
      if (status < 0) break;
      continue; /* nothing that could match */
    }
    if (i == a.len && ends) {
      viv__free(added->item[known].text);
      added->item[known] = a;
      continue;
    }
    added->item[added->n++] = a;
    if (!viv__trie_put(&seen, a.text, a.len, added->n - 1, false)) status = no_memory(error);
    if (status < 0) break;
  }
  viv__trie_free(&seen);
  return status;
}

static int32_t list_special(viv__added *added, viv_error *error) {
  viv_str *text = viv__calloc(added->n + 1, sizeof *text);
  size_t n = 0;
  if (!text) return no_memory(error);
  for (size_t i = 0; i < added->n; i++)
    if (added->item[i].special) text[n++] = (viv_str){added->item[i].text, added->item[i].len};
  int32_t status = viv__vocab_list(text, n, place, &added->special, error);
  viv__free(text);
  return status;
}

int32_t viv__added_open(const viv_json *list, const viv__vocab *vocab, const viv__normalizer *n,
                        viv__added *added, viv_error *error) {
  int32_t type = viv__json_type(list);
  if (type != VIV_JSON_ABSENT && type != VIV_JSON_NULL && type != VIV_JSON_ARRAY)
    return VIV_FAIL(error, VIV_BAD_INPUT, "tokenizer.json", "\"added_tokens\" must be a list");
  added->item = viv__calloc((size_t)viv__json_count(list) + 1, sizeof *added->item);
  if (!added->item) return no_memory(error);
  int32_t status = VIV_OK;
  if (type == VIV_JSON_ARRAY) status = read_all((const cJSON *)list, added, error);
  /* As in the library a spelling of the vocabulary keeps its id, and the others
   * are numbered from the vocabulary's end on, whatever the file says. */
  int32_t next = (int32_t)vocab->size;
  for (size_t i = 0; i < added->n && status >= 0; i++) {
    viv__added_token *a = &added->item[i];
    a->id = viv__vocab_find(vocab, a->text, a->len);
    if (a->id < 0) a->id = next++;
    if (a->normalized) status = normal_form(n, a, error);
    viv_str form = a->form ? (viv_str){a->form, a->form_len} : (viv_str){a->text, a->len};
    if (status >= 0 && form.len &&
        !viv__trie_put(a->normalized ? &added->normalized : &added->raw, form.ptr, form.len, i,
                       false))
      status = no_memory(error);
  }
  return status < 0 ? status : list_special(added, error);
}

void viv__added_free(viv__added *added) {
  for (size_t i = 0; i < added->n; i++) {
    viv__free(added->item[i].text);
    viv__free(added->item[i].form);
  }
  viv__free(added->item);
  viv__trie_free(&added->raw);
  viv__trie_free(&added->normalized);
  viv__vocab_free(&added->special);
}

/* ---- finding ---- */

/* Whether a word character stands before (or at) a place. */
static bool word_before(viv_str text, size_t at) {
  if (!at) return false;
  size_t start = viv__cp_back(text.ptr, at);
  return viv__class_of(viv__cp(text.ptr, &start)) & CLASS_WORD;
}

static bool word_at(viv_str text, size_t at) {
  return at < text.len && viv__class_of(viv__cp(text.ptr, &at)) & CLASS_WORD;
}

/* The start of the white space that ends at `at`, not before `least`. */
static size_t skip_space_back(viv_str text, size_t at, size_t least) {
  while (at > least) {
    size_t start = viv__cp_back(text.ptr, at), i = start;
    if (!(viv__class_of(viv__cp(text.ptr, &i)) & CLASS_SPACE)) break;
    at = start;
  }
  return at;
}

/* The end of the white space that begins at `at`. Matches within one run ask
 * again and again. */
static size_t skip_space(viv__added_search *s, size_t at) {
  if (at >= s->space_start && at < s->space_end) return s->space_end;
  size_t end = at;
  while (end < s->text.len) {
    size_t next = end;
    if (!(viv__class_of(viv__cp(s->text.ptr, &next)) & CLASS_SPACE)) break;
    end = next;
  }
  s->space_start = at;
  s->space_end = end;
  return end;
}

/* The longest spelling that stands at text[at]: its end, or 0. */
static size_t match_at(const viv__trie *t, viv_str text, size_t at, uint64_t *value) {
  size_t end = 0;
  uint64_t node = 0, found;
  bool ends;
  for (size_t i = at; i < text.len; i++) {
    if (!viv__trie_step(t, &node, (unsigned char)text.ptr[i], &ends, &found)) break;
    if (!ends) continue;
    end = i + 1;
    *value = found;
  }
  return end;
}

/* Leftmost, longest. A match that may not count (special tokens that are not to
 * be parsed, not a single word) is passed over as a whole, and one may stand in
 * white space that the one before it took with rstrip; both as in the library.
 */
const viv__added_token *viv__added_next(viv__added_search *s) {
  uint64_t index = 0;
  if (!s->trie->nodes) return NULL;
  while (s->at < s->text.len) {
    size_t at = s->at, end;
    if (!s->trie->root[(unsigned char)s->text.ptr[at]] ||
        !(end = match_at(s->trie, s->text, at, &index))) {
      s->at++;
      continue;
    }
    s->at = end;
    const viv__added_token *a = &s->added->item[index];
    if (a->special && !s->parse_special) continue;
    if (a->single_word && (word_before(s->text, at) || word_at(s->text, end))) continue;
    s->start = a->lstrip ? skip_space_back(s->text, at, s->done < at ? s->done : at) : at;
    /* White space that the token before took is not taken again. */
    if (a->lstrip && s->start < s->done) s->start = s->done;
    s->end = a->rstrip ? skip_space(s, end) : end;
    if (s->start > s->end) s->start = s->end;
    s->done = s->end;
    return a;
  }
  return NULL;
}
