// Package vivarium runs models in this process, or in the daemon of this machine.
//
//	runtime, err := vivarium.Open(vivarium.Options{}) // or vivarium.Connect(""), everything else is the same
//	model, err := runtime.Load("path/to/model", nil)
//	job, err := model.Submit(ctx, "generate", []vivarium.Input{vivarium.Text("text", "Once upon a time")}, nil)
//	for event := range job.Events() {
//		fmt.Print(event.Text)
//	}
//	err = job.Err()
//
// The context rules a job: its deadline is the job's, and cancelling it cancels the job. A goroutine that
// waits for an event waits in Go's own poller and holds no thread. No callback enters Go code. Whatever is
// closed early stays until what was made from it is closed as well.
package vivarium

/*
#cgo LDFLAGS: -lvivarium
#include <stdlib.h>
#include <vivarium/vivarium.h>
*/
import "C"

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"unsafe"
)

// Code says what the caller should do next. It is an error itself, for errors.Is.
type Code int

const (
	Never     Code = C.VIV_NEVER     // it can't work here: unsupported, incompatible, absent
	NotNow    Code = C.VIV_NOT_NOW   // memory, time or another resource is short; it may work later
	BadInput  Code = C.VIV_BAD_INPUT // the request, file or parameter is wrong
	Cancelled Code = C.VIV_CANCELLED // the job was cancelled
	Bug       Code = C.VIV_BUG       // a promise was broken by the side that the text blames
	Deadline  Code = C.VIV_DEADLINE  // the job's deadline passed
)

func (c Code) Error() string { return C.GoString(C.viv_status_name(C.int32_t(c))) }

// Error is a failure in the library's own words. Where names the input and the place in it.
type Error struct {
	Code           Code
	Where, Message string
	Source         string // file and line of the library's code
}

func (e *Error) Error() string {
	if e.Where == "" {
		return e.Message
	}
	return e.Where + ": " + e.Message
}

// Unwrap makes errors.Is(err, vivarium.BadInput) work.
func (e *Error) Unwrap() error { return e.Code }

// ErrClosed is what a closed handle answers.
var ErrClosed = errors.New("vivarium: it is closed")

func newError() C.viv_error {
	var e C.viv_error
	e.struct_size = C.uint32_t(unsafe.Sizeof(e))
	return e
}

func failure(status C.int32_t, e *C.viv_error) error {
	return &Error{
		Code:    Code(status),
		Where:   C.GoString(&e.where[0]),
		Message: C.GoString(&e.message[0]),
		Source:  fmt.Sprintf("%s:%d", C.GoString(&e.source[0]), int(e.line)),
	}
}

func call(f func(e *C.viv_error) C.int32_t) error {
	e := newError()
	if status := f(&e); status < 0 {
		return failure(status, &e)
	}
	return nil
}

func document(f func(text *C.viv_text, e *C.viv_error) C.int32_t) (json.RawMessage, error) {
	var text C.viv_text
	if err := call(func(e *C.viv_error) C.int32_t { return f(&text, e) }); err != nil {
		return nil, err
	}
	defer C.viv_text_free(&text)
	return C.GoBytes(unsafe.Pointer(text.ptr), C.int(text.len)), nil
}

// text is a terminated copy, or NULL for none; the caller frees it.
func text(s string) *C.char {
	if s == "" {
		return nil
	}
	return C.CString(s)
}

func params(p any) (*C.char, error) {
	if p == nil {
		return nil, nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return C.CString(string(b)), nil
}

// Version is the library's.
func Version() string { return C.GoString(C.viv_version()) }

// handle counts who needs something of the library's: its owner, until Close, and what was made from it.
type handle struct {
	mu     sync.Mutex
	count  int
	closed bool
	free   func()
	parent *handle
}

func newHandle(parent *handle, free func()) *handle {
	return &handle{count: 1, free: free, parent: parent}
}

// use takes a share; an error when the owner has closed it.
func (h *handle) use() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	h.count++
	return nil
}

