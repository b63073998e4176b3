/* A recording as people look at it: its spectrogram over time, stretches of speech marked in it, and
 * below whatever else was found: probabilities, codes, classes, text. */
#include <math.h>
#include <string.h>

#include "cli/run.h"
#include "compute/compute.h"
#include "media/canvas.h"
#include "media/sound.h"

enum {
  LEFT = 64, /* pixels: numbers stand there */
  RIGHT = 16,
  SPECTROGRAM = 256,
  AXIS = 24,
  CURVE = 72,
  LINE = 22,
  MAX_LINES = 12,
  MAX_CODE_ROWS = 64,
  LETTER = 9 /* height of a capital */
};
static const viv__ink white = {1, 1, 1, 1}, pale = {0.72, 0.74, 0.80, 1},
                      green = {0.35, 0.90, 0.55, 1};

struct sheet {
  const viv__sound *sound;
  const cJSON *line;
  const viv__tensor_list *tensors;
  viv__picture *picture;
  viv__canvas *canvas; /* NULL while the height is measured and pixels are filled */
  double seconds;
  int32_t width, y; /* width: of the time axis */
};

static void fill(const struct sheet *s, int64_t x0, int64_t x1, int64_t y0, int64_t y1,
                 viv__ink ink) {
  uint8_t *rgb = s->picture->data;
  for (int64_t y = y0; y < y1; y++)
    for (int64_t x = x0; x < x1; x++) {
      uint8_t *at = rgb + (y * s->picture->width + x) * 3;
      at[0] = (uint8_t)lround(ink.r * 255);
      at[1] = (uint8_t)lround(ink.g * 255);
      at[2] = (uint8_t)lround(ink.b * 255);
    }
}

static double x_of(const struct sheet *s, double seconds) {
  return LEFT + seconds / s->seconds * s->width;
}

/* ---- spectrogram ---- */

/* Decibels of width columns [width, bins] of the mean of the channels. */
static int32_t decibels(const struct sheet *s, int32_t n_fft, float *out, viv_error *error) {
  const viv_compute *c = NULL;
  int64_t n = s->sound->frames, bins = n_fft / 2 + 1, w = s->width;
  int32_t status = viv__compute_new(1, VIV__ISA_AUTO, &c, error);
  if (status < 0) return status;
  float *x = viv__need(viv__calloc((size_t)(w * n_fft), sizeof *x));
  float *spectrum = viv__need(viv__calloc((size_t)(w * bins * 2), sizeof *spectrum));
  float *window = viv__need(viv__calloc((size_t)n_fft, sizeof *window));
  for (int32_t i = 0; i < n_fft; i++)
    window[i] = (float)(0.5 - 0.5 * cos(2 * M_PI * i / n_fft)) / (float)n_fft;
  for (int64_t k = 0; k < w; k++) {
    int64_t begin = (int64_t)((double)n * ((double)k + 0.5) / (double)w) - n_fft / 2;
    for (int64_t i = 0; i < n_fft; i++) {
      int64_t at = begin + i;
      for (int32_t ch = 0; at >= 0 && at < n && ch < s->sound->channels; ch++)
        x[k * n_fft + i] += s->sound->data[ch * n + at] / (float)s->sound->channels;
    }
  }
  viv_stft a = {.struct_size = sizeof a,
                .n_fft = n_fft,
                .hop = n_fft,
                .rows = w,
                .samples = n_fft,
                .frames = 1,
                .window = window,
                .x = x,
                .out = spectrum};
  c->stft(c, &a);
  for (int64_t i = 0; i < w * bins; i++) {
    double re = (double)spectrum[2 * i], im = (double)spectrum[2 * i + 1];
    out[i] = (float)(10 * log10(re * re + im * im + 1e-14));
  }
  viv__free(window);
  viv__free(spectrum);
  viv__free(x);
  viv__compute_free(c);
  return VIV_OK;
}

/* Low sounds below, on the mel scale; the loudest 80 dB. */
static int32_t paint_spectrogram(const struct sheet *s, viv_error *error) {
  int32_t n_fft = 256;
  while (n_fft < 4096 && n_fft < s->sound->rate / 32) n_fft *= 2;
  int64_t bins = n_fft / 2 + 1, w = s->width;
  float *db = viv__need(viv__calloc((size_t)(w * bins), sizeof *db)), top = -140;
  int32_t status = decibels(s, n_fft, db, error);
  for (int64_t i = 0; i < w * bins; i++) top = db[i] > top ? db[i] : top;
  double most = 2595 * log10(1 + s->sound->rate / 2.0 / 700);
  for (int32_t y = 0; status >= 0 && y < SPECTROGRAM; y++) {
    double mel = most * (SPECTROGRAM - 1 - y) / (SPECTROGRAM - 1);
    double at = 700 * (pow(10, mel / 2595) - 1) * n_fft / s->sound->rate;
    int64_t low = (int64_t)at, high = low + 1 < bins ? low + 1 : low;
    double part = at - (double)low;
    for (int64_t x = 0; x < w; x++) {
      double v = (1 - part) * (double)db[x * bins + low] + part * (double)db[x * bins + high];
      fill(s, LEFT + x, LEFT + x + 1, y, y + 1, viv__heat((v - (double)top + 80) / 80));
    }
  }
  viv__free(db);
  return status;
}

