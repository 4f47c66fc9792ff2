// Package body sends the long answers of list, glob and grep: JSON arrays of rows, a block at a time and under credit.
package body

import (
	"runner/internal/mux"
	"runner/internal/wire"
)

// Array sends a JSON array of rows as an answer's body, a block at a time.
type Array struct {
	Rows   int64
	stream *mux.Stream
	buf    []byte
}

// NewArray starts the array.
func NewArray(s *mux.Stream) *Array { return &Array{stream: s, buf: []byte{'['}} }

// Row returns the buffer to append a row's values to, separated by commas; give it to End.
func (a *Array) Row() []byte {
	if a.Rows > 0 {
		a.buf = append(a.buf, ',')
	}
	a.Rows++
	return append(a.buf, '[')
}

// End takes the buffer of Row back.
func (a *Array) End(row []byte) { a.buf = append(row, ']') }

// Flush sends what has come together when it is worth it; it waits for credit.
func (a *Array) Flush() error {
	if len(a.buf) < 64<<10 {
		return nil
	}
	err := a.stream.Send(wire.Data, a.buf)
	a.buf = a.buf[:0]
	return err
}

// Finish ends the array and the operation.
func (a *Array) Finish(result []byte) {
	a.buf = append(a.buf, ']')
	a.stream.Finish(result, mux.Part{Kind: wire.Data, Bytes: a.buf})
}
