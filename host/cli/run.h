/* viv run on pictures: where they come from, what becomes of them. Internal to the run*.c files and
 * to viv eval. */
#ifndef VIV_HOST_CLI_RUN_H
#define VIV_HOST_CLI_RUN_H

#include "cli/cli.h"
#include "tasks/results.h"

typedef struct viv__picture_options_cli {
  const char *draw, *format, *labels, *frames, *out, *preview_as;
  bool json, verbose, preview;
} viv__picture_run;

/* ---- sources (run_source.c) ---- */

/* One picture to work on. */
typedef struct viv__picture_item {
  char *name;  /* its path, or "frame 12" */
  char *bytes; /* the file; NULL: raw holds the pixels */
  size_t len;
  viv__picture raw;
  int64_t frame; /* from 1 in a pipe; 0: a file */
} viv__picture_item;

typedef struct viv__picture_source viv__picture_source;

/* Whether the arguments after MODEL name pictures: files, a folder that holds some, a glob that finds
 * some. A lone "-" does not tell. */
bool viv__pictures_named(const char *const *args, int n);
/* Expands the arguments. frames: NULL or "WIDTHxHEIGHT" of raw RGB frames on standard input. Errors:
 * BAD_INPUT, NEVER (no such file, no picture in a folder). */
int32_t viv__source_open(const char *const *args, int n, const char *frames,
                         viv__picture_source **out, viv_error *error);
/* The next picture. VIV_OK: *item is filled (free it); a failure that belongs to this picture alone
 * also fills item->name; VIV_DONE: that was all. */
int32_t viv__source_next(viv__picture_source *s, viv__picture_item *item, viv_error *error);
int64_t viv__source_count(const viv__picture_source *s); /* -1: a pipe, nobody knows */
void viv__source_close(viv__picture_source *s);
void viv__item_free(viv__picture_item *item);
/* The next whole PNG, JPEG or PNM of a pipe. VIV_DONE at its end, BAD_INPUT when it ends inside a
 * frame or holds something else (run_frames.c). */
int32_t viv__frame_read(FILE *from, viv__buf *out, viv_error *error);

/* ---- prompts (run_prompts.c) ---- */

/* Points "X,Y" ("X,Y,0": not this) and boxes "X0,Y0,X1,Y1" as parameters of the task. BAD_INPUT. */
int32_t viv__prompts_read(const viv__list *points, const viv__list *boxes, cJSON *params,
                          viv_error *error);

/* ---- jobs (run_pictures.c) ---- */

/* The model's task of pictures: wanted, or the first one that it names. NULL: it has none. */
const viv__task_schema *viv__picture_task(const viv__loaded *l, const char *wanted);
/* Names and skeletons of a loaded model. */
int32_t viv__model_vocabulary(const viv__loaded *l, const char *labels, viv__vocabulary *out,
                              viv_error *error);
/* Runs the task on one picture; results are gathered and checked. */
int32_t viv__picture_job(const viv__loaded *l, const viv__task_schema *schema, const cJSON *params,
                         const viv__picture_item *item, viv__results *results,
                         viv__outcome *outcome, viv_error *error);
/* The pixels of an item as the person sees it, for drawing and for its size. header: without pixels. */
int32_t viv__item_picture(const viv__picture_item *item, const cJSON *params, bool header,
                          viv__picture *out, viv_error *error);
int viv__run_pictures(const viv__loaded *l, const viv__task_schema *schema, const char *const *args,
                      int n, const viv__picture_run *o, cJSON *params);
/* A file's name without folders and extension; its number where it is one ("000139.jpg": 139), else
 * fallback. */
int64_t viv__image_id(const char *path, int64_t fallback);

/* ---- terminal (run_preview.c) ---- */

/* Shows RGB pixels on the terminal. as: kitty, sixel, blocks, or NULL for what the terminal can.
 * Errors: BAD_INPUT (no such way), NEVER (standard output is no terminal and none was named). */
int32_t viv__preview(const viv__picture *picture, const char *as, viv_error *error);

#endif
