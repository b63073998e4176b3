"""Tensors there and back without a copy: the buffer protocol, and DLPack in both directions."""

from __future__ import annotations

import ctypes
import json
import sys
from collections import deque
from collections.abc import Mapping
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_ssize_t, c_void_p, py_object
from typing import TYPE_CHECKING, Any, Callable

from . import _library as c

if TYPE_CHECKING:
    import numpy

# name, struct's letter, bytes of an element; letters that memoryview can't index stay bytes
_DTYPES = {
    1: ("F32", "f", 4), 2: ("F64", "d", 8), 3: ("F16", "e", 2), 4: ("BF16", "H", 2), 5: ("I64", "q", 8),
    6: ("I32", "i", 4), 7: ("I16", "h", 2), 8: ("I8", "b", 1), 9: ("U8", "B", 1), 10: ("BOOL", "?", 1),
}  # fmt: skip
_LETTERS = {letter: number for number, (_, letter, _) in _DTYPES.items() if number != 4}
_LETTERS["l"] = 5  # a long of 64 bits
# DLPack's code and bits
_DLPACK = {
    (2, 32): 1, (2, 64): 2, (2, 16): 3, (4, 16): 4, (0, 64): 5, (0, 32): 6, (0, 16): 7, (0, 8): 8,
    (1, 8): 9, (6, 8): 10,
}  # fmt: skip
_CPU, _CUDA_HOST, _ROCM_HOST = 1, 3, 11  # where the processor reads

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = py_object, [c_void_p, c_char_p, c_void_p]
_get = ctypes.pythonapi.PyCapsule_GetPointer
_get.restype, _get.argtypes = c_void_p, [py_object, c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = c_int, [py_object, c_char_p]

# Capsules that were given out. A destructor would have to run Python's code where an exception may stand, or
# at the interpreter's end; so the tensors of those that nobody took are given back when the list is looked at.
_given: deque[object] = deque()


def _look_at_given() -> None:
    for _ in range(len(_given)):
        try:
            capsule = _given.popleft()
        except IndexError:  # another thread looks too
            return
        if not _is_valid(capsule, b"dltensor"):
            continue  # taken: its consumer gives the tensor back
        if sys.getrefcount(capsule) == 2:  # this name's and the argument's
            _delete(_get(capsule, b"dltensor"))
        else:
            _given.append(capsule)


def _delete(managed: Any) -> None:
    view = ctypes.cast(managed, POINTER(c.DLManagedTensor))
    view.contents.deleter(view)


class _Kept:
    """One view of a tensor, which the library holds as long as this lives."""

    def __init__(self, source: Callable[..., int], of: Any) -> None:
        self.managed, error = POINTER(c.DLManagedTensor)(), c.new(c.Error)
        if source(of, byref(self.managed), byref(error)) < 0:
            raise BufferError(error.message.decode())
        self.data: int = self.managed.contents.data

    def __del__(self) -> None:
        if self.managed:
            _delete(self.managed)
        if _given:
            _look_at_given()


class Tensor:
    """A tensor of an event: the library's memory without a copy, which lives as long as this or a view of it
    does (buffer, numpy(), what from_dlpack of another library makes of it)."""

    def __init__(self, tensor: Any, job: Any) -> None:
        self.shape: tuple[int, ...] = tuple(tensor.shape[: tensor.ndim])
        self.dtype, self._letter, self._size = _DTYPES[tensor.dtype]
        self.nbytes: int = tensor.bytes
        self._kept = _Kept(c.lib.viv_keep_tensor, job)

    @property
    def buffer(self) -> memoryview:
        """The elements where they lie, in this shape; BF16 as numbers of 16 bits."""
        if not self.nbytes:
            return memoryview(b"")
        memory = (ctypes.c_char * self.nbytes).from_address(self._kept.data)
        memory._kept = self._kept  # type: ignore[attr-defined]
        flat = memoryview(memory).cast("B")
        return flat.cast(self._letter, self.shape).toreadonly()

    def __buffer__(self, flags: int) -> memoryview:
        return self.buffer

    def tolist(self) -> Any:
        return self.buffer.tolist()

    def numpy(self) -> numpy.ndarray[Any, Any]:
        """A NumPy array of this memory, to be read; BF16 as numbers of 16 bits."""
        import numpy

        return numpy.ndarray(self.shape, dtype=self._letter, buffer=self.buffer)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (_CPU, 0)

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """For from_dlpack of NumPy, PyTorch, JAX, ...: they may write there, and give it back themselves."""
        if stream is not None:
            raise BufferError("a tensor in the processor's memory has no stream")
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"the tensor lies in the processor's memory, not on device {dl_device}")
        if copy:
            raise BufferError("copies are the consumer's to make")
        share = _Kept(c.lib.viv_share_tensor, self._kept.managed)
        capsule: object = _new(ctypes.cast(share.managed, c_void_p), b"dltensor", None)
        share.managed = POINTER(c.DLManagedTensor)()  # the capsule's now
        _given.append(capsule)
        return capsule


