/* What comes into a codec and what the caller may choose. */
#include <math.h>
#include <string.h>

#include "codec/codec.h"

/* Every channel of every row at the model's rate. */
static const float *resampled(nn_pass *p, const float *x, int64_t signals, int64_t from, int64_t to,
                              int64_t *n) {
  nn_resample r = nn_resample_default(from, to);
  int64_t had = *n, have = nn_resample_length(&r, had);
  float *y = nn_room(p, signals * have);
  float *scratch = nn_room(p, (int64_t)nn_resample_scratch(&r) + 1);
  for (int64_t i = 0; i < signals; i++)
    nn_resample_run(nn_compute_of(p), &r, x + i * had, had, y + i * have, scratch);
  *n = have;
  return y;
}

/* Many channels become their mean, one is repeated. */
static const float *mixed(nn_pass *p, const float *x, int64_t rows, int64_t have, int64_t want,
                          int64_t n) {
  if (have == want) return x;
  float *y = nn_room(p, rows * want * n);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t t = 0; t < n; t++) {
      float sum = 0;
      for (int64_t c = 0; c < have; c++) sum += x[(r * have + c) * n + t];
      for (int64_t c = 0; c < want; c++) y[(r * want + c) * n + t] = sum / (float)have;
    }
  return y;
}

const float *codec_sound(nn_pass *p, int64_t *rows, int64_t *n, bool *from_audio) {
  const struct codec_model *m = nn_net_of(p);
  int64_t shape[3] = {0, 0, 0};
  const float *x = nn_some_floats(p, "input_values", 3, shape);
  const char *name = x ? "input_values" : "audio";
  *from_audio = !x;
  if (!x) x = nn_need_floats(p, "audio", 3, shape);
  int64_t rate = nn_param_int(p, "sampling_rate", m->rate, 1000, 768000);
  if (shape[0] < 1 || shape[1] < 1 || shape[2] < 1)
    nn_stop(p, VIV_BAD_INPUT, name, "holds no samples");
  if (!*from_audio && rate != m->rate)
    nn_stop(p, VIV_BAD_INPUT, "params.sampling_rate",
            "is %lld, the model works at %lld Hz; a recording under the name audio is resampled",
            (long long)rate, (long long)m->rate);
  if (!*from_audio && shape[1] != m->channels)
    nn_stop(p, VIV_BAD_INPUT, name, "has %lld channels, the model has %d", (long long)shape[1],
            (int)m->channels);
  for (int64_t i = 0; i < shape[0] * shape[1] * shape[2]; i++)
    if (!isfinite(x[i]))
      nn_stop(p, VIV_BAD_INPUT, name, "sample %lld is no finite number", (long long)(i % shape[2]));
  x = mixed(p, x, shape[0], shape[1], m->channels, shape[2]);
  if (rate != m->rate) x = resampled(p, x, shape[0] * m->channels, rate, m->rate, &shape[2]);
  *rows = shape[0];
  *n = shape[2];
  return x;
}

double codec_book_rate(const struct codec_model *m) {
  double bits = ceil(log2((double)m->entries));
  return bits * ceil((double)m->rate / (double)m->hop);
}

int32_t codec_levels(nn_pass *p) {
  const struct codec_model *m = nn_net_of(p);
  const char *key = nn_param(p, "n_quantizers") ? "n_quantizers" : "num_quantizers";
  if (nn_param(p, key)) return (int32_t)nn_param_int(p, key, 1, 1, m->levels);
  if (!nn_param(p, "bandwidth")) return m->used;
  double kbps = nn_param_num(p, "bandwidth", 0, 0, 1e6), most = codec_book_rate(m) * m->levels;
  double n = floor(kbps * 1000 / codec_book_rate(m));
  if (n > m->levels)
    nn_stop(p, VIV_BAD_INPUT, "params.bandwidth", "is %g kbit/s, the model's %d code books make %g",
            kbps, (int)m->levels, most / 1000);
  return n < 1 ? 1 : (int32_t)n;
}
