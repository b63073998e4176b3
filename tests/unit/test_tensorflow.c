/* TensorFlow checkpoints (NAME.index with NAME.data-*): a table is written here as LevelDB lays it out. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checkpoint/checkpoint.h"

static char folder[64];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/viv-tf-XXXXXX");
  cr_assert_not_null(mkdtemp(folder));
}

static char *in_folder(const char *file) {
  static char path[4][128], at;
  char *p = path[at++ % 4];
  snprintf(p, sizeof path[0], "%s/%s", folder, file);
  return p;
}

static void drop_folder(void) {
  static const char *const files[] = {"a.index",
                                      "b.index",
                                      "a.data-00000-of-00001",
                                      "a.data-00000-of-00002",
                                      "a.data-00001-of-00002",
                                      "config.json"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) unlink(in_folder(files[i]));
  rmdir(folder);
}

static void put(const char *file, const void *data, size_t len) {
  FILE *f = fopen(in_folder(file), "wb");
  cr_assert_not_null(f);
  cr_assert_eq(fwrite(data, 1, len, f), len);
  fclose(f);
}

/* ---- writing ---- */

static void varint(viv__buf *b, uint64_t x) {
  for (; x > 127; x >>= 7) viv__buf_add(b, &(uint8_t){(uint8_t)(x | 128)}, 1);
  viv__buf_add(b, &(uint8_t){(uint8_t)x}, 1);
}

static void number(viv__buf *b, int field, uint64_t x) {
  varint(b, (uint64_t)field << 3);
  varint(b, x);
}

static void part(viv__buf *b, int field, const viv__buf *x) {
  varint(b, (uint64_t)field << 3 | 2);
  varint(b, x->len);
  viv__buf_add(b, x->ptr, x->len);
}

struct variable {
  const char *name;
  int dtype;
  int ndim, shape[2];
  uint64_t shard, offset, size;
  bool sliced;
};

/* What an entry says; names follow one another in order, as in a table. */
static void entry(viv__buf *block, const char *before, const char *name, const viv__buf *value) {
  size_t shared = 0;
  while (before && before[shared] && before[shared] == name[shared]) shared++;
  varint(block, shared);
  varint(block, strlen(name) - shared);
  varint(block, value->len);
  viv__buf_str(block, name + shared);
  viv__buf_add(block, value->ptr, value->len);
}

static void close_block(viv__buf *b, int compression) {
  static const uint8_t one[8] = {0, 0, 0, 0, 1}, sum[4];
  viv__buf_add(b, one, 8); /* one restart, at 0 */
  viv__buf_add(b, &(uint8_t){(uint8_t)compression}, 1);
  viv__buf_add(b, sum, 4);
}

/* An index of these variables; trouble: 1 no header, 2 compressed, 3 a table that leads outside. */
static viv__buf index_of(const struct variable *v, int n, int shards, int trouble) {
  viv__buf data = {0}, file = {0}, value = {0}, root = {0}, where = {0};
  number(&value, 1, (uint64_t)shards);
  if (trouble != 1) entry(&data, NULL, "", &value);
  for (int i = 0; i < n; i++) {
    viv__buf shape = {0}, empty = {0};
    value.len = 0;
    for (int k = 0; k < v[i].ndim; k++) {
      viv__buf dim = {0};
      number(&dim, 1, (uint64_t)v[i].shape[k]);
      part(&shape, 2, &dim);
      viv__buf_free(&dim);
    }
    number(&value, 1, (uint64_t)v[i].dtype);
    part(&value, 2, &shape);
    number(&value, 3, v[i].shard);
    number(&value, 4, v[i].offset);
    number(&value, 5, v[i].size);
    if (v[i].sliced) part(&value, 7, &empty);
    entry(&data, i ? v[i - 1].name : "", v[i].name, &value);
    viv__buf_free(&shape);
  }
  uint64_t size = data.len + 8;
  close_block(&data, trouble == 2);
  varint(&where, trouble == 3 ? 1 << 20 : 0);
  varint(&where, size);
  entry(&root, NULL, "z", &where);
  uint64_t at = data.len, root_size = root.len + 8;
  close_block(&root, 0);
  viv__buf_add(&file, data.ptr, data.len);
  viv__buf_add(&file, root.ptr, root.len);
  viv__buf footer = {0};
  varint(&footer, 0);
  varint(&footer, 8);
  varint(&footer, at);
  varint(&footer, root_size);
  while (footer.len < 40) viv__buf_add(&footer, "", 1);
  viv__buf_add(&footer, "\x57\xfb\x80\x8b\x24\x75\x47\xdb", 8);
  viv__buf_add(&file, footer.ptr, footer.len);
  viv__buf_free(&footer);
  viv__buf_free(&data);
  viv__buf_free(&root);
  viv__buf_free(&value);
  viv__buf_free(&where);
  return file;
}

static void put_index(const char *file, const struct variable *v, int n, int shards, int trouble) {
  viv__buf b = index_of(v, n, shards, trouble);
  put(file, b.ptr, b.len);
  viv__buf_free(&b);
}

/* ---- tests ---- */

static const float weights[6] = {1, 2, 3, 4, 5, 6};
static const struct variable two[] = {{"net/conv1/weights", 1, 2, {2, 2}, 0, 0, 16, false},
                                      {"net/conv2/weights", 1, 1, {2}, 0, 16, 8, false}};

static void expect_refused(const char *path, int32_t code, const char *words) {
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__checkpoint_open(path, &c, &e), code, "%s: %s", e.where, e.message);
  cr_assert(strstr(e.message, words) || strstr(e.where, words), "\"%s\": %s: %s", words, e.where,
            e.message);
}

