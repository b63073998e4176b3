/* The layout of every public struct. Written by `make abi-layout` from the headers; not edited by
 * hand: sizes that people type are wrong sooner or later, so these are measured, and asserted at
 * each compilation on 64-bit platforms. */
#ifndef VIVARIUM_LAYOUT_H
#define VIVARIUM_LAYOUT_H

#ifndef VIV_NO_INCLUDES
#include <stddef.h>
#endif

#include "compute.h"
#include "core.h"
#include "explain.h"
#include "model.h"
#include "strategy.h"
#include "text.h"
#include "token_model.h"
#include "vivarium.h"
#include "workflow.h"

/* The version-1 prefix of each struct: the end of the last field that ABI 1.0 had. A receiver
 * refuses a struct that is smaller. These numbers never change within major 1. */
#define VIV_V1_viv_str 16u
#define VIV_V1_viv_error 1024u
#define VIV_V1_viv_tensor 112u
#define VIV_V1_viv_value 56u
#define VIV_V1_viv_event 80u
#define VIV_V1_viv_host 192u
#define VIV_V1_viv_plugin 72u
#define VIV_V1_viv_model_source 56u
#define VIV_V1_viv_memory_plan 56u
#define VIV_V1_viv_plugin_request 48u
#define VIV_V1_viv_model_api 104u
#define VIV_V1_viv_kv 16u
#define VIV_V1_viv_attention 168u
#define VIV_V1_viv_causal_conv 72u
#define VIV_V1_viv_scan 112u
#define VIV_V1_viv_conv_desc 88u
#define VIV_V1_viv_conv 120u
#define VIV_V1_viv_pool 120u
#define VIV_V1_viv_resize 96u
#define VIV_V1_viv_resize_u8 88u
#define VIV_V1_viv_grid_sample 72u
#define VIV_V1_viv_deform 80u
#define VIV_V1_viv_roi_align 72u
#define VIV_V1_viv_rnn 136u
#define VIV_V1_viv_stft 64u
#define VIV_V1_viv_compute 400u
#define VIV_V1_viv_explain_api 24u
#define VIV_V1_viv_token_info 72u
#define VIV_V1_viv_tap_sink 32u
#define VIV_V1_viv_birth 16u
#define VIV_V1_viv_batch 176u
#define VIV_V1_viv_eval_out 24u
#define VIV_V1_viv_token_api 136u
#define VIV_V1_viv_strategy_setup 72u
#define VIV_V1_viv_seq_op 32u
#define VIV_V1_viv_strategy_want 72u
#define VIV_V1_viv_strategy_result 40u
#define VIV_V1_viv_strategy_counters 32u
#define VIV_V1_viv_strategy_api 56u
#define VIV_V1_viv_sampler_api 72u
#define VIV_V1_viv_text_api 32u
#define VIV_V1_viv_options 48u
#define VIV_V1_viv_text 16u
#define VIV_V1_viv_request 64u
#define VIV_V1_viv_workflow_job 72u
#define VIV_V1_viv_workflow_result 32u
#define VIV_V1_viv_workflow_want 32u
#define VIV_V1_viv_workflow_api 40u

#ifndef VIV_NO_INCLUDES
#if defined(__cplusplus)
#define VIV_LAYOUT(condition) static_assert(condition, "the ABI's layout changed")
#else
#define VIV_LAYOUT(condition) _Static_assert(condition, "the ABI's layout changed")
#endif

#if UINTPTR_MAX == 0xffffffffffffffff

VIV_LAYOUT(sizeof(viv_str) == 16);
VIV_LAYOUT(offsetof(viv_str, ptr) == 0);
VIV_LAYOUT(offsetof(viv_str, len) == 8);

VIV_LAYOUT(sizeof(viv_error) == 1024);
VIV_LAYOUT(offsetof(viv_error, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_error, code) == 4);
VIV_LAYOUT(offsetof(viv_error, line) == 8);
VIV_LAYOUT(offsetof(viv_error, reserved) == 12);
VIV_LAYOUT(offsetof(viv_error, source) == 16);
VIV_LAYOUT(offsetof(viv_error, where) == 64);
VIV_LAYOUT(offsetof(viv_error, message) == 272);

VIV_LAYOUT(sizeof(viv_tensor) == 112);
VIV_LAYOUT(offsetof(viv_tensor, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_tensor, flags) == 4);
VIV_LAYOUT(offsetof(viv_tensor, owner) == 8);
VIV_LAYOUT(offsetof(viv_tensor, release) == 16);
VIV_LAYOUT(offsetof(viv_tensor, data) == 24);
VIV_LAYOUT(offsetof(viv_tensor, bytes) == 32);
VIV_LAYOUT(offsetof(viv_tensor, dtype) == 40);
VIV_LAYOUT(offsetof(viv_tensor, ndim) == 44);
VIV_LAYOUT(offsetof(viv_tensor, shape) == 48);

VIV_LAYOUT(sizeof(viv_value) == 56);
VIV_LAYOUT(offsetof(viv_value, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_value, kind) == 4);
VIV_LAYOUT(offsetof(viv_value, name) == 8);
VIV_LAYOUT(offsetof(viv_value, bytes) == 24);
VIV_LAYOUT(offsetof(viv_value, tensor) == 40);
VIV_LAYOUT(offsetof(viv_value, stream) == 48);

VIV_LAYOUT(sizeof(viv_event) == 80);
VIV_LAYOUT(offsetof(viv_event, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_event, kind) == 4);
VIV_LAYOUT(offsetof(viv_event, seq) == 8);
VIV_LAYOUT(offsetof(viv_event, flags) == 16);
VIV_LAYOUT(offsetof(viv_event, status) == 20);
VIV_LAYOUT(offsetof(viv_event, name) == 24);
VIV_LAYOUT(offsetof(viv_event, bytes) == 40);
VIV_LAYOUT(offsetof(viv_event, tensor) == 56);
VIV_LAYOUT(offsetof(viv_event, progress) == 64);
VIV_LAYOUT(offsetof(viv_event, error) == 72);

