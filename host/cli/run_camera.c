/* The camera behind a sequence of frames: its motion from one to the next, and its intrinsics, from the
 * task `pose` of models that describe how they see motion. */
#include <string.h>

#include "cli/run.h"

struct viv__camera {
  const viv__loaded *l;
  const char
      *frames[2]; /* inputs of the task: the first is seen from, the second at another time */
  const char *result;
  double size[2];   /* height, width that K counts pixels in; 0: unknown */
  bool earlier;     /* the second input is the frame before */
  double world[16]; /* the last frame's camera to the first one's */
  cJSON *list;
};

/* ---- 4 x 4, rigid ---- */

static void multiply(const double a[16], const double b[16], double out[16]) {
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 4; j++) {
      double sum = 0;
      for (int k = 0; k < 4; k++) sum += a[4 * i + k] * b[4 * k + j];
      out[4 * i + j] = sum;
    }
}

/* [R^T, -R^T t] */
static void invert(const double m[16], double out[16]) {
  memset(out, 0, 16 * sizeof *out);
  for (int i = 0; i < 3; i++)
    for (int j = 0; j < 3; j++) {
      out[4 * i + j] = m[4 * j + i];
      out[4 * i + 3] -= m[4 * j + i] * m[4 * j + 3];
    }
  out[15] = 1;
}

static void add_matrix(cJSON *into, const char *name, const double m[16]) {
  cJSON *rows = viv__need(cJSON_AddArrayToObject(into, name));
  for (int i = 0; i < 4; i++) {
    cJSON *row = viv__need(cJSON_CreateArray());
    for (int j = 0; j < 4; j++) cJSON_AddItemToArray(row, viv__float_json((float)m[4 * i + j]));
    cJSON_AddItemToArray(rows, row);
  }
}

/* ---- the model's part ---- */

int32_t viv__camera_open(const viv__loaded *l, viv__camera **out, viv_error *error) {
  const cJSON *own = cJSON_GetObjectItemCaseSensitive(l->about, "model");
  const cJSON *motion = cJSON_GetObjectItemCaseSensitive(own, "motion");
  const cJSON *frames = cJSON_GetObjectItemCaseSensitive(motion, "frames");
  const cJSON *size = cJSON_GetObjectItemCaseSensitive(motion, "size");
  viv__camera *c = viv__need(viv__calloc(1, sizeof *c));
  c->l = l;
  c->result = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(motion, "result"));
  for (int i = 0; i < 2; i++) {
    c->frames[i] = cJSON_GetStringValue(cJSON_GetArrayItem(frames, i));
    c->size[i] = cJSON_GetArraySize(size) == 2 ? cJSON_GetArrayItem(size, i)->valuedouble : 0;
  }
  if (!c->result || !c->frames[0] || !c->frames[1]) {
    viv__free(c);
    return VIV_FAIL(error, VIV_NEVER, "--camera", "this model sees no motion between frames");
  }
  c->earlier = strstr(c->frames[1], "_-") != NULL;
  for (int i = 0; i < 4; i++) c->world[5 * i] = 1;
  c->list = viv__need(cJSON_CreateArray());
  *out = c;
  return VIV_OK;
}

void viv__camera_close(viv__camera *c) {
  if (!c) return;
  cJSON_Delete(c->list);
  viv__free(c);
}

static void keep(void *context, const viv_event *e) {
  if (e->kind == VIV_KIND_TENSOR) viv__tensors_add(context, e->name, e->tensor, false);
}

/* The first 16 numbers of a result. False: there is no such result. */
static bool matrix_of(const viv__tensor_list *list, const char *name, double out[16]) {
  const viv_tensor *t = viv__tensors_find(list, name);
  if (!t || t->dtype != VIV_F32 || t->bytes < 16 * sizeof(float)) return false;
  for (int i = 0; i < 16; i++) out[i] = (double)((const float *)t->data)[i];
  return true;
}

/* fx, fy, cx, cy in pixels of the picture. */
static void lens_of(const viv__camera *c, const double k[16], const viv__picture *header,
                    double lens[4]) {
  double x = header->width / c->size[1], y = header->height / c->size[0];
  lens[0] = k[0] * x;
  lens[1] = k[5] * y;
  lens[2] = k[2] * x;
  lens[3] = k[6] * y;
}