TestSuite(tensorflow, .init = make_folder, .fini = drop_folder);

Test(tensorflow, a_folder_and_its_index_are_the_same_model) {
  put_index("a.index", two, 2, 1, 0);
  put("a.data-00000-of-00001", weights, 24);
  put("config.json", "{\"model_type\":\"net\"}", 20);
  char id[2][65];
  for (int i = 0; i < 2; i++) {
    viv_checkpoint *c = NULL;
    viv_tensor t;
    viv_error e = VIV_ERROR_INIT;
    cr_assert_eq(viv__checkpoint_open(in_folder(i ? "a.index" : ""), &c, &e), VIV_OK, "%s: %s",
                 e.where, e.message);
    cr_assert_eq(viv__tensor_count(c), 2);
    cr_assert_eq(viv__tensor_find(c, viv__str("net/conv2/weights"), &t), VIV_OK);
    cr_assert_eq(t.dtype, VIV_F32);
    cr_assert_eq(t.ndim, 1);
    cr_assert_eq(memcmp(t.data, weights + 4, 8), 0);
    cr_assert_not_null(viv__json_get(viv__checkpoint_config(c), "model_type"));
    viv__checkpoint_id(c, id[i]);
    viv__checkpoint_close(c);
  }
  cr_assert_str_eq(id[0], id[1]);
}

/* Variables lie in several files; texts are no tensors. */
Test(tensorflow, several_files) {
  const struct variable v[] = {{"_CHECKPOINTABLE_OBJECT_GRAPH", 7, 0, {0}, 0, 0, 3, false},
                               {"a", 1, 1, {2}, 1, 0, 8, false},
                               {"b", 3, 0, {0}, 0, 4, 4, false}};
  put_index("a.index", v, 3, 2, 0);
  put("a.data-00000-of-00002", weights, 8);
  put("a.data-00001-of-00002", weights + 2, 8);
  viv_checkpoint *c = NULL;
  viv_tensor t;
  cr_assert_eq(viv__checkpoint_open(folder, &c, NULL), VIV_OK);
  cr_assert_eq(viv__tensor_count(c), 2);
  cr_assert_eq(viv__tensor_find(c, viv__str("a"), &t), VIV_OK);
  cr_assert_eq(memcmp(t.data, weights + 2, 8), 0);
  viv__checkpoint_close(c);
  unlink(in_folder("a.data-00001-of-00002"));
  expect_refused(folder, VIV_NEVER, "a.data-00001-of-00002");
}

Test(tensorflow, two_checkpoints_are_one_too_many) {
  put_index("a.index", two, 2, 1, 0);
  put_index("b.index", two, 2, 1, 0);
  expect_refused(folder, VIV_BAD_INPUT, "2 TensorFlow checkpoints");
}

static void refuse(struct variable v, int shards, int trouble, int32_t code, const char *words) {
  put_index("a.index", &v, 1, shards, trouble);
  expect_refused(folder, code, words);
}

Test(tensorflow, hostile_indexes) {
  struct variable v = two[0];
  put("a.data-00000-of-00001", weights, 24);
  refuse(v, 1, 1, VIV_BAD_INPUT, "before the header");
  refuse(v, 1, 2, VIV_NEVER, "compressed");
  refuse(v, 1, 3, VIV_BAD_INPUT, "does not lie in the file");
  refuse(v, 0, 0, VIV_BAD_INPUT, "0 files of data");
  v.offset = 12;
  refuse(v, 1, 0, VIV_BAD_INPUT, "in a file of 24");
  v.offset = UINT64_MAX - 8;
  refuse(v, 1, 0, VIV_BAD_INPUT, "net/conv1/weights");
  v = two[0];
  v.shape[0] = 3;
  refuse(v, 1, 0, VIV_BAD_INPUT, "no tensor of 24 bytes");
  v = two[0];
  v.shard = 1;
  refuse(v, 1, 0, VIV_BAD_INPUT, "file 1 of 1");
  v = two[0];
  v.dtype = 11; /* quantised */
  refuse(v, 1, 0, VIV_NEVER, "type (11)");
  v = two[0];
  v.sliced = true;
  refuse(v, 1, 0, VIV_NEVER, "slices");
  struct variable same[] = {two[0], two[1]};
  same[1].offset = 8;
  put_index("a.index", same, 2, 1, 0);
  expect_refused(folder, VIV_BAD_INPUT, "conv");
  same[1] = two[0];
  same[1].offset = 0;
  same[1].size = 0;
  same[1].ndim = 1;
  same[1].shape[0] = 0;
  put_index("a.index", same, 2, 1, 0);
  expect_refused(folder, VIV_BAD_INPUT, "twice");
  put("a.index", "text, and a long one, so that there is room for a footer", 56);
  expect_refused(folder, VIV_NEVER, "no index of a TensorFlow checkpoint");
}

/* However an index is cut, it is refused with a text. */
Test(tensorflow, cut_indexes) {
  viv__buf b = index_of(two, 2, 1, 0);
  for (size_t cut = 1; cut < b.len; cut++) {
    viv__tfbundle *t = NULL;
    viv_error e = VIV_ERROR_INIT;
    cr_assert_lt(viv__tfbundle_parse(b.ptr + cut, b.len - cut, weights, 24, "cut", &t, &e), VIV_OK);
    cr_assert(*e.message);
  }
  viv__buf_free(&b);
}
