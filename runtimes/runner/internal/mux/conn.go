// Package mux carries many operations over one connection: frames in and out, credit, cancellation.
package mux

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"runner/internal/wire"
)

const (
	// MaxStreams is how many operations may be open at once on a connection.
	MaxStreams = 1024
	// greeting is how long a peer may take to say HELLO, so that silent connections do not fill the table.
	greeting = 10 * time.Second
	// Farewell bounds how long a GOODBYE may wait for a peer that does not read, and for the peer to hang up after it.
	Farewell = 500 * time.Millisecond
)

var errProtocol = errors.New("another protocol version")

// Conn is one backend's connection.
type Conn struct {
	nc   net.Conn
	open func(*Stream)

	served chan struct{}

	mu      sync.Mutex
	streams map[uint32]*Stream
	last    uint32
	closed  bool

	wmu    sync.Mutex
	out    []byte
	header [wire.HeaderSize]byte
}

// NewConn wraps an accepted connection; open is called for every operation, must not block, and the operation must end
// with exactly one Finish or Fail.
func NewConn(nc net.Conn, open func(*Stream)) *Conn {
	return &Conn{nc: nc, open: open, served: make(chan struct{}), streams: make(map[uint32]*Stream)}
}

// Serve greets the peer and reads until the connection ends; then every operation that is left is cancelled. The
// returned error says why it ended; io.EOF is the ordinary end.
func (c *Conn) Serve(hello []byte) error {
	defer close(c.served)
	err := c.serve(hello)
	switch {
	case errors.Is(err, errProtocol):
		var o wire.Object
		c.Goodbye(o.Text("reason", "protocol").Int("protocol", wire.Protocol).Bytes())
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed):
		var o wire.Object
		c.Goodbye(o.Text("reason", "error").Text("message", err.Error()).Bytes())
	}
	c.nc.Close()
	c.drop()
	return err
}

func (c *Conn) serve(hello []byte) error {
	r := bufio.NewReaderSize(c.nc, 16<<10)
	c.nc.SetReadDeadline(time.Now().Add(greeting))
	if err := c.greet(r, hello); err != nil {
		return err
	}
	c.nc.SetReadDeadline(time.Time{})
	var scratch [wire.HeaderSize]byte
	for {
		h, err := wire.ReadHeader(r, scratch[:])
		if err != nil {
			return err
		}
		if err := c.dispatch(h, r); err != nil {
			return err
		}
	}
}

func (c *Conn) greet(r *bufio.Reader, hello []byte) error {
	var scratch [wire.HeaderSize]byte
	h, err := wire.ReadHeader(r, scratch[:])
	if err != nil {
		return err
	}
	if h.Kind != wire.Hello || h.Stream != 0 || h.Length > 4096 {
		return errors.New("the first frame is not HELLO")
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return err
	}
	var said struct{ Protocol int }
	if err := json.Unmarshal(payload, &said); err != nil {
		return errors.New("HELLO is not a JSON object")
	}
	if said.Protocol != wire.Protocol {
		return errProtocol
	}
	return c.write(wire.Hello, 0, hello)
}

// dispatch handles one frame. It never writes to the peer: a peer that does not read could otherwise keep its own
// CANCEL from being heard.
func (c *Conn) dispatch(h wire.Header, r *bufio.Reader) error {
	switch h.Kind {
	case wire.Open:
		return c.begin(h, r)
	case wire.Data:
		return c.data(h, r)
	case wire.Goodbye:
		return io.EOF
	case wire.End, wire.Cancel, wire.Credit:
		return c.control(h, r)
	}
	return fmt.Errorf("a frame of kind %d", h.Kind)
}

func (c *Conn) begin(h wire.Header, r *bufio.Reader) error {
	request := make([]byte, h.Length)
	if _, err := io.ReadFull(r, request); err != nil {
		return err
	}
	if h.Stream <= c.last {
		return fmt.Errorf("stream %d is not a new number", h.Stream)
	}
	c.last = h.Stream
	s := newStream(c, h.Stream, request)
	c.mu.Lock()
	full := len(c.streams) >= MaxStreams
	if !full {
		c.streams[h.Stream] = s
	}
	c.mu.Unlock()
	if full {
		return errors.New("too many open streams")
	}
	c.open(s)
	return nil
}

