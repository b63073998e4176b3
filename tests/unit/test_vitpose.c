/* ViTPose: a person's door is the official three steps, and what it refuses. */
#include <math.h>

#include "pass_rt.h"

#define MODEL "tests/goldens/vitpose/simple"
#define IMAGE MODEL "/image0.png"

enum { KEYPOINTS = 5 };

static const float two_boxes[] = {10, 5, 40, 70, -8, 20, 60, 30};
static const int64_t two_by_four[] = {2, 4};

/* Opens the model; both live as long as the test. */
static viv_model *open_model(void) {
  return load(open_runtime(), MODEL);
}

Test(vitpose, pose_is_crop_network_and_decoding) {
  viv_model *m = open_model();
  inputs in = {0}, maps = {0}, all = {0};
  results cut, out, points, pose;
  add_image(&in, IMAGE);
  add_data(&in, "boxes", VIV_F32, two_boxes, 2, two_by_four);
  run_task(m, "preprocess", &in, NULL, &cut);
  add_tensor(&maps, "pixel_values", result_of(&cut, "pixel_values"));
  run_task(m, "forward", &maps, NULL, &out);
  add_tensor(&all, "heatmaps", result_of(&out, "heatmaps"));
  add_data(&all, "boxes", VIV_F32, two_boxes, 2, two_by_four);
  run_task(m, "postprocess", &all, NULL, &points);
  run_task(m, "pose", &in, NULL, &pose);
  const viv_tensor *mine = result_of(&pose, "keypoints.0");
  const float *k = mine->data, *xy = result_of(&points, "keypoints")->data;
  const float *scores = result_of(&points, "scores")->data;
  cr_assert_eq(mine->shape[0], 2);
  cr_assert_eq(mine->shape[1], KEYPOINTS);
  for (int i = 0; i < 2 * KEYPOINTS; i++) {
    cr_assert_eq(k[3 * i], xy[2 * i]);
    cr_assert_eq(k[3 * i + 1], xy[2 * i + 1]);
    cr_assert_eq(k[3 * i + 2], scores[i]);
  }
  const float *corners = result_of(&pose, "boxes.0")->data;
  cr_assert_eq(corners[6], two_boxes[4] + two_boxes[6]);
  free_inputs(&in);
}

Test(vitpose, a_detector_s_boxes_are_corners_of_their_picture) {
  viv_model *m = open_model();
  static const float corners[] = {-8, 20, 52, 50};
  static const int64_t one[] = {1, 4}, last[] = {1};
  inputs in = {0}, own = {0};
  results from_detector, from_user;
  add_image(&in, IMAGE);
  add_image(&in, IMAGE);
  add_data(&in, "boxes.1", VIV_F32, corners, 2, one);
  run_task(m, "pose", &in, NULL, &from_detector);
  cr_assert_eq(result_of(&from_detector, "keypoints.0")->shape[0], 0);
  cr_assert_eq(result_of(&from_detector, "scores.0")->shape[0], 0);
  add_image(&own, IMAGE);
  add_data(&own, "boxes", VIV_F32, two_boxes + 4, 2, one);
  add_data(&own, "image_index", VIV_I64, &(int64_t){0}, 1, last);
  run_task(m, "pose", &own, NULL, &from_user);
  const viv_tensor *a = result_of(&from_detector, "keypoints.1");
  cr_assert_arr_eq(a->data, result_of(&from_user, "keypoints.0")->data, a->bytes);
  free_inputs(&in);
  free_inputs(&own);
}

