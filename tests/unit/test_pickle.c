/* PyTorch files: those that torch.save wrote (tests/data/pickle, made with PyTorch 2.15) and those
 * that an attacker might write, which are made here. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"

#define DATA "tests/data/pickle/"

/* ---- helpers ---- */

static viv__pickle *open_ok(const char *path) {
  viv_error error = VIV_ERROR_INIT;
  viv__pickle *p = NULL;
  cr_assert_eq(viv__pickle_open(path, &p, &error), VIV_OK, "%s: %s", error.where, error.message);
  return p;
}

static viv_tensor find(const viv__pickle *p, const char *name) {
  for (int64_t i = 0; i < viv__pickle_count(p); i++) {
    viv_str n;
    viv_tensor t;
    cr_assert_eq(viv__pickle_at(p, i, &n, &t), VIV_OK);
    if (viv__str_eq(n, name)) return t;
  }
  cr_assert_fail("no tensor '%s'", name);
  return (viv_tensor){0};
}

/* The tensor's shape and, when floats is not NULL, its values, which may lie at odd addresses. */
static void check(const viv__pickle *p, const char *name, int32_t dtype, int32_t ndim,
                  const int64_t *shape, const float *floats) {
  viv_tensor t = find(p, name);
  cr_assert_eq(t.dtype, dtype, "%s", name);
  cr_assert_eq(t.ndim, ndim, "%s", name);
  uint64_t count = 1;
  for (int32_t i = 0; i < ndim; i++) {
    cr_assert_eq(t.shape[i], shape[i], "%s", name);
    count *= (uint64_t)shape[i];
  }
  cr_assert_eq(t.bytes, count * viv__dtype_size(dtype), "%s", name);
  if (floats) cr_assert_eq(memcmp(t.data, floats, t.bytes), 0, "%s", name);
}

/* Bytes being put together. */
typedef viv__buf bytes;

static void put(bytes *b, const void *data, size_t n) {
  viv__buf_add(b, data, n);
}
#define PUT(b, literal) put((b), (literal), sizeof(literal) - 1)

static void put_number(bytes *b, uint64_t value, int n) {
  for (int i = 0; i < n; i++) put(b, &(uint8_t){i < 8 ? (uint8_t)(value >> 8 * i) : 0}, 1);
}

/* A stored zip archive of up to eight entries; method is written for all of them. */
typedef struct entry {
  const char *name;
  const void *data;
  size_t len;
} entry;

static bytes zip_of(const entry *entries, int n, int method) {
  bytes b = {0}, directory = {0};
  for (int i = 0; i < n; i++) {
    size_t at = b.len, name = strlen(entries[i].name);
    PUT(&b, "PK\3\4");
    put_number(&b, 20, 2), put_number(&b, 0, 2), put_number(&b, (uint64_t)method, 2);
    put_number(&b, 0, 8), put_number(&b, entries[i].len, 4), put_number(&b, entries[i].len, 4);
    put_number(&b, name, 2), put_number(&b, 0, 2);
    put(&b, entries[i].name, name);
    put(&b, entries[i].data, entries[i].len);
    PUT(&directory, "PK\1\2");
    put_number(&directory, 20, 2), put_number(&directory, 20, 2), put_number(&directory, 0, 2);
    put_number(&directory, (uint64_t)method, 2), put_number(&directory, 0, 8);
    put_number(&directory, entries[i].len, 4), put_number(&directory, entries[i].len, 4);
    put_number(&directory, name, 2), put_number(&directory, 0, 12), put_number(&directory, at, 4);
    put(&directory, entries[i].name, name);
  }
  size_t start = b.len;
  put(&b, directory.ptr, directory.len);
  PUT(&b, "PK\5\6");
  put_number(&b, 0, 4), put_number(&b, (uint64_t)n, 2), put_number(&b, (uint64_t)n, 2);
  put_number(&b, directory.len, 4), put_number(&b, start, 4), put_number(&b, 0, 2);
  viv__buf_free(&directory);
  return b;
}

