//! Models in this process, or in the daemon of this machine.
//!
//! ```no_run
//! let runtime = vivarium::Runtime::open(&vivarium::Options::default())?; // or Runtime::connect(None)?
//! let model = runtime.load("path/to/model", None)?;
//! for piece in model.generate("Once upon a time", &vivarium::Settings::default())? {
//!     print!("{}", piece?);
//! }
//! # Ok::<(), vivarium::Error>(())
//! ```
//!
//! Everything is given back when it is dropped, in the right order whatever the order of the drops: a job
//! keeps its model, a model its runtime. Parameters are JSON texts. No callback enters Rust code.

mod error;
mod job;
mod ready;
mod value;

pub use error::{Code, Error, Result};
pub use job::{Canceller, Event, Job, NextEvent, Owned, OwnedEvent, Payload};
pub use value::{Dtype, Element, Input, Tensor};

use error::check;
use std::ffi::{CString, OsStr};
use std::mem::size_of;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;
use vivarium_sys as sys;

/// The library's version.
pub fn version() -> String {
    error::version()
}

fn c_text(what: &str, bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::bad(what, "has a NUL in it"))
}

fn c_path(path: impl AsRef<OsStr>) -> Result<CString> {
    c_text("path", path.as_ref().as_bytes())
}

fn c_params(params: Option<&str>) -> Result<Option<CString>> {
    params.map(|p| c_text("params", p.as_bytes())).transpose()
}

fn pointer(text: &Option<CString>) -> *const std::os::raw::c_char {
    text.as_ref().map_or(ptr::null(), |t| t.as_ptr())
}

fn document(call: impl FnOnce(*mut sys::viv_text, *mut sys::viv_error) -> i32) -> Result<String> {
    let mut text = sys::viv_text { ptr: ptr::null_mut(), len: 0 };
    check(|e| call(&mut text, e))?;
    // A terminated text of that length, which is the caller's.
    let copy = unsafe {
        let s = sys::viv_str { ptr: text.ptr, len: text.len };
        String::from_utf8_lossy(value::bytes_of(&s)).into_owned()
    };
    unsafe { sys::viv_text_free(&mut text) };
    Ok(copy)
}

/// How a runtime is opened; `Default` leaves everything to the library.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub threads: i32,
    /// Colon-separated folders.
    pub plugin_path: Option<String>,
    pub cache_dir: Option<String>,
    pub memory_budget: u64,
    pub safe_mode: bool,
}

pub(crate) struct RuntimeHandle(*mut sys::viv_runtime);

// All functions of the library may be called from any thread.
unsafe impl Send for RuntimeHandle {}
unsafe impl Sync for RuntimeHandle {}

impl Drop for RuntimeHandle {
    fn drop(&mut self) {
        unsafe { sys::viv_close(self.0) }
    }
}

pub(crate) struct ModelHandle {
    at: *mut sys::viv_model,
    runtime: Arc<RuntimeHandle>,
}

unsafe impl Send for ModelHandle {}
unsafe impl Sync for ModelHandle {}

impl Drop for ModelHandle {
    fn drop(&mut self) {
        unsafe { sys::viv_unload(self.at) }
    }
}

pub(crate) struct SessionHandle {
    at: *mut sys::viv_session,
    _model: Arc<ModelHandle>,
}

unsafe impl Send for SessionHandle {}
unsafe impl Sync for SessionHandle {}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        unsafe { sys::viv_session_close(self.at) }
    }
}

/// Where models live.
#[derive(Clone)]
pub struct Runtime(Arc<RuntimeHandle>);