func (c *Conn) data(h wire.Header, r *bufio.Reader) error {
	s, err := c.find(h.Stream)
	if err != nil {
		return err
	}
	wanted := false
	if s != nil {
		if wanted, err = s.admit(h.Length); err != nil {
			return err
		}
	}
	if !wanted || h.Length == 0 {
		_, err := r.Discard(h.Length)
		return err
	}
	b := take(h.Length)
	if _, err := io.ReadFull(r, b.bytes()); err != nil {
		b.release()
		return err
	}
	s.deliver(b)
	return nil
}

func (c *Conn) control(h wire.Header, r *bufio.Reader) error {
	want := 0
	if h.Kind == wire.Credit {
		want = 4
	}
	if h.Length != want {
		return fmt.Errorf("a frame of kind %d with %d bytes", h.Kind, h.Length)
	}
	var payload [4]byte
	if _, err := io.ReadFull(r, payload[:want]); err != nil {
		return err
	}
	s, err := c.find(h.Stream)
	if s == nil || err != nil {
		return err
	}
	switch h.Kind {
	case wire.End:
		s.end()
	case wire.Cancel:
		s.stop(false)
	case wire.Credit:
		return s.credit(binary.BigEndian.Uint32(payload[:]))
	}
	return nil
}

// find returns the open stream of that number, nil for one that has ended, and an error for one that never was.
func (c *Conn) find(id uint32) (*Stream, error) {
	if id == 0 || id > c.last {
		return nil, fmt.Errorf("a frame for stream %d, which was never opened", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id], nil
}

// drop cancels what is still open after the connection has ended.
func (c *Conn) drop() {
	c.mu.Lock()
	c.closed = true
	left := c.streams
	c.streams = nil
	c.mu.Unlock()
	for _, s := range left {
		s.stop(true)
	}
}

// write sends one frame; the payload is not copied when it is large.
func (c *Conn) write(kind wire.Kind, id uint32, payload []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if len(payload) <= 16<<10 {
		c.out = wire.AppendFrame(c.out[:0], kind, id, payload)
		_, err := c.nc.Write(c.out)
		return err
	}
	header := wire.AppendHeader(c.header[:0], kind, id, len(payload))
	vec := net.Buffers{header, payload}
	_, err := vec.WriteTo(c.nc)
	return err
}

func (c *Conn) writeCredit(id uint32, n uint32) {
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], n)
	c.write(wire.Credit, id, payload[:])
}

// finish ends a stream: its body, small enough and paid for, and its last frame leave in one write.
func (c *Conn) finish(s *Stream, kind wire.Kind, last []byte, body []Part) {
	if !c.forget(s) {
		return
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.Leaving != nil {
		s.Leaving()
	}
	out := c.out[:0]
	for _, part := range body {
		if len(part.Bytes) > 0 {
			out = wire.AppendFrame(out, part.Kind, s.ID, part.Bytes)
		}
	}
	out = wire.AppendFrame(out, kind, s.ID, last)
	c.nc.Write(out)
	if cap(out) <= 2*batch {
		c.out = out
	}
}

// forget takes a stream out of the table, before its last frame is sent: the peer may open the next one as soon as it
// has read that. It tells whether the stream was still open.
func (c *Conn) forget(s *Stream) bool {
	c.mu.Lock()
	delete(c.streams, s.ID)
	c.mu.Unlock()
	s.mu.Lock()
	first := !s.finished
	s.finished = true
	s.arrived = nil
	s.mu.Unlock()
	s.moved.Broadcast()
	return first
}

// Goodbye says why the connection ends, as the last thing that is sent on it. Only this direction is closed: a peer that
// is just sending would otherwise fail at that, and never read why.
func (c *Conn) Goodbye(payload []byte) {
	c.nc.SetWriteDeadline(time.Now().Add(Farewell))
	c.write(wire.Goodbye, 0, payload)
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
		return
	}
	c.nc.Close()
}

// Served is closed when the connection has ended.
func (c *Conn) Served() <-chan struct{} { return c.served }
