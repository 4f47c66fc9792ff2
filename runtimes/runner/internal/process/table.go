// Package process starts processes, reaps them, and stops whole sessions of them.
package process

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"runner/internal/sys"
)

// oomScore is what is added to a child's badness: when memory runs out, commands die before PID 1.
const oomScore = "500"

// Spec is a program to start.
type Spec struct {
	Path  string
	Argv  []string
	Env   []string
	Dir   string
	Files [3]int
}

// Process is a direct child. It leads a session of its own, whose id is Pid.
type Process struct {
	Pid    int
	exited chan struct{}
	status syscall.WaitStatus
	ended  time.Time
}

// Exited is closed when the process has been reaped.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Status is how it ended; only valid after Exited.
func (p *Process) Status() syscall.WaitStatus { return p.status }

// Ended is when it was reaped; only valid after Exited.
func (p *Process) Ended() time.Time { return p.ended }

// Table owns every child of this process, including the orphans that fall to PID 1. Nothing else in the program may
// wait for a process.
type Table struct {
	mu       sync.Mutex
	children map[int]*Process
	pursuits []pursuit
	kick     chan os.Signal
}

// NewTable starts the reaper.
func NewTable() *Table {
	t := &Table{children: make(map[int]*Process), kick: make(chan os.Signal, 1)}
	signal.Notify(t.kick, syscall.SIGCHLD)
	go t.reap()
	return t
}

// Start forks and executes. The lock is held across the fork so that a child that exits at once is still found by the
// reaper, and so that a process number is not used again before its last owner is forgotten.
func (t *Table) Start(spec Spec) (*Process, error) {
	attr := &syscall.ProcAttr{
		Dir:   spec.Dir,
		Env:   spec.Env,
		Files: []uintptr{uintptr(spec.Files[0]), uintptr(spec.Files[1]), uintptr(spec.Files[2])},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	p := &Process{exited: make(chan struct{})}
	t.mu.Lock()
	pid, err := syscall.ForkExec(spec.Path, spec.Argv, attr)
	if err == nil {
		p.Pid = pid
		t.children[pid] = p
	}
	t.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case t.kick <- syscall.SIGCHLD:
	default:
	}
	raiseOOMScore(pid)
	return p, nil
}

// reap waits for children for ever. Blocking in the wait is quicker than waiting for SIGCHLD; that is only needed when
// there is no child to wait for, because an orphan from outside (docker exec) may still be handed to us.
func (t *Table) reap() {
	for {
		if err := sys.WaitAny(); err != nil {
			<-t.kick
			continue
		}
		t.collect()
	}
}

// collect reaps everyone who has ended by now.
func (t *Table) collect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		p, ours := t.children[pid]
		if !ours {
			continue
		}
		delete(t.children, pid)
		p.status = status
		p.ended = time.Now()
		close(p.exited)
	}
}

// Leads tells whether pid is a living direct child, that is, whether the session of that number is in use.
func (t *Table) Leads(pid int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.children[pid]
	return ok
}

func raiseOOMScore(pid int) {
	fd, err := sys.Open("/proc/"+itoa(pid)+"/oom_score_adj", syscall.O_WRONLY, 0)
	if err != nil {
		return
	}
	syscall.Write(fd, []byte(oomScore))
	syscall.Close(fd)
}

func itoa(n int) string { return strconv.Itoa(n) }
