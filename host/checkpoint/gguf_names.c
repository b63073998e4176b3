/* Tensor names of GGUF to those of the official releases of the Llama family.
 *
 *   token_embd.weight          model.embed_tokens.weight
 *   output_norm.weight         model.norm.weight
 *   output.weight              lm_head.weight
 *   blk.N.attn_norm.weight     model.layers.N.input_layernorm.weight
 *   blk.N.attn_q.weight        model.layers.N.self_attn.q_proj.weight      (k, v alike; .bias too)
 *   ...
 *
 * A name without a counterpart stays as it is, so that the plugin's own check names it. The rows of
 * attn_q and attn_k are not touched: config.json's rope_interleaved says in which order they lie. */
#include <string.h>

#include "checkpoint/gguf.h"

static const struct {
  const char *gguf, *official;
} tops[] = {{"token_embd.weight", "model.embed_tokens.weight"},
            {"output_norm.weight", "model.norm.weight"},
            {"output.weight", "lm_head.weight"},
            {"output.bias", "lm_head.bias"}},
  layers[] = {{"attn_norm", "input_layernorm"},
              {"attn_q", "self_attn.q_proj"},
              {"attn_k", "self_attn.k_proj"},
              {"attn_v", "self_attn.v_proj"},
              {"attn_qkv", "self_attn.qkv_proj"},
              {"attn_output", "self_attn.o_proj"},
              {"ffn_norm", "post_attention_layernorm"},
              {"ffn_gate", "mlp.gate_proj"},
              {"ffn_up", "mlp.up_proj"},
              {"ffn_down", "mlp.down_proj"}};

/* "blk.N.part.kind" -> N, part, kind; false: another form. */
static bool split(viv_str name, viv_str *index, viv_str *part, viv_str *kind) {
  if (name.len < 4 || memcmp(name.ptr, "blk.", 4) != 0) return false;
  const char *p = name.ptr + 4, *end = name.ptr + name.len, *first = p;
  while (p < end && *p >= '0' && *p <= '9') p++;
  if (p == first || p == end || *p != '.') return false;
  *index = (viv_str){first, (uint64_t)(p - first)};
  first = ++p;
  const char *dot = memrchr(first, '.', (size_t)(end - first));
  if (!dot) return false;
  *part = (viv_str){first, (uint64_t)(dot - first)};
  *kind = (viv_str){dot + 1, (uint64_t)(end - dot - 1)};
  return true;
}

/* The official name, in the arena unless it is the file's or a constant; ptr NULL: no memory. */
static viv_str official(viv__gguf *g, viv_str name, bool fused) {
  for (size_t i = 0; i < sizeof tops / sizeof *tops; i++)
    if (viv__str_eq(name, tops[i].gguf)) return viv__str(tops[i].official);
  viv_str index, part, kind;
  if (!split(name, &index, &part, &kind)) return name;
  const char *is = NULL;
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++)
    if (viv__str_eq(part, layers[i].gguf)) is = layers[i].official;
  if (!is) return name;
  /* Phi-3 has gate and up in one matrix, which GGUF calls ffn_up. */
  if (fused && viv__str_eq(part, "ffn_up")) is = "mlp.gate_up_proj";
  viv__buf text = {0};
  viv__buf_fmt(&text, "model.layers.%.*s.%s.%.*s", (int)index.len, index.ptr, is, (int)kind.len,
               kind.ptr);
  viv_str made = {NULL, text.len};
  if (!text.failed) made.ptr = viv__arena_str(g->made, (viv_str){text.ptr, text.len});
  viv__buf_free(&text);
  return made;
}

/* Rotary factors: config.json's rope_scaling holds their numbers. */
static bool spoken_for(viv_str name) {
  return viv__str_eq(name, "rope_freqs.weight") || viv__str_eq(name, "rope_factors_long.weight") ||
         viv__str_eq(name, "rope_factors_short.weight");
}

static void swap(viv__gguf *g, int64_t a, int64_t b) {
  viv__gguf_tensor t = g->tensors[a];
  viv_str name = g->file_names[a];
  g->tensors[a] = g->tensors[b];
  g->file_names[a] = g->file_names[b];
  g->tensors[b] = t;
  g->file_names[b] = name;
}

int32_t viv__gguf_rename(viv__gguf *g, viv_error *error) {
  bool fused = viv__str_eq(viv__gguf_string(viv__gguf_get(g, "general.architecture")), "phi3");
  g->count = g->total;
  for (int64_t i = g->total; i-- > 0;)
    if (spoken_for(g->file_names[i])) swap(g, i, --g->count);
  /* The table of the file's own names is of no use behind this. */
  viv__names_free(&g->file_table);
  g->made = viv__arena_new(0);
  g->names = viv__malloc((size_t)g->total * sizeof *g->names);
  if (!g->made || !g->names)
    return VIV_FAIL(error, VIV_NOT_NOW, g->file, "no memory for the tensors' names");
  for (int64_t i = 0; i < g->count; i++) {
    g->names[i] = official(g, g->file_names[i], fused);
    if (!g->names[i].ptr)
      return VIV_FAIL(error, VIV_NOT_NOW, g->file, "no memory for the tensors' names");
  }
  size_t twice = 0;
  int32_t status = viv__names_build(&g->table, g->names, (size_t)g->count, &twice);
  if (status == VIV_NOT_NOW)
    return VIV_FAIL(error, status, g->file, "no memory for the tensors' names");
  if (status < 0) {
    char where[VIV__PLACE], shown[VIV__SHOWN];
    viv__place(where, g->file, "tensor '%s'", viv__shown(shown, g->names[twice]));
    return VIV_FAIL(error, VIV_BAD_INPUT, where, "the file holds it under two names");
  }
  return VIV_OK;
}