VIV_LAYOUT(sizeof(viv_host) == 192);
VIV_LAYOUT(offsetof(viv_host, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_host, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_host, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_host, abi_oldest_major) == 12);
VIV_LAYOUT(offsetof(viv_host, self) == 16);
VIV_LAYOUT(offsetof(viv_host, get_extension) == 24);
VIV_LAYOUT(offsetof(viv_host, log) == 32);
VIV_LAYOUT(offsetof(viv_host, thread_check) == 40);
VIV_LAYOUT(offsetof(viv_host, arena_alloc) == 48);
VIV_LAYOUT(offsetof(viv_host, json_member) == 56);
VIV_LAYOUT(offsetof(viv_host, json_item) == 64);
VIV_LAYOUT(offsetof(viv_host, json_type) == 72);
VIV_LAYOUT(offsetof(viv_host, json_count) == 80);
VIV_LAYOUT(offsetof(viv_host, json_number) == 88);
VIV_LAYOUT(offsetof(viv_host, json_boolean) == 96);
VIV_LAYOUT(offsetof(viv_host, json_string) == 104);
VIV_LAYOUT(offsetof(viv_host, json_key) == 112);
VIV_LAYOUT(offsetof(viv_host, tensor_find) == 120);
VIV_LAYOUT(offsetof(viv_host, tensor_count) == 128);
VIV_LAYOUT(offsetof(viv_host, tensor_at) == 136);
VIV_LAYOUT(offsetof(viv_host, checkpoint_file) == 144);
VIV_LAYOUT(offsetof(viv_host, job_poll) == 152);
VIV_LAYOUT(offsetof(viv_host, job_emit) == 160);
VIV_LAYOUT(offsetof(viv_host, job_wants_tap) == 168);
VIV_LAYOUT(offsetof(viv_host, job_arena) == 176);
VIV_LAYOUT(offsetof(viv_host, stream_read) == 184);

VIV_LAYOUT(sizeof(viv_plugin) == 72);
VIV_LAYOUT(offsetof(viv_plugin, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_plugin, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_plugin, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_plugin, reserved) == 12);
VIV_LAYOUT(offsetof(viv_plugin, id) == 16);
VIV_LAYOUT(offsetof(viv_plugin, version) == 32);
VIV_LAYOUT(offsetof(viv_plugin, init) == 48);
VIV_LAYOUT(offsetof(viv_plugin, deinit) == 56);
VIV_LAYOUT(offsetof(viv_plugin, get_interface) == 64);

VIV_LAYOUT(sizeof(viv_model_source) == 56);
VIV_LAYOUT(offsetof(viv_model_source, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_model_source, weight_policy) == 4);
VIV_LAYOUT(offsetof(viv_model_source, name) == 8);
VIV_LAYOUT(offsetof(viv_model_source, config) == 24);
VIV_LAYOUT(offsetof(viv_model_source, params) == 32);
VIV_LAYOUT(offsetof(viv_model_source, checkpoint) == 40);
VIV_LAYOUT(offsetof(viv_model_source, arena) == 48);

VIV_LAYOUT(sizeof(viv_memory_plan) == 56);
VIV_LAYOUT(offsetof(viv_memory_plan, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_memory_plan, reserved) == 4);
VIV_LAYOUT(offsetof(viv_memory_plan, model_bytes) == 8);
VIV_LAYOUT(offsetof(viv_memory_plan, session_bytes) == 16);
VIV_LAYOUT(offsetof(viv_memory_plan, session_token_bytes) == 24);
VIV_LAYOUT(offsetof(viv_memory_plan, step_bytes) == 32);
VIV_LAYOUT(offsetof(viv_memory_plan, step_row_bytes) == 40);
VIV_LAYOUT(offsetof(viv_memory_plan, context_max) == 48);

VIV_LAYOUT(sizeof(viv_plugin_request) == 48);
VIV_LAYOUT(offsetof(viv_plugin_request, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_plugin_request, n_inputs) == 4);
VIV_LAYOUT(offsetof(viv_plugin_request, task) == 8);
VIV_LAYOUT(offsetof(viv_plugin_request, inputs) == 24);
VIV_LAYOUT(offsetof(viv_plugin_request, params) == 32);
VIV_LAYOUT(offsetof(viv_plugin_request, session) == 40);

VIV_LAYOUT(sizeof(viv_model_api) == 104);
VIV_LAYOUT(offsetof(viv_model_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_model_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_model_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_model_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_model_api, plan) == 16);
VIV_LAYOUT(offsetof(viv_model_api, open) == 24);
VIV_LAYOUT(offsetof(viv_model_api, close) == 32);
VIV_LAYOUT(offsetof(viv_model_api, describe) == 40);
VIV_LAYOUT(offsetof(viv_model_api, session_open) == 48);
VIV_LAYOUT(offsetof(viv_model_api, session_close) == 56);
VIV_LAYOUT(offsetof(viv_model_api, session_save) == 64);
VIV_LAYOUT(offsetof(viv_model_api, session_restore) == 72);
VIV_LAYOUT(offsetof(viv_model_api, job_begin) == 80);
VIV_LAYOUT(offsetof(viv_model_api, job_step) == 88);
VIV_LAYOUT(offsetof(viv_model_api, job_end) == 96);

VIV_LAYOUT(sizeof(viv_kv) == 16);
VIV_LAYOUT(offsetof(viv_kv, k) == 0);
VIV_LAYOUT(offsetof(viv_kv, v) == 8);

VIV_LAYOUT(sizeof(viv_attention) == 168);
VIV_LAYOUT(offsetof(viv_attention, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_attention, kv_dtype) == 4);
VIV_LAYOUT(offsetof(viv_attention, rows) == 8);
VIV_LAYOUT(offsetof(viv_attention, heads) == 12);
VIV_LAYOUT(offsetof(viv_attention, head_dim) == 16);
VIV_LAYOUT(offsetof(viv_attention, value_dim) == 20);
VIV_LAYOUT(offsetof(viv_attention, kv_heads) == 24);
VIV_LAYOUT(offsetof(viv_attention, page_tokens) == 28);
VIV_LAYOUT(offsetof(viv_attention, k_width) == 32);
VIV_LAYOUT(offsetof(viv_attention, v_width) == 36);
VIV_LAYOUT(offsetof(viv_attention, k_offset) == 40);
VIV_LAYOUT(offsetof(viv_attention, v_offset) == 48);
VIV_LAYOUT(offsetof(viv_attention, scale) == 56);
VIV_LAYOUT(offsetof(viv_attention, softcap) == 60);
VIV_LAYOUT(offsetof(viv_attention, window) == 64);
VIV_LAYOUT(offsetof(viv_attention, q) == 72);
VIV_LAYOUT(offsetof(viv_attention, q_stride) == 80);
VIV_LAYOUT(offsetof(viv_attention, out) == 88);
VIV_LAYOUT(offsetof(viv_attention, out_stride) == 96);
VIV_LAYOUT(offsetof(viv_attention, kv) == 104);
VIV_LAYOUT(offsetof(viv_attention, visible) == 112);
VIV_LAYOUT(offsetof(viv_attention, mask) == 120);
VIV_LAYOUT(offsetof(viv_attention, mask_stride) == 128);
VIV_LAYOUT(offsetof(viv_attention, mask_begin) == 136);
VIV_LAYOUT(offsetof(viv_attention, bias) == 144);
VIV_LAYOUT(offsetof(viv_attention, bias_row_stride) == 152);
VIV_LAYOUT(offsetof(viv_attention, bias_head_stride) == 160);

