/* What viv says: errors, sizes, progress, and the care that output needs. */
#include "cli/cli.h"

#include <errno.h>
#include <poll.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int viv__exit_code(int32_t status) {
  switch (status) {
  case VIV_NEVER:
    return VIV__EXIT_NEVER;
  case VIV_NOT_NOW:
  case VIV_DEADLINE:
    return VIV__EXIT_NOT_NOW;
  case VIV_BAD_INPUT:
    return VIV__EXIT_BAD_INPUT;
  case VIV_CANCELLED:
    return VIV__EXIT_CANCELLED;
  default:
    return status >= 0 ? VIV__EXIT_OK : VIV__EXIT_FAILED;
  }
}

int viv__report(bool json, const char *what, int32_t status, const viv_error *error) {
  const char *message = error && error->message[0] ? error->message : viv_status_name(status);
  const char *where = error ? error->where : "";
  viv__progress_clear();
  fprintf(stderr, "viv: %s%s%s\n", what ? what : "", what ? ": " : "", message);
  if (*where) fprintf(stderr, "  at %s\n", where);
  if (status == VIV_BUG && error && error->source[0])
    fprintf(stderr, "  in %s:%d; please report this\n", error->source, error->line);
  if (json) {
    cJSON *doc = viv__need(cJSON_CreateObject()), *e = cJSON_AddObjectToObject(doc, "error");
    cJSON_AddStringToObject(e, "code", viv_status_name(status));
    cJSON_AddStringToObject(e, "message", message);
    cJSON_AddStringToObject(e, "where", where);
    viv__print_json(doc);
  }
  return viv__exit_code(status);
}

int viv__usage_error(const char *verb, const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "viv %s: ", verb);
  vfprintf(stderr, format, args);
  va_end(args);
  fprintf(stderr, "\nviv %s --help shows an example and all options.\n", verb);
  return VIV__EXIT_USAGE;
}

/* Whoever presses Ctrl-C does not want to wait for a reader that has stopped reading. */
bool viv__output_open(void) {
  struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
  if (!viv__interrupted()) return true;
  if (poll(&out, 1, 0) > 0 && (out.revents & POLLOUT)) return true;
  __fpurge(stdout);
  return false;
}

int viv__finish_output(int code) {
  if (!viv__output_open()) return code ? code : VIV__EXIT_CANCELLED;
  if (!fflush(stdout) && !ferror(stdout)) return code;
  if (viv__interrupted()) return code ? code : VIV__EXIT_CANCELLED; /* a write was cut short */
  if (errno != EPIPE) fprintf(stderr, "viv: can't write the output: %s\n", strerror(errno));
  return code ? code : VIV__EXIT_FAILED;
}

void viv__print_json(cJSON *json) {
  char *text = viv__need(cJSON_PrintUnformatted(json));
  if (viv__output_open()) {
    puts(text);
    fflush(stdout);
  }
  cJSON_free(text);
  cJSON_Delete(json);
}

static const char *scaled(double x, double base, const char *const *units, int n_units,
                          const char *whole, char *out) {
  int unit = 0;
  if (x < base) {
    snprintf(out, 32, "%.0f%s", x, whole);
    return out;
  }
  while (x >= base && unit < n_units) {
    x /= base;
    unit++;
  }
  snprintf(out, 32, "%.*f %s", x < 10 ? 2 : 1, x, units[unit - 1]);
  return out;
}

const char *viv__size_text(double bytes, char *out) {
  static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
  return scaled(bytes, 1024, units, 4, " bytes", out);
}

const char *viv__count_text(double n, char *out) {
  static const char *const units[] = {"K", "M", "B"};
  return scaled(n, 1000, units, 3, "", out);
}

/* Whether a progress line stands on the terminal: only then may a line be wiped. */
static bool progress_shown;

void viv__progress_show(const char *what, double fraction) {
  enum { WIDTH = 30 };
  if (!isatty(STDERR_FILENO)) return;
  progress_shown = true;
  if (fraction < 0) {
    fprintf(stderr, "\r\033[K%s", what);
  } else {
    int full = fraction >= 1 ? WIDTH : (int)(fraction * WIDTH);
    fprintf(stderr, "\r\033[K%s [%.*s%*s] %3.0f %%", what, full, "##############################",
            WIDTH - full, "", fraction * 100);
  }
  fflush(stderr);
}

void viv__progress_clear(void) {
  if (progress_shown) fprintf(stderr, "\r\033[K");
  progress_shown = false;
}

void *viv__need(void *p) {
  if (p) return p;
  fprintf(stderr, "viv: no memory\n");
  exit(VIV__EXIT_NOT_NOW);
}

char *viv__textf(const char *format, ...) {
  va_list args;
  char *text = NULL;
  va_start(args, format);
  int len = vasprintf(&text, format, args);
  va_end(args);
  return viv__need(len < 0 ? NULL : text);
}

char *viv__read_stdin(size_t *len) {
  viv__buf text = {0};
  char chunk[4096];
  for (size_t n; (n = fread(chunk, 1, sizeof chunk, stdin)) > 0;) viv__buf_add(&text, chunk, n);
  viv__buf_add(&text, "", 1);
  if (text.failed) viv__need(NULL);
  *len = text.len - 1;
  return text.ptr;
}
