package server

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"runner/internal/command"
	"runner/internal/dial"
	"runner/internal/fault"
	"runner/internal/files"
	"runner/internal/gate"
	"runner/internal/mux"
	"runner/internal/search"
	"runner/internal/wire"
)

const (
	// unread is how long an answer before the end may wait for a peer that does not read.
	unread = 500 * time.Millisecond
	// longestIdle is more milliseconds than any container is idle.
	longestIdle = 1 << 40
)

// operation is what an `op` names. One that returns an error has not answered.
type operation func(*Server, *mux.Stream) error

var operations = map[string]operation{
	"exec":      (*Server).exec,
	"job_start": func(s *Server, m *mux.Stream) error { s.jobs.Start(m); return nil },
	"job_list":  func(s *Server, m *mux.Stream) error { s.jobs.List(m); return nil },
	"job_stop":  func(s *Server, m *mux.Stream) error { s.jobs.Stop(m); return nil },
	"job_read":  func(s *Server, m *mux.Stream) error { s.jobs.Read(m); return nil },
	"job_write": func(s *Server, m *mux.Stream) error { s.jobs.Write(m); return nil },
	"kill_all":  (*Server).killAll,
	"freeze":    (*Server).freeze,
	"dial":      (*Server).dial,
	"read":      (*Server).read,
	"read_text": (*Server).readText,
	"stat":      (*Server).stat,
	"list":      (*Server).list,
	"mkdir":     (*Server).mkdir,
	"realpath":  (*Server).realpath,
	"glob":      func(_ *Server, m *mux.Stream) error { return search.Glob(m) },
	"grep":      func(_ *Server, m *mux.Stream) error { return search.Grep(m) },
}

// glances are the operations that are no use of the container: whoever looks after it must not keep it alive by looking.
var glances = map[string]operation{
	"ping":   (*Server).ping,
	"usage":  (*Server).usage,
	"retire": (*Server).retire,
}

// changes are the operations that are ordered by path.
var changes = map[string]func(*Server, *mux.Stream, *pathRequest) error{
	"write":  (*Server).write,
	"remove": (*Server).remove,
}

// open starts an operation. It is called by the connection's reader and does nothing that could block.
func (s *Server) open(m *mux.Stream) {
	var head struct{ Op string }
	err := json.Unmarshal(m.Request, &head)
	change := changes[head.Op]
	run := operations[head.Op]
	glance := glances[head.Op]
	switch {
	case err != nil:
		err = fault.Invalid(err.Error())
	case run == nil && change == nil && glance == nil:
		err = fault.New("ENOSYS", "unknown operation "+strconv.Quote(head.Op))
	case s.operations.Load() >= maxOperations:
		err = fault.New("EAGAIN", "too many operations are under way")
	}
	if err != nil {
		go m.Fail(err, "")
		return
	}
	if glance != nil {
		s.operations.Add(1)
		m.Leaving = func() { s.operations.Add(-1) }
		go s.carry(m, func() error { return glance(s, m) })
		return
	}
	if !s.clock.Begin() {
		// The GOODBYE that is about to be sent is the answer: it was never begun.
		return
	}
	s.operations.Add(1)
	m.Leaving = s.ended
	if change != nil {
		s.ordered.add(func() { s.line(m, change) })
		return
	}
	go s.carry(m, func() error { return run(s, m) })
}

// ended takes note that an operation is no longer under way.
func (s *Server) ended() {
	s.operations.Add(-1)
	s.clock.Use(-1)
}

// carry runs an operation to its end.
func (s *Server) carry(m *mux.Stream, run func() error) {
	// A mistake of ours in one operation must not end every other one with the container.
	defer func() {
		if r := recover(); r != nil {
			m.Fail(fault.New("EIO", fmt.Sprint("internal error: ", r)), "")
		}
	}()
	if err := run(); err != nil {
		m.Fail(err, "")
	}
}

// line gives a change its turn and runs it when that has come.
func (s *Server) line(m *mux.Stream, change func(*Server, *mux.Stream, *pathRequest) error) {
	r := &pathRequest{}
	if err := r.parse(m); err != nil {
		go s.carry(m, func() error { return err })
		return
	}
	turn := s.order.Join(string(r.Path))
	go s.carry(m, func() error {
		defer turn.Leave()
		if !turn.Wait(m.Done()) {
			return mux.ErrCancelled
		}
		return change(s, m, r)
	})
}

// queue runs functions one after the other, in the order in which they were added.
type queue struct {
	mu      sync.Mutex
	waiting []func()
	running bool
}

func (q *queue) add(f func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, f)
	if !q.running {
		q.running = true
		go q.run()
	}
}

func (q *queue) run() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running = false
			q.waiting = nil
			q.mu.Unlock()
			return
		}
		f := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		f()
	}
}

// pathRequest is a request about one path.
type pathRequest struct {
	Path    wire.Text
	Offset  int64
	Length  *int64
	Version bool
	Mode    *uint32
	Expect  *wire.Text
}

func (r *pathRequest) parse(m *mux.Stream) error {
	if err := json.Unmarshal(m.Request, r); err != nil {
		return fault.Invalid(err.Error())
	}
	if !strings.HasPrefix(string(r.Path), "/") {
		return fault.At("EINVAL", "the path is not absolute", string(r.Path))
	}
	return nil
}

// withPath parses the request of an operation on one path.
func withPath(m *mux.Stream, f func(*pathRequest) error) error {
	r := &pathRequest{}
	if err := r.parse(m); err != nil {
		return err
	}
	return f(r)
}

