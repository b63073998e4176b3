/* Vivarium plugin ABI: the part that every plugin and every host speaks.
 *
 * A plugin is one shared object with one exported function, viv_plugin_entry, and a JSON manifest
 * beside it. The host hands its services to the plugin as a table (viv_host); the plugin hands its
 * functions to the host as a table (viv_plugin). Nothing is resolved by the linker, so a plugin
 * built against these headers loads into any host that speaks the same major.
 *
 * Rules that hold for every declaration in this directory
 *
 *   growth    A struct that may grow starts with struct_size, the sender's sizeof. A receiver
 *             accepts any size from the version-1 prefix up, reads fields beyond struct_size as
 *             zero and ignores what it does not know. Fields are only ever appended. Arrays of such
 *             structs travel as arrays of pointers, never as contiguous arrays.
 *   strings   UTF-8, pointer and length, not terminated. Unless a comment says otherwise a string
 *             or struct that is passed in is borrowed until the call returns.
 *   errors    A function that can fail returns a status (0 or positive is success, negative is
 *             failure) and describes a failure in the caller's viv_error, which may be NULL. On
 *             failure every out-parameter is untouched; on success ownership moves as stated.
 *   threads   Each function carries a tag. [scan]: a scanning or loading thread, no instance
 *             exists yet. [loader]: may take long, exclusive per model. [job]: exclusive per model
 *             instance, but not one operating-system thread, and never the event loop's thread.
 *             [any]: any thread at any time.
 *   conduct   A plugin never aborts, exits, prints, starts threads, opens files, installs signal
 *             handlers, or changes the locale, environment or floating-point state.
 *
 * The manifest beside the object, NAME.json beside NAME.so, is read before any of its code runs:
 *
 *   id, version            texts; id equals viv_plugin.id
 *   abi                    {"major", "minor"} that it was built against; majors must be equal
 *   interfaces             ids that get_interface answers
 *   model_types, architectures   of config.json that it serves; strategies: names that it offers
 *   tensors                names that together tell its models where no config.json does: a release
 *                          that is one PyTorch file. What the file says beside its tensors stands in
 *                          the configuration under "checkpoint"
 *   tasks, batch, cancel_latency_ms, license, paper   what people and the scheduler want to know
 *   cpu                    features without which it can't run ("avx2", ...)
 *   sha256                 optional: of the object; another object is then refused
 *
 * The headers parse as C11, C17 and C++17, and, after the preprocessor with VIV_NO_INCLUDES
 * defined, in LuaJIT's ffi.cdef. */
#ifndef VIVARIUM_CORE_H
#define VIVARIUM_CORE_H

#ifndef VIV_NO_INCLUDES
#include <stdint.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI these headers describe. Until 1.0 is tagged the frozen baseline may still move, each time
 * with a line in the changelog. */
#define VIV_ABI_MAJOR 1
#define VIV_ABI_MINOR 0

/* ---- status --------------------------------------------------------------------------------- */

/* Answers travel as int32_t. The failures differ in what the caller should do next. */
enum viv_status {
  VIV_OK = 0,         /* done as asked */
  VIV_MORE = 1,       /* a step was made; call again */
  VIV_DONE = 2,       /* the work is complete; do not call again */
  VIV_WAIT = 3,       /* nothing can be done until the consumer reads or a stream delivers */
  VIV_NEVER = -1,     /* this can't work here: unsupported, incompatible, absent */
  VIV_NOT_NOW = -2,   /* memory, time or another resource is short; the same call may work later */
  VIV_BAD_INPUT = -3, /* the request, file or parameter is wrong; the error names the place */
  VIV_CANCELLED = -4, /* the caller cancelled the job */
  VIV_BUG = -5,       /* a promise of this ABI was broken by the side that is blamed in the text */
  VIV_DEADLINE = -6   /* the job's deadline passed */
};

typedef struct viv_str {
  const char *ptr; /* UTF-8, not terminated; NULL only when len is 0 */
  uint64_t len;    /* bytes */
} viv_str;

