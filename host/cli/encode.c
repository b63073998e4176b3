/* viv encode: sound becomes codes of an audio codec. */
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "cli/codec.h"
#include "media/sound.h"

enum { FILE_CHUNK = 32 }; /* frames at once, where nobody waits for the first */

struct encoding {
  viv__loaded l;
  viv__codec codec;
  viv__vtok_header h;
  cJSON *params, *load;
  const char *model, *in, *out;
  int64_t codebooks, chunk;
  bool wide, json;
  /* the input; touched by the feeding thread until the job is over */
  viv__sound_reader *reader;
  int32_t in_rate, in_channels;
  int64_t total; /* samples; -1: unknown */
  viv__pcm pcm;  /* standard input; pcm.came also counts samples of a file */
  /* the output */
  enum viv__codes_kind kind;
  FILE *to;
  viv__buf all, bytes;
  int64_t units, events, most, written;
};

/* ---- in ---- */

static int32_t read_file(void *context, void *data, uint64_t room, uint64_t *bytes,
                         viv_error *error) {
  struct encoding *e = context;
  uint64_t unit = (uint64_t)e->in_channels * sizeof(float);
  int64_t n = viv__sound_read(e->reader, data, (int64_t)(room / unit), error);
  if (n < 0) return (int32_t)n;
  atomic_fetch_add(&e->pcm.came, n);
  *bytes = (uint64_t)n * unit;
  return n ? VIV_OK : VIV_DONE;
}

static int32_t open_input(struct encoding *e, viv_error *error) {
  e->total = -1;
  if (strcmp(e->in, "-"))
    return viv__sound_open(e->in, &e->reader, &e->in_rate, &e->in_channels, &e->total, error);
  int32_t status = viv__pcm_check(&e->pcm, error);
  if (status < 0) return status;
  e->in_rate = (int32_t)e->pcm.rate;
  e->in_channels = (int32_t)e->pcm.channels;
  return VIV_OK;
}

/* ---- out ---- */

static int32_t put_bytes(struct encoding *e, viv_error *error) {
  bool good = !e->bytes.failed && fwrite(e->bytes.ptr, 1, e->bytes.len, e->to) == e->bytes.len &&
              !fflush(e->to);
  e->written += (int64_t)e->bytes.len;
  e->bytes.len = 0;
  return good ? VIV_OK : VIV_FAIL(error, VIV_NOT_NOW, e->out, "can't write");
}

static int32_t take_codes(void *context, const viv_event *event, viv_error *error) {
  struct encoding *e = context;
  const viv_tensor *t = event->tensor;
  if (event->kind != VIV_KIND_TENSOR || !viv__str_eq(event->name, "codes") || t->dtype != VIV_I32)
    return VIV_OK;
  int64_t n = e->h.chunks ? 1 : t->shape[0];
  e->units += n;
  e->events++;
  if (n > e->most) e->most = n;
  if (e->total > 0)
    viv__progress_show("encoding", (double)atomic_load(&e->pcm.came) / (double)e->total);
  if (!e->to) {
    viv__buf_add(&e->all, t->data, t->bytes);
    return e->all.failed ? VIV_FAIL(error, VIV_NOT_NOW, e->out, "no memory") : VIV_OK;
  }
  viv__vtok_block(&e->h, t->data, n, &e->bytes);
  return put_bytes(e, error);
}

/* Samples of each channel at the codec's rate, as resampling gives them. */
static int64_t samples_of(const struct encoding *e) {
  return (atomic_load(&e->pcm.came) * e->h.rate + e->in_rate - 1) / e->in_rate;
}

static int32_t finish(struct encoding *e, viv_error *error) {
  int32_t status = VIV_OK;
  if (!e->units) return VIV_FAIL(error, VIV_BAD_INPUT, e->in, "the recording holds no samples");
  if (e->to) {
    viv__vtok_end(samples_of(e), e->units, &e->bytes);
    return put_bytes(e, error);
  }
  const int32_t *codes = (const int32_t *)(const void *)e->all.ptr;
  int64_t n = (int64_t)(e->all.len / sizeof *codes);
  status = e->kind == VIV__CODES_JSON
               ? viv__codes_json(&e->h, codes, n, samples_of(e), &e->bytes, error)
               : viv__codes_npy(&e->h, codes, n, &e->bytes, error);
  e->written = (int64_t)e->bytes.len;
  return status < 0 ? status : viv__write_file(e->out, e->bytes.ptr, e->bytes.len, error);
}