VIV_LAYOUT(sizeof(viv_causal_conv) == 72);
VIV_LAYOUT(offsetof(viv_causal_conv, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_causal_conv, silu) == 4);
VIV_LAYOUT(offsetof(viv_causal_conv, rows) == 8);
VIV_LAYOUT(offsetof(viv_causal_conv, channels) == 16);
VIV_LAYOUT(offsetof(viv_causal_conv, taps) == 20);
VIV_LAYOUT(offsetof(viv_causal_conv, x) == 24);
VIV_LAYOUT(offsetof(viv_causal_conv, x_stride) == 32);
VIV_LAYOUT(offsetof(viv_causal_conv, weight) == 40);
VIV_LAYOUT(offsetof(viv_causal_conv, bias) == 48);
VIV_LAYOUT(offsetof(viv_causal_conv, tail) == 56);
VIV_LAYOUT(offsetof(viv_causal_conv, out) == 64);

VIV_LAYOUT(sizeof(viv_scan) == 112);
VIV_LAYOUT(offsetof(viv_scan, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_scan, channels) == 4);
VIV_LAYOUT(offsetof(viv_scan, states) == 8);
VIV_LAYOUT(offsetof(viv_scan, reserved) == 12);
VIV_LAYOUT(offsetof(viv_scan, rows) == 16);
VIV_LAYOUT(offsetof(viv_scan, u) == 24);
VIV_LAYOUT(offsetof(viv_scan, delta) == 32);
VIV_LAYOUT(offsetof(viv_scan, a) == 40);
VIV_LAYOUT(offsetof(viv_scan, b) == 48);
VIV_LAYOUT(offsetof(viv_scan, c) == 56);
VIV_LAYOUT(offsetof(viv_scan, bc_stride) == 64);
VIV_LAYOUT(offsetof(viv_scan, d) == 72);
VIV_LAYOUT(offsetof(viv_scan, state) == 80);
VIV_LAYOUT(offsetof(viv_scan, states_out) == 88);
VIV_LAYOUT(offsetof(viv_scan, y) == 96);
VIV_LAYOUT(offsetof(viv_scan, u_stride) == 104);

VIV_LAYOUT(sizeof(viv_conv_desc) == 88);
VIV_LAYOUT(offsetof(viv_conv_desc, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_conv_desc, dims) == 4);
VIV_LAYOUT(offsetof(viv_conv_desc, groups) == 8);
VIV_LAYOUT(offsetof(viv_conv_desc, transposed) == 12);
VIV_LAYOUT(offsetof(viv_conv_desc, in_channels) == 16);
VIV_LAYOUT(offsetof(viv_conv_desc, out_channels) == 20);
VIV_LAYOUT(offsetof(viv_conv_desc, kernel) == 24);
VIV_LAYOUT(offsetof(viv_conv_desc, stride) == 36);
VIV_LAYOUT(offsetof(viv_conv_desc, dilation) == 48);
VIV_LAYOUT(offsetof(viv_conv_desc, reserved) == 60);
VIV_LAYOUT(offsetof(viv_conv_desc, weight) == 64);
VIV_LAYOUT(offsetof(viv_conv_desc, scale) == 72);
VIV_LAYOUT(offsetof(viv_conv_desc, bias) == 80);

VIV_LAYOUT(sizeof(viv_conv) == 120);
VIV_LAYOUT(offsetof(viv_conv, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_conv, batch) == 4);
VIV_LAYOUT(offsetof(viv_conv, weight) == 8);
VIV_LAYOUT(offsetof(viv_conv, size) == 16);
VIV_LAYOUT(offsetof(viv_conv, pad_begin) == 28);
VIV_LAYOUT(offsetof(viv_conv, pad_end) == 40);
VIV_LAYOUT(offsetof(viv_conv, output_pad) == 52);
VIV_LAYOUT(offsetof(viv_conv, pad) == 64);
VIV_LAYOUT(offsetof(viv_conv, x_layout) == 68);
VIV_LAYOUT(offsetof(viv_conv, out_layout) == 72);
VIV_LAYOUT(offsetof(viv_conv, act) == 76);
VIV_LAYOUT(offsetof(viv_conv, act_param) == 80);
VIV_LAYOUT(offsetof(viv_conv, reserved) == 84);
VIV_LAYOUT(offsetof(viv_conv, x) == 88);
VIV_LAYOUT(offsetof(viv_conv, residual) == 96);
VIV_LAYOUT(offsetof(viv_conv, out) == 104);
VIV_LAYOUT(offsetof(viv_conv, scratch) == 112);

VIV_LAYOUT(sizeof(viv_pool) == 120);
VIV_LAYOUT(offsetof(viv_pool, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_pool, kind) == 4);
VIV_LAYOUT(offsetof(viv_pool, dims) == 8);
VIV_LAYOUT(offsetof(viv_pool, channels) == 12);
VIV_LAYOUT(offsetof(viv_pool, batch) == 16);
VIV_LAYOUT(offsetof(viv_pool, size) == 24);
VIV_LAYOUT(offsetof(viv_pool, kernel) == 36);
VIV_LAYOUT(offsetof(viv_pool, stride) == 48);
VIV_LAYOUT(offsetof(viv_pool, dilation) == 60);
VIV_LAYOUT(offsetof(viv_pool, pad_begin) == 72);
VIV_LAYOUT(offsetof(viv_pool, pad_end) == 84);
VIV_LAYOUT(offsetof(viv_pool, ceil_mode) == 96);
VIV_LAYOUT(offsetof(viv_pool, count_pad) == 100);
VIV_LAYOUT(offsetof(viv_pool, x) == 104);
VIV_LAYOUT(offsetof(viv_pool, out) == 112);

