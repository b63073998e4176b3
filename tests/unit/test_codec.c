/* Codecs over streams: pieces of any size give what the whole recording gives, and no memory is taken
 * once a stream runs. The models are those of the golden cases, and ours. */
#include <math.h>

#include "pass_rt.h"

#define GOLDENS "tests/goldens/"

struct model {
  const char *path;
  int32_t channels, levels, group; /* group: frames that come together */
  int32_t strides[8];              /* of SNAC's levels, else 1 */
  bool chunks;                     /* EnCodec for 48 kHz */
  int32_t rate;
};

static const struct model models[] = {
    {GOLDENS "encodec/hf-24khz-tiny", 1, 6, 1, {1, 1, 1, 1, 1, 1}, false, 24000},
    {GOLDENS "encodec/original-24khz-tiny", 1, 4, 1, {1, 1, 1, 1, 1, 1, 1}, false, 24000},
    {GOLDENS "encodec/hf-48khz-tiny", 2, 4, 1, {1, 1, 1, 1, 1, 1}, true, 48000},
    {GOLDENS "mimi/tiny", 1, 6, 1, {1, 1, 1, 1, 1, 1}, false, 24000},
    {GOLDENS "dac/original-tiny", 1, 3, 1, {1, 1, 1}, false, 44100},
    {GOLDENS "snac/24khz-tiny", 1, 3, 4, {4, 2, 1}, false, 24000},
    {"zoo/models/speech-codec", 1, 6, 1, {1, 1, 1, 1, 1, 1}, false, 16000},
};
enum { N_MODELS = sizeof models / sizeof *models };

/* ---- bytes of a stream ---- */

struct bytes {
  char *ptr;
  size_t len, room;
};

static void append(struct bytes *b, const void *data, size_t len) {
  if (b->len + len > b->room) b->ptr = realloc(b->ptr, b->room = 2 * (b->len + len));
  memcpy(b->ptr + b->len, data, len);
  b->len += len;
}

/* A chirp with noise, [n, channels]. */
static float *sound_of(int64_t n, int32_t channels) {
  float *x = malloc((size_t)(n * channels + 1) * sizeof *x);
  uint32_t seed = 1;
  for (int64_t i = 0; i < n * channels; i++) {
    seed = seed * 1664525u + 1013904223u;
    double t = (double)(i / channels) / 8000;
    x[i] = (float)(0.4 * sin(900 * t * (1 + t)) + 0.1 * ((double)(seed >> 8) / 0x1p24 - 0.5));
  }
  return x;
}

/* Pushes the bytes in pieces of `piece` while the results are read. Tensors of that name are joined:
 * codes as they are, sound [1, channels, n] channels side by side. */
static int32_t run_stream(viv_runtime *rt, viv_model *m, const char *task, const char *name,
                          const struct bytes *in, size_t piece, const char *params,
                          struct bytes *out, viv_error *error) {
  viv_stream *s = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_stream_open(rt, 1 << 16, &s, &e), VIV_OK);
  viv_value value = {
      .struct_size = sizeof value, .kind = VIV_KIND_STREAM, .name = viv__str(name), .stream = s};
  const viv_value *list[] = {&value};
  viv_request q = {.struct_size = sizeof q,
                   .task = task,
                   .params = params,
                   .n_inputs = 1,
                   .inputs = list,
                   .max_queued_events = 4};
  viv_job *job = NULL;
  viv_event ev;
  int32_t status = viv_submit(m, &q, &job, &e);
  cr_assert_eq(status, VIV_OK, "%s: %s", e.where, e.message);
  for (size_t at = 0, open = 1, ended = 0; !ended;) {
    size_t n = in->len - at < piece ? in->len - at : piece;
    if (n && viv_stream_push(s, in->ptr + at, n, 0) != VIV_WAIT) at += n;
    if (at == in->len && open) viv_stream_close(s), open = 0;
    while (viv_next_event(job, at == in->len ? 60000 : 0, &ev) == VIV_OK) {
      if (ev.kind == VIV_KIND_TENSOR && ev.tensor->dtype == VIV_I32)
        append(out, ev.tensor->data, ev.tensor->bytes);
      if (ev.kind == VIV_KIND_TENSOR && ev.tensor->dtype == VIV_F32)
        for (int64_t i = 0, ch = ev.tensor->shape[1], len = ev.tensor->shape[2]; i < ch * len; i++)
          append(out, (const float *)ev.tensor->data + i % ch * len + i / ch, sizeof(float));
      if (ev.kind != VIV_KIND_END) continue;
      ended = 1;
      status = ev.status;
      if (ev.error) *error = *ev.error;
    }
  }
  viv_job_free(job);
  viv_stream_free(s);
  return status;
}

