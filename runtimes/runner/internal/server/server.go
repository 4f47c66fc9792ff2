// Package server offers the operations of PROTOCOL.md on the runner's sockets.
package server

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"runner/internal/cgroup"
	"runner/internal/files"
	"runner/internal/gate"
	"runner/internal/jobs"
	"runner/internal/launch"
	"runner/internal/life"
	"runner/internal/mux"
	"runner/internal/process"
	"runner/internal/quota"
	"runner/internal/sys"
	"runner/internal/wire"
)

const (
	// Abstract is the socket that nothing inside the container can delete or replace.
	Abstract = "@pydantic-ai-sandbox"
	// maxConns bounds connections that come from inside the container, and separately those from outside, so that
	// hostile code cannot use up the places of a backend.
	maxConns = 64
	// maxOperations bounds what is under way on all connections together.
	maxOperations = 1024
	// maxCommands bounds the commands among them; each may hold its captured output.
	maxCommands = 256
	// maxDials bounds the connections among them; each may hold a window of what its target has not taken yet.
	maxDials = 256
)

// Config is what serve was started with.
type Config struct {
	Version  string
	Socket   string
	Abstract string
	Workdir  string
	Idle     time.Duration
	Lifetime time.Duration
	Quota    int64 // bytes that the working directory may hold, 0: any number
	Log      func(string)
}

// Server is the runner.
type Server struct {
	config   Config
	clock    *life.Clock
	launcher *launch.Launcher
	jobs     *jobs.Table
	gate     *gate.Gate
	quota    *quota.Meter
	order    *files.Order
	ordered  queue
	devNull  int
	hello    []byte

	operations atomic.Int32
	commands   atomic.Int32
	dials      atomic.Int32

	mu      sync.Mutex
	peers   map[*mux.Conn]peer
	parting bool // the peers are being told that it ends: there are no more
}

// peer is who is at the other end of a connection.
type peer struct {
	pid     int
	outside bool
}

// New prepares everything that needs no socket.
func New(config Config) (*Server, error) {
	devNull, err := sys.Open(os.DevNull, syscall.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	workdir, err := files.Realpath(config.Workdir)
	if err == nil {
		err = process.CheckDir(workdir)
	}
	if err != nil {
		config.Log(fmt.Sprintf("working directory %s: %v; using /", config.Workdir, err))
		workdir = "/"
	}
	config.Workdir = workdir
	s := &Server{
		config:  config,
		clock:   life.NewClock(config.Idle, config.Lifetime),
		gate:    new(gate.Gate),
		order:   files.NewOrder(),
		devNull: devNull,
		peers:   make(map[*mux.Conn]peer),
	}
	s.quota = quota.NewMeter(workdir, config.Quota, inhabitants{s})
	s.launcher = &launch.Launcher{Table: process.NewTable(), Cgroup: cgroup.Find(), Env: os.Environ(), Workdir: workdir,
		Gate: s.gate, Quota: s.quota}
	s.jobs = jobs.NewTable(s.launcher, s.clock.Use)
	s.hello = s.greeting()
	return s, nil
}

func (s *Server) greeting() []byte {
	home := os.Getenv("HOME")
	if home == "" {
		home = "/"
	}
	var o wire.Object
	o.Int("protocol", wire.Protocol).Text("version", s.config.Version).Int("uid", int64(os.Geteuid()))
	return o.Text("arch", runtime.GOARCH).Text("workdir", s.config.Workdir).Text("home", home).Bytes()
}

// Run serves until the container has been idle or alive for long enough. It fails when no socket can be made.
func (s *Server) Run() error {
	listening := 0
	for _, name := range []string{s.config.Socket, s.config.Abstract} {
		if name == "" {
			continue
		}
		l, err := listen(name)
		if err != nil {
			s.config.Log(err.Error())
			continue
		}
		listening++
		go s.accept(l)
	}
	if listening == 0 {
		return errors.New("no socket to listen on")
	}
	s.end(s.clock.Wait())
	return nil
}

func listen(name string) (*net.UnixListener, error) {
	if name[0] != '@' {
		if st, err := os.Lstat(name); err == nil && st.Mode()&os.ModeSocket != 0 {
			os.Remove(name)
		}
	}
	return net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
}

func (s *Server) accept(l *net.UnixListener) {
	for {
		nc, err := l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely: they come back.
			time.Sleep(10 * time.Millisecond)
			continue
		}
		s.welcome(nc)
	}
}

func (s *Server) welcome(nc *net.UnixConn) {
	conn := mux.NewConn(nc, s.open)
	if !s.admit(conn, identify(nc)) {
		nc.Close()
		return
	}
	go func() {
		conn.Serve(s.hello)
		s.mu.Lock()
		delete(s.peers, conn)
		s.mu.Unlock()
	}()
}

func (s *Server) admit(conn *mux.Conn, p peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := 0
	for _, other := range s.peers {
		if other.outside == p.outside {
			same++
		}
	}
	if s.parting || same >= maxConns {
		return false
	}
	s.peers[conn] = p
	return true
}

// identify asks the kernel who connected. A process outside of our process namespace has number 0 here, and one that
// was put into it from outside (docker exec) has parent 0: nothing inside can make itself look like either. This process
// has that parent too, and connects to itself when somebody dials its own socket.
func identify(nc *net.UnixConn) peer {
	raw, err := nc.SyscallConn()
	if err != nil {
		return peer{}
	}
	var p peer
	raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			return
		}
		p.pid = int(cred.Pid)
		p.outside = p.pid == 0 || p.pid != os.Getpid() && process.Parent(p.pid) == 0
	})
	return p
}

// spares tells whether kill_all leaves a process alone: the relays that carry our connections from outside.
func (s *Server) spares(pid, parent int) bool {
	if parent != 0 {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.peers {
		if p.pid == pid {
			return true
		}
	}
	return false
}

// inhabitants are the processes in the container, for those who look after its files.
type inhabitants struct{ *Server }

// Inhabited tells whether any process runs that is not there for our connections.
func (i inhabitants) Inhabited() bool {
	found := false
	process.Others(i.spares, func(int) { found = true })
	return found
}

// KillAll ends every process.
func (i inhabitants) KillAll() {
	if _, err := i.launcher.Table.KillAll(i.spares); err != nil {
		i.config.Log("the working directory is over its quota, and nothing could be stopped: " + err.Error())
	}
}

func (s *Server) end(reason string) {
	var o wire.Object
	payload := o.Text("reason", reason).Bytes()
	s.mu.Lock()
	s.parting = true
	var all sync.WaitGroup
	for conn := range s.peers {
		all.Add(1)
		go func() {
			defer all.Done()
			part(conn, payload)
		}()
	}
	s.mu.Unlock()
	all.Wait()
	if s.config.Socket != "" {
		os.Remove(s.config.Socket)
	}
	s.launcher.Table.KillAll(func(int, int) bool { return false })
}

// part says GOODBYE and waits a moment for the peer to hang up: a relay dies with this process, and must have passed the
// reason on by then.
func part(conn *mux.Conn, payload []byte) {
	conn.Goodbye(payload)
	select {
	case <-conn.Served():
	case <-time.After(mux.Farewell):
	}
}