VIV_LAYOUT(sizeof(viv_resize) == 96);
VIV_LAYOUT(offsetof(viv_resize, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_resize, filter) == 4);
VIV_LAYOUT(offsetof(viv_resize, dims) == 8);
VIV_LAYOUT(offsetof(viv_resize, channels) == 12);
VIV_LAYOUT(offsetof(viv_resize, batch) == 16);
VIV_LAYOUT(offsetof(viv_resize, size) == 24);
VIV_LAYOUT(offsetof(viv_resize, out_size) == 36);
VIV_LAYOUT(offsetof(viv_resize, scale) == 48);
VIV_LAYOUT(offsetof(viv_resize, align_corners) == 72);
VIV_LAYOUT(offsetof(viv_resize, antialias) == 76);
VIV_LAYOUT(offsetof(viv_resize, x) == 80);
VIV_LAYOUT(offsetof(viv_resize, out) == 88);

VIV_LAYOUT(sizeof(viv_resize_u8) == 88);
VIV_LAYOUT(offsetof(viv_resize_u8, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_resize_u8, form) == 4);
VIV_LAYOUT(offsetof(viv_resize_u8, filter) == 8);
VIV_LAYOUT(offsetof(viv_resize_u8, height) == 12);
VIV_LAYOUT(offsetof(viv_resize_u8, width) == 16);
VIV_LAYOUT(offsetof(viv_resize_u8, channels) == 20);
VIV_LAYOUT(offsetof(viv_resize_u8, out_height) == 24);
VIV_LAYOUT(offsetof(viv_resize_u8, out_width) == 28);
VIV_LAYOUT(offsetof(viv_resize_u8, box) == 32);
VIV_LAYOUT(offsetof(viv_resize_u8, x) == 64);
VIV_LAYOUT(offsetof(viv_resize_u8, out) == 72);
VIV_LAYOUT(offsetof(viv_resize_u8, scratch) == 80);

VIV_LAYOUT(sizeof(viv_grid_sample) == 72);
VIV_LAYOUT(offsetof(viv_grid_sample, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_grid_sample, filter) == 4);
VIV_LAYOUT(offsetof(viv_grid_sample, border) == 8);
VIV_LAYOUT(offsetof(viv_grid_sample, align_corners) == 12);
VIV_LAYOUT(offsetof(viv_grid_sample, batch) == 16);
VIV_LAYOUT(offsetof(viv_grid_sample, channels) == 20);
VIV_LAYOUT(offsetof(viv_grid_sample, height) == 24);
VIV_LAYOUT(offsetof(viv_grid_sample, width) == 28);
VIV_LAYOUT(offsetof(viv_grid_sample, out_height) == 32);
VIV_LAYOUT(offsetof(viv_grid_sample, out_width) == 36);
VIV_LAYOUT(offsetof(viv_grid_sample, layout) == 40);
VIV_LAYOUT(offsetof(viv_grid_sample, reserved) == 44);
VIV_LAYOUT(offsetof(viv_grid_sample, x) == 48);
VIV_LAYOUT(offsetof(viv_grid_sample, grid) == 56);
VIV_LAYOUT(offsetof(viv_grid_sample, out) == 64);

VIV_LAYOUT(sizeof(viv_deform) == 80);
VIV_LAYOUT(offsetof(viv_deform, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_deform, batch) == 4);
VIV_LAYOUT(offsetof(viv_deform, queries) == 8);
VIV_LAYOUT(offsetof(viv_deform, heads) == 12);
VIV_LAYOUT(offsetof(viv_deform, head_dim) == 16);
VIV_LAYOUT(offsetof(viv_deform, levels) == 20);
VIV_LAYOUT(offsetof(viv_deform, points) == 24);
VIV_LAYOUT(offsetof(viv_deform, reserved) == 28);
VIV_LAYOUT(offsetof(viv_deform, shapes) == 32);
VIV_LAYOUT(offsetof(viv_deform, values) == 40);
VIV_LAYOUT(offsetof(viv_deform, value) == 48);
VIV_LAYOUT(offsetof(viv_deform, locations) == 56);
VIV_LAYOUT(offsetof(viv_deform, weights) == 64);
VIV_LAYOUT(offsetof(viv_deform, out) == 72);

VIV_LAYOUT(sizeof(viv_roi_align) == 72);
VIV_LAYOUT(offsetof(viv_roi_align, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_roi_align, channels) == 4);
VIV_LAYOUT(offsetof(viv_roi_align, height) == 8);
VIV_LAYOUT(offsetof(viv_roi_align, width) == 12);
VIV_LAYOUT(offsetof(viv_roi_align, out_height) == 16);
VIV_LAYOUT(offsetof(viv_roi_align, out_width) == 20);
VIV_LAYOUT(offsetof(viv_roi_align, sampling_ratio) == 24);
VIV_LAYOUT(offsetof(viv_roi_align, aligned) == 28);
VIV_LAYOUT(offsetof(viv_roi_align, spatial_scale) == 32);
VIV_LAYOUT(offsetof(viv_roi_align, reserved) == 36);
VIV_LAYOUT(offsetof(viv_roi_align, boxes) == 40);
VIV_LAYOUT(offsetof(viv_roi_align, x) == 48);
VIV_LAYOUT(offsetof(viv_roi_align, box) == 56);
VIV_LAYOUT(offsetof(viv_roi_align, out) == 64);

