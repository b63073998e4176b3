//go:build go1.21

package vivarium

import (
	"runtime"
	"unsafe"
)

// pins holds Go memory in its place while C looks at it.
type pins struct{ p runtime.Pinner }

func (p *pins) pin(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	p.p.Pin(&b[0])
	return unsafe.Pointer(&b[0])
}

func (p *pins) unpin() { p.p.Unpin() }
