/* The zoo's click-segmenter on composed scenes that it was not trained on: each thing in them is asked for by a
 * click where it is deepest, then by two more where the mask is wrong. */
#include "media/media.h"
#include "pass_rt.h"

#define MODEL "zoo/models/click-segmenter"
#define SCENES "tests/data/clicks/scenes"

enum { SCENE_COUNT = 12, SIDE = 256, PIXELS = SIDE * SIDE, LEAST = 100, CLICKS = 3 };

typedef struct clicks {
  int32_t n, x[CLICKS], y[CLICKS], label[CLICKS];
} clicks;

/* How far (in steps to a neighbour) the deepest pixel of the set lies from what is not in it, and where. */
static int32_t deepest(const uint8_t *set, int32_t *x, int32_t *y) {
  static int32_t depth[SIDE + 2][SIDE + 2];
  memset(depth, 0, sizeof depth);
  int32_t best = 0;
  for (int32_t r = 1; r <= SIDE; r++)
    for (int32_t c = 1; c <= SIDE; c++) {
      int32_t up = depth[r - 1][c], left = depth[r][c - 1];
      depth[r][c] = set[(r - 1) * SIDE + c - 1] ? 1 + (up < left ? up : left) : 0;
    }
  for (int32_t r = SIDE; r >= 1; r--)
    for (int32_t c = SIDE; c >= 1; c--) {
      int32_t down = depth[r + 1][c] + 1, right = depth[r][c + 1] + 1,
              near = down < right ? down : right;
      if (near < depth[r][c]) depth[r][c] = near;
      if (depth[r][c] <= best) continue;
      best = depth[r][c];
      *x = c - 1;
      *y = r - 1;
    }
  return best;
}

static void add_click(clicks *k, const uint8_t *thing, const uint8_t *mask) {
  static uint8_t missed[PIXELS], wrong[PIXELS];
  int32_t x[2] = {0}, y[2] = {0};
  for (int32_t i = 0; i < PIXELS; i++) {
    missed[i] = thing[i] && !mask[i];
    wrong[i] = mask[i] && !thing[i];
  }
  int32_t outside = deepest(wrong, &x[0], &y[0]), label = deepest(missed, &x[1], &y[1]) >= outside;
  k->x[k->n] = x[label];
  k->y[k->n] = y[label];
  k->label[k->n++] = label;
}

static double overlap(const uint8_t *a, const uint8_t *b) {
  int64_t both = 0, either = 0;
  for (int32_t i = 0; i < PIXELS; i++) {
    both += a[i] && b[i];
    either += a[i] || b[i];
  }
  return either ? (double)both / (double)either : 0;
}

/* The session has seen the picture. */
static void ask(viv_model *m, viv_session *session, const clicks *k, uint8_t *mask) {
  char xy[CLICKS * 16] = "", labels[CLICKS * 4] = "", params[160];
  for (int32_t i = 0; i < k->n; i++) {
    snprintf(xy + strlen(xy), sizeof xy - strlen(xy), "%s[%d,%d]", i ? "," : "", (int)k->x[i],
             (int)k->y[i]);
    snprintf(labels + strlen(labels), sizeof labels - strlen(labels), "%s%d", i ? "," : "",
             (int)k->label[i]);
  }
  snprintf(params, sizeof params, "{\"point_coords\":[%s],\"point_labels\":[%s]}", xy, labels);
  inputs none = {0};
  results r;
  run_in_session(m, session, "segment", &none, params, &r);
  cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
  const viv_tensor *t = result_of(&r, "masks.0");
  cr_assert_eq(t->bytes, PIXELS);
  memcpy(mask, t->data, PIXELS);
  free_results(&r);
}

/* The number of the thing at each pixel. */
static viv__picture map_of(const char *path) {
  viv_error e = VIV_ERROR_INIT;
  viv__picture_options gray = {.channels = 1};
  viv__picture out;
  char *bytes = NULL;
  size_t n = 0;
  cr_assert_eq(viv__read_file(path, 1 << 20, &bytes, &n, &e), VIV_OK, "%s: %s", e.where, e.message);
  cr_assert_eq(viv__picture_decode(bytes, n, path, &gray, &out, &e), VIV_OK, "%s", e.message);
  cr_assert(out.width == SIDE && out.height == SIDE);
  viv__free(bytes);
  return out;
}

Test(clicks, things_in_unseen_scenes_are_found) {
  static uint8_t thing[PIXELS], mask[PIXELS];
  static const uint8_t nothing[PIXELS];
  viv_model *m = load(open_runtime(), MODEL);
  double sum[CLICKS] = {0};
  int32_t things = 0;
  for (int32_t s = 0; s < SCENE_COUNT; s++) {
    char path[80];
    inputs picture = {0};
    results r;
    viv_session *session = NULL;
    cr_assert_eq(viv_session_open(m, &session, NULL), VIV_OK);
    snprintf(path, sizeof path, SCENES "/%03d.jpg", (int)s);
    add_image(&picture, path);
    snprintf(path, sizeof path, SCENES "/%03d.png", (int)s);
    viv__picture map = map_of(path);
    run_in_session(m, session, "embed_image", &picture, NULL, &r);
    cr_assert_eq(r.status, VIV_OK, "%s: %s", r.error.where, r.error.message);
    free_results(&r);
    const uint8_t *number = map.data;
    for (int32_t which = 1; which < 256; which++) {
      int32_t size = 0;
      for (int32_t i = 0; i < PIXELS; i++) size += thing[i] = number[i] == which;
      if (size < LEAST || size > PIXELS / 20 * 19) continue;
      clicks k = {0};
      things++;
      for (int32_t c = 0; c < CLICKS; c++) {
        add_click(&k, thing, c ? mask : nothing);
        ask(m, session, &k, mask);
        sum[c] += overlap(thing, mask);
      }
    }
    free_inputs(&picture);
    viv__picture_free(&map);
    viv_session_close(session);
  }
  double first = sum[0] / things, third = sum[CLICKS - 1] / things;
  cr_log_info("%d things: IoU %.3f after 1 click, %.3f after 3\n", (int)things, first, third);
  cr_assert_gt(things, 40);
  cr_assert_gt(first, 0.48);
  cr_assert_gt(third, 0.58);
}