VIV_LAYOUT(sizeof(viv_rnn) == 136);
VIV_LAYOUT(offsetof(viv_rnn, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_rnn, kind) == 4);
VIV_LAYOUT(offsetof(viv_rnn, input) == 8);
VIV_LAYOUT(offsetof(viv_rnn, hidden) == 12);
VIV_LAYOUT(offsetof(viv_rnn, rows) == 16);
VIV_LAYOUT(offsetof(viv_rnn, reverse) == 20);
VIV_LAYOUT(offsetof(viv_rnn, steps) == 24);
VIV_LAYOUT(offsetof(viv_rnn, w_input) == 32);
VIV_LAYOUT(offsetof(viv_rnn, w_hidden) == 40);
VIV_LAYOUT(offsetof(viv_rnn, b_input) == 48);
VIV_LAYOUT(offsetof(viv_rnn, b_hidden) == 56);
VIV_LAYOUT(offsetof(viv_rnn, x) == 64);
VIV_LAYOUT(offsetof(viv_rnn, x_step_stride) == 72);
VIV_LAYOUT(offsetof(viv_rnn, x_row_stride) == 80);
VIV_LAYOUT(offsetof(viv_rnn, h) == 88);
VIV_LAYOUT(offsetof(viv_rnn, c) == 96);
VIV_LAYOUT(offsetof(viv_rnn, y) == 104);
VIV_LAYOUT(offsetof(viv_rnn, y_step_stride) == 112);
VIV_LAYOUT(offsetof(viv_rnn, y_row_stride) == 120);
VIV_LAYOUT(offsetof(viv_rnn, scratch) == 128);

VIV_LAYOUT(sizeof(viv_stft) == 64);
VIV_LAYOUT(offsetof(viv_stft, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_stft, n_fft) == 4);
VIV_LAYOUT(offsetof(viv_stft, hop) == 8);
VIV_LAYOUT(offsetof(viv_stft, reserved) == 12);
VIV_LAYOUT(offsetof(viv_stft, rows) == 16);
VIV_LAYOUT(offsetof(viv_stft, samples) == 24);
VIV_LAYOUT(offsetof(viv_stft, frames) == 32);
VIV_LAYOUT(offsetof(viv_stft, window) == 40);
VIV_LAYOUT(offsetof(viv_stft, x) == 48);
VIV_LAYOUT(offsetof(viv_stft, out) == 56);

VIV_LAYOUT(sizeof(viv_compute) == 400);
VIV_LAYOUT(offsetof(viv_compute, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_compute, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_compute, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_compute, threads) == 12);
VIV_LAYOUT(offsetof(viv_compute, self) == 16);
VIV_LAYOUT(offsetof(viv_compute, parallel_for) == 24);
VIV_LAYOUT(offsetof(viv_compute, weight_prepare) == 32);
VIV_LAYOUT(offsetof(viv_compute, weight_rows) == 40);
VIV_LAYOUT(offsetof(viv_compute, weight_bytes) == 48);
VIV_LAYOUT(offsetof(viv_compute, floats) == 56);
VIV_LAYOUT(offsetof(viv_compute, linear) == 64);
VIV_LAYOUT(offsetof(viv_compute, gather) == 72);
VIV_LAYOUT(offsetof(viv_compute, gemm) == 80);
VIV_LAYOUT(offsetof(viv_compute, layer_norm) == 88);
VIV_LAYOUT(offsetof(viv_compute, rms_norm) == 96);
VIV_LAYOUT(offsetof(viv_compute, softmax) == 104);
VIV_LAYOUT(offsetof(viv_compute, unary) == 112);
VIV_LAYOUT(offsetof(viv_compute, gate) == 120);
VIV_LAYOUT(offsetof(viv_compute, glu) == 128);
VIV_LAYOUT(offsetof(viv_compute, add) == 136);
VIV_LAYOUT(offsetof(viv_compute, rope_table) == 144);
VIV_LAYOUT(offsetof(viv_compute, rope_apply) == 152);
VIV_LAYOUT(offsetof(viv_compute, attention) == 160);
VIV_LAYOUT(offsetof(viv_compute, causal_conv) == 168);
VIV_LAYOUT(offsetof(viv_compute, scan) == 176);
VIV_LAYOUT(offsetof(viv_compute, store) == 184);
VIV_LAYOUT(offsetof(viv_compute, load) == 192);
VIV_LAYOUT(offsetof(viv_compute, linear_to) == 200);
VIV_LAYOUT(offsetof(viv_compute, weight_rows_bytes) == 208);
VIV_LAYOUT(offsetof(viv_compute, conv_prepare) == 216);
VIV_LAYOUT(offsetof(viv_compute, conv_bytes) == 224);
VIV_LAYOUT(offsetof(viv_compute, conv) == 232);
VIV_LAYOUT(offsetof(viv_compute, conv_scratch) == 240);
VIV_LAYOUT(offsetof(viv_compute, pool) == 248);
VIV_LAYOUT(offsetof(viv_compute, resize) == 256);
VIV_LAYOUT(offsetof(viv_compute, resize_u8) == 264);
VIV_LAYOUT(offsetof(viv_compute, resize_u8_scratch) == 272);
VIV_LAYOUT(offsetof(viv_compute, grid_sample) == 280);
VIV_LAYOUT(offsetof(viv_compute, deform) == 288);
VIV_LAYOUT(offsetof(viv_compute, roi_align) == 296);
VIV_LAYOUT(offsetof(viv_compute, permute) == 304);
VIV_LAYOUT(offsetof(viv_compute, group_norm) == 312);
VIV_LAYOUT(offsetof(viv_compute, unary_with) == 320);
VIV_LAYOUT(offsetof(viv_compute, snake) == 328);
VIV_LAYOUT(offsetof(viv_compute, scale_shift) == 336);
VIV_LAYOUT(offsetof(viv_compute, multiply) == 344);
VIV_LAYOUT(offsetof(viv_compute, top_k) == 352);
VIV_LAYOUT(offsetof(viv_compute, rnn) == 360);
VIV_LAYOUT(offsetof(viv_compute, rnn_scratch) == 368);
VIV_LAYOUT(offsetof(viv_compute, stft) == 376);
VIV_LAYOUT(offsetof(viv_compute, istft) == 384);
VIV_LAYOUT(offsetof(viv_compute, linears) == 392);

VIV_LAYOUT(sizeof(viv_explain_api) == 24);
VIV_LAYOUT(offsetof(viv_explain_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_explain_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_explain_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_explain_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_explain_api, kinds) == 16);

