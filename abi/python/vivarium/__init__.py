"""Models in this process, or in the daemon of this machine.

    import vivarium

    with vivarium.open() as runtime:            # or vivarium.connect(), everything else is the same
        model = runtime.load("path/to/model")
        for piece in model.generate("Once upon a time", max_new_tokens=64):
            print(piece, end="", flush=True)

Tensors go in from anything with the buffer protocol (a NumPy array, array.array, a memoryview) or DLPack
(PyTorch, JAX, ...) and come out as both; neither way is the data copied by this module. A failure raises the
class of its code."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from ctypes import POINTER, byref, c_int32, c_uint64, c_void_p
from typing import Any, Callable, NoReturn, TypeVar, Union

from . import _library as c
from ._tensor import Tensor, inputs as _inputs

__all__ = [
    "BadInput", "Bug", "Cancelled", "Deadline", "Error", "Event", "Job", "Model", "Never", "NotNow",
    "Runtime", "Session", "Tensor", "connect", "open", "version",
]  # fmt: skip


class Error(Exception):
    """code, where (the input and the place in it) and message are the library's."""

    code: int = 0

    def __init__(self, error: Any) -> None:
        self.code = error.code
        self.where: str = error.where.decode()
        self.message: str = error.message.decode()
        self.place = f"{error.source.decode()}:{error.line}"
        super().__init__(f"{self.where}: {self.message}" if self.where else self.message)


class Never(Error):
    """It can't work here: unsupported, incompatible, absent."""


class NotNow(Error):
    """Memory, time or another resource is short; the same call may work later."""


class BadInput(Error):
    """The request, file or parameter is wrong."""


class Cancelled(Error):
    """The job was cancelled."""


class Bug(Error):
    """A promise was broken by the side that the text blames; a worker that died."""


class Deadline(Error):
    """The job's deadline passed."""


_CLASSES = {-1: Never, -2: NotNow, -3: BadInput, -4: Cancelled, -5: Bug, -6: Deadline}


def _raise(status: int, error: Any) -> NoReturn:
    error.code = status
    raise _CLASSES.get(status, Error)(error)


def _call(function: Callable[..., int], *arguments: Any) -> None:
    error = c.new(c.Error)
    status = function(*arguments, byref(error))
    if status < 0:
        _raise(status, error)


def _document(function: Callable[..., int], *arguments: Any) -> Any:
    text = c.Text()
    _call(function, *arguments, byref(text))
    try:
        return json.loads(ctypes.string_at(text.ptr, text.len))
    finally:
        c.lib.viv_text_free(byref(text))


def _params(params: Mapping[str, object] | None) -> bytes | None:
    return json.dumps(params).encode() if params else None


def version() -> str:
    return str(c.lib.viv_version().decode())


_Path = Union[str, "os.PathLike[str]"]
_Self = TypeVar("_Self", bound="_Handle")


class _Handle:
    """Something of the library's that is given back once; later uses raise."""

    def __init__(self, pointer: c_void_p, free: Callable[[c_void_p], None]) -> None:
        self._pointer = pointer
        self._finalizer = weakref.finalize(self, free, pointer)

    @property
    def _at(self) -> c_void_p:
        if not self._finalizer.alive:
            raise ValueError(f"this {type(self).__name__.lower()} is closed")
        return self._pointer

    def close(self) -> None:
        self._finalizer()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open(
    plugin_path: str | None = None,
    threads: int = 0,
    memory_budget: int = 0,
    cache_dir: str | None = None,
    safe_mode: bool = False,
) -> Runtime:
    """A runtime whose models live in this process."""
    options = c.new(
        c.Options,
        threads=threads,
        plugin_path=plugin_path.encode() if plugin_path else None,
        cache_dir=cache_dir.encode() if cache_dir else None,
        memory_budget=memory_budget,
        safe_mode=safe_mode,
    )
    pointer = c_void_p()
    _call(c.lib.viv_open, byref(options), byref(pointer))
    return Runtime(pointer)


