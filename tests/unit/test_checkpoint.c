/* Safetensors files, shards and model folders: what is read, and what is refused with which words.
 * All files are made here, in a temporary folder. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"

/* ---- helpers ---- */

static char folder[64];

static void make_folder(void) {
  strcpy(folder, "/tmp/viv-checkpoint-XXXXXX");
  cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void) {
  char command[96];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert_eq(system(command), 0);
}

/* The path of a file in the folder; the last four stay valid. */
static const char *in_folder(const char *name) {
  static char paths[4][512];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", folder, name);
  return path;
}

static void write_text(const char *name, const char *text) {
  cr_assert_eq(viv__write_file(in_folder(name), text, strlen(text), NULL), VIV_OK);
}

/* A float tensor of n ones times value in a file of its own. */
static void write_floats(const char *file, const char *name, float value, int64_t n) {
  float data[64];
  for (int64_t i = 0; i < n; i++) data[i] = value;
  viv_str names[1] = {viv__str(name)};
  viv_tensor t = {.struct_size = sizeof t,
                  .data = data,
                  .bytes = (uint64_t)n * 4,
                  .dtype = VIV_F32,
                  .ndim = 1,
                  .shape = {n}};
  cr_assert_eq(viv__safetensors_write(in_folder(file), names, &t, 1, NULL), VIV_OK);
}

/* A safetensors file in memory of exactly its size, so that a sanitizer sees any read beyond. */
typedef struct image {
  uint8_t *data;
  size_t len;
} image;

static image make_bytes(const char *header, size_t header_len, size_t data_len) {
  image m = {.len = 8 + header_len + data_len};
  m.data = calloc(1, m.len);
  for (int i = 0; i < 8; i++) m.data[i] = (uint8_t)((uint64_t)header_len >> 8 * i);
  memcpy(m.data + 8, header, header_len);
  return m;
}

static image make(const char *header, size_t data_len) {
  return make_bytes(header, strlen(header), data_len);
}

static void refuse_image(image m, const char *words) {
  viv_error error = VIV_ERROR_INIT;
  viv__safetensors *s = NULL;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x.safetensors", &s, &error), VIV_BAD_INPUT);
  cr_assert_null(s);
  cr_assert(strstr(error.message, words) || strstr(error.where, words), "'%s: %s' lacks '%s'",
            error.where, error.message, words);
  cr_assert_eq(strncmp(error.where, "x.safetensors", 13), 0);
  free(m.data);
}

static void refuse(const char *header, size_t data_len, const char *words) {
  refuse_image(make(header, data_len), words);
}

/* Parses what must be accepted, checks the count and closes. */
static void accept(const char *header, size_t data_len, int64_t count) {
  viv_error error = VIV_ERROR_INIT;
  image m = make(header, data_len);
  viv__safetensors *s = NULL;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x", &s, &error), VIV_OK, "%s: %s",
               error.where, error.message);
  cr_assert_eq(viv__safetensors_count(s), count);
  viv__safetensors_close(s);
  free(m.data);
}

static viv_checkpoint *open_ok(const char *path) {
  viv_error error = VIV_ERROR_INIT;
  viv_checkpoint *c = NULL;
  cr_assert_eq(viv__checkpoint_open(path, &c, &error), VIV_OK, "%s: %s", error.where,
               error.message);
  return c;
}

static void refuse_open(const char *path, int32_t code, const char *words) {
  viv_error error = VIV_ERROR_INIT;
  viv_checkpoint *c = NULL;
  cr_assert_eq(viv__checkpoint_open(path, &c, &error), code, "%d, %s: %s", error.code, error.where,
               error.message);
  cr_assert_null(c);
  cr_assert(strstr(error.message, words) || strstr(error.where, words), "'%s: %s' lacks '%s'",
            error.where, error.message, words);
}

static float first_float(const viv_checkpoint *c, const char *name) {
  viv_tensor t;
  float value;
  cr_assert_eq(viv__tensor_find(c, viv__str(name), &t), VIV_OK, "no tensor '%s'", name);
  memcpy(&value, t.data, sizeof value);
  return value;
}

#define ONE(name, dtype, shape, offsets)                                                           \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

/* ---- safetensors ---- */

Test(safetensors, one_tensor_is_found_by_name_and_by_index) {
  image m = make("{" ONE("w", "F32", "[2,3]", "[4,28]") "}", 28);
  for (int i = 0; i < 28; i++) m.data[m.len - 28 + (size_t)i] = (uint8_t)i;
  viv__safetensors *s = NULL;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x", &s, NULL), VIV_OK);
  viv_str name;
  viv_tensor t;
  cr_assert_eq(viv__safetensors_at(s, 0, &name, &t), VIV_OK);
  cr_assert(viv__str_eq(name, "w"));
  cr_assert_eq(t.struct_size, sizeof t);
  cr_assert_eq(t.flags, VIV_TENSOR_READ_ONLY);
  cr_assert_null(t.release);
  cr_assert_eq(t.dtype, VIV_F32);
  cr_assert_eq(t.ndim, 2);
  cr_assert_eq(t.shape[0], 2);
  cr_assert_eq(t.shape[1], 3);
  cr_assert_eq(t.bytes, 24);
  cr_assert_eq(*(uint8_t *)t.data, 4);
  cr_assert_eq(viv__safetensors_find(s, viv__str("w"), &t), VIV_OK);
  cr_assert_eq(viv__safetensors_find(s, viv__str("v"), &t), VIV_NEVER);
  cr_assert_eq(viv__safetensors_at(s, 1, &name, &t), VIV_NEVER);
  cr_assert_eq(viv__safetensors_at(s, -1, &name, &t), VIV_NEVER);
  viv__safetensors_close(s);
  free(m.data);
}

