// Package jobs keeps commands that belong to the container and not to a connection.
package jobs

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"runner/internal/cgroup"
	"runner/internal/command"
	"runner/internal/fault"
	"runner/internal/launch"
	"runner/internal/mux"
	"runner/internal/pipe"
	"runner/internal/process"
	"runner/internal/quota"
	"runner/internal/wire"
)

const (
	maxRunning    = 64
	maxRemembered = 64
	defaultKeep   = 1 << 20
	maxKeep       = 16 << 20
	defaultLimit  = 64 << 10
	maxLimit      = 16 << 20
	// maxName bounds the command line that is shown for a job.
	maxName = 4096
)

// Table holds the running jobs and the youngest of the ended ones.
type Table struct {
	launcher *launch.Launcher
	// changed is told when a job starts (+1) and ends (-1): a running job counts as use of the container.
	changed func(delta int)

	mu      sync.Mutex
	next    int
	running int
	jobs    []*job // in order of start
}

// NewTable makes an empty table.
func NewTable(l *launch.Launcher, changed func(delta int)) *Table {
	return &Table{launcher: l, changed: changed}
}

type job struct {
	id      string
	name    string
	process *process.Process
	refusal *launch.Refusal
	load    *quota.Load
	source  *pipe.Source
	log     *log
	before  cgroup.Pressure
	started time.Time
	over    chan struct{} // closed when it has ended and its output is complete

	writing sync.Mutex // one writer at a time

	mu       sync.Mutex
	stdin    *os.File
	stopping string // the cause for which it is being stopped
	ended    bool
	code     int
	cause    string
	signal   string
	duration time.Duration
}

// Start is the job_start operation.
func (t *Table) Start(s *mux.Stream) {
	var r struct {
		launch.Request
		Keep *int64
	}
	if err := json.Unmarshal(s.Request, &r); err != nil {
		s.Fail(fault.Invalid(err.Error()), "")
		return
	}
	keep := int64(defaultKeep)
	if r.Keep != nil {
		keep = max(1, min(*r.Keep, maxKeep))
	}
	j, err := t.start(&r.Request, int(keep), s.Done())
	if err != nil {
		s.Fail(err, "")
		return
	}
	finishWith(s, j)
}

func (t *Table) start(r *launch.Request, keep int, cancelled <-chan struct{}) (*job, error) {
	c, err := t.launcher.Check(r)
	if err != nil {
		return nil, err
	}
	load := t.launcher.Quota.Enter()
	if !t.launcher.Enter(cancelled) {
		load.Leave()
		return nil, mux.ErrCancelled
	}
	defer t.launcher.Leave()
	if !t.admit() {
		load.Leave()
		return nil, fault.New("EAGAIN", "too many jobs are running")
	}
	j := &job{name: shorten(c.Name), load: load, log: newLog(keep), before: t.launcher.Cgroup.Pressure(), started: time.Now(),
		over: make(chan struct{})}
	if err := j.launch(t.launcher, c); err != nil {
		load.Leave()
		t.leave()
		return nil, err
	}
	t.remember(j)
	go t.follow(j)
	go func() {
		select {
		case <-load.Over():
			j.stop(t.launcher, command.CauseQuota)
		case <-j.over:
		}
	}()
	return j, nil
}

func shorten(name string) string { return name[:min(len(name), maxName)] }

func (t *Table) admit() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running >= maxRunning {
		return false
	}
	t.running++
	t.changed(1)
	return true
}

func (t *Table) leave() {
	t.mu.Lock()
	t.running--
	t.mu.Unlock()
	t.changed(-1)
}

func (t *Table) remember(j *job) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	j.id = "j" + strconv.Itoa(t.next)
	t.jobs = append(t.jobs, j)
}

// launch starts the process with one pipe for both outputs, so that their order is kept.
func (j *job) launch(l *launch.Launcher, c *launch.Command) error {
	source, out, err := pipe.NewSource()
	if err != nil {
		return err
	}
	defer syscall.Close(out)
	stdin, in, err := pipe.NewSink()
	if err != nil {
		source.Close()
		return err
	}
	defer syscall.Close(in)
	j.source, j.stdin = source, stdin
	j.process, j.refusal, err = l.Start(c, [3]int{in, out, out})
	if j.process == nil {
		source.Close()
		stdin.Close()
	}
	return err
}

