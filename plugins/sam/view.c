/* Embeddings of a job's pictures, and sessions that keep them under many prompts. */
#include <string.h>

#include "sam/sam.h"

/* ---- which pictures ---- */

/* FNV-1a over 8 bytes at a time, with two primes: pictures are compared by this and their sizes. */
static void mix(uint64_t hash[2], const uint8_t *x, uint64_t n) {
  for (uint64_t i = 0; i < n; i += 8) {
    uint64_t v = 0;
    memcpy(&v, x + i, n - i < 8 ? n - i : 8);
    hash[0] = (hash[0] ^ v) * 0x100000001b3u;
    hash[0] ^= hash[0] >> 29;
    hash[1] = (hash[1] ^ v) * 0x9e3779b97f4a7c15u;
    hash[1] ^= hash[1] >> 32;
  }
}

static void hash_pictures(nn_pass *p, const struct sam_rules *r, int32_t n, uint64_t hash[2]) {
  hash[0] = 0xcbf29ce484222325u;
  hash[1] = 0x84222325cbf29ce4u;
  mix(hash, (const uint8_t *)&r->factor, sizeof r->factor);
  mix(hash, (const uint8_t *)r->mean, sizeof r->mean);
  mix(hash, (const uint8_t *)r->std, sizeof r->std);
  mix(hash, (const uint8_t *)&r->filter, sizeof r->filter);
  for (int32_t i = 0; i < n; i++) {
    nn_pixels x = sam_picture_at(p, i);
    int32_t size[2] = {x.height, x.width};
    mix(hash, (const uint8_t *)size, sizeof size);
    mix(hash, x.x, 3 * (uint64_t)x.height * (uint64_t)x.width);
  }
}

/* ---- encoding ---- */

static void tap_positions(nn_pass *p, const struct sam_model *m) {
  const viv_compute *c = nn_compute_of(p);
  if (m->medical_form || !nn_taps(p, "dense_pe")) return;
  nn_mark mark = nn_here(p);
  int64_t shape[2] = {(int64_t)m->grid * m->grid, m->width};
  int32_t perm[2] = {1, 0};
  float *planes = nn_room(p, shape[0] * shape[1]);
  c->permute(c, m->positions, 2, shape, perm, planes);
  nn_tap(p, planes, NN_DIMS(1, m->width, m->grid, m->grid), "dense_pe");
  nn_release(p, mark);
}

/* The embedding as official code has it, channels first. */
static void emit(nn_pass *p, const struct sam_model *m, const float *x, int64_t n) {
  const viv_compute *c = nn_compute_of(p);
  nn_mark mark = nn_here(p);
  int64_t shape[3] = {n, (int64_t)m->grid * m->grid, m->width};
  int32_t perm[3] = {0, 2, 1};
  float *planes = nn_room(p, n * shape[1] * shape[2]);
  c->permute(c, x, 3, shape, perm, planes);
  nn_result(p, VIV_F32, planes, NN_DIMS(n, m->width, m->grid, m->grid), "image_embeddings");
  nn_release(p, mark);
}

