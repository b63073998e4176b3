/* Operations that sample maps and pictures: resize, interpolate, grid_sample, deformable attention,
 * roi_align. */
#include "ops.h"

#include "media/media.h"

static int32_t filter_named(const char *mode) {
  static const struct {
    const char *name;
    int32_t filter;
  } known[] = {{"nearest", VIV_NEAREST},  {"nearest-exact", VIV_NEAREST_EXACT},
               {"linear", VIV_LINEAR},    {"bilinear", VIV_LINEAR},
               {"trilinear", VIV_LINEAR}, {"bicubic", VIV_CUBIC},
               {"area", VIV_AREA}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(mode, known[i].name)) return known[i].filter;
  return 0;
}

static bool interpolate(struct golden *g) {
  struct array x = input(g, "input");
  double scale = num_param(g, "scale_factor", 0);
  viv_resize a = {
      .struct_size = sizeof a,
      .filter = filter_named(text_param(g, "mode", "")),
      .dims = x.ndim - 2,
      .channels = 1,
      .batch = x.shape[0] * x.shape[1],
      .align_corners = flag_param(g, "align_corners", false),
      .antialias = flag_param(g, "antialias", false),
      .x = x.data,
  };
  int64_t n = a.batch;
  for (int32_t i = 0; i < a.dims; i++) {
    a.size[i] = (int32_t)x.shape[i + 2];
    a.out_size[i] = (int32_t)(scale > 0 ? floor(a.size[i] * scale) : list_param(g, "size", i));
    a.scale[i] = scale;
    n *= a.out_size[i];
  }
  if (!a.filter) return false;
  a.out = take_floats(g, n);
  g->c->resize(g->c, &a);
  output(g, "y", a.out, n);
  return true;
}

static uint8_t *resized(struct golden *g, int32_t form, int32_t filter, const uint8_t *x,
                        int32_t height, int32_t width, int32_t out_height, int32_t out_width) {
  viv_resize_u8 a = {
      .struct_size = sizeof a,
      .form = form,
      .filter = filter,
      .height = height,
      .width = width,
      .channels = 3,
      .out_height = out_height,
      .out_width = out_width,
      .x = x,
      .out = take(g, (int64_t)out_height * out_width * 3),
  };
  a.scratch = take(g, (int64_t)g->c->resize_u8_scratch(g->c, &a));
  g->c->resize_u8(g->c, &a);
  return a.out;
}

/* The golden of torchvision's float form is the value before its rounding. */
static void resize_float(struct golden *g, const viv__picture *p, int32_t height, int32_t width) {
  int64_t n = (int64_t)p->width * p->height * 3, m = (int64_t)height * width * 3;
  float *x = take_floats(g, n), *y = take_floats(g, m);
  for (int64_t i = 0; i < n; i++) x[i] = ((const uint8_t *)p->data)[i];
  viv_resize a = {
      .struct_size = sizeof a,
      .filter = VIV_LINEAR,
      .dims = 2,
      .channels = 3,
      .batch = 1,
      .size = {p->height, p->width},
      .out_size = {height, width},
      .antialias = 1,
      .x = x,
      .out = y,
  };
  g->c->resize(g->c, &a);
  output(g, "y", y, m);
  const uint8_t *u8 =
      resized(g, VIV_RESIZE_TORCH_FLOAT, VIV_LINEAR, p->data, p->height, p->width, height, width);
  for (int64_t i = 0; i < m; i++) {
    if (fabsf(y[i] - u8[i]) <= 0.5f + 1e-4f) continue;
    printf("    torchvision_float: [%lld] %d is not %.6f rounded\n", (long long)i, u8[i], y[i]);
    g->failed++;
    return;
  }
}