VIV_LAYOUT(sizeof(viv_token_info) == 72);
VIV_LAYOUT(offsetof(viv_token_info, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_token_info, caps) == 4);
VIV_LAYOUT(offsetof(viv_token_info, n_layers) == 8);
VIV_LAYOUT(offsetof(viv_token_info, d_model) == 12);
VIV_LAYOUT(offsetof(viv_token_info, vocab_size) == 16);
VIV_LAYOUT(offsetof(viv_token_info, n_eos) == 20);
VIV_LAYOUT(offsetof(viv_token_info, context_max) == 24);
VIV_LAYOUT(offsetof(viv_token_info, eos) == 32);
VIV_LAYOUT(offsetof(viv_token_info, bos) == 40);
VIV_LAYOUT(offsetof(viv_token_info, pad) == 44);
VIV_LAYOUT(offsetof(viv_token_info, decoder_start) == 48);
VIV_LAYOUT(offsetof(viv_token_info, mask_token) == 52);
VIV_LAYOUT(offsetof(viv_token_info, cannot) == 56);

VIV_LAYOUT(sizeof(viv_tap_sink) == 32);
VIV_LAYOUT(offsetof(viv_tap_sink, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_tap_sink, reserved) == 4);
VIV_LAYOUT(offsetof(viv_tap_sink, self) == 8);
VIV_LAYOUT(offsetof(viv_tap_sink, wants) == 16);
VIV_LAYOUT(offsetof(viv_tap_sink, put) == 24);

VIV_LAYOUT(sizeof(viv_birth) == 16);
VIV_LAYOUT(offsetof(viv_birth, row) == 0);
VIV_LAYOUT(offsetof(viv_birth, layer) == 4);
VIV_LAYOUT(offsetof(viv_birth, source_row) == 8);
VIV_LAYOUT(offsetof(viv_birth, aux_id) == 12);

VIV_LAYOUT(sizeof(viv_batch) == 176);
VIV_LAYOUT(offsetof(viv_batch, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_batch, flags) == 4);
VIV_LAYOUT(offsetof(viv_batch, n_rows) == 8);
VIV_LAYOUT(offsetof(viv_batch, input_kind) == 12);
VIV_LAYOUT(offsetof(viv_batch, tokens) == 16);
VIV_LAYOUT(offsetof(viv_batch, rows) == 24);
VIV_LAYOUT(offsetof(viv_batch, seq) == 32);
VIV_LAYOUT(offsetof(viv_batch, pos) == 40);
VIV_LAYOUT(offsetof(viv_batch, layer_begin) == 48);
VIV_LAYOUT(offsetof(viv_batch, layer_end) == 52);
VIV_LAYOUT(offsetof(viv_batch, mask_kind) == 56);
VIV_LAYOUT(offsetof(viv_batch, kv_write) == 60);
VIV_LAYOUT(offsetof(viv_batch, parent) == 64);
VIV_LAYOUT(offsetof(viv_batch, mask) == 72);
VIV_LAYOUT(offsetof(viv_batch, skip_attn) == 80);
VIV_LAYOUT(offsetof(viv_batch, skip_mlp) == 88);
VIV_LAYOUT(offsetof(viv_batch, expert_ranks) == 96);
VIV_LAYOUT(offsetof(viv_batch, n_expert_ranks) == 104);
VIV_LAYOUT(offsetof(viv_batch, n_births) == 108);
VIV_LAYOUT(offsetof(viv_batch, births) == 112);
VIV_LAYOUT(offsetof(viv_batch, capture_layers) == 120);
VIV_LAYOUT(offsetof(viv_batch, logit_rows) == 128);
VIV_LAYOUT(offsetof(viv_batch, n_capture) == 136);
VIV_LAYOUT(offsetof(viv_batch, n_logit_rows) == 140);
VIV_LAYOUT(offsetof(viv_batch, taps) == 144);
VIV_LAYOUT(offsetof(viv_batch, scratch) == 152);
VIV_LAYOUT(offsetof(viv_batch, poll_self) == 160);
VIV_LAYOUT(offsetof(viv_batch, poll) == 168);

VIV_LAYOUT(sizeof(viv_eval_out) == 24);
VIV_LAYOUT(offsetof(viv_eval_out, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_eval_out, reserved) == 4);
VIV_LAYOUT(offsetof(viv_eval_out, logits) == 8);
VIV_LAYOUT(offsetof(viv_eval_out, hidden) == 16);

VIV_LAYOUT(sizeof(viv_token_api) == 136);
VIV_LAYOUT(offsetof(viv_token_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_token_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_token_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_token_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_token_api, info) == 16);
VIV_LAYOUT(offsetof(viv_token_api, seq_open) == 24);
VIV_LAYOUT(offsetof(viv_token_api, seq_close) == 32);
VIV_LAYOUT(offsetof(viv_token_api, seq_len) == 40);
VIV_LAYOUT(offsetof(viv_token_api, eval) == 48);
VIV_LAYOUT(offsetof(viv_token_api, seq_truncate) == 56);
VIV_LAYOUT(offsetof(viv_token_api, seq_gather) == 64);
VIV_LAYOUT(offsetof(viv_token_api, seq_fork) == 72);
VIV_LAYOUT(offsetof(viv_token_api, snapshot) == 80);
VIV_LAYOUT(offsetof(viv_token_api, restore) == 88);
VIV_LAYOUT(offsetof(viv_token_api, head) == 96);
VIV_LAYOUT(offsetof(viv_token_api, embed) == 104);
VIV_LAYOUT(offsetof(viv_token_api, encode) == 112);
VIV_LAYOUT(offsetof(viv_token_api, aux_load) == 120);
VIV_LAYOUT(offsetof(viv_token_api, aux_run) == 128);

VIV_LAYOUT(sizeof(viv_strategy_setup) == 72);
VIV_LAYOUT(offsetof(viv_strategy_setup, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_strategy_setup, n_prompt) == 4);
VIV_LAYOUT(offsetof(viv_strategy_setup, name) == 8);
VIV_LAYOUT(offsetof(viv_strategy_setup, params) == 24);
VIV_LAYOUT(offsetof(viv_strategy_setup, info) == 32);
VIV_LAYOUT(offsetof(viv_strategy_setup, prompt) == 40);
VIV_LAYOUT(offsetof(viv_strategy_setup, seed) == 48);
VIV_LAYOUT(offsetof(viv_strategy_setup, arena) == 56);
VIV_LAYOUT(offsetof(viv_strategy_setup, max_new_tokens) == 64);

