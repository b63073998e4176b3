package vivarium

/*
#include <stdlib.h>
#include <vivarium/vivarium.h>
*/
import "C"

import (
	"context"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// Settings of a job beside its inputs; nil leaves everything to the library.
type Settings struct {
	Params    any // nil or what becomes a JSON object
	Session   *Session
	Priority  int // larger goes first
	MaxQueued int // events that may wait to be read; 0: 256
}

// Event is one result of a job. Bytes and Tensor of Next's events lie in the library's memory until the next
// one; those of Events are copies.
type Event struct {
	Kind     Kind
	Name     string
	Seq      uint64
	Text     string // of KindText and KindJSON
	Bytes    []byte // of KindImage and KindAudio
	Tensor   *Tensor
	Progress float64
}

// Job runs until its last event was read, its context ends or it is closed. One goroutine reads it.
type Job struct {
	ctx      context.Context
	at       *C.viv_job
	h        *handle
	session  *handle
	ready    *os.File // pollable; nil: no descriptor was left, then a thread waits
	raw      syscall.RawConn
	stop     chan struct{} // closed when nobody needs to look at the context any more
	stopOnce sync.Once
	err      error
	ended    bool
	counters string
}

// Submit starts a job of a task. Inputs may be changed again when it returns.
func (m *Model) Submit(ctx context.Context, task string, inputs []Input, settings *Settings) (*Job, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if settings == nil {
		settings = &Settings{}
	}
	p, err := params(settings.Params)
	if err != nil {
		return nil, err
	}
	defer C.free(unsafe.Pointer(p))
	r, err := newRequest(inputs)
	if err != nil {
		return nil, err
	}
	defer r.free()
	name := C.CString(task)
	defer C.free(unsafe.Pointer(name))
	// In C's memory, since it points at more of it.
	q := (*C.viv_request)(r.alloc(1, unsafe.Sizeof(C.viv_request{})))
	q.struct_size = C.uint32_t(unsafe.Sizeof(*q))
	q.n_inputs = C.int32_t(r.nInputs)
	q.task, q.params, q.inputs = name, p, r.inputs
	q.priority = C.int32_t(settings.Priority)
	q.max_queued_events = C.int64_t(settings.MaxQueued)
	if at, set := ctx.Deadline(); set {
		q.deadline_ms = C.int64_t(max(1, time.Until(at).Milliseconds()))
	}
	if err := m.h.use(); err != nil {
		return nil, err
	}
	j := &Job{ctx: ctx, stop: make(chan struct{})}
	if settings.Session != nil {
		if err := settings.Session.h.use(); err != nil {
			m.h.release()
			return nil, err
		}
		j.session = settings.Session.h
		q.session = settings.Session.at
	}
	err = call(func(e *C.viv_error) C.int32_t { return C.viv_submit(m.at, q, &j.at, e) })
	if err != nil {
		if j.session != nil {
			j.session.release()
		}
		m.h.release()
		return nil, err
	}
	j.h = newHandle(m.h, j.free)
	j.watch()
	return j, nil
}

func max(a, b int64) int64 {
	if a > b {
		return a
	}
	return b
}

func (j *Job) free() {
	C.viv_job_free(j.at)
	if j.session != nil {
		j.session.release()
	}
}

// watch hands the job's descriptor to Go's poller and follows the context.
func (j *Job) watch() {
	if fd := int(C.viv_job_fd(j.at)); fd >= 0 {
		// A file closes what it has: its own copy. The poller takes only what does not block.
		if own, err := syscall.Dup(fd); err == nil {
			syscall.CloseOnExec(own)
			syscall.SetNonblock(own, true)
			j.ready = os.NewFile(uintptr(own), "job")
			j.raw, _ = j.ready.SyscallConn()
		}
	}
	if j.ctx.Done() == nil {
		return
	}
	// Held by the goroutine, so that a closed job is not cancelled after it was freed.
	if j.h.use() != nil {
		return
	}
	go func() {
		defer j.h.release()
		select {
		case <-j.ctx.Done():
			C.viv_job_cancel(j.at)
		case <-j.stop:
		}
	}()
}

// Cancel takes effect at the job's next poll: its last event says Cancelled.
func (j *Job) Cancel() {
	if j.h.use() == nil {
		C.viv_job_cancel(j.at)
		j.h.release()
	}
}

// Close cancels the job if it runs, and frees it. Events of Next are invalid then.
func (j *Job) Close() {
	j.Cancel()
	j.stopOnce.Do(func() { close(j.stop) })
	if j.ready != nil {
		j.ready.Close()
	}
	j.h.close()
}

func (j *Job) pull(e *C.viv_event) C.int32_t {
	e.struct_size = C.uint32_t(unsafe.Sizeof(*e))
	if j.raw == nil {
		return C.viv_next_event(j.at, -1, e)
	}
	status := C.viv_next_event(j.at, 0, e)
	if status != C.VIV_WAIT {
		return status
	}
	err := j.raw.Read(func(uintptr) bool {
		status = C.viv_next_event(j.at, 0, e)
		return status != C.VIV_WAIT
	})
	if err != nil && status == C.VIV_WAIT { // the descriptor can't be polled
		j.raw = nil
		status = C.viv_next_event(j.at, -1, e)
	}
	return status
}

// end notes how the job ended; a context that ended it is part of the reason.
func (j *Job) end(e *C.viv_event) error {
	j.ended = true
	j.stopOnce.Do(func() { close(j.stop) })
	if e.kind != C.VIV_KIND_END {
		return io.EOF
	}
	j.counters = C.GoStringN(e.bytes.ptr, C.int(e.bytes.len))
	if e.status < 0 {
		j.err = failure(e.status, e.error)
		if cause := j.ctx.Err(); cause != nil && (e.status == C.VIV_CANCELLED || e.status == C.VIV_DEADLINE) {
			j.err = &ended{j.err, cause}
		}
		return j.err
	}
	return io.EOF
}

// ended is a failure whose cause is the context: errors.Is finds both.
type ended struct{ failure, cause error }

func (e *ended) Error() string        { return e.failure.Error() }
func (e *ended) Unwrap() error        { return e.failure }
func (e *ended) Is(target error) bool { return target == e.cause }

// Next answers the next event without copying it, io.EOF after the last, or the job's failure.
func (j *Job) Next() (*Event, error) {
	for !j.ended {
		var e C.viv_event
		if j.h.use() != nil {
			return nil, ErrClosed
		}
		status := j.pull(&e)
		j.h.release()
		if status != C.VIV_OK || e.kind == C.VIV_KIND_END {
			return nil, j.end(&e)
		}
		event := &Event{Kind: Kind(e.kind), Seq: uint64(e.seq), Progress: float64(e.progress)}
		event.Name = C.GoStringN(e.name.ptr, C.int(e.name.len))
		switch event.Kind {
		case KindText, KindJSON:
			event.Text = C.GoStringN(e.bytes.ptr, C.int(e.bytes.len))
		case KindTensor:
			event.Tensor = viewTensor(e.tensor)
		case KindImage, KindAudio:
			if e.bytes.len > 0 {
				event.Bytes = unsafe.Slice((*byte)(unsafe.Pointer(e.bytes.ptr)), int(e.bytes.len))
			}
		case KindProgress:
		default:
			continue // of a newer library
		}
		return event, nil
	}
	if j.err != nil {
		return nil, j.err
	}
	return nil, io.EOF
}

// Events gives copies of all events and is closed after the last; then Err says how the job ended and the
// job is closed. Who stops reading closes the job.
func (j *Job) Events() <-chan Event {
	events := make(chan Event)
	go func() {
		defer close(events)
		defer j.Close()
		for {
			e, err := j.Next()
			if err != nil {
				return
			}
			if e.Tensor != nil {
				e.Tensor = e.Tensor.Clone()
			}
			e.Bytes = append([]byte(nil), e.Bytes...)
			select {
			case events <- *e:
			case <-j.stop:
				return
			}
		}
	}()
	return events
}

// Err is the failure that the job ended with; nil before its end and after a success.
func (j *Job) Err() error { return j.err }

// Counters are the job's, a JSON object; "" before its end.
func (j *Job) Counters() string { return j.counters }

// Generate calls piece with what is said, as it comes, until the end, a failure or piece's own error.
func (m *Model) Generate(ctx context.Context, s string, settings *Settings, piece func(string) error) error {
	j, err := m.Submit(ctx, "generate", []Input{Text("text", s)}, settings)
	if err != nil {
		return err
	}
	defer j.Close()
	for {
		e, err := j.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Kind == KindText {
			if err := piece(e.Text); err != nil {
				return err
			}
		}
	}
}
