/* TensorFlow.js models: which files make one, what is read out of them, and what is refused with which
 * words. All files are made here. */
#include "checkpoint/checkpoint.h"
#include "rt.h"

static char folder[64];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/viv-tfjs-XXXXXX");
  cr_assert_not_null(mkdtemp(folder));
}

static void drop_folder(void) {
  char command[96];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert_eq(system(command), 0);
}

static const char *in_folder(const char *name) {
  static char path[160];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void put(const char *name, const void *data, size_t n) {
  FILE *f = fopen(in_folder(name), "wb");
  cr_assert_not_null(f);
  cr_assert_eq(fwrite(data, 1, n, f), n);
  fclose(f);
}

#define MODEL(paths, weights)                                                                      \
  "{\"format\":\"graph-model\",\"generatedBy\":\"https://hub.example/maker/net/small/4\","         \
  "\"weightsManifest\":[{\"paths\":[" paths "],\"weights\":[" weights "]}]}"
#define KERNEL                                                                                     \
  "{\"name\":\"conv/kernel\",\"shape\":[1,1,2,1],\"dtype\":\"float32\","                           \
  "\"quantization\":{\"dtype\":\"float16\"}}"
#define NUMBER "{\"name\":\"n\",\"shape\":[],\"dtype\":\"int32\"}"

static void put_text(const char *name, const char *text) {
  put(name, text, strlen(text));
}

/* Two halves, 1 and -2, and the integer 7. */
static const uint8_t weights[] = {0x00, 0x3C, 0x00, 0xC0, 7, 0, 0, 0};

static void expect_two(const viv_checkpoint *c) {
  viv_tensor t;
  cr_assert_eq(viv__tensor_count(c), 2);
  cr_assert_eq(viv__tensor_find(c, viv__str("conv/kernel"), &t), VIV_OK);
  cr_assert_eq(t.dtype, VIV_F16);
  cr_assert_eq(t.ndim, 4);
  cr_assert_eq(t.shape[2], 2);
  cr_assert_arr_eq(t.data, weights, 4);
  cr_assert_eq(viv__tensor_find(c, viv__str("n"), &t), VIV_OK);
  cr_assert_eq(t.dtype, VIV_I32);
  cr_assert_eq(t.ndim, 0);
  cr_assert_arr_eq(t.data, weights + 4, 4);
}

static viv_checkpoint *open_at(const char *path) {
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__checkpoint_open(path, &c, &e), VIV_OK, "%s: %s", e.where, e.message);
  return c;
}

static void expect_refused(const char *path, int32_t code, const char *words) {
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__checkpoint_open(path, &c, &e), code, "%s: %s", e.where, e.message);
  cr_assert_null(c);
  cr_assert_not_null(strstr(e.message, words), "\"%s\" is not in \"%s\"", words, e.message);
}

TestSuite(tfjs, .init = make_folder, .fini = drop_folder);

Test(tfjs, its_document_its_weights_and_its_folder_are_the_same_model) {
  put_text("net.json", MODEL("\"net.bin\"", KERNEL "," NUMBER));
  put("net.bin", weights, sizeof weights);
  const char *const doors[] = {"net.json", "net.bin", ""};
  char id[3][65];
  for (int i = 0; i < 3; i++) {
    viv_checkpoint *c = open_at(in_folder(doors[i]));
    expect_two(c);
    viv__checkpoint_id(c, id[i]);
    const viv_json *config = viv__checkpoint_config(c);
    viv_str architecture =
        viv__json_string(viv__json_item(viv__json_get(config, "architectures"), 0));
    cr_assert(viv__str_eq(architecture, "maker/net/small/4"));
    viv__checkpoint_close(c);
  }
  cr_assert_str_eq(id[0], id[1]);
  cr_assert_str_eq(id[0], id[2]);
}

Test(tfjs, a_config_beside_the_folder_s_weights_counts) {
  put_text("net.json", MODEL("\"net.bin\"", KERNEL "," NUMBER));
  put("net.bin", weights, sizeof weights);
  put_text("config.json", "{\"model_type\":\"other\"}");
  viv_checkpoint *c = open_at(folder);
  viv_str type = viv__json_string(viv__json_get(viv__checkpoint_config(c), "model_type"));
  cr_assert(viv__str_eq(type, "other"));
  viv__checkpoint_close(c);
}