VIV_LAYOUT(sizeof(viv_seq_op) == 32);
VIV_LAYOUT(offsetof(viv_seq_op, kind) == 0);
VIV_LAYOUT(offsetof(viv_seq_op, seq) == 4);
VIV_LAYOUT(offsetof(viv_seq_op, a) == 8);
VIV_LAYOUT(offsetof(viv_seq_op, b) == 16);
VIV_LAYOUT(offsetof(viv_seq_op, n) == 20);
VIV_LAYOUT(offsetof(viv_seq_op, index) == 24);

VIV_LAYOUT(sizeof(viv_strategy_want) == 72);
VIV_LAYOUT(offsetof(viv_strategy_want, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_strategy_want, n_emit) == 4);
VIV_LAYOUT(offsetof(viv_strategy_want, emit) == 8);
VIV_LAYOUT(offsetof(viv_strategy_want, emit_row) == 16);
VIV_LAYOUT(offsetof(viv_strategy_want, n_ops) == 24);
VIV_LAYOUT(offsetof(viv_strategy_want, logit_mode) == 28);
VIV_LAYOUT(offsetof(viv_strategy_want, ops) == 32);
VIV_LAYOUT(offsetof(viv_strategy_want, top_k) == 40);
VIV_LAYOUT(offsetof(viv_strategy_want, reserved) == 44);
VIV_LAYOUT(offsetof(viv_strategy_want, batch) == 48);
VIV_LAYOUT(offsetof(viv_strategy_want, annotate) == 56);

VIV_LAYOUT(sizeof(viv_strategy_result) == 40);
VIV_LAYOUT(offsetof(viv_strategy_result, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_strategy_result, n_rows) == 4);
VIV_LAYOUT(offsetof(viv_strategy_result, logits) == 8);
VIV_LAYOUT(offsetof(viv_strategy_result, ids) == 16);
VIV_LAYOUT(offsetof(viv_strategy_result, values) == 24);
VIV_LAYOUT(offsetof(viv_strategy_result, hidden) == 32);

VIV_LAYOUT(sizeof(viv_strategy_counters) == 32);
VIV_LAYOUT(offsetof(viv_strategy_counters, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_strategy_counters, reserved) == 4);
VIV_LAYOUT(offsetof(viv_strategy_counters, target_calls) == 8);
VIV_LAYOUT(offsetof(viv_strategy_counters, drafted) == 16);
VIV_LAYOUT(offsetof(viv_strategy_counters, accepted) == 24);

VIV_LAYOUT(sizeof(viv_strategy_api) == 56);
VIV_LAYOUT(offsetof(viv_strategy_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_strategy_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_strategy_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_strategy_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_strategy_api, requires_caps) == 16);
VIV_LAYOUT(offsetof(viv_strategy_api, create) == 24);
VIV_LAYOUT(offsetof(viv_strategy_api, resume) == 32);
VIV_LAYOUT(offsetof(viv_strategy_api, counters) == 40);
VIV_LAYOUT(offsetof(viv_strategy_api, destroy) == 48);

VIV_LAYOUT(sizeof(viv_sampler_api) == 72);
VIV_LAYOUT(offsetof(viv_sampler_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_sampler_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_sampler_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_sampler_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_sampler_api, create) == 16);
VIV_LAYOUT(offsetof(viv_sampler_api, accept) == 24);
VIV_LAYOUT(offsetof(viv_sampler_api, process) == 32);
VIV_LAYOUT(offsetof(viv_sampler_api, probabilities) == 40);
VIV_LAYOUT(offsetof(viv_sampler_api, draw) == 48);
VIV_LAYOUT(offsetof(viv_sampler_api, argmax) == 56);
VIV_LAYOUT(offsetof(viv_sampler_api, uniform) == 64);

VIV_LAYOUT(sizeof(viv_text_api) == 32);
VIV_LAYOUT(offsetof(viv_text_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_text_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_text_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_text_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_text_api, decode) == 16);
VIV_LAYOUT(offsetof(viv_text_api, token_id) == 24);

VIV_LAYOUT(sizeof(viv_options) == 48);
VIV_LAYOUT(offsetof(viv_options, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_options, threads) == 4);
VIV_LAYOUT(offsetof(viv_options, plugin_path) == 8);
VIV_LAYOUT(offsetof(viv_options, cache_dir) == 16);
VIV_LAYOUT(offsetof(viv_options, memory_budget) == 24);
VIV_LAYOUT(offsetof(viv_options, log_level) == 32);
VIV_LAYOUT(offsetof(viv_options, log_json) == 36);
VIV_LAYOUT(offsetof(viv_options, log_fd) == 40);
VIV_LAYOUT(offsetof(viv_options, safe_mode) == 44);

VIV_LAYOUT(sizeof(viv_text) == 16);
VIV_LAYOUT(offsetof(viv_text, ptr) == 0);
VIV_LAYOUT(offsetof(viv_text, len) == 8);

VIV_LAYOUT(sizeof(viv_request) == 64);
VIV_LAYOUT(offsetof(viv_request, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_request, n_inputs) == 4);
VIV_LAYOUT(offsetof(viv_request, task) == 8);
VIV_LAYOUT(offsetof(viv_request, params) == 16);
VIV_LAYOUT(offsetof(viv_request, inputs) == 24);
VIV_LAYOUT(offsetof(viv_request, session) == 32);
VIV_LAYOUT(offsetof(viv_request, priority) == 40);
VIV_LAYOUT(offsetof(viv_request, reserved) == 44);
VIV_LAYOUT(offsetof(viv_request, deadline_ms) == 48);
VIV_LAYOUT(offsetof(viv_request, max_queued_events) == 56);

VIV_LAYOUT(sizeof(viv_workflow_job) == 72);
VIV_LAYOUT(offsetof(viv_workflow_job, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_workflow_job, tag) == 4);
VIV_LAYOUT(offsetof(viv_workflow_job, model) == 8);
VIV_LAYOUT(offsetof(viv_workflow_job, task) == 24);
VIV_LAYOUT(offsetof(viv_workflow_job, params) == 40);
VIV_LAYOUT(offsetof(viv_workflow_job, n_inputs) == 56);
VIV_LAYOUT(offsetof(viv_workflow_job, reserved) == 60);
VIV_LAYOUT(offsetof(viv_workflow_job, inputs) == 64);

VIV_LAYOUT(sizeof(viv_workflow_result) == 32);
VIV_LAYOUT(offsetof(viv_workflow_result, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_workflow_result, tag) == 4);
VIV_LAYOUT(offsetof(viv_workflow_result, status) == 8);
VIV_LAYOUT(offsetof(viv_workflow_result, n_events) == 12);
VIV_LAYOUT(offsetof(viv_workflow_result, events) == 16);
VIV_LAYOUT(offsetof(viv_workflow_result, error) == 24);

