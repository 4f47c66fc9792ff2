package mux

import (
	"errors"
	"io"
	"sync"

	"runner/internal/fault"
	"runner/internal/wire"
)

const (
	// Window is what may be sent on a stream in one direction before credit is given.
	Window = 1 << 20
	// creditStep is how much is consumed before credit is given back.
	creditStep = Window / 4
	maxWindow  = 1<<31 - 1
	// batch is the size up to which a whole answer is copied together and leaves in one write.
	batch = 64 << 10
)

var (
	// ErrCancelled ends a wait for credit or data because the backend sent CANCEL.
	ErrCancelled = errors.New("operation cancelled")
	// ErrFinished ends a wait for data because the operation has been answered.
	ErrFinished = errors.New("operation finished")
	// ErrGone ends a wait because the connection is gone.
	ErrGone = errors.New("connection gone")
)

// Stream is one operation as its handler sees it.
type Stream struct {
	ID      uint32
	Request []byte
	// Leaving, if there is one, is called once, when the last frame is about to be sent: whoever has read that must not
	// find the operation under way. A GOODBYE of the same connection waits for the frame.
	Leaving func()

	conn *Conn
	done chan struct{}

	mu        sync.Mutex
	moved     sync.Cond
	window    int64 // bytes that may still be sent
	allowance int64 // bytes the peer may still send
	consumed  int64 // bytes taken in since credit was last given
	arrived   []*buffer
	reading   *buffer
	ended     bool // the peer has sent END
	cancelled bool
	gone      bool
	finished  bool
}

func newStream(conn *Conn, id uint32, request []byte) *Stream {
	s := &Stream{ID: id, Request: request, conn: conn, done: make(chan struct{}), window: Window, allowance: Window}
	s.moved.L = &s.mu
	return s
}

// Done is closed when the operation is no longer wanted: cancelled, or its connection gone.
func (s *Stream) Done() <-chan struct{} { return s.done }

// Cancelled tells whether Done is closed.
func (s *Stream) Cancelled() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// Send sends p under credit; it blocks while the peer gives none and fails when the operation is cancelled.
func (s *Stream) Send(kind wire.Kind, p []byte) error { return s.transmit(kind, p, false) }

func (s *Stream) transmit(kind wire.Kind, p []byte, last bool) error {
	for len(p) > 0 {
		n, err := s.reserve(min(len(p), wire.MaxPayload), last)
		if err != nil {
			return err
		}
		if err := s.conn.write(kind, s.ID, p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// reserve takes up to want bytes out of the window. The last words of a cancelled operation may use what is left of it.
func (s *Stream) reserve(want int, last bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.window == 0 && !s.gone && !s.cancelled {
		s.moved.Wait()
	}
	if err := s.ending(); err != nil && (s.gone || !last || s.window == 0) {
		return 0, err
	}
	n := min(int64(want), s.window)
	s.window -= n
	return int(n), nil
}

func (s *Stream) ending() error {
	if s.gone {
		return ErrGone
	}
	if s.cancelled {
		return ErrCancelled
	}
	return nil
}

// reserveAll takes exactly n bytes out of the window, or nothing. It also serves a cancelled operation's last words.
func (s *Stream) reserveAll(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone || s.window < int64(n) {
		return false
	}
	s.window -= int64(n)
	return true
}

// Receive returns the next bytes from the peer, valid until the next call, or io.EOF after END. Only one goroutine may
// receive. What was returned before counts as consumed.
func (s *Stream) Receive() ([]byte, error) {
	s.consume()
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.arrived) == 0 && !s.ended && !s.gone && !s.cancelled && !s.finished {
		s.moved.Wait()
	}
	if s.finished {
		return nil, ErrFinished
	}
	if err := s.ending(); err != nil {
		return nil, err
	}
	if len(s.arrived) == 0 {
		return nil, io.EOF
	}
	s.reading = s.arrived[0]
	s.arrived[0] = nil
	s.arrived = s.arrived[1:]
	return s.reading.bytes(), nil
}

// consume gives the buffer of the last Receive back, and credit to the peer when enough has come together.
func (s *Stream) consume() {
	if s.reading == nil {
		return
	}
	n := s.reading.n
	s.reading.release()
	s.reading = nil
	s.mu.Lock()
	s.consumed += int64(n)
	grant := int64(0)
	if s.consumed >= creditStep && !s.ended {
		grant = s.consumed
		s.consumed = 0
		s.allowance += grant
	}
	s.mu.Unlock()
	if grant > 0 {
		s.conn.writeCredit(s.ID, uint32(grant))
	}
}

// Part is a piece of an answer's body.
type Part struct {
	Kind  wire.Kind
	Bytes []byte
}

// Finish sends what is left of the body under credit and then the RESULT. A small answer leaves in one write. The
// body of a cancelled operation is sent as far as the window reaches without waiting.
func (s *Stream) Finish(result []byte, body ...Part) {
	total := 0
	for _, part := range body {
		total += len(part.Bytes)
	}
	if total <= batch && s.reserveAll(total) {
		s.conn.finish(s, wire.Result, result, body)
		return
	}
	for _, part := range body {
		if err := s.transmit(part.Kind, part.Bytes, true); err != nil {
			break
		}
	}
	s.conn.finish(s, wire.Result, result, nil)
}

// Fail sends the ERROR that ends the operation.
func (s *Stream) Fail(err error, path string) {
	var o wire.Object
	var f *fault.Fault
	switch {
	case errors.Is(err, ErrCancelled) || errors.Is(err, ErrGone):
		f = fault.New(fault.Cancelled, "the operation was cancelled")
	default:
		f = fault.From(err, path)
	}
	o.Text("code", f.Code).Text("message", f.Message)
	if f.Path != "" {
		o.Text("path", f.Path)
	}
	s.conn.finish(s, wire.Error, o.Bytes(), nil)
}

// What follows is called by the connection's reader.

// admit decides about an arriving DATA frame: whether it keeps the rules, and whether anyone still wants it.
func (s *Stream) admit(n int) (wanted bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false, errors.New("data after its end")
	}
	if int64(n) > s.allowance {
		return false, errors.New("data beyond its credit")
	}
	s.allowance -= int64(n)
	return !s.finished && !s.cancelled && !s.gone, nil
}

func (s *Stream) deliver(b *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.arrived) - 1; last >= 0 && s.arrived[last].join(b) {
		b.release()
	} else {
		s.arrived = append(s.arrived, b)
	}
	s.moved.Broadcast()
}

func (s *Stream) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.moved.Broadcast()
}

func (s *Stream) credit(n uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window += int64(n)
	if s.window > maxWindow {
		return errors.New("credit over the limit")
	}
	s.moved.Broadcast()
	return nil
}

func (s *Stream) stop(gone bool) {
	s.mu.Lock()
	first := !s.cancelled && !s.gone
	s.gone = s.gone || gone
	s.cancelled = true
	s.mu.Unlock()
	if first {
		close(s.done)
	}
	s.moved.Broadcast()
}
