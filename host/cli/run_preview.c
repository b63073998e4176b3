/* A picture on the terminal: kitty's protocol, sixels, or coloured half-blocks. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "cli/run.h"

enum { SIXEL_SIDE = 800, ANSWER_MS = 200, LEVELS = 6 };

/* ---- what the terminal can ---- */

/* Asks for the terminal's attributes; number 4 among them is sixel. */
static bool offers_sixel(void) {
  struct termios before, raw;
  char answer[128];
  size_t n = 0;
  if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before)) return false;
  raw = before;
  raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
  tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  bool asked = write(STDOUT_FILENO, "\033[c", 3) == 3;
  struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
  while (asked && n < sizeof answer - 1 && poll(&in, 1, ANSWER_MS) > 0) {
    if (read(STDIN_FILENO, answer + n, 1) != 1) break;
    if (answer[n++] == 'c') break;
  }
  tcsetattr(STDIN_FILENO, TCSANOW, &before);
  answer[n] = 0;
  return strstr(answer, ";4;") || strstr(answer, ";4c");
}

static const char *ability(void) {
  const char *term = getenv("TERM"), *program = getenv("TERM_PROGRAM");
  if (getenv("KITTY_WINDOW_ID") || (term && strstr(term, "kitty"))) return "kitty";
  if (program && (!strcmp(program, "WezTerm") || !strcmp(program, "ghostty"))) return "kitty";
  return offers_sixel() ? "sixel" : "blocks";
}

/* ---- kitty: the PNG itself, in base 64 ---- */

static int32_t kitty(const viv__picture *p, viv_error *error) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  enum { CHUNK = 3072 }; /* bytes, a multiple of 3; 4096 characters */
  viv__buf png = {0};
  int32_t status = viv__png_encode(&png, p->data, p->width, p->height, 3, 8, error);
  for (size_t at = 0; status >= 0 && at < png.len; at += CHUNK) {
    size_t end = at + CHUNK < png.len ? at + CHUNK : png.len;
    printf("\033_G%sm=%d;", at ? "" : "a=T,f=100,", end < png.len);
    for (size_t i = at; i < end; i += 3) {
      uint32_t v = 0;
      for (size_t k = 0; k < 3; k++) v = v << 8 | (i + k < end ? (uint8_t)png.ptr[i + k] : 0);
      for (size_t k = 0; k < 4; k++) putchar(i + k > end ? '=' : digits[v >> (18 - 6 * k) & 63]);
    }
    printf("\033\\");
  }
  printf("\n");
  viv__buf_free(&png);
  return status;
}

/* ---- smaller pictures ---- */

/* The mean colour of the part of the picture that cell (x, y) of w by h covers. */
static void mean(const viv__picture *p, int64_t x, int64_t y, int64_t w, int64_t h, int rgb[3]) {
  int64_t x0 = x * p->width / w, x1 = (x + 1) * p->width / w;
  int64_t y0 = y * p->height / h, y1 = (y + 1) * p->height / h, sum[3] = {0};
  if (x1 <= x0) x1 = x0 + 1;
  if (y1 <= y0) y1 = y0 + 1;
  for (int64_t j = y0; j < y1; j++)
    for (int64_t i = x0; i < x1; i++)
      for (int c = 0; c < 3; c++) sum[c] += ((const uint8_t *)p->data)[3 * (j * p->width + i) + c];
  for (int c = 0; c < 3; c++) rgb[c] = (int)(sum[c] / ((x1 - x0) * (y1 - y0)));
}

/* ---- sixels: 216 colours, ordered dither ---- */

static int sixel_colour(const viv__picture *p, int64_t x, int64_t y, int64_t w, int64_t h) {
  static const int dither[4][4] = {{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}};
  int rgb[3], colour = 0;
  mean(p, x, y, w, h, rgb);
  for (int c = 0; c < 3; c++) {
    int level = (rgb[c] * (LEVELS - 1) * 16 + dither[y % 4][x % 4] * 255) / (255 * 16);
    colour = colour * LEVELS + (level < LEVELS ? level : LEVELS - 1);
  }
  return colour;
}

