// Package wire is the frame format of PROTOCOL.md and the text type of its JSON payloads.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kind says what a frame is.
type Kind uint8

const (
	Hello   Kind = 1
	Open    Kind = 2
	Data    Kind = 3
	Stderr  Kind = 4
	End     Kind = 5
	Result  Kind = 6
	Error   Kind = 7
	Credit  Kind = 8
	Cancel  Kind = 9
	Goodbye Kind = 10
)

const (
	// HeaderSize is the length of what stands before a payload.
	HeaderSize = 9
	// MaxPayload is the longest payload a frame may have.
	MaxPayload = 262144
	// Protocol is the version both ends must name in their HELLO.
	Protocol = 1
)

// ErrTooLong means that a peer announced a payload over MaxPayload.
var ErrTooLong = errors.New("frame payload over the limit")

// Header is a frame without its payload.
type Header struct {
	Length int
	Kind   Kind
	Stream uint32
}

// AppendHeader appends the header's nine bytes.
func AppendHeader(dst []byte, kind Kind, stream uint32, length int) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(length))
	dst = append(dst, byte(kind))
	return binary.BigEndian.AppendUint32(dst, stream)
}

// AppendFrame appends a whole frame.
func AppendFrame(dst []byte, kind Kind, stream uint32, payload []byte) []byte {
	return append(AppendHeader(dst, kind, stream, len(payload)), payload...)
}

// ParseHeader reads a header; raw must hold HeaderSize bytes.
func ParseHeader(raw []byte) (Header, error) {
	length := binary.BigEndian.Uint32(raw)
	if length > MaxPayload {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrTooLong, length)
	}
	return Header{Length: int(length), Kind: Kind(raw[4]), Stream: binary.BigEndian.Uint32(raw[5:])}, nil
}

// ReadHeader reads the next header. scratch must have room for HeaderSize bytes. A stream that ends between two frames
// is io.EOF, one that ends inside a header io.ErrUnexpectedEOF.
func ReadHeader(r io.Reader, scratch []byte) (Header, error) {
	if _, err := io.ReadFull(r, scratch[:HeaderSize]); err != nil {
		return Header{}, err
	}
	return ParseHeader(scratch)
}
