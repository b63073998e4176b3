/* SAM: a picture is encoded once for all prompts on it; prompts that mean nothing are refused. */
#include <math.h>

#include "pass_rt.h"

#define MODEL "tests/goldens/sam/tiny"
#define IMAGE MODEL "/image.png" /* 77 x 45 */
#define OTHER "tests/goldens/sam/amg/image.png"
#define MEDICAL "tests/goldens/esp-medsam/tiny"

static bool has(const results *r, const char *name) {
  for (int32_t i = 0; i < r->n; i++)
    if (!strcmp(r->name[i], name)) return true;
  return false;
}

/* Segments at a point of the picture in the session; answers how often the encoder ran, which shows
 * in the taps of its first block. */
static int click(viv_model *m, viv_session *session, const char *image, results *r) {
  inputs in = {0};
  add_image(&in, image);
  run_in_session(m, session, "segment", &in,
                 "{\"point_coords\":[[20,30]],\"point_labels\":[1],\"taps\":[\"block.0\"]}", r);
  cr_assert_eq(r->status, VIV_OK, "%s: %s", r->error.where, r->error.message);
  free_inputs(&in);
  int ran = 0;
  for (int32_t i = 0; i < r->n; i++) ran += !strcmp(r->name[i], "block.0");
  return ran;
}

Test(sam, a_session_encodes_a_picture_once) {
  viv_model *m = load(open_runtime(), MODEL);
  viv_session *session = NULL;
  viv_error e = VIV_ERROR_INIT;
  results alone, first, again, other, back;
  cr_assert_eq(viv_session_open(m, &session, &e), VIV_OK, "%s", e.message);
  cr_assert_eq(click(m, NULL, IMAGE, &alone), 1);
  cr_assert_eq(click(m, session, IMAGE, &first), 1);
  cr_assert_eq(click(m, session, IMAGE, &again), 0);
  cr_assert_eq(click(m, session, OTHER, &other), 1);
  cr_assert_eq(click(m, session, IMAGE, &back), 1);
  const viv_tensor *mask = result_of(&alone, "masks.0");
  cr_assert_eq(mask->shape[0], 1);
  cr_assert_eq(mask->shape[1], 45);
  cr_assert_eq(mask->shape[2], 77);
  const results *all[] = {&first, &again, &back};
  for (int i = 0; i < 3; i++) {
    cr_assert_arr_eq(mask->data, result_of(all[i], "masks.0")->data, mask->bytes);
    cr_assert_eq(*(float *)result_of(all[i], "scores.0")->data,
                 *(float *)result_of(&alone, "scores.0")->data);
  }
  free_results(&alone);
  free_results(&first);
  free_results(&again);
  free_results(&other);
  free_results(&back);
  viv_session_close(session);
}

Test(sam, a_prompt_without_a_picture_needs_a_session_that_saw_one) {
  viv_model *m = load(open_runtime(), MODEL);
  viv_session *session = NULL;
  viv_error e = VIV_ERROR_INIT;
  inputs none = {0};
  results r;
  const char *point = "{\"point_coords\":[[20,30]],\"point_labels\":[1]}";
  cr_assert_eq(viv_session_open(m, &session, &e), VIV_OK, "%s", e.message);
  run_in_session(m, session, "segment", &none, point, &r);
  cr_assert_eq(r.status, VIV_BAD_INPUT);
  cr_assert(strstr(r.error.message, "embed_image"), "%s", r.error.message);
  free_results(&r);
  expect_error(m, "segment", &none, point, VIV_BAD_INPUT, "no session");
  viv_session_close(session);
}

