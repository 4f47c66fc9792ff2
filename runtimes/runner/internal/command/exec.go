// Package command runs a command for the backend that asked for it and explains how it ended.
package command

import (
	"encoding/json"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"runner/internal/cgroup"
	"runner/internal/fault"
	"runner/internal/launch"
	"runner/internal/mux"
	"runner/internal/pipe"
	"runner/internal/process"
	"runner/internal/quota"
	"runner/internal/wire"
)

const (
	defaultKeep = 512 << 10
	// maxKeep bounds what one command can make the runner hold.
	maxKeep     = 16 << 20
	defaultStop = 16 << 20
	// lingering is how long a killed process may take to be reaped before the answer is given without it.
	lingering = time.Second
	killed    = 128 + int(syscall.SIGKILL)
)

// Causes of a command's end.
const (
	causeExit      = "exit"
	causeSignal    = "signal"
	causeTimeout   = "timeout"
	causeCancelled = "cancelled"
	causeOutput    = "output_limit"
	causeMemory    = "out_of_memory"
	causeProcesses = "too_many_processes"
	// CauseQuota is that the working directory holds too much.
	CauseQuota = "disk_quota"
)

type request struct {
	launch.Request
	Timeout *int64
	Stdin   bool
	Live    bool
	Keep    *int64
	Stop    *int64
	Spill   *wire.Text
}

// Exec is the exec operation.
func Exec(l *launch.Launcher, devNull int, s *mux.Stream) {
	r := request{}
	if err := json.Unmarshal(s.Request, &r); err != nil {
		s.Fail(fault.Invalid(err.Error()), "")
		return
	}
	c, err := l.Check(&r.Request)
	if err != nil {
		s.Fail(err, "")
		return
	}
	load := l.Quota.Enter()
	defer load.Leave()
	if !l.Enter(s.Done()) {
		s.Fail(mux.ErrCancelled, "")
		return
	}
	e := &execution{launcher: l, stream: s, load: load, began: time.Now(), before: l.Cgroup.Pressure()}
	refusal, err := e.begin(c, &r, devNull)
	l.Leave()
	switch {
	case err != nil:
		s.Fail(err, "")
	case refusal != nil:
		e.refused(refusal)
	default:
		e.run(r.Timeout)
	}
}

type execution struct {
	launcher *launch.Launcher
	stream   *mux.Stream
	load     *quota.Load
	began    time.Time
	before   cgroup.Pressure
	output   output
	sources  [2]*pipe.Source
	stdin    *os.File
	process  *process.Process
}

// begin starts the command, or returns why that is refused.
func (e *execution) begin(c *launch.Command, r *request, devNull int) (*launch.Refusal, error) {
	if err := e.prepare(r); err != nil {
		return nil, err
	}
	return e.start(c, r.Stdin, devNull)
}

func (e *execution) prepare(r *request) error {
	keep, stop := int64(defaultKeep), int64(defaultStop)
	if r.Keep != nil {
		keep = min(*r.Keep, maxKeep)
	}
	if r.Stop != nil {
		stop = *r.Stop
	}
	if keep < 0 || stop < 0 || r.Timeout != nil && *r.Timeout < 0 {
		return fault.Invalid("a negative limit")
	}
	o := &e.output
	o.over = make(chan struct{})
	o.stop = stop
	o.streams[stdout].half, o.streams[stderr].half = int(keep/2), int(keep/2)
	if r.Live {
		o.live = e.stream
	} else if r.Spill != nil {
		o.spill = &spill{path: string(*r.Spill), gate: e.launcher.Gate, quota: e.launcher.Quota, cancelled: e.stream.Done()}
	}
	return nil
}

// start makes the pipes and the process; afterwards none of the command's ends is open here.
func (e *execution) start(c *launch.Command, stdin bool, devNull int) (*launch.Refusal, error) {
	files := [3]int{devNull, -1, -1}
	var theirs []int
	defer func() {
		for _, fd := range theirs {
			syscall.Close(fd)
		}
	}()
	var err error
	for i := range e.sources {
		if e.sources[i], files[i+1], err = pipe.NewSource(); err != nil {
			e.close()
			return nil, err
		}
		theirs = append(theirs, files[i+1])
	}
	if stdin {
		if e.stdin, files[0], err = pipe.NewSink(); err != nil {
			e.close()
			return nil, err
		}
		theirs = append(theirs, files[0])
	}
	process, refusal, err := e.launcher.Start(c, files)
	if process == nil {
		e.close()
	}
	e.process = process
	return refusal, err
}

func (e *execution) close() {
	for _, s := range e.sources {
		if s != nil {
			s.Close()
		}
	}
	if e.stdin != nil {
		e.stdin.Close()
	}
}

