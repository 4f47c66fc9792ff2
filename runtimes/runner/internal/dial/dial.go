// Package dial carries a stream to something that listens inside the container.
package dial

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"runner/internal/fault"
	"runner/internal/mux"
	"runner/internal/wire"
)

const (
	// patience is how long a target may take to accept.
	patience = 10 * time.Second
	// block is read from a target at once.
	block   = 64 << 10
	maxPort = 1<<16 - 1
)

// blocks are lent out only while there is something to read: a connection on which nothing happens costs none.
var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// target is a connection to a unix socket or a port.
type target interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// Dial connects to what the request names and relays until the target has closed.
func Dial(m *mux.Stream) error {
	network, address, err := parse(m.Request)
	if err != nil {
		return err
	}
	conn, err := connect(network, address)
	if err != nil {
		return err
	}
	defer conn.Close()
	answered := make(chan struct{})
	defer close(answered)
	go func() {
		// Whoever is no longer wanted may be stuck in a read or a write.
		select {
		case <-m.Done():
			conn.Close()
		case <-answered:
		}
	}()
	if err := m.Send(wire.Data, []byte{1}); err != nil {
		return err
	}
	go in(m, conn)
	if err := out(m, conn); err != nil {
		return err
	}
	m.Finish([]byte("{}"))
	return nil
}

func parse(request []byte) (network, address string, err error) {
	var r struct {
		Unix wire.Text
		Port int
	}
	if err := json.Unmarshal(request, &r); err != nil {
		return "", "", fault.Invalid(err.Error())
	}
	path := string(r.Unix)
	switch {
	case (path != "") == (r.Port != 0):
		return "", "", fault.Invalid("either a socket or a port")
	case path == "" && (r.Port < 1 || r.Port > maxPort):
		return "", "", fault.Invalid("no such port")
	case path == "":
		return "tcp4", "127.0.0.1:" + strconv.Itoa(r.Port), nil
	case !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@"):
		return "", "", fault.At("EINVAL", "the path is not absolute", path)
	}
	return "unix", path, nil
}

func connect(network, address string) (target, error) {
	conn, err := net.DialTimeout(network, address, patience)
	if err == nil {
		return conn.(target), nil
	}
	path := ""
	if network == "unix" {
		path = address
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || os.IsTimeout(err) {
		err = syscall.ETIMEDOUT
	}
	return nil, fault.From(err, path)
}

// in carries what the backend sends. What a target does not take any more is read all the same, and dropped.
func in(m *mux.Stream, conn target) {
	var broken error
	for {
		p, err := m.Receive()
		if err != nil {
			if err == io.EOF {
				conn.CloseWrite()
			}
			return
		}
		if broken == nil {
			_, broken = conn.Write(p)
		}
	}
}

// out carries what the target sends, until it has closed.
func out(m *mux.Stream, conn target) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		p, n, err := read(raw)
		if err == nil && n > 0 {
			err = m.Send(wire.Data, p[:n])
		}
		if p != nil {
			blocks.Put(p)
		}
		switch {
		case m.Cancelled():
			return mux.ErrCancelled
		case err != nil:
			return err
		case n == 0:
			return nil
		}
	}
}

// read waits until there is something to read and reads it; nothing means the end.
func read(raw syscall.RawConn) (p *[block]byte, n int, err error) {
	waited := raw.Read(func(fd uintptr) bool {
		p = blocks.Get().(*[block]byte)
		for {
			n, err = syscall.Read(int(fd), p[:])
			if err != syscall.EINTR {
				break
			}
		}
		if err == syscall.EAGAIN {
			blocks.Put(p)
			p = nil
			return false
		}
		return true
	})
	if waited != nil {
		return nil, 0, waited
	}
	return p, max(n, 0), err
}
