/* Depth and motion of cameras that move or come in pairs: what the networks make of frames of any
 * size, and what a folder or a request says wrongly. */
#include <math.h>

#include "changed.h"
#include "pass_rt.h"

#define ENDO "tests/goldens/endo3dac/tiny"
#define STEREO "tests/goldens/ccnext/tiny"
#define LEFT STEREO "/left_0.png"
#define RIGHT STEREO "/right_0.png"
#define VIDEO "tests/goldens/prodepth/tiny"
#define NOW VIDEO "/frame_0_0.png"
#define BEFORE VIDEO "/frame_0_-1.png"
#define FRAME ENDO "/frame_0.png"
#define OTHER ENDO "/other_0.png"

static const float *floats_of(const results *r, const char *name) {
  return result_of(r, name)->data;
}

static void expect_shape(const results *r, const char *name, int64_t height, int64_t width) {
  const viv_tensor *t = result_of(r, name);
  cr_assert_eq(t->shape[t->ndim - 2], height);
  cr_assert_eq(t->shape[t->ndim - 1], width);
  for (uint64_t i = 0; i < t->bytes / 4; i++) cr_assert(isfinite(((float *)t->data)[i]));
}

static void run_pair(viv_model *m, const char *task, const char *names[2], const char *paths[2],
                     results *r) {
  inputs in = {0};
  for (int i = 0; i < 2; i++) add_named_image(&in, names[i], paths[i]);
  run_task(m, task, &in, NULL, r);
  cr_assert_eq(r->status, VIV_OK, "%s: %s", r->error.where, r->error.message);
  free_inputs(&in);
}

static const char *const times[] = {"frame_0", "frame_1"};

/* T and T_inverted undo one another; a picture against itself is told apart from another one. */
Test(depth_frames, motions_have_inverses) {
  viv_model *m = load(open_runtime(), ENDO);
  results r, same;
  run_pair(m, "pose", (const char *[]){times[0], times[1]}, (const char *[]){FRAME, OTHER}, &r);
  run_pair(m, "pose", (const char *[]){times[0], times[1]}, (const char *[]){FRAME, FRAME}, &same);
  const float *a = floats_of(&r, "T"), *b = floats_of(&r, "T_inverted");
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      double sum = 0;
      for (int k = 0; k < 4; k++) sum += (double)a[4 * i + k] * (double)b[4 * k + j];
      cr_assert(fabs(sum - (i == j)) < 1e-5, "row %d, column %d: %g", i, j, sum);
    }
  cr_assert(memcmp(a, floats_of(&same, "T"), 64), "both pairs have the same motion");
  const float *k = floats_of(&r, "K");
  cr_assert(k[0] > 0 && k[5] > 0 && k[10] == 1 && k[15] == 1 && k[1] == 0);
  free_results(&r);
  free_results(&same);
}

Test(depth_frames, a_batch_is_what_each_picture_is_alone) {
  viv_model *m = load(open_runtime(), ENDO);
  inputs one = {0}, both = {0};
  results a, b;
  add_image(&one, OTHER);
  add_image(&both, FRAME);
  add_image(&both, OTHER);
  run_task(m, "depth", &one, NULL, &a);
  run_task(m, "depth", &both, NULL, &b);
  expect_shape(&b, "depth.0", 61, 90);
  const viv_tensor *x = result_of(&a, "depth.0"), *y = result_of(&b, "depth.1");
  cr_assert_eq(x->bytes, y->bytes);
  for (uint64_t i = 0; i < x->bytes / 4; i++) {
    float u = ((float *)x->data)[i], v = ((float *)y->data)[i];
    cr_assert(fabsf(u - v) <= 1e-5f * fabsf(u), "%g and %g", (double)u, (double)v);
  }
  free_results(&a);
  free_results(&b);
  free_inputs(&one);
  free_inputs(&both);
}

