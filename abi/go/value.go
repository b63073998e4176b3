package vivarium

/*
#include <stdlib.h>
#include <vivarium/vivarium.h>
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// DType is the type of a tensor's elements.
type DType int32

const (
	F32  DType = C.VIV_F32
	F64  DType = C.VIV_F64
	F16  DType = C.VIV_F16
	BF16 DType = C.VIV_BF16
	I64  DType = C.VIV_I64
	I32  DType = C.VIV_I32
	I16  DType = C.VIV_I16
	I8   DType = C.VIV_I8
	U8   DType = C.VIV_U8
	Bool DType = C.VIV_BOOL
)

// Kind says what an input or an event carries.
type Kind int32

const (
	KindTensor   Kind = C.VIV_KIND_TENSOR
	KindText     Kind = C.VIV_KIND_TEXT
	KindJSON     Kind = C.VIV_KIND_JSON
	KindImage    Kind = C.VIV_KIND_IMAGE
	KindAudio    Kind = C.VIV_KIND_AUDIO
	KindProgress Kind = C.VIV_KIND_PROGRESS
)

// Element is a Go type that tensors are made of.
type Element interface {
	float32 | float64 | int64 | int32 | int16 | int8 | uint8
}

func dtypeOf[T Element]() DType {
	switch any(*new(T)).(type) {
	case float32:
		return F32
	case float64:
		return F64
	case int64:
		return I64
	case int32:
		return I32
	case int16:
		return I16
	case int8:
		return I8
	default:
		return U8
	}
}

// Tensor is dense and row-major. That of an event lies in the library's memory until the next event is
// asked for; Clone keeps one.
type Tensor struct {
	DType DType
	Shape []int64
	Bytes []byte
}

// Clone is a copy in Go's memory.
func (t *Tensor) Clone() *Tensor {
	return &Tensor{t.DType, append([]int64{}, t.Shape...), append([]byte{}, t.Bytes...)}
}

// Data are the elements where they lie; an error when they are of another type.
func Data[T Element](t *Tensor) ([]T, error) {
	if t.DType != dtypeOf[T]() {
		return nil, fmt.Errorf("the tensor's elements are of type %d, not %T", t.DType, *new(T))
	}
	if len(t.Bytes) == 0 {
		return nil, nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&t.Bytes[0])), len(t.Bytes)/int(unsafe.Sizeof(*new(T)))), nil
}

// Input is what a job is given under a name.
type Input struct {
	name   string
	kind   Kind
	bytes  []byte
	tensor *Tensor
}

// Text, JSON, Image (a picture's file) and Audio (a recording's file).
func Text(name, s string) Input         { return Input{name: name, kind: KindText, bytes: []byte(s)} }
func JSON(name, s string) Input         { return Input{name: name, kind: KindJSON, bytes: []byte(s)} }
func Image(name string, b []byte) Input { return Input{name: name, kind: KindImage, bytes: b} }
func Audio(name string, b []byte) Input { return Input{name: name, kind: KindAudio, bytes: b} }
func Raw(name string, t *Tensor) Input {
	return Input{name: name, kind: KindTensor, bytes: t.Bytes, tensor: t}
}

// Of makes a tensor input of a slice's elements in that shape. They are not copied here; the library does
// so before Submit returns.
func Of[T Element](name string, data []T, shape ...int64) Input {
	var b []byte
	if len(data) > 0 {
		b = unsafe.Slice((*byte)(unsafe.Pointer(&data[0])), len(data)*int(unsafe.Sizeof(data[0])))
	}
	return Raw(name, &Tensor{dtypeOf[T](), shape, b})
}

// request is what C sees of a job's inputs. Its structs lie in C's memory, the inputs' bytes where they were:
// they are pinned until free.
type request struct {
	pinned  pins
	blocks  []unsafe.Pointer
	inputs  **C.viv_value
	nInputs int
}

func (r *request) alloc(n int, size uintptr) unsafe.Pointer {
	p := C.calloc(C.size_t(n+1), C.size_t(size))
	r.blocks = append(r.blocks, p)
	return p
}

func (r *request) str(s string) C.viv_str {
	p := C.CString(s)
	r.blocks = append(r.blocks, unsafe.Pointer(p))
	return C.viv_str{ptr: p, len: C.uint64_t(len(s))}
}

func newRequest(inputs []Input) (*request, error) {
	n := len(inputs)
	r := &request{nInputs: n}
	values := unsafe.Slice((*C.viv_value)(r.alloc(n, unsafe.Sizeof(C.viv_value{}))), n+1)
	tensors := unsafe.Slice((*C.viv_tensor)(r.alloc(n, unsafe.Sizeof(C.viv_tensor{}))), n+1)
	list := unsafe.Slice((**C.viv_value)(r.alloc(n, unsafe.Sizeof(uintptr(0)))), n+1)
	for i, in := range inputs {
		v := &values[i]
		v.struct_size = C.uint32_t(unsafe.Sizeof(*v))
		v.kind = C.int32_t(in.kind)
		v.name = r.str(in.name)
		data := r.pinned.pin(in.bytes)
		list[i] = v
		if in.tensor == nil {
			v.bytes = C.viv_str{ptr: (*C.char)(data), len: C.uint64_t(len(in.bytes))}
			continue
		}
		if len(in.tensor.Shape) > C.VIV_MAX_DIMS {
			r.free()
			return nil, &Error{Code: BadInput, Where: in.name, Message: "a tensor has at most 8 axes"}
		}
		t := &tensors[i]
		t.struct_size = C.uint32_t(unsafe.Sizeof(*t))
		t.flags = C.VIV_TENSOR_READ_ONLY
		t.data = data
		t.bytes = C.uint64_t(len(in.bytes))
		t.dtype = C.int32_t(in.tensor.DType)
		t.ndim = C.int32_t(len(in.tensor.Shape))
		for k, axis := range in.tensor.Shape {
			t.shape[k] = C.int64_t(axis)
		}
		v.tensor = t
	}
	r.inputs = &list[0]
	return r, nil
}

func (r *request) free() {
	r.pinned.unpin()
	for _, p := range r.blocks {
		C.free(p)
	}
}

func viewTensor(t *C.viv_tensor) *Tensor {
	out := &Tensor{DType: DType(t.dtype)}
	for i := 0; i < int(t.ndim); i++ {
		out.Shape = append(out.Shape, int64(t.shape[i]))
	}
	if t.bytes > 0 {
		out.Bytes = unsafe.Slice((*byte)(t.data), int(t.bytes))
	}
	return out
}
