/* viv decode: codes of an audio codec become sound. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "cli/codec.h"
#include "media/sound.h"

enum { FILE_CHUNK = 32 };

struct decoding {
  viv__loaded l;
  viv__codec codec;
  viv__vtok_header h;
  cJSON *params, *load;
  const char *model, *in, *out, *format;
  int64_t chunk;
  bool json;
  /* the input; touched by the feeding thread until the job is over */
  FILE *from;
  viv__vtok_reader reader;
  viv__buf now, next; /* codes that are being pushed; the block behind them */
  size_t pushed;      /* bytes of now */
  bool opened, ended;
  atomic_llong total; /* samples of each channel, as soon as the file has said it; -1 */
  int64_t bytes;      /* of the file; 0: a pipe */
  atomic_llong read;  /* of them */
  /* the output */
  viv__sound_writer *writer;
  FILE *to;
  float *side; /* samples, channels side by side */
  int64_t room, written;
};

/* ---- in ---- */

static int64_t read_bytes(void *context, void *data, uint64_t room, viv_error *error) {
  struct decoding *d = context;
  size_t n = fread(data, 1, room, d->from);
  if (!n && ferror(d->from)) return VIV_FAIL(error, VIV_NOT_NOW, d->in, "can't read");
  return (int64_t)n;
}

/* The last block is pushed only when the end was read, which says how many samples it stands for. */
static int32_t read_codes(void *context, void *data, uint64_t room, uint64_t *bytes,
                          viv_error *error) {
  struct decoding *d = context;
  while (d->pushed == d->now.len && !(d->ended && !d->next.len)) {
    viv__buf spent = d->now;
    d->now = d->next;
    d->next = spent;
    d->next.len = d->pushed = 0;
    if (d->ended) continue;
    int32_t status = viv__vtok_next(&d->reader, &d->next, error);
    if (status < 0) return status;
    d->ended = status == VIV_DONE;
    if (d->ended) atomic_store(&d->total, d->reader.samples);
    atomic_store(&d->read, d->reader.at);
  }
  uint64_t left = d->now.len - d->pushed;
  if (!left) return VIV_DONE;
  *bytes = left < room ? left : room;
  memcpy(data, d->now.ptr + d->pushed, *bytes);
  d->pushed += *bytes;
  return VIV_OK;
}

static int32_t open_codes(struct decoding *d, viv_error *error) {
  bool piped = !strcmp(d->in, "-");
  enum viv__codes_kind kind = piped ? VIV__CODES_VTOK : viv__codes_kind(d->in);
  int64_t samples = 0;
  atomic_store(&d->total, -1);
  if (!kind)
    return VIV_FAIL(error, VIV_BAD_INPUT, d->in, "codes are read from .vtok, .json or .npy");
  if (kind == VIV__CODES_VTOK) {
    d->from = piped ? stdin : fopen(d->in, "rbe");
    if (!d->from) return VIV_FAIL(error, VIV_BAD_INPUT, d->in, "can't open: %s", strerror(errno));
    if (!piped && !fseek(d->from, 0, SEEK_END)) {
      d->bytes = ftell(d->from);
      rewind(d->from);
    }
    int32_t status =
        viv__vtok_open(read_bytes, d, piped ? "standard input" : d->in, &d->reader, error);
    d->opened = true;
    d->h = d->reader.header;
    return status;
  }
  d->h = d->codec.header; /* what an .npy file says nothing of */
  int32_t status = viv__codes_load(d->in, &d->h, &d->now, &samples, error);
  d->ended = true;
  atomic_store(&d->total, samples);
  return status;
}

/* ---- out ---- */

static int32_t open_sound(struct decoding *d, viv_error *error) {
  static const char *const names[] = {"", "s16", "s24", "f32"};
  int format = 0;
  for (int i = 1; i < 4; i++)
    if (!strcmp(d->format, names[i])) format = i;
  if (!format)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--format", "\"%s\" is none of s16, s24, f32", d->format);
  if (strcmp(d->out, "-"))
    return viv__sound_create(d->out, d->h.rate, d->h.channels, (enum viv__sound_format)format,
                             &d->writer, error);
  d->to = stdout;
  if (format != VIV__SOUND_S24) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, "--format", "a pipe takes s16 or f32");
}

/* Raw samples in the machine's order. */
static bool write_raw(struct decoding *d, int64_t n) {
  int64_t all = n * d->h.channels;
  if (!strcmp(d->format, "f32"))
    return fwrite(d->side, sizeof(float), (size_t)all, d->to) == (size_t)all && !fflush(d->to);
  for (int64_t i = 0; i < all; i++) {
    int16_t y = (int16_t)viv__sound_level(d->side[i], 16);
    if (fwrite(&y, sizeof y, 1, d->to) != 1) return false;
  }
  return !fflush(d->to);
}

