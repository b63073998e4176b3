/* BERT and RoBERTa: config.json, weight names, the table of the plugin. */
#include <stdio.h>
#include <string.h>

#include "bert/bert.h"

/* ---- config.json ---- */

static bool architecture_has(const nn_config *k, const char *end) {
  viv_str name = nn_architecture(k);
  size_t n = strlen(end);
  return name.len >= n && !memcmp(name.ptr + name.len - n, end, n);
}

static int32_t config_read(const viv_host *host, const viv_model_source *source,
                           struct bert_config *c, viv_error *error) {
  nn_config k = nn_config_open(host, source->config, "config.json", error);
  *c = (struct bert_config){0};
  c->roberta = !nn_is(nn_text(&k, "model_type", "bert"), "bert");
  c->d = nn_need_int(&k, "hidden_size", 1, 1 << 16);
  c->ff = nn_need_int(&k, "intermediate_size", 1, 1 << 18);
  c->layers = (int32_t)nn_need_int(&k, "num_hidden_layers", 1, BERT_MAX_LAYERS);
  c->heads = (int32_t)nn_need_int(&k, "num_attention_heads", 1, 1024);
  c->vocab = nn_need_int(&k, "vocab_size", 1, 1 << 24);
  c->positions = nn_need_int(&k, "max_position_embeddings", 1, 1 << 20);
  c->types = nn_int(&k, "type_vocab_size", 2, 1, 1 << 16);
  c->pad = (int32_t)nn_int(&k, "pad_token_id", c->roberta ? 1 : 0, 0, c->vocab - 1);
  c->eps = (float)nn_num(&k, "layer_norm_eps", 1e-12, 0, 1);
  c->act = nn_activation(&k, "hidden_act", "gelu");
  nn_divides(&k, c->d, c->heads, "hidden_size and num_attention_heads");
  viv_str positions = nn_text(&k, "position_embedding_type", "absolute");
  if (!k.status && !nn_is(positions, "absolute"))
    return nn_fail(error, VIV_NEVER, "config.json",
                   "position_embedding_type is %.*s, this plugin computes absolute ones",
                   (int)positions.len, positions.ptr);
  if (architecture_has(&k, "ForMaskedLM")) c->head = BERT_MASKED_LM;
  if (architecture_has(&k, "ForSequenceClassification")) c->head = BERT_CLASSIFIER;
  c->prefix = !c->roberta && nn_has(host, source, "bert.embeddings.word_embeddings.weight")
                  ? "bert."
              : nn_has(host, source, "roberta.embeddings.word_embeddings.weight") ? "roberta."
                                                                                  : "";
  char name[64];
  snprintf(name, sizeof name, "%spooler.dense.weight", c->prefix);
  c->pooler = nn_has(host, source, name);
  viv_str problem = nn_text(&k, "problem_type", "");
  const char *out = c->roberta ? "classifier.out_proj.weight" : "classifier.weight";
  c->labels = c->head == BERT_CLASSIFIER ? nn_axis(host, source, out, 0, 2) : 0;
  c->regression = nn_is(problem, "regression");
  c->several = nn_is(problem, "multi_label_classification") || c->labels == 1;
  return k.status;
}

/* ---- weights ---- */

/* position_ids: an index buffer that older releases save. */
static void embeddings(nn_loader *l, struct bert_model *w, const struct bert_config *c) {
  size_t outer = nn_in(l, "embeddings.");
  nn_load(l, "word_embeddings.weight", &w->words, 0, c->vocab, c->vocab, c->d, NN_MATRIX, true);
  nn_load(l, "position_embeddings.weight", &w->places, 0, c->positions, c->positions, c->d,
          NN_MATRIX, true);
  nn_load(l, "token_type_embeddings.weight", &w->types, 0, c->types, c->types, c->d, NN_MATRIX,
          true);
  nn_load_norm(l, "LayerNorm", c->d, c->eps, &w->norm);
  nn_out(l, outer);
}

static void layer(nn_loader *l, struct bert_layer *w, const struct bert_config *c) {
  nn_load_linear(l, "attention.self.query", c->d, c->d, true, &w->query);
  nn_load_linear(l, "attention.self.key", c->d, c->d, true, &w->key);
  nn_load_linear(l, "attention.self.value", c->d, c->d, true, &w->value);
  nn_load_linear(l, "attention.output.dense", c->d, c->d, true, &w->attention_out);
  nn_load_norm(l, "attention.output.LayerNorm", c->d, c->eps, &w->attention_norm);
  nn_load_linear(l, "intermediate.dense", c->ff, c->d, true, &w->intermediate);
  nn_load_linear(l, "output.dense", c->d, c->ff, true, &w->output);
  nn_load_norm(l, "output.LayerNorm", c->d, c->eps, &w->output_norm);
}