Test(vitpose, boxes_may_be_written_as_corners) {
  viv_model *m = open_model();
  static const int64_t two[] = {2};
  static const float sure[] = {0.5f, 0.25f};
  inputs in = {0}, typed = {0};
  results a, b;
  add_image(&in, IMAGE);
  add_image(&typed, IMAGE);
  add_data(&in, "boxes", VIV_F32, two_boxes, 2, two_by_four);
  add_data(&in, "box_scores", VIV_F32, sure, 1, two);
  run_task(m, "pose", &in, NULL, &a);
  run_task(m, "pose", &typed, "{\"boxes\":[[10,5,50,75],[-8,20,52,50]],\"box_scores\":[0.5,0.25]}",
           &b);
  const viv_tensor *k = result_of(&a, "keypoints.0");
  cr_assert_arr_eq(k->data, result_of(&b, "keypoints.0")->data, k->bytes);
  cr_assert_arr_eq(result_of(&a, "scores.0")->data, result_of(&b, "scores.0")->data, 8);
  run_task(m, "pose", &typed, "{\"box\":[10,5,50,75]}", &b);
  cr_assert_eq(result_of(&b, "keypoints.0")->shape[0], 1);
  cr_assert_arr_eq(k->data, result_of(&b, "keypoints.0")->data, k->bytes / 2);
  run_task(m, "pose", &typed, "{\"boxes\":[]}", &b);
  cr_assert_eq(result_of(&b, "keypoints.0")->shape[0], 0);
  expect_error(m, "pose", &typed, "{\"boxes\":[[1,2,3]]}", VIV_BAD_INPUT, "item 0");
  expect_error(m, "pose", &typed, "{\"boxes\":[[1,2,3,\"4\"]]}", VIV_BAD_INPUT, "no number");
  expect_error(m, "pose", &typed, "{\"boxes\":7}", VIV_BAD_INPUT, "list");
  expect_error(m, "pose", &typed, "{\"boxes\":[[1,2,1,4]]}", VIV_BAD_INPUT, "above 0");
  expect_error(m, "pose", &typed, "{\"box\":[1,2,3,4],\"box_scores\":[]}", VIV_BAD_INPUT,
               "box_scores");
  free_inputs(&in);
  free_inputs(&typed);
}

Test(vitpose, without_boxes_a_picture_is_one_person) {
  viv_model *m = open_model();
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  run_task(m, "pose", &in, NULL, &r);
  const float *corners = result_of(&r, "boxes.0")->data;
  cr_assert_eq(result_of(&r, "keypoints.0")->shape[0], 1);
  cr_assert_eq(corners[0], 0);
  cr_assert_gt(corners[2], 1);
  free_inputs(&in);
}

/* Many persons are run a few at a time: a person's keypoints are those of the person alone. */
Test(vitpose, a_person_in_a_crowd_is_the_person_alone) {
  viv_model *m = open_model();
  enum { CROWD = 11 };
  float boxes[4 * CROWD];
  static const int64_t crowd[] = {CROWD, 4}, one[] = {1, 4};
  for (int i = 0; i < CROWD; i++)
    for (int k = 0; k < 4; k++) boxes[4 * i + k] = two_boxes[k] + (float)(k < 2 ? i : 0);
  inputs in = {0}, alone = {0};
  results all, single;
  add_image(&in, IMAGE);
  add_data(&in, "boxes", VIV_F32, boxes, 2, crowd);
  add_image(&alone, IMAGE);
  add_data(&alone, "boxes", VIV_F32, boxes + 4 * (CROWD - 1), 2, one);
  run_task(m, "pose", &in, NULL, &all);
  run_task(m, "pose", &alone, NULL, &single);
  const float *a = result_of(&all, "keypoints.0")->data;
  const float *b = result_of(&single, "keypoints.0")->data;
  for (int i = 0; i < 3 * KEYPOINTS; i++)
    cr_assert_float_eq(a[(CROWD - 1) * 3 * KEYPOINTS + i], b[i], 1e-3);
  free_inputs(&in);
  free_inputs(&alone);
}

Test(vitpose, the_flip_test_of_a_mirrored_picture_mirrors_the_maps) {
  viv_model *m = open_model();
  static const int64_t shape[] = {1, 3, 64, 48};
  static const char *const flip = "{\"flip_test\":true,\"flip_pairs\":[[1,2],[3,4]]}";
  static const int swap[KEYPOINTS] = {0, 2, 1, 4, 3};
  float *x = malloc(3 * 64 * 48 * sizeof *x), *y = malloc(3 * 64 * 48 * sizeof *y);
  for (int i = 0; i < 3 * 64 * 48; i++) x[i] = sinf((float)i * 0.37f);
  for (int i = 0; i < 3 * 64; i++)
    for (int j = 0; j < 48; j++) y[i * 48 + j] = x[i * 48 + 47 - j];
  inputs a = {0}, b = {0};
  results one, other;
  add_data(&a, "pixel_values", VIV_F32, x, 4, shape);
  add_data(&b, "pixel_values", VIV_F32, y, 4, shape);
  run_task(m, "forward", &a, flip, &one);
  run_task(m, "forward", &b, flip, &other);
  const float *p = result_of(&one, "heatmaps")->data, *q = result_of(&other, "heatmaps")->data;
  for (int k = 0; k < KEYPOINTS; k++)
    for (int i = 0; i < 32; i++)
      for (int j = 0; j < 24; j++)
        cr_assert_float_eq(p[(k * 32 + i) * 24 + j], q[(swap[k] * 32 + i) * 24 + 23 - j], 1e-5);
  free(x);
  free(y);
}

