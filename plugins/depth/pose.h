/* The camera's motion between two frames, as Monodepth2 and its relatives predict it.
 *
 *   [frame, other frame] on the channels [B, 6, H, W] -> ResNet -> 1x1, ReLU -> 3x3, ReLU -> 3x3, ReLU
 *     -> 1x1 -> mean over the map -> times a factor -> two predictions of axis-angle and translation,
 *   of which the first is the motion.
 *
 * Godard et al., Digging into Self-Supervised Monocular Depth Estimation, arXiv:1806.01260; official:
 * networks/resnet_encoder.py and pose_decoder.py of monodepth2 and of what grew out of it. */
#ifndef PLUGINS_DEPTH_POSE_H
#define PLUGINS_DEPTH_POSE_H

#include "depth/picture.h"
#include "nn/resnet.h"

typedef struct pose_net {
  nn_resnet_spec spec;
  int32_t hidden;  /* channels of the decoder */
  float factor;    /* on axis-angle and translation */
  bool normalised; /* frames come to the encoder as (x - 0.45) / 0.225 */
  nn_resnet encoder;
  nn_conv net[4];
} pose_net;

typedef struct pose_motion {
  float *axisangle, *translation; /* [B, 2, 3] */
  nn_map middle; /* the decoder's third convolution before its ReLU, channels last */
} pose_motion;

/* pose_width and pose_hidden of a ResNet of that many layers; a failure is left in k->status. */
void pose_read(nn_config *k, int64_t layers, float factor, pose_net *net);
/* The ResNet of that many layers whose first stage has `width` channels, torchvision's names. */
void pose_resnet(nn_config *k, int64_t layers, int32_t width, nn_resnet_spec *spec);
/* In a tables function, at no prefix: pose_encoder.encoder.* and pose.net.*. */
void pose_load(nn_loader *l, pose_net *net);
/* The motion of a pair; both batches have one size and values in [0, 1]. tap: features.i and
 * intermediate_feature. */
pose_motion pose_of(nn_pass *p, const pose_net *net, const depth_batch *first,
                    const depth_batch *second, bool tap);
/* out [4, 4] = Trans(t) Rot(axisangle), or its inverse Rot^T Trans(-t). Official:
 * transformation_from_parameters. */
void pose_matrix(const float axisangle[3], const float t[3], bool invert, float out[16]);

#endif
