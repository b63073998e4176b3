/* Reading what a person says. */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cli/chat.h"

enum { REMEMBERED = 1000 };
static const char quotes[] = "\"\"\"";

struct viv__chat_reader {
  EditLine *edit; /* NULL: plain lines */
  History *history;
  char *line;
  size_t cap;
  viv__buf message;
  bool more; /* the next line belongs to the message */
};

static const char *prompt(EditLine *edit) {
  viv__chat_reader *r = NULL;
  el_get(edit, EL_CLIENTDATA, &r);
  return r && r->more ? ". " : "> ";
}

/* The next character. libedit's own reading sleeps through an interrupt that comes just before it; this one
 * looks up ten times a second. 1, 0 at the end, -1 when interrupted. */
static int next_character(EditLine *edit, wchar_t *c) {
  mbstate_t state = {0};
  (void)edit;
  for (;;) {
    struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
    int ready = poll(&in, 1, 100);
    char byte = 0;
    if (viv__interrupted()) return -1;
    if (ready == 0 || (ready < 0 && errno == EINTR)) continue;
    ssize_t n = ready < 0 ? -1 : read(STDIN_FILENO, &byte, 1);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return (int)n;
    size_t used = mbrtowc(c, &byte, 1, &state);
    if (used == (size_t)-2) continue; /* more bytes belong to it */
    if (used == (size_t)-1) *c = L'?';
    return 1;
  }
}

viv__chat_reader *viv__chat_reader_new(bool terminal) {
  HistEvent event;
  viv__chat_reader *r = viv__need(viv__calloc(1, sizeof *r));
  if (!terminal) return r;
  setlocale(LC_CTYPE, ""); /* characters of several bytes are edited as one */
  r->edit = el_init("viv", stdin, stderr, stderr);
  r->history = history_init();
  if (!r->edit || !r->history) viv__need(NULL);
  history(r->history, &event, H_SETSIZE, REMEMBERED);
  history(r->history, &event, H_SETUNIQUE, 1);
  el_set(r->edit, EL_CLIENTDATA, r);
  el_set(r->edit, EL_PROMPT, prompt);
  el_set(r->edit, EL_GETCFN, next_character);
  el_set(r->edit, EL_EDITOR, "emacs");
  el_set(r->edit, EL_HIST, history, r->history);
  return r;
}

void viv__chat_reader_free(viv__chat_reader *r) {
  if (!r) return;
  if (r->edit) el_end(r->edit);
  if (r->history) history_end(r->history);
  viv__free(r->line);
  viv__buf_free(&r->message);
  viv__free(r);
}

/* One line without its end. */
static int read_line(viv__chat_reader *r, viv_str *line) {
  int n = 0;
  ssize_t plain = 0;
  if (r->edit) {
    const char *text = el_gets(r->edit, &n);
    *line = (viv_str){text, text && n > 0 ? (size_t)n : 0};
    plain = text ? n : -1;
  } else {
    errno = 0;
    plain = getline(&r->line, &r->cap, stdin);
    *line = (viv_str){r->line, plain > 0 ? (size_t)plain : 0};
  }
  if (viv__interrupted()) return VIV__CHAT_INTERRUPTED;
  if (plain <= 0) return VIV__CHAT_END;
  while (line->len && (line->ptr[line->len - 1] == '\n' || line->ptr[line->len - 1] == '\r'))
    line->len--;
  return VIV__CHAT_MESSAGE;
}

static bool ends_with(viv_str s, const char *end) {
  size_t n = strlen(end);
  return s.len >= n && !memcmp(s.ptr + s.len - n, end, n);
}

int viv__chat_read(viv__chat_reader *r, const char **text) {
  viv_str line;
  HistEvent event;
  bool quoted = false;
  r->message.len = 0;
  r->more = false;
  for (;;) {
    int got = read_line(r, &line);
    if (got == VIV__CHAT_END && r->message.len) break; /* the file ends in the message */
    if (got != VIV__CHAT_MESSAGE) return got;
    if (!r->more && line.len >= 3 && !memcmp(line.ptr, quotes, 3)) {
      quoted = r->more = true;
      line = (viv_str){line.ptr + 3, line.len - 3};
      if (!line.len) continue;
    }
    if (quoted) {
      bool last = ends_with(line, quotes);
      viv__buf_add(&r->message, line.ptr, line.len - (last ? 3 : 0));
      if (last) break;
      viv__buf_str(&r->message, "\n");
      continue;
    }
    r->more = ends_with(line, "\\");
    viv__buf_add(&r->message, line.ptr, line.len - r->more);
    if (!r->more) break;
    viv__buf_str(&r->message, "\n");
  }
  if (quoted && r->message.len && r->message.ptr[r->message.len - 1] == '\n') r->message.len--;
  viv__buf_add(&r->message, "", 1);
  if (r->message.failed) viv__need(NULL);
  if (r->history && r->message.len > 1 && !strchr(r->message.ptr, '\n'))
    history(r->history, &event, H_ENTER, r->message.ptr);
  *text = r->message.ptr;
  return VIV__CHAT_MESSAGE;
}