/* The masked-language head's matrix is the embedding, which official files may save once more. */
static void masked_lm(nn_loader *l, struct bert_model *w, const struct bert_config *c) {
  size_t outer = nn_in(l, c->roberta ? "lm_head." : "cls.predictions.");
  nn_load_linear(l, c->roberta ? "dense" : "transform.dense", c->d, c->d, true, &w->transform);
  nn_load_norm(l, c->roberta ? "layer_norm" : "transform.LayerNorm", c->d, c->eps,
               &w->transform_norm);
  nn_load(l, "bias", &w->decoder.b, 0, c->vocab, c->vocab, 1, NN_FLOATS, true);
  nn_out(l, outer);
  nn_ignore(l, "*decoder.weight");
  nn_ignore(l, "*decoder.bias");
}

static void tables(nn_loader *l, void *model) {
  struct bert_model *w = model;
  const struct bert_config *c = &w->config;
  struct bert_layer none = {0};
  nn_at(l, "%s", c->prefix);
  embeddings(l, w, c);
  for (int32_t i = 0; i < c->layers; i++) {
    size_t outer = nn_in(l, "encoder.layer.%d.", (int)i);
    layer(l, w->layer ? &w->layer[i] : &none, c);
    nn_out(l, outer);
  }
  if (c->pooler) nn_load_linear(l, "pooler.dense", c->d, c->d, true, &w->pooler);
  nn_at(l, "%s", "");
  if (c->head == BERT_MASKED_LM) masked_lm(l, w, c);
  if (c->head == BERT_CLASSIFIER && c->roberta) {
    nn_load_linear(l, "classifier.dense", c->d, c->d, true, &w->dense);
    nn_load_linear(l, "classifier.out_proj", c->labels, c->d, true, &w->out);
  } else if (c->head == BERT_CLASSIFIER) {
    nn_load_linear(l, "classifier", c->labels, c->d, true, &w->out);
  }
  if (c->head == BERT_NO_HEAD) { /* heads of pre-training, when the bare model is asked for */
    nn_ignore(l, "cls.*");
    nn_ignore(l, "lm_head.*");
  }
  nn_ignore(l, "cls.seq_relationship.*");
  nn_ignore(l, "*position_ids");
  nn_ignore(l, "*token_type_ids");
}

/* ---- the model ---- */

static int32_t plan(const viv_host *host, const viv_model_source *source, viv_memory_plan *out,
                    viv_error *error) {
  struct bert_model m = {0};
  int32_t rc = config_read(host, source, &m.config, error);
  if (rc < 0) return rc;
  const struct bert_config *c = &m.config;
  uint64_t bytes = sizeof m + (uint64_t)c->layers * sizeof(struct bert_layer) + 128;
  rc = nn_net_plan(host, source, tables, &m, bytes, out, error);
  if (rc < 0) return rc;
  out->step_row_bytes = (uint64_t)(6 * c->d + c->ff) * sizeof(float);
  return VIV_OK;
}

static int32_t open_model(const viv_host *host, const viv_model_source *source,
                          viv_plugin_model **out, viv_error *error) {
  struct bert_model *m = host->arena_alloc(source->arena, sizeof *m);
  if (!m) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the model");
  int32_t rc = nn_net_begin(&m->net, host, bert_tasks, error);
  if (rc >= 0) rc = config_read(host, source, &m->config, error);
  if (rc < 0) return rc;
  const struct bert_config *c = &m->config;
  m->layer = host->arena_alloc(source->arena, (uint64_t)c->layers * sizeof *m->layer);
  if (!m->layer) return nn_fail(error, VIV_NOT_NOW, "open", "no memory for the layers");
  rc = nn_weights_load(host, m->net.compute, source, tables, m, error);
  if (rc < 0) return rc;
  m->decoder.w = m->words;
  m->decoder.in = c->d;
  m->decoder.out = c->vocab;
  snprintf(m->about, sizeof m->about,
           "{\"family\":\"%s\",\"layers\":%d,\"width\":%lld,\"heads\":%d,\"vocabulary\":%lld,"
           "\"positions\":%lld,\"head\":\"%s\"}",
           c->roberta ? "roberta" : "bert", (int)c->layers, (long long)c->d, (int)c->heads,
           (long long)c->vocab, (long long)c->positions,
           c->head == BERT_MASKED_LM    ? "masked language"
           : c->head == BERT_CLASSIFIER ? "sequence classification"
                                        : "none");
  m->net.about = m->about;
  *out = (viv_plugin_model *)m;
  return VIV_OK;
}

static const viv_model_api model_api = NN_NET_API(.plan = plan, .open = open_model);

NN_PLUGIN("bert", "0.1.0", {VIV_MODEL_ID, &model_api})