func (h *handle) release() {
	h.mu.Lock()
	h.count--
	last := h.count == 0
	h.mu.Unlock()
	if !last {
		return
	}
	h.free()
	if h.parent != nil {
		h.parent.release()
	}
}

func (h *handle) close() {
	h.mu.Lock()
	again := h.closed
	h.closed = true
	h.mu.Unlock()
	if !again {
		h.release()
	}
}

// Options of Open; zero values leave it to the library.
type Options struct {
	Threads      int
	PluginPath   string // colon-separated folders
	CacheDir     string
	MemoryBudget uint64
	SafeMode     bool
}

// Runtime is where models live.
type Runtime struct {
	at *C.viv_runtime
	h  *handle
}

func newRuntime(at *C.viv_runtime) *Runtime {
	return &Runtime{at, newHandle(nil, func() { C.viv_close(at) })}
}

// Open makes a runtime whose models live in this process.
func Open(options Options) (*Runtime, error) {
	var o C.viv_options
	o.struct_size = C.uint32_t(unsafe.Sizeof(o))
	o.threads = C.int32_t(options.Threads)
	o.plugin_path = text(options.PluginPath)
	o.cache_dir = text(options.CacheDir)
	o.memory_budget = C.uint64_t(options.MemoryBudget)
	defer C.free(unsafe.Pointer(o.plugin_path))
	defer C.free(unsafe.Pointer(o.cache_dir))
	if options.SafeMode {
		o.safe_mode = 1
	}
	var at *C.viv_runtime
	if err := call(func(e *C.viv_error) C.int32_t { return C.viv_open(&o, &at, e) }); err != nil {
		return nil, err
	}
	return newRuntime(at), nil
}

// Connect makes a runtime whose models live in the daemon that listens at socket, "": where it usually
// does. NotNow: nobody listens there.
func Connect(socket string) (*Runtime, error) {
	path := text(socket)
	defer C.free(unsafe.Pointer(path))
	var at *C.viv_runtime
	if err := call(func(e *C.viv_error) C.int32_t { return C.viv_connect(path, &at, e) }); err != nil {
		return nil, err
	}
	return newRuntime(at), nil
}

// Close gives it back once nothing uses it any more.
func (r *Runtime) Close() { r.h.close() }

// Load answers the model of a directory or file. parameters: nil or what becomes a JSON object, as viv_load
// takes it.
func (r *Runtime) Load(path string, parameters any) (*Model, error) {
	p, err := params(parameters)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(p))
	c := C.CString(path)
	defer C.free(unsafe.Pointer(c))
	if err := r.h.use(); err != nil {
		return nil, err
	}
	var at *C.viv_model
	if err := call(func(e *C.viv_error) C.int32_t { return C.viv_load(r.at, c, p, &at, e) }); err != nil {
		r.h.release()
		return nil, err
	}
	return &Model{at, newHandle(r.h, func() { C.viv_unload(at) })}, nil
}

func (r *Runtime) inspect(path string, f func(c *C.char, t *C.viv_text, e *C.viv_error) C.int32_t) (json.RawMessage, error) {
	if err := r.h.use(); err != nil {
		return nil, err
	}
	defer r.h.release()
	c := text(path)
	defer C.free(unsafe.Pointer(c))
	return document(func(t *C.viv_text, e *C.viv_error) C.int32_t { return f(c, t, e) })
}

// Plugins, Machine, Models and Why answer the JSON documents of vivarium.h.
func (r *Runtime) Plugins() (json.RawMessage, error) {
	return r.inspect("", func(_ *C.char, t *C.viv_text, e *C.viv_error) C.int32_t { return C.viv_plugins(r.at, t, e) })
}

func (r *Runtime) Machine() (json.RawMessage, error) {
	return r.inspect("", func(_ *C.char, t *C.viv_text, e *C.viv_error) C.int32_t { return C.viv_machine(r.at, t, e) })
}

func (r *Runtime) Models() (json.RawMessage, error) {
	return r.inspect("", func(_ *C.char, t *C.viv_text, e *C.viv_error) C.int32_t { return C.viv_models(r.at, t, e) })
}

