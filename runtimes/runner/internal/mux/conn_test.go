package mux

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"runner/internal/wire"
)

// FuzzConn lets a peer send anything after its greeting: the connection ends, every operation that was begun is told, and
// none has received more than was sent.
func FuzzConn(f *testing.F) {
	open := func(id uint32) []byte { return wire.AppendFrame(nil, wire.Open, id, []byte(`{"op":"ping"}`)) }
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	f.Add(open(1))
	f.Add(join(open(1), open(1)))
	f.Add(join(open(5), open(3)))
	f.Add(join(open(1), wire.AppendFrame(nil, wire.Data, 1, []byte("x")), wire.AppendFrame(nil, wire.End, 1, nil)))
	f.Add(join(open(1), wire.AppendFrame(nil, wire.Credit, 1, []byte{255, 255, 255, 255})))
	f.Add(join(open(1), wire.AppendFrame(nil, wire.Cancel, 1, nil), wire.AppendFrame(nil, wire.Data, 9, []byte("x"))))
	f.Add(join(open(1), wire.AppendHeader(nil, wire.Data, 1, 1<<31)))
	f.Add(wire.AppendFrame(nil, wire.Hello, 0, []byte(`{"protocol":1}`)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		ours, theirs := net.Pipe()
		var begun sync.WaitGroup
		var received atomic.Int64
		conn := NewConn(ours, func(s *Stream) {
			begun.Add(1)
			go func() {
				defer begun.Done()
				for {
					data, err := s.Receive()
					if err != nil {
						break
					}
					received.Add(int64(len(data)))
				}
				s.Finish([]byte("{}"))
			}()
		})
		go io.Copy(io.Discard, theirs)
		go func() {
			theirs.Write(wire.AppendFrame(nil, wire.Hello, 0, []byte(`{"protocol":1}`)))
			theirs.Write(raw)
			theirs.Close()
		}()
		done := make(chan struct{})
		go func() {
			conn.Serve([]byte("{}"))
			begun.Wait()
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("it does not end")
		}
		if received.Load() > int64(len(raw)) {
			t.Fatalf("received %d bytes of %d", received.Load(), len(raw))
		}
	})
}