static int32_t take_sound(void *context, const viv_event *event, viv_error *error) {
  struct decoding *d = context;
  const viv_tensor *t = event->tensor;
  if (event->kind != VIV_KIND_TENSOR || !viv__str_eq(event->name, "audio_values")) return VIV_OK;
  if (t->dtype != VIV_F32 || t->ndim != 3 || t->shape[0] != 1 || t->shape[1] != d->h.channels)
    return VIV_FAIL(error, VIV_BUG, "audio_values", "the model's sound has another shape");
  int64_t all = t->shape[2], n = all, total = atomic_load(&d->total), ch = d->h.channels;
  if (total >= 0 && n > total - d->written) n = total - d->written;
  if (n < 1) return VIV_OK;
  if (n * ch > d->room) {
    d->room = n * ch;
    d->side = viv__need(viv__realloc(d->side, (size_t)d->room * sizeof *d->side));
  }
  for (int64_t c = 0; c < ch; c++)
    for (int64_t i = 0; i < n; i++) d->side[i * ch + c] = ((const float *)t->data)[c * all + i];
  d->written += n;
  if (d->bytes > 0 && total < 0)
    viv__progress_show("decoding", (double)atomic_load(&d->read) / (double)d->bytes);
  if (d->writer) return viv__sound_write(d->writer, d->side, n, error);
  return write_raw(d, n) ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, d->out, "can't write");
}

static void report(const struct decoding *d, double seconds) {
  double length = (double)d->written / d->h.rate, speed = length / seconds;
  if (d->json && d->writer) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(doc, "file", d->out);
    cJSON_AddStringToObject(doc, "codec", d->h.codec);
    cJSON_AddNumberToObject(doc, "seconds", length);
    cJSON_AddNumberToObject(doc, "sampling_rate", d->h.rate);
    cJSON_AddNumberToObject(doc, "channels", d->h.channels);
    cJSON_AddNumberToObject(doc, "times_real_time", speed);
    viv__print_json(doc);
    return;
  }
  fprintf(stderr,
          "%s: %.2f s at %d Hz from %d code books of %s, %.3g kbit/s; %.3g times real time\n",
          d->out, length, (int)d->h.rate, (int)d->h.codebooks, d->h.codec, viv__codec_kbps(&d->h),
          speed);
}

/* ---- the verb ---- */

static int32_t decode(struct decoding *d, viv_error *error) {
  viv__outcome o = {0};
  int32_t status = viv__load_model(d->model, d->load, &d->l, error);
  if (status >= 0) status = viv__codec_of(&d->l, d->model, &d->codec, error);
  if (status >= 0) status = open_codes(d, error);
  if (status >= 0) status = viv__codec_same(&d->codec, &d->h, d->in, error);
  if (status >= 0) status = open_sound(d, error);
  if (status < 0) return status;
  cJSON_AddNumberToObject(d->params, "n_quantizers", d->h.codebooks);
  cJSON_AddNumberToObject(d->params, "chunk_frames",
                          (double)(d->chunk           ? d->chunk
                                   : d->from == stdin ? 1
                                                      : FILE_CHUNK));
  status = viv__pump_run(&d->l, "decode", d->params, "codes", read_codes, d, take_sound, d, &o);
  viv__progress_clear();
  if (status < 0) *error = o.error;
  if (status >= 0 && !d->written)
    status = VIV_FAIL(error, VIV_BAD_INPUT, d->in, "the file holds no codes");
  if (d->writer) {
    viv_error late = VIV_ERROR_INIT;
    int32_t closed = viv__sound_finish(d->writer, status >= 0, &late);
    if (status >= 0 && closed < 0) {
      status = closed;
      *error = late;
    }
  }
  if (status >= 0) report(d, o.seconds);
  viv__outcome_free(&o);
  return status;
}

int viv__cmd_decode(int argc, char **argv) {
  struct decoding d = {.params = viv__need(cJSON_CreateObject()),
                       .load = viv__need(cJSON_CreateObject()),
                       .format = "s16"};
  const viv__opt options[] = {
      {"out", 'o', VIV__OPT_TEXT, "FILE", &d.out, "write .wav or .flac; - for raw samples", NULL},
      {"format", 0, VIV__OPT_TEXT, "KIND", &d.format, "samples as s16, s24 or f32 (s16)", NULL},
      {"chunk", 0, VIV__OPT_INT, "N", &d.chunk, "N frames at once (files 32, pipes 1)", NULL},
      VIV__LOAD_OPTIONS(d.load),
      {"json", 0, VIV__OPT_FLAG, NULL, &d.json, "what was made, as a JSON object", NULL},
      VIV__LOCAL_OPTION,
      {0}};
  const viv__usage usage = {"viv decode encodec_24khz speech.vtok -o speech.wav\n"
                            "viv decode mimi - -o - < live.vtok | aplay -f S16_LE -r 24000",
                            "decode [options] MODEL CODES -o FILE",
                            "Turns codes that viv encode made back into sound, in bounded memory."};
  const char **args = viv__need(viv__calloc((size_t)argc, sizeof *args));
  int n = 0, code = viv__options(&usage, options, argc, argv, 2, 2, args, &n);
  if (code < 0 && !d.out) code = viv__usage_error(argv[0], "-o FILE says where the sound goes");
  if (code < 0 && d.chunk > 64)
    code = viv__usage_error(argv[0], "--chunk %lld: at most 64 frames", (long long)d.chunk);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    d.model = args[0];
    d.in = args[1];
    viv__interrupt_catch();
    int32_t status = decode(&d, &error);
    code = status < 0 ? viv__report(d.json, d.in, status, &error) : VIV__EXIT_OK;
    viv__unload_model(&d.l);
    if (d.opened) viv__vtok_close(&d.reader);
    if (d.from && d.from != stdin) fclose(d.from);
    viv__buf_free(&d.now);
    viv__buf_free(&d.next);
    viv__free(d.side);
  }
  viv__free(args);
  cJSON_Delete(d.params);
  cJSON_Delete(d.load);
  return code;
}
