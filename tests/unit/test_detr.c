/* The DETR family at a person's door: a picture gives what the three official steps give, in pixels
 * of that picture; and what is wrong with a picture or a checkpoint is said. */
#include "changed.h"
#include "rt.h"

#include <sys/stat.h>

#define DETR "tests/goldens/detr/tiny"
#define DEFORMABLE "tests/goldens/deformable-detr/two-stage"
#define RELTR "tests/goldens/reltr/tiny"
#define POSE "tests/goldens/group-pose/swin-masked"
#define PTH "tests/data/detr/group-pose.pth"

enum { MAX_RESULTS = 64 };

struct results {
  int32_t status, n;
  char name[MAX_RESULTS][32];
  viv_tensor tensor[MAX_RESULTS];
  viv_error error;
};

struct input {
  const char *name;
  const viv_tensor *tensor;
};

static void free_results(struct results *r) {
  for (int32_t i = 0; i < r->n; i++) free(r->tensor[i].data);
  memset(r, 0, sizeof *r);
}

static void run_task(viv_model *m, const char *task, const struct input *in, int32_t n,
                     const char *params, struct results *r) {
  viv_value values[8];
  const viv_value *inputs[8];
  for (int32_t i = 0; i < n; i++) {
    values[i] = (viv_value){.struct_size = sizeof values[i],
                            .kind = VIV_KIND_TENSOR,
                            .name = viv__str(in[i].name),
                            .tensor = in[i].tensor};
    inputs[i] = &values[i];
  }
  viv_request q = {
      .struct_size = sizeof q, .task = task, .params = params, .n_inputs = n, .inputs = inputs};
  viv_job *job = NULL;
  viv_error e = VIV_ERROR_INIT;
  memset(r, 0, sizeof *r);
  cr_assert_eq(viv_submit(m, &q, &job, &e), VIV_OK, "%s: %s", e.where, e.message);
  viv_event event;
  while (viv_next_event(job, 60000, &event) == VIV_OK) {
    if (event.kind == VIV_KIND_TENSOR && r->n < MAX_RESULTS) {
      snprintf(r->name[r->n], sizeof r->name[0], "%.*s", (int)event.name.len, event.name.ptr);
      viv_tensor *t = &r->tensor[r->n++];
      *t = *event.tensor;
      t->owner = NULL;
      t->release = NULL;
      t->data = malloc(t->bytes + 1);
      memcpy(t->data, event.tensor->data, t->bytes);
    }
    if (event.kind != VIV_KIND_END) continue;
    r->status = event.status;
    if (event.error) r->error = *event.error;
  }
  viv_job_free(job);
}

static const viv_tensor *result_of(const struct results *r, const char *name) {
  for (int32_t i = 0; i < r->n; i++)
    if (!strcmp(r->name[i], name)) return &r->tensor[i];
  cr_assert_fail("no result %s: %s %s", name, r->error.where, r->error.message);
  return NULL;
}

static void assert_same(const struct results *a, const char *name, const struct results *b,
                        const char *other) {
  const viv_tensor *x = result_of(a, name), *y = result_of(b, other);
  cr_assert_eq(x->bytes, y->bytes, "%s has %llu bytes, %s %llu", name, (unsigned long long)x->bytes,
               other, (unsigned long long)y->bytes);
  cr_assert(!x->bytes || !memcmp(x->data, y->data, x->bytes), "%s differs from %s", name, other);
}

/* A picture that is not the same everywhere, its pixels given back by free. */
static viv_tensor picture(int64_t height, int64_t width, int seed) {
  viv_tensor t = {.struct_size = sizeof t,
                  .dtype = VIV_U8,
                  .ndim = 3,
                  .shape = {height, width, 3},
                  .bytes = (uint64_t)(height * width) * 3};
  uint8_t *x = malloc(t.bytes + 1);
  for (int64_t i = 0; i < height * width * 3; i++)
    x[i] = (uint8_t)(i / 3 % width * 5 + i / 3 / width * 3 + i % 3 * 40 + seed * 17);
  t.data = x;
  return t;
}

