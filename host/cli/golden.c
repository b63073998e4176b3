/* viv golden: runs golden cases and says which tensors hold. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/golden.h"

struct totals {
  int ok, failed, skipped, ops;
  size_t rows, bad_rows;
};

static void print_row(const viv__golden_row *r) {
  char err[32], atol[32];
  snprintf(err, sizeof err, "%.3g", r->max_err);
  snprintf(atol, sizeof atol, "%.3g", r->atol);
  printf("  %-18s %-30s %10s %10s  %s%s%s\n", r->call, r->tensor, err, r->exact ? "exact" : atol,
         r->ok ? "ok" : "FAIL", r->note ? " " : "", r->note ? r->note : "");
}

static void print_case(const viv__golden_case *c, const viv__golden_options *o) {
  static const char *const states[] = {"ok", "FAILED", "skipped"};
  if (o->quiet && c->state != VIV__GOLDEN_FAILED) return;
  if (!o->dry_run) printf("%s\n", c->dir);
  if (c->n_rows && !o->quiet && !o->dry_run)
    printf("  %-18s %-30s %10s %10s\n", "call", "tensor", "max_err", "atol");
  for (size_t i = 0; i < c->n_rows; i++)
    if (!o->quiet || !c->rows[i].ok) print_row(&c->rows[i]);
  if (o->dry_run && c->state == VIV__GOLDEN_OK) return;
  printf("  %s: %zu of %zu hold", states[c->state], c->n_rows - c->n_failed, c->n_rows);
  if (c->n_ops) printf(", %d operations left to golden_ops", c->n_ops);
  printf("%s%s\n", c->note ? "; " : "", c->note ? c->note : "");
  fflush(stdout);
}

/* JSON has no infinity: a missing tensor's error is null. */
static cJSON *case_json(const viv__golden_case *c) {
  static const char *const states[] = {"ok", "failed", "skipped"};
  cJSON *o = viv__need(cJSON_CreateObject());
  cJSON_AddStringToObject(o, "case", c->dir);
  cJSON_AddStringToObject(o, "state", states[c->state]);
  if (c->note) cJSON_AddStringToObject(o, "note", c->note);
  cJSON_AddNumberToObject(o, "operations_skipped", c->n_ops);
  cJSON *tensors = cJSON_AddArrayToObject(o, "tensors");
  for (size_t i = 0; i < c->n_rows; i++) {
    const viv__golden_row *r = &c->rows[i];
    cJSON *t = viv__need(cJSON_CreateObject());
    cJSON_AddStringToObject(t, "call", r->call);
    cJSON_AddStringToObject(t, "tensor", r->tensor);
    cJSON_AddBoolToObject(t, "ok", r->ok);
    cJSON_AddItemToObject(
        t, "max_err", isfinite(r->max_err) ? cJSON_CreateNumber(r->max_err) : cJSON_CreateNull());
    if (r->exact)
      cJSON_AddTrueToObject(t, "exact");
    else
      cJSON_AddNumberToObject(t, "atol", r->atol);
    if (r->note) cJSON_AddStringToObject(t, "note", r->note);
    cJSON_AddItemToArray(tensors, t);
  }
  return o;
}

static void count(struct totals *t, const viv__golden_case *c) {
  t->ok += c->state == VIV__GOLDEN_OK;
  t->failed += c->state == VIV__GOLDEN_FAILED;
  t->skipped += c->state == VIV__GOLDEN_SKIPPED;
  t->ops += c->n_ops;
  t->rows += c->n_rows;
  t->bad_rows += c->n_failed;
}

static int finish(const struct totals *t, const viv__golden_options *o, cJSON *cases) {
  bool judged = t->ok > 0;
  int code = t->failed || (!judged && !o->dry_run) ? VIV__EXIT_FAILED : VIV__EXIT_OK;
  if (o->json) {
    cJSON *doc = viv__need(cJSON_CreateObject());
    cJSON_AddItemToObject(doc, "cases", cases);
    cJSON_AddNumberToObject(doc, "ok", t->ok);
    cJSON_AddNumberToObject(doc, "failed", t->failed);
    cJSON_AddNumberToObject(doc, "skipped", t->skipped);
    cJSON_AddBoolToObject(doc, "holds", code == VIV__EXIT_OK);
    viv__print_json(doc);
    return code;
  }
  if (!o->dry_run)
    printf("%d cases ok, %d failed, %d skipped; %zu of %zu tensors hold\n", t->ok, t->failed,
           t->skipped, t->rows - t->bad_rows, t->rows);
  if (!judged && !t->failed && t->ops && !o->dry_run)
    fprintf(stderr, "viv golden: only operations were given; build/tests/golden_ops DIR... runs "
                    "them\n");
  else if (!judged && !t->failed && !o->dry_run)
    fprintf(stderr, "viv golden: nothing was judged\n");
  return code;
}

static void run_one(const char *dir, const viv__golden_options *o, struct totals *t, cJSON *cases) {
  viv__golden_case c;
  viv__golden_open(dir, &c);
  if (o->quiet && c.state == VIV__GOLDEN_SKIPPED) { /* a README beside the cases */
    viv__golden_close(&c);
    return;
  }
  if (o->dry_run && !o->json) printf("%s\n", c.dir);
  if (c.state == VIV__GOLDEN_OK) viv__golden_run(&c, o);
  count(t, &c);
  if (o->json)
    cJSON_AddItemToArray(cases, case_json(&c));
  else
    print_case(&c, o);
  viv__golden_close(&c);
}

int viv__cmd_golden(int argc, char **argv) {
  enum { MAX_CASES = 4096 };
  viv__golden_options o = {.load = viv__need(cJSON_CreateObject())};
  const viv__opt options[] = {
      {"taps-first", 0, VIV__OPT_FLAG, NULL, &o.taps_first,
       "intermediate tensors first, in the order of the pass", NULL},
      {"call", 'c', VIV__OPT_TEXT, "GLOB", &o.only, "only the calls of that name", NULL},
      {"quiet", 'q', VIV__OPT_FLAG, NULL, &o.quiet, "only failures and the summary", NULL},
      {"dry-run", 0, VIV__OPT_FLAG, NULL, &o.dry_run, "show what would be sent, run nothing", NULL},
      VIV__LOAD_OPTIONS(o.load),
      {"json", 0, VIV__OPT_FLAG, NULL, &o.json, "one JSON document", NULL},
      {0}};
  const viv__usage usage = {
      "viv golden tests/goldens/sambay/full-8-layers\n"
      "viv golden --taps-first --quiet tests/goldens/*/*",
      "golden [options] DIR...",
      "Runs golden cases: per tensor the largest error, the tolerance, and the first place that "
      "fails.\nExit code 0 only when every tensor holds and none is missing. Weights of packages "
      "are looked for\nin $VIV_WEIGHTS."};
  const char **dirs = viv__need(viv__calloc(MAX_CASES, sizeof *dirs));
  int n = 0, code = viv__options(&usage, options, argc, argv, 1, MAX_CASES, dirs, &n);
  if (code < 0) {
    struct totals totals = {0};
    cJSON *cases = o.json ? viv__need(cJSON_CreateArray()) : NULL;
    viv__interrupt_catch();
    for (int i = 0; i < n && !viv__interrupted(); i++) run_one(dirs[i], &o, &totals, cases);
    code = finish(&totals, &o, cases);
    if (viv__interrupted()) code = VIV__EXIT_CANCELLED;
  }
  viv__free(dirs);
  cJSON_Delete(o.load);
  return code;
}