static struct bytes streamed(viv_runtime *rt, viv_model *m, const char *task, const char *name,
                             const struct bytes *in, size_t piece, const char *params) {
  struct bytes out = {0};
  viv_error e = VIV_ERROR_INIT;
  int32_t status = run_stream(rt, m, task, name, in, piece, params, &out, &e);
  cr_assert_eq(status, VIV_OK, "%s: %s", e.where, e.message);
  return out;
}

/* ---- the whole ---- */

static int32_t code_at(const viv_tensor *t, int64_t i) {
  return t->dtype == VIV_I64 ? (int32_t)((const int64_t *)t->data)[i]
                             : ((const int32_t *)t->data)[i];
}

/* The results of encode in the order of a stream. */
static struct bytes in_order(const struct model *d, const results *r) {
  struct bytes out = {0};
  if (strstr(d->path, "snac")) {
    int64_t groups = result_of(r, "audio_codes.0")->shape[1] * d->strides[0] / d->group;
    for (int64_t g = 0; g < groups; g++)
      for (int32_t q = 0; q < d->levels; q++) {
        char name[32];
        snprintf(name, sizeof name, "audio_codes.%d", (int)q);
        int64_t some = d->group / d->strides[q];
        for (int64_t i = 0; i < some; i++)
          append(&out, &(int32_t){code_at(result_of(r, name), g * some + i)}, 4);
      }
    return out;
  }
  bool numbered = strstr(d->path, "encodec/original") != NULL;
  const viv_tensor *t = result_of(r, numbered ? "audio_codes.0" : "audio_codes");
  int64_t frames = t->shape[t->ndim - 1], chunks = t->ndim == 4 ? t->shape[0] : 1;
  int64_t missing = d->chunks ? ((int64_t *)result_of(r, "last_frame_pad_length")->data)[0] : 0;
  for (int64_t k = 0; k < chunks; k++) {
    int32_t some = (int32_t)(k == chunks - 1 ? frames - missing : frames);
    if (d->chunks) {
      append(&out, &some, 4);
      append(&out, (float *)result_of(r, "audio_scales")->data + k, 4);
    }
    for (int64_t i = 0; i < some; i++)
      for (int32_t q = 0; q < d->levels; q++)
        append(&out, &(int32_t){code_at(t, (k * d->levels + q) * frames + i)}, 4);
  }
  return out;
}

static void encode_whole(viv_model *m, const float *x, int64_t n, int32_t channels,
                         const char *params, results *r) {
  float *planar = malloc((size_t)(n * channels + 1) * sizeof *planar);
  for (int64_t i = 0; i < n; i++)
    for (int32_t c = 0; c < channels; c++) planar[c * n + i] = x[i * channels + c];
  inputs in = {0};
  add_data(&in, "audio", VIV_F32, planar, 2, (const int64_t[]){channels, n});
  run_task(m, "encode", &in, params, r);
  cr_assert_eq(r->status, VIV_OK, "%s: %s", r->error.where, r->error.message);
  free(planar);
}

/* What encode gave goes into decode. */
static struct bytes decode_whole(viv_model *m, const struct model *d, const results *r) {
  results y;
  inputs in = {0};
  for (int32_t i = 0; i < r->n; i++)
    if (strncmp(r->name[i], "audio_", 6) == 0 || !strcmp(r->name[i], "last_frame_pad_length"))
      add_tensor(&in, r->name[i], &r->tensor[i]);
  run_task(m, "decode", &in, NULL, &y);
  cr_assert_eq(y.status, VIV_OK, "%s: %s", y.error.where, y.error.message);
  const viv_tensor *t = result_of(&y, "audio_values");
  struct bytes out = {0};
  for (int64_t i = 0, ch = d->channels, len = t->shape[2]; i < ch * len; i++)
    append(&out, (const float *)t->data + i % ch * len + i / ch, sizeof(float));
  free_results(&y);
  return out;
}