/* Parses a copy of exactly the right size, so that a sanitizer sees any read beyond. */
static int32_t parse(const void *data, size_t len, viv_error *error, float *first) {
  uint8_t *exact = malloc(len ? len : 1);
  if (len) memcpy(exact, data, len);
  viv__pickle *p = NULL;
  int32_t status = viv__pickle_parse(exact, len, "x.pt", &p, error);
  if (status == VIV_OK) {
    unsigned sum = 0;
    for (int64_t i = 0; i < viv__pickle_count(p); i++) {
      viv_tensor t;
      viv__pickle_at(p, i, NULL, &t);
      for (uint64_t k = 0; k < t.bytes; k++) sum += ((uint8_t *)t.data)[k];
      if (first && !i && t.bytes >= 4) memcpy(first, t.data, 4);
    }
    cr_assert_lt(sum, 1u << 30);
    viv__pickle_close(p);
  } else {
    cr_assert_null(p);
    cr_assert_neq(error->message[0], 0);
  }
  free(exact);
  return status;
}

static const float storage[4] = {1, 2, 3, 4};

/* What parsing an archive with this data.pkl and a storage "0" of four floats answers. */
static int32_t parse_pickle(const void *pickle, size_t len, viv_error *error) {
  const entry entries[] = {{"a/data.pkl", pickle, len}, {"a/data/0", storage, sizeof storage}};
  bytes b = zip_of(entries, 2, 0);
  int32_t status = parse(b.ptr, b.len, error, NULL);
  viv__buf_free(&b);
  return status;
}

static void refuse_pickle(const void *pickle, size_t len, const char *words) {
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(parse_pickle(pickle, len, &error), VIV_BAD_INPUT, "lacks '%s'", words);
  cr_assert(strstr(error.message, words) != NULL, "'%s: %s' lacks '%s'", error.where, error.message,
            words);
}
#define REFUSE(literal, words) refuse_pickle((literal), sizeof(literal) - 1, (words))

static void refuse_file(bytes b, int32_t code, const char *words) {
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(parse(b.ptr, b.len, &error, NULL), code, "lacks '%s': %s", words, error.message);
  cr_assert(strstr(error.message, words) || strstr(error.where, words), "'%s: %s' lacks '%s'",
            error.where, error.message, words);
  viv__buf_free(&b);
}

/* {"w": tensor}, with the parts that tests vary. */
#define STORAGE(type, numel) "(X\7\0\0\0storage" type "X\1\0\0\0000X\3\0\0\0cpu" numel "tQ"
#define FLOATS STORAGE("ctorch\nFloatStorage\n", "K\4")
#define TENSOR(storage, offset, size, stride)                                                      \
  "ctorch._utils\n_rebuild_tensor_v2\n(" storage offset size stride "\x89"                         \
  "ccollections\nOrderedDict\n)RtR"
#define DICT(tensor) "\x80\2}X\1\0\0\0w" tensor "s."
static const char small[] = DICT(TENSOR(FLOATS, "K\0", "K\2K\2\x86", "K\2K\1\x86"));

/* ---- what torch.save wrote ---- */

static void check_sample(const char *path) {
  viv__pickle *p = open_ok(path);
  cr_assert_eq(viv__pickle_count(p), 11);
  check(p, "a.weight", VIV_F32, 2, (int64_t[]){2, 3}, (float[]){0, 1, 2, 3, 4, 5});
  check(p, "a.tied", VIV_F32, 2, (int64_t[]){2, 3}, (float[]){0, 1, 2, 3, 4, 5});
  cr_assert_eq(find(p, "a.tied").data, find(p, "a.weight").data, "tied weights share their bytes");
  check(p, "a.transposed", VIV_F32, 2, (int64_t[]){3, 2}, (float[]){0, 3, 1, 4, 2, 5});
  check(p, "a.row", VIV_F32, 1, (int64_t[]){3}, (float[]){3, 4, 5});
  check(p, "column", VIV_F32, 1, (int64_t[]){2}, (float[]){1, 4});
  check(p, "expanded", VIV_F32, 2, (int64_t[]){2, 3}, (float[]){3, 3, 3, 3, 3, 3});
  check(p, "empty", VIV_F32, 2, (int64_t[]){0, 4}, NULL);
  check(p, "half", VIV_F16, 1, (int64_t[]){3}, NULL);
  cr_assert_eq(memcmp(find(p, "half").data, (uint16_t[]){0x3C00, 0xC000, 0x3800}, 6), 0);
  check(p, "bf16", VIV_BF16, 1, (int64_t[]){3}, NULL);
  cr_assert_eq(memcmp(find(p, "bf16").data, (uint16_t[]){0x3F80, 0xC000, 0x3F00}, 6), 0);
  check(p, "long", VIV_I64, 0, NULL, NULL);
  cr_assert_eq(memcmp(find(p, "long").data, (int64_t[]){7}, 8), 0);
  check(p, "flag", VIV_BOOL, 1, (int64_t[]){3}, NULL);
  cr_assert_eq(memcmp(find(p, "flag").data, "\1\0\1", 3), 0);
  viv_tensor t;
  cr_assert_eq(viv__pickle_at(p, 11, NULL, &t), VIV_NEVER);
  cr_assert_eq(viv__pickle_at(p, -1, NULL, &t), VIV_NEVER);
  viv__pickle_close(p);
}