static void draw_axes(const struct sheet *s) {
  static const double steps[] = {0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1,    2,   5,
                                 10,   30,   60,   120, 300, 600, 1800, 3600};
  static const double hertz[] = {250, 500, 1000, 2000, 4000, 8000, 16000};
  double step = steps[0], most = 2595 * log10(1 + s->sound->rate / 2.0 / 700);
  char text[32];
  for (size_t i = 0; i < sizeof steps / sizeof *steps && s->seconds / step > 12; i++)
    step = steps[i];
  for (double t = 0; t < s->seconds; t += step) {
    snprintf(text, sizeof text, step < 0.1 ? "%.2f s" : step < 1 ? "%.1f s" : "%.0f s", t);
    viv__canvas_fill(s->canvas, x_of(s, t), SPECTROGRAM, x_of(s, t) + 1, SPECTROGRAM + 5, pale);
    viv__canvas_text(s->canvas, x_of(s, t) + 3, SPECTROGRAM + 8, LETTER, text, pale);
  }
  for (size_t i = 0; i < sizeof hertz / sizeof *hertz; i++) {
    double y = SPECTROGRAM - 1 - 2595 * log10(1 + hertz[i] / 700) / most * (SPECTROGRAM - 1);
    if (y < LETTER) break;
    snprintf(text, sizeof text, hertz[i] < 1000 ? "%.0f Hz" : "%.0f kHz",
             hertz[i] < 1000 ? hertz[i] : hertz[i] / 1000);
    double width = viv__canvas_text_width(s->canvas, LETTER, text);
    viv__canvas_text(s->canvas, LEFT - 6 - width, y - LETTER / 2.0, LETTER, text, pale);
  }
}

/* ---- what was found ---- */

/* A stretch of time, with what is said in it where the model tells. */
static void draw_stretch(const struct sheet *s, double from, double to, const char *text) {
  viv__ink veil = green;
  veil.a = 0.16;
  viv__canvas_fill(s->canvas, x_of(s, from), 0, x_of(s, to), SPECTROGRAM, veil);
  viv__canvas_fill(s->canvas, x_of(s, from), SPECTROGRAM - 5, x_of(s, to), SPECTROGRAM, green);
  if (text) viv__canvas_text(s->canvas, x_of(s, from) + 3, 6, LETTER, text, white);
}

static void draw_stretches(const struct sheet *s) {
  const viv_tensor *t = viv__tensors_find(s->tensors, "timestamps");
  double unit = t && t->dtype == VIV_I32 ? s->sound->rate : 1;
  for (int64_t i = 0; t && t->ndim == 2 && t->shape[1] == 2 && i < t->shape[0]; i++)
    draw_stretch(s, viv__tensor_number(t, 2 * i) / unit, viv__tensor_number(t, 2 * i + 1) / unit,
                 NULL);
  const cJSON *segment, *list = cJSON_GetObjectItemCaseSensitive(s->line, "segments");
  cJSON_ArrayForEach(segment, list) {
    double from = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(segment, "start"));
    double to = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(segment, "end"));
    draw_stretch(s, from, to,
                 cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(segment, "text")));
  }
}

static void title(const struct sheet *s, const char *text) {
  if (s->canvas) viv__canvas_text(s->canvas, 6, s->y + 8, LETTER, text, pale);
}

/* Chances over time, one number for each window. */
static void curve(struct sheet *s) {
  const viv_tensor *t = viv__tensors_find(s->tensors, "probabilities");
  if (!t || t->dtype != VIV_F32 || t->ndim != 1 || t->shape[0] < 2) return;
  int64_t n = t->shape[0];
  if (s->canvas) {
    double bottom = s->y + CURVE - 8, high = CURVE - 16;
    title(s, "speech");
    viv__canvas_fill(s->canvas, LEFT, bottom - high / 2, LEFT + s->width, bottom - high / 2 + 1,
                     (viv__ink){1, 1, 1, 0.25});
    for (int64_t i = 1; i < n; i++) {
      double a = viv__tensor_number(t, i - 1), b = viv__tensor_number(t, i);
      viv__canvas_line(s->canvas, LEFT + ((double)i - 0.5) / (double)n * s->width,
                       bottom - a * high, LEFT + ((double)i + 0.5) / (double)n * s->width,
                       bottom - b * high, 1.5, green);
    }
  }
  s->y += CURVE;
}

