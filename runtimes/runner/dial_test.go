package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"runner/internal/mux"
	"runner/internal/wire"
)

// target listens where a dial can reach it and hands every connection to serve.
func target(t *testing.T, network, address string, serve func(net.Conn)) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l
}

func echo(conn net.Conn) { io.Copy(conn, conn) }

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

// received waits until so much has come.
func (k *call) received(n int) string {
	k.c.t.Helper()
	for range 1000 {
		k.mu.Lock()
		got := string(k.out)
		k.mu.Unlock()
		if len(got) >= n {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	k.c.t.Fatalf("%d bytes did not come", n)
	return ""
}

// receivedJust waits for n bytes more than credit was given for, and for a moment in which no more may come.
func (k *call) receivedJust(n int) {
	k.c.t.Helper()
	k.received(n)
	// Some may have come, and been credited, before it stalled.
	time.Sleep(200 * time.Millisecond)
	n += int(k.given.Load())
	k.received(n)
	time.Sleep(200 * time.Millisecond)
	if got := len(k.received(n)); got != n {
		k.c.t.Errorf("%d bytes instead of %d", got, n)
	}
}

func TestDialReachesSocketsAndPorts(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	abstract := fmt.Sprintf("@dial-test-%d", os.Getpid())
	target(t, "unix", r.work+"/s", echo)
	target(t, "unix", abstract, echo)
	l := target(t, "tcp4", "127.0.0.1:0", echo)
	for _, to := range []m{{"unix": r.work + "/s"}, {"unix": abstract}, {"port": port(l)}} {
		k := c.open("dial", to)
		k.push([]byte("ping"))
		if got := k.received(5); got != "\x01ping" {
			t.Errorf("%v: %q", to, got)
		}
		k.push([]byte("pong"))
		k.received(9)
		c.send(wire.End, k.id, nil)
		if a := k.wait(); a.failed != "" || a.out != "\x01pingpong" {
			t.Errorf("%v: %+v", to, a)
		}
	}
}

func TestDialConfirmsBeforeAnybodySpeaks(t *testing.T) {
	r := startRunner(t)
	target(t, "unix", r.work+"/s", func(conn net.Conn) { io.ReadAll(conn) })
	k := r.dial().open("dial", m{"unix": r.work + "/s"})
	if got := k.received(1); got != "\x01" {
		t.Errorf("%q", got)
	}
}

func TestDialClosesHalves(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	target(t, "unix", r.work+"/s", func(conn net.Conn) {
		said, _ := io.ReadAll(conn)
		fmt.Fprintf(conn, "%d bytes", len(said))
	})
	if a := c.open("dial", m{"unix": r.work + "/s"}).feed(make([]byte, 3<<20)).wait(); a.out != "\x013145728 bytes" {
		t.Errorf("%q", a.out)
	}
	target(t, "unix", r.work+"/closes", func(net.Conn) {})
	if a := c.do("dial", m{"unix": r.work + "/closes"}); a.failed != "" || a.out != "\x01" {
		t.Errorf("%+v", a)
	}
}

func TestDialNamesWhatKeepsItFromConnecting(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	l := target(t, "tcp4", "127.0.0.1:0", echo)
	closed := port(l)
	l.Close()
	os.WriteFile(r.work+"/file", nil, 0o644)
	left, _ := net.Listen("unix", r.work+"/left")
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()
	for _, test := range []struct {
		to   m
		code string
	}{
		{m{"port": closed}, "ECONNREFUSED"},
		{m{"unix": "@nobody-has-this-name"}, "ECONNREFUSED"},
		{m{"unix": r.work + "/left"}, "ECONNREFUSED"},
		{m{"unix": r.work + "/file"}, "ECONNREFUSED"},
		{m{"unix": r.work + "/missing"}, "ENOENT"},
		{m{"unix": r.work + "/file/below"}, "ENOTDIR"},
		{m{"unix": "relative"}, "EINVAL"},
		{m{"unix": "/" + strings.Repeat("x", 200)}, "EINVAL"},
		{m{"unix": "/nul\x00"}, "EINVAL"},
		{m{"unix": 5}, "EINVAL"},
		{m{"port": 65536}, "EINVAL"},
		{m{"port": -1}, "EINVAL"},
		{m{"port": "80"}, "EINVAL"},
		{m{"port": closed, "unix": "/s"}, "EINVAL"},
		{m{}, "EINVAL"},
	} {
		c.do("dial", test.to).fails(t, test.code)
	}
}

func TestDialOfAResetConnectionFails(t *testing.T) {
	r := startRunner(t)
	l := target(t, "tcp4", "127.0.0.1:0", func(conn net.Conn) {
		conn.Read(make([]byte, 1))
		conn.(*net.TCPConn).SetLinger(0)
	})
	k := r.dial().open("dial", m{"port": port(l)})
	k.push([]byte("some of this is never read"))
	k.wait().fails(t, "ECONNRESET")
}

func TestDialMovesALotBothWays(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	target(t, "unix", r.work+"/s", echo)
	content := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	before := r.rss()
	k := c.open("dial", m{"unix": r.work + "/s"})
	if a := k.feed(content).wait(); a.out != "\x01"+string(content) {
		t.Errorf("%d bytes came back", len(a.out))
	}
	r.assertGrowth(before, 8<<10)
}

func TestABackendThatDoesNotReadMakesTheTargetWait(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	gone := make(chan struct{})
	target(t, "unix", r.work+"/s", func(conn net.Conn) {
		for _, err := conn.Write(make([]byte, 1<<20)); err == nil; _, err = conn.Write(make([]byte, 1<<20)) {
		}
		close(gone)
	})
	before := r.rss()
	k := c.open("dial", m{"unix": r.work + "/s"})
	k.stalled.Store(true)
	k.receivedJust(mux.Window)
	r.assertGrowth(before, 4<<10)
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the target's connection stayed open")
	}
}

func TestATargetThatDoesNotReadMakesTheBackendWait(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	hold := make(chan struct{})
	defer close(hold)
	target(t, "unix", r.work+"/s", func(net.Conn) { <-hold })
	before := r.rss()
	k := c.open("dial", m{"unix": r.work + "/s"})
	k.push(make([]byte, mux.Window))
	time.Sleep(300 * time.Millisecond)
	k.mu.Lock()
	window := k.window
	k.mu.Unlock()
	if window >= mux.Window {
		t.Errorf("%d bytes of credit for what was not taken", window)
	}
	r.assertGrowth(before, 4<<10)
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
}

func TestATargetThatStopsReadingIsStillHeard(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	l := target(t, "unix", r.work+"/s", func(conn net.Conn) {
		conn.(*net.UnixConn).CloseRead()
		// What came before that, or its end would be a reset.
		io.Copy(io.Discard, conn)
		time.Sleep(300 * time.Millisecond)
		conn.Write([]byte("enough"))
	})
	defer l.Close()
	k := c.open("dial", m{"unix": r.work + "/s"})
	k.push(make([]byte, 3<<20))
	if a := k.wait(); a.failed != "" || a.out != "\x01enough" {
		t.Errorf("%+v", a)
	}
}

func TestTheEndOfAConnectionHangsUpOnItsTargets(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	gone := make(chan struct{})
	target(t, "unix", r.work+"/s", func(conn net.Conn) {
		io.ReadAll(conn)
		close(gone)
	})
	c.open("dial", m{"unix": r.work + "/s"}).received(1)
	c.nc.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Error("the target's connection stayed open")
	}
}

func TestADialIsUseAndMostlyFree(t *testing.T) {
	r := startRunner(t, "--idle", "1")
	c := r.dial()
	target(t, "unix", r.work+"/s", func(conn net.Conn) { io.ReadAll(conn) })
	before := r.rss()
	calls := make([]*call, 256)
	for i := range calls {
		calls[i] = c.open("dial", m{"unix": r.work + "/s"})
	}
	for _, k := range calls {
		k.received(1)
	}
	r.assertGrowth(before, 12<<10)
	time.Sleep(1500 * time.Millisecond)
	if r.dial().do("usage", m{}).result["idle"].(float64) != 0 {
		t.Error("an open connection is no use")
	}
	c.do("dial", m{"unix": r.work + "/s"}).fails(t, "EAGAIN")
	for _, k := range calls {
		c.send(wire.Cancel, k.id, nil)
		k.wait().fails(t, "cancelled")
	}
	c.open("dial", m{"unix": r.work + "/s"}).received(1)
}