static void compare_codes(const struct bytes *a, const struct bytes *b, const char *what) {
  cr_assert_eq(a->len, b->len, "%s: %zu codes, the whole has %zu", what, a->len / 4, b->len / 4);
  for (size_t i = 0; i < a->len; i += 4)
    cr_assert(!memcmp(a->ptr + i, b->ptr + i, 4), "%s: code %zu differs", what, i / 4);
}

static void compare_sound(const struct bytes *a, const struct bytes *b, const char *what) {
  const float *x = (const float *)(const void *)a->ptr, *y = (const float *)(const void *)b->ptr;
  cr_assert_eq(a->len, b->len, "%s: %zu samples, the whole has %zu", what, a->len / 4, b->len / 4);
  for (size_t i = 0; i < a->len / 4; i++)
    cr_assert(fabsf(x[i] - y[i]) < 2e-5f, "%s: sample %zu is %g, in the whole %g", what, i,
              (double)x[i], (double)y[i]);
}

/* ---- tests ---- */

static void equal_to_whole(viv_runtime *rt, viv_model *m, const struct model *d, int64_t n,
                           int32_t chunk, size_t piece) {
  char what[160], encode[96], decode[96];
  snprintf(what, sizeof what, "%s, %lld samples, chunks of %d", d->path, (long long)n, (int)chunk);
  snprintf(encode, sizeof encode, "{\"n_quantizers\":%d}", (int)d->levels);
  snprintf(decode, sizeof decode, "{\"n_quantizers\":%d,\"chunk_frames\":%d}", (int)d->levels,
           (int)chunk);
  float *x = sound_of(n, d->channels);
  results r;
  encode_whole(m, x, n, d->channels, encode, &r);
  struct bytes pcm = {.ptr = (char *)x, .len = (size_t)(n * d->channels) * sizeof *x};
  struct bytes whole = in_order(d, &r),
               codes = streamed(rt, m, "encode", "audio", &pcm, piece, decode);
  compare_codes(&codes, &whole, what);
  struct bytes heard = decode_whole(m, d, &r),
               sound = streamed(rt, m, "decode", "codes", &codes, piece, decode);
  compare_sound(&sound, &heard, what);
  free_results(&r);
  free(x);
  free(whole.ptr), free(codes.ptr), free(heard.ptr), free(sound.ptr);
}

Test(codec, streams_give_what_the_whole_gives) {
  viv_runtime *rt = open_runtime();
  for (int i = 0; i < N_MODELS; i++) {
    viv_model *m = load(rt, models[i].path);
    equal_to_whole(rt, m, &models[i], 5000, 1, 1000);
    equal_to_whole(rt, m, &models[i], 4801, 3, 7);
    equal_to_whole(rt, m, &models[i], 9600, 64, 65536);
    for (int64_t n = 1; n < 200; n += 33) equal_to_whole(rt, m, &models[i], n, 2, 64);
    viv_unload(m);
  }
  viv_close(rt);
}

/* Blocks of DAC and SNAC are seconds long: a recording of several of them. */
Test(codec, blocks_meet_without_a_seam) {
  viv_runtime *rt = open_runtime();
  for (int i = 5; i < N_MODELS; i++) {
    viv_model *m = load(rt, models[i].path);
    equal_to_whole(rt, m, &models[i], 5 * models[i].rate + 77, 1, 4096);
    viv_unload(m);
  }
  viv_close(rt);
}