/* Depth of each left picture comes at its own size, and the views are not to be exchanged. */
Test(depth_frames, pairs_have_a_left_and_a_right) {
  viv_model *m = load(open_runtime(), STEREO);
  const char *names[] = {"left", "right"};
  results a, b;
  run_pair(m, "stereo_depth", names, (const char *[]){LEFT, RIGHT}, &a);
  run_pair(m, "stereo_depth", names, (const char *[]){FRAME, LEFT}, &b);
  expect_shape(&a, "depth.0", 70, 150);
  expect_shape(&b, "depth.0", 61, 90);
  free_results(&b);
  run_pair(m, "stereo_depth", names, (const char *[]){RIGHT, LEFT}, &b);
  cr_assert(memcmp(floats_of(&a, "disp.0"), floats_of(&b, "disp.0"), 64 * 128 * 4));
  free_results(&a);
  free_results(&b);
}

static const float camera[16] = {0.6f, 0, 0.5f, 0, 0, 1.9f, 0.5f, 0, 0, 0, 1, 0, 0, 0, 0, 1};

static void add_video(inputs *in, int n, const float *k) {
  static const char *const names[] = {"frame_0", "frame_-1", "frame_-2"};
  const char *const paths[] = {NOW, BEFORE, FRAME};
  for (int i = 0; i < n; i++) add_named_image(in, names[i], paths[i]);
  if (k) add_data(in, "K", VIV_F32, k, 2, (const int64_t[]){4, 4});
}

/* More frames are more evidence; the first frame of a film has none before it. */
Test(depth_frames, films_are_matched_with_what_came_before) {
  viv_model *m = load(open_runtime(), VIDEO);
  results r[3];
  for (int i = 0; i < 3; i++) {
    inputs in = {0};
    add_video(&in, i + 1, i ? camera : NULL);
    run_task(m, "video_depth", &in, NULL, &r[i]);
    cr_assert_eq(r[i].status, VIV_OK, "%s: %s", r[i].error.where, r[i].error.message);
    expect_shape(&r[i], "depth.0", 61, 90);
    if (i)
      cr_assert(memcmp(floats_of(&r[i - 1], "disp.0"), floats_of(&r[i], "disp.0"), 48 * 64 * 4));
    if (i) cr_assert_eq(result_of(&r[i], "relative_poses")->shape[1], i);
    free_inputs(&in);
  }
  /* The motion to the frame before is the same with one more frame. */
  cr_assert_arr_eq(floats_of(&r[1], "relative_poses"), floats_of(&r[2], "relative_poses"), 64);
  for (int i = 0; i < 3; i++) free_results(&r[i]);
}