func (e *execution) refused(r *launch.Refusal) {
	var stream output
	stream.streams[stdout].half, stream.streams[stderr].half = len(r.Message), len(r.Message)
	stream.streams[stderr].add([]byte(r.Message))
	e.output.live = nil
	e.output.streams = stream.streams
	e.answer(outcome{code: r.Code, cause: causeExit})
}

func (e *execution) run(timeout *int64) {
	var pumps sync.WaitGroup
	for i, source := range e.sources {
		pumps.Add(1)
		go func() {
			defer pumps.Done()
			source.Pump(e.output.sink(i))
		}()
	}
	if e.stdin != nil {
		go e.feed()
	}
	stopped := e.wait(timeout)
	if stopped != "" {
		e.launcher.Table.StopSession(e.process.Pid, e.launcher.Gate)
		e.linger()
	}
	for _, source := range e.sources {
		source.Exited()
	}
	pumps.Wait()
	e.load.Leave()
	if e.stdin != nil {
		e.stdin.Close()
	}
	e.answer(e.judge(stopped))
}

// wait returns when the process has ended, or with the cause for which it must be stopped.
func (e *execution) wait(timeout *int64) string {
	var expired <-chan time.Time
	if timeout != nil && *timeout > 0 {
		timer := time.NewTimer(time.Duration(*timeout) * time.Millisecond)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-e.process.Exited():
		return ""
	case <-expired:
		return causeTimeout
	case <-e.stream.Done():
		return causeCancelled
	case <-e.output.over:
		return causeOutput
	case <-e.load.Over():
		return CauseQuota
	}
}

func (e *execution) linger() {
	select {
	case <-e.process.Exited():
	case <-time.After(lingering):
	}
}

// feed gives the command its standard input. When the command has closed it, the rest is taken and dropped.
func (e *execution) feed() {
	broken := false
	for {
		p, err := e.stream.Receive()
		if err == io.EOF {
			e.stdin.Close()
		}
		if err != nil {
			return
		}
		if !broken {
			_, err = e.stdin.Write(p)
			broken = err != nil
		}
	}
}

// outcome is how a command ended.
type outcome struct {
	code   int
	cause  string
	signal string
	cgroup.Pressure
}

// judge finds the cause. The kernel's counters are the container's, so an out-of-memory kill only counts against a
// command that died the way such a kill ends one.
func (e *execution) judge(stopped string) outcome {
	after := e.launcher.Cgroup.Pressure()
	o := outcome{code: killed, cause: stopped, signal: SignalKill}
	o.OOMKills, o.PidsHits = after.OOMKills-e.before.OOMKills, after.PidsHits-e.before.PidsHits
	select {
	case <-e.process.Exited():
		o.code, o.signal = Decode(e.process.Status())
	default:
	}
	if stopped == "" {
		o.cause = Cause(o.code, o.signal, o.Pressure, e.load)
	}
	return o
}

// SignalKill is the name of the signal nothing survives.
const SignalKill = "SIGKILL"

// Decode turns a wait status into an exit code, 128 + signal for a killed process, and the signal's name.
func Decode(status syscall.WaitStatus) (int, string) {
	if status.Signaled() {
		return 128 + int(status.Signal()), process.SignalName(status.Signal())
	}
	return status.ExitStatus(), ""
}

// Cause explains an end that nobody asked for.
func Cause(code int, signal string, during cgroup.Pressure, load *quota.Load) string {
	switch {
	case load.IsOver() && signal == SignalKill:
		return CauseQuota
	case during.OOMKills > 0 && (code == killed || signal == SignalKill):
		return causeMemory
	case during.PidsHits > 0 && code != 0:
		return causeProcesses
	case signal != "":
		return causeSignal
	}
	return causeExit
}

func (e *execution) answer(o outcome) {
	out := &e.output
	var result wire.Object
	result.Int("exit_code", int64(o.code)).Text("cause", o.cause)
	if o.signal != "" {
		result.Text("signal", o.signal)
	}
	result.Int("duration", time.Since(e.began).Milliseconds())
	for i, name := range [...]string{"stdout", "stderr"} {
		c := &out.streams[i]
		head := int64(len(c.head))
		if out.live != nil {
			head = c.total
		}
		var summary wire.Object
		result.Raw(name, summary.Int("total", c.total).Int("head", head).Bytes())
	}
	if out.spill.finish() {
		result.Text("spill", out.spill.path)
	}
	if o.OOMKills > 0 {
		result.Int("oom_kills", o.OOMKills)
	}
	if o.PidsHits > 0 {
		result.Int("pids_hits", o.PidsHits)
	}
	if out.live != nil {
		e.stream.Finish(result.Bytes())
		return
	}
	e.stream.Finish(result.Bytes(), append(out.streams[stdout].parts(wire.Data), out.streams[stderr].parts(wire.Stderr)...)...)
}