func (r *Runtime) Why(path string) (json.RawMessage, error) {
	return r.inspect(path, func(c *C.char, t *C.viv_text, e *C.viv_error) C.int32_t { return C.viv_why(r.at, c, t, e) })
}

// Plan is the memory plan of a model directory, before loading.
func (r *Runtime) Plan(path string, parameters any) (json.RawMessage, error) {
	p, err := params(parameters)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(p))
	return r.inspect(path, func(c *C.char, t *C.viv_text, e *C.viv_error) C.int32_t {
		return C.viv_plan(r.at, c, p, t, e)
	})
}

// Model is a loaded model.
type Model struct {
	at *C.viv_model
	h  *handle
}

// Close gives it back once its jobs and sessions are closed.
func (m *Model) Close() { m.h.close() }

// Describe says what it is and takes, JSON.
func (m *Model) Describe() (json.RawMessage, error) {
	if err := m.h.use(); err != nil {
		return nil, err
	}
	defer m.h.release()
	return document(func(t *C.viv_text, e *C.viv_error) C.int32_t { return C.viv_describe(m.at, t, e) })
}

// Tokenize answers the text's tokens; addSpecial: with what the tokenizer's template adds.
func (m *Model) Tokenize(s string, addSpecial bool) ([]int32, error) {
	if err := m.h.use(); err != nil {
		return nil, err
	}
	defer m.h.release()
	c := C.CString(s)
	defer C.free(unsafe.Pointer(c))
	var ids *C.int32_t
	var n C.uint64_t
	err := call(func(e *C.viv_error) C.int32_t {
		return C.viv_tokenize(m.at, c, C.uint64_t(len(s)), flag(addSpecial), &ids, &n, e)
	})
	if err != nil {
		return nil, err
	}
	defer C.viv_ids_free(ids)
	return append([]int32{}, unsafe.Slice((*int32)(unsafe.Pointer(ids)), int(n))...), nil
}

// Detokenize answers the tokens' text.
func (m *Model) Detokenize(ids []int32, skipSpecial bool) (string, error) {
	if err := m.h.use(); err != nil {
		return "", err
	}
	defer m.h.release()
	var first *C.int32_t
	if len(ids) > 0 {
		first = (*C.int32_t)(unsafe.Pointer(&ids[0]))
	}
	s, err := document(func(t *C.viv_text, e *C.viv_error) C.int32_t {
		return C.viv_detokenize(m.at, first, C.uint64_t(len(ids)), flag(skipSpecial), t, e)
	})
	return string(s), err
}

func flag(b bool) C.int32_t {
	if b {
		return 1
	}
	return 0
}

// Session is state that a model keeps between jobs.
type Session struct {
	at *C.viv_session
	h  *handle
}

// Session opens one, fresh for "" or resumed from a file.
func (m *Model) Session(path string) (*Session, error) {
	if err := m.h.use(); err != nil {
		return nil, err
	}
	c := text(path)
	defer C.free(unsafe.Pointer(c))
	var at *C.viv_session
	err := call(func(e *C.viv_error) C.int32_t {
		if c == nil {
			return C.viv_session_open(m.at, &at, e)
		}
		return C.viv_session_resume(m.at, c, &at, e)
	})
	if err != nil {
		m.h.release()
		return nil, err
	}
	return &Session{at, newHandle(m.h, func() { C.viv_session_close(at) })}, nil
}

// Save writes it to a file.
func (s *Session) Save(path string) error {
	if err := s.h.use(); err != nil {
		return err
	}
	defer s.h.release()
	c := C.CString(path)
	defer C.free(unsafe.Pointer(c))
	return call(func(e *C.viv_error) C.int32_t { return C.viv_session_save(s.at, c, e) })
}

// Close ends it once its jobs are closed.
func (s *Session) Close() { s.h.close() }

// Must answers the value of a call that succeeded, and panics with the error of one that did not: for programs
// that end then anyway.
func Must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}
