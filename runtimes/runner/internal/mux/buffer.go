package mux

import "sync"

// buffer is a pooled piece of memory; n bytes of it are in use.
type buffer struct {
	b []byte
	n int
}

// The sizes keep what a peer can make us hold within a small factor of what it has sent.
var (
	small  = sync.Pool{New: func() any { return &buffer{b: make([]byte, 16<<10)} }}
	medium = sync.Pool{New: func() any { return &buffer{b: make([]byte, 64<<10)} }}
	large  = sync.Pool{New: func() any { return &buffer{b: make([]byte, 256<<10)} }}
)

func poolFor(size int) *sync.Pool {
	switch {
	case size <= 16<<10:
		return &small
	case size <= 64<<10:
		return &medium
	}
	return &large
}

func take(size int) *buffer {
	b := poolFor(size).Get().(*buffer)
	b.n = size
	return b
}

func (b *buffer) release() { poolFor(len(b.b)).Put(b) }

func (b *buffer) bytes() []byte { return b.b[:b.n] }

// join moves the content of next behind that of b if there is room.
func (b *buffer) join(next *buffer) bool {
	if len(b.b)-b.n < next.n {
		return false
	}
	copy(b.b[b.n:], next.bytes())
	b.n += next.n
	return true
}
