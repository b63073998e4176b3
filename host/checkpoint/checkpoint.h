/* A model directory as "tensor by name". Internal.
 *
 * Reads config.json, *.safetensors (one file, or shards with model.safetensors.index.json), and
 * PyTorch pickles (pytorch_model.bin, *.pt, *.pth; zip form and the older one), GGUF, whose metadata
 * stands for config.json and the tokenizer's files, a TensorFlow.js model (NAME.json with its
 * *.bin), or a TensorFlow checkpoint (NAME.index with its NAME.data-*). Weights are mapped read-only. Every length, offset, overlap, shape product, dtype and name
 * of these untrusted files
 * is checked against the file's size before it is used. Not checked: that a BOOL tensor's bytes are
 * 0 or 1, and zip checksums, since both would read all weights. A tensor's data may lie at any
 * address, odd ones included: files do not promise alignment.
 *
 * A file that is truncated while it is mapped raises SIGBUS in whoever reads the missing pages.
 * That is not handled here: it costs the worker process that held the model. */
#ifndef VIV_HOST_CHECKPOINT_H
#define VIV_HOST_CHECKPOINT_H

#include "base/base.h"

/* path: a model directory (a Hugging Face cache snapshot whose files are symbolic links works, and
 * so does the cache's models--org--name folder: its refs/main snapshot is taken), or a single
 * checkpoint file or index of shards. A directory without weights opens too (tensor_count 0); one
 * without config.json has a NULL config, or an empty one where the weights are one PyTorch file.
 *
 * In a directory the first of these is taken: model.safetensors.index.json with its shards,
 * model.safetensors, the only *.safetensors, pytorch_model.bin.index.json with its shards,
 * pytorch_model.bin, the only *.pt, *.pth or *.bin (optimizers' states and the like not counted),
 * the only *.gguf, the only *.index of TensorFlow. A *.bin with a TensorFlow.js document of its name
 * beside it is that model's. Of several weight files without an index config.json's weight_files says
 * which they are, {file: prefix of its tensors' names, ..}; without that they are refused. A GGUF file
 * or a TensorFlow.js document that is
 * opened by its own path is the whole model: what else lies beside it is not read. Where there is no
 * config.json, preprocessor_config.json is the configuration: such a folder prepares inputs.
 *
 * Failures: VIV_NEVER when there is nothing at path or the format is not read here, VIV_BAD_INPUT
 * for a damaged or hostile file, VIV_NOT_NOW without memory. The error names file, tensor and byte.
 */
int32_t viv__checkpoint_open(const char *path, viv_checkpoint **out, viv_error *error);
void viv__checkpoint_close(viv_checkpoint *c);
const char *viv__checkpoint_dir(const viv_checkpoint *c); /* the resolved directory */
/* The folder whose side files are the model's; NULL for a GGUF file on its own. */
const char *viv__checkpoint_folder(const viv_checkpoint *c);
const viv_json *viv__checkpoint_config(const viv_checkpoint *c);
/* Bytes of a side file in the directory ("tokenizer.json"), at most 64 MiB; VIV_NEVER when absent.
 * Names with '/' and ".." are refused. Read once; lives as long as the checkpoint. [any] */
int32_t viv__checkpoint_read(viv_checkpoint *c, const char *name, viv_str *out, viv_error *error);
/* The services of viv_host. */
int32_t viv__tensor_find(const viv_checkpoint *c, viv_str name, viv_tensor *out);
int64_t viv__tensor_count(const viv_checkpoint *c);
int32_t viv__tensor_at(const viv_checkpoint *c, int64_t index, viv_str *name, viv_tensor *out);
/* The same file as a document; NULL also when it is not valid JSON. [any] */
const viv_json *viv__checkpoint_file(const viv_checkpoint *c, viv_str name);
uint64_t viv__checkpoint_bytes(const viv_checkpoint *c); /* sum of all tensors' bytes */
/* 64 hex digits that identify the weights, to key saved sessions: SHA-256 over each file's size and
 * its first and last 64 KiB, and over each tensor's name, dtype, shape and the first, middle and
 * last 64 bytes of its data. Fast (a few pages per tensor), the same wherever the files lie, and it
 * tells fine-tunes apart; not a proof against somebody who wants two files to look alike. */
void viv__checkpoint_id(const viv_checkpoint *c, char out[65]);

/* One safetensors file on its own (golden vectors, tests). path is for messages. */
typedef struct viv__safetensors viv__safetensors;
int32_t viv__safetensors_open(const char *path, viv__safetensors **out, viv_error *error);
/* From memory that stays valid; the fuzzer's door. */
int32_t viv__safetensors_parse(const void *data, size_t len, const char *name,
                               viv__safetensors **out, viv_error *error);
void viv__safetensors_close(viv__safetensors *s);
int64_t viv__safetensors_count(const viv__safetensors *s);
int32_t viv__safetensors_at(const viv__safetensors *s, int64_t index, viv_str *name,
                            viv_tensor *out);
