"""Models in this process, or in the daemon of this machine.

    import vivarium

    with vivarium.open() as runtime:            # or vivarium.connect(), everything else is the same
        model = runtime.load("path/to/model")
        for piece in model.generate("Once upon a time", max_new_tokens=64):
            print(piece, end="", flush=True)

Tensors go in from anything with the buffer protocol (a NumPy array, array.array, a memoryview) and come
out as one; neither way is the data copied by this module. A failure raises the class of its code."""

import asyncio
import ctypes
import json
import weakref
from ctypes import byref, c_int32, c_uint64, c_void_p, POINTER

from . import _library as c

__all__ = [
    "BadInput", "Bug", "Cancelled", "Deadline", "Error", "Event", "Job", "Model", "Never", "NotNow",
    "Runtime", "Session", "Tensor", "connect", "open", "version",
]  # fmt: skip


class Error(Exception):
    """code, where (the input and the place in it) and message are the library's."""

    code = 0

    def __init__(self, error):
        self.code = error.code
        self.where = error.where.decode()
        self.message = error.message.decode()
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


def _raise(status, error):
    error.code = status
    raise _CLASSES.get(status, Error)(error)


def _call(function, *arguments):
    error = c.new(c.Error)
    status = function(*arguments, byref(error))
    if status < 0:
        _raise(status, error)


def _document(function, *arguments):
    text = c.Text()
    _call(function, *arguments, byref(text))
    try:
        return json.loads(ctypes.string_at(text.ptr, text.len))
    finally:
        c.lib.viv_text_free(byref(text))


def _params(params):
    return json.dumps(params).encode() if params else None


def version():
    return c.lib.viv_version().decode()


class _Handle:
    """Something of the library's that is given back once; later uses raise."""

    def __init__(self, pointer, free):
        self._pointer = pointer
        self._finalizer = weakref.finalize(self, free, pointer)

    @property
    def _at(self):
        if not self._finalizer.alive:
            raise ValueError(f"this {type(self).__name__.lower()} is closed")
        return self._pointer

    def close(self):
        self._finalizer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def open(plugin_path=None, threads=0, memory_budget=0, cache_dir=None, safe_mode=False):
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


def connect(socket=None):
    """A runtime whose models live in the daemon that listens there."""
    pointer = c_void_p()
    _call(c.lib.viv_connect, socket.encode() if socket else None, byref(pointer))
    return Runtime(pointer)


class Runtime(_Handle):
    def __init__(self, pointer):
        self._children = weakref.WeakSet()  # what must be given back before this is
        super().__init__(pointer, c.lib.viv_close)

    def close(self):
        for kind in (Job, Session, Model):
            for child in [x for x in self._children if isinstance(x, kind)]:
                child.close()
        super().close()

    def load(self, path, **params):
        """The model of a directory or file; params as viv_load: weights, plugin, context, max_jobs."""
        pointer = c_void_p()
        _call(c.lib.viv_load, self._at, str(path).encode(), _params(params), byref(pointer))
        return Model(self, pointer)

    def plugins(self):
        return _document(c.lib.viv_plugins, self._at)

    def machine(self):
        return _document(c.lib.viv_machine, self._at)

    def models(self):
        return _document(c.lib.viv_models, self._at)

    def why(self, path):
        return _document(c.lib.viv_why, self._at, str(path).encode())

    def plan(self, path, **params):
        return _document(c.lib.viv_plan, self._at, str(path).encode(), _params(params))