impl Runtime {
    /// Models in this process.
    pub fn open(options: &Options) -> Result<Runtime> {
        let plugins =
            options.plugin_path.as_ref().map(|p| c_text("plugin_path", p.as_bytes())).transpose()?;
        let cache = options.cache_dir.as_ref().map(|p| c_text("cache_dir", p.as_bytes())).transpose()?;
        let o = sys::viv_options {
            struct_size: size_of::<sys::viv_options>() as u32,
            threads: options.threads,
            plugin_path: pointer(&plugins),
            cache_dir: pointer(&cache),
            memory_budget: options.memory_budget,
            log_level: 0,
            log_json: 0,
            log_fd: 0,
            safe_mode: options.safe_mode as i32,
        };
        let mut out = ptr::null_mut();
        check(|e| unsafe { sys::viv_open(&o, &mut out, e) })?;
        Ok(Runtime(Arc::new(RuntimeHandle(out))))
    }

    /// Models in the daemon that listens there; None: where it usually does. `Code::NotNow`: nobody does.
    pub fn connect(socket: Option<&Path>) -> Result<Runtime> {
        let path = socket.map(c_path).transpose()?;
        let mut out = ptr::null_mut();
        check(|e| unsafe { sys::viv_connect(pointer(&path), &mut out, e) })?;
        Ok(Runtime(Arc::new(RuntimeHandle(out))))
    }

    /// The model of a directory or file. params: a JSON object, as viv_load takes it.
    pub fn load(&self, path: impl AsRef<Path>, params: Option<&str>) -> Result<Model> {
        let path = c_path(path.as_ref())?;
        let params = c_params(params)?;
        let mut at = ptr::null_mut();
        check(|e| unsafe { sys::viv_load(self.0 .0, path.as_ptr(), pointer(&params), &mut at, e) })?;
        Ok(Model(Arc::new(ModelHandle { at, runtime: self.0.clone() })))
    }

    /// JSON documents, as in vivarium.h.
    pub fn plugins(&self) -> Result<String> {
        document(|text, e| unsafe { sys::viv_plugins(self.0 .0, text, e) })
    }

    pub fn machine(&self) -> Result<String> {
        document(|text, e| unsafe { sys::viv_machine(self.0 .0, text, e) })
    }

    pub fn models(&self) -> Result<String> {
        document(|text, e| unsafe { sys::viv_models(self.0 .0, text, e) })
    }

    pub fn why(&self, path: impl AsRef<Path>) -> Result<String> {
        let path = c_path(path.as_ref())?;
        document(|text, e| unsafe { sys::viv_why(self.0 .0, path.as_ptr(), text, e) })
    }

    pub fn plan(&self, path: impl AsRef<Path>, params: Option<&str>) -> Result<String> {
        let path = c_path(path.as_ref())?;
        let params = c_params(params)?;
        document(|text, e| unsafe { sys::viv_plan(self.0 .0, path.as_ptr(), pointer(&params), text, e) })
    }
}

/// What a job may be told beside its inputs.
#[derive(Clone, Copy, Default)]
pub struct Settings<'a> {
    /// A JSON object.
    pub params: Option<&'a str>,
    pub session: Option<&'a Session>,
    pub deadline: Option<Duration>,
    /// Larger goes first.
    pub priority: i32,
    /// Events that may wait to be read; 0: 256.
    pub max_queued: i64,
}

/// A loaded model. Clones are the same one.
#[derive(Clone)]
pub struct Model(Arc<ModelHandle>);

impl Model {
    /// Where it lives.
    pub fn runtime(&self) -> Runtime {
        Runtime(self.0.runtime.clone())
    }

    /// What it is and takes, JSON.
    pub fn describe(&self) -> Result<String> {
        document(|text, e| unsafe { sys::viv_describe(self.0.at, text, e) })
    }