Test(safetensors, what_is_accepted) {
  accept("{}", 0, 0);
  accept("{}  \n\t ", 0, 0);
  accept("{\"__metadata__\":{\"format\":\"pt\",\"x\":[1,{\"y\":null}]}}", 0, 0);
  accept("{" ONE("z", "F32", "[0,5]", "[0,0]") "}", 0, 1);
  accept("{" ONE("s", "I64", "[]", "[0,8]") "}", 8, 1);
  accept("{" ONE("d", "U8", "[1,1,1,1,1,1,1,2]", "[0,2]") "}", 2, 1);
  accept("{" ONE("a", "U8", "[2]", "[0,2]") "," ONE("b", "U8", "[2]", "[6,8]") "}", 8, 2); /* gap */
  accept("{" ONE("a", "U8", "[2]", "[0,2]") "," ONE("b", "U8", "[0]", "[1,1]") "}", 2, 2);
  accept("{" ONE("a", "U8", "[2]", "[0,2]") "}", 9, 1); /* bytes behind the last tensor */
  accept("{\"a\":{\"later\":{\"x\":[true]},\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
         1, 1);
  accept("{ \"a\" : { \"dtype\" : \"U8\" , \"shape\" : [ 1 ] , \"data_offsets\" : [ 0 , 1 ] } }", 1,
         1);
  /* The product is 0 whatever stands beside the 0. */
  accept("{" ONE("z", "F32", "[9223372036854775807,0,9223372036854775807]", "[0,0]") "}", 0, 1);
}

Test(safetensors, every_dtype) {
  static const struct {
    const char *name;
    int32_t dtype;
  } all[] = {{"F64", VIV_F64},   {"F32", VIV_F32}, {"F16", VIV_F16}, {"BF16", VIV_BF16},
             {"I64", VIV_I64},   {"I32", VIV_I32}, {"I16", VIV_I16}, {"I8", VIV_I8},
             {"BOOL", VIV_BOOL}, {"U8", VIV_U8}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    char header[128];
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"%s\",\"shape\":[3],\"data_offsets\":[0,%zu]}}", all[i].name,
             3 * viv__dtype_size(all[i].dtype));
    image m = make(header, 3 * viv__dtype_size(all[i].dtype));
    viv__safetensors *s = NULL;
    viv_tensor t;
    cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x", &s, NULL), VIV_OK);
    cr_assert_eq(viv__safetensors_at(s, 0, NULL, &t), VIV_OK);
    cr_assert_eq(t.dtype, all[i].dtype);
    viv__safetensors_close(s);
    free(m.data);
  }
}

Test(safetensors, escaped_names_are_decoded) {
  image m = make("{" ONE("a\\u00e9\\ud83d\\ude00\\n\\\"", "U8", "[1]",
                         "[0,1]") "," ONE("\\u0062", "U8", "[1]", "[1,2]") "}",
                 2);
  viv__safetensors *s = NULL;
  viv_tensor t;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x", &s, NULL), VIV_OK);
  cr_assert_eq(viv__safetensors_find(s, viv__str("a\u00e9\U0001F600\n\""), &t), VIV_OK);
  cr_assert_eq(viv__safetensors_find(s, viv__str("b"), &t), VIV_OK);
  viv__safetensors_close(s);
  free(m.data);
}

Test(safetensors, files_that_are_cut_or_no_safetensors) {
  refuse_image((image){calloc(1, 1), 0}, "0 bytes");
  refuse_image((image){calloc(1, 7), 7}, "7 bytes");
  image m = make("{}", 0);
  m.data[0] = 3;
  refuse_image(m, "the file is cut");
  m = make("{}", 0);
  memset(m.data, 0xFF, 8);
  refuse_image(m, "100 MB");
  refuse("", 0, "starts with '{'");
  refuse("[]", 0, "starts with '{'");
  refuse(" {}", 0, "starts with '{'");
  refuse("{", 0, "in double quotes");
  refuse("{}x", 0, "text follows");
  refuse("{\"a\"", 0, "must follow");
  refuse("{\"a", 0, "inside a string");
}