class Model(_Handle):
    def __init__(self, runtime, pointer):
        self._runtime = runtime
        super().__init__(pointer, c.lib.viv_unload)
        runtime._children.add(self)

    def close(self):
        """Jobs and sessions of the model are ended first."""
        for kind in (Job, Session):
            for child in list(self._runtime._children):
                if isinstance(child, kind) and child._model is self:
                    child.close()
        super().close()

    def describe(self):
        return _document(c.lib.viv_describe, self._at)

    def session(self, path=None):
        """State between jobs: fresh, or resumed from a file."""
        pointer = c_void_p()
        if path is None:
            _call(c.lib.viv_session_open, self._at, byref(pointer))
        else:
            _call(c.lib.viv_session_resume, self._at, str(path).encode(), byref(pointer))
        return Session(self, pointer)

    def submit(self, task, inputs=None, params=None, session=None, priority=0, deadline=None,
               max_queued=0):  # fmt: skip
        """A job. inputs: by name a str, bytes (a picture's or recording's file), a dict or list (JSON) or
        a buffer (a tensor); deadline in seconds."""
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

    def generate(self, text, session=None, deadline=None, **params):
        """The pieces of what is said, as they come. Closing the generator cancels the job."""
        with self.submit("generate", {"text": text}, params, session, deadline=deadline) as job:
            for event in job:
                if event.kind == c.TEXT:
                    yield event.text

    def run(self, task, inputs=None, params=None, **options):
        """All results of a job by name: texts joined, tensors copied; "counters" are the job's."""
        results = {}
        with self.submit(task, inputs, params, **options) as job:
            for event in job:
                if event.kind == c.TEXT:
                    results[event.name] = results.get(event.name, "") + event.text
                elif event.kind == c.TENSOR:
                    results[event.name] = event.tensor.copy()
                elif event.kind == c.JSON:
                    results[event.name] = json.loads(event.text)
                elif event.kind in (c.IMAGE, c.AUDIO):
                    results[event.name] = event.bytes
            results["counters"] = job.counters
        return results

    def tokenize(self, text, add_special=True):
        data, ids, n = text.encode(), POINTER(c_int32)(), c_uint64()
        _call(c.lib.viv_tokenize, self._at, data, len(data), add_special, byref(ids), byref(n))
        try:
            return ids[: n.value]
        finally:
            c.lib.viv_ids_free(ids)

    def detokenize(self, ids, skip_special=True):
        text = c.Text()
        array = (c_int32 * len(ids))(*ids)
        _call(c.lib.viv_detokenize, self._at, array, len(ids), skip_special, byref(text))
        try:
            return ctypes.string_at(text.ptr, text.len).decode()
        finally:
            c.lib.viv_text_free(byref(text))


class Session(_Handle):
    def __init__(self, model, pointer):
        self._model = model
        super().__init__(pointer, c.lib.viv_session_close)
        model._runtime._children.add(self)

    def save(self, path):
        _call(c.lib.viv_session_save, self._at, str(path).encode())


# name, struct's letter, bytes of an element; letters that memoryview can't index stay bytes
_DTYPES = {
    1: ("F32", "f", 4), 2: ("F64", "d", 8), 3: ("F16", "e", 2), 4: ("BF16", "H", 2), 5: ("I64", "q", 8),
    6: ("I32", "i", 4), 7: ("I16", "h", 2), 8: ("I8", "b", 1), 9: ("U8", "B", 1), 10: ("BOOL", "?", 1),
}  # fmt: skip
_LETTERS = {letter: number for number, (_, letter, _) in _DTYPES.items() if number != 4}
_LETTERS["l"] = 5  # a long of 64 bits


class Tensor:
    """A tensor of an event. buffer is the library's memory without a copy, valid until the next event;
    copy() and numpy() outlive it."""

    def __init__(self, tensor, alive):
        self.shape = tuple(tensor.shape[: tensor.ndim])
        self.dtype, self._letter, self._size = _DTYPES[tensor.dtype]
        self._data, self._bytes, self._alive = tensor.data, tensor.bytes, alive

    @property
    def buffer(self):
        if not self._alive():
            raise ValueError("the tensor's event has passed; copy() keeps one")
        if not self._bytes:
            return memoryview(b"")
        flat = memoryview((ctypes.c_char * self._bytes).from_address(self._data)).cast("B")
        flat = flat.cast(self._letter, self.shape) if self.shape else flat.cast(self._letter)
        return flat.toreadonly()

    def copy(self):
        if not self._alive():
            raise ValueError("the tensor's event has passed")
        kept = Tensor.__new__(Tensor)
        kept.shape, kept.dtype, kept._letter, kept._size = (
            self.shape, self.dtype, self._letter, self._size,
        )  # fmt: skip
        kept._own = ctypes.create_string_buffer(
            ctypes.string_at(self._data, self._bytes), max(1, self._bytes)
        )
        kept._data, kept._bytes = ctypes.addressof(kept._own), self._bytes
        kept._alive = lambda: True
        return kept

    def tolist(self):
        return self.buffer.tolist()

    def numpy(self):
        """A NumPy array of its own."""
        import numpy

        array = numpy.frombuffer(ctypes.string_at(self._data, self._bytes), dtype=self._letter)
        return array.reshape(self.shape)