static void report(const struct encoding *e, double seconds) {
  const viv__vtok_header *h = &e->h;
  double length = (double)samples_of(e) / h->rate;
  double unit =
      h->chunks
          ? viv__json_num((const viv_json *)cJSON_GetObjectItemCaseSensitive(e->l.about, "model"),
                          "chunk", 0)
          : (double)h->group * h->hop;
  double wait = 1000 * (unit * (double)e->most + (double)e->codec.lookahead[0]) / h->rate;
  double compute = 1000 * seconds / (double)e->events, speed = length / seconds;
  if (e->json && strcmp(e->out, "-")) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(doc, "file", e->out);
    cJSON_AddStringToObject(doc, "codec", h->codec);
    cJSON_AddNumberToObject(doc, "seconds", length);
    cJSON_AddNumberToObject(doc, "codebooks", h->codebooks);
    cJSON_AddNumberToObject(doc, "kbps", viv__codec_kbps(h));
    cJSON_AddNumberToObject(doc, "bytes", (double)e->written);
    cJSON_AddNumberToObject(doc, "times_real_time", speed);
    cJSON_AddNumberToObject(doc, "delay_ms", wait);
    cJSON_AddNumberToObject(doc, "compute_ms", compute);
    viv__print_json(doc);
    return;
  }
  fprintf(stderr,
          "%s: %.2f s of sound by %s, %d of %d code books, %.3g kbit/s, %lld bytes; %.3g times "
          "real time, latency %.0f ms of sound and %.2g ms to compute\n",
          e->out, length, h->codec, (int)h->codebooks, (int)e->codec.header.codebooks,
          viv__codec_kbps(h), (long long)e->written, speed, wait, compute);
}

/* ---- the verb ---- */

/* How many code books, from what was asked for. */
static int32_t choose_books(struct encoding *e, viv_error *error) {
  const cJSON *bitrate = cJSON_GetObjectItemCaseSensitive(e->params, "bandwidth");
  const viv__vtok_header *m = &e->codec.header;
  e->h = *m;
  e->h.codebooks = e->codec.used;
  if (e->codebooks > m->codebooks)
    return VIV_FAIL(error, VIV_BAD_INPUT, "--codebooks", "%lld; the model has %d code books",
                    (long long)e->codebooks, (int)m->codebooks);
  if (e->codebooks) e->h.codebooks = (int32_t)e->codebooks;
  if (bitrate) {
    /* The most code books that fit. */
    for (e->h.codebooks = m->codebooks; e->h.codebooks > 0; e->h.codebooks--) {
      e->h.n_strides = m->n_strides ? e->h.codebooks : 0;
      if (viv__codec_kbps(&e->h) <= bitrate->valuedouble * (1 + 1e-9)) break;
    }
    if (!e->h.codebooks)
      return VIV_FAIL(error, VIV_BAD_INPUT, "--bitrate",
                      "%g kbit/s is less than one code book takes", bitrate->valuedouble);
    cJSON_DeleteItemFromObjectCaseSensitive(e->params, "bandwidth");
  }
  if (e->h.n_strides) e->h.n_strides = e->h.codebooks;
  if (e->wide) e->h.bits = e->h.bits > 16 ? 32 : 16;
  cJSON_AddNumberToObject(e->params, "n_quantizers", e->h.codebooks);
  cJSON_AddNumberToObject(e->params, "sampling_rate", e->in_rate);
  cJSON_AddNumberToObject(e->params, "input_channels", e->in_channels);
  cJSON_AddNumberToObject(e->params, "chunk_frames",
                          (double)(e->chunk    ? e->chunk
                                   : e->reader ? FILE_CHUNK
                                               : 1));
  return VIV_OK;
}

