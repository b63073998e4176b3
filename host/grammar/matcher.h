/* The matcher's insides, shared by matcher.c and masks.c. Internal to host/grammar. */
#ifndef VIV_HOST_GRAMMAR_MATCHER_H
#define VIV_HOST_GRAMMAR_MATCHER_H

#include "grammar/internal.h"
#include "grammar/trie.h"

enum { DEAD = 0, UNKNOWN = -1 };

typedef struct viv__frame {
  int32_t state, up;
  int32_t
      same; /* the frame that stands for all that accept the same VIV__SHORT bytes, itself maybe */
} viv__frame;

typedef struct viv__situation {
  int32_t first, n; /* frames at pool + first */
  int32_t same; /* the situation of what its frames are the same as; UNKNOWN: not asked for yet */
  bool complete;
  int32_t *step;  /* [256] situation after a byte, or UNKNOWN; NULL: none asked for yet */
  uint64_t *mask; /* all tokens; NULL: not yet, or not worth keeping */
  uint64_t *part; /* the tokens that the situations which are the same as this one share */
} viv__situation;

struct viv__matcher {
  const viv__grammar *g;
  const viv__token_trie *trie;
  viv__frame *frames;
  int32_t n_frames, cap_frames;
  int32_t *frame_index; /* open addressing, [cap_frame_index] */
  int32_t cap_frame_index;
  viv__situation *all; /* 0 is the dead one */
  int32_t n_all, cap_all;
  int32_t *index; /* open addressing over situations */
  int32_t cap_index;
  int32_t *pool;
  int32_t n_pool, cap_pool;
  int32_t *work; /* frames to close over; the set in the making */
  int32_t n_work, cap_work;
  bool complete; /* of the set in the making */
  int32_t now;
  size_t mask_bytes;
  int32_t *path;  /* [depth + 2] situations along the trie, or NULL */
  uint64_t *made; /* [words + 1] the mask last put together, or NULL */
  bool failed;
};

int32_t viv__matcher_frame(viv__matcher *m, int32_t state, int32_t up);
/* Adds a frame to the set in the making. */
void viv__matcher_add(viv__matcher *m, int32_t frame);
/* The situation of the set in the making (with m->complete), which is reduced to what reads. */
int32_t viv__matcher_situation(viv__matcher *m);
int32_t viv__matcher_step(viv__matcher *m, int32_t from, unsigned char c);
/* Forgets all but the present situation when the memory is full. */
void viv__matcher_tidy(viv__matcher *m);

#endif
