//go:build !go1.21

package vivarium

// #include <stdlib.h>
import "C"

import "unsafe"

// pins copies: before Go 1.21 there is no way to tell that C memory points at Go's.
type pins struct{ copies []unsafe.Pointer }

func (p *pins) pin(b []byte) unsafe.Pointer {
	if len(b) == 0 {
		return nil
	}
	c := C.CBytes(b)
	p.copies = append(p.copies, c)
	return c
}

func (p *pins) unpin() {
	for _, c := range p.copies {
		C.free(c)
	}
}
