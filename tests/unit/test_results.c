/* Results of tasks of pictures: gathered by the schema, given as JSON and COCO, drawn. */
#include <math.h>

#include "rt.h"
#include "tasks/results.h"

static int32_t take(viv__results *r, const char *name, int32_t dtype, int32_t ndim, int64_t a,
                    int64_t b, int64_t c, const void *data, viv_error *error) {
  viv_tensor t = {.struct_size = sizeof t, .dtype = dtype, .ndim = ndim, .shape = {a, b, c}};
  t.bytes = viv__dtype_size(dtype);
  for (int32_t i = 0; i < ndim; i++) t.bytes *= (uint64_t)t.shape[i];
  void *copy = malloc(t.bytes + 1);
  memcpy(copy, data, t.bytes);
  t.data = copy;
  viv_event e = {
      .struct_size = sizeof e, .kind = VIV_KIND_TENSOR, .name = viv__str(name), .tensor = &t};
  int32_t status = viv__results_take(r, &e, error);
  free(copy);
  return status;
}

static viv__vocabulary words(const char *describe) {
  viv__vocabulary v;
  viv_error e = VIV_ERROR_INIT;
  cJSON *json = describe ? cJSON_Parse(describe) : NULL;
  cr_assert_eq(viv__vocabulary_read(&v, json, NULL, NULL, &e), VIV_OK, "%s", e.message);
  cJSON_Delete(json);
  return v;
}

static void expect_json(cJSON *json, const char *want) {
  char *text = cJSON_PrintUnformatted(json);
  cr_expect_str_eq(text, want);
  cJSON_free(text);
  cJSON_Delete(json);
}

static const float two_boxes[] = {1, 2, 3.5f, 4, 10, 20, 30, 40}, two_scores[] = {0.9f, 0.2f};
static const int64_t two_labels[] = {0, 5};

