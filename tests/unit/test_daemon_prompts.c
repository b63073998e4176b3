/* Prompts that vivd keeps: what was read once is not read again, not by a later daemon either, and nothing that
 * comes out of it is another for that. */
#include "vivd_rt.h"

#include <dirent.h>

TestSuite(daemon_prompts, .init = setup_daemon, .fini = teardown_daemon, .timeout = 120);

#define REASONER "zoo/models/sambay-reasoner"
enum { PROMPT = 200, NEW = 24 };
static const char params[] = "{\"max_new_tokens\": 24, \"ignore_eos\": true, \"do_sample\": true, "
                             "\"temperature\": 1.0, \"seed\": 5, "
                             "\"outputs\": [\"ids\", \"step_logits\"]}";

typedef struct answer {
  unsigned char bytes[1 << 20]; /* of all tensors, one behind the other */
  size_t n;
  double known; /* tokens that were not read again */
} answer;

static void ask(viv_model *m, const int64_t *ids, int64_t n, answer *a) {
  viv_job *job = submit_ids(m, NULL, ids, n, params);
  viv_event e;
  a->n = 0;
  a->known = -1;
  while (viv_next_event(job, 60000, &e) == VIV_OK) {
    if (e.kind == VIV_KIND_TENSOR) {
      cr_assert_leq(a->n + e.tensor->bytes, sizeof a->bytes);
      memcpy(a->bytes + a->n, e.tensor->data, e.tensor->bytes);
      a->n += e.tensor->bytes;
    }
    if (e.kind != VIV_KIND_END) continue;
    cr_assert_eq(e.status, VIV_OK, "%s", e.error ? e.error->message : "");
    viv_json *json = NULL;
    cr_assert_eq(viv__json_parse(e.bytes.ptr, e.bytes.len, "end", &json, NULL), VIV_OK);
    a->known = viv__json_num(json, "known_tokens", 0);
    viv__json_free(json);
  }
  viv_job_free(job);
  cr_assert_gt(a->n, 0);
  cr_assert_geq(a->known, 0);
}

static void same(const answer *a, const answer *b) {
  cr_assert_eq(a->n, b->n);
  cr_assert_eq(memcmp(a->bytes, b->bytes, a->n), 0, "other bytes than without the kept prompt");
}

/* Calls on_file for every kept file; how many there are. */
static int kept_files(void (*on_file)(const char *path)) {
  char folder[128], inner[512], path[1024];
  int n = 0;
  snprintf(folder, sizeof folder, "%s/state/prompts", dir);
  DIR *outer = opendir(folder);
  for (struct dirent *e; outer && (e = readdir(outer));) {
    if (e->d_name[0] == '.') continue;
    snprintf(inner, sizeof inner, "%s/%s", folder, e->d_name);
    DIR *files = opendir(inner);
    for (struct dirent *f; files && (f = readdir(files));) {
      size_t len = strlen(f->d_name);
      if (len < 7 || strcmp(f->d_name + len - 7, ".prompt")) continue;
      snprintf(path, sizeof path, "%s/%s", inner, f->d_name);
      if (on_file) on_file(path);
      n++;
    }
    if (files) closedir(files);
  }
  if (outer) closedir(outer);
  return n;
}

static void wait_files(int n) {
  for (int i = 0; i < 1000 && kept_files(NULL) != n; i++) pause_ms(10);
  cr_assert_eq(kept_files(NULL), n);
}

/* The worker is told of a file a moment after it is there. */
static void ask_until_known(viv_model *m, const int64_t *ids, int64_t n, answer *a) {
  for (int i = 0; i < 200; i++) {
    ask(m, ids, n, a);
    if (a->known > 0) return;
    pause_ms(20);
  }
}

static void again(int signal_number) {
  kill(daemon_pid, signal_number);
  wait_daemon(20);
  start_daemon();
}

static void make_ids(int64_t *ids, int n) {
  uint32_t x = 7;
  for (int i = 0; i < n; i++) ids[i] = 3 + (int64_t)((x = x * 1664525u + 1013904223u) >> 8) % 250;
}