Test(codec, streams_are_mixed_and_resampled_as_recordings) {
  static const int32_t rates[] = {8000, 44100, 48000, 22050, 11025};
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, models[3].path);
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
    char params[128];
    int64_t n = 7001;
    snprintf(params, sizeof params,
             "{\"sampling_rate\":%d,\"n_quantizers\":6,\"input_channels\":2}", (int)rates[i]);
    float *x = sound_of(n, 2);
    struct bytes pcm = {.ptr = (char *)x, .len = (size_t)n * 2 * sizeof *x};
    results r;
    encode_whole(m, x, n, 2, params, &r);
    struct bytes whole = in_order(&models[3], &r),
                 codes = streamed(rt, m, "encode", "audio", &pcm, 999, params);
    compare_codes(&codes, &whole, params);
    free_results(&r);
    free(x);
    free(whole.ptr), free(codes.ptr);
  }
  viv_unload(m);
  viv_close(rt);
}

/* A stream four times as long takes as many allocations: none per frame. */
Test(codec, a_running_stream_takes_no_memory) {
  static const int which[] = {0, 3};
  viv_runtime *rt = open_runtime();
  for (int i = 0; i < 2; i++) {
    const struct model *d = &models[which[i]];
    viv_model *m = load(rt, d->path);
    long made[2], made_back[2];
    for (int k = 0; k < 3; k++) { /* once before, for what is kept between jobs */
      int64_t n = k == 2 ? 96000 : 24000;
      float *x = sound_of(n, 1);
      struct bytes pcm = {.ptr = (char *)x, .len = (size_t)n * sizeof *x};
      viv__fail_alloc(0);
      struct bytes codes = streamed(rt, m, "encode", "audio", &pcm, 1920, NULL);
      made[k > 1] = viv__fail_alloc(0);
      struct bytes y = streamed(rt, m, "decode", "codes", &codes, 64, NULL);
      made_back[k > 1] = viv__fail_alloc(0);
      free(x), free(codes.ptr), free(y.ptr);
    }
    cr_expect_leq(made[1], made[0] + 4, "%s: %ld allocations, then %ld", d->path, made[0], made[1]);
    cr_expect_leq(made_back[1], made_back[0] + 4, "%s back: %ld allocations, then %ld", d->path,
                  made_back[0], made_back[1]);
    viv_unload(m);
  }
  viv_close(rt);
}

static void refused(viv_runtime *rt, viv_model *m, const char *task, const void *data, size_t len,
                    const char *params, const char *words) {
  viv_error e = VIV_ERROR_INIT;
  struct bytes in = {0}, out = {0};
  append(&in, data, len);
  int32_t status = run_stream(rt, m, task, strcmp(task, "encode") ? "codes" : "audio", &in, 32768,
                              params, &out, &e);
  cr_assert_eq(status, VIV_BAD_INPUT, "%d, %s: %s", (int)status, e.where, e.message);
  cr_assert(strstr(e.message, words) || strstr(e.where, words), "\"%s: %s\" lacks \"%s\"", e.where,
            e.message, words);
  free(in.ptr), free(out.ptr);
}

Test(codec, bad_streams_are_refused_with_a_reason) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, models[0].path);
  float x[4] = {0, 0, NAN, 0};
  int32_t codes[2] = {0, 32};
  refused(rt, m, "encode", x, sizeof x, NULL, "sample 2 of the stream is no finite number");
  refused(rt, m, "encode", x, 6, NULL, "ends within sample 1");
  refused(rt, m, "encode", x, 8, "{\"sampling_rate\":1}", "sampling_rate");
  refused(rt, m, "encode", x, 8, "{\"sampling_rate\":10000000}", "sampling_rate");
  refused(rt, m, "encode", x, 8, "{\"input_channels\":65}", "input_channels");
  refused(rt, m, "encode", x, 8, "{\"n_quantizers\":7}", "n_quantizers");
  refused(rt, m, "decode", codes, 8, "{\"n_quantizers\":2}", "code 32");
  refused(rt, m, "decode", codes, 7, "{\"n_quantizers\":1}", "3 bytes into a unit");
  viv_unload(m);
  m = load(rt, models[2].path);
  refused(rt, m, "decode", (int32_t[]){100000, 0}, 8, NULL, "chunk 0");
  refused(rt, m, "decode", (int32_t[]){2, 0, 1}, 12, NULL, "cut short");
  viv_unload(m);
  viv_close(rt);
}