/* Clicks after the first need no picture, and get what one with the picture gets. */
Test(sam, twenty_clicks_encode_once) {
  viv_model *m = load(open_runtime(), MODEL);
  viv_session *session = NULL;
  inputs image = {0}, none = {0};
  int encoded = 0;
  cr_assert_eq(viv_session_open(m, &session, NULL), VIV_OK);
  add_image(&image, IMAGE);
  for (int i = 0; i < 20; i++) {
    char params[160];
    results r, alone;
    snprintf(params, sizeof params,
             "{\"point_coords\":[[%d,%d]],\"point_labels\":[1],\"taps\":[\"block.0\"]}", 3 * i,
             2 * i);
    run_in_session(m, session, "segment", i ? &none : &image, params, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
    for (int32_t k = 0; k < r.n; k++) encoded += strstr(r.name[k], "block.0") != NULL;
    run_task(m, "segment", &image, params, &alone);
    const viv_tensor *a = result_of(&r, "masks.0"), *b = result_of(&alone, "masks.0");
    cr_assert_eq(a->bytes, b->bytes);
    cr_assert_arr_eq(a->data, b->data, a->bytes);
    free_results(&r);
    free_results(&alone);
  }
  cr_assert_eq(encoded, 1);
  free_inputs(&image);
  viv_session_close(session);
}

/* More prompts than the decoder takes at once, over a session's picture: each as if it were alone. */
Test(sam, many_boxes_are_what_each_is_alone) {
  enum { BOXES = 21 };
  viv_model *m = load(open_runtime(), MODEL);
  viv_session *session = NULL;
  viv_error e = VIV_ERROR_INIT;
  float box[BOXES][4];
  inputs image = {0}, all = {0};
  results r, many, one;
  cr_assert_eq(viv_session_open(m, &session, &e), VIV_OK, "%s", e.message);
  add_image(&image, IMAGE);
  run_in_session(m, session, "embed_image", &image, NULL, &r);
  free_results(&r);
  for (int i = 0; i < BOXES; i++) {
    box[i][0] = (float)i;
    box[i][1] = (float)(i % 7);
    box[i][2] = (float)(i + 20);
    box[i][3] = (float)(i % 7 + 30);
  }
  add_data(&all, "boxes", VIV_F32, box, 2, (const int64_t[]){BOXES, 4});
  run_in_session(m, session, "segment", &all, "{\"multimask_output\":false}", &many);
  const viv_tensor *logits = result_of(&many, "low_res_logits");
  cr_assert_eq(logits->ndim, 4);
  cr_assert_eq(logits->shape[0], BOXES);
  int64_t n = logits->shape[2] * logits->shape[3];
  for (int i = 0; i < BOXES; i += 5) {
    inputs alone = {0};
    add_data(&alone, "box", VIV_F32, box[i], 1, (const int64_t[]){4});
    run_in_session(m, session, "segment", &alone, "{\"multimask_output\":false}", &one);
    const float *a = result_of(&one, "low_res_logits")->data;
    for (int64_t k = 0; k < n; k++)
      cr_assert_float_eq(a[k], ((float *)logits->data)[i * n + k], 1e-4);
    free_results(&one);
  }
  free_results(&many);
  free_inputs(&image);
  viv_session_close(session);
}

Test(sam, bad_prompts_are_refused) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs in = {0};
  add_image(&in, IMAGE);
  static const char *const cases[][2] = {
      {"{\"point_coords\":[[77.5,3]]}", "outside the picture of 77 x 45"},
      {"{\"point_coords\":[[-1,3]]}", "outside"},
      {"{\"point_coords\":[[3]]}", "pairs"},
      {"{\"point_coords\":[[3,4],[5]]}", "same number"},
      {"{\"point_coords\":[[3,4]],\"point_labels\":[1,0]}", "2 labels for 1 points"},
      {"{\"point_coords\":[[3,4]],\"point_labels\":[7]}", "label 0 is 7"},
      {"{\"point_labels\":[1]}", "missing"},
      {"{\"box\":[5,5,5,9]}", "empty"},
      {"{\"box\":[9,5,5,9]}", "empty"},
      {"{\"box\":[1,2,3]}", "x0, y0, x1, y1"},
      {"{\"boxes\":[[1,2,3,4],[2,3,4,5]],\"point_coords\":[[3,4]]}", "2 boxes, but 1"},
      {"{\"point_coords\":\"middle\"}", "list"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    expect_error(m, "segment", &in, cases[i][0], VIV_BAD_INPUT, cases[i][1]);
  float nowhere[2] = {NAN, 3};
  add_data(&in, "point_coords", VIV_F32, nowhere, 2, (const int64_t[]){1, 2});
  expect_error(m, "segment", &in, NULL, VIV_BAD_INPUT, "no place");
  free_inputs(&in);
}

Test(sam, everything_may_be_nothing) {
  viv_model *m = load(open_runtime(), MODEL);
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  run_task(m, "segment", &in, "{\"points_per_side\":2,\"pred_iou_thresh\":1000}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "masks.0")->shape[0], 0);
  free_results(&r);
  run_task(m, "segment_everything", &in,
           "{\"points_per_side\":2,\"pred_iou_thresh\":1000,\"crop_n_layers\":1,"
           "\"min_mask_region_area\":9}",
           &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "rle_counts")->shape[0], 0);
  cr_assert(!has(&r, "masks.0"));
  free_results(&r);
  expect_error(m, "segment_everything", &in, "{\"point_grids\":[[[0.5,0.5]]],\"crop_n_layers\":1}",
               VIV_BAD_INPUT, "each of 2 layers");
  expect_error(m, "segment_everything", &in, "{\"point_grids\":[[[0.5,2]]]}", VIV_BAD_INPUT,
               "from 0 to 1");
  free_inputs(&in);
}

Test(sam, the_medical_form_asks_what_it_looks_at) {
  viv_model *m = load(open_runtime(), MEDICAL);
  inputs in = {0};
  results r;
  add_image(&in, OTHER);
  expect_error(m, "segment", &in, NULL, VIV_BAD_INPUT, "3 fundus");
  expect_error(m, "segment", &in, "{\"domain_seq\":6}", VIV_BAD_INPUT, "domain_seq");
  run_task(m, "segment", &in, "{\"domain_seq\":2}", &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  cr_assert_eq(result_of(&r, "masks.0")->shape[1], 70); /* the picture's own size */
  cr_assert_eq(result_of(&r, "masks.0")->shape[2], 100);
  free_results(&r);
  free_inputs(&in);
}