Test(pickle, zip_form) {
  check_sample(DATA "zip.pt");
}

Test(pickle, legacy_form) {
  check_sample(DATA "legacy.pt");
}

Test(pickle, a_state_dict_beside_other_things) {
  viv__pickle *p = open_ok(DATA "nested.pt");
  cr_assert_eq(viv__pickle_count(p), 7);
  check(p, "0.weight", VIV_F32, 2, (int64_t[]){3, 2}, (float[]){0, 1, 2, 3, 4, 5});
  check(p, "0.bias", VIV_F32, 1, (int64_t[]){3}, (float[]){10, 11, 12});
  check(p, "1.num_batches_tracked", VIV_I64, 0, NULL, NULL);
  const viv_json *values = viv__pickle_values(p);
  cr_assert_eq(viv__json_num(values, "epoch", 0), 3);
  cr_assert_eq(viv__json_num(values, "lr", 0), 0.5);
  cr_assert_null(viv__json_get(values, "state_dict"));
  viv__pickle_close(p);
}

Test(pickle, parameters_and_protocol_4) {
  static const char *const files[] = {DATA "parameter.pt", DATA "parameter_legacy.pt",
                                      DATA "protocol4.pt"};
  for (int i = 0; i < 3; i++) {
    viv__pickle *p = open_ok(files[i]);
    cr_assert_eq(viv__pickle_count(p), 1);
    check(p, "w", VIV_F32, 1, (int64_t[]){2}, (float[]){1, 2});
    viv__pickle_close(p);
  }
}

/* Research code saves its arguments beside the weights. */
Test(pickle, a_namespace_beside_the_weights_is_read_over) {
  viv__pickle *p = open_ok(DATA "namespace.pt");
  cr_assert_eq(viv__pickle_count(p), 1);
  check(p, "w", VIV_F32, 1, (int64_t[]){1}, (float[]){1});
  viv__pickle_close(p);
}

Test(pickle, objects_other_than_tensors_are_refused_by_name) {
  static const struct {
    const char *file, *words;
  } all[] = {{DATA "module.pt", "torch.nn.modules.container.Sequential: refused"},
             {DATA "bare.pt", "one tensor without a name"},
             {DATA "no_tensors.pt", "its keys: a, b"}};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
    viv_error error = VIV_ERROR_INIT;
    viv__pickle *p = NULL;
    cr_assert_eq(viv__pickle_open(all[i].file, &p, &error), VIV_BAD_INPUT);
    cr_assert(strstr(error.message, all[i].words) != NULL, "%s", error.message);
  }
}

Test(pickle, through_a_checkpoint) {
  viv_error error = VIV_ERROR_INIT;
  viv_checkpoint *c = NULL;
  cr_assert_eq(viv__checkpoint_open(DATA "zip.pt", &c, &error), VIV_OK, "%s", error.message);
  viv_tensor t;
  cr_assert_eq(viv__tensor_find(c, viv__str("a.transposed"), &t), VIV_OK);
  cr_assert_eq(t.shape[0], 3);
  char id[65];
  viv__checkpoint_id(c, id);
  cr_assert_eq(strlen(id), 64);
  viv__checkpoint_close(c);
}