/* Filled by whoever fails, owned by the caller, no allocation. Texts are terminated and cut at a
 * character boundary. message says what was expected and what to do; where names the input and the
 * place in it (a file and byte, a tensor, a parameter); source and line name the code. */
typedef struct viv_error {
  uint32_t struct_size;
  int32_t code; /* the enum viv_status value that was returned */
  int32_t line;
  int32_t reserved;
  char source[48];
  char where[208];
  char message[752];
} viv_error;

/* ---- tensors -------------------------------------------------------------------------------- */

enum viv_dtype {
  VIV_F32 = 1,
  VIV_F64 = 2,
  VIV_F16 = 3,
  VIV_BF16 = 4,
  VIV_I64 = 5,
  VIV_I32 = 6,
  VIV_I16 = 7,
  VIV_I8 = 8,
  VIV_U8 = 9,
  VIV_BOOL = 10, /* one byte, 0 or 1 */

  /* Block formats, for weights only: the last axis is cut into blocks (its length is a multiple of
   * the block) that carry their own scales. shape counts elements, bytes what the blocks take.
   * VIV_INT8_ROW: a row is one f32 scale and its int8 values. VIV_INT8_G128, VIV_INT4_G128: blocks
   * of 128: f16 scale, 128 int8; f16 scale, f16 minimum, 64 bytes of two nibbles, element i low and
   * i + 64 high: x = scale q + minimum. The others are GGUF's, 32 + its type number: int8 in groups
   * of 32 is VIV_Q8_0, int4 in groups of 32 is VIV_Q4_0 or VIV_Q4_1. */
  VIV_INT8_ROW = 16,
  VIV_INT8_G128 = 17,
  VIV_INT4_G128 = 18,
  VIV_Q4_0 = 34,
  VIV_Q4_1 = 35,
  VIV_Q5_0 = 38,
  VIV_Q5_1 = 39,
  VIV_Q8_0 = 40,
  VIV_Q2_K = 42,
  VIV_Q3_K = 43,
  VIV_Q4_K = 44,
  VIV_Q5_K = 45,
  VIV_Q6_K = 46
};

enum viv_tensor_flags {
  VIV_TENSOR_READ_ONLY = 1 /* data is mapped from a file or shared: never write */
};

#define VIV_MAX_DIMS 8

/* A view of a dense, row-major, little-endian tensor. What must be readable by every version stands
 * first, so that any receiver can release a tensor that it does not understand. release is NULL for
 * a borrowed view; otherwise the last holder calls it exactly once, on any thread. */
typedef struct viv_tensor {
  uint32_t struct_size;
  uint32_t flags; /* enum viv_tensor_flags */
  void *owner;    /* private to release */
  void (*release)(struct viv_tensor *tensor);
  void *data;
  uint64_t bytes; /* length of data: the product of shape times the element size, or the blocks */
  int32_t dtype;  /* enum viv_dtype */
  int32_t ndim;   /* 0 (a scalar) to VIV_MAX_DIMS */
  int64_t shape[VIV_MAX_DIMS];
} viv_tensor;

/* ---- requests and events -------------------------------------------------------------------- */

enum viv_kind {
  VIV_KIND_TENSOR = 1,
  VIV_KIND_TEXT = 2,  /* UTF-8 */
  VIV_KIND_JSON = 3,  /* UTF-8 */
  VIV_KIND_IMAGE = 4, /* a file's bytes: PNG, JPEG, ... */
  VIV_KIND_AUDIO = 5, /* a file's bytes: WAV, ... */
  VIV_KIND_STREAM = 6,
  VIV_KIND_PROGRESS = 7, /* events only */
  VIV_KIND_END = 8       /* events only: the one terminal event */
};

typedef struct viv_stream viv_stream; /* the host's */