def connect(socket: str | None = None) -> Runtime:
    """A runtime whose models live in the daemon that listens there."""
    pointer = c_void_p()
    _call(c.lib.viv_connect, socket.encode() if socket else None, byref(pointer))
    return Runtime(pointer)


class Runtime(_Handle):
    def __init__(self, pointer: c_void_p) -> None:
        # What must be given back before this is.
        self._children: weakref.WeakSet[_Handle] = weakref.WeakSet()
        super().__init__(pointer, c.lib.viv_close)

    def close(self) -> None:
        for kind in (Job, Session, Model):
            for child in [x for x in self._children if isinstance(x, kind)]:
                child.close()
        super().close()

    def load(self, path: _Path, **params: object) -> Model:
        """The model of a directory or file; params as viv_load: weights, plugin, context, max_jobs."""
        pointer = c_void_p()
        _call(c.lib.viv_load, self._at, str(path).encode(), _params(params), byref(pointer))
        return Model(self, pointer)

    def plugins(self) -> Any:
        return _document(c.lib.viv_plugins, self._at)

    def machine(self) -> Any:
        return _document(c.lib.viv_machine, self._at)

    def models(self) -> Any:
        return _document(c.lib.viv_models, self._at)

    def why(self, path: _Path) -> Any:
        return _document(c.lib.viv_why, self._at, str(path).encode())

    def plan(self, path: _Path, **params: object) -> Any:
        return _document(c.lib.viv_plan, self._at, str(path).encode(), _params(params))


