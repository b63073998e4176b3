/* What a person points at: --point and --box become the parameters point_coords, point_labels, box and
 * boxes of the task. And the camera that --intrinsics describes. */
#include <math.h>
#include <stdlib.h>

#include "cli/run.h"

/* "x,y" or "x,y,label": answers how many numbers stand there, at most max; 0: something else does. */
static int read_numbers(const char *text, double *out, int max) {
  int n = 0;
  for (const char *at = text; n < max; at++) {
    char *end;
    out[n] = strtod(at, &end);
    if (end == at || !isfinite(out[n])) return 0;
    n++;
    if (!*end) return n;
    if (*end != ',') return 0;
    at = end;
  }
  return 0;
}

int32_t viv__prompts_read(const viv__list *points, const viv__list *boxes, cJSON *params,
                          viv_error *error) {
  cJSON *coords = NULL, *labels = NULL, *frames = NULL;
  double x[4];
  if (points->n) {
    coords = viv__need(cJSON_AddArrayToObject(params, "point_coords"));
    labels = viv__need(cJSON_AddArrayToObject(params, "point_labels"));
  }
  for (int i = 0; i < points->n; i++) {
    int n = read_numbers(points->items[i], x, 3);
    if (n < 2 || (n == 3 && x[2] != 0 && x[2] != 1))
      return VIV_FAIL(error, VIV_BAD_INPUT, "--point",
                      "\"%s\" is no X,Y in pixels (X,Y,0: what lies there is not meant)",
                      points->items[i]);
    cJSON_AddItemToArray(coords, viv__need(cJSON_CreateDoubleArray(x, 2)));
    cJSON_AddItemToArray(labels, viv__need(cJSON_CreateNumber(n == 3 ? x[2] : 1)));
  }
  if (boxes->n > 1) frames = viv__need(cJSON_AddArrayToObject(params, "boxes"));
  for (int i = 0; i < boxes->n; i++) {
    if (read_numbers(boxes->items[i], x, 4) != 4)
      return VIV_FAIL(error, VIV_BAD_INPUT, "--box", "\"%s\" is no X0,Y0,X1,Y1 in pixels",
                      boxes->items[i]);
    cJSON *box = viv__need(cJSON_CreateDoubleArray(x, 4));
    if (frames)
      cJSON_AddItemToArray(frames, box);
    else
      cJSON_AddItemToObject(params, "box", box);
  }
  /* Who points at something wants to see what the model makes of it, trusted or not. */
  if ((points->n || boxes->n) && !cJSON_GetObjectItemCaseSensitive(params, "threshold"))
    cJSON_AddNumberToObject(params, "threshold", -1);
  return VIV_OK;
}

int32_t viv__intrinsics_read(const char *text, double out[4], viv_error *error) {
  if (read_numbers(text, out, 4) == 4 && out[0] > 0 && out[1] > 0) return VIV_OK;
  return VIV_FAIL(error, VIV_BAD_INPUT, "--intrinsics",
                  "\"%s\" is no FX,FY,CX,CY in pixels with focal lengths above 0", text);
}
