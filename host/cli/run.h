/* viv run on pictures: where they come from, what becomes of them. Internal to the run*.c files and
 * to viv eval. */
#ifndef VIV_HOST_CLI_RUN_H
#define VIV_HOST_CLI_RUN_H

#include "cli/cli.h"
#include "cli/pump.h"
#include "tasks/results.h"

/* A detector whose boxes prompt the model (run_detector.c). */
typedef struct viv__detector_options {
  const char *model;  /* NULL: no detector */
  const char *wanted; /* the class whose boxes count; NULL: persons for poses, else every class */
  const cJSON *threshold; /* least score of a box; NULL: what detect shows to people */
} viv__detector_options;

typedef struct viv__picture_options_cli {
  const char *draw, *format, *labels, *frames, *out, *preview_as, *intrinsics, *camera, *vocoder;
  const char *polygons; /* pixels, as text; NULL: masks as run lengths */
  bool json, verbose, preview;
  viv__detector_options detector;
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
/* "FX,FY,CX,CY" in pixels, the focal lengths above 0. BAD_INPUT. */
int32_t viv__intrinsics_read(const char *text, double out[4], viv_error *error);

/* ---- a detector before the model (run_detector.c) ---- */

typedef struct viv__detector viv__detector;

/* clang-format off */
#define VIV__DETECTOR_OPTIONS(o, number)                                                           \
  {"detector", 0, VIV__OPT_TEXT, "MODEL", &(o).model,                                              \
   "pictures: boxes for a model that takes some (top-down poses)", NULL},                          \
  {"detect", 0, VIV__OPT_TEXT, "CLASS", &(o).wanted,                                               \
   "pictures: what --detector looks for, a name or number (person)", NULL},                        \
  {"detector-threshold", 0, VIV__OPT_NUMBER, "X", (number),                                        \
   "pictures: leave out boxes that score below X (0.5)", "threshold"}
/* clang-format on */

/* Takes the threshold from its options. Answers -1, or the exit code of a line that names what is
 * wanted of a detector and no detector. */
int viv__detector_usage(const char *verb, viv__detector_options *o, const cJSON *numbers);
/* Whether a model can be pointed at things in that way ("boxes"), by its own description. */
bool viv__takes_prompt(const viv__loaded *l, const char *prompt);
/* Loads the detector into the runtime of the model that it serves; *out stays NULL where no detector
 * is asked for. params: the model's, whose reading of pictures the detector shares. Errors: NEVER (no
 * such model; it does not detect; the other takes no boxes), BAD_INPUT (no such class). */
int32_t viv__detector_open(const viv__loaded *beside, const viv__task_schema *task,
                           const viv__detector_options *o, const cJSON *params, viv__detector **out,
                           viv_error *error);
/* Close it before the model that it was opened beside. NULL: nothing. */
void viv__detector_close(viv__detector *d);
/* Detects in one picture and adds what counts to params as boxes and box_scores, *n of them. */
int32_t viv__detector_prompts(const viv__detector *d, const viv__picture_item *item, cJSON *params,
                              int64_t *n, double *seconds, viv_error *error);

/* ---- jobs (run_pictures.c) ---- */

/* The model's task of pictures: wanted, or the first one that it names. NULL: it has none. */
const viv__task_schema *viv__picture_task(const viv__loaded *l, const char *wanted);
/* Names and skeletons of a loaded model. */
int32_t viv__model_vocabulary(const viv__loaded *l, const char *labels, viv__vocabulary *out,
                              viv_error *error);
/* Whether the model itself names the task. */
bool viv__gives_task(const viv__loaded *l, const char *task);
/* Runs the task on one picture, after the detector where there is one; results are gathered and
 * checked. Where the detector finds nothing the results are empty. */
int32_t viv__picture_job(const viv__loaded *l, const viv__task_schema *schema,
                         const viv__detector *detector, const cJSON *params,
                         const viv__picture_item *item, viv__results *results,
                         viv__outcome *outcome, viv_error *error);
/* The pixels of an item as the person sees it, for drawing and for its size. header: without pixels. */
/* The item as an input of that name: its file, or its pixels in *t, which must outlive the value. */
viv_value viv__item_value(const viv__picture_item *item, const char *name, viv_tensor *t);
int32_t viv__item_picture(const viv__picture_item *item, const cJSON *params, bool header,
                          viv__picture *out, viv_error *error);
int viv__run_pictures(const viv__loaded *l, const viv__task_schema *schema, const char *const *args,
                      int n, const viv__picture_run *o, cJSON *params);
/* A file's name without folders and extension; its number where it is one ("000139.jpg": 139), else
 * fallback. */
int64_t viv__image_id(const char *path, int64_t fallback);

/* ---- moving cameras (run_camera.c) ---- */

/* What a model that sees motion between frames says about the camera, frame by frame. */
typedef struct viv__camera viv__camera;

/* The model describes it: {"motion": {"frames": ["frame_0", NAME], "result": TENSOR, "size": [H, W]}},
 * the inputs of its task `pose` and the tensor that takes points of the first one's camera to the
 * other's; size: what the tensor K, if there is one, counts pixels in. NEVER: it describes none. */
int32_t viv__camera_open(const viv__loaded *l, viv__camera **out, viv_error *error);
/* The next frame of width x height; before: the one before it, NULL for the first. */
int32_t viv__camera_step(viv__camera *c, const cJSON *params, const viv__picture_item *before,
                         const viv__picture_item *item, const viv__picture *header,
                         viv_error *error);
/* Whether the model tells the lens, and what it is for one picture, which the model sees twice: fx, fy,
 * cx, cy in the picture's pixels. */
bool viv__camera_sees_lens(const viv__camera *c);
int32_t viv__camera_lens(viv__camera *c, const cJSON *params, const viv__picture_item *item,
                         const viv__picture *header, double lens[4], viv_error *error);
/* {"frames": [{"file", "motion", "camera_to_world", "intrinsics"}, ..]} */
int32_t viv__camera_write(const viv__camera *c, const char *path, viv_error *error);
void viv__camera_close(viv__camera *c);

/* ---- medical volumes (run_volumes.c) ---- */

/* Whether all arguments after MODEL are NIfTI files by their names. */
bool viv__volumes_named(const char *const *args, int n);
/* Each file is a channel (or holds several); labels go to --out. */
int viv__run_volumes(const viv__loaded *l, const char *task, const char *const *args, int n,
                     const viv__picture_run *o, cJSON *params);

/* ---- recordings (run_sound.c) ---- */

/* Whether all arguments after MODEL are recordings by their names. */
bool viv__sounds_named(const char *const *args, int n);
/* A job per recording. task NULL: the first that the plugin names. more: further inputs, as
 * NAME=FILE. */
int viv__run_sounds(const viv__loaded *l, const char *task, const char *const *args, int n,
                    const viv__list *more, const viv__picture_run *o, cJSON *params);

/* The first of the tasks that the plugin names for this very checkpoint; NULL: it names none. */
const char *viv__first_task(const viv__loaded *l);
/* Writes the sound among a job's results (waveform, audio_values) as path names it. vocoder: a model
 * that makes sound of a spectrogram, where the results hold one instead; may be NULL. Errors:
 * BAD_INPUT, NEVER (the results hold no sound), and those of the vocoder. */
int32_t viv__write_sound(const viv__loaded *l, const viv__tensor_list *results, const char *path,
                         const char *vocoder, viv_error *error);

/* ---- terminal (run_preview.c) ---- */

/* Shows RGB pixels on the terminal. as: kitty, sixel, blocks, or NULL for what the terminal can.
 * Errors: BAD_INPUT (no such way), NEVER (standard output is no terminal and none was named). */
int32_t viv__preview(const viv__picture *picture, const char *as, viv_error *error);

/* ---- sound that is still coming (run_live.c) ---- */

/* One job over the samples of standard input; task NULL: the one that the plugin names as "live". */
int viv__run_live(const viv__loaded *l, const char *model, const char *task, viv__pcm *pcm,
                  bool json, cJSON *params);

/* ---- drawings (run_drawings.c) ---- */

typedef struct viv__drawings {
  const char *to;
  bool folder;
  char **names; /* [n] of files in folders so far */
  int64_t n;
} viv__drawings;

/* to: a .png for one picture, else a folder, which is made; NULL: nothing is drawn. what: "pictures", in
 * errors: BAD_INPUT, NEVER. Free it in either case. */
int32_t viv__drawings_open(viv__drawings *d, const char *to, int64_t count, const char *what,
                           viv_error *error);
/* FOLDER/STEM.KIND, or with the whole file name where two files share a stem; the caller frees it. */
char *viv__path_in(viv__drawings *d, const char *folder, const char *file, const char *kind);
/* Writes the drawing [height, width, 3] of that file. */
int32_t viv__drawings_put(viv__drawings *d, const char *file, const viv__picture *picture,
                          viv_error *error);
void viv__drawings_free(viv__drawings *d);

/* The spectrogram of a recording with what a job found in it: line, its object of JSON ("classes",
 * "segments", "text"), and its tensors ("timestamps", "probabilities" over time, "audio_codes"). *out is
 * the caller's to free (run_sound_draw.c). */
struct viv__sound;
int32_t viv__sound_draw(const struct viv__sound *sound, const cJSON *line,
                        const viv__tensor_list *tensors, viv__picture *out, viv_error *error);

/* ---- codes of sound (run_codes.c) ---- */

/* Whether the model's vocabulary holds codes and the one argument is a file of codes; without an argument,
 * whether --out is. */
bool viv__codes_asked(const viv__loaded *l, const char *const *args, int n, const char *out);
/* file, out: NULL where there is none. */
int viv__run_codes(const viv__loaded *l, const char *file, const char *out, bool json,
                   cJSON *params);

#endif