// follow collects the job's output until it has ended.
func (t *Table) follow(j *job) {
	if j.refusal == nil {
		j.drain()
	}
	// Whoever learns that it has ended must not find it running.
	t.leave()
	j.conclude(t.launcher.Cgroup.Pressure())
	j.log.finish()
	j.load.Leave()
	close(j.over)
	t.forgetOld()
}

// drain returns when the process has ended and nothing of its output is left.
func (j *job) drain() {
	pumped := make(chan struct{})
	go func() {
		j.source.Pump(j.log.add)
		close(pumped)
	}()
	<-j.process.Exited()
	j.source.Exited()
	<-pumped
}

func (j *job) conclude(after cgroup.Pressure) {
	if j.refusal != nil {
		j.log.add([]byte(j.refusal.Message))
		j.end(j.refusal.Code, "exit", "")
		return
	}
	code, signal := command.Decode(j.process.Status())
	during := cgroup.Pressure{OOMKills: after.OOMKills - j.before.OOMKills, PidsHits: after.PidsHits - j.before.PidsHits}
	j.end(code, command.Cause(code, signal, during, j.load), signal)
}

func (j *job) end(code int, cause, signal string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopping != "" {
		cause = j.stopping
	}
	j.ended, j.code, j.cause, j.signal, j.duration = true, code, cause, signal, time.Since(j.started)
	if j.stdin != nil {
		j.stdin.Close()
		j.stdin = nil
	}
}

// forgetOld drops the oldest ended jobs beyond those that are remembered.
func (t *Table) forgetOld() {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := 0
	for _, j := range t.jobs {
		if j.isOver() {
			ended++
		}
	}
	kept := t.jobs[:0]
	for _, j := range t.jobs {
		if ended > maxRemembered && j.isOver() {
			ended--
			continue
		}
		kept = append(kept, j)
	}
	clear(t.jobs[len(kept):])
	t.jobs = kept
}

func (j *job) isOver() bool {
	select {
	case <-j.over:
		return true
	default:
		return false
	}
}

func (t *Table) find(id string) (*job, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, j := range t.jobs {
		if j.id == id {
			return j, nil
		}
	}
	return nil, fault.New(fault.NoSuchJob, "there is no job "+strconv.Quote(id))
}

// Running is how many jobs run.
func (t *Table) Running() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running
}

// List is the job_list operation.
func (t *Table) List(s *mux.Stream) {
	t.mu.Lock()
	jobs := append([]*job(nil), t.jobs...)
	t.mu.Unlock()
	list := []byte{'['}
	for i, j := range jobs {
		if i > 0 {
			list = append(list, ',')
		}
		list = append(list, j.describe()...)
	}
	var o wire.Object
	s.Finish(o.Raw("jobs", append(list, ']')).Bytes())
}

type request struct {
	ID     wire.Text
	Cursor int64
	Limit  *int64
	Wait   int64
	Close  bool
}

// parse reads the request and finds its job; it answers itself when that fails.
func (t *Table) parse(s *mux.Stream) (*request, *job) {
	r := &request{}
	if err := json.Unmarshal(s.Request, r); err != nil {
		s.Fail(fault.Invalid(err.Error()), "")
		return nil, nil
	}
	j, err := t.find(string(r.ID))
	if err != nil {
		s.Fail(err, "")
		return nil, nil
	}
	return r, j
}

// Stop is the job_stop operation.
func (t *Table) Stop(s *mux.Stream) {
	_, j := t.parse(s)
	if j == nil {
		return
	}
	j.stop(t.launcher, "cancelled")
	finishWith(s, j)
}