def inputs(named: Mapping[str, object]) -> tuple[list[Any], list[object]]:
    """What viv_submit is told, and what must live until it has returned."""
    values: list[Any] = []
    kept: list[object] = []

    def text(data: bytes) -> Any:
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        kept.append(buffer)
        return c.Str(ctypes.addressof(buffer), len(data))

    for name, value in named.items():
        v: Any = c.new(c.Value, name=text(name.encode()))
        if isinstance(value, str):
            v.kind, v.bytes = c.TEXT, text(value.encode())
        elif isinstance(value, (bytes, bytearray)):
            sound = value[:4] in (b"RIFF", b"fLaC", b"OggS") and value[8:12] != b"WEBP"
            v.kind, v.bytes = c.AUDIO if sound else c.IMAGE, text(bytes(value))
        elif isinstance(value, (dict, list)):
            v.kind, v.bytes = c.JSON, text(json.dumps(value).encode())
        else:
            v.kind, v.tensor = c.TENSOR, ctypes.pointer(_tensor(name, value, kept))
        values.append(v)
    return values, kept


def _tensor(name: str, value: Any, kept: list[object]) -> Any:
    """A view of someone's memory: the library copies from it, this module does not."""
    if isinstance(value, Tensor):
        value = value.buffer
    try:
        view = memoryview(value)
    except TypeError:
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return _from_dlpack(name, value, kept)
        raise TypeError(
            f"{name}: text, a file's bytes, JSON, a buffer or DLPack is needed, not {type(value).__name__}"
        ) from None
    dtype = _LETTERS.get(view.format.lstrip("@=<"))
    if dtype is None or not view.c_contiguous or view.ndim > c.MAX_DIMS:
        raise TypeError(f"{name}: a dense array of numbers is needed, not format {view.format!r}")
    kept.append(view)
    shape = (c_int64 * c.MAX_DIMS)(*(view.shape or ()))
    return c.new(
        c.Tensor, data=_address(view), bytes=view.nbytes, dtype=dtype, ndim=view.ndim, shape=shape
    )


def _from_dlpack(name: str, value: Any, kept: list[object]) -> Any:
    """The capsule is not taken: it gives the tensor back when the library has copied from it."""
    device, number = value.__dlpack_device__()
    if device not in (_CPU, _CUDA_HOST, _ROCM_HOST):
        raise TypeError(f"{name}: it lies on DLPack's device {int(device)}:{number}, not in the processor's memory")
    capsule = value.__dlpack__()
    kept.append(capsule)
    t = ctypes.cast(_get(capsule, b"dltensor"), POINTER(c.DLManagedTensor)).contents
    dtype = _DLPACK.get((t.code, t.bits)) if t.lanes == 1 else None
    if dtype is None or t.ndim > c.MAX_DIMS:
        raise TypeError(f"{name}: DLPack's type {t.code} of {t.bits} bits, {t.ndim} axes, is not taken")
    shape = t.shape[: t.ndim] if t.ndim else []
    step = elements = 1
    for axis in reversed(range(t.ndim)):
        if t.strides and shape[axis] > 1 and t.strides[axis] != step:
            raise TypeError(f"{name}: a dense array is needed, strides are {t.strides[: t.ndim]}")
        step *= max(1, shape[axis])
        elements *= shape[axis]
    return c.new(
        c.Tensor,
        data=(t.data or 0) + t.byte_offset,
        bytes=elements * t.bits // 8,
        dtype=dtype,
        ndim=t.ndim,
        shape=(c_int64 * c.MAX_DIMS)(*shape),
    )


class _Py_buffer(ctypes.Structure):
    _fields_ = [
        ("buf", c_void_p), ("obj", py_object), ("len", c_ssize_t), ("itemsize", c_ssize_t),
        ("readonly", c_int), ("ndim", c_int), ("format", c_char_p), ("shape", c_void_p),
        ("strides", c_void_p), ("suboffsets", c_void_p), ("internal", c_void_p),
    ]  # fmt: skip


def _address(view: memoryview) -> int | None:
    """Where a buffer lies, also one that may only be read."""
    buffer = _Py_buffer()
    ctypes.pythonapi.PyObject_GetBuffer(py_object(view), byref(buffer), 0x18)  # C_CONTIGUOUS
    address: int | None = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(byref(buffer))  # view itself is kept
    return address