Test(pickle, sharded_folder) {
  char folder[] = "/tmp/viv-pickle-XXXXXX", command[512];
  cr_assert_not_null(mkdtemp(folder));
  snprintf(command, sizeof command,
           "cp " DATA "zip.pt %s/one.bin && cp " DATA "nested.pt %s/two.bin && "
           "echo '{\"weight_map\":{\"half\":\"one.bin\",\"0.bias\":\"two.bin\"}}' "
           "> %s/pytorch_model.bin.index.json",
           folder, folder, folder);
  cr_assert_eq(system(command), 0);
  viv_checkpoint *c = NULL;
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(viv__checkpoint_open(folder, &c, &error), VIV_OK, "%s: %s", error.where,
               error.message);
  cr_assert_eq(viv__tensor_count(c), 18);
  viv__checkpoint_close(c);
  snprintf(command, sizeof command, "cd %s && rm *.json one.bin && mv two.bin weights.pth", folder);
  cr_assert_eq(system(command), 0);
  cr_assert_eq(viv__checkpoint_open(folder, &c, &error), VIV_OK);
  cr_assert_eq(viv__tensor_count(c), 7);
  viv__checkpoint_close(c);
  snprintf(command, sizeof command, "rm -rf %s", folder);
  cr_assert_eq(system(command), 0);
}

/* ---- files made here ---- */

Test(pickle, the_small_file_that_tests_vary_is_good) {
  viv_error error = VIV_ERROR_INIT;
  cr_assert_eq(parse_pickle(small, sizeof small - 1, &error), VIV_OK, "%s", error.message);
  static const char untyped[] = DICT("ctorch._utils\n_rebuild_tensor_v3\n(" STORAGE(
      "ctorch.storage\nUntypedStorage\n", "K\20") "K\1K\3\x85K\1\x85\x89)ctorch\nfloat32\ntR");
  cr_assert_eq(parse_pickle(untyped, sizeof untyped - 1, &error), VIV_OK, "%s", error.message);
  static const char sized[] = DICT(TENSOR(FLOATS, "K\0", "ctorch\nSize\nK\4\x85\x85R", "K\1\x85"));
  cr_assert_eq(parse_pickle(sized, sizeof sized - 1, &error), VIV_OK, "%s", error.message);
}

Test(pickle, parts_of_a_model_become_prefixes) {
  static const char text[] = "\x80\2}(X\3\0\0\0enc}X\1\0\0\0w" TENSOR(
      FLOATS, "K\0", "K\4\x85",
      "K\1\x85") "s"
                 "X\3\0\0\0dec}X\1\0\0\0w" TENSOR(FLOATS, "K\1", "K\3\x85", "K\1\x85") "su.";
  const entry entries[] = {{"a/data.pkl", text, sizeof text - 1},
                           {"a/data/0", storage, sizeof storage}};
  bytes b = zip_of(entries, 2, 0);
  viv__pickle *p = NULL;
  cr_assert_eq(viv__pickle_parse(b.ptr, b.len, "x", &p, NULL), VIV_OK);
  check(p, "enc.w", VIV_F32, 1, (int64_t[]){4}, storage);
  check(p, "dec.w", VIV_F32, 1, (int64_t[]){3}, storage + 1);
  viv__pickle_close(p);
  viv__buf_free(&b);
}

Test(pickle, programs_are_refused) {
  REFUSE("\x80\2cos\nsystem\nX\2\0\0\0id\x85R.", "the file asks for os.system: refused");
  REFUSE("\x80\4\x8c\2os\x8c\6system\x93\x8c\2id\x85R.", "os.system: refused");
  REFUSE("\x80\2c__builtin__\neval\n.", "__builtin__.eval: refused");
  REFUSE("\x80\2ctorch\nload\n.", "torch.load: refused");
  REFUSE("\x80\2ctorch.nn\nFloatStorage\n.", "torch.nn.FloatStorage: refused");
  REFUSE("\x80\2cos\n\x1b[31m\n.", "os.?[31m: refused");
  REFUSE("\x80\2ios\nsystem\n.", "opcode 0x69");          /* INST */
  REFUSE("\x80\2(cos\nsystem\no.", "os.system: refused"); /* OBJ */
  REFUSE("\x80\2)(o.", "opcode 0x6f");
  REFUSE("\x80\2\x82\1.", "opcode 0x82");  /* EXT1 */
  REFUSE("\x80\2))}\x92.", "opcode 0x92"); /* NEWOBJ_EX */
  REFUSE("\x80\2Pid\n.", "opcode 0x50");   /* PERSID */
  REFUSE("\x80\2]}b.", "sets the state");
  REFUSE("\x80\2)}b.", "sets the state");
  REFUSE("\x80\2K\1)R.", "no function");
  REFUSE("\x80\2ctorch\nFloatStorage\n)R.", "torch.FloatStorage, which is no function");
  REFUSE("\x80\2ccollections\nOrderedDict\nK\1R.", "without arguments");
  REFUSE("\x80\2cos", "without an end");
}

