/* Scratch memory of calls that have none of their own. Internal. */
#ifndef VIV_HOST_SCRATCH_H
#define VIV_HOST_SCRATCH_H

#include <stdint.h>

typedef struct viv__scratch viv__scratch;

/* Buffers of that many bytes, aligned to 64. NULL: no memory. */
viv__scratch *viv__scratch_new(int64_t bytes);
void viv__scratch_free(viv__scratch *s); /* after the last give */
/* One buffer, contents undefined. Never fails: where memory is short it waits until another call
 * gives its buffer back, so a call takes at most one. [any thread] */
void *viv__scratch_take(viv__scratch *s);
void viv__scratch_give(viv__scratch *s, void *memory);

#endif