    /// A job. Inputs are copied by the library before this returns.
    pub fn submit(&self, task: &str, inputs: &[(&str, Input<'_>)], settings: &Settings<'_>) -> Result<Job> {
        let task = c_text("task", task.as_bytes())?;
        let params = c_params(settings.params)?;
        let tensors: Vec<Option<sys::viv_tensor>> = inputs
            .iter()
            .map(|(_, input)| if let Input::Tensor(t) = input { Some(t.to_c()) } else { None })
            .collect();
        let values: Vec<sys::viv_value> = inputs
            .iter()
            .zip(&tensors)
            .map(|((name, input), tensor)| {
                let (kind, bytes) = input.parts();
                sys::viv_value {
                    struct_size: size_of::<sys::viv_value>() as u32,
                    kind,
                    name: value::str_of(name.as_bytes()),
                    bytes: value::str_of(bytes),
                    tensor: tensor.as_ref().map_or(ptr::null(), |t| t),
                    stream: ptr::null_mut(),
                }
            })
            .collect();
        let list: Vec<*const sys::viv_value> = values.iter().map(|v| v as *const _).collect();
        let deadline =
            settings.deadline.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX).max(1));
        let request = sys::viv_request {
            struct_size: size_of::<sys::viv_request>() as u32,
            n_inputs: list.len() as i32,
            task: task.as_ptr(),
            params: pointer(&params),
            inputs: list.as_ptr(),
            session: settings.session.map_or(ptr::null_mut(), |s| s.0.at),
            priority: settings.priority,
            reserved: 0,
            deadline_ms: deadline,
            max_queued_events: settings.max_queued,
        };
        let mut at = ptr::null_mut();
        check(|e| unsafe { sys::viv_submit(self.0.at, &request, &mut at, e) })?;
        Ok(Job::new(at, settings.session.map(|s| s.0.clone()), self.0.clone()))
    }

    /// The pieces of what is said, as they come. Dropping the iterator cancels the job.
    pub fn generate(
        &self,
        text: &str,
        settings: &Settings<'_>,
    ) -> Result<impl Iterator<Item = Result<String>>> {
        let job = self.submit("generate", &[("text", text.into())], settings)?;
        Ok(job.filter_map(|event| match event {
            Ok(OwnedEvent { payload: Owned::Text(piece), .. }) => Some(Ok(piece)),
            Ok(_) => None,
            Err(e) => Some(Err(e)),
        }))
    }

    /// State between jobs, fresh.
    pub fn session(&self) -> Result<Session> {
        let mut at = ptr::null_mut();
        check(|e| unsafe { sys::viv_session_open(self.0.at, &mut at, e) })?;
        Ok(Session(Arc::new(SessionHandle { at, _model: self.0.clone() })))
    }

    /// The same, resumed from a file.
    pub fn resume(&self, path: impl AsRef<Path>) -> Result<Session> {
        let path = c_path(path.as_ref())?;
        let mut at = ptr::null_mut();
        check(|e| unsafe { sys::viv_session_resume(self.0.at, path.as_ptr(), &mut at, e) })?;
        Ok(Session(Arc::new(SessionHandle { at, _model: self.0.clone() })))
    }

    /// add_special: with what the tokenizer's template adds, a BOS for instance.
    pub fn tokenize(&self, text: &str, add_special: bool) -> Result<Vec<i32>> {
        let s = value::str_of(text.as_bytes());
        let (mut ids, mut n) = (ptr::null_mut(), 0u64);
        check(|e| unsafe {
            sys::viv_tokenize(self.0.at, s.ptr, s.len, add_special as i32, &mut ids, &mut n, e)
        })?;
        // An array of n numbers, which is the caller's; NULL when there are none.
        let list =
            if n == 0 { Vec::new() } else { unsafe { std::slice::from_raw_parts(ids, n as usize) }.to_vec() };
        unsafe { sys::viv_ids_free(ids) };
        Ok(list)
    }

    pub fn detokenize(&self, ids: &[i32], skip_special: bool) -> Result<String> {
        document(|text, e| unsafe {
            sys::viv_detokenize(self.0.at, ids.as_ptr(), ids.len() as u64, skip_special as i32, text, e)
        })
    }
}

/// State that a model keeps between jobs.
#[derive(Clone)]
pub struct Session(Arc<SessionHandle>);

impl Session {
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = c_path(path.as_ref())?;
        check(|e| unsafe { sys::viv_session_save(self.0.at, path.as_ptr(), e) }).map(|_| ())
    }
}
