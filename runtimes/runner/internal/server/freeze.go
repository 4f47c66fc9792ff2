package server

import (
	"context"
	"encoding/json"
	"syscall"
	"time"

	"runner/internal/fault"
	"runner/internal/gate"
	"runner/internal/mux"
	"runner/internal/process"
	"runner/internal/wire"
)

const (
	defaultFreeze = 60_000
	// maxFreeze bounds how long a backend that forgets us can keep everything from running.
	maxFreeze = 600_000
)

// freeze lets nothing run and nothing change until it is told to end.
func (s *Server) freeze(m *mux.Stream) error {
	var r struct{ Timeout *int64 }
	if err := json.Unmarshal(m.Request, &r); err != nil {
		return fault.Invalid(err.Error())
	}
	timeout := int64(defaultFreeze)
	if r.Timeout != nil {
		timeout = min(*r.Timeout, maxFreeze)
	}
	if timeout < 0 {
		return fault.Invalid("a negative timeout")
	}
	if !s.gate.Close() {
		return fault.New("EBUSY", "everything is frozen already")
	}
	began := time.Now()
	wanted, end := context.WithTimeout(context.Background(), time.Duration(timeout)*time.Millisecond)
	defer end()
	go func() {
		untilEnd(m)
		end()
	}()
	count, err := s.hold(m, wanted.Done())
	s.gate.Open()
	if err != nil {
		return err
	}
	var o wire.Object
	m.Finish(o.Int("frozen", int64(count)).Int("duration", time.Since(began).Milliseconds()).Bytes())
	return nil
}

// hold stops everything, says so, and lets it go on when it is over. What starts processes goes first: a process that is
// stopped before it has executed its program would keep whoever started it waiting. What changes files goes last: with
// all else at rest it comes to its end.
func (s *Server) hold(m *mux.Stream, over <-chan struct{}) (int, error) {
	if !s.gate.Drain(gate.Start, over) {
		return 0, tooLate(m)
	}
	frozen, err := process.Freeze(s.spares, over)
	if err == syscall.ETIMEDOUT {
		return 0, tooLate(m)
	}
	if err != nil {
		return 0, err
	}
	defer frozen.Thaw()
	if !s.gate.Drain(gate.Change, over) {
		return 0, tooLate(m)
	}
	// A peer that does not read must not keep everything frozen.
	go m.Send(wire.Data, []byte{1})
	<-over
	return frozen.Len(), nil
}

func tooLate(m *mux.Stream) error {
	if m.Cancelled() {
		return mux.ErrCancelled
	}
	return fault.New("ETIMEDOUT", "not everything could be stopped in time")
}

// untilEnd returns when the peer has sent END, or the operation is no longer wanted or finished.
func untilEnd(m *mux.Stream) {
	for {
		if _, err := m.Receive(); err != nil {
			return
		}
	}
}