static viv_tensor sizes_tensor(int64_t *sizes, int64_t n) {
  return (viv_tensor){.struct_size = sizeof(viv_tensor),
                      .dtype = VIV_I64,
                      .ndim = 2,
                      .shape = {n, 2},
                      .bytes = (uint64_t)n * 16,
                      .data = sizes};
}

/* Small pictures, so that the tiny models stay tiny in time too. */
#define SMALL "\"short_side\":64,\"max_size\":96"

Test(detr, a_picture_gives_what_the_three_steps_give) {
  viv_runtime *rt = open_runtime();
  const char *const models[] = {DETR, DEFORMABLE};
  for (int k = 0; k < 2; k++) {
    viv_model *m = load(rt, models[k]);
    viv_tensor a = picture(50, 71, 1), b = picture(61, 40, 2);
    struct input pictures[] = {{"image", &a}, {"image", &b}};
    struct results found, prepared, raw, done;
    run_task(m, "detect", pictures, 2, "{" SMALL ",\"threshold\":0.3}", &found);
    run_task(m, "preprocess", pictures, 2, "{" SMALL "}", &prepared);
    struct input pixels[] = {{"pixel_values", result_of(&prepared, "pixel_values")},
                             {"pixel_mask", result_of(&prepared, "pixel_mask")}};
    run_task(m, "forward", pixels, 2, NULL, &raw);
    int64_t hw[] = {50, 71, 61, 40};
    viv_tensor sizes = sizes_tensor(hw, 2);
    struct input outputs[] = {{"logits", result_of(&raw, "logits")},
                              {"pred_boxes", result_of(&raw, "pred_boxes")},
                              {"target_sizes", &sizes}};
    run_task(m, "postprocess", outputs, 3, "{\"threshold\":0.3}", &done);
    const char *const names[] = {"boxes.0", "scores.0", "labels.0",
                                 "boxes.1", "scores.1", "labels.1"};
    for (int i = 0; i < 6; i++) assert_same(&found, names[i], &done, names[i]);
    cr_assert_gt(result_of(&found, "scores.0")->shape[0], 0, "nothing found: the test says little");
    free_results(&found);
    free_results(&prepared);
    free_results(&raw);
    free_results(&done);
    free(a.data);
    free(b.data);
    viv_unload(m);
  }
  viv_close(rt);
}

