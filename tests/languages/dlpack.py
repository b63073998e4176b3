"""Tensors between the Python package and other array libraries (DLPack), without a copy and for as long as
either side wants them: dlpack.py TEST_MODEL [SOCKET]. Needs NumPy."""

import array
import ctypes
import gc
import sys
from ctypes import POINTER, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p

import numpy
import vivarium

socket = sys.argv[2] if len(sys.argv) > 2 else None


def check(name, good):
    print(f"{'ok' if good else 'not ok'} - {'daemon' if socket else 'in-process'}: {name}")
    if not good:
        sys.exit(1)


class Managed(ctypes.Structure):
    pass


DELETER = ctypes.CFUNCTYPE(None, POINTER(Managed))
Managed._fields_ = [
    ("data", c_void_p), ("device", c_int32), ("device_id", c_int32), ("ndim", c_int32), ("code", c_uint8),
    ("bits", c_uint8), ("lanes", c_uint16), ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)),
    ("byte_offset", c_uint64), ("context", c_void_p), ("deleter", DELETER),
]  # fmt: skip
CAPSULE_END = ctypes.PYFUNCTYPE(None, c_void_p)
api = ctypes.pythonapi
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = [c_void_p, ctypes.c_char_p, c_void_p]
is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", api))


class Producer:
    """A library of arrays that has DLPack and no buffer protocol."""

    def __init__(self, numbers, shape, strides=None, code=2, device=1, offset=0):
        self.memory = numbers
        self.shape = (c_int64 * len(shape))(*shape)
        self.strides = (c_int64 * len(shape))(*strides) if strides else None
        self.given, self.back, self.device = 0, 0, device
        self.deleter = DELETER(self.deleted)
        self.end = CAPSULE_END(self.capsule_end)
        self.managed = Managed(
            data=numbers.buffer_info()[0] - offset, device=device, ndim=len(shape), code=code, bits=32,
            lanes=1, shape=self.shape, strides=self.strides, byte_offset=offset, deleter=self.deleter,
        )  # fmt: skip

    def deleted(self, managed):
        self.back += 1

    def capsule_end(self, capsule):
        if is_valid(capsule, b"dltensor"):
            self.back += 1

    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self, stream=None):
        self.given += 1
        return api.PyCapsule_New(
            ctypes.addressof(self.managed), b"dltensor", ctypes.cast(self.end, c_void_p)
        )


def refused(producer):
    try:
        model.submit("forward", {"x": producer})
    except TypeError as error:
        return str(error)
    return ""


runtime = vivarium.connect(socket) if socket else vivarium.open()
model = runtime.load(sys.argv[1])
x = numpy.arange(150528, dtype=numpy.float32).reshape(3, 224, 224)

held = []
for i in range(60):  # more than a daemon has regions for
    job = model.submit("forward", {"x": x + i})
    tensor = next(job).tensor
    seen = numpy.from_dlpack(tensor)
    if i == 0:
        places = {seen.ctypes.data, tensor.numpy().ctypes.data, numpy.asarray(tensor.buffer).ctypes.data}
        check("all views are one place", len(places) == 1)
        check("with its type and shape", seen.dtype == numpy.float32 and seen.shape == (3, 224, 224))
    tensor.__dlpack__()  # a capsule that nobody takes
    late = tensor.__dlpack__()  # nor this one, which lives longer than its tensor
    list(job)
    held.append((i, seen, tensor.buffer, numpy.from_dlpack(tensor)))
    if i % 2:
        job.close()
check("an array in, an array out", all((a == x + i).all() and (b == x + i).all() for i, a, _, b in held))
check("each keeps its own memory", len({a.ctypes.data for _, a, _, _ in held}) == 60)
result = model.run("forward", {"x": x})
check("run() keeps it too", (numpy.from_dlpack(result["y"]) == x).all())
del job, tensor, seen
held = held[::7]
gc.collect()
check("half of them let go", all((a == x + i).all() for i, a, _, _ in held))

numbers = array.array("f", range(150528))
for offset in (0, 64):
    own = Producer(numbers, (3, 224, 224), offset=offset)
    y = model.run("forward", {"x": own})["y"].numpy()
    gc.collect()
    check(f"another producer, byte_offset {offset}", (y == x).all() and own.given == own.back == 1)
dense = Producer(numbers, (3, 1, 50176), strides=(50176, 7, 1))
check("an axis of one has any stride", model.run("forward", {"x": dense})["y"].shape == (3, 1, 50176))
turned = Producer(numbers, (224, 672), strides=(1, 224))
check("what is not dense is refused", "dense" in refused(turned) and turned.given == turned.back)
check("complex numbers are refused", "type 5" in refused(Producer(numbers, (8,), code=5)))
check("another device is refused", "device 2" in refused(Producer(numbers, (8,), device=2)))
for kind in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"):
    some = numpy.array([[0, 1, 1], [1, 0, 1]], dtype=kind)
    back = model.run("forward", {"x": some})["y"]
    try:
        back = numpy.from_dlpack(back)
    except RuntimeError:  # older ones have no bool there
        back = back.numpy()
    check(f"{kind} there and back", back.dtype == some.dtype and (back == some).all())
one = numpy.from_dlpack(model.run("forward", {"x": numpy.array(2.5, dtype="float32")})["y"])
check("a scalar too", one.shape == () and one == 2.5)


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * 4096


def jobs(n):
    for _ in range(n):
        numpy.from_dlpack(model.run("forward", {"x": Producer(numbers, (150528,))})["y"])


jobs(50)
gc.collect()
before = resident()
jobs(200)
gc.collect()
check("nothing leaks over 200 of them", resident() - before < 8 << 20)
runtime.close()
del runtime, model
gc.collect()
check("views outlive the runtime", all((a == x + i).all() and v[0, 0, 1] == i + 1 for i, a, v, _ in held))
held, result = None, (result["y"].numpy() == x).all()
check("and the last one goes", bool(result))
