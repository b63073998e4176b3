/* The convolutions that bench_conv and its peer compute, batch 1: name, axes, input and output
 * channels, groups, then for each axis the size, and one kernel, stride, pad and dilation for all. */
#ifndef VIV_BENCH_CONV_SHAPES_H
#define VIV_BENCH_CONV_SHAPES_H

typedef struct conv_shape {
  const char *name;
  int dims, in, out, groups, size[3], kernel, stride, pad, dilation, transposed;
} conv_shape;

#define PLANE(s)                                                                                   \
  { s, s }
#define FLAT(net, in, out, s)                                                                      \
  { net " 1x1", 2, in, out, 1, PLANE(s), 1, 1, 0, 1, 0 }

static const conv_shape conv_shapes[] = {
    {"resnet50 stem 7x7/2", 2, 3, 64, 1, PLANE(224), 7, 2, 3, 1, 0},
    FLAT("resnet50", 64, 64, 56),
    FLAT("resnet50", 64, 256, 56),
    FLAT("resnet50", 256, 64, 56),
    FLAT("resnet50", 256, 128, 56),
    FLAT("resnet50", 128, 512, 28),
    FLAT("resnet50", 512, 128, 28),
    FLAT("resnet50", 512, 256, 28),
    FLAT("resnet50", 256, 1024, 14),
    FLAT("resnet50", 1024, 256, 14),
    FLAT("resnet50", 1024, 512, 14),
    FLAT("resnet50", 512, 2048, 7),
    FLAT("resnet50", 2048, 512, 7),
    {"resnet50 1x1/2", 2, 256, 512, 1, PLANE(56), 1, 2, 0, 1, 0},
    {"resnet50 1x1/2", 2, 512, 1024, 1, PLANE(28), 1, 2, 0, 1, 0},
    {"resnet50 1x1/2", 2, 1024, 2048, 1, PLANE(14), 1, 2, 0, 1, 0},
    {"resnet50 3x3", 2, 64, 64, 1, PLANE(56), 3, 1, 1, 1, 0},
    {"resnet50 3x3", 2, 128, 128, 1, PLANE(28), 3, 1, 1, 1, 0},
    {"resnet50 3x3", 2, 256, 256, 1, PLANE(14), 3, 1, 1, 1, 0},
    {"resnet50 3x3", 2, 512, 512, 1, PLANE(7), 3, 1, 1, 1, 0},
    {"resnet50 3x3/2", 2, 128, 128, 1, PLANE(56), 3, 2, 1, 1, 0},
    {"resnet50 3x3/2", 2, 256, 256, 1, PLANE(28), 3, 2, 1, 1, 0},
    {"resnet50 3x3/2", 2, 512, 512, 1, PLANE(14), 3, 2, 1, 1, 0},
    {"convnext stem 4x4/4", 2, 3, 96, 1, PLANE(224), 4, 4, 0, 1, 0},
    {"convnext dw 7x7", 2, 96, 96, 96, PLANE(56), 7, 1, 3, 1, 0},
    {"convnext dw 7x7", 2, 192, 192, 192, PLANE(28), 7, 1, 3, 1, 0},
    {"convnext dw 7x7", 2, 384, 384, 384, PLANE(14), 7, 1, 3, 1, 0},
    {"convnext dw 7x7", 2, 768, 768, 768, PLANE(7), 7, 1, 3, 1, 0},
    FLAT("convnext", 96, 384, 56),
    FLAT("convnext", 384, 96, 56),
    FLAT("convnext", 192, 768, 28),
    FLAT("convnext", 768, 192, 28),
    FLAT("convnext", 384, 1536, 14),
    FLAT("convnext", 1536, 384, 14),
    FLAT("convnext", 768, 3072, 7),
    FLAT("convnext", 3072, 768, 7),
    {"convnext 2x2/2", 2, 96, 192, 1, PLANE(56), 2, 2, 0, 1, 0},
    {"convnext 2x2/2", 2, 192, 384, 1, PLANE(28), 2, 2, 0, 1, 0},
    {"convnext 2x2/2", 2, 384, 768, 1, PLANE(14), 2, 2, 0, 1, 0},
    {"unet 3x3", 2, 1, 64, 1, PLANE(256), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 64, 64, 1, PLANE(256), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 128, 64, 1, PLANE(128), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 128, 128, 1, PLANE(128), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 256, 256, 1, PLANE(64), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 512, 512, 1, PLANE(32), 3, 1, 1, 1, 0},
    {"unet 3x3", 2, 512, 1024, 1, PLANE(16), 3, 1, 1, 1, 0},
    {"unet up 2x2/2", 2, 128, 64, 1, PLANE(128), 2, 2, 0, 1, 1},
    {"unet up 2x2/2", 2, 512, 256, 1, PLANE(32), 2, 2, 0, 1, 1},
    {"unet 1x1", 2, 64, 2, 1, PLANE(256), 1, 1, 0, 1, 0},
    {"volume 3x3x3", 3, 32, 32, 1, {24, 24, 24}, 3, 1, 1, 1, 0},
    {"mobile dw 3x3", 2, 96, 96, 96, PLANE(112), 3, 1, 1, 1, 0},
    {"mobile dw 3x3/2", 2, 144, 144, 144, PLANE(56), 3, 2, 1, 1, 0},
    {"resnext 3x3 g32", 2, 128, 128, 32, PLANE(56), 3, 1, 1, 1, 0},
    {"sound 7", 1, 1, 64, 1, {24000}, 7, 1, 3, 1, 0},
    {"sound 7 dilated", 1, 256, 256, 1, {2000}, 7, 1, 9, 3, 0},
    {"sound up 16/8", 1, 256, 128, 1, {500}, 16, 8, 4, 1, 1},
    {"sound 7 to one", 1, 64, 1, 1, {24000}, 7, 1, 3, 1, 0},
};

enum { CONV_SHAPES = sizeof conv_shapes / sizeof *conv_shapes };

static inline int conv_shape_out(const conv_shape *s, int axis) {
  int span = s->dilation * (s->kernel - 1) + 1;
  return s->transposed ? (s->size[axis] - 1) * s->stride - 2 * s->pad + span
                       : (s->size[axis] + 2 * s->pad - span) / s->stride + 1;
}

/* Multiply-adds, each counted as two; a transposed one is counted by its inputs. */
static inline double conv_shape_flops(const conv_shape *s) {
  double n = 2.0 * s->in * s->out / s->groups;
  for (int i = 0; i < s->dims; i++)
    n *= (double)s->kernel * (s->transposed ? s->size[i] : conv_shape_out(s, i));
  return n;
}

#endif