class Event:
    """One result: kind, name, and by its kind text, bytes, tensor or progress."""

    def __init__(self, event, alive):
        self.kind, self.seq, self.progress = event.kind, event.seq, event.progress
        self.name = event.name.text()
        self.bytes = event.bytes.bytes() if event.kind in (c.IMAGE, c.AUDIO) else b""
        self.text = event.bytes.text() if event.kind in (c.TEXT, c.JSON) else ""
        self.tensor = Tensor(event.tensor.contents, alive) if event.kind == c.TENSOR else None


class Job(_Handle):
    """Iterates over the events; the failure of the job raises at its end. `async for` works too."""

    def __init__(self, model, pointer):
        self._model, self._event, self._seen = model, c.new(c.Event), -1
        self.counters = None  # once it has ended
        super().__init__(pointer, c.lib.viv_job_free)
        model._runtime._children.add(self)

    def cancel(self):
        c.lib.viv_job_cancel(self._at)

    def _take(self, timeout_ms):
        """The next event, None when none came in time; StopIteration or the failure at the end."""
        status = c.lib.viv_next_event(self._at, timeout_ms, byref(self._event))
        if status == 3:
            return None
        if status == 2:
            raise StopIteration
        if status < 0:
            raise ValueError("the job can't be read")
        event = self._event
        self._seen = event.seq
        if event.kind == c.END:
            self.counters = json.loads(event.bytes.text() or "{}")
            if event.status < 0:
                _raise(event.status, c.Error.from_buffer_copy(event.error.contents))
            raise StopIteration
        number, job = event.seq, weakref.ref(self)
        return Event(
            event, lambda: job() is not None and job()._seen == number and job()._finalizer.alive
        )

    def __iter__(self):
        return self

    def __next__(self):
        while True:
            # Signals are looked at between waits.
            event = self._take(100)
            if event is not None:
                return event

    def __aiter__(self):
        return self

    async def __anext__(self):
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


def _inputs(inputs):
    values, kept = [], []

    def text(data):
        buffer = ctypes.create_string_buffer(data, max(1, len(data)))
        kept.append(buffer)
        return c.Str(ctypes.addressof(buffer), len(data))

    for name, value in inputs.items():
        v = c.new(c.Value, name=text(name.encode()))
        if isinstance(value, str):
            v.kind, v.bytes = c.TEXT, text(value.encode())
        elif isinstance(value, (bytes, bytearray)):
            v.kind = c.AUDIO if value[:4] in (b"RIFF", b"fLaC", b"OggS") and value[8:12] != b"WEBP" else c.IMAGE
            v.bytes = text(bytes(value))
        elif isinstance(value, (dict, list)):
            v.kind, v.bytes = c.JSON, text(json.dumps(value).encode())
        else:
            v.kind, v.tensor = c.TENSOR, ctypes.pointer(_tensor(name, value, kept))
        values.append(v)
    return values, kept


def _tensor(name, value, kept):
    """A view of a buffer: the library copies from it, this module does not."""
    if isinstance(value, Tensor):
        value = value.buffer
    view = memoryview(value)
    dtype = _LETTERS.get(view.format.lstrip("@=<"))
    if dtype is None or not view.c_contiguous or view.ndim > c.MAX_DIMS:
        raise TypeError(f"{name}: a dense array of numbers is needed, not format {view.format!r}")
    address = _address(view, kept)
    shape = (ctypes.c_int64 * c.MAX_DIMS)(*view.shape)
    kept.append(view)
    return c.new(
        c.Tensor, data=address, bytes=view.nbytes, dtype=dtype, ndim=view.ndim, shape=shape
    )


class _Py_buffer(ctypes.Structure):
    _fields_ = [
        ("buf", c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t), ("readonly", ctypes.c_int), ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p), ("shape", c_void_p), ("strides", c_void_p),
        ("suboffsets", c_void_p), ("internal", c_void_p),
    ]  # fmt: skip


def _address(view, kept):
    """Where a buffer lies, also one that may only be read."""
    buffer = _Py_buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), byref(buffer), 0x18)  # C_CONTIGUOUS
    address = buffer.buf
    ctypes.pythonapi.PyBuffer_Release(byref(buffer))  # view itself is kept
    return address