// stop ends the job's session, also what the job has left behind in it. The number of a session stays taken while
// anyone is in it; the check is for the case that everyone is gone and a new command has been given the number.
func (j *job) stop(l *launch.Launcher, cause string) {
	if j.process == nil {
		return
	}
	j.mu.Lock()
	if !j.ended && j.stopping == "" {
		j.stopping = cause
	}
	ended := j.ended
	j.mu.Unlock()
	if ended && l.Table.Leads(j.process.Pid) {
		return
	}
	l.Table.StopSession(j.process.Pid, l.Gate)
	select {
	case <-j.over:
	case <-time.After(time.Second):
	}
}

// Read is the job_read operation.
func (t *Table) Read(s *mux.Stream) {
	r, j := t.parse(s)
	if j == nil {
		return
	}
	limit := int64(defaultLimit)
	if r.Limit != nil {
		limit = min(*r.Limit, maxLimit)
	}
	if r.Cursor < 0 || limit < 0 || r.Wait < 0 {
		s.Fail(fault.Invalid("a negative number"), "")
		return
	}
	p, next, skipped := j.await(s, r.Cursor, int(limit), time.Duration(r.Wait)*time.Millisecond)
	var o wire.Object
	o.Int("cursor", next).Int("skipped", skipped).Raw("job", j.describe())
	s.Finish(o.Bytes(), mux.Part{Kind: wire.Data, Bytes: p})
}

// await reads, and when there is nothing waits for something to come or the job to end.
func (j *job) await(s *mux.Stream, cursor int64, limit int, wait time.Duration) ([]byte, int64, int64) {
	var expired <-chan time.Time
	for {
		p, next, skipped, more := j.log.read(cursor, limit)
		if len(p) > 0 || more == nil || wait == 0 || limit == 0 {
			return p, next, skipped
		}
		if expired == nil {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			expired = timer.C
		}
		select {
		case <-more:
		case <-expired:
			return p, next, skipped
		case <-s.Done():
			return p, next, skipped
		}
	}
}

// Write is the job_write operation.
func (t *Table) Write(s *mux.Stream) {
	r, j := t.parse(s)
	if j == nil {
		return
	}
	j.writing.Lock()
	written, err := j.copyFrom(s)
	if err == nil && r.Close {
		j.closeInput()
	}
	j.writing.Unlock()
	if err != nil {
		s.Fail(err, "")
		return
	}
	var o wire.Object
	s.Finish(o.Int("written", written).Bytes())
}

func (j *job) copyFrom(s *mux.Stream) (int64, error) {
	j.mu.Lock()
	stdin := j.stdin
	j.mu.Unlock()
	if stdin == nil {
		return 0, fault.New("EPIPE", "the job's standard input is closed")
	}
	defer unblockOnCancel(s, stdin)()
	written := int64(0)
	for {
		p, err := s.Receive()
		if err == io.EOF {
			return written, nil
		}
		if err != nil {
			return written, err
		}
		n, err := stdin.Write(p)
		written += int64(n)
		if s.Cancelled() {
			return written, mux.ErrCancelled
		}
		if err != nil {
			return written, fault.New("EPIPE", "the job's standard input is closed")
		}
	}
}

// unblockOnCancel makes a write to a job that does not read return when the operation is cancelled.
func unblockOnCancel(s *mux.Stream, stdin *os.File) (release func()) {
	finished, released := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(released)
		select {
		case <-s.Done():
			stdin.SetWriteDeadline(time.Unix(1, 0))
			<-finished
		case <-finished:
		}
		stdin.SetWriteDeadline(time.Time{})
	}()
	return func() {
		close(finished)
		<-released
	}
}

func (j *job) closeInput() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stdin != nil {
		j.stdin.Close()
		j.stdin = nil
	}
}

func finishWith(s *mux.Stream, j *job) {
	var o wire.Object
	s.Finish(o.Raw("job", j.describe()).Bytes())
}

func (j *job) describe() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	var o wire.Object
	o.Text("id", j.id).Text("command", j.name).Bool("running", !j.ended)
	duration := time.Since(j.started)
	if j.ended {
		o.Int("exit_code", int64(j.code)).Text("cause", j.cause)
		duration = j.duration
	}
	if j.signal != "" {
		o.Text("signal", j.signal)
	}
	o.Int("started", j.started.UnixMilli()).Int("duration", duration.Milliseconds()).Int("output", j.log.size())
	return o.Bytes()
}