Test(depth_frames, films_without_a_camera_are_refused) {
  static const float flat[16] = {1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
  float bad[16];
  viv_model *m = load(open_runtime(), VIDEO);
  inputs none = {0}, single = {0}, no_camera = {0}, singular = {0}, odd = {0};
  memcpy(bad, camera, sizeof bad);
  bad[2] = NAN;
  add_video(&single, 1, NULL);
  add_video(&no_camera, 2, NULL);
  add_video(&singular, 2, flat);
  add_video(&odd, 2, bad);
  expect_error(m, "video_depth", &none, NULL, VIV_BAD_INPUT, "frame_0");
  expect_error(m, "pose", &single, NULL, VIV_BAD_INPUT, "frame_-1");
  expect_error(m, "video_depth", &no_camera, NULL, VIV_BAD_INPUT, "K");
  expect_error(m, "video_depth", &singular, NULL, VIV_BAD_INPUT, "no inverse");
  expect_error(m, "video_depth", &odd, NULL, VIV_BAD_INPUT, "not finite");
  add_named_image(&odd, "frame_-1", NOW);
  expect_error(m, "video_depth", &odd, NULL, VIV_BAD_INPUT, "frame_0 has 1");
  free_inputs(&single);
  free_inputs(&no_camera);
  free_inputs(&singular);
  free_inputs(&odd);
}

Test(depth_frames, bad_frames_are_refused) {
  viv_model *m = load(open_runtime(), ENDO);
  inputs none = {0}, single = {0}, uneven = {0};
  add_named_image(&single, "frame_0", FRAME);
  add_named_image(&uneven, "frame_0", FRAME);
  add_named_image(&uneven, "frame_0", FRAME);
  add_named_image(&uneven, "frame_1", OTHER);
  expect_error(m, "depth", &none, NULL, VIV_BAD_INPUT, "missing");
  expect_error(m, "pose", &single, NULL, VIV_BAD_INPUT, "frame_1");
  expect_error(m, "pose", &uneven, NULL, VIV_BAD_INPUT, "and 2 of");
  viv_model *stereo = load(open_runtime(), STEREO);
  inputs views = {0};
  add_named_image(&views, "left", LEFT);
  expect_error(stereo, "stereo_depth", &views, NULL, VIV_BAD_INPUT, "right");
  add_named_image(&views, "right", LEFT);
  add_named_image(&views, "right", RIGHT);
  expect_error(stereo, "stereo_depth", &views, NULL, VIV_BAD_INPUT, "1 left pictures and 2");
  free_inputs(&views);
  expect_error(m, "pose", &uneven, "{\"resample\":9}", VIV_BAD_INPUT, "resample");
  free_inputs(&single);
  free_inputs(&uneven);
}

Test(depth_frames, checkpoints_that_do_not_fit_say_why) {
  viv_runtime *rt = open_runtime();
  refuse_model(rt, ENDO, "\"dvlora\"", "\"none\"", "lora_A");
  refuse_model(rt, ENDO, "\"dvlora\"", "\"lora\"", "lora_U");
  refuse_model(rt, ENDO, "\"dvlora\"", "\"dora\"", "dvlora, lora or none");
  refuse_model(rt, ENDO, "\"r\": 3", "\"r\": 4", "lora_A is [3, 24]");
  refuse_model(rt, ENDO, "\"depth\": 5", "\"depth\": 4", "must ascend below");
  refuse_model(rt, ENDO, "\"include_cls_token\": true", "\"include_cls_token\": false", "grid");
  refuse_model(rt, ENDO, "\"num_layers\": 18", "\"num_layers\": 19", "18, 34, 50");
  refuse_model(rt, ENDO, "\"num_layers\": 18", "\"num_layers\": 34", "layer1.2");
  refuse_model(rt, ENDO, "\"learn_intrinsics\": true", "\"learn_intrinsics\": false",
               "intrinsics_head");
  refuse_model(rt, ENDO, "\"pose_hidden\": 7", "\"pose_hidden\": 8", "pose.net.0");
  refuse_model(rt, STEREO, "\"reduced_decoder\": true", "\"reduced_decoder\": false", "decoder.23");
  refuse_model(rt, STEREO, "\"height\": 64", "\"height\": 72", "height and 32");
  refuse_model(rt, STEREO, "\"window_size\": 0.26", "\"window_size\": 2", "window_size");
  refuse_model(rt, STEREO, "6,\n  8,\n  12\n ]", "6,\n  9,\n  12\n ]", "encoder_dims");
  refuse_model(rt, VIDEO, "\"sid\"", "\"log\"", "sid, linear or inverse");
  refuse_model(rt, VIDEO, "\"lite\"", "\"lvt\"", "lite or resnet");
  refuse_model(rt, VIDEO, "\"lite\"", "\"resnet\"", "num_ch_dec");
  refuse_model(rt, VIDEO, "\"height\": 48", "\"height\": 50", "height and the coarsest map");
  refuse_model(rt, VIDEO, "\"num_depth_bins\": 8", "\"num_depth_bins\": 9", "reduce_conv");
  refuse_model(rt, VIDEO, "\"min_depth_bin\": 0.15", "\"min_depth_bin\": 15", "below max");
  refuse_model(rt, VIDEO, "[\n   1,\n   2\n  ]", "[\n   1\n  ]", "a number for each block");
  refuse_model(rt, VIDEO, "[\n   1,\n   2\n  ]", "[\n   1,\n   -2\n  ]", "1 to 1024");
}
