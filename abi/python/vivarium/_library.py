"""The C library: its structures and functions, as vivarium.h and core.h declare them."""

from __future__ import annotations

import ctypes
import os
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_double,
    c_int,
    c_int32,
    c_int64,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    sizeof,
)
from typing import Any, TypeVar

TENSOR, TEXT, JSON, IMAGE, AUDIO, STREAM, PROGRESS, END = range(1, 9)
MAX_DIMS = 8


class Str(Structure):
    _fields_ = [("ptr", c_void_p), ("len", c_uint64)]

    def bytes(self) -> bytes:
        return ctypes.string_at(self.ptr, self.len) if self.len else b""

    def text(self) -> str:
        return self.bytes().decode()


class Text(Structure):
    _fields_ = [("ptr", c_void_p), ("len", c_uint64)]


class Error(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("code", c_int32),
        ("line", c_int32),
        ("reserved", c_int32),
        ("source", c_char * 48),
        ("where", c_char * 208),
        ("message", c_char * 752),
    ]


class Tensor(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("owner", c_void_p),
        ("release", c_void_p),
        ("data", c_void_p),
        ("bytes", c_uint64),
        ("dtype", c_int32),
        ("ndim", c_int32),
        ("shape", c_int64 * MAX_DIMS),
    ]


class Value(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_int32),
        ("name", Str),
        ("bytes", Str),
        ("tensor", POINTER(Tensor)),
        ("stream", c_void_p),
    ]


class DLManagedTensor(Structure):
    """DLPack's; the parts of its DLTensor stand in line."""


DELETER = ctypes.CFUNCTYPE(None, POINTER(DLManagedTensor))
DLManagedTensor._fields_ = [
    ("data", c_void_p),
    ("device", c_int32),
    ("device_id", c_int32),
    ("ndim", c_int32),
    ("code", c_uint8),
    ("bits", c_uint8),
    ("lanes", c_uint16),
    ("shape", POINTER(c_int64)),
    ("strides", POINTER(c_int64)),
    ("byte_offset", c_uint64),
    ("context", c_void_p),
    ("deleter", DELETER),
]


class Event(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_int32),
        ("seq", c_uint64),
        ("flags", c_uint32),
        ("status", c_int32),
        ("name", Str),
        ("bytes", Str),
        ("tensor", POINTER(Tensor)),
        ("progress", c_double),
        ("error", POINTER(Error)),
    ]


class Options(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("threads", c_int32),
        ("plugin_path", c_char_p),
        ("cache_dir", c_char_p),
        ("memory_budget", c_uint64),
        ("log_level", c_int32),
        ("log_json", c_int32),
        ("log_fd", c_int32),
        ("safe_mode", c_int32),
    ]


class Request(Structure):
    _fields_ = [
        ("struct_size", c_uint32),
        ("n_inputs", c_int32),
        ("task", c_char_p),
        ("params", c_char_p),
        ("inputs", POINTER(POINTER(Value))),
        ("session", c_void_p),
        ("priority", c_int32),
        ("reserved", c_int32),
        ("deadline_ms", c_int64),
        ("max_queued_events", c_int64),
    ]


_E, _T, _P = POINTER(Error), POINTER(Text), POINTER(c_void_p)
_IDS = POINTER(POINTER(c_int32))
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "viv_text_free": (None, [_T]),
    "viv_version": (c_char_p, []),
    "viv_status_name": (c_char_p, [c_int32]),
    "viv_open": (c_int32, [POINTER(Options), _P, _E]),
    "viv_connect": (c_int32, [c_char_p, _P, _E]),
    "viv_close": (None, [c_void_p]),
    "viv_plugins": (c_int32, [c_void_p, _T, _E]),
    "viv_machine": (c_int32, [c_void_p, _T, _E]),
    "viv_models": (c_int32, [c_void_p, _T, _E]),
    "viv_why": (c_int32, [c_void_p, c_char_p, _T, _E]),
    "viv_plan": (c_int32, [c_void_p, c_char_p, c_char_p, _T, _E]),
    "viv_load": (c_int32, [c_void_p, c_char_p, c_char_p, _P, _E]),
    "viv_unload": (None, [c_void_p]),
    "viv_describe": (c_int32, [c_void_p, _T, _E]),
    "viv_submit": (c_int32, [c_void_p, POINTER(Request), _P, _E]),
    "viv_next_event": (c_int32, [c_void_p, c_int64, POINTER(Event)]),
    "viv_keep_tensor": (c_int32, [c_void_p, POINTER(POINTER(DLManagedTensor)), _E]),
    "viv_share_tensor": (
        c_int32,
        [POINTER(DLManagedTensor), POINTER(POINTER(DLManagedTensor)), _E],
    ),
    "viv_job_fd": (c_int, [c_void_p]),
    "viv_job_cancel": (None, [c_void_p]),
    "viv_job_free": (None, [c_void_p]),
    "viv_session_open": (c_int32, [c_void_p, _P, _E]),
    "viv_session_close": (None, [c_void_p]),
    "viv_session_save": (c_int32, [c_void_p, c_char_p, _E]),
    "viv_session_resume": (c_int32, [c_void_p, c_char_p, _P, _E]),
    "viv_tokenize": (
        c_int32,
        [c_void_p, c_char_p, c_uint64, c_int32, _IDS, POINTER(c_uint64), _E],
    ),
    "viv_detokenize": (c_int32, [c_void_p, POINTER(c_int32), c_uint64, c_int32, _T, _E]),
    "viv_ids_free": (None, [POINTER(c_int32)]),
}


def _open() -> ctypes.CDLL:
    """$VIV_LIBRARY, else the installed library."""
    library = ctypes.CDLL(os.environ.get("VIV_LIBRARY") or "libvivarium.so.0")
    for name, (answer, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = answer, arguments
    return library


lib = _open()


_S = TypeVar("_S", bound=Structure)


def new(kind: type[_S], **fields: Any) -> _S:
    """A structure whose struct_size is set."""
    return kind(struct_size=sizeof(kind), **fields)