static void add_intrinsics(cJSON *into, const double lens[4]) {
  static const char *const names[] = {"fx", "fy", "cx", "cy"};
  cJSON *o = viv__need(cJSON_AddObjectToObject(into, "intrinsics"));
  for (int i = 0; i < 4; i++) cJSON_AddItemToObject(o, names[i], viv__float_json((float)lens[i]));
}

/* What the task says about two frames: the motion between them as the model counts it, and the lens;
 * seen: whether it told one. */
static int32_t ask(viv__camera *c, const cJSON *params, const viv__picture_item *before,
                   const viv__picture_item *item, const viv__picture *header, double motion[16],
                   double lens[4], bool *seen, viv_error *error) {
  viv_tensor t[2];
  viv__tensor_list list = {0};
  viv__outcome outcome = {0};
  const viv__picture_item *const order[] = {c->earlier ? item : before, c->earlier ? before : item};
  viv_value value[2];
  const viv_value *values[] = {&value[0], &value[1]};
  for (int i = 0; i < 2; i++) value[i] = viv__item_value(order[i], c->frames[i], &t[i]);
  int32_t status =
      viv__job_run(c->l->model, "pose", params, values, 2, NULL, keep, &list, &outcome);
  double k[16];
  if (status < 0) {
    *error = outcome.error;
    error->code = status;
  } else if (!matrix_of(&list, c->result, motion)) {
    status = VIV_FAIL(error, VIV_BUG, c->result, "the model's task pose gave no such matrix");
  } else {
    *seen = c->size[0] > 0 && c->size[1] > 0 && matrix_of(&list, "K", k);
    if (*seen) lens_of(c, k, header, lens);
  }
  viv__outcome_free(&outcome);
  viv__tensors_free(&list);
  return status;
}

/* Runs the task and adds what it says to the frame's object. */
static int32_t see(viv__camera *c, const cJSON *params, const viv__picture_item *before,
                   const viv__picture_item *item, const viv__picture *header, cJSON *into,
                   viv_error *error) {
  double m[16], motion[16], back[16], world[16], lens[4];
  bool seen = false;
  int32_t status = ask(c, params, before, item, header, m, lens, &seen, error);
  if (status < 0) return status;
  /* motion: points of the frame before, as this frame's camera has them. */
  memcpy(c->earlier ? back : motion, m, sizeof m);
  invert(m, c->earlier ? motion : back);
  multiply(c->world, back, world);
  memcpy(c->world, world, sizeof world);
  add_matrix(into, "motion", motion);
  if (seen) add_intrinsics(into, lens);
  return VIV_OK;
}

bool viv__camera_sees_lens(const viv__camera *c) {
  return c->size[0] > 0 && c->size[1] > 0;
}

int32_t viv__camera_lens(viv__camera *c, const cJSON *params, const viv__picture_item *item,
                         const viv__picture *header, double lens[4], viv_error *error) {
  double motion[16];
  bool seen = false;
  int32_t status = ask(c, params, item, item, header, motion, lens, &seen, error);
  if (status < 0 || (seen && lens[0] > 0 && lens[1] > 0)) return status;
  return VIV_FAIL(error, VIV_BAD_INPUT, "--out",
                  "points need the camera, which this model does not tell: --intrinsics "
                  "FX,FY,CX,CY in pixels of the picture");
}

int32_t viv__camera_step(viv__camera *c, const cJSON *params, const viv__picture_item *before,
                         const viv__picture_item *item, const viv__picture *header,
                         viv_error *error) {
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "file", item->name);
  int32_t status = before ? see(c, params, before, item, header, o, error) : VIV_OK;
  if (status < 0) {
    cJSON_Delete(o);
    return status;
  }
  if (!before) cJSON_AddNullToObject(o, "motion");
  add_matrix(o, "camera_to_world", c->world);
  cJSON_AddItemToArray(c->list, o);
  return VIV_OK;
}

int32_t viv__camera_write(const viv__camera *c, const char *path, viv_error *error) {
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddItemReferenceToObject(o, "frames", c->list);
  char *text = viv__need(cJSON_Print(o));
  int32_t status = viv__write_file(path, text, strlen(text), error);
  cJSON_free(text);
  cJSON_Delete(o);
  return status;
}