static int32_t encode(struct encoding *e, viv_error *error) {
  viv__outcome o = {0};
  char *temp = viv__textf("%s.%d.tmp", e->out, (int)getpid());
  bool to_stdout = !strcmp(e->out, "-");
  int32_t status = open_input(e, error);
  if (status >= 0) status = viv__load_model(e->model, e->load, &e->l, error);
  if (status >= 0) status = viv__codec_of(&e->l, e->model, &e->codec, error);
  if (status >= 0) status = choose_books(e, error);
  if (status >= 0 && e->kind == VIV__CODES_NPY)
    status = viv__codes_npy(&e->h, NULL, 0, &e->bytes, error); /* before the work is done */
  e->bytes.len = 0;
  if (status >= 0 && e->kind == VIV__CODES_VTOK) {
    e->to = to_stdout ? stdout : fopen(temp, "wbe");
    if (!e->to) status = VIV_FAIL(error, VIV_NOT_NOW, e->out, "can't write there");
    if (status >= 0) viv__vtok_begin(&e->h, &e->bytes);
    if (status >= 0) status = put_bytes(e, error);
  }
  if (status >= 0) {
    status =
        viv__pump_run(&e->l, "encode", e->params, "audio", e->reader ? read_file : viv__pcm_read,
                      e->reader ? (void *)e : &e->pcm, take_codes, e, &o);
    viv__progress_clear();
    if (status < 0) *error = o.error;
    if (status >= 0) status = finish(e, error);
  }
  if (e->to && !to_stdout) {
    if (fclose(e->to) && status >= 0) status = VIV_FAIL(error, VIV_NOT_NOW, e->out, "can't write");
    if (status >= 0 && rename(temp, e->out))
      status = VIV_FAIL(error, VIV_NOT_NOW, e->out, "can't write there");
    if (status < 0) unlink(temp);
  }
  if (status >= 0) report(e, o.seconds);
  viv__outcome_free(&o);
  viv__free(temp);
  return status;
}

int viv__cmd_encode(int argc, char **argv) {
  struct encoding e = {.params = viv__need(cJSON_CreateObject()),
                       .load = viv__need(cJSON_CreateObject()),
                       .pcm.channels = 1};
  const viv__opt options[] = {
      {"out", 'o', VIV__OPT_TEXT, "FILE", &e.out, "write .vtok, .json or .npy; - for a pipe", NULL},
      {"codebooks", 0, VIV__OPT_INT, "N", &e.codebooks, "use the first N code books", NULL},
      {"bitrate", 0, VIV__OPT_NUMBER, "KBPS", e.params, "as many as fit in this many kbit/s",
       "bandwidth"},
      {"pcm", 0, VIV__OPT_TEXT, "KIND", &e.pcm.kind, "standard input holds samples: s16 or f32",
       NULL},
      {"rate", 0, VIV__OPT_INT, "HZ", &e.pcm.rate, "their rate", NULL},
      {"channels", 0, VIV__OPT_INT, "N", &e.pcm.channels, "their channels, side by side (1)", NULL},
      {"chunk", 0, VIV__OPT_INT, "N", &e.chunk, "N frames at once (files 32, pipes 1)", NULL},
      {"wide", 0, VIV__OPT_FLAG, NULL, &e.wide, "codes of 16 or 32 bits instead of packed ones",
       NULL},
      VIV__LOAD_OPTIONS(e.load),
      {"json", 0, VIV__OPT_FLAG, NULL, &e.json, "what was made, as a JSON object", NULL},
      VIV__LOCAL_OPTION,
      {0}};
  const viv__usage usage = {
      "viv encode encodec_24khz speech.wav -o speech.vtok --bitrate 6\n"
      "arecord -f S16_LE -r 24000 | viv encode mimi - --pcm s16 --rate 24000 -o - > live.vtok",
      "encode [options] MODEL RECORDING -o FILE",
      "Turns a recording into codes of the audio codec MODEL, in bounded memory. viv decode turns "
      "them\nback."};
  const char **args = viv__need(viv__calloc((size_t)argc, sizeof *args));
  int n = 0, code = viv__options(&usage, options, argc, argv, 2, 2, args, &n);
  if (code < 0 && !e.out) code = viv__usage_error(argv[0], "-o FILE says where the codes go");
  if (code < 0) e.kind = strcmp(e.out, "-") ? viv__codes_kind(e.out) : VIV__CODES_VTOK;
  if (code < 0 && !e.kind)
    code = viv__usage_error(argv[0], "%s: codes are written as .vtok, .json or .npy", e.out);
  if (code < 0 && (e.chunk > 64))
    code = viv__usage_error(argv[0], "--chunk %lld: at most 64 frames", (long long)e.chunk);
  if (code < 0) {
    viv_error error = VIV_ERROR_INIT;
    e.model = args[0];
    e.in = args[1];
    viv__interrupt_catch();
    int32_t status = encode(&e, &error);
    code = status < 0 ? viv__report(e.json, e.in, status, &error) : VIV__EXIT_OK;
    viv__unload_model(&e.l);
    viv__sound_close(e.reader);
    viv__buf_free(&e.all);
    viv__buf_free(&e.bytes);
  }
  viv__free(args);
  cJSON_Delete(e.params);
  cJSON_Delete(e.load);
  return code;
}