Test(pickle, bombs_are_refused) {
  static char many[(1 << 21) + 16];
  memset(many, '(', sizeof many);
  memcpy(many, "\x80\2", 2);
  refuse_pickle(many, sizeof many, "the stack is deeper than 1048576");
  memset(many, ']', sizeof many);
  memcpy(many, "\x80\2", 2);
  refuse_pickle(many, sizeof many, "the stack is deeper than 1048576");
  memset(many, 0x85, 4096);
  memcpy(many, "\x80\2)", 3);
  refuse_pickle(many, 4096, "nest deeper than 256");
  memset(many, ']', 2048), memset(many + 2048, 'a', 2048);
  memcpy(many, "\x80\2", 2);
  refuse_pickle(many, 4096, "nest deeper than 256");
  static char pairs[(1 << 23) + (1 << 12)];
  for (size_t i = 0; i < sizeof pairs; i += 2) memcpy(pairs + i, ")0", 2);
  memcpy(pairs, "\x80\2", 2);
  refuse_pickle(pairs, sizeof pairs, "more than 4194304 objects");
  REFUSE("\x80\2]r\xff\xff\xff\xff.", "memo index 4294967295");
  REFUSE("\x80\2j\xff\xff\xff\xff.", "memo 4294967295, which is not set");
  REFUSE("\x80\2h\0.", "memo 0, which is not set");
  REFUSE("\x80\2q\0.", "not there");
  REFUSE("\x80\2(q\0.", "not there");
  REFUSE("\x80\2\x8b\xff\xff\xff\x7f.", "an integer of 2147483647 bytes");
  REFUSE("\x80\2\x8a\xff.", "the pickle ends where 255 more bytes");
  REFUSE("\x80\2X\xff\xff\xff\xff.", "4294967295 more bytes");
  REFUSE("\x80\4\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "18446744073709551615 more bytes");
  REFUSE("\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "a frame of");
  REFUSE("\x80\7.", "pickle protocol 7");
  REFUSE("\x80\2.", "empty stack");
  REFUSE("\x80\2(.", "a mark for a value");
  REFUSE("\x80\2t.", "a mark that is not there");
  REFUSE("\x80\2a.", "empty stack");
  REFUSE("\x80\2Na.", "no list");
  REFUSE("\x80\2NNa.", "no list");
  REFUSE("\x80\2}(Nu.", "no value");
  REFUSE("\x80\2}", "without its STOP");
}

Test(pickle, a_view_must_lie_inside_its_storage) {
  REFUSE(DICT(TENSOR(FLOATS, "K\1", "K\2K\2\x86", "K\2K\1\x86")), "reaches element 4");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\5\x85", "K\1\x85")), "reaches element 4");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\2\x85", "K\4\x85")), "reaches element 4");
  REFUSE(DICT(TENSOR(FLOATS, "J\xff\xff\xff\xff", "K\1\x85", "K\1\x85")), "offset");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "J\xff\xff\xff\xff\x85", "K\1\x85")), "size holds a negative");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\1\x85", "J\xff\xff\xff\xff\x85")),
         "stride holds a negative");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\1\x85", ")")), "1 dimensions and 0 strides");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "N", "N")), "size is not a tuple");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "X\1\0\0\0a\x85", "K\1\x85")), "something else than numbers");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "(K\1K\1K\1K\1K\1K\1K\1K\1K\1t", "K\1\x85")), "9 dimensions");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "\x8a\10\0\0\0\0\0\0\0\x40\x8a\1\4\x86", "K\0K\0\x86")),
         "overflow");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\3\x85", "\x8a\10\0\0\0\0\0\0\0\x7f\x85")),
         "reaches element");
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "K\4K\4\x86",
                     "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f"
                     "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f\x86")),
         "overflow");
  /* A billion times one element: no file may ask for that much memory. */
  REFUSE(DICT(TENSOR(FLOATS, "K\0", "J\0\0\0\x40\x85", "K\0\x85")), "twice the file's size");
  REFUSE(DICT(TENSOR("N", "K\0", "K\1\x85", "K\1\x85")), "without a storage");
  REFUSE(DICT("ctorch._utils\n_rebuild_tensor_v2\n)R"), "without a storage");
  REFUSE(DICT("ctorch._utils\n_rebuild_parameter\n)R"), "without its tensor");
}