/* One named input of a job. Several inputs of one name are a list, in order. */
typedef struct viv_value {
  uint32_t struct_size;
  int32_t kind; /* enum viv_kind */
  viv_str name; /* the task's name for it, or the official forward's argument name */
  viv_str bytes;            /* TEXT, JSON, IMAGE, AUDIO */
  const viv_tensor *tensor; /* TENSOR; [job] plugins see host memory that lives as long as the job */
  viv_stream *stream;       /* STREAM */
} viv_value;

enum viv_event_flags {
  VIV_EVENT_FINAL = 1, /* set on the END event and on no other */
  VIV_EVENT_TAP = 2    /* an intermediate tensor that the parameter "taps" asked for */
};

/* One result of a job. The host numbers events from 0 without gaps; exactly one event, the last,
 * has kind END and FINAL set, whatever happens to the job. */
typedef struct viv_event {
  uint32_t struct_size;
  int32_t kind; /* enum viv_kind */
  uint64_t seq;
  uint32_t flags;   /* enum viv_event_flags */
  int32_t status;   /* END: VIV_OK or the failure */
  viv_str name;     /* the task's name for the result, or the official output's name */
  viv_str bytes;    /* TEXT, JSON, IMAGE, AUDIO; END: the job's counters as a JSON object */
  const viv_tensor *tensor; /* TENSOR */
  double progress;          /* PROGRESS: 0 to 1 */
  const viv_error *error;   /* END with a failure */
} viv_event;

/* ---- what the host offers ------------------------------------------------------------------- */

typedef struct viv_job viv_job;               /* the host's side of a job */
typedef struct viv_arena viv_arena;           /* memory that is freed as a whole */
typedef struct viv_json viv_json;             /* a node of a parsed JSON document, read-only */
typedef struct viv_checkpoint viv_checkpoint; /* an open model directory */

enum viv_log_level {
  VIV_LOG_ERROR = 1,
  VIV_LOG_WARN = 2,
  VIV_LOG_INFO = 3,
  VIV_LOG_DEBUG = 4
};

enum viv_thread {
  VIV_THREAD_SCAN = 1,
  VIV_THREAD_LOADER = 2,
  VIV_THREAD_JOB = 3
};

enum viv_json_type {
  VIV_JSON_ABSENT = 0, /* also the type of a NULL node */
  VIV_JSON_NULL = 1,
  VIV_JSON_BOOL = 2,
  VIV_JSON_NUMBER = 3,
  VIV_JSON_STRING = 4,
  VIV_JSON_ARRAY = 5,
  VIV_JSON_OBJECT = 6
};

/* The host's services. The table lives as long as the plugin's instances do. A plugin keeps the
 * pointer in its instances only, never in a global: two hosts may live in one process. */