static struct sam_view encode(nn_pass *p, const struct sam_rules *r, int32_t n,
                              const nn_pixels *one, bool results) {
  const struct sam_model *m = nn_net_of(p);
  int64_t each = (int64_t)m->grid * m->grid * m->width;
  struct sam_view view = {
      .n = n, .embedding = nn_room(p, n * each), .sizes = nn_bytes(p, n, sizeof *view.sizes)};
  nn_mark mark = nn_here(p);
  float *pixels = nn_room(p, (int64_t)n * 3 * m->side * m->side);
  for (int32_t i = 0; i < n; i++) {
    nn_pixels x = one ? *one : sam_picture_at(p, i);
    nn_mark after = nn_here(p);
    const uint8_t *resized = NULL;
    view.sizes[i] = sam_size_of(r, m, x.height, x.width);
    sam_prepare(p, r, m, x, pixels + (int64_t)i * 3 * m->side * m->side, &resized);
    if (results && resized && nn_taps(p, n > 1 ? "resized.%d" : "resized", (int)i)) {
      int64_t cells = 3 * (int64_t)view.sizes[i].new_height * view.sizes[i].new_width;
      float *as_floats = nn_room(p, cells);
      for (int64_t k = 0; k < cells; k++) as_floats[k] = resized[k];
      nn_tap(p, as_floats, NN_DIMS(view.sizes[i].new_height, view.sizes[i].new_width, 3),
             n > 1 ? "resized.%d" : "resized", (int)i);
    }
    nn_release(p, after);
  }
  float *x = sam_encode(p, m, pixels, n);
  memcpy(view.embedding, x, (size_t)(n * each) * sizeof *x);
  nn_release(p, mark);
  if (results) {
    emit(p, m, view.embedding, n);
    tap_positions(p, m);
  }
  if (m->medical_form) sam_medical_prompt(p, m, view.embedding, n);
  return view;
}

struct sam_view sam_view_one(nn_pass *p, const struct sam_rules *r, nn_pixels from) {
  return encode(p, r, 1, &from, false);
}

/* ---- sessions ---- */

int32_t sam_session_open(viv_plugin_model *model, viv_arena *arena, viv_plugin_session **out,
                         viv_error *error) {
  const struct sam_model *m = (const struct sam_model *)(void *)model;
  struct sam_session *s = m->net.host->arena_alloc(arena, sizeof *s);
  if (!s) return nn_fail(error, VIV_NOT_NOW, "session", "no memory for a session");
  s->host = m->net.host;
  s->arena = arena;
  *out = (viv_plugin_session *)s;
  return VIV_OK;
}

void sam_session_close(viv_plugin_session *session) {
  (void)session; /* all of it lies in the session's arena */
}

static void keep(nn_pass *p, struct sam_session *s, const struct sam_view *view,
                 const uint64_t hash[2]) {
  const struct sam_model *m = nn_net_of(p);
  int64_t each = (int64_t)m->grid * m->grid * m->width;
  s->full = false;
  if (view->n > s->capacity) {
    s->view.embedding = s->host->arena_alloc(s->arena, (uint64_t)(view->n * each) * sizeof(float));
    s->view.sizes = s->host->arena_alloc(s->arena, (uint64_t)view->n * sizeof *view->sizes);
    s->capacity = s->view.embedding && s->view.sizes ? view->n : 0;
    if (!s->capacity)
      nn_stop(p, VIV_NOT_NOW, "session", "no memory to keep %lld embeddings", (long long)view->n);
  }
  memcpy(s->view.embedding, view->embedding, (size_t)(view->n * each) * sizeof(float));
  memcpy(s->view.sizes, view->sizes, (size_t)view->n * sizeof *view->sizes);
  memcpy(s->hash, hash, sizeof s->hash);
  s->view.n = view->n;
  s->full = true;
}

struct sam_view sam_view_of(nn_pass *p, bool again) {
  const struct sam_model *m = nn_net_of(p);
  struct sam_session *s = (struct sam_session *)(void *)nn_session_of(p);
  int32_t n = nn_count(p, "image");
  uint64_t hash[2];
  if (!n) {
    if (s && s->full) return s->view;
    nn_stop(p, VIV_BAD_INPUT, "image",
            "is missing, and %s: bring it, or run embed_image in a session first",
            s ? "this session has seen none" : "the job has no session");
  }
  struct sam_rules r = sam_request_rules(p, m);
  if (!s) return encode(p, &r, n, NULL, again);
  hash_pictures(p, &r, n, hash);
  if (!again && s->full && s->view.n == n && !memcmp(hash, s->hash, sizeof hash)) return s->view;
  struct sam_view view = encode(p, &r, n, NULL, again);
  keep(p, s, &view, hash);
  return view;
}