Test(pickle, storages_that_are_wrong) {
  REFUSE(DICT(TENSOR(STORAGE("ctorch\nFloatStorage\n", "K\5"), "K\0", "K\1\x85", "K\1\x85")),
         "the storage holds 16 bytes, data.pkl speaks of 20");
  REFUSE(DICT(TENSOR(STORAGE("ctorch\nFloatStorage\n", "J\xff\xff\xff\xff"), "K\0", ")", ")")),
         "not a whole number");
  REFUSE(DICT(TENSOR(STORAGE("ctorch\nFloatStorage\n", "\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f"),
                     "K\0", ")", ")")),
         "overflows");
  REFUSE(DICT(TENSOR(STORAGE("ctorch.storage\nTypedStorage\n", "K\4"), "K\0", ")", ")")),
         "without an element type");
  REFUSE(DICT(TENSOR(STORAGE("N", "K\4"), "K\0", ")", ")")), "without an element type");
  REFUSE("\x80\2NQ.", "persistent id");
  REFUSE("\x80\2)Q.", "persistent id");
  static const entry lone = {"a/data.pkl", small, sizeof small - 1};
  refuse_file(zip_of(&lone, 1, 0), VIV_BAD_INPUT, "its storage '0' is not in the file");
}

Test(pickle, names_that_are_wrong) {
  REFUSE("\x80\2}X\0\0\0\0" TENSOR(FLOATS, "K\0", ")", ")") "s.", "is empty");
  REFUSE("\x80\2}X\2\0\0\0a\0" TENSOR(FLOATS, "K\0", ")", ")") "s.", "NUL");
  REFUSE("\x80\2}X\2\0\0\0a\xff" TENSOR(FLOATS, "K\0", ")", ")") "s.", "UTF-8");
  REFUSE("\x80\2}(X\1\0\0\0a" TENSOR(FLOATS, "K\0", ")", ")") "X\1\0\0\0a" TENSOR(FLOATS, "K\0",
                                                                                  ")", ")") "u.",
         "two tensors are named 'a'");
}

Test(pickle, many_references_to_one_dict_cost_no_more_than_their_bytes, .timeout = 20) {
  enum { N = 200000 };
  bytes b = {0};
  /* {"p": d, "\x01...": d, ...}, where d has one tensor and many other values. */
  PUT(&b, "\x80\2}(X\1\0\0\0p}q\0(X\1\0\0\0w" TENSOR(FLOATS, "K\0", ")", ")"));
  for (int i = 0; i < N; i++) PUT(&b, "NN");
  PUT(&b, "u");
  for (int i = 0; i < N; i++) {
    PUT(&b, "X\4\0\0\0");
    put(&b, &i, 4);
    PUT(&b, "h\0");
  }
  PUT(&b, "u.");
  refuse_pickle(b.ptr, b.len, "200001 tensors among");
  viv__buf_free(&b);
}

/* ---- zip archives ---- */