static void sixel(const viv__picture *p) {
  int64_t longer = p->width > p->height ? p->width : p->height;
  int64_t w = p->width, h = p->height;
  if (longer > SIXEL_SIDE) {
    w = w * SIXEL_SIDE / longer + !(w * SIXEL_SIDE / longer);
    h = h * SIXEL_SIDE / longer + !(h * SIXEL_SIDE / longer);
  }
  int *band = viv__need(viv__calloc((size_t)w * 6, sizeof *band));
  printf("\033Pq\"1;1;%lld;%lld", (long long)w, (long long)h);
  for (int i = 0; i < LEVELS * LEVELS * LEVELS; i++)
    printf("#%d;2;%d;%d;%d", i, i / 36 * 20, i / 6 % 6 * 20, i % 6 * 20);
  for (int64_t y = 0; y < h; y += 6) {
    bool used[LEVELS * LEVELS * LEVELS] = {false};
    for (int64_t k = 0; k < 6; k++)
      for (int64_t x = 0; x < w; x++) {
        int colour = y + k < h ? sixel_colour(p, x, y + k, w, h) : -1;
        band[k * w + x] = colour;
        if (colour >= 0) used[colour] = true;
      }
    for (int c = 0; c < LEVELS * LEVELS * LEVELS; c++) {
      if (!used[c]) continue;
      printf("#%d", c);
      for (int64_t x = 0, run; x < w; x += run) {
        int bits = 0, next = -1;
        for (int k = 0; k < 6; k++) bits |= (band[k * w + x] == c) << k;
        for (run = 0; x + run < w; run++) {
          next = 0;
          for (int k = 0; k < 6; k++) next |= (band[k * w + x + run] == c) << k;
          if (next != bits) break;
        }
        printf("!%lld%c", (long long)run, 63 + bits);
      }
      putchar('$');
    }
    putchar('-');
  }
  printf("\033\\\n");
  viv__free(band);
}

/* ---- half-blocks: two pixels a character ---- */

static void blocks(const viv__picture *p) {
  struct winsize size = {0};
  const char *colours = getenv("COLORTERM");
  bool full = colours && (!strcmp(colours, "truecolor") || !strcmp(colours, "24bit"));
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) || !size.ws_col) size.ws_col = 80;
  int64_t w = size.ws_col < p->width ? size.ws_col : p->width, h = p->height * w / p->width;
  if (h < 2) h = 2;
  for (int64_t y = 0; y + 1 < h; y += 2) {
    for (int64_t x = 0; x < w; x++)
      for (int half = 0; half < 2; half++) {
        int c[3];
        mean(p, x, y + half, w, h, c);
        if (full)
          printf("\033[%d;2;%d;%d;%dm", half ? 48 : 38, c[0], c[1], c[2]);
        else
          printf("\033[%d;5;%dm", half ? 48 : 38,
                 16 + 36 * ((c[0] * 5 + 127) / 255) + 6 * ((c[1] * 5 + 127) / 255) +
                     (c[2] * 5 + 127) / 255);
        if (half) printf("\u2580");
      }
    printf("\033[0m\n");
  }
}

int32_t viv__preview(const viv__picture *p, const char *as, viv_error *error) {
  int32_t status = VIV_OK;
  if (!as && !isatty(STDOUT_FILENO))
    return VIV_FAIL(error, VIV_NEVER, "--preview",
                    "standard output is no terminal; --preview-as kitty, sixel or blocks says what "
                    "reads it");
  fflush(stdout);
  if (!as) as = ability();
  if (!strcmp(as, "kitty"))
    status = kitty(p, error);
  else if (!strcmp(as, "sixel"))
    sixel(p);
  else if (!strcmp(as, "blocks"))
    blocks(p);
  else
    status = VIV_FAIL(error, VIV_BAD_INPUT, "--preview-as",
                      "\"%s\" is none of kitty, sixel, blocks", as);
  fflush(stdout);
  return status;
}
