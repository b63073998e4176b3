/* viv-validate: finds out whether a plugin keeps the ABI's promises. Internal.
 *
 * Every test runs in a child process of the same executable, with a time limit: a plugin that
 * crashes, hangs or exits fails the test in which it does, and the report says what it was asked to
 * do then. The validator is a host of its own, which watches what the plugin does with it. */
#ifndef VIV_VALIDATE_H
#define VIV_VALIDATE_H

#include <pthread.h>
#include <time.h>

#include "base/base.h"
#include "checkpoint/checkpoint.h"
#include "compute/compute.h"
#include "vivarium/layout.h"

enum result { RESULT_NONE = 0, RESULT_PASS = 1, RESULT_FAIL = 2, RESULT_SKIP = 3 };

/* Shared between a test's process and the one that waits for it (a mapped file), so that it can be
 * read after a crash. */
struct outcome {
  int32_t result; /* enum result; NONE: the process ended before the test did */
  int32_t reserved;
  char phase[240]; /* what the plugin was asked to do last */
  char reason[1600];
};

struct context {
  const char *plugin; /* path of the shared object */
  char *manifest_path;
  viv_json *manifest; /* NULL: absent or broken; manifest_error says why */
  viv_error manifest_error;
  const char *model; /* a model directory, from --model or made for the run */
  bool model_given;
  uint64_t seed;
  struct outcome *out;

  /* once loaded */
  const viv_plugin *table;
  const viv_model_api *api;
  viv_checkpoint *checkpoint;
};

struct test {
  const char *name;
  int level;
  const char *needs; /* a test that must have passed, or NULL */
  int limit_s;
  void (*run)(struct context *c);
  const char *what;
};

extern const struct test viv__tests[];
extern const size_t viv__n_tests;

/* The first failure counts. */
void viv__v_fail(struct context *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
void viv__v_skip(struct context *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool viv__v_failed(const struct context *c);

/* ---- elf.c: what a shared object says about itself, read without running it ---- */

/* Calls each for every dynamic symbol, and needed for every DT_NEEDED. The file is untrusted: each
 * offset is checked against its size. */
int32_t viv__elf_read(const char *path, void *self,
                      void (*symbol)(void *self, const char *name, bool defined),
                      void (*needed)(void *self, const char *name), viv_error *error);

/* ---- host.c: the host that watches ---- */

/* The host's side of one job. */
struct viv_job {
  struct context *c;
  viv_arena *arena;
  _Atomic int32_t stop; /* what poll answers */
  int32_t wait_first;   /* answer WAIT to that many emits */
  int64_t n_events, n_waits, n_polls;
  uint64_t refused_hash; /* of the event that was answered with WAIT, 0: none */
  bool repeated_wrong;   /* another event came instead of that one */
  bool nan_seen;
};

enum { HOST_NO_EXTENSIONS = 1, HOST_NEWER = 2, HOST_OTHER_MAJOR = 4 };

/* The table for a kind of host. It ends right before an unreadable page, unless it is a newer one.
 * */
const viv_host *viv__v_host(struct context *c, int flags);
/* Around each call into the plugin: names it, sets the calling thread's tag, and compares the state
 * of the process before and after. */
void viv__v_before(struct context *c, int32_t role, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void viv__v_after(struct context *c);
/* The k-th arena_alloc from now answers NULL; 0: none. Answers how many were made. */
long viv__v_fail_arena(long k);
/* Frees or resets an arena after a last look at its canaries. */
void viv__v_arena_free(struct context *c, viv_arena *arena);
void viv__v_arena_reset(struct context *c, viv_arena *arena);
/* Process state is not compared while another thread of ours runs. */
void viv__v_watch_state(bool on);

#endif