Test(detr, boxes_come_in_pixels_of_the_picture) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DETR);
  viv_tensor a = picture(60, 90, 3);
  struct input in = {"image", &a};
  struct results all, few;
  run_task(m, "detect", &in, 1, "{" SMALL "}", &all);
  run_task(m, "detect", &in, 1, "{" SMALL ",\"threshold\":0.999}", &few);
  const viv_tensor *boxes = result_of(&all, "boxes.0");
  const float *box = boxes->data;
  cr_assert_eq(boxes->shape[0], 9, "every query comes out without a threshold");
  float far = 0;
  for (int64_t i = 0; i < boxes->shape[0] * 4; i++) far = box[i] > far ? box[i] : far;
  cr_assert(far > 2 && far < 180, "the largest coordinate is %g", (double)far);
  cr_assert_eq(result_of(&few, "boxes.0")->shape[0], 0);
  cr_assert_eq(result_of(&few, "boxes.0")->shape[1], 4, "no instance is [0, 4]");
  free_results(&all);
  free_results(&few);
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, a_padded_picture_is_found_as_it_is_alone) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DETR);
  viv_tensor a = picture(64, 64, 1), b = picture(64, 96, 2);
  struct input both[] = {{"image", &a}, {"image", &b}};
  struct results pair, alone;
  run_task(m, "detect", both, 2, "{" SMALL "}", &pair);
  run_task(m, "detect", both + 1, 1, "{" SMALL "}", &alone);
  const viv_tensor *x = result_of(&pair, "boxes.1"), *y = result_of(&alone, "boxes.0");
  for (int64_t i = 0; i < x->shape[0] * 4; i++)
    cr_assert_float_eq(((const float *)x->data)[i], ((const float *)y->data)[i], 1e-2,
                       "the larger of two pictures is not padded, so nothing may change");
  free_results(&pair);
  free_results(&alone);
  free(a.data);
  free(b.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, people_have_joints_and_the_box_around_them) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, POSE);
  viv_tensor a = picture(70, 100, 4);
  struct input in = {"image", &a};
  struct results r;
  run_task(m, "pose", &in, 1, "{" SMALL "}", &r);
  const viv_tensor *points = result_of(&r, "keypoints.0"), *boxes = result_of(&r, "boxes.0");
  int64_t n = points->shape[0];
  cr_assert(n > 0 && n <= 15, "%lld people", (long long)n);
  cr_assert_eq(points->shape[1], 17);
  cr_assert_eq(points->shape[2], 2);
  cr_assert_eq(result_of(&r, "scores.0")->shape[0], n);
  for (int64_t i = 0; i < n * 34; i++) {
    const float *box = (const float *)boxes->data + i / 34 * 4;
    float at = ((const float *)points->data)[i];
    cr_assert(at >= box[i % 2] && at <= box[2 + i % 2], "joint %lld is out of its box",
              (long long)i);
    cr_assert(at >= 0 && at <= (i % 2 ? 70 : 100));
  }
  free_results(&r);
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, relations_name_two_boxes_and_a_predicate) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, RELTR);
  viv_tensor a = picture(70, 100, 5);
  struct input in = {"image", &a};
  struct results r;
  run_task(m, "relations", &in, 1, "{" SMALL ",\"threshold\":0,\"top_k\":4}", &r);
  cr_assert_eq(result_of(&r, "scores.0")->shape[0], 4);
  const float *scores = result_of(&r, "scores.0")->data;
  for (int i = 1; i < 4; i++) cr_assert_geq(scores[i - 1], scores[i], "the best come first");
  const int32_t *what = result_of(&r, "predicates.0")->data;
  for (int i = 0; i < 4; i++) cr_assert(what[i] >= 0 && what[i] < 6, "predicate %d", (int)what[i]);
  cr_assert_eq(result_of(&r, "subject_boxes.0")->shape[1], 4);
  cr_assert_eq(result_of(&r, "object_labels.0")->shape[0], 4);
  free_results(&r);
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}

static void refuse(viv_model *m, const char *task, const struct input *in, int32_t n,
                   const char *params, const char *says) {
  struct results r;
  run_task(m, task, in, n, params, &r);
  cr_assert_eq(r.status, VIV_BAD_INPUT, "%s: status %d, expected words about \"%s\"", task,
               (int)r.status, says);
  cr_assert(strstr(r.error.message, says) || strstr(r.error.where, says), "%s: %s", r.error.where,
            r.error.message);
  free_results(&r);
}