static void take_two(viv__results *r) {
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(take(r, "boxes.0", VIV_F32, 2, 2, 4, 0, two_boxes, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(take(r, "scores.0", VIV_F32, 1, 2, 0, 0, two_scores, &e), VIV_OK);
  cr_assert_eq(take(r, "labels.0", VIV_I64, 1, 2, 0, 0, two_labels, &e), VIV_OK);
}

Test(results, boxes_as_json_and_coco) {
  viv__results r = {.schema = viv__task_schema_find("detect")};
  viv__vocabulary v = words("{\"id2label\":{\"0\":\"cat\"},\"category_ids\":[17]}");
  viv_error e = VIV_ERROR_INIT;
  take_two(&r);
  cr_assert_eq(viv__results_check(&r, 1, &e), VIV_OK, "%s", e.message);
  cJSON *json = cJSON_CreateObject(), *coco = cJSON_CreateArray();
  cr_assert_eq(viv__results_json(&r, 0, &v, 0.5, json, &e), VIV_OK);
  expect_json(json, "{\"objects\":[{\"label\":\"cat\",\"class\":0,\"score\":0.9,"
                    "\"box\":[1,2,3.5,4]}]}");
  cr_assert_eq(viv__results_coco(&r, 0, &v, -INFINITY, 42, coco, &e), VIV_OK);
  expect_json(coco, "[{\"image_id\":42,\"category_id\":17,\"bbox\":[1,2,2.5,2],\"score\":0.9},"
                    "{\"image_id\":42,\"category_id\":5,\"bbox\":[10,20,20,20],\"score\":0.2}]");
  viv__results_free(&r);
  viv__vocabulary_free(&v);
}

/* The model's faults are the model's: they are told apart from the caller's. */
Test(results, what_does_not_fit_the_schema_is_refused) {
  viv__results r = {.schema = viv__task_schema_find("detect")};
  viv_error e = VIV_ERROR_INIT;
  take_two(&r);
  cr_expect_eq(take(&r, "labels.0", VIV_F32, 1, 2, 0, 0, two_scores, &e), VIV_BUG, "a float label");
  cr_expect_eq(take(&r, "scores.0", VIV_F32, 1, 1, 0, 0, two_scores, &e), VIV_BUG, "one of two");
  cr_expect_eq(take(&r, "boxes.0", VIV_F32, 2, 1, 3, 0, two_boxes, &e), VIV_BUG, "three corners");
  cr_expect_eq(take(&r, "boxes.0", VIV_F32, 1, 8, 0, 0, two_boxes, &e), VIV_BUG, "flat");
  cr_expect_str_eq(e.where, "boxes.0");
  cr_expect_eq(take(&r, "logits", VIV_F32, 1, 8, 0, 0, two_boxes, &e), VIV_OK, "not the task's");
  cr_expect_eq(take(&r, "boxes.x", VIV_F32, 1, 8, 0, 0, two_boxes, &e), VIV_OK, "no number");
  cr_expect_eq(take(&r, "boxes.99999", VIV_F32, 2, 2, 4, 0, two_boxes, &e), VIV_BUG, "no picture");
  cr_expect_eq(viv__results_check(&r, 1, &e), VIV_OK);
  cr_expect_eq(viv__results_check(&r, 2, &e), VIV_BUG, "nothing for the second picture");
  viv__results_free(&r);
}

Test(results, nothing_found_is_a_result) {
  viv__results r = {.schema = viv__task_schema_find("detect")};
  viv__vocabulary v = words(NULL);
  viv_error e = VIV_ERROR_INIT;
  take(&r, "boxes.0", VIV_F32, 2, 0, 4, 0, "", &e);
  take(&r, "scores.0", VIV_F32, 1, 0, 0, 0, "", &e);
  take(&r, "labels.0", VIV_I32, 1, 0, 0, 0, "", &e);
  cr_assert_eq(viv__results_check(&r, 1, &e), VIV_OK, "%s", e.message);
  cJSON *json = cJSON_CreateObject();
  cr_assert_eq(viv__results_json(&r, 0, &v, 0.5, json, &e), VIV_OK);
  expect_json(json, "{\"objects\":[]}");
  viv__results_free(&r);
  viv__vocabulary_free(&v);
}

/* Expected texts are pycocotools' for the same masks: runs down the columns, first outside. */
Test(results, masks_as_runs) {
  expect_json(viv__mask_rle((const uint8_t[]){0, 0, 0, 0}, 2, 2),
              "{\"size\":[2,2],\"counts\":\"4\"}");
  expect_json(viv__mask_rle((const uint8_t[]){1, 1, 1, 1}, 2, 2),
              "{\"size\":[2,2],\"counts\":\"04\"}");
  /* columns 0 1 | 0 1 | 0 0: runs 1 1 1 1 2; the fourth less the second is 0, the fifth less the third
   * is 1 */
  expect_json(viv__mask_rle((const uint8_t[]){0, 0, 0, 1, 1, 0}, 2, 3),
              "{\"size\":[2,3],\"counts\":\"11101\"}");
  /* runs 50 40 5 5: of two groups of five bits; the last is -35 against two before */
  uint8_t mask[100] = {0};
  for (int i = 50; i < 90; i++) mask[i] = 1;
  for (int i = 95; i < 100; i++) mask[i] = 1;
  expect_json(viv__mask_rle(mask, 100, 1), "{\"size\":[100,1],\"counts\":\"b1X15mN\"}");
}

Test(results, a_float_is_written_shortly_and_exactly) {
  static const float values[] = {0.1f, 1e-20f, 123456.789f, 16777217.0f, -0.3f};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    cJSON *n = viv__float_json(values[i]);
    char *text = cJSON_PrintUnformatted(n);
    cr_expect_eq(strtof(text, NULL), values[i], "%s", text);
    cr_expect(strlen(text) < 16, "%s", text);
    cJSON_free(text);
    cJSON_Delete(n);
  }
}

Test(results, the_largest_in_order) {
  static const float values[] = {1, 5, 3, 5, NAN, 0};
  int64_t top[3];
  viv__top(values, 4, top, 3);
  cr_expect_eq(top[0], 1);
  cr_expect_eq(top[1], 3);
  cr_expect_eq(top[2], 2);
}

Test(results, names_of_coco) {
  viv__vocabulary v = words(NULL);
  cr_expect_eq(v.keypoints.n, 17);
  cr_expect_eq(v.n_edges, 19);
  viv__vocabulary_free(&v);
  /* 80 classes without gaps mean COCO's numbers with gaps. */
  viv__buf text = {0};
  viv__buf_str(&text, "{\"id2label\":[\"person\"");
  for (int i = 1; i < 79; i++) viv__buf_fmt(&text, ",\"c%d\"", i);
  viv__buf_str(&text, ",\"toothbrush\"]}");
  viv__buf_add(&text, "", 1);
  v = words(text.ptr);
  cr_expect_eq(viv__category_id(&v, 0), 1);
  cr_expect_eq(viv__category_id(&v, 11), 13);
  cr_expect_eq(viv__category_id(&v, 79), 90);
  viv__vocabulary_free(&v);
  viv__buf_free(&text);
  viv_error e = VIV_ERROR_INIT;
  cJSON *bad = cJSON_Parse("{\"keypoints\":[\"a\",\"b\"],\"skeleton\":[[0,2]]}");
  cr_expect_eq(viv__vocabulary_read(&v, bad, NULL, NULL, &e), VIV_BAD_INPUT);
  cr_expect(strstr(e.message, "2 keypoints"), "%s", e.message);
  cJSON_Delete(bad);
}

/* ---- drawing ---- */

enum { W = 320, H = 200 };

static int changed_pixels(const uint8_t *a, const uint8_t *b, int x0, int y0, int x1, int y1) {
  int n = 0;
  for (int y = y0; y < y1; y++)
    for (int x = x0; x < x1; x++) n += memcmp(a + 3 * (W * y + x), b + 3 * (W * y + x), 3) != 0;
  return n;
}

/* Draws a detection on an even ground; what was drawn must stand out from it. */
static void draw_on(uint8_t ground) {
  static uint8_t before[3 * W * H], after[3 * W * H];
  static const float boxes[] = {60, 60, 160, 150, 60, 60, 160, 150}, scores[] = {0.9f, 0.8f};
  static const int64_t labels[] = {3, 4};
  viv__results r = {.schema = viv__task_schema_find("detect")};
  viv__vocabulary v = words("{\"id2label\":{\"3\":\"dog\",\"4\":\"cat\"}}");
  viv_error e = VIV_ERROR_INIT;
  take(&r, "boxes.0", VIV_F32, 2, 2, 4, 0, boxes, &e);
  take(&r, "scores.0", VIV_F32, 1, 2, 0, 0, scores, &e);
  take(&r, "labels.0", VIV_I64, 1, 2, 0, 0, labels, &e);
  memset(before, ground, sizeof before);
  memcpy(after, before, sizeof after);
  viv__picture p = {.width = W, .height = H, .channels = 3, .data = after };
  cr_assert_eq(viv__results_draw(&r, 0, &v, 0.5, &p, &e), VIV_OK, "%s", e.message);
  cr_expect_eq(changed_pixels(before, after, 0, 0, 50, H), 0, "nothing far from the box");
  cr_expect_eq(changed_pixels(before, after, 70, 90, 150, 140), 0, "nothing inside it");
  cr_expect_geq(changed_pixels(before, after, 60, 60, 61, 150), 85, "its left side");
  cr_expect_geq(changed_pixels(before, after, 159, 90, 162, 140), 50, "its right side");
  /* Both captions have their place: above the box, and the second inside it. */
  cr_expect_gt(changed_pixels(before, after, 60, 40, 120, 58), 300);
  cr_expect_gt(changed_pixels(before, after, 64, 64, 120, 74), 100);
  int contrast = 0;
  for (int y = 60; y < 150; y++)
    for (int c = 0; c < 3; c++) {
      int difference = abs(after[3 * (W * y + 60) + c] - ground);
      if (difference > contrast) contrast = difference;
    }
  cr_expect_gt(contrast, 90, "the line is seen on %d", ground);
  viv__results_free(&r);
  viv__vocabulary_free(&v);
}

Test(results, boxes_are_drawn_on_dark_and_light) {
  draw_on(10);
  draw_on(128);
  draw_on(245);
}

/* Coordinates that are no numbers or far away must not hang or crash the drawing. */
Test(results, impossible_coordinates) {
  static uint8_t rgb[3 * W * H];
  float k[17 * 3], box[4] = {-1e30f, NAN, INFINITY, 1e30f}, score[] = {1};
  int64_t label[] = {-7};
  for (int i = 0; i < 51; i++) k[i] = i % 4 ? (i % 2 ? 1e30f : -1e30f) : NAN;
  viv__results r = {.schema = viv__task_schema_find("pose")};
  viv__vocabulary v = words(NULL);
  viv_error e = VIV_ERROR_INIT;
  take(&r, "keypoints.0", VIV_F32, 3, 1, 17, 3, k, &e);
  take(&r, "scores.0", VIV_F32, 1, 1, 0, 0, score, &e);
  take(&r, "boxes.0", VIV_F32, 2, 1, 4, 0, box, &e);
  take(&r, "labels.0", VIV_I64, 1, 1, 0, 0, label, &e);
  viv__picture p = {.width = W, .height = H, .channels = 3, .data = rgb };
  cr_expect_eq(viv__results_draw(&r, 0, &v, 0.5, &p, &e), VIV_OK, "%s", e.message);
  cJSON *json = cJSON_CreateObject();
  cr_expect_eq(viv__results_json(&r, 0, &v, 0, json, &e), VIV_OK);
  cJSON_Delete(json);
  viv__results_free(&r);
  viv__vocabulary_free(&v);
}

static void expect_point(const viv__buf *ply, int64_t at, float x, float y, float z,
                         const uint8_t rgb[3]) {
  const char *body = strstr(ply->ptr, "end_header\n") + 11;
  float xyz[3];
  memcpy(xyz, body + 15 * at, sizeof xyz);
  cr_expect_float_eq(xyz[0], x, 1e-6);
  cr_expect_float_eq(xyz[1], y, 1e-6);
  cr_expect_float_eq(xyz[2], z, 1e-6);
  cr_expect_arr_eq(body + 15 * at + 12, rgb, 3);
}

Test(results, depth_as_points) {
  viv__results r = {.schema = viv__task_schema_find("depth")};
  viv_error e = VIV_ERROR_INIT;
  viv__buf out = {0};
  uint8_t rgb[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  const float depth[] = {2, NAN, 0.5f, 0.01f};
  const double camera[] = {2, 4, 1, 0};
  viv__picture picture = {.data = rgb, .width = 2, .height = 2, .channels = 3};
  cr_assert_eq(take(&r, "depth.0", VIV_F32, 2, 2, 2, 0, depth, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(viv__results_points(&r, 0, &picture, camera, false, &out, &e), VIV_OK);
  cr_assert(strstr(out.ptr, "element vertex 3\n"));
  expect_point(&out, 0, -1, 0, 2, rgb);
  expect_point(&out, 1, -0.25f, 0.125f, 0.5f, rgb + 6);
  expect_point(&out, 2, 0, 0.0025f, 0.01f, rgb + 9);
  viv__buf_free(&out);
  /* Inverse depth: the largest is nearest and stands at 1, a 200th of it is too far. */
  cr_assert_eq(viv__results_points(&r, 0, &picture, camera, true, &out, &e), VIV_OK);
  cr_assert(strstr(out.ptr, "element vertex 2\n"));
  expect_point(&out, 0, -0.5f, 0, 1, rgb);
  expect_point(&out, 1, -2, 1, 4, rgb + 6);
  viv__buf_free(&out);
  viv__results_free(&r);
}
