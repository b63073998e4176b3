//! Every size and offset that layout.h asserts of the structs of this crate.

use std::mem::{size_of, MaybeUninit};
use vivarium_sys::*;

const LAYOUT: &str = include_str!("../../../vivarium/layout.h");

/// The number behind `VIV_LAYOUT(what ==`.
fn asserted(what: &str) -> usize {
    let line = format!("VIV_LAYOUT({} == ", what);
    let at = LAYOUT.find(&line).unwrap_or_else(|| panic!("layout.h does not know {}", what));
    let rest = &LAYOUT[at + line.len()..];
    rest[..rest.find(')').unwrap()].parse().unwrap()
}

macro_rules! same {
    ($kind:ident, $($field:ident = $name:expr),*) => {{
        assert_eq!(size_of::<$kind>(), asserted(&format!("sizeof({})", stringify!($kind))));
        let value = MaybeUninit::<$kind>::zeroed();
        let base = value.as_ptr();
        $(
            let at = unsafe { std::ptr::addr_of!((*base).$field) } as usize - base as usize;
            assert_eq!(at, asserted(&format!("offsetof({}, {})", stringify!($kind), $name)));
        )*
    }};
    ($kind:ident: $($field:ident),*) => { same!($kind, $($field = stringify!($field)),*) };
}

#[test]
fn structs_lie_as_the_headers_say() {
    same!(viv_str: ptr, len);
    same!(viv_text: ptr, len);
    same!(
        viv_error,
        struct_size = "struct_size",
        code = "code",
        line = "line",
        source = "source",
        where_ = "where",
        message = "message"
    );
    same!(viv_tensor: struct_size, flags, owner, release, data, bytes, dtype, ndim, shape);
    same!(viv_value: struct_size, kind, name, bytes, tensor, stream);
    same!(viv_event: struct_size, kind, seq, flags, status, name, bytes, tensor, progress, error);
    same!(viv_options: struct_size, threads, plugin_path, cache_dir, memory_budget, log_level,
        log_json, log_fd, safe_mode);
    same!(viv_request: struct_size, n_inputs, task, params, inputs, session, priority, reserved,
        deadline_ms, max_queued_events);
}
