// Package relay carries a stream between a pair of pipes and the runner's abstract socket, for backends that can only
// start a process in the container.
package relay

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"
)

const (
	// startup is how long a runner that was just started may take to listen.
	startup = 2 * time.Second
	block   = 128 << 10
)

// Run relays until either side is gone.
func Run(socket string) error {
	conn, err := dial(socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	go in(conn)
	go watch()
	return out(conn)
}

func dial(socket string) (*net.UnixConn, error) {
	end := time.Now().Add(startup)
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil {
			return conn, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("no runner on %s: %w", socket, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// in carries standard input. At its end only this direction is closed: the runner ends the connection in answer, and
// what it had to say before still goes out.
func in(conn *net.UnixConn) {
	copyAll(func(p []byte) (int, error) { return syscall.Read(0, p) }, conn.Write)
	conn.CloseWrite()
}

func out(conn *net.UnixConn) error {
	copyAll(conn.Read, func(p []byte) (int, error) { return len(p), writeAll(1, p) })
	return nil
}

func copyAll(read, write func([]byte) (int, error)) {
	buf := make([]byte, block)
	for {
		n, err := read(buf)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		if _, failed := write(buf[:n]); failed != nil || err != nil {
			return
		}
	}
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Write(fd, p)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// watch ends the process as soon as nobody reads its standard output any more; otherwise an idle relay would only
// notice at the next frame.
func watch() {
	fds := [1]struct {
		fd              int32
		events, revents int16
	}{{fd: 1}}
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), 1, 0, 0, 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno == 0 && n > 0 {
			os.Exit(0)
		}
		return
	}
}