/* Rows of whole numbers over time, each number a colour of its own. */
static void codes(struct sheet *s) {
  int32_t rows = 0;
  for (size_t k = 0; k < s->tensors->n; k++) {
    const viv_tensor *t = &s->tensors->items[k];
    if (strncmp(s->tensors->names[k], "audio_codes", 11) || !viv__tensor_is_integer(t) ||
        t->ndim < 1 || t->shape[t->ndim - 1] < 1)
      continue;
    int64_t n = t->shape[t->ndim - 1], all = viv__numel(t) / n;
    if (!rows) title(s, "codes");
    for (int64_t r = 0; r < all && rows < MAX_CODE_ROWS; r++, rows++) {
      int32_t y = s->y + 6 + rows * 8;
      if (s->canvas) continue; /* the pixels are there */
      for (int64_t x = 0; s->picture->data && x < s->width; x++) {
        uint64_t code = (uint64_t)viv__tensor_integer(t, r * n + x * n / s->width);
        uint64_t mixed = (code + 1) * 0x9e3779b97f4a7c15u;
        fill(s, LEFT + x, LEFT + x + 1, y, y + 7,
             viv__heat(0.15 + 0.85 * (double)(mixed >> 40) / 0x1p24));
      }
    }
  }
  if (rows) s->y += rows * 8 + 12;
}

static void classes(struct sheet *s) {
  const cJSON *item, *list = cJSON_GetObjectItemCaseSensitive(s->line, "classes");
  int32_t n = 0;
  cJSON_ArrayForEach(item, list) {
    const char *label = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "label"));
    double chance = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "probability"));
    char text[160];
    if (n++ == MAX_LINES) break;
    if (s->canvas) {
      viv__ink bar = green;
      bar.a = 0.45;
      snprintf(text, sizeof text, "%.2f", chance);
      viv__canvas_text(s->canvas, LEFT - 36, s->y + 7, LETTER, text, pale);
      viv__canvas_fill(s->canvas, LEFT, s->y + 3, LEFT + fmin(fmax(chance, 0), 1) * s->width,
                       s->y + LINE - 3, bar);
      if (label)
        snprintf(text, sizeof text, "%s", label);
      else
        snprintf(text, sizeof text, "class %.0f",
                 cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, "class")));
      viv__canvas_text(s->canvas, LEFT + 6, s->y + 7, LETTER, text, white);
    }
    s->y += LINE;
  }
}

/* What is said, in lines as long as the time axis. */
static void text(struct sheet *s) {
  const char *at = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s->line, "text"));
  size_t most = (size_t)s->width / 8;
  for (int32_t n = 0; at && *at && n < MAX_LINES; n++) {
    char line[512];
    size_t len = strcspn(at, "\n");
    if (most > sizeof line - 1) most = sizeof line - 1;
    if (len > most) {
      for (len = most; len && at[len] != ' ';) len--;
      if (!len) len = most;
      while (len > 1 && ((unsigned char)at[len] & 0xc0) == 0x80) len--;
    }
    snprintf(line, sizeof line, "%.*s", (int)len, at);
    if (s->canvas && len) viv__canvas_text(s->canvas, LEFT, s->y + 7, LETTER, line, white);
    at += len;
    at += *at == '\n' || *at == ' ';
    s->y += LINE;
  }
}

/* Everything below the time axis: measures it, fills its pixels, or draws on the canvas. */
static void below(struct sheet *s) {
  s->y = SPECTROGRAM + AXIS;
  curve(s);
  codes(s);
  classes(s);
  text(s);
}

int32_t viv__sound_draw(const viv__sound *sound, const cJSON *line, const viv__tensor_list *tensors,
                        viv__picture *out, viv_error *error) {
  *out = (viv__picture){.channels = 3, .owned = true};
  struct sheet s = {.sound = sound, .line = line, .tensors = tensors, .picture = out};
  s.seconds = (double)sound->frames / sound->rate;
  s.width = s.seconds < 8 ? 800 : s.seconds < 16 ? (int32_t)(s.seconds * 100) : 1600;
  below(&s);
  out->width = LEFT + s.width + RIGHT;
  out->height = s.y + 8;
  out->data = viv__need(viv__calloc((size_t)out->width * (size_t)out->height, 3));
  fill(&s, 0, out->width, 0, out->height, (viv__ink){0.08, 0.08, 0.11, 1});
  int32_t status = paint_spectrogram(&s, error);
  below(&s);
  if (status >= 0) status = viv__canvas_open(out->data, out->width, out->height, &s.canvas, error);
  if (status >= 0) {
    draw_axes(&s);
    draw_stretches(&s);
    below(&s);
    viv__canvas_read(s.canvas, out->data);
    viv__canvas_close(s.canvas);
  }
  if (status < 0) viv__picture_free(out);
  return status;
}