Test(safetensors, entries_that_are_wrong) {
  refuse("{\"a\":1}", 0, "expected '{'");
  refuse("{\"a\":{}}", 0, "no \"dtype\"");
  refuse("{\"a\":{\"dtype\":\"U8\"}}", 0, "no \"shape\"");
  refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[]}}", 0, "no \"data_offsets\"");
  refuse("{" ONE("a", "F8_E4M3", "[1]", "[0,1]") "}", 1, "dtype 'F8_E4M3'");
  refuse("{" ONE("a", "F8_E4M3", "[1]", "[0,1]") "}", 1, "tensor 'a'");
  refuse("{" ONE("a", "f32", "[1]", "[0,4]") "}", 4, "dtype 'f32'");
  refuse("{" ONE("a", "", "[1]", "[0,4]") "}", 4, "dtype ''");
  refuse("{\"a\":{\"dtype\":3}}", 0, "double quotes");
  refuse("{" ONE("a", "U8", "[1,1,1,1,1,1,1,1,1]", "[0,1]") "}", 1, "more than 8 dimensions");
  refuse("{" ONE("a", "F32", "[-1]", "[0,4]") "}", 4, "negative");
  refuse("{" ONE("a", "F32", "[1.5]", "[0,4]") "}", 4, "without point");
  refuse("{" ONE("a", "F32", "[1e0]", "[0,4]") "}", 4, "without point");
  refuse("{" ONE("a", "F32", "[01]", "[0,4]") "}", 4, "zero");
  refuse("{" ONE("a", "F32", "[true]", "[0,4]") "}", 4, "whole number");
  refuse("{" ONE("a", "F32", "[9223372036854775808]", "[0,4]") "}", 4, "63 bits");
  refuse("{" ONE("a", "F32", "[99999999999999999999999999]", "[0,4]") "}", 4, "63 bits");
  refuse("{" ONE("a", "F32", "[4611686018427387904,4]", "[0,0]") "}", 4, "overflows");
  refuse("{" ONE("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 4, "overflows");
  refuse("{" ONE("a", "U8", "[2]", "[0,3]") "}", 3, "need 2 bytes");
  refuse("{" ONE("a", "F32", "[2]", "[0,7]") "}", 8, "need 8 bytes");
  refuse("{" ONE("a", "U8", "[2]", "[3,1]") "}", 8, "ends before");
  refuse("{" ONE("a", "U8", "[2]", "[0,2]") "}", 1, "cut or damaged");
  refuse("{" ONE("a", "U8", "[1]", "[18446744073709551615,0]") "}", 1, "63 bits");
  refuse("{" ONE("a", "U8", "[1]", "[9223372036854775806,9223372036854775807]") "}", 1, "cut or");
  refuse("{" ONE("a", "U8", "[1]", "[0]") "}", 1, "expected ','");
  refuse("{" ONE("a", "U8", "[1]", "[0,1,2]") "}", 1, "expected ']'");
  refuse("{" ONE("a", "U8", "[1],\"shape\":[1]", "[0,1]") "}", 1, "\"shape\" stands twice");
}

Test(safetensors, names_that_are_wrong) {
  refuse("{" ONE("", "U8", "[1]", "[0,1]") "}", 1, "empty name");
  refuse("{" ONE("a\\u0000b", "U8", "[1]", "[0,1]") "}", 1, "NUL");
  refuse("{" ONE("a\\ud800", "U8", "[1]", "[0,1]") "}", 1, "escape");
  refuse("{" ONE("a\\udc00", "U8", "[1]", "[0,1]") "}", 1, "escape");
  refuse("{" ONE("a\\ud800\\u0041", "U8", "[1]", "[0,1]") "}", 1, "escape");
  refuse("{" ONE("a\\x", "U8", "[1]", "[0,1]") "}", 1, "escape");
  refuse("{" ONE("a\xff", "U8", "[1]", "[0,1]") "}", 1, "UTF-8");
  refuse("{" ONE("a\xff", "U8", "[1]", "[0,1]") "}", 1, "header byte 11");
  refuse("{" ONE("a\n", "U8", "[1]", "[0,1]") "}", 1, "control byte");
  static const char nul[] = "{\"a\0b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
  refuse_image(make_bytes(nul, sizeof nul - 1, 1), "control byte");
  refuse("{" ONE("a", "U8", "[1]", "[0,1]") "," ONE("a", "U8", "[1]", "[1,2]") "}", 2,
         "two tensors");
  refuse("{" ONE("a", "U8", "[1]", "[0,1]") "," ONE("\\u0061", "U8", "[1]", "[1,2]") "}", 2,
         "two tensors");
  refuse("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "twice");
}

Test(safetensors, overlaps_are_refused_with_both_names) {
  refuse("{" ONE("a", "U8", "[4]", "[0,4]") "," ONE("b", "U8", "[4]", "[3,7]") "}", 8, "'a'");
  refuse("{" ONE("a", "U8", "[4]", "[0,4]") "," ONE("b", "U8", "[4]", "[3,7]") "}", 8, "'b'");
  refuse("{" ONE("a", "U8", "[8]", "[0,8]") "," ONE("b", "U8", "[2]", "[2,4]") "}", 8, "overlaps");
  refuse("{" ONE("a", "U8", "[4]", "[0,4]") "," ONE("b", "U8", "[4]", "[0,4]") "}", 8, "overlaps");
}

Test(safetensors, deep_metadata_is_refused) {
  char header[4096] = "{\"__metadata__\":";
  for (int i = 0; i < 1000; i++) strcat(header, "[");
  refuse(header, 0, "nests deeper");
}

static const char sample[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"b\\u00e9\":{\"dtype\":\"BF16\",\"shape\":[],\"data_offsets\":[24,26]},"
    "\"c\":{\"dtype\":\"I64\",\"shape\":[0],\"data_offsets\":[26,26]}}";

/* Answers whether the image was accepted; either way nothing may be read out of bounds. */
static bool survives(const uint8_t *data, size_t len) {
  uint8_t *exact = malloc(len ? len : 1);
  memcpy(exact, data, len);
  viv_error error = VIV_ERROR_INIT;
  viv__safetensors *s = NULL;
  int32_t status = viv__safetensors_parse(exact, len, "x", &s, &error);
  if (status == VIV_OK) {
    unsigned sum = 0;
    for (int64_t i = 0; i < viv__safetensors_count(s); i++) {
      viv_tensor t;
      cr_assert_eq(viv__safetensors_at(s, i, NULL, &t), VIV_OK);
      for (uint64_t k = 0; k < t.bytes; k++) sum += ((uint8_t *)t.data)[k];
    }
    cr_assert_lt(sum, 1u << 30);
    viv__safetensors_close(s);
  } else {
    cr_assert_eq(status, VIV_BAD_INPUT);
    cr_assert_neq(error.message[0], 0);
  }
  free(exact);
  return status == VIV_OK;
}

Test(safetensors, a_file_cut_at_every_byte_is_refused) {
  image m = make(sample, 26);
  for (size_t len = 0; len < m.len; len++) cr_assert_not(survives(m.data, len), "cut at %zu", len);
  cr_assert(survives(m.data, m.len));
  free(m.data);
}

Test(safetensors, a_header_cut_at_every_byte_is_refused) {
  for (size_t n = 0; n < sizeof sample - 1; n++) {
    image m = make_bytes(sample, n, 26);
    cr_assert_not(survives(m.data, m.len), "cut at %zu", n);
    free(m.data);
  }
}

Test(safetensors, mutants_are_read_or_refused) {
  image m = make(sample, 26);
  long mutants = 0, accepted = 0;
  for (size_t at = 0; at < m.len - 26; at++) {
    uint8_t old = m.data[at];
    for (int value = 0; value < 256; value++) { /* more than 50,000 */
      m.data[at] = (uint8_t)value;
      accepted += survives(m.data, m.len);
      mutants++;
    }
    m.data[at] = old;
  }
  /* Two bytes at once, chosen by a fixed sequence. */
  uint64_t seed = 1;
  for (int i = 0; i < 20000; i++) {
    uint8_t *copy = malloc(m.len);
    memcpy(copy, m.data, m.len);
    for (int k = 0; k < 2; k++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      copy[(seed >> 33) % m.len] = "{}[]\",:0123456789-e\\ \xff"[(seed >> 20) % 22];
    }
    accepted += survives(copy, m.len);
    free(copy);
  }
  cr_assert_gt(mutants, 10000);
  cr_assert_gt(accepted, 0);
  free(m.data);
}

Test(safetensors, many_names_are_found) {
  enum { N = 20000 };
  size_t cap = N * 80, len = 1;
  char *header = malloc(cap);
  header[0] = '{';
  for (int i = 0; i < N; i++)
    len += (size_t)snprintf(header + len, cap - len,
                            "%s\"layer.%d.w\":{\"dtype\":\"U8\",\"shape\":[1],"
                            "\"data_offsets\":[%d,%d]}",
                            i ? "," : "", i, i, i + 1);
  header[len++] = '}';
  image m = make_bytes(header, len, N);
  viv__safetensors *s = NULL;
  viv_tensor t;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x", &s, NULL), VIV_OK);
  for (int i = 0; i < N; i++) {
    char name[32];
    snprintf(name, sizeof name, "layer.%d.w", i);
    cr_assert_eq(viv__safetensors_find(s, viv__str(name), &t), VIV_OK);
    cr_assert_eq((uint8_t *)t.data - (m.data + 8 + len), i);
  }
  viv__safetensors_close(s);
  free(m.data);
  free(header);
}

Test(safetensors, what_is_written_is_read, .init = make_folder, .fini = remove_folder) {
  uint8_t flags[3] = {1, 0, 1};
  float floats[6] = {1, 2, 3, 4, 5, 6};
  double scalar = 0.5;
  viv_str names[4] = {viv__str("flags"), viv__str("a \"quoted\"\n\u00e9"), viv__str("scalar"),
                      viv__str("none")};
  viv_tensor in[4] = {
      {.data = flags, .bytes = 3, .dtype = VIV_BOOL, .ndim = 1, .shape = {3}},
      {.data = floats, .bytes = 24, .dtype = VIV_F32, .ndim = 2, .shape = {2, 3}},
      {.data = &scalar, .bytes = 8, .dtype = VIV_F64, .ndim = 0},
      {.data = NULL, .bytes = 0, .dtype = VIV_F16, .ndim = 2, .shape = {0, 7}},
  };
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__safetensors_write(in_folder("x.safetensors"), names, in, 4, &error), VIV_OK,
               "%s", error.message);
  viv__safetensors *s = NULL;
  cr_assert_eq(viv__safetensors_open(in_folder("x.safetensors"), &s, &error), VIV_OK);
  cr_assert_eq(viv__safetensors_count(s), 4);
  for (int i = 0; i < 4; i++) {
    viv_tensor t;
    cr_assert_eq(viv__safetensors_find(s, names[i], &t), VIV_OK);
    cr_assert_eq(t.dtype, in[i].dtype);
    cr_assert_eq(t.ndim, in[i].ndim);
    cr_assert_eq(t.bytes, in[i].bytes);
    cr_assert_eq(memcmp(t.shape, in[i].shape, sizeof t.shape), 0);
    if (t.bytes) cr_assert_eq(memcmp(t.data, in[i].data, t.bytes), 0);
    cr_assert_eq((uintptr_t)t.data % viv__dtype_size(t.dtype), 0, "tensor %d is not aligned", i);
  }
  viv__safetensors_close(s);
}

Test(safetensors, the_writer_refuses_what_the_reader_would, .init = make_folder,
     .fini = remove_folder) {
  float data[4] = {0};
  viv_tensor good = {.data = data, .bytes = 16, .dtype = VIV_F32, .ndim = 1, .shape = {4}};
  viv_tensor two[2] = {good, good}, bad = good;
  viv_str twice[2] = {viv__str("a"), viv__str("a")}, empty = viv__str("");
  const char *path = in_folder("x.safetensors");
  cr_assert_eq(viv__safetensors_write(path, twice, two, 2, NULL), VIV_BAD_INPUT);
  cr_assert_eq(viv__safetensors_write(path, &empty, &good, 1, NULL), VIV_BAD_INPUT);
  bad.bytes = 15;
  cr_assert_eq(viv__safetensors_write(path, twice, &bad, 1, NULL), VIV_BAD_INPUT);
  bad = good, bad.dtype = 99;
  cr_assert_eq(viv__safetensors_write(path, twice, &bad, 1, NULL), VIV_BAD_INPUT);
  bad = good, bad.shape[0] = -4;
  cr_assert_eq(viv__safetensors_write(path, twice, &bad, 1, NULL), VIV_BAD_INPUT);
  bad = good, bad.ndim = 9;
  cr_assert_eq(viv__safetensors_write(path, twice, &bad, 1, NULL), VIV_BAD_INPUT);
  cr_assert_eq(access(path, F_OK), -1);
  cr_assert_eq(viv__safetensors_write(in_folder("none/x"), twice, &good, 1, NULL), VIV_NOT_NOW);
}

Test(safetensors, only_regular_files_are_opened, .init = make_folder, .fini = remove_folder) {
  viv__safetensors *s = NULL;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__safetensors_open(folder, &s, &error), VIV_BAD_INPUT);
  cr_assert_eq(mkfifo(in_folder("pipe"), 0600), 0);
  cr_assert_eq(viv__safetensors_open(in_folder("pipe"), &s, &error), VIV_BAD_INPUT);
  cr_assert_not_null(strstr(error.message, "regular file"));
  cr_assert_eq(viv__safetensors_open(in_folder("absent"), &s, &error), VIV_NEVER);
  write_text("empty.safetensors", "");
  cr_assert_eq(viv__safetensors_open(in_folder("empty.safetensors"), &s, &error), VIV_BAD_INPUT);
}

/* ---- folders ---- */

TestSuite(checkpoint, .init = make_folder, .fini = remove_folder);

Test(checkpoint, a_folder_with_one_file) {
  write_floats("model.safetensors", "w", 2, 3);
  write_text("config.json", "{\"hidden_size\": 64}");
  viv_checkpoint *c = open_ok(folder);
  cr_assert_eq(viv__tensor_count(c), 1);
  cr_assert_eq(viv__checkpoint_bytes(c), 12);
  cr_assert_float_eq(first_float(c, "w"), 2, 0);
  cr_assert_eq(viv__json_num(viv__checkpoint_config(c), "hidden_size", 0), 64);
  cr_assert_eq(strstr(viv__checkpoint_dir(c), folder + 5) != NULL, 1);
  viv_tensor t;
  viv_str name;
  cr_assert_eq(viv__tensor_at(c, 0, &name, &t), VIV_OK);
  cr_assert_eq(viv__tensor_at(c, 1, &name, &t), VIV_NEVER);
  cr_assert_eq(viv__tensor_find(c, viv__str("v"), &t), VIV_NEVER);
  viv__checkpoint_close(c);
}

Test(checkpoint, a_folder_without_anything) {
  viv_checkpoint *c = open_ok(folder);
  cr_assert_eq(viv__tensor_count(c), 0);
  cr_assert_eq(viv__checkpoint_bytes(c), 0);
  cr_assert_null(viv__checkpoint_config(c));
  viv_tensor t;
  cr_assert_eq(viv__tensor_find(c, viv__str("w"), &t), VIV_NEVER);
  viv__checkpoint_close(c);
  viv__checkpoint_close(NULL);
}

Test(checkpoint, a_golden_case_without_a_model_holds_no_weights) {
  write_floats("inputs.safetensors", "x", 1, 1);
  write_floats("outputs.safetensors", "y", 1, 1);
  viv_checkpoint *c = open_ok(folder);
  cr_assert_eq(viv__tensor_count(c), 0);
  viv__checkpoint_close(c);
}

Test(checkpoint, a_path_to_one_file) {
  write_floats("b.safetensors", "w", 2, 3);
  write_floats("a.safetensors", "w", 1, 3);
  write_text("config.json", "{\"x\": 1}");
  viv_checkpoint *c = open_ok(in_folder("b.safetensors"));
  cr_assert_float_eq(first_float(c, "w"), 2, 0);
  cr_assert_not_null(viv__checkpoint_config(c));
  viv__checkpoint_close(c);
  refuse_open(folder, VIV_BAD_INPUT, "a.safetensors, b.safetensors");
}

Test(checkpoint, the_usual_name_wins_and_other_state_is_no_weight_file) {
  write_floats("other.safetensors", "w", 1, 1);
  write_text("optimizer.pt", "not a pickle");
  write_text("training_args.bin", "not a pickle");
  viv_checkpoint *c = open_ok(folder);
  cr_assert_float_eq(first_float(c, "w"), 1, 0);
  viv__checkpoint_close(c);
  write_floats("model.safetensors", "w", 2, 1);
  c = open_ok(folder);
  cr_assert_float_eq(first_float(c, "w"), 2, 0);
  viv__checkpoint_close(c);
}

Test(checkpoint, absent_and_wrong_paths) {
  refuse_open(in_folder("absent"), VIV_NEVER, "no model here");
  refuse_open("/dev/null", VIV_BAD_INPUT, "regular file");
  write_text("notes.txt", "hello");
  refuse_open(in_folder("notes.txt"), VIV_BAD_INPUT, "neither a zip archive nor a pickle");
  write_text("model.gguf", "GGUF");
  refuse_open(in_folder("model.gguf"), VIV_BAD_INPUT, "the file ends where the version");
  write_text("notes.json", "{}");
  refuse_open(in_folder("notes.json"), VIV_NEVER, "*.safetensors");
}

Test(checkpoint, a_config_that_is_no_json_object) {
  write_text("config.json", "{\"a\":");
  refuse_open(folder, VIV_BAD_INPUT, "config.json");
  write_text("config.json", "[1]");
  refuse_open(folder, VIV_BAD_INPUT, "must be a JSON object");
}

Test(checkpoint, shards_are_joined) {
  write_floats("m-1.safetensors", "a", 1, 2);
  write_floats("m-2.safetensors", "b", 2, 2);
  write_text("model.safetensors.index.json",
             "{\"metadata\":{\"total_size\":16},"
             "\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
  viv_checkpoint *c = open_ok(folder);
  cr_assert_eq(viv__tensor_count(c), 2);
  cr_assert_float_eq(first_float(c, "a"), 1, 0);
  cr_assert_float_eq(first_float(c, "b"), 2, 0);
  cr_assert_eq(viv__checkpoint_bytes(c), 16);
  viv__checkpoint_close(c);
  c = open_ok(in_folder("model.safetensors.index.json"));
  cr_assert_eq(viv__tensor_count(c), 2);
  viv__checkpoint_close(c);
}

Test(checkpoint, missing_shards_and_tensors_are_reported_together) {
  viv__buf index = {0};
  viv__buf_str(&index, "{\"weight_map\":{");
  for (int i = 0; i < 9; i++)
    viv__buf_fmt(&index, "%s\"t%d\":\"m-%d.safetensors\"", i ? "," : "", i, i);
  viv__buf_str(&index, "}}");
  write_text("model.safetensors.index.json", index.ptr);
  viv__buf_free(&index);
  refuse_open(folder, VIV_BAD_INPUT, "9 shards are missing: m-0.safetensors, m-1");
  refuse_open(folder, VIV_BAD_INPUT, "and 4 more");
  write_floats("m-1.safetensors", "a", 1, 2);
  write_text("model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"x\":\"m-1.safetensors\","
             "\"y\":\"m-1.safetensors\"}}");
  refuse_open(folder, VIV_BAD_INPUT, "missing: x (of m-1.safetensors), y (of m-1.safetensors)");
}

Test(checkpoint, a_tensor_in_two_shards_is_refused) {
  write_floats("m-1.safetensors", "a", 1, 2);
  write_floats("m-2.safetensors", "a", 2, 2);
  write_text("model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
  refuse_open(folder, VIV_BAD_INPUT, "two shards, m-1.safetensors and m-2.safetensors");
}

Test(checkpoint, an_index_can_not_leave_the_folder) {
  static const char *const names[] = {"../m.safetensors", "/etc/passwd", "..", ".", "", "a/b"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char text[128];
    snprintf(text, sizeof text, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
    write_text("model.safetensors.index.json", text);
    refuse_open(folder, VIV_BAD_INPUT, "plain file name");
  }
  write_text("model.safetensors.index.json", "{\"weight_map\":{\"a\":1}}");
  refuse_open(folder, VIV_BAD_INPUT, "names no file");
  write_text("model.safetensors.index.json", "{\"weight_map\":{}}");
  refuse_open(folder, VIV_BAD_INPUT, "no \"weight_map\"");
  write_text("model.safetensors.index.json", "[]");
  refuse_open(folder, VIV_BAD_INPUT, "no \"weight_map\"");
}

/* A release whose networks lie in a file each: config.json says whose names get which prefix. */
Test(checkpoint, files_of_several_networks_are_joined_under_prefixes) {
  static const char *const wrong[] = {"[]", "{}", "{\"a.safetensors\":1}",
                                      "{\"../a.safetensors\":\"\"}", "{\"a.gguf\":\"\"}"};
  write_floats("a.safetensors", "weight", 1, 2);
  write_floats("b.safetensors", "weight", 2, 2);
  write_floats("c.safetensors", "scale", 3, 2);
  refuse_open(folder, VIV_BAD_INPUT, "name the files in config.json");
  write_text("config.json", "{\"weight_files\":{\"a.safetensors\":\"one.\",\"b.safetensors\":"
                            "\"two.\",\"c.safetensors\":\"\"}}");
  viv_checkpoint *c = open_ok(folder);
  viv_str name;
  viv_tensor t;
  cr_assert_eq(viv__tensor_count(c), 3);
  cr_assert_float_eq(first_float(c, "one.weight"), 1, 0);
  cr_assert_float_eq(first_float(c, "two.weight"), 2, 0);
  cr_assert_float_eq(first_float(c, "scale"), 3, 0);
  cr_assert_lt(viv__tensor_find(c, viv__str("weight"), &t), 0);
  cr_assert_eq(viv__tensor_at(c, 1, &name, &t), VIV_OK);
  cr_assert(viv__str_eq(name, "two.weight"));
  viv__checkpoint_close(c);
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char text[96];
    snprintf(text, sizeof text, "{\"weight_files\":%s}", wrong[i]);
    write_text("config.json", text);
    refuse_open(folder, VIV_BAD_INPUT, "weight_files");
  }
  write_text("config.json", "{\"weight_files\":{\"a.safetensors\":\"\",\"b.safetensors\":\"\"}}");
  refuse_open(folder, VIV_BAD_INPUT, "two shards, a.safetensors and b.safetensors");
  write_text("config.json", "{\"weight_files\":{\"gone.safetensors\":\"\"}}");
  refuse_open(folder, VIV_NEVER, "gone.safetensors");
}

Test(checkpoint, a_damaged_shard_names_its_file) {
  write_floats("m-1.safetensors", "a", 1, 2);
  write_text("m-2.safetensors", "12345678");
  write_text("model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
  refuse_open(folder, VIV_BAD_INPUT, "m-2.safetensors");
}

Test(checkpoint, a_hugging_face_cache) {
  cr_assert_eq(mkdir(in_folder("refs"), 0700), 0);
  cr_assert_eq(mkdir(in_folder("blobs"), 0700), 0);
  cr_assert_eq(mkdir(in_folder("snapshots"), 0700), 0);
  cr_assert_eq(mkdir(in_folder("snapshots/abc"), 0700), 0);
  cr_assert_eq(mkdir(in_folder("snapshots/def"), 0700), 0);
  write_floats("blobs/1", "w", 7, 1);
  write_text("blobs/2", "{\"x\":3}");
  cr_assert_eq(symlink("../../blobs/1", in_folder("snapshots/abc/model.safetensors")), 0);
  cr_assert_eq(symlink("../../blobs/2", in_folder("snapshots/abc/config.json")), 0);
  write_text("refs/main", "abc\n");
  for (int i = 0; i < 3; i++) {
    viv_checkpoint *c = open_ok(i == 0   ? folder
                                : i == 1 ? in_folder("snapshots/abc")
                                         : in_folder("snapshots/abc/model.safetensors"));
    cr_assert_float_eq(first_float(c, "w"), 7, 0);
    cr_assert_eq(viv__json_num(viv__checkpoint_config(c), "x", 0), 3);
    cr_assert_not_null(strstr(viv__checkpoint_dir(c), "snapshots/abc"));
    viv__checkpoint_close(c);
  }
  write_text("refs/main", "../..");
  refuse_open(folder, VIV_BAD_INPUT, "does not name a snapshot");
  write_text("refs/main", "gone");
  refuse_open(folder, VIV_NEVER, "download it again");
  cr_assert_eq(unlink(in_folder("refs/main")), 0);
  refuse_open(folder, VIV_BAD_INPUT, "2 snapshots");
  cr_assert_eq(rmdir(in_folder("snapshots/def")), 0);
  viv_checkpoint *c = open_ok(folder);
  cr_assert_eq(viv__tensor_count(c), 1);
  viv__checkpoint_close(c);
}

Test(checkpoint, side_files) {
  write_text("tokenizer.json", "{\"version\":\"1.0\"}");
  write_text("merges.txt", "a b\n");
  cr_assert_eq(mkdir(in_folder("sub"), 0700), 0);
  viv_checkpoint *c = open_ok(folder);
  viv_error error = VIV_ERROR_INIT;
  viv_str text = {NULL, 0}, again;
  cr_assert_eq(viv__checkpoint_read(c, "merges.txt", &text, &error), VIV_OK);
  cr_assert(viv__str_eq(text, "a b\n"));
  cr_assert_eq(viv__checkpoint_read(c, "merges.txt", &again, &error), VIV_OK);
  cr_assert_eq(again.ptr, text.ptr, "a side file is read once");
  text = (viv_str){NULL, 0};
  cr_assert_eq(viv__checkpoint_read(c, "absent.json", &text, &error), VIV_NEVER);
  cr_assert_null(text.ptr);
  static const char *const wrong[] = {"../x", "/etc/passwd", "a/b", "..", ".", "", "sub/"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    cr_assert_eq(viv__checkpoint_read(c, wrong[i], &text, &error), VIV_BAD_INPUT, "%s", wrong[i]);
  cr_assert_eq(viv__checkpoint_read(c, "sub", &text, &error), VIV_BAD_INPUT);

  const viv_json *doc = viv__checkpoint_file(c, viv__str("tokenizer.json"));
  cr_assert_str_eq(viv__json_text(doc, "version", ""), "1.0");
  cr_assert_eq(viv__checkpoint_file(c, viv__str("tokenizer.json")), doc);
  cr_assert_null(viv__checkpoint_file(c, viv__str("absent.json")));
  cr_assert_null(viv__checkpoint_file(c, viv__str("merges.txt")));
  cr_assert_null(viv__checkpoint_file(c, viv__str("../x")));
  viv__checkpoint_close(c);
}

Test(checkpoint, a_side_file_has_a_limit) {
  cr_assert_eq(truncate(in_folder("config.json"), 0), -1);
  write_text("big.json", "");
  cr_assert_eq(truncate(in_folder("big.json"), (64 << 20) + 1), 0);
  viv_checkpoint *c = open_ok(folder);
  viv_str text;
  cr_assert_eq(viv__checkpoint_read(c, "big.json", &text, NULL), VIV_BAD_INPUT);
  viv__checkpoint_close(c);
}

Test(checkpoint, the_id_tells_weights_apart) {
  char one[65], two[65], three[65], four[65];
  write_floats("model.safetensors", "w", 1, 8);
  viv_checkpoint *c = open_ok(folder);
  viv__checkpoint_id(c, one);
  viv__checkpoint_close(c);
  cr_assert_eq(strlen(one), 64);
  c = open_ok(folder);
  viv__checkpoint_id(c, two);
  viv__checkpoint_close(c);
  cr_assert_str_eq(one, two);
  write_floats("model.safetensors", "w", 1.5f, 8);
  c = open_ok(folder);
  viv__checkpoint_id(c, three);
  viv__checkpoint_close(c);
  cr_assert_str_neq(one, three);
  write_floats("model.safetensors", "v", 1, 8);
  c = open_ok(folder);
  viv__checkpoint_id(c, four);
  viv__checkpoint_close(c);
  cr_assert_str_neq(one, four);
}

/* ---- failing allocations ---- */

/* Blocks that are allocated and not yet freed. Under a sanitizer, which brings its own allocator
 * and finds leaks itself, this stays 0. */
static atomic_long live;

#ifndef __SANITIZE_ADDRESS__
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);
void __libc_free(void *p);

void *malloc(size_t bytes) {
  void *p = __libc_malloc(bytes);
  live += p != NULL;
  return p;
}

void *calloc(size_t n, size_t bytes) {
  void *p = __libc_calloc(n, bytes);
  live += p != NULL;
  return p;
}

void *realloc(void *old, size_t bytes) {
  void *p = __libc_realloc(old, bytes);
  live += !old && p;
  return p;
}

void *aligned_alloc(size_t alignment, size_t bytes) {
  void *p = __libc_memalign(alignment, bytes);
  live += p != NULL;
  return p;
}

void free(void *p) {
  live -= p != NULL;
  __libc_free(p);
}
#endif

/* Everything that allocates, once: opens a sharded folder, reads a side file, writes, parses. */
static int32_t use_everything(image m) {
  viv_checkpoint *c = NULL;
  viv__safetensors *s = NULL;
  viv_str text, name;
  viv_tensor t;
  viv_error error = VIV_ERROR_INIT;
  int32_t status = viv__checkpoint_open(folder, &c, &error);
  if (status >= 0) {
    status = viv__checkpoint_read(c, "tokenizer.json", &text, &error);
    viv__checkpoint_file(c, viv__str("tokenizer.json"));
    viv__tensor_at(c, 0, &name, &t);
    int32_t wrote = viv__safetensors_write(in_folder("copy.out"), &name, &t, 1, &error);
    if (wrote < 0) status = wrote;
    viv__checkpoint_close(c);
  }
  int32_t parsed = viv__safetensors_parse(m.data, m.len, "x", &s, &error);
  if (parsed < 0)
    status = parsed;
  else
    viv__safetensors_close(s);
  return status;
}

Test(checkpoint, every_allocation_may_fail, .timeout = 60) {
  write_floats("m-1.safetensors", "a", 1, 2);
  write_floats("m-2.safetensors", "b", 2, 2);
  write_text("model.safetensors.index.json",
             "{\"weight_map\":{\"a\":\"m-1.safetensors\",\"b\":\"m-2.safetensors\"}}");
  write_text("config.json", "{\"hidden_size\":64}");
  write_text("tokenizer.json", "{}");
  image m = make("{" ONE("esc\\u0061pe", "U8", "[1]", "[0,1]") "}", 1);
  long total = 0;
  for (long k = 0; k <= total; k++) { /* k = 0 fails nothing and counts */
    long before = live;
    viv__fail_alloc(k);
    int32_t status = use_everything(m);
    long made = viv__fail_alloc(0), after = live;
    if (!k) total = made;
    cr_assert_eq(status, k ? VIV_NOT_NOW : VIV_OK, "allocation %ld of %ld: %d", k, total, status);
    cr_assert_eq(after, before, "allocation %ld of %ld leaks", k, total);
  }
  cr_assert_gt(total, 20);
  free(m.data);
}

Test(checkpoint, every_allocation_of_a_pytorch_file_may_fail, .timeout = 60) {
  static const char *const files[] = {"tests/data/pickle/zip.pt", "tests/data/pickle/legacy.pt"};
  for (int f = 0; f < 2; f++) {
    long total = 0;
    for (long k = 0; k <= total; k++) {
      viv__pickle *p = NULL;
      viv_error error = VIV_ERROR_INIT;
      long before = live;
      viv__fail_alloc(k);
      int32_t status = viv__pickle_open(files[f], &p, &error);
      viv__pickle_close(p);
      long made = viv__fail_alloc(0), after = live;
      if (!k) total = made;
      /* The arena asks again for less, so that one failure need not be the end. */
      cr_assert(status == VIV_OK || (k && status == VIV_NOT_NOW), "allocation %ld: %d, %s", k,
                status, error.message);
      cr_assert_eq(after, before, "allocation %ld of %ld leaks", k, total);
    }
    cr_assert_gt(total, 10);
  }
}

/* ---- block tensors ---- */

Test(checkpoint, block_tensors_come_back_as_they_were_written, .init = make_folder,
     .fini = remove_folder) {
  uint8_t rows[3 * 2 * 20], wide[2 * 9];
  float plain[2] = {1, 2};
  for (size_t i = 0; i < sizeof rows; i++) rows[i] = (uint8_t)(i * 3);
  for (size_t i = 0; i < sizeof wide; i++) wide[i] = (uint8_t)(i * 5);
  viv_str names[] = {viv__str("a \"quoted\" name"), viv__str("plain"), viv__str("row")};
  viv_tensor t[] = {{.struct_size = sizeof *t,
                     .data = rows,
                     .bytes = sizeof rows,
                     .dtype = VIV_Q4_1,
                     .ndim = 2,
                     .shape = {3, 64}},
                    {.struct_size = sizeof *t,
                     .data = plain,
                     .bytes = sizeof plain,
                     .dtype = VIV_F32,
                     .ndim = 1,
                     .shape = {2}},
                    {.struct_size = sizeof *t,
                     .data = wide,
                     .bytes = sizeof wide,
                     .dtype = VIV_INT8_ROW,
                     .ndim = 2,
                     .shape = {2, 5}}};
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__safetensors_write(in_folder("b.safetensors"), names, t, 3, &e), VIV_OK, "%s",
               e.message);
  viv__safetensors *s = NULL;
  cr_assert_eq(viv__safetensors_open(in_folder("b.safetensors"), &s, &e), VIV_OK, "%s: %s", e.where,
               e.message);
  for (int i = 0; i < 3; i++) {
    viv_tensor back;
    cr_assert_eq(viv__safetensors_find(s, names[i], &back), VIV_OK);
    cr_assert_eq(back.dtype, t[i].dtype);
    cr_assert_eq(back.ndim, t[i].ndim);
    for (int d = 0; d < t[i].ndim; d++) cr_assert_eq(back.shape[d], t[i].shape[d]);
    cr_assert_eq(back.bytes, t[i].bytes);
    cr_assert_arr_eq(back.data, t[i].data, t[i].bytes);
  }
  viv__safetensors_close(s);
  t[0].shape[1] = 63; /* no whole blocks */
  cr_assert_eq(viv__safetensors_write(in_folder("c.safetensors"), names, t, 1, &e), VIV_BAD_INPUT);
  cr_assert(strstr(e.message, "whole blocks of Q4_1"), "%s", e.message);
}

static image noted(const char *key, const char *text, const char *dtype, const char *shape,
                   size_t bytes) {
  char header[400];
  snprintf(header, sizeof header,
           "{\"__metadata__\":{\"format\":\"pt\",\"%s\":%s},\"w\":{\"dtype\":\"%s\",\"shape\":%s,"
           "\"data_offsets\":[0,%zu]}}",
           key, text, dtype, shape, bytes);
  return make(header, bytes);
}

Test(checkpoint, notes_about_blocks_must_fit_their_tensors) {
  image m = noted("viv.block.w", "\"Q4_1 [3, 64]\"", "U8", "[3,40]", 120);
  viv__safetensors *s = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__safetensors_parse(m.data, m.len, "x.safetensors", &s, &e), VIV_OK, "%s",
               e.message);
  viv_tensor t;
  cr_assert_eq(viv__safetensors_find(s, viv__str("w"), &t), VIV_OK);
  cr_assert_eq(t.dtype, VIV_Q4_1);
  cr_assert_eq(t.shape[1], 64);
  viv__safetensors_close(s);
  free(m.data);
#define REFUSED(words, ...) refuse_image(noted(__VA_ARGS__), words)
  REFUSED("the file lacks it", "viv.block.v", "\"Q4_1 [3, 64]\"", "U8", "[3,40]", 120);
  REFUSED("rows of 40 bytes", "viv.block.w", "\"Q4_1 [3, 64]\"", "U8", "[3,41]", 123);
  REFUSED("rows of 0 bytes", "viv.block.w", "\"Q4_1 [3, 65]\"", "U8", "[3,40]", 120);
  REFUSED("rows of 40 bytes", "viv.block.w", "\"Q4_1 [4, 64]\"", "U8", "[3,40]", 120);
  REFUSED("rows of 40 bytes", "viv.block.w", "\"Q4_1 [3, 64]\"", "I8", "[3,40]", 120);
  static const char *const senseless[] = {
      "\"Q4_1\"",          "\"Q9_9 [3, 64]\"",  "\"F32 [3, 10]\"",
      "\"Q4_1 [3,64]\"",   "\"Q4_1 [3, ]\"",    "\"Q4_1 []\"",
      "\"Q4_1 [3, 64] \"", "\"Q4_1 [3, -64]\"", "\"\""};
  for (size_t i = 0; i < sizeof senseless / sizeof *senseless; i++)
    REFUSED("are expected", "viv.block.w", senseless[i], "U8", "[3,40]", 120);
  REFUSED("a string in double quotes", "viv.block.w", "3", "U8", "[3,40]", 120);
}