Test(pickle, archives_that_are_wrong) {
  static const entry good[] = {{"a/data.pkl", small, sizeof small - 1},
                               {"a/data/0", storage, sizeof storage}};
  refuse_file(zip_of(good, 2, 8), VIV_BAD_INPUT, "is compressed");
  static const entry none[] = {{"a/other", "x", 1}};
  refuse_file(zip_of(none, 1, 0), VIV_BAD_INPUT, "no data.pkl");
  static const entry two[] = {{"a/data.pkl", "x", 1}, {"b/data.pkl", "x", 1}};
  refuse_file(zip_of(two, 2, 0), VIV_BAD_INPUT, "two data.pkl");
  static const entry same[] = {{"a/data.pkl", "x", 1}, {"a/data.pkl", "x", 1}};
  refuse_file(zip_of(same, 2, 0), VIV_BAD_INPUT, "two zip entries");
  static const entry big[] = {{"a/data.pkl", "}.", 2}, {"a/byteorder", "big", 3}};
  refuse_file(zip_of(big, 2, 0), VIV_NEVER, "byte order");
  static const entry script[] = {{"a/data.pkl", "}.", 2}, {"a/constants.pkl", "}.", 2}};
  refuse_file(zip_of(script, 2, 0), VIV_NEVER, "TorchScript");
  bytes b = zip_of(good, 2, 0);
  b.len--;
  refuse_file(b, VIV_BAD_INPUT, "no directory at its end");
  b = zip_of(good, 2, 0);
  memcpy(b.ptr + b.len - 6, "\xfe\xff\xff\xff", 4); /* where the directory begins */
  refuse_file(b, VIV_BAD_INPUT, "outside the file");
  b = zip_of(good, 2, 0);
  memcpy(b.ptr + b.len - 6, "\xff\xff\xff\xff", 4);
  refuse_file(b, VIV_BAD_INPUT, "not announced");
  b = zip_of(good, 2, 0);
  memcpy(b.ptr + b.len - 12, "\xfe\xff", 2); /* the count of entries */
  refuse_file(b, VIV_BAD_INPUT, "can't fit");
  b = zip_of(good, 2, 0);
  b.ptr[30] = 'b'; /* the first local header's name */
  refuse_file(b, VIV_BAD_INPUT, "does not agree");
}

Test(pickle, the_64_bit_form_of_zip) {
  static const char name[] = "a/data.pkl", key[] = "a/data/0";
  bytes b = {0}, d = {0};
  const struct {
    const char *name;
    const void *data;
    size_t len;
  } all[] = {{name, small, sizeof small - 1}, {key, storage, sizeof storage}};
  for (int i = 0; i < 2; i++) {
    size_t at = b.len, n = strlen(all[i].name);
    PUT(&b, "PK\3\4");
    put_number(&b, 45, 2), put_number(&b, 0, 20), put_number(&b, n, 2), put_number(&b, 0, 2);
    put(&b, all[i].name, n), put(&b, all[i].data, all[i].len);
    PUT(&d, "PK\1\2");
    put_number(&d, 45, 2), put_number(&d, 45, 2), put_number(&d, 0, 12);
    put_number(&d, 0xFFFFFFFF, 4), put_number(&d, 0xFFFFFFFF, 4), put_number(&d, n, 2);
    put_number(&d, 28 + 5, 2), put_number(&d, 0, 10), put_number(&d, 0xFFFFFFFF, 4);
    put(&d, all[i].name, n);
    PUT(&d, "\7\0\1\0x"); /* a field that is passed over */
    put_number(&d, 1, 2), put_number(&d, 24, 2), put_number(&d, all[i].len, 8);
    put_number(&d, all[i].len, 8), put_number(&d, at, 8);
  }
  size_t central = b.len;
  put(&b, d.ptr, d.len);
  size_t end = b.len;
  PUT(&b, "PK\6\6");
  put_number(&b, 44, 8), put_number(&b, 45, 2), put_number(&b, 45, 2), put_number(&b, 0, 8);
  put_number(&b, 2, 8), put_number(&b, 2, 8), put_number(&b, d.len, 8), put_number(&b, central, 8);
  PUT(&b, "PK\6\7");
  put_number(&b, 0, 4), put_number(&b, end, 8), put_number(&b, 1, 4);
  PUT(&b, "PK\5\6");
  put_number(&b, 0, 4), put_number(&b, UINT64_MAX, 8), put_number(&b, UINT64_MAX, 4);
  put_number(&b, 0, 2);
  viv_error error = VIV_ERROR_INIT;
  float first = 0;
  cr_assert_eq(parse(b.ptr, b.len, &error, &first), VIV_OK, "%s: %s", error.where, error.message);
  cr_assert_float_eq(first, 1, 0);
  for (size_t at = central; at < b.len; at++) { /* the directory's bytes, damaged one by one */
    char old = b.ptr[at];
    static const char values[] = {0, 1, 0x7F, (char)0x80, (char)0xFF};
    for (size_t k = 0; k < sizeof values; k++) {
      b.ptr[at] = values[k];
      parse(b.ptr, b.len, &error, NULL);
    }
    b.ptr[at] = old;
  }
  viv__buf_free(&b);
  viv__buf_free(&d);
}

