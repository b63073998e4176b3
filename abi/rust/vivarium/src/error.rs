use std::{ffi::CStr, fmt, os::raw::c_char};
use vivarium_sys as sys;

/// What the caller should do next (`enum viv_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// It can't work here: unsupported, incompatible, absent.
    Never,
    /// Memory, time or another resource is short; the same call may work later.
    NotNow,
    /// The request, file or parameter is wrong.
    BadInput,
    /// The job was cancelled.
    Cancelled,
    /// A promise was broken by the side that the text blames; a worker that died.
    Bug,
    /// The job's deadline passed.
    Deadline,
    /// A code of a newer library.
    Other(i32),
}

impl From<i32> for Code {
    fn from(status: i32) -> Code {
        match status {
            sys::VIV_NEVER => Code::Never,
            sys::VIV_NOT_NOW => Code::NotNow,
            sys::VIV_BAD_INPUT => Code::BadInput,
            sys::VIV_CANCELLED => Code::Cancelled,
            sys::VIV_BUG => Code::Bug,
            sys::VIV_DEADLINE => Code::Deadline,
            other => Code::Other(other),
        }
    }
}

/// A failure in the library's own words.
#[derive(Clone, Debug)]
pub struct Error {
    pub code: Code,
    /// The input and the place in it: a file and byte, a tensor, a parameter.
    pub place: String,
    pub message: String,
    /// File and line of the library's code.
    pub source: String,
}

pub type Result<T> = std::result::Result<T, Error>;

fn text(chars: &[c_char]) -> String {
    // The library ends these texts; one that fills its place to the last byte is read no further.
    let bytes: Vec<u8> = chars.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Error {
    pub(crate) fn empty() -> sys::viv_error {
        // All-zero is a valid viv_error: numbers and texts.
        let mut e: sys::viv_error = unsafe { std::mem::zeroed() };
        e.struct_size = std::mem::size_of::<sys::viv_error>() as u32;
        e
    }

    pub(crate) fn from_c(status: i32, e: &sys::viv_error) -> Error {
        Error {
            code: status.into(),
            place: text(&e.where_),
            message: text(&e.message),
            source: format!("{}:{}", text(&e.source), e.line),
        }
    }

    /// What is wrong on this side of the border: a text with a NUL in it, a shape that does not fit.
    pub(crate) fn bad(place: &str, message: &str) -> Error {
        Error {
            code: Code::BadInput,
            place: place.to_string(),
            message: message.to_string(),
            source: String::new(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

impl std::error::Error for Error {}

/// Calls with room for an error; negative answers become it.
pub(crate) fn check(call: impl FnOnce(*mut sys::viv_error) -> i32) -> Result<i32> {
    let mut e = Error::empty();
    let status = call(&mut e);
    if status < 0 {
        return Err(Error::from_c(status, &e));
    }
    Ok(status)
}

pub(crate) fn version() -> String {
    // A static text of the library.
    unsafe { CStr::from_ptr(sys::viv_version()) }.to_string_lossy().into_owned()
}
