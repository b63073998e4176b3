/* MoveNet: weight names of the published graph, the table of the plugin.
 *
 * The file has TensorFlow's shapes: kernels [height, width, in, out], depthwise ones [height, width,
 * in, 1], batch norms folded in. Widths are read from the file; what the graph wires (strides, which
 * blocks feed the pyramid) is fixed. */
#include <stdio.h>
#include <string.h>

#include "movenet/movenet.h"

#define GRAPH "StatefulPartitionedCall/"
#define BACKBONE GRAPH "center_net_mobile_net_v2fpn_feature_extractor/model_1/"

/* ---- kernels ---- */

static bool shape_of(const nn_loader *l, const char *name, int64_t out[4]) {
  char full[320];
  viv_tensor t;
  snprintf(full, sizeof full, "%s%s", l->prefix, name);
  if (l->host->tensor_find(l->source->checkpoint, nn_str(full), &t) < 0 || t.ndim != 4)
    return false;
  memcpy(out, t.shape, 4 * sizeof *out);
  return true;
}

/* kernel and bias by their names under the prefix, bias NULL: none. Answers the channels that come
 * out, in every walk; those that go in must be `in`. */
static int32_t load_conv(nn_loader *l, const char *kernel, const char *bias, int32_t in,
                         bool depthwise, int32_t stride, nn_same_conv *conv) {
  int64_t s[4] = {1, 1, in, in}; /* when it is missing: whatever lets the walk go on */
  bool there = shape_of(l, kernel, s);
  int64_t out = depthwise ? in : s[3];
  if (out < 1 || out > 1 << 16 || s[0] < 1 || s[0] > 15) {
    out = in;
    s[0] = 1;
    there = false;
  }
  nn_same_spec spec = {.kernel = kernel,
                       .bias = bias,
                       .in = in,
                       .out = (int32_t)out,
                       .size = (int32_t)s[0],
                       .stride = stride,
                       .depthwise = depthwise};
  nn_load_same_conv(l, &spec, conv);
  if (!there && !l->status && l->pass == NN_CHECK)
    l->status = nn_fail(l->error, VIV_BAD_INPUT, kernel, "is no kernel of at most 15 x 15");
  return (int32_t)out;
}

/* name/Conv2D_weights and the like: what is left of a convolution with its batch norm. */
static int32_t folded(nn_loader *l, const char *name, const char *op, int32_t in, int32_t stride,
                      nn_same_conv *conv) {
  char kernel[96], bias[96];
  snprintf(kernel, sizeof kernel, "%s/%s_weights", name, op);
  snprintf(bias, sizeof bias, "%s/%s_bn_offset", name, op);
  return load_conv(l, kernel, bias, in, !strcmp(op, "depthwise"), stride, conv);
}

/* name/Conv2D and name/BiasAdd. */
static int32_t plain(nn_loader *l, const char *name, int32_t in, nn_same_conv *conv) {
  char kernel[128], bias[128];
  snprintf(kernel, sizeof kernel, "%s/Conv2D/ReadVariableOp", name);
  snprintf(bias, sizeof bias, "%s/BiasAdd/ReadVariableOp", name);
  return load_conv(l, kernel, bias, in, false, 1, conv);
}

/* ---- tables ---- */

static int32_t load_block(nn_loader *l, int32_t i, int32_t in, struct movenet_block *w) {
  char name[48];
  int32_t width = in;
  if (i) {
    snprintf(name, sizeof name, "block_%d_expand", (int)i);
    width = folded(l, name, "Conv2D", in, 1, &w->expand);
  }
  int32_t stride = i == 1 || i == 3 || i == 6 || i == 13 ? 2 : 1;
  snprintf(name, sizeof name, i ? "block_%d_depthwise" : "expanded_conv_depthwise", (int)i);
  folded(l, name, "depthwise", width, stride, &w->depthwise);
  snprintf(name, sizeof name, i ? "block_%d_project" : "expanded_conv_project", (int)i);
  return folded(l, name, "Conv2D", width, 1, &w->project);
}

/* top: channels that come from above; map: of the backbone's map. */
static int32_t load_level(nn_loader *l, int32_t i, int32_t top, int32_t map,
                          struct movenet_level *w) {
  char name[64], bias[64];
  snprintf(name, sizeof name, "conv2d_%d", (int)i + 1);
  if (plain(l, name, map, &w->lateral) != top && l->pass == NN_CHECK && !l->status)
    l->status = nn_fail(l->error, VIV_BAD_INPUT, name,
                        "its outputs are not the %d of the map "
                        "that is added to them",
                        (int)top);
  const char *number = i == 0 ? "" : i == 1 ? "_1" : "_2";
  snprintf(name, sizeof name, "separable_conv2d%s/separable_conv2d/ReadVariableOp", number);
  load_conv(l, name, NULL, top, true, 1, &w->depthwise);
  snprintf(name, sizeof name, "separable_conv2d%s/separable_conv2d_weights", number);
  snprintf(bias, sizeof bias, "separable_conv2d%s/separable_conv2d_bn_offset", number);
  return load_conv(l, name, bias, top, false, 1, &w->pointwise);
}