Test(detr, pictures_of_one_pixel_and_of_none) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DETR);
  viv_tensor one = picture(1, 1, 1), strip = picture(1, 3000, 1), none = picture(0, 5, 1);
  viv_tensor flat = picture(8, 8, 1);
  struct input in = {"image", &one};
  struct results r;
  run_task(m, "detect", &in, 1, "{" SMALL "}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "boxes.0")->shape[0], 9);
  free_results(&r);
  in.tensor = &strip;
  run_task(m, "detect", &in, 1, "{" SMALL "}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  free_results(&r);
  in.tensor = &none;
  refuse(m, "detect", &in, 1, NULL, "image");
  flat.ndim = 2;
  flat.shape[1] = 24;
  in.tensor = &flat;
  refuse(m, "detect", &in, 1, NULL, "image");
  refuse(m, "detect", &in, 0, NULL, "image");
  refuse(m, "forward", &in, 0, NULL, "pixel_values");
  in.tensor = &one;
  refuse(m, "detect", &in, 1, "{\"backend\":\"gimp\"}", "backend");
  refuse(m, "detect", &in, 1, "{\"threshold\":7}", "threshold");
  free(one.data);
  free(strip.data);
  free(none.data);
  free(flat.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, a_request_may_name_the_size) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DETR);
  viv_tensor a = picture(50, 100, 1);
  struct input in = {"image", &a};
  struct results r;
  run_task(m, "preprocess", &in, 1, "{\"size\":{\"height\":33,\"width\":44}}", &r);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[2], 33);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[3], 44);
  free_results(&r);
  run_task(m, "preprocess", &in, 1,
           "{\"size\":{\"shortest_edge\":20,\"longest_edge\":30},\"backend\":\"pil\"}", &r);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[2], 15);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[3], 30);
  free_results(&r);
  refuse(m, "preprocess", &in, 1, "{\"size\":{\"height\":0,\"width\":9}}", "height");
  refuse(m, "preprocess", &in, 1, "{\"size\":-4}", "size");
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, a_small_picture_that_gives_too_few_cells_is_refused) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DEFORMABLE);
  viv_tensor a = picture(4, 4, 1);
  struct input in = {"image", &a};
  refuse(m, "detect", &in, 1, "{\"short_side\":4,\"max_size\":4}", "cells");
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}

Test(detr, tensors_of_another_shape_are_refused) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, DETR);
  float zeros[3 * 9 * 7] = {0};
  viv_tensor logits = {.struct_size = sizeof logits,
                       .dtype = VIV_F32,
                       .ndim = 3,
                       .shape = {1, 9, 6}, /* the head has 7 columns */
                       .bytes = 9 * 6 * 4,
                       .data = zeros};
  viv_tensor boxes = logits;
  boxes.shape[2] = 4;
  boxes.bytes = 9 * 4 * 4;
  struct input in[] = {{"logits", &logits}, {"pred_boxes", &boxes}};
  refuse(m, "postprocess", in, 2, NULL, "logits");
  logits.shape[2] = 7;
  logits.bytes = 9 * 7 * 4;
  boxes.shape[1] = 8;
  boxes.bytes = 8 * 4 * 4;
  refuse(m, "postprocess", in, 2, NULL, "pred_boxes");
  viv_unload(m);
  viv_close(rt);
}

/* ---- checkpoints that don't fit ---- */

Test(detr, checkpoints_of_another_size_say_which_tensors) {
  viv_runtime *rt = open_runtime();
  refuse_model(rt, DETR, "\"num_queries\": 9", "\"num_queries\": 10",
               "model.query_position_embeddings.weight");
  refuse_model(rt, DETR, "\"id2label\"", "\"num_labels\": 3, \"id2label\"",
               "class_labels_classifier.weight");
  refuse_model(rt, DETR, "\"encoder_layers\": 2", "\"encoder_layers\": 3",
               "model.encoder.layers.2.");
  refuse_model(rt, DETR, "\"encoder_layers\": 2", "\"encoder_layers\": 1",
               "model.encoder.layers.1.");
  refuse_model(rt, DETR, "\"backbone\": \"resnet50\"", "\"backbone\": \"hrnet48\"", "hrnet48");
  refuse_model(rt, DETR, "\"d_model\": 24", "\"d_model\": 25", "d_model");
  refuse_model(rt, RELTR, "\"num_rel_classes\": 6", "\"num_rel_classes\": 8", "rel_class_embed");
  viv_close(rt);
}

/* The weights by a link, and the model's configuration with `from` replaced by `to`. */
static char *pth_model(const char *model, const char *weights, const char *from, const char *to) {
  char *folder = changed_folder();
  link_into(folder, weights);
  change_config(folder, model, from, to);
  return folder;
}

