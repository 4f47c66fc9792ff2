// Package launch turns a request for a command into a running process, or into the exit code a shell would give for it.
package launch

import (
	"errors"
	"strings"
	"syscall"

	"runner/internal/cgroup"
	"runner/internal/fault"
	"runner/internal/gate"
	"runner/internal/process"
	"runner/internal/quota"
	"runner/internal/wire"
)

// Request is the part of exec and job_start that names the program.
type Request struct {
	Argv  []wire.Text
	Shell *wire.Text
	Cwd   *wire.Text
	Env   wire.Env
}

// Refusal is the outcome of a command that never ran, as a shell would report it.
type Refusal struct {
	Code    int
	Message string
}

// Launcher starts commands.
type Launcher struct {
	Table   *process.Table
	Cgroup  *cgroup.Counters
	Env     []string
	Workdir string
	// Quota is told of everything that runs.
	Quota *quota.Meter
	// Gate is closed while nothing may start.
	Gate *gate.Gate
}

// Command is a checked request.
type Command struct {
	// Name is the command as a person would write it.
	Name string
	argv []string
	env  []string
	dir  string
}

// Check validates a request without starting anything.
func (l *Launcher) Check(r *Request) (*Command, error) {
	if (len(r.Argv) > 0) == (r.Shell != nil) {
		return nil, fault.Invalid("exactly one of argv and shell is needed")
	}
	c := &Command{dir: l.Workdir}
	if r.Shell != nil {
		c.argv = []string{process.Shell, "-c", string(*r.Shell)}
		c.Name = string(*r.Shell)
	} else {
		c.argv = make([]string, len(r.Argv))
		for i, a := range r.Argv {
			c.argv[i] = string(a)
		}
		c.Name = strings.Join(c.argv, " ")
	}
	if r.Cwd != nil {
		c.dir = string(*r.Cwd)
		if !strings.HasPrefix(c.dir, "/") {
			return nil, fault.At("EINVAL", "the working directory is not absolute", c.dir)
		}
	}
	if err := process.CheckDir(c.dir); err != nil {
		return nil, fault.From(err, c.dir)
	}
	var err error
	c.env, err = overlay(l.Env, r.Env)
	return c, err
}

func overlay(base []string, env wire.Env) ([]string, error) {
	if len(env) == 0 {
		return base, nil
	}
	named := make(map[string]bool, len(env))
	for _, v := range env {
		if v.Name == "" || strings.Contains(v.Name, "=") {
			return nil, fault.Invalid("an environment variable's name is empty or holds '='")
		}
		named[v.Name] = true
	}
	out := make([]string, 0, len(base)+len(env))
	for _, pair := range base {
		if name, _, _ := strings.Cut(pair, "="); !named[name] {
			out = append(out, pair)
		}
	}
	for _, v := range env {
		out = append(out, v.Name+"="+v.Value)
	}
	return out, nil
}

// Enter waits until something may be started, or returns false when cancelled comes first. Leave must follow.
func (l *Launcher) Enter(cancelled <-chan struct{}) bool {
	l.Table.Settle(cancelled)
	return l.Gate.Enter(gate.Start, cancelled)
}

// Leave is the other half of Enter.
func (l *Launcher) Leave() { l.Gate.Leave(gate.Start) }

// Start runs a command on three descriptors. Exactly one of the results is not nil.
func (l *Launcher) Start(c *Command, files [3]int) (*process.Process, *Refusal, error) {
	path, err := process.LookPath(c.argv[0], c.env, c.dir)
	if err != nil {
		return l.refuse(c, err)
	}
	before := l.Cgroup.Pressure().PidsHits
	spec := process.Spec{Path: path, Argv: c.argv, Env: c.env, Dir: c.dir, Files: files}
	p, err := l.Table.Start(spec)
	if err == syscall.ENOEXEC {
		// A script without an interpreter line; execvp gives it to the shell.
		spec.Path = process.Shell
		spec.Argv = append([]string{process.Shell, path}, c.argv[1:]...)
		if p, err = l.Table.Start(spec); err == syscall.ENOENT {
			err = syscall.ENOEXEC
		}
	}
	if err == nil {
		return p, nil, nil
	}
	if err == syscall.EAGAIN || err == syscall.ENOMEM {
		return nil, nil, l.exhausted(err, before)
	}
	return l.refuse(c, err)
}

// exhausted explains why a fork was refused.
func (l *Launcher) exhausted(err error, hitsBefore int64) error {
	if l.Cgroup.Pressure().PidsHits > hitsBefore || l.Cgroup.AtPidsLimit() {
		return fault.New(fault.TooManyProcesses, "the container is at its limit of processes")
	}
	return fault.From(err, "")
}

// Exit codes of a command that could not be started, as every shell uses them.
const (
	notFound      = 127
	notExecutable = 126
)

func (l *Launcher) refuse(c *Command, err error) (*process.Process, *Refusal, error) {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return nil, nil, err
	}
	name := c.argv[0]
	if errno != syscall.ENOENT && errno != syscall.ENOTDIR {
		return nil, &Refusal{notExecutable, name + ": " + errno.Error() + "\n"}, nil
	}
	if name == process.Shell {
		return nil, &Refusal{notFound, "/bin/sh: not found: this image has no shell\n"}, nil
	}
	return nil, &Refusal{notFound, name + ": not found\n"}, nil
}