static void load_head(nn_loader *l, const char *name, int32_t i, int32_t in, int32_t wanted,
                      struct movenet_head *w) {
  char kernel[96], bias[96];
  size_t outer = nn_in(l, "%s/", name);
  snprintf(kernel, sizeof kernel, "separable_conv2d_%d/separable_conv2d/ReadVariableOp", (int)i);
  load_conv(l, kernel, NULL, in, true, 1, &w->depthwise);
  snprintf(kernel, sizeof kernel, "separable_conv2d_%d/separable_conv2d/ReadVariableOp_1", (int)i);
  snprintf(bias, sizeof bias, "separable_conv2d_%d/BiasAdd/ReadVariableOp", (int)i);
  int32_t hidden = load_conv(l, kernel, bias, in, false, 1, &w->hidden);
  snprintf(kernel, sizeof kernel, "conv2d_%d", (int)i + 1);
  int32_t out = plain(l, kernel, hidden, &w->out);
  nn_out(l, outer);
  if (out != wanted && l->pass == NN_CHECK && !l->status)
    l->status = nn_fail(l->error, VIV_BAD_INPUT, name, "%d channels come out, %d are expected",
                        (int)out, (int)wanted);
}

static void load_constants(nn_loader *l, struct movenet_model *m) {
  const int64_t three[1] = {3}, one[1] = {1}, two[1] = {2};
  const int64_t map[2] = {m->cells, m->cells};
  nn_load_tensor(l, "Reshape", true, 1, three, &m->offset);
  nn_load_tensor(l, "truediv", true, 1, three, &m->scale);
  nn_load_tensor(l, "sub_1/y", true, 1, one, &m->shift);
  nn_load_tensor(l, "add_5/y", true, 1, one, &m->away);
  nn_load_tensor(l, "Reshape_13", true, 1, two, &m->unit);
  nn_load_tensor(l, "strided_slice_3", true, 2, map, &m->row);
  nn_load_tensor(l, "strided_slice_4", true, 2, map, &m->column);
}

/* Whole numbers of the graph (axes, shapes, indices), which the pass knows. */
static void ignore_graph(nn_loader *l) {
  static const char *const names[] = {"*/dim",         "*/shape",
                                      "*/axis",        "*/dimension",
                                      "*floordiv/y",   "*floordiv_1/y",
                                      "*/mul/y",       "*/mul_1/y",
                                      "*up_sampling*", "*/Reshape_3",
                                      "*/Reshape_8",   "*/ExpandDims_5",
                                      "*/stack_4",     "ConstantFolding/*_const_axis"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) nn_ignore(l, names[i]);
}

static void tables(nn_loader *l, void *model) {
  struct movenet_model *m = model;
  int32_t width[MOVENET_BLOCKS];
  const int64_t map[2] = {m->cells, m->cells};
  nn_at(l, "%s", BACKBONE "model/");
  int32_t x = folded(l, "Conv1", "Conv2D", 3, 2, &m->stem);
  for (int32_t i = 0; i < MOVENET_BLOCKS; i++) width[i] = x = load_block(l, i, x, &m->block[i]);
  x = folded(l, "Conv_1", "Conv2D", x, 1, &m->last);
  nn_at(l, "%s", BACKBONE);
  x = plain(l, "conv2d", x, &m->top);
  x = load_level(l, 0, x, width[9], &m->level[0]);
  x = load_level(l, 1, x, width[5], &m->level[1]);
  x = load_level(l, 2, x, width[2], &m->level[2]);
  nn_at(l, "%s", GRAPH);
  load_head(l, "center_0", 3, x, 1, &m->centre);
  load_head(l, "kpt_heatmap_0", 4, x, MOVENET_KEYPOINTS, &m->heatmap);
  load_head(l, "kpt_regress_0", 5, x, 2 * MOVENET_KEYPOINTS, &m->regress);
  load_head(l, "kpt_offset_0", 6, x, 2 * MOVENET_KEYPOINTS, &m->offsets);
  load_constants(l, m);
  nn_at(l, "%s", "ConstantFolding/" GRAPH);
  nn_load_tensor(l, "truediv_2_recip", true, 2, map, &m->centre_weight);
  nn_at(l, "%s", "");
  ignore_graph(l);
}

/* ---- the model ---- */

/* The map of cells says the sizes. */
static int32_t read_sizes(const viv_host *host, const viv_model_source *source,
                          struct movenet_model *m, viv_error *error) {
  int64_t cells = nn_axis(host, source, GRAPH "strided_slice_3", 0, 0);
  if (cells < 8 || cells > 1024 || cells % 8)
    return nn_fail(error, VIV_BAD_INPUT, GRAPH "strided_slice_3",
                   "a map of %lld x %lld cells is no whole number of the coarsest map's",
                   (long long)cells, (long long)cells);
  m->cells = (int32_t)cells;
  m->size = 4 * m->cells;
  return VIV_OK;
}

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct movenet_model m = {0};
  int32_t rc = read_sizes(host, source, &m, error);
  return rc < 0 ? rc : nn_net_plan(host, source, tables, &m, sizeof m + 64, out, error);
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct movenet_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, movenet_tasks, error);
  if (rc >= 0) rc = read_sizes(host, source, m, error);
  if (rc >= 0) rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"movenet\",\"input\":%d,\"cells\":%d,\"keypoints_per_person\":%d,"
           "\"tasks\":[\"pose\",\"forward\"]}",
           (int)m->size, (int)m->cells, MOVENET_KEYPOINTS);
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("movenet", "0.1.0", {VIV_MODEL_ID, &model_api})
