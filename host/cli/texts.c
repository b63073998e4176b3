/* Texts on the command line: arguments, or the lines of a file or of standard input. */
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"

enum { TEXT_LIMIT = 256 << 20 };

static void add(viv__texts *t, viv_str text) {
  if ((t->n & (t->n - 1)) == 0)
    t->items = viv__need(viv__realloc(t->items, (t->n ? 2 * t->n : 1) * sizeof *t->items));
  t->items[t->n++] = text;
}

/* A line a text; empty lines are none. */
static void add_lines(viv__texts *t, const char *text, size_t len) {
  for (const char *at = text, *end = text + len; at < end;) {
    const char *stop = memchr(at, '\n', (size_t)(end - at));
    if (!stop) stop = end;
    size_t n = (size_t)(stop - at);
    if (n && at[n - 1] == '\r') n--;
    if (n) add(t, (viv_str){at, n});
    at = stop + 1;
  }
}

/* A name that nobody means as a text: no blank in it, and a text file's ending. */
static bool names_a_file(const char *s) {
  static const char *const ends[] = {".txt", ".md", ".csv", ".tsv", ".json", ".jsonl"};
  size_t len = strlen(s);
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    size_t n = strlen(ends[i]);
    if (len > n && !strcmp(s + len - n, ends[i])) return !strpbrk(s, " \t\n");
  }
  return false;
}

int32_t viv__texts_read(viv__texts *t, const char *const *args, int n, viv_error *error) {
  size_t len = 0;
  int32_t status = VIV_OK;
  *t = (viv__texts){0};
  if (!n || (n == 1 && !strcmp(args[0], "-")))
    t->held = viv__read_stdin(&len);
  else if (n == 1 && !access(args[0], R_OK))
    status = viv__read_file(args[0], TEXT_LIMIT, &t->held, &len, error);
  else if (n == 1 && names_a_file(args[0]))
    return VIV_FAIL(error, VIV_BAD_INPUT, args[0],
                    "there is no such file (such a text comes through standard input)");
  if (status < 0) return status;
  if (t->held) add_lines(t, t->held, len);
  for (int i = 0; i < n && !t->held; i++) add(t, viv__str(args[i]));
  return t->n ? VIV_OK : VIV_FAIL(error, VIV_BAD_INPUT, "text", "there is no text");
}

void viv__texts_free(viv__texts *t) {
  viv__free(t->items);
  viv__free(t->held);
  *t = (viv__texts){0};
}
