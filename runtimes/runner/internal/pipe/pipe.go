// Package pipe reads what commands print, and writes what they read, without ever waiting for a process that only holds
// the other end.
package pipe

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"runner/internal/sys"
)

const (
	// chunk is how much is read at a time: what a pipe holds by default.
	chunk = 64 << 10
	// maxDiscarders bounds how many pipes of ended commands are kept open for their background children.
	maxDiscarders = 256
	// trickle is the pause between discarding reads; it holds a background child that floods to a few MB/s.
	trickle = 5 * time.Millisecond
)

var (
	chunks     = sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}
	discarders atomic.Int32
	past       = time.Unix(1, 0)
)

// Source is our end of a pipe that a command writes to.
type Source struct {
	file   *os.File
	raw    syscall.RawConn
	exited atomic.Bool
}

// NewSource makes a pipe. The returned descriptor is the command's end; close it after the fork.
func NewSource() (*Source, int, error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	file, raw, err := ours(p[0])
	if err != nil {
		syscall.Close(p[1])
		return nil, -1, err
	}
	return &Source{file: file, raw: raw}, p[1], nil
}

// NewSink makes a pipe that a command reads from.
func NewSink() (*os.File, int, error) {
	var p [2]int
	if err := syscall.Pipe2(p[:], syscall.O_CLOEXEC); err != nil {
		return nil, -1, err
	}
	file, _, err := ours(p[1])
	if err != nil {
		syscall.Close(p[0])
		return nil, -1, err
	}
	return file, p[0], nil
}

// ours hands one end to the runtime's poller. Only this end is non-blocking: the command did not ask for that.
func ours(fd int) (*os.File, syscall.RawConn, error) {
	if err := syscall.SetNonblock(fd, true); err != nil {
		syscall.Close(fd)
		return nil, nil, err
	}
	file := os.NewFile(uintptr(fd), "pipe")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, raw, nil
}

// Pump gives everything that arrives to sink, until every writer is gone or Exited was called; then exactly what was in
// the pipe at that moment. Afterwards the source closes itself, or keeps discarding what others still write.
func (s *Source) Pump(sink func([]byte)) {
	for {
		eof, err := s.read(sink, chunk)
		if eof {
			s.Close()
			return
		}
		if err != nil {
			break
		}
	}
	if s.drain(sink) {
		s.Close()
		return
	}
	s.discard()
}

// Exited says that the command itself has ended: what it wrote is in the pipe, nothing is worth waiting for.
func (s *Source) Exited() {
	s.exited.Store(true)
	s.file.SetReadDeadline(past)
}

// Close gives the pipe up.
func (s *Source) Close() { s.file.Close() }

// read waits for data and passes one chunk on. The buffer is only taken when there may be something to read, so that
// a thousand silent commands hold no memory.
func (s *Source) read(sink func([]byte), most int) (eof bool, err error) {
	if s.exited.Load() {
		return false, os.ErrDeadlineExceeded
	}
	var buf *[]byte
	var n int
	var readErr error
	err = s.raw.Read(func(fd uintptr) bool {
		buf = chunks.Get().(*[]byte)
		n, readErr = sys.Read(int(fd), (*buf)[:most])
		if readErr == syscall.EAGAIN {
			chunks.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer chunks.Put(buf)
	}
	if err != nil {
		return errors.Is(err, os.ErrClosed), err
	}
	if readErr != nil || n == 0 {
		return true, nil
	}
	sink((*buf)[:n])
	return false, nil
}

// drain reads what is in the pipe now, and no more: a background child could write for ever.
func (s *Source) drain(sink func([]byte)) (eof bool) {
	err := s.raw.Control(func(fd uintptr) {
		left, err := sys.Readable(int(fd))
		if err != nil {
			eof = true
			return
		}
		buf := chunks.Get().(*[]byte)
		defer chunks.Put(buf)
		for left > 0 {
			n, err := sys.Read(int(fd), (*buf)[:min(left, chunk)])
			if err != nil || n <= 0 {
				break
			}
			sink((*buf)[:n])
			left -= n
		}
		// What comes now was written by others, later; it only matters whether there are any.
		n, err := sys.Read(int(fd), *buf)
		eof = n == 0 || err != nil && err != syscall.EAGAIN
	})
	return eof || err != nil
}

// discard reads on so that a background child neither blocks nor dies of SIGPIPE.
func (s *Source) discard() {
	if discarders.Add(1) > maxDiscarders {
		discarders.Add(-1)
		s.Close()
		return
	}
	s.exited.Store(false)
	s.file.SetReadDeadline(time.Time{})
	go func() {
		defer discarders.Add(-1)
		defer s.Close()
		for {
			if eof, err := s.read(func([]byte) {}, chunk); eof || err != nil {
				return
			}
			time.Sleep(trickle)
		}
	}()
}