func (s *Server) exec(m *mux.Stream) error {
	if s.commands.Add(1) > maxCommands {
		s.commands.Add(-1)
		return fault.New("EAGAIN", "too many commands are running")
	}
	defer s.commands.Add(-1)
	command.Exec(s.launcher, s.devNull, m)
	return nil
}

func (s *Server) dial(m *mux.Stream) error {
	defer s.dials.Add(-1)
	if s.dials.Add(1) > maxDials {
		return fault.New("EAGAIN", "too many connections are open")
	}
	return dial.Dial(m)
}

func (s *Server) killAll(m *mux.Stream) error {
	killed, err := s.launcher.Table.KillAll(s.spares)
	if err != nil {
		return err
	}
	var o wire.Object
	m.Finish(o.Int("killed", int64(killed)).Bytes())
	return nil
}

func (s *Server) read(m *mux.Stream) error {
	return withPath(m, func(r *pathRequest) error { return files.Read(m, string(r.Path), r.Offset, r.Length, r.Version) })
}

func (s *Server) readText(m *mux.Stream) error {
	var r struct {
		Path wire.Text
		files.TextRange
	}
	if err := json.Unmarshal(m.Request, &r); err != nil {
		return fault.Invalid(err.Error())
	}
	return files.ReadText(m, string(r.Path), r.TextRange)
}

func (s *Server) write(m *mux.Stream, r *pathRequest) error {
	return files.Write(m, s.gate, s.quota, string(r.Path), r.Mode, (*string)(r.Expect))
}

func (s *Server) remove(m *mux.Stream, r *pathRequest) error {
	if !s.gate.Enter(gate.Change, m.Done()) {
		return mux.ErrCancelled
	}
	defer s.gate.Leave(gate.Change)
	defer s.quota.Freed()
	if err := files.Remove(string(r.Path), s.config.Workdir, m.Cancelled); err != nil {
		return err
	}
	return s.ping(m)
}

func (s *Server) stat(m *mux.Stream) error {
	return withPath(m, func(r *pathRequest) error {
		answer, err := files.Stat(string(r.Path))
		if err != nil {
			return err
		}
		m.Finish(answer)
		return nil
	})
}

func (s *Server) list(m *mux.Stream) error {
	return withPath(m, func(r *pathRequest) error { return files.List(m, string(r.Path)) })
}

func (s *Server) mkdir(m *mux.Stream) error {
	return withPath(m, func(r *pathRequest) error {
		if !s.gate.Enter(gate.Change, m.Done()) {
			return mux.ErrCancelled
		}
		err := files.Mkdir(string(r.Path))
		s.gate.Leave(gate.Change)
		if err != nil {
			return err
		}
		return s.ping(m)
	})
}

func (s *Server) realpath(m *mux.Stream) error {
	return withPath(m, func(r *pathRequest) error {
		resolved, err := files.Realpath(string(r.Path))
		if err != nil {
			return err
		}
		var o wire.Object
		m.Finish(o.Text("path", resolved).Bytes())
		return nil
	})
}

func (s *Server) ping(m *mux.Stream) error {
	m.Finish([]byte("{}"))
	return nil
}

func (s *Server) usage(m *mux.Stream) error {
	c := s.launcher.Cgroup
	var o, disk wire.Object
	memory, memoryLimit := c.Memory()
	pids, pidsLimit := c.Pids()
	o.IntOrNull("memory", memory).IntOrNull("memory_limit", memoryLimit)
	o.IntOrNull("pids", pids).IntOrNull("pids_limit", pidsLimit)
	o.IntOrNull("cpu", c.CPU()).Int("oom_kills", c.Pressure().OOMKills).Int("runner_rss", residentSize())
	o.Int("uptime", s.clock.Uptime().Milliseconds()).Int("idle", s.clock.Idle().Milliseconds())
	o.Int("jobs", int64(s.jobs.Running())).Int("commands", int64(s.commands.Load()))
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.config.Workdir, &st); err == nil {
		disk.Int("total", int64(st.Blocks)*st.Bsize).Int("free", int64(st.Bavail)*st.Bsize)
		disk.Int("inodes", int64(st.Files)).Int("inodes_free", int64(st.Ffree))
		o.Raw("disk", disk.Bytes())
	} else {
		o.Raw("disk", []byte("null"))
	}
	if used, limit, ok := s.quota.Usage(); ok {
		var quota wire.Object
		o.Raw("quota", quota.Int("used", used).Int("limit", limit).Bytes())
	} else {
		o.Raw("quota", []byte("null"))
	}
	m.Finish(o.Bytes())
	return nil
}

// retire ends the container if nobody uses it, and says so before it does.
func (s *Server) retire(m *mux.Stream) error {
	var r struct{ Idle int64 }
	if err := json.Unmarshal(m.Request, &r); err != nil {
		return fault.Invalid(err.Error())
	}
	idle := min(max(r.Idle, 0), longestIdle)
	retired, rest := s.clock.Retire(time.Duration(idle) * time.Millisecond)
	if retired {
		// Whoever asked may not read the answer; the end does not wait for that.
		time.AfterFunc(unread, s.clock.Depart)
	}
	var o wire.Object
	m.Finish(o.Bool("retired", retired).Int("idle", rest.Milliseconds()).Bytes())
	if retired {
		s.clock.Depart()
	}
	return nil
}

// residentSize is the runner's own memory.
func residentSize() int64 {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}