/* says: what must stand in the error or, where that has no room for all tensors, in the log. */
static void refuse_weights(const char *model, const char *weights, const char *from, const char *to,
                           const char *const *says) {
  char *folder = pth_model(model, weights, from, to);
  viv_runtime *rt = NULL;
  viv_model *m = NULL;
  viv_error e = VIV_ERROR_INIT;
  FILE *file = tmpfile();
  cr_assert(file);
  viv_options o = {.struct_size = sizeof o,
                   .threads = 1,
                   .plugin_path = env("VIV_TEST_PLUGINS", "build/plugins"),
                   .log_level = VIV_LOG_WARN,
                   .log_fd = fileno(file)};
  cr_assert_eq(viv_open(&o, &rt, &e), VIV_OK, "%s: %s", e.where, e.message);
  int32_t status = viv_load(rt, folder, NULL, &m, &e);
  cr_assert_lt(status, 0, "%s opened in spite of %s", model, to);
  viv_close(rt);
  static char log[1 << 16];
  rewind(file);
  log[fread(log, 1, sizeof log - 1, file)] = 0;
  fclose(file);
  for (; *says; says++)
    cr_assert(strstr(e.message, *says) || strstr(log, *says), "no %s in %s: %s, nor in the log: %s",
              *says, e.where, e.message, log);
  remove_changed(folder);
}

/* The state of a training as its authors save it: the weights lie under "model", twice where they are
 * shared, beside the optimizer's. */
Test(detr, an_official_pth_is_the_same_model) {
  viv_runtime *rt = open_runtime();
  char *folder = pth_model(POSE, PTH, "\"num_select\": 15", "\"num_select\": 15");
  viv_model *official = load(rt, folder), *plain = load(rt, POSE);
  viv_tensor a = picture(60, 71, 1);
  struct input in = {"image", &a};
  struct results x, y;
  run_task(official, "pose", &in, 1, "{" SMALL "}", &x);
  run_task(plain, "pose", &in, 1, "{" SMALL "}", &y);
  cr_assert_gt(result_of(&x, "scores.0")->shape[0], 0, "nobody found: the test says little");
  assert_same(&x, "keypoints.0", &y, "keypoints.0");
  assert_same(&x, "scores.0", &y, "scores.0");
  free_results(&x);
  free_results(&y);
  free(a.data);
  viv_unload(official);
  viv_unload(plain);
  remove_changed(folder);
  viv_close(rt);
}

Test(detr, what_an_official_pth_lacks_is_all_named) {
  refuse_weights(
      POSE, PTH, "\"enc_layers\": 2", "\"enc_layers\": 3",
      (const char *const[]){"transformer.encoder.layers.2.self_attn.sampling_offsets.weight",
                            "transformer.encoder.layers.2.linear1.weight",
                            "transformer.encoder.layers.2.norm2.bias", NULL});
  refuse_weights(POSE, PTH, "\"num_classes\": 2", "\"num_classes\": 91",
                 (const char *const[]){"class_embed.1.weight",
                                       "transformer.enc_out_class_embed.bias", "91", NULL});
  refuse_weights(POSE, PTH, "\"num_body_points\": 17", "\"num_body_points\": 14",
                 (const char *const[]){"transformer.keypoint_embedding.weight",
                                       "transformer.enc_pose_embed.layers.3.bias", NULL});
}

Test(detr, a_folder_without_weights_prepares_pictures_only) {
  viv_runtime *rt = open_runtime();
  viv_model *m = load(rt, "tests/goldens/group-pose/preprocess");
  viv_tensor a = picture(20, 30, 1);
  struct input in = {"image", &a};
  struct results r;
  run_task(m, "preprocess", &in, 1, NULL, &r);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[2], 27);
  free_results(&r);
  run_task(m, "pose", &in, 1, NULL, &r);
  cr_assert_lt(r.status, 0);
  free_results(&r);
  free(a.data);
  viv_unload(m);
  viv_close(rt);
}