/* ---- the legacy form ---- */

#define MAGIC "\x80\2\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19."
#define HEAD MAGIC "\x80\2M\xe9\3.\x80\2}X\15\0\0\0little_endian\x88s."

static bytes legacy(const char *keys, size_t keys_len, uint64_t numel) {
  bytes b = {0};
  PUT(&b, HEAD);
  put(&b, small, sizeof small - 1);
  put(&b, keys, keys_len);
  put_number(&b, numel, 8);
  put(&b, storage, sizeof storage);
  return b;
}
#define LEGACY(keys, numel) legacy((keys), sizeof(keys) - 1, (numel))

Test(pickle, legacy_files_that_are_wrong) {
  static const char good[] = "\x80\2]X\1\0\0\0000a.";
  bytes b = LEGACY(good, 4);
  viv_error error = VIV_ERROR_INIT;
  float first = 0;
  cr_assert_eq(parse(b.ptr, b.len, &error, &first), VIV_OK, "%s: %s", error.where, error.message);
  cr_assert_float_eq(first, 1, 0);
  b.len--;
  refuse_file(b, VIV_BAD_INPUT, "the file is cut");
  refuse_file(LEGACY(good, 5), VIV_BAD_INPUT, "has 5 elements");
  refuse_file(LEGACY("\x80\2].", 4), VIV_BAD_INPUT, "storage '0' is not in the file");
  refuse_file(LEGACY("\x80\2N.", 4), VIV_BAD_INPUT, "list of storages is missing");
  refuse_file(LEGACY("\x80\2]K\0a.", 4), VIV_BAD_INPUT, "key is not text");
  refuse_file(LEGACY("\x80\2]X\1\0\0\0001a.", 4), VIV_BAD_INPUT, "no tensor says");
  refuse_file(LEGACY("\x80\2](X\1\0\0\0000X\1\0\0\0000e.", 4), VIV_BAD_INPUT, "listed twice");
  b = (bytes){0};
  PUT(&b, "\x80\2}.");
  refuse_file(b, VIV_BAD_INPUT, "magic number is missing");
  b = (bytes){0};
  PUT(&b, MAGIC "\x80\2K\1.");
  refuse_file(b, VIV_NEVER, "protocol is not 1001");
  b = (bytes){0};
  PUT(&b, MAGIC "\x80\2M\xe9\3.\x80\2}X\15\0\0\0little_endian\x89s.");
  refuse_file(b, VIV_NEVER, "byte order");
  b = (bytes){0};
  PUT(&b, "hello");
  refuse_file(b, VIV_BAD_INPUT, "neither a zip archive nor a pickle");
  b = (bytes){0};
  refuse_file(b, VIV_BAD_INPUT, "neither a zip archive nor a pickle");
}

/* ---- damage ---- */

static void damage(const char *path) {
  char *data = NULL;
  size_t len = 0;
  cr_assert_eq(viv__read_file(path, 1 << 20, &data, &len, NULL), VIV_OK);
  viv_error error = VIV_ERROR_INIT;
  for (size_t n = 0; n < len; n++)
    cr_assert_lt(parse(data, n, &error, NULL), 0, "%s cut at %zu", path, n);
  static const unsigned char values[] = {0, 1, 0x28, 0x2E, 0x52, 0x7F, 0x80, 0x85, 0xFF};
  for (size_t at = 0; at < len; at++) {
    char old = data[at];
    for (size_t k = 0; k < sizeof values; k++) {
      data[at] = (char)values[k];
      parse(data, len, &error, NULL);
    }
    data[at] = old;
  }
  viv__free(data);
}

Test(pickle, damaged_zip_files_are_read_or_refused, .timeout = 120) {
  damage(DATA "zip.pt");
}

Test(pickle, damaged_legacy_files_are_read_or_refused, .timeout = 120) {
  damage(DATA "legacy.pt");
}