class Model(_Handle):
    def __init__(self, runtime: Runtime, pointer: c_void_p) -> None:
        self._runtime = runtime
        super().__init__(pointer, c.lib.viv_unload)
        runtime._children.add(self)

    def close(self) -> None:
        """Jobs and sessions of the model are ended first."""
        for kind in (Job, Session):
            for child in list(self._runtime._children):
                if isinstance(child, (Job, Session)) and isinstance(child, kind) and child._model is self:
                    child.close()
        super().close()

    def describe(self) -> Any:
        return _document(c.lib.viv_describe, self._at)

    def session(self, path: _Path | None = None) -> Session:
        """State between jobs: fresh, or resumed from a file."""
        pointer = c_void_p()
        if path is None:
            _call(c.lib.viv_session_open, self._at, byref(pointer))
        else:
            _call(c.lib.viv_session_resume, self._at, str(path).encode(), byref(pointer))
        return Session(self, pointer)

    def submit(
        self,
        task: str,
        inputs: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        session: Session | None = None,
        priority: int = 0,
        deadline: float | None = None,
        max_queued: int = 0,
    ) -> Job:
        """A job. inputs: by name a str, bytes (a picture's or recording's file), a dict or list (JSON) or
        a tensor (a buffer, or what has DLPack); deadline in seconds."""
        values, kept = _inputs(inputs or {})
        request = c.new(
            c.Request,
            n_inputs=len(values),
            task=task.encode(),
            params=_params(params),
            inputs=(POINTER(c.Value) * len(values))(*[ctypes.pointer(v) for v in values]),
            session=session._at if session else None,
            priority=priority,
            deadline_ms=max(1, int(deadline * 1000)) if deadline else 0,
            max_queued_events=max_queued,
        )
        pointer = c_void_p()
        _call(c.lib.viv_submit, self._at, byref(request), byref(pointer))
        del kept  # the library has copied everything
        return Job(self, pointer)

    def generate(
        self,
        text: str,
        session: Session | None = None,
        deadline: float | None = None,
        **params: object,
    ) -> Iterator[str]:
        """The pieces of what is said, as they come. Closing the generator cancels the job."""
        with self.submit("generate", {"text": text}, params, session, deadline=deadline) as job:
            for event in job:
                if event.kind == c.TEXT:
                    yield event.text

    def run(
        self,
        task: str,
        inputs: Mapping[str, object] | None = None,
        params: Mapping[str, object] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """All results of a job by name: texts joined, tensors where they lie; "counters" are the job's."""
        results: dict[str, Any] = {}
        with self.submit(task, inputs, params, **options) as job:
            for event in job:
                if event.kind == c.TEXT:
                    results[event.name] = results.get(event.name, "") + event.text
                elif event.tensor is not None:
                    results[event.name] = event.tensor
                elif event.kind == c.JSON:
                    results[event.name] = json.loads(event.text)
                elif event.kind in (c.IMAGE, c.AUDIO):
                    results[event.name] = event.bytes
            results["counters"] = job.counters
        return results

    def tokenize(self, text: str, add_special: bool = True) -> list[int]:
        data, ids, n = text.encode(), POINTER(c_int32)(), c_uint64()
        _call(c.lib.viv_tokenize, self._at, data, len(data), add_special, byref(ids), byref(n))
        try:
            return list(ids[: n.value])
        finally:
            c.lib.viv_ids_free(ids)

    def detokenize(self, ids: Sequence[int], skip_special: bool = True) -> str:
        text = c.Text()
        array = (c_int32 * len(ids))(*ids)
        _call(c.lib.viv_detokenize, self._at, array, len(ids), skip_special, byref(text))
        try:
            return ctypes.string_at(text.ptr, text.len).decode()
        finally:
            c.lib.viv_text_free(byref(text))


class Session(_Handle):
    def __init__(self, model: Model, pointer: c_void_p) -> None:
        self._model = model
        super().__init__(pointer, c.lib.viv_session_close)
        model._runtime._children.add(self)

    def save(self, path: _Path) -> None:
        _call(c.lib.viv_session_save, self._at, str(path).encode())


class Event:
    """One result: kind, name, and by its kind text, bytes, tensor or progress."""

    def __init__(self, event: Any, job: Any) -> None:
        self.kind: int = event.kind
        self.seq: int = event.seq
        self.progress: float = event.progress
        self.name: str = event.name.text()
        self.bytes: bytes = event.bytes.bytes() if event.kind in (c.IMAGE, c.AUDIO) else b""
        self.text: str = event.bytes.text() if event.kind in (c.TEXT, c.JSON) else ""
        self.tensor = Tensor(event.tensor.contents, job) if event.kind == c.TENSOR else None


class Job(_Handle):
    """Iterates over the events; the failure of the job raises at its end. `async for` works too."""

    def __init__(self, model: Model, pointer: c_void_p) -> None:
        self._model = model
        self._event: Any = c.new(c.Event)
        self.counters: dict[str, Any] | None = None  # once it has ended
        super().__init__(pointer, c.lib.viv_job_free)
        model._runtime._children.add(self)

    def cancel(self) -> None:
        c.lib.viv_job_cancel(self._at)

    def _take(self, timeout_ms: int) -> Event | None:
        """The next event, None when none came in time; StopIteration or the failure at the end."""
        status = c.lib.viv_next_event(self._at, timeout_ms, byref(self._event))
        if status == 3:
            return None
        if status == 2:
            raise StopIteration
        if status < 0:
            raise ValueError("the job can't be read")
        event = self._event
        if event.kind == c.END:
            self.counters = json.loads(event.bytes.text() or "{}")
            if event.status < 0:
                _raise(event.status, c.Error.from_buffer_copy(event.error.contents))
            raise StopIteration
        return Event(event, self._at)

    def __iter__(self) -> Job:
        return self

    def __next__(self) -> Event:
        while True:
            # Signals are looked at between waits.
            event = self._take(100)
            if event is not None:
                return event

    def __aiter__(self) -> Job:
        return self

    async def __anext__(self) -> Event:
        loop = asyncio.get_running_loop()
        fd = c.lib.viv_job_fd(self._at)
        while True:
            try:
                event = self._take(0)
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                return event
            ready = asyncio.Event()
            loop.add_reader(fd, ready.set)
            try:
                await ready.wait()
            finally:
                loop.remove_reader(fd)