int32_t viv__safetensors_find(const viv__safetensors *s, viv_str name, viv_tensor *out);

/* Writes a safetensors file: names [n], tensors [n]. Tensors of block formats are written as bytes
 * with a note in __metadata__, see docs/formats.md. */
int32_t viv__safetensors_write(const char *path, const viv_str *names, const viv_tensor *tensors,
                               int64_t n, viv_error *error);
/* The same with data that is made when its turn comes: tensors[i].data is not read, make gives the
 * bytes of tensor i, which stay valid until its next call. The file only appears when all is well. */
typedef int32_t (*viv__tensor_fn)(void *ctx, int64_t i, const void **data, viv_error *error);
int32_t viv__safetensors_make(const char *path, const viv_str *names, const viv_tensor *tensors,
                              int64_t n, viv__tensor_fn make, void *ctx, viv_error *error);

/* A PyTorch file on its own. Same shape; from memory for the fuzzer. The top-level dict's tensors
 * are taken; when it has none, those of the first of state_dict, model_state_dict, model, module,
 * params (and the like) that has; when none has, those of every part of the top-level dict, as
 * "part.tensor". Anything that is no tensor or plain container refuses the file: nothing in it is
 * ever run. Views that are not dense are copied. */
typedef struct viv__pickle viv__pickle;
int32_t viv__pickle_open(const char *path, viv__pickle **out, viv_error *error);
int32_t viv__pickle_parse(const void *data, size_t len, const char *name, viv__pickle **out,
                          viv_error *error);
void viv__pickle_close(viv__pickle *p);
int64_t viv__pickle_count(const viv__pickle *p);
int32_t viv__pickle_at(const viv__pickle *p, int64_t index, viv_str *name, viv_tensor *out);
/* What the top-level dict holds beside the tensors, where they stand under one of its keys: a JSON
 * object of its members that are plain numbers, texts, lists and dicts. NULL: nothing of that kind. */
const viv_json *viv__pickle_values(const viv__pickle *p);

/* A GGUF file on its own; from memory for the fuzzer. Names are those of the official release, block
 * formats are served as they lie. Other architectures than the Llama family: VIV_NEVER. */
typedef struct viv__gguf viv__gguf;
int32_t viv__gguf_open(const char *path, viv__gguf **out, viv_error *error);
int32_t viv__gguf_parse(const void *data, size_t len, const char *name, viv__gguf **out,
                        viv_error *error);
void viv__gguf_close(viv__gguf *g);
int64_t viv__gguf_count(const viv__gguf *g);
int32_t viv__gguf_at(const viv__gguf *g, int64_t index, viv_str *name, viv_tensor *out);
int32_t viv__gguf_find(const viv__gguf *g, viv_str name, viv_tensor *out);
/* Appends what the metadata says in the place of that side file: config.json, tokenizer.json or
 * tokenizer_config.json. VIV_NEVER: nothing, or a tokenizer that is not known here. */
int32_t viv__gguf_side(const viv__gguf *g, viv_str name, viv__buf *out, viv_error *error);

/* A TensorFlow.js model by the path of its JSON document; the files of weights lie beside it. Names
 * and shapes are the file's own. From memory for the fuzzer: the document, and its one group's
 * weights, which stay the caller's. */
typedef struct viv__tfjs viv__tfjs;
int32_t viv__tfjs_open(const char *path, viv__tfjs **out, viv_error *error);
int32_t viv__tfjs_parse(const void *document, size_t document_len, const void *data, size_t len,
                        const char *name, viv__tfjs **out, viv_error *error);
void viv__tfjs_close(viv__tfjs *t);
int64_t viv__tfjs_count(const viv__tfjs *t);
int32_t viv__tfjs_at(const viv__tfjs *t, int64_t index, viv_str *name, viv_tensor *out);
/* config.json's text, made of the address that the model was converted from. */
int32_t viv__tfjs_side(const viv__tfjs *t, viv_str name, viv__buf *out, viv_error *error);

/* A TensorFlow checkpoint by the path of its index (NAME.index; NAME.data-00000-of-00001 and so on lie
 * beside it). Names and shapes are the variables' own; texts are left out. From memory for the fuzzer:
 * the index and its one file of data, which stay the caller's. */
typedef struct viv__tfbundle viv__tfbundle;
int32_t viv__tfbundle_open(const char *path, viv__tfbundle **out, viv_error *error);
int32_t viv__tfbundle_parse(const void *index, size_t index_len, const void *data, size_t len,
                            const char *name, viv__tfbundle **out, viv_error *error);
void viv__tfbundle_close(viv__tfbundle *t);
int64_t viv__tfbundle_count(const viv__tfbundle *t);
int32_t viv__tfbundle_at(const viv__tfbundle *t, int64_t index, viv_str *name, viv_tensor *out);
#endif