/* cuts: the model can take up part of what was kept. */
static void survives(const char *path, bool cuts) {
  static answer whole, longer, other, got;
  int64_t ids[PROMPT + 40], changed[PROMPT];
  make_ids(ids, PROMPT + 40);
  memcpy(changed, ids, sizeof changed);
  changed[150] = ids[150] == 9 ? 10 : 9;
  viv_runtime *here = open_runtime();
  viv_model *m = load(here, path);
  ask(m, ids, PROMPT, &whole);
  ask(m, ids, PROMPT + 40, &longer);
  ask(m, changed, PROMPT, &other);
  cr_assert_eq(whole.known, 0);
  viv_close(here);

  viv_runtime *rt = connect_daemon();
  ask(load(rt, path), ids, PROMPT, &got);
  cr_assert_eq(got.known, 0);
  same(&got, &whole);
  wait_files(1);
  ask_until_known(load(rt, path), ids, PROMPT, &got);
  cr_assert_eq(got.known, PROMPT - 1);
  same(&got, &whole);
  viv_close(rt);
  for (int i = 0; i < 2; i++) {
    again(i ? SIGTERM : SIGKILL);
    rt = connect_daemon();
    ask(load(rt, path), ids, PROMPT, &got);
    cr_assert_eq(got.known, PROMPT - 1, "%g tokens were known", got.known);
    same(&got, &whole);
    /* What goes on from there reads only what is new. */
    ask(load(rt, path), ids, PROMPT + 40, &got);
    cr_assert_eq(got.known, PROMPT - 1);
    same(&got, &longer);
    ask(load(rt, path), changed, PROMPT, &got);
    cr_assert_eq(got.known, cuts ? 150 : i ? PROMPT - 1 : 0, "%g tokens were known", got.known);
    same(&got, &other);
    viv_close(rt);
    wait_files(cuts ? 1 : 2);
  }
}

Test(daemon_prompts, are_known_after_a_restart) {
  survives(STORIES, true);
}

Test(daemon_prompts, are_known_to_a_model_that_can_not_cut_its_state) {
  survives(REASONER, false);
}

static int spoil; /* how the next file is spoilt */

static void spoil_file(const char *path) {
  char *data = NULL;
  size_t len = 0;
  viv_error e = VIV_ERROR_INIT;
  cr_assert_eq(viv__read_file(path, 1 << 28, &data, &len, &e), VIV_OK, "%s", e.message);
  static const size_t places[] = {0, 9, 72, 76, 80, 85, 880};
  enum { PLACES = sizeof places / sizeof *places };
  if (spoil < PLACES)
    data[places[spoil]] ^= 0x41;
  else if (spoil == PLACES)
    data[len / 2] ^= 1; /* a number in the state */
  else if (spoil == PLACES + 1)
    len = len / 2;
  else if (spoil == PLACES + 2)
    len = 79;
  else
    len = 0;
  cr_assert_eq(viv__write_file(path, data, len, &e), VIV_OK, "%s", e.message);
  viv__free(data);
}

Test(daemon_prompts, spoilt_files_are_read_past) {
  static answer whole, got;
  int64_t ids[PROMPT];
  make_ids(ids, PROMPT);
  for (spoil = 0; spoil < 11; spoil++) {
    viv_runtime *rt = connect_daemon();
    ask(load(rt, STORIES), ids, PROMPT, spoil ? &got : &whole);
    if (spoil) same(&got, &whole);
    for (int i = 0; i < 1000 && !kept_files(NULL); i++) pause_ms(10);
    viv_close(rt);
    kill(daemon_pid, SIGTERM);
    cr_assert_eq(wait_daemon(20), 0);
    cr_assert_geq(kept_files(spoil_file), 1);
    start_daemon();
    rt = connect_daemon();
    ask(load(rt, STORIES), ids, PROMPT, &got);
    cr_assert_eq(got.known, 0, "a file spoilt in way %d was believed", spoil);
    same(&got, &whole);
    viv_close(rt);
    char command[128];
    kill(daemon_pid, SIGTERM);
    cr_assert_eq(wait_daemon(20), 0);
    snprintf(command, sizeof command, "rm -rf %s/state/prompts", dir);
    cr_assert_eq(system(command), 0);
    start_daemon();
  }
}

static off_t bytes_kept;

static void count_bytes(const char *path) {
  struct stat st;
  if (!stat(path, &st)) bytes_kept += st.st_size;
}

Test(daemon_prompts, take_no_more_room_than_they_may) {
  static answer got;
  int64_t ids[PROMPT + 8];
  enum { ROOM = 1 << 20 };
  char config[96];
  make_ids(ids, PROMPT + 8);
  snprintf(config, sizeof config, "{\"prompt_cache_bytes\": %d}", ROOM);
  write_text(config_path, config);
  again(SIGTERM);
  viv_runtime *rt = connect_daemon();
  viv_model *m = load(rt, STORIES);
  int most = 0;
  for (int i = 0; i < 12; i++) {
    ids[0] = 10 + i;
    ask(m, ids, PROMPT, &got);
    pause_ms(50);
    bytes_kept = 0;
    int n = kept_files(count_bytes);
    if (n > most) most = n;
  }
  for (int i = 0; i < 500 && bytes_kept > ROOM; i++) {
    pause_ms(10);
    bytes_kept = 0;
    kept_files(count_bytes);
  }
  cr_assert_geq(most, 2);
  cr_assert_leq(bytes_kept, ROOM);
  viv_close(rt);
  write_text(config_path, "{\"prompt_cache_bytes\": 0}");
  again(SIGTERM);
  rt = connect_daemon();
  ask(load(rt, STORIES), ids, PROMPT, &got);
  cr_assert_eq(got.known, 0);
  viv_close(rt);
}