Test(vitpose, bad_inputs) {
  viv_model *m = open_model();
  static const int64_t one[] = {1, 4}, three[] = {1, 3}, index[] = {1}, small[] = {1, 3, 8, 8},
                       flat[] = {1, 5, 1, 1}, gray[] = {4, 4, 1};
  static const float flat_box[] = {1, 2, 0, 5}, nan_box[] = {NAN, 2, 3, 5}, zeros[192] = {0};
  inputs none = {0}, in;
  expect_error(m, "pose", &none, NULL, VIV_BAD_INPUT, "image");
  in = (inputs){0};
  add_image(&in, IMAGE);
  add_data(&in, "boxes", VIV_F32, flat_box, 2, one);
  expect_error(m, "pose", &in, NULL, VIV_BAD_INPUT, "box 0");
  memcpy(&in.tensor[1].data, &(const float *){nan_box}, sizeof(void *));
  expect_error(m, "pose", &in, NULL, VIV_BAD_INPUT, "box 0");
  memcpy(&in.tensor[1].shape, three, sizeof three);
  in.tensor[1].bytes = 12;
  expect_error(m, "pose", &in, NULL, VIV_BAD_INPUT, "boxes");
  in.n = 1;
  add_data(&in, "boxes", VIV_F32, two_boxes, 2, one);
  add_data(&in, "image_index", VIV_I64, &(int64_t){3}, 1, index);
  expect_error(m, "pose", &in, NULL, VIV_BAD_INPUT, "image_index");
  free_inputs(&in);
  in = (inputs){0};
  add_data(&in, "image", VIV_U8, zeros, 3, gray);
  expect_error(m, "pose", &in, NULL, VIV_BAD_INPUT, "image");
  in = (inputs){0};
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, small);
  expect_error(m, "forward", &in, NULL, VIV_BAD_INPUT, "pixel_values");
  in = (inputs){0};
  add_data(&in, "heatmaps", VIV_F32, zeros, 4, flat);
  add_data(&in, "boxes", VIV_F32, two_boxes, 2, one);
  expect_error(m, "postprocess", &in, NULL, VIV_BAD_INPUT, "heatmaps");
}

Test(vitpose, flip_pairs_must_be_keypoints) {
  viv_model *m = open_model();
  static const int64_t shape[] = {1, 3, 64, 48};
  float *zeros = calloc(3 * 64 * 48, sizeof *zeros);
  inputs in = {0};
  add_data(&in, "pixel_values", VIV_F32, zeros, 4, shape);
  expect_error(m, "forward", &in, "{\"flip_test\":true}", VIV_BAD_INPUT, "flip_pairs");
  expect_error(m, "forward", &in, "{\"flip_test\":true,\"flip_pairs\":[[0,5]]}", VIV_BAD_INPUT,
               "pair 0");
  free(zeros);
}

/* A folder with a preprocessor_config.json and nothing else cuts out persons, and says so. */
Test(vitpose, a_processor_alone_can_cut_out_persons) {
  viv_model *m = load(open_runtime(), "tests/goldens/vitpose/preprocess");
  inputs in = {0};
  results r;
  add_image(&in, IMAGE);
  run_task(m, "preprocess", &in, NULL, &r);
  cr_assert_eq(result_of(&r, "pixel_values")->shape[2], 48);
  expect_error(m, "pose", &in, NULL, VIV_NEVER, "no task pose");
  free_inputs(&in);
}