VIV_LAYOUT(sizeof(viv_workflow_want) == 32);
VIV_LAYOUT(offsetof(viv_workflow_want, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_workflow_want, n_jobs) == 4);
VIV_LAYOUT(offsetof(viv_workflow_want, jobs) == 8);
VIV_LAYOUT(offsetof(viv_workflow_want, n_events) == 16);
VIV_LAYOUT(offsetof(viv_workflow_want, reserved) == 20);
VIV_LAYOUT(offsetof(viv_workflow_want, events) == 24);

VIV_LAYOUT(sizeof(viv_workflow_api) == 40);
VIV_LAYOUT(offsetof(viv_workflow_api, struct_size) == 0);
VIV_LAYOUT(offsetof(viv_workflow_api, abi_major) == 4);
VIV_LAYOUT(offsetof(viv_workflow_api, abi_minor) == 8);
VIV_LAYOUT(offsetof(viv_workflow_api, reserved) == 12);
VIV_LAYOUT(offsetof(viv_workflow_api, create) == 16);
VIV_LAYOUT(offsetof(viv_workflow_api, resume) == 24);
VIV_LAYOUT(offsetof(viv_workflow_api, destroy) == 32);

VIV_LAYOUT(sizeof(viv_str) >= VIV_V1_viv_str);
VIV_LAYOUT(sizeof(viv_error) >= VIV_V1_viv_error);
VIV_LAYOUT(sizeof(viv_tensor) >= VIV_V1_viv_tensor);
VIV_LAYOUT(sizeof(viv_value) >= VIV_V1_viv_value);
VIV_LAYOUT(sizeof(viv_event) >= VIV_V1_viv_event);
VIV_LAYOUT(sizeof(viv_host) >= VIV_V1_viv_host);
VIV_LAYOUT(sizeof(viv_plugin) >= VIV_V1_viv_plugin);
VIV_LAYOUT(sizeof(viv_model_source) >= VIV_V1_viv_model_source);
VIV_LAYOUT(sizeof(viv_memory_plan) >= VIV_V1_viv_memory_plan);
VIV_LAYOUT(sizeof(viv_plugin_request) >= VIV_V1_viv_plugin_request);
VIV_LAYOUT(sizeof(viv_model_api) >= VIV_V1_viv_model_api);
VIV_LAYOUT(sizeof(viv_kv) >= VIV_V1_viv_kv);
VIV_LAYOUT(sizeof(viv_attention) >= VIV_V1_viv_attention);
VIV_LAYOUT(sizeof(viv_causal_conv) >= VIV_V1_viv_causal_conv);
VIV_LAYOUT(sizeof(viv_scan) >= VIV_V1_viv_scan);
VIV_LAYOUT(sizeof(viv_conv_desc) >= VIV_V1_viv_conv_desc);
VIV_LAYOUT(sizeof(viv_conv) >= VIV_V1_viv_conv);
VIV_LAYOUT(sizeof(viv_pool) >= VIV_V1_viv_pool);
VIV_LAYOUT(sizeof(viv_resize) >= VIV_V1_viv_resize);
VIV_LAYOUT(sizeof(viv_resize_u8) >= VIV_V1_viv_resize_u8);
VIV_LAYOUT(sizeof(viv_grid_sample) >= VIV_V1_viv_grid_sample);
VIV_LAYOUT(sizeof(viv_deform) >= VIV_V1_viv_deform);
VIV_LAYOUT(sizeof(viv_roi_align) >= VIV_V1_viv_roi_align);
VIV_LAYOUT(sizeof(viv_rnn) >= VIV_V1_viv_rnn);
VIV_LAYOUT(sizeof(viv_stft) >= VIV_V1_viv_stft);
VIV_LAYOUT(sizeof(viv_compute) >= VIV_V1_viv_compute);
VIV_LAYOUT(sizeof(viv_explain_api) >= VIV_V1_viv_explain_api);
VIV_LAYOUT(sizeof(viv_token_info) >= VIV_V1_viv_token_info);
VIV_LAYOUT(sizeof(viv_tap_sink) >= VIV_V1_viv_tap_sink);
VIV_LAYOUT(sizeof(viv_birth) >= VIV_V1_viv_birth);
VIV_LAYOUT(sizeof(viv_batch) >= VIV_V1_viv_batch);
VIV_LAYOUT(sizeof(viv_eval_out) >= VIV_V1_viv_eval_out);
VIV_LAYOUT(sizeof(viv_token_api) >= VIV_V1_viv_token_api);
VIV_LAYOUT(sizeof(viv_strategy_setup) >= VIV_V1_viv_strategy_setup);
VIV_LAYOUT(sizeof(viv_seq_op) >= VIV_V1_viv_seq_op);
VIV_LAYOUT(sizeof(viv_strategy_want) >= VIV_V1_viv_strategy_want);
VIV_LAYOUT(sizeof(viv_strategy_result) >= VIV_V1_viv_strategy_result);
VIV_LAYOUT(sizeof(viv_strategy_counters) >= VIV_V1_viv_strategy_counters);
VIV_LAYOUT(sizeof(viv_strategy_api) >= VIV_V1_viv_strategy_api);
VIV_LAYOUT(sizeof(viv_sampler_api) >= VIV_V1_viv_sampler_api);
VIV_LAYOUT(sizeof(viv_text_api) >= VIV_V1_viv_text_api);
VIV_LAYOUT(sizeof(viv_options) >= VIV_V1_viv_options);
VIV_LAYOUT(sizeof(viv_text) >= VIV_V1_viv_text);
VIV_LAYOUT(sizeof(viv_request) >= VIV_V1_viv_request);
VIV_LAYOUT(sizeof(viv_workflow_job) >= VIV_V1_viv_workflow_job);
VIV_LAYOUT(sizeof(viv_workflow_result) >= VIV_V1_viv_workflow_result);
VIV_LAYOUT(sizeof(viv_workflow_want) >= VIV_V1_viv_workflow_want);
VIV_LAYOUT(sizeof(viv_workflow_api) >= VIV_V1_viv_workflow_api);
#endif
#endif
#endif