Test(tfjs, a_tensor_that_two_shards_share) {
  put_text("model.json",
           MODEL("\"group1-shard1of2.bin\",\"group1-shard2of2.bin\"", KERNEL "," NUMBER));
  put("group1-shard1of2.bin", weights, 6);
  put("group1-shard2of2.bin", weights + 6, 2);
  viv_checkpoint *c = open_at(in_folder("model.json"));
  expect_two(c);
  viv__checkpoint_close(c);
}

Test(tfjs, weights_that_are_not_the_document_s) {
  put_text("net.json", MODEL("\"net.bin\"", KERNEL "," NUMBER));
  put("net.bin", weights, 6);
  expect_refused(in_folder("net.json"), VIV_BAD_INPUT, "ends at byte 8");
  put("net.bin", "123456789", 9);
  expect_refused(in_folder("net.json"), VIV_BAD_INPUT, "do not belong together");
  remove(in_folder("net.bin"));
  viv_checkpoint *c = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_lt(viv__checkpoint_open(in_folder("net.json"), &c, &e), 0);
  cr_assert_not_null(strstr(e.where, "net.bin"), "%s", e.where);
}

Test(tfjs, hostile_documents) {
  put("net.bin", weights, sizeof weights);
  const struct {
    const char *text, *words;
    int32_t code;
  } cases[] = {
      {"{}", "not a checkpoint that can be read here", VIV_NEVER},
      {"{\"weightsManifest\":[]}", "not a checkpoint that can be read here", VIV_NEVER},
      {MODEL("\"../net.bin\"", NUMBER), "plain file name", VIV_BAD_INPUT},
      {MODEL("", NUMBER), "must name 1 to", VIV_BAD_INPUT},
      {MODEL("\"net.bin\"", NUMBER "," NUMBER), "stands twice", VIV_BAD_INPUT},
      {MODEL("\"net.bin\"", "{\"shape\":[1],\"dtype\":\"int32\"}"), "has no name", VIV_BAD_INPUT},
      {MODEL("\"net.bin\"", "{\"name\":\"a\",\"shape\":[-1],\"dtype\":\"int32\"}"), "is no length",
       VIV_BAD_INPUT},
      {MODEL("\"net.bin\"", "{\"name\":\"a\",\"shape\":[1e12,1e12],\"dtype\":\"int32\"}"),
       "is no length", VIV_BAD_INPUT},
      {MODEL("\"net.bin\"", "{\"name\":\"a\",\"shape\":[1],\"dtype\":\"string\"}"), "'string'",
       VIV_NEVER},
      {MODEL("\"net.bin\"", "{\"name\":\"a\",\"shape\":[8],\"dtype\":\"float32\","
                            "\"quantization\":{\"dtype\":\"uint8\",\"scale\":1,\"min\":0}}"),
       "quantised as 'uint8'", VIV_NEVER},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    put_text("net.json", cases[i].text);
    expect_refused(in_folder("net.json"), cases[i].code, cases[i].words);
  }
}

Test(tfjs, a_graph_without_the_network_s_weights_names_what_is_missing) {
  put_text(
      "net.json",
      "{\"format\":\"graph-model\",\"generatedBy\":"
      "\"https://tfhub.dev/google/movenet/singlepose/lightning/4\",\"weightsManifest\":[{"
      "\"paths\":[\"net.bin\"],\"weights\":[{\"name\":"
      "\"StatefulPartitionedCall/strided_slice_3\",\"shape\":[8,1,1],\"dtype\":\"uint8\"}]}]}");
  put("net.bin", weights, sizeof weights);
  viv_runtime *rt = open_runtime();
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv_load(rt, in_folder("net.json"), NULL, &m, &e), VIV_BAD_INPUT);
  cr_assert_not_null(strstr(e.message, "Conv1/Conv2D_weights"), "%s", e.message);
  viv_close(rt);
}
