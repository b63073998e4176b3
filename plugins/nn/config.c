/* config.json: every value is checked where it is read; the error names key, value and range. */
#include "nn/nn.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

nn_config nn_config_open(const viv_host *host, const viv_json *node, const char *where,
                         viv_error *error) {
  nn_config c = {host, node, where, error, VIV_OK};
  if (host->json_type(node) != VIV_JSON_OBJECT)
    c.status = nn_fail(error, VIV_BAD_INPUT, where, "is missing or is not a JSON object");
  return c;
}

/* The first failure stays. */
#define REFUSE(c, ...)                                                                             \
  ((c)->status =                                                                                   \
       (c)->status ? (c)->status : nn_fail((c)->error, VIV_BAD_INPUT, (c)->where, __VA_ARGS__))

const viv_json *nn_key(const nn_config *c, const char *key) {
  const viv_json *v = c->host->json_member(c->node, nn_str(key));
  return c->host->json_type(v) == VIV_JSON_NULL ? NULL : v;
}

static const char *type_name(int32_t type) {
  static const char *const names[] = {"nothing",  "null",     "a boolean", "a number",
                                      "a string", "an array", "an object"};
  return type >= 0 && type <= 6 ? names[type] : "an unknown type";
}

/* A node as a number in [lo, hi], whole when asked. place is the key, perhaps with an index. */
static double number(nn_config *c, const viv_json *v, const char *place, double fallback, double lo,
                     double hi, bool whole) {
  int32_t type = c->host->json_type(v);
  if (type != VIV_JSON_NUMBER) {
    REFUSE(c, "%s is %s, but must be a%s number from %.17g to %.17g", place, type_name(type),
           whole ? " whole" : "", lo, hi);
    return fallback;
  }
  double x = c->host->json_number(v);
  if (!(x >= lo && x <= hi) || (whole && x != floor(x))) {
    REFUSE(c, "%s is %.17g, but must be a%s number from %.17g to %.17g", place, x,
           whole ? " whole" : "", lo, hi);
    return fallback;
  }
  return x;
}

int64_t nn_need_int(nn_config *c, const char *key, int64_t lo, int64_t hi) {
  const viv_json *v = nn_key(c, key);
  if (!v) {
    REFUSE(c, "%s is missing; it must be a whole number from %lld to %lld", key, (long long)lo,
           (long long)hi);
    return lo;
  }
  return (int64_t)number(c, v, key, (double)lo, (double)lo, (double)hi, true);
}

int64_t nn_int(nn_config *c, const char *key, int64_t fallback, int64_t lo, int64_t hi) {
  const viv_json *v = nn_key(c, key);
  if (!v) return fallback;
  return (int64_t)number(c, v, key, (double)lo, (double)lo, (double)hi, true);
}

double nn_num(nn_config *c, const char *key, double fallback, double lo, double hi) {
  const viv_json *v = nn_key(c, key);
  return v ? number(c, v, key, lo, lo, hi, false) : fallback;
}

bool nn_flag(nn_config *c, const char *key, bool fallback) {
  const viv_json *v = nn_key(c, key);
  if (!v) return fallback;
  int32_t type = c->host->json_type(v);
  if (type != VIV_JSON_BOOL) {
    REFUSE(c, "%s is %s, but must be true or false", key, type_name(type));
    return fallback;
  }
  return c->host->json_boolean(v) != 0;
}

viv_str nn_text(nn_config *c, const char *key, const char *fallback) {
  const viv_json *v = nn_key(c, key);
  if (!v) return nn_str(fallback);
  int32_t type = c->host->json_type(v);
  if (type != VIV_JSON_STRING) {
    REFUSE(c, "%s is %s, but must be a string", key, type_name(type));
    return nn_str(fallback);
  }
  return c->host->json_string(v);
}

viv_str nn_architecture(const nn_config *c) {
  const viv_json *list = nn_key(c, "architectures");
  bool named = list && c->host->json_count(list) > 0;
  return named ? c->host->json_string(c->host->json_item(list, 0)) : nn_str("");
}

void nn_numbers(nn_config *c, const char *key, float *out, int64_t n, double lo) {
  const viv_json *v = nn_key(c, key);
  int64_t count = c->host->json_type(v) == VIV_JSON_ARRAY ? c->host->json_count(v) : -1;
  for (int64_t i = 0; i < n; i++) out[i] = 1;
  if (count != n) {
    REFUSE(c, "%s must be a list of %lld numbers, it has %lld", key, (long long)n,
           (long long)(count < 0 ? 0 : count));
    return;
  }
  for (int64_t i = 0; i < n; i++) {
    char place[80];
    snprintf(place, sizeof place, "%s[%lld]", key, (long long)i);
    out[i] = (float)number(c, c->host->json_item(v, i), place, 1, lo, 1e30, false);
  }
}

int64_t nn_int_of_layer(nn_config *c, const char *key, int64_t layer, int64_t n_layers,
                        int64_t fallback, int64_t lo, int64_t hi) {
  const viv_json *v = nn_key(c, key);
  if (!v || c->host->json_type(v) != VIV_JSON_ARRAY) return nn_int(c, key, fallback, lo, hi);
  if (c->host->json_count(v) != n_layers) {
    REFUSE(c, "%s has %lld entries, but the model has %lld layers", key,
           (long long)c->host->json_count(v), (long long)n_layers);
    return fallback;
  }
  const viv_json *item = c->host->json_item(v, layer);
  if (c->host->json_type(item) == VIV_JSON_NULL) return fallback;
  char place[80];
  snprintf(place, sizeof place, "%s[%lld]", key, (long long)layer);
  return (int64_t)number(c, item, place, (double)lo, (double)lo, (double)hi, true);
}

int32_t nn_ints(nn_config *c, const char *key, int32_t *out, int32_t max, int64_t lo, int64_t hi) {
  const viv_json *v = nn_key(c, key);
  if (!v) return 0;
  if (c->host->json_type(v) != VIV_JSON_ARRAY) {
    out[0] = (int32_t)nn_int(c, key, lo, lo, hi);
    return c->status ? 0 : 1;
  }
  int64_t n = c->host->json_count(v);
  if (n > max) {
    REFUSE(c, "%s has %lld entries, at most %d are supported", key, (long long)n, (int)max);
    return 0;
  }
  for (int64_t i = 0; i < n; i++) {
    char place[80];
    snprintf(place, sizeof place, "%s[%lld]", key, (long long)i);
    out[i] = (int32_t)number(c, c->host->json_item(v, i), place, (double)lo, (double)lo, (double)hi,
                             true);
  }
  return c->status ? 0 : (int32_t)n;
}

void nn_divides(nn_config *c, int64_t a, int64_t b, const char *what) {
  if (!c->status && (b <= 0 || a % b))
    REFUSE(c, "%s: %lld is not a multiple of %lld", what, (long long)a, (long long)b);
}

int32_t nn_activation(nn_config *c, const char *key, const char *fallback) {
  static const struct {
    const char *name;
    int32_t kind;
  } known[] = {{"silu", VIV_SILU}, {"swish", VIV_SILU},
               {"gelu", VIV_GELU}, {"gelu_new", VIV_GELU_TANH},
               {"relu", VIV_RELU}, {"gelu_pytorch_tanh", VIV_GELU_TANH}};
  viv_str name = nn_text(c, key, fallback);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (nn_is(name, known[i].name)) return known[i].kind;
  REFUSE(c, "%s is \"%.*s\", but must be silu, gelu, gelu_new, gelu_pytorch_tanh or relu", key,
         (int)(name.len > 60 ? 60 : name.len), name.ptr);
  return VIV_SILU;
}
