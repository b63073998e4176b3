use crate::error::{Error, Result};
use std::{mem::size_of, os::raw::c_char, os::raw::c_void, ptr, slice};
use vivarium_sys as sys;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Dtype {
    const ALL: [Dtype; 10] = [
        Dtype::F32,
        Dtype::F64,
        Dtype::F16,
        Dtype::BF16,
        Dtype::I64,
        Dtype::I32,
        Dtype::I16,
        Dtype::I8,
        Dtype::U8,
        Dtype::Bool,
    ];

    fn number(self) -> i32 {
        Dtype::ALL.iter().position(|d| *d == self).unwrap() as i32 + 1
    }

    fn from_number(number: i32) -> Option<Dtype> {
        Dtype::ALL.get((number - 1) as usize).copied()
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that tensors are made of.
pub trait Element: Copy + sealed::Sealed {
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($kind:ty = $dtype:ident),*) => {$(
        impl sealed::Sealed for $kind {}
        impl Element for $kind {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}
elements!(f32 = F32, f64 = F64, i64 = I64, i32 = I32, i16 = I16, i8 = I8, u8 = U8);

/// A dense, row-major tensor in someone else's memory.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    dtype: Dtype,
    ndim: usize,
    shape: [i64; sys::VIV_MAX_DIMS],
    bytes: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// The elements of `data` in that shape.
    pub fn new<T: Element>(shape: &[usize], data: &'a [T]) -> Result<Tensor<'a>> {
        // Elements are plain numbers: their bytes may be looked at.
        let bytes = unsafe { slice::from_raw_parts(data.as_ptr().cast::<u8>(), std::mem::size_of_val(data)) };
        Tensor::from_bytes(T::DTYPE, shape, bytes)
    }

    /// The same of a type that Rust does not have (F16, BF16), little endian.
    pub fn from_bytes(dtype: Dtype, shape: &[usize], bytes: &'a [u8]) -> Result<Tensor<'a>> {
        let mut axes = [0i64; sys::VIV_MAX_DIMS];
        if shape.len() > axes.len() {
            return Err(Error::bad("shape", "a tensor has at most 8 axes"));
        }
        let mut elements = Some(1usize);
        for (axis, n) in axes.iter_mut().zip(shape) {
            *axis = *n as i64;
            elements = elements.and_then(|e| e.checked_mul(*n));
        }
        if elements.and_then(|e| e.checked_mul(dtype.size())) != Some(bytes.len()) {
            return Err(Error::bad("shape", "the data have not as many elements as the shape says"));
        }
        Ok(Tensor { dtype, ndim: shape.len(), shape: axes, bytes })
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub fn shape(&self) -> &[i64] {
        &self.shape[..self.ndim]
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The elements where they lie; None when they are of another type.
    pub fn as_slice<T: Element>(&self) -> Option<&'a [T]> {
        let at = self.bytes.as_ptr();
        if T::DTYPE != self.dtype || at.align_offset(std::mem::align_of::<T>()) != 0 {
            return None;
        }
        // Of that type, aligned, and as long as the bytes are.
        Some(unsafe { slice::from_raw_parts(at.cast::<T>(), self.bytes.len() / size_of::<T>()) })
    }

    /// None: a type of a newer library.
    pub(crate) unsafe fn from_c(t: &sys::viv_tensor) -> Option<Tensor<'a>> {
        let bytes =
            if t.bytes == 0 { &[][..] } else { slice::from_raw_parts(t.data.cast::<u8>(), t.bytes as usize) };
        let dtype = Dtype::from_number(t.dtype)?;
        Some(Tensor { dtype, ndim: t.ndim as usize, shape: t.shape, bytes })
    }

    pub(crate) fn to_c(self) -> sys::viv_tensor {
        sys::viv_tensor {
            struct_size: size_of::<sys::viv_tensor>() as u32,
            flags: sys::VIV_TENSOR_READ_ONLY,
            owner: ptr::null_mut(),
            release: None,
            data: self.bytes.as_ptr() as *mut c_void,
            bytes: self.bytes.len() as u64,
            dtype: self.dtype.number(),
            ndim: self.ndim as i32,
            shape: self.shape,
        }
    }
}

/// What a job is given under a name.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    Text(&'a str),
    Json(&'a str),
    /// A picture's file.
    Image(&'a [u8]),
    /// A recording's file.
    Audio(&'a [u8]),
    Tensor(Tensor<'a>),
}

impl<'a> From<&'a str> for Input<'a> {
    fn from(text: &'a str) -> Self {
        Input::Text(text)
    }
}

impl<'a> From<Tensor<'a>> for Input<'a> {
    fn from(tensor: Tensor<'a>) -> Self {
        Input::Tensor(tensor)
    }
}

impl<'a> Input<'a> {
    pub(crate) fn parts(&self) -> (i32, &'a [u8]) {
        match *self {
            Input::Text(s) => (sys::VIV_KIND_TEXT, s.as_bytes()),
            Input::Json(s) => (sys::VIV_KIND_JSON, s.as_bytes()),
            Input::Image(b) => (sys::VIV_KIND_IMAGE, b),
            Input::Audio(b) => (sys::VIV_KIND_AUDIO, b),
            Input::Tensor(_) => (sys::VIV_KIND_TENSOR, &[]),
        }
    }
}

pub(crate) fn str_of(bytes: &[u8]) -> sys::viv_str {
    let ptr = if bytes.is_empty() { ptr::null() } else { bytes.as_ptr().cast::<c_char>() };
    sys::viv_str { ptr, len: bytes.len() as u64 }
}

/// The bytes live as long as what they were read from says.
pub(crate) unsafe fn bytes_of<'a>(s: &sys::viv_str) -> &'a [u8] {
    if s.len == 0 {
        return &[];
    }
    slice::from_raw_parts(s.ptr.cast::<u8>(), s.len as usize)
}
