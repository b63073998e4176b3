//! The functions and structs of libvivarium as `vivarium.h` and `core.h` declare them, which say what each
//! one means. `tests/layout.rs` holds every offset against `layout.h`. The crate `vivarium` is the safe side.
#![allow(non_camel_case_types)]

use std::os::raw::{c_char, c_int, c_void};

/// An `enum viv_status`: 0 or positive is success.
pub type viv_status = i32;

pub const VIV_OK: viv_status = 0;
pub const VIV_DONE: viv_status = 2;
pub const VIV_WAIT: viv_status = 3;
pub const VIV_NEVER: viv_status = -1;
pub const VIV_NOT_NOW: viv_status = -2;
pub const VIV_BAD_INPUT: viv_status = -3;
pub const VIV_CANCELLED: viv_status = -4;
pub const VIV_BUG: viv_status = -5;
pub const VIV_DEADLINE: viv_status = -6;

pub const VIV_F32: i32 = 1;
pub const VIV_F64: i32 = 2;
pub const VIV_F16: i32 = 3;
pub const VIV_BF16: i32 = 4;
pub const VIV_I64: i32 = 5;
pub const VIV_I32: i32 = 6;
pub const VIV_I16: i32 = 7;
pub const VIV_I8: i32 = 8;
pub const VIV_U8: i32 = 9;
pub const VIV_BOOL: i32 = 10;

pub const VIV_KIND_TENSOR: i32 = 1;
pub const VIV_KIND_TEXT: i32 = 2;
pub const VIV_KIND_JSON: i32 = 3;
pub const VIV_KIND_IMAGE: i32 = 4;
pub const VIV_KIND_AUDIO: i32 = 5;
pub const VIV_KIND_STREAM: i32 = 6;
pub const VIV_KIND_PROGRESS: i32 = 7;
pub const VIV_KIND_END: i32 = 8;

pub const VIV_TENSOR_READ_ONLY: u32 = 1;
pub const VIV_MAX_DIMS: usize = 8;

macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        pub struct $name {
            _private: [u8; 0],
        }
    )*};
}
opaque!(viv_runtime, viv_model, viv_session, viv_job, viv_stream);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_str {
    pub ptr: *const c_char,
    pub len: u64,
}

#[repr(C)]
pub struct viv_text {
    pub ptr: *mut c_char,
    pub len: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_error {
    pub struct_size: u32,
    pub code: i32,
    pub line: i32,
    pub reserved: i32,
    pub source: [c_char; 48],
    pub where_: [c_char; 208],
    pub message: [c_char; 752],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_tensor {
    pub struct_size: u32,
    pub flags: u32,
    pub owner: *mut c_void,
    pub release: Option<unsafe extern "C" fn(*mut viv_tensor)>,
    pub data: *mut c_void,
    pub bytes: u64,
    pub dtype: i32,
    pub ndim: i32,
    pub shape: [i64; VIV_MAX_DIMS],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_value {
    pub struct_size: u32,
    pub kind: i32,
    pub name: viv_str,
    pub bytes: viv_str,
    pub tensor: *const viv_tensor,
    pub stream: *mut viv_stream,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_event {
    pub struct_size: u32,
    pub kind: i32,
    pub seq: u64,
    pub flags: u32,
    pub status: i32,
    pub name: viv_str,
    pub bytes: viv_str,
    pub tensor: *const viv_tensor,
    pub progress: f64,
    pub error: *const viv_error,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_options {
    pub struct_size: u32,
    pub threads: i32,
    pub plugin_path: *const c_char,
    pub cache_dir: *const c_char,
    pub memory_budget: u64,
    pub log_level: i32,
    pub log_json: i32,
    pub log_fd: i32,
    pub safe_mode: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct viv_request {
    pub struct_size: u32,
    pub n_inputs: i32,
    pub task: *const c_char,
    pub params: *const c_char,
    pub inputs: *const *const viv_value,
    pub session: *mut viv_session,
    pub priority: i32,
    pub reserved: i32,
    pub deadline_ms: i64,
    pub max_queued_events: i64,
}

extern "C" {
    pub fn viv_text_free(text: *mut viv_text);
    pub fn viv_version() -> *const c_char;
    pub fn viv_status_name(status: viv_status) -> *const c_char;

    pub fn viv_open(
        options: *const viv_options,
        out: *mut *mut viv_runtime,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_connect(
        socket: *const c_char,
        out: *mut *mut viv_runtime,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_close(runtime: *mut viv_runtime);

    pub fn viv_plugins(runtime: *mut viv_runtime, json: *mut viv_text, error: *mut viv_error) -> viv_status;
    pub fn viv_machine(runtime: *mut viv_runtime, json: *mut viv_text, error: *mut viv_error) -> viv_status;
    pub fn viv_why(
        runtime: *mut viv_runtime,
        path: *const c_char,
        json: *mut viv_text,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_plan(
        runtime: *mut viv_runtime,
        path: *const c_char,
        params: *const c_char,
        json: *mut viv_text,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_models(runtime: *mut viv_runtime, json: *mut viv_text, error: *mut viv_error) -> viv_status;

    pub fn viv_load(
        runtime: *mut viv_runtime,
        path: *const c_char,
        params: *const c_char,
        out: *mut *mut viv_model,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_unload(model: *mut viv_model);
    pub fn viv_describe(model: *mut viv_model, json: *mut viv_text, error: *mut viv_error) -> viv_status;

    pub fn viv_submit(
        model: *mut viv_model,
        request: *const viv_request,
        out: *mut *mut viv_job,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_next_event(job: *mut viv_job, timeout_ms: i64, event: *mut viv_event) -> viv_status;
    pub fn viv_job_fd(job: *mut viv_job) -> c_int;
    pub fn viv_job_cancel(job: *mut viv_job);
    pub fn viv_job_free(job: *mut viv_job);

    pub fn viv_session_open(
        model: *mut viv_model,
        out: *mut *mut viv_session,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_session_close(session: *mut viv_session);
    pub fn viv_session_save(
        session: *mut viv_session,
        path: *const c_char,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_session_resume(
        model: *mut viv_model,
        path: *const c_char,
        out: *mut *mut viv_session,
        error: *mut viv_error,
    ) -> viv_status;

    pub fn viv_tokenize(
        model: *mut viv_model,
        text: *const c_char,
        len: u64,
        add_special: i32,
        ids: *mut *mut i32,
        n: *mut u64,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_detokenize(
        model: *mut viv_model,
        ids: *const i32,
        n: u64,
        skip_special: i32,
        text: *mut viv_text,
        error: *mut viv_error,
    ) -> viv_status;
    pub fn viv_ids_free(ids: *mut i32);
}