static bool resize(struct golden *g) {
  static const int32_t filters[] = {VIV_NEAREST, VIV_LANCZOS, VIV_LINEAR,
                                    VIV_CUBIC,   VIV_BOX,     VIV_HAMMING}; /* PIL's numbers */
  viv_error error = VIV_ERROR_INIT;
  viv__picture p = {0};
  viv__picture_options o = {.channels = 3, .arena = g->arena};
  char *path = file_input(g, "image"), *bytes = NULL;
  size_t len = 0;
  if (!path) return false;
  if (viv__read_file(path, 64 << 20, &bytes, &len, &error) ||
      viv__picture_decode(bytes, len, path, &o, &p, &error))
    die(path, error.message);
  viv__free(bytes);
  int32_t height = (int32_t)list_param(g, "size", 0), width = (int32_t)list_param(g, "size", 1);
  int32_t resample = (int32_t)num_param(g, "resample", 2);
  const char *library = text_param(g, "library", "");
  if (resample < 0 || resample > 5) return false;
  int32_t filter = filters[resample], form = 0;
  if (!strcmp(library, "torchvision_float")) {
    resize_float(g, &p, height, width);
    return true;
  }
  const uint8_t *x = p.data;
  int32_t rows = p.height;
  if (!strncmp(library, "pil", 3)) form = VIV_RESIZE_PILLOW;
  if (!strcmp(library, "torchvision_int16")) form = VIV_RESIZE_TORCH_INT16;
  if (!form) return false;
  if (!strcmp(library, "pil13")) { /* rows first: the same two passes, asked for one by one */
    x = resized(g, form, filter, x, rows, p.width, height, p.width);
    rows = height;
  }
  output_bytes(g, "y", resized(g, form, filter, x, rows, p.width, height, width),
               (int64_t)height * width * 3);
  return true;
}

static bool grid_sample(struct golden *g) {
  struct array x = input(g, "input"), grid = input(g, "grid");
  const char *border = text_param(g, "padding_mode", "zeros");
  viv_grid_sample a = {
      .struct_size = sizeof a,
      .filter = filter_named(text_param(g, "mode", "bilinear")),
      .border = !strcmp(border, "border")       ? VIV_BORDER_EDGE
                : !strcmp(border, "reflection") ? VIV_BORDER_REFLECT
                                                : VIV_BORDER_ZEROS,
      .align_corners = flag_param(g, "align_corners", false),
      .batch = (int32_t)x.shape[0],
      .channels = (int32_t)x.shape[1],
      .height = (int32_t)x.shape[2],
      .width = (int32_t)x.shape[3],
      .out_height = (int32_t)grid.shape[1],
      .out_width = (int32_t)grid.shape[2],
      .x = x.data,
      .grid = grid.data,
  };
  int64_t n = grid.n / 2 * x.shape[1];
  if (!a.filter) return false;
  a.out = take_floats(g, n);
  g->c->grid_sample(g->c, &a);
  output(g, "y", a.out, n);
  return true;
}

static bool roi_align(struct golden *g) {
  struct array x = input(g, "input"), boxes = input(g, "boxes");
  viv_roi_align a = {
      .struct_size = sizeof a,
      .channels = (int32_t)x.shape[1],
      .height = (int32_t)x.shape[2],
      .width = (int32_t)x.shape[3],
      .out_height = (int32_t)list_param(g, "output_size", 0),
      .out_width = (int32_t)list_param(g, "output_size", 1),
      .sampling_ratio = (int32_t)num_param(g, "sampling_ratio", 0),
      .aligned = flag_param(g, "aligned", false),
      .spatial_scale = (float)num_param(g, "spatial_scale", 1),
      .boxes = boxes.shape[0],
      .x = x.data,
      .box = boxes.data,
  };
  int64_t n = a.boxes * a.channels * a.out_height * a.out_width;
  a.out = take_floats(g, n);
  g->c->roi_align(g->c, &a);
  output(g, "y", a.out, n);
  return true;
}

/* ---- deformable attention ---- */

/* The levels' sizes stand in the call's input, in its params or in config.json. */
static int32_t levels_of(struct golden *g, int32_t *shapes) {
  struct array given = input(g, "spatial_shapes");
  if (!given.data) given = input(g, "value_spatial_shapes");
  for (int64_t i = 0; i < given.n && i < 32; i++) shapes[i] = (int32_t)given.data[i];
  if (given.data) return (int32_t)(given.n / 2);
  const viv_json *list = viv__json_get(g->params, "spatial_shapes");
  if (!list) list = viv__json_get(g->config, "spatial_shapes");
  if (!list) list = viv__json_get(viv__json_get(g->meta, "run"), "spatial_shapes");
  int32_t n = (int32_t)viv__json_count(list);
  for (int32_t i = 0; i < n && i < 16; i++)
    for (int k = 0; k < 2; k++)
      shapes[2 * i + k] = (int32_t)viv__json_number(viv__json_item(viv__json_item(list, i), k));
  return n;
}