typedef struct viv_host {
  uint32_t struct_size;
  uint32_t abi_major; /* newest that this host speaks */
  uint32_t abi_minor;
  uint32_t abi_oldest_major; /* oldest major that this host still loads */
  void *self;                /* first argument of the functions below that take a host */

  /* Optional services by string id, for example "viv.compute/1" (compute.h). NULL: not offered;
   * a plugin must survive that, if only by refusing to open. The table belongs to the host. [any] */
  const void *(*get_extension)(void *self, viv_str id);

  /* One line of log at an enum viv_log_level. [any] */
  void (*log)(void *self, int32_t level, viv_str text);

  /* 1 if the calling thread may call functions tagged with this enum viv_thread. [any] */
  int32_t (*thread_check)(void *self, int32_t thread);

  /* Zeroed memory, aligned to 64 bytes, freed with the arena. NULL: the arena's limit (the memory
   * plan and the budget) is reached; answer VIV_NOT_NOW. [that of the call that lent the arena] */
  void *(*arena_alloc)(viv_arena *arena, uint64_t bytes);

  /* JSON. Nodes belong to the document; NULL nodes are legal arguments and read as absent.
   * member looks up a key of an object, item an element of an array. number and boolean answer
   * 0, string an empty one, when the node is of another type. [any] */
  const viv_json *(*json_member)(const viv_json *node, viv_str key);
  const viv_json *(*json_item)(const viv_json *node, int64_t index);
  int32_t (*json_type)(const viv_json *node);
  int64_t (*json_count)(const viv_json *node); /* elements of an array or object */
  double (*json_number)(const viv_json *node);
  int32_t (*json_boolean)(const viv_json *node);
  viv_str (*json_string)(const viv_json *node);
  viv_str (*json_key)(const viv_json *node); /* the key under which an object holds this node */

  /* Checkpoint. tensor_find fills *out with a borrowed read-only view that lives as long as the
   * model, VIV_NEVER when there is no tensor of that name. tensor_at enumerates in no particular
   * order. file answers a small side file of the model directory ("preprocessor_config.json") as a
   * parsed document, NULL when it is absent. [loader] */
  int32_t (*tensor_find)(const viv_checkpoint *checkpoint, viv_str name, viv_tensor *out);
  int64_t (*tensor_count)(const viv_checkpoint *checkpoint);
  int32_t (*tensor_at)(const viv_checkpoint *checkpoint, int64_t index, viv_str *name,
                       viv_tensor *out);
  const viv_json *(*checkpoint_file)(const viv_checkpoint *checkpoint, viv_str name);

  /* Jobs. poll answers VIV_OK, VIV_CANCELLED or VIV_DEADLINE; it costs one atomic load, and a
   * plugin calls it at least as often as its manifest's cancel_latency_ms declares. emit hands over
   * one event: the host copies what it needs before it returns, numbers it, and answers VIV_OK, or
   * VIV_WAIT when the consumer is slow (the event was not taken: return VIV_WAIT from the step and
   * emit it again in the next), or VIV_CANCELLED. A plugin never emits END: the step's status does.
   * wants_tap answers 1 when the job asked for the intermediate tensor of that name. [job] */
  int32_t (*job_poll)(viv_job *job);
  int32_t (*job_emit)(viv_job *job, const viv_event *event);
  int32_t (*job_wants_tap)(viv_job *job, viv_str name);
  viv_arena *(*job_arena)(viv_job *job); /* freed after job_end */

  /* Stream inputs: the next chunk of at most capacity bytes. VIV_OK with *bytes > 0, VIV_WAIT when
   * none is there yet, VIV_DONE when the caller closed the stream and all was read. [job] */
  int32_t (*stream_read)(viv_stream *stream, void *data, uint64_t capacity, uint64_t *bytes);
} viv_host;

/* ---- what a plugin offers ------------------------------------------------------------------- */

/* Lives as long as the process. abi_major and abi_minor are the version that the plugin answers
 * with: the lower of what both sides speak, from one major. */
typedef struct viv_plugin {
  uint32_t struct_size;
  uint32_t abi_major;
  uint32_t abi_minor;
  uint32_t reserved;
  viv_str id;      /* equal to the manifest's id */
  viv_str version; /* the plugin's own, for people */

  /* Counted: may be called several times, each init paired with one deinit. Either may be NULL. A
   * failed init is not paired. [scan] */
  int32_t (*init)(const viv_host *host, viv_error *error);
  void (*deinit)(const viv_host *host);

  /* The interface table of that id ("viv.model/1"), or NULL. Exact match only. [any] */
  const void *(*get_interface)(viv_str id);
} viv_plugin;

/* The one exported symbol. host stays valid until that host is closed; entry may be called again, by
 * the same host or by another one in the process. Answers NULL and fills error (which is never NULL
 * here) when the plugin can't speak any version that the host offers: the text names both ranges.
 * [scan] */
typedef const viv_plugin *(*viv_plugin_entry_fn)(const viv_host *host, viv_error *error);

#ifndef VIV_NO_INCLUDES
#if defined(__GNUC__)
#define VIV_EXPORT __attribute__((visibility("default")))
#else
#define VIV_EXPORT
#endif
VIV_EXPORT const viv_plugin *viv_plugin_entry(const viv_host *host, viv_error *error);
#endif

#ifdef __cplusplus
}
#endif
#endif