static bool deform_core(struct golden *g) {
  struct array value = input(g, "value"), at = input(g, "sampling_locations");
  struct array w = input(g, "attention_weights");
  int32_t shapes[32];
  viv_deform a = {
      .struct_size = sizeof a,
      .batch = (int32_t)value.shape[0],
      .queries = (int32_t)at.shape[1],
      .heads = (int32_t)value.shape[2],
      .head_dim = (int32_t)value.shape[3],
      .levels = levels_of(g, shapes),
      .points = (int32_t)at.shape[4],
      .shapes = shapes,
      .values = value.shape[1],
      .value = value.data,
      .locations = at.data,
      .weights = w.data,
  };
  int64_t n = (int64_t)a.batch * a.queries * a.heads * a.head_dim;
  if (a.levels != at.shape[3]) return false;
  a.out = take_floats(g, n);
  g->c->deform(g->c, &a);
  output(g, "y", a.out, n);
  return true;
}

/* The whole module (GroupPose's MSDeformAttn) around the core. */
static bool deform_module(struct golden *g) {
  const char *prefix = text_param(g, "weights", "");
  struct array query = input(g, "query"), source = input(g, "input_flatten");
  struct array at = input(g, "reference_points"), mask = input(g, "input_padding_mask");
  struct array wo = weight(g, prefix, "sampling_offsets.weight");
  struct array wa = weight(g, prefix, "attention_weights.weight");
  int32_t shapes[32];
  int64_t batch = query.shape[0], queries = query.shape[1], d = query.shape[2];
  int64_t heads = (int64_t)viv__json_num(g->config, "n_heads", 8), width = at.shape[3];
  int64_t levels = levels_of(g, shapes), points = wa.shape[0] / heads / levels;
  int64_t rows = batch * queries, samples = heads * levels * points;
  float *value = apply(g, weight(g, prefix, "value_proj.weight"),
                       weight(g, prefix, "value_proj.bias").data, source.data, source.n / d);
  for (int64_t i = 0; mask.data && i < mask.n; i++)
    if (mask.data[i] != 0) memset(value + i * d, 0, (size_t)d * sizeof *value);
  float *where = apply(g, wo, weight(g, prefix, "sampling_offsets.bias").data, query.data, rows);
  float *w = apply(g, wa, weight(g, prefix, "attention_weights.bias").data, query.data, rows);
  g->c->softmax(g->c, w, rows * heads, levels * points, w);
  for (int64_t i = 0; i < rows * samples * 2; i++) {
    int64_t axis = i % 2, level = i / 2 / points % levels, row = i / 2 / samples;
    const float *from = at.data + (row * levels + level) * width;
    where[i] = width == 2 ? from[axis] + where[i] / (float)shapes[2 * level + 1 - axis]
                          : from[axis] + where[i] / (float)points * from[2 + axis] * 0.5f;
  }
  float *heard = take_floats(g, query.n);
  viv_deform a = {.struct_size = sizeof a,
                  .batch = (int32_t)batch,
                  .queries = (int32_t)queries,
                  .heads = (int32_t)heads,
                  .head_dim = (int32_t)(d / heads),
                  .levels = (int32_t)levels,
                  .points = (int32_t)points,
                  .shapes = shapes,
                  .values = source.shape[1],
                  .value = value,
                  .locations = where,
                  .weights = w,
                  .out = heard};
  g->c->deform(g->c, &a);
  output(g, "y",
         apply(g, weight(g, prefix, "output_proj.weight"),
               weight(g, prefix, "output_proj.bias").data, heard, rows),
         query.n);
  return true;
}

const struct op map_ops[] = {
    {"interpolate", interpolate},
    {"resize", resize},
    {"grid_sample", grid_sample},
    {"roi_align", roi_align},
    {"ms_deform_attn_core", deform_core},
    {"ms_deform_attn", deform_module},
    {NULL, NULL},
};
