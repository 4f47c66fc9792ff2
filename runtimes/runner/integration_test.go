package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"runner/internal/mux"
	"runner/internal/wire"
)

// The tests in this file drive the built binary as an ordinary process, the way a backend does.

var binaryPath string

func TestMain(m *testing.M) {
	// RUNNER_BINARY names a binary that is built already, for users without a toolchain.
	if binaryPath = os.Getenv("RUNNER_BINARY"); binaryPath != "" {
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "runner-test")
	if err != nil {
		panic(err)
	}
	os.Chmod(dir, 0o755)
	binaryPath = filepath.Join(dir, "runner")
	if out, err := buildCommand().CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%s%v\n", out, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func buildCommand() *exec.Cmd {
	if raceEnabled {
		return exec.Command("go", "build", "-race", "-o", binaryPath, ".")
	}
	build := exec.Command("go", "build", "-o", binaryPath, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	return build
}

// runner is a running `serve`.
type runner struct {
	*exec.Cmd
	t        *testing.T
	work     string
	socket   string
	abstract string
	exited   chan struct{}
}

func startRunner(t *testing.T, args ...string) *runner {
	t.Helper()
	return startRunnerAs(t, os.Geteuid(), args...)
}

func startRunnerAs(t *testing.T, uid int, args ...string) *runner {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{t: t, work: dir + "/work", socket: dir + "/socket", exited: make(chan struct{})}
	r.abstract = fmt.Sprintf("@runner-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	if err := os.Mkdir(r.work, 0o755); err != nil {
		t.Fatal(err)
	}
	if uid != os.Geteuid() {
		os.Chown(filepath.Dir(dir), uid, uid)
		os.Chown(dir, uid, uid)
		os.Chown(r.work, uid, uid)
	}
	all := append([]string{"serve", "--socket", r.socket, "--abstract", r.abstract, "--workdir", r.work}, args...)
	r.Cmd = exec.Command(binaryPath, all...)
	r.Cmd.Stderr = os.Stderr
	if uid != os.Geteuid() {
		r.Cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.Wait()
		close(r.exited)
	}()
	t.Cleanup(func() {
		r.Process.Kill()
		<-r.exited
		killThoseIn(r.work)
	})
	return r
}

// killThoseIn ends what a runner that is not PID 1 of a container leaves behind: its jobs and detached processes.
func killThoseIn(dir string) {
	for found := true; found; {
		found = false
		// By thread: a process whose first one has ended has no directory of its own any more.
		links, _ := filepath.Glob("/proc/[0-9]*/task/*/cwd")
		for _, link := range links {
			if cwd, err := os.Readlink(link); err != nil || !strings.HasPrefix(cwd, dir) {
				continue
			}
			var pid int
			if fmt.Sscanf(link, "/proc/%d/", &pid); pid != os.Getpid() && syscall.Kill(pid, syscall.SIGKILL) == nil {
				found = true
			}
		}
		if found {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// dial connects and says HELLO.
func (r *runner) dial() *client {
	r.t.Helper()
	c := r.connect()
	c.send(wire.Hello, 0, []byte(`{"protocol":1}`))
	if f := c.next(); f.kind != wire.Hello {
		r.t.Fatalf("instead of HELLO: %d %s", f.kind, f.payload)
	}
	go c.receive()
	return c
}

func (r *runner) connect() *client {
	r.t.Helper()
	var nc net.Conn
	var err error
	for range 200 {
		if nc, err = net.Dial("unix", r.socket); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { nc.Close() })
	return &client{t: r.t, nc: nc, r: bufio.NewReader(nc), calls: make(map[uint32]*call)}
}

// assertGrowth checks how much the runner's resident memory has grown; the race detector's own does not count.
func (r *runner) assertGrowth(before, limit int) {
	r.t.Helper()
	if grown := r.rss() - before; grown > limit && !raceEnabled {
		r.t.Errorf("memory grew by %d KiB", grown)
	}
}

// rss is the runner's resident memory in KiB.
func (r *runner) rss() int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", r.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	var size, resident int
	fmt.Sscan(string(raw), &size, &resident)
	return resident * os.Getpagesize() / 1024
}

type frame struct {
	kind    wire.Kind
	stream  uint32
	payload []byte
}

// client is a small backend.
type client struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader

	wmu   sync.Mutex
	mu    sync.Mutex
	last  uint32
	calls map[uint32]*call
}

// call is one operation.
type call struct {
	c        *client
	id       uint32
	stalled  atomic.Bool // give no credit
	given    atomic.Int64
	mu       sync.Mutex
	out, err []byte
	window   int
	credited chan struct{}
	done     chan frame
}

func (c *client) send(kind wire.Kind, stream uint32, payload []byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.nc.Write(wire.AppendFrame(nil, kind, stream, payload))
}

func (c *client) next() frame {
	scratch := make([]byte, wire.HeaderSize)
	h, err := wire.ReadHeader(c.r, scratch)
	if err != nil {
		return frame{}
	}
	f := frame{h.Kind, h.Stream, make([]byte, h.Length)}
	io.ReadFull(c.r, f.payload)
	return f
}

func (c *client) receive() {
	for {
		f := c.next()
		c.mu.Lock()
		k := c.calls[f.stream]
		if f.kind == 0 || f.kind == wire.Goodbye {
			for _, k := range c.calls {
				k.done <- f
			}
			c.calls = map[uint32]*call{}
			c.mu.Unlock()
			c.nc.Close()
			return
		}
		c.mu.Unlock()
		if k != nil {
			k.take(f)
		}
	}
}

func (k *call) take(f frame) {
	switch f.kind {
	case wire.Data, wire.Stderr:
		k.mu.Lock()
		if f.kind == wire.Data {
			k.out = append(k.out, f.payload...)
		} else {
			k.err = append(k.err, f.payload...)
		}
		k.mu.Unlock()
		if !k.stalled.Load() {
			k.given.Add(int64(len(f.payload)))
			k.credit(len(f.payload))
		}
	case wire.Credit:
		k.mu.Lock()
		k.window += int(binary.BigEndian.Uint32(f.payload))
		k.mu.Unlock()
		select {
		case k.credited <- struct{}{}:
		default:
		}
	case wire.Result, wire.Error:
		k.c.mu.Lock()
		delete(k.c.calls, k.id)
		k.c.mu.Unlock()
		k.done <- f
	}
}

func (k *call) credit(n int) {
	k.c.send(wire.Credit, k.id, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

type m = map[string]any

// open starts an operation.
func (c *client) open(op string, fields m) *call {
	request := []byte(`{"op":` + string(wire.AppendQuoted(nil, op)))
	for name, v := range fields {
		request = append(append(append(request, ',', '"'), name...), '"', ':')
		if s, ok := v.(string); ok {
			request = wire.AppendQuoted(request, s)
			continue
		}
		raw, err := json.Marshal(v)
		if err != nil {
			c.t.Fatal(err)
		}
		request = append(request, raw...)
	}
	c.mu.Lock()
	c.last++
	k := &call{c: c, id: c.last, window: mux.Window, credited: make(chan struct{}, 1), done: make(chan frame, 1)}
	c.calls[k.id] = k
	c.send(wire.Open, k.id, append(request, '}'))
	c.mu.Unlock()
	return k
}

// feed sends data and END.
func (k *call) feed(p []byte) *call {
	k.push(p)
	k.c.send(wire.End, k.id, nil)
	return k
}

func (k *call) push(p []byte) {
	for len(p) > 0 {
		k.mu.Lock()
		n := min(len(p), wire.MaxPayload, k.window)
		k.window -= n
		k.mu.Unlock()
		if n == 0 {
			select {
			case <-k.credited:
				continue
			case f := <-k.done:
				k.done <- f
				return
			case <-time.After(10 * time.Second):
				k.c.t.Fatal("no credit")
			}
		}
		k.c.send(wire.Data, k.id, p[:n])
		p = p[n:]
	}
}

// answer is a finished operation.
type answer struct {
	result   m
	failed   string // the code of an ERROR
	out, err string
}

func (k *call) wait() answer {
	k.c.t.Helper()
	select {
	case f := <-k.done:
		a := answer{out: string(k.out), err: string(k.err)}
		if f.kind == 0 || f.kind == wire.Goodbye {
			a.failed = "gone"
			return a
		}
		if err := json.Unmarshal(f.payload, &a.result); err != nil {
			k.c.t.Fatalf("%s: %v", f.payload, err)
		}
		if f.kind == wire.Error {
			a.failed = a.result["code"].(string)
		}
		return a
	case <-time.After(20 * time.Second):
		k.c.t.Fatal("no answer")
		return answer{}
	}
}

func (c *client) do(op string, fields m) answer {
	c.t.Helper()
	return c.open(op, fields).wait()
}

func (c *client) sh(script string, fields ...m) answer {
	c.t.Helper()
	all := m{"shell": script}
	for _, more := range fields {
		for name, v := range more {
			all[name] = v
		}
	}
	return c.do("exec", all)
}

// want checks fields of a result.
func (a answer) want(t *testing.T, fields m) {
	t.Helper()
	if a.failed != "" {
		t.Errorf("failed: %v", a.result)
		return
	}
	for name, v := range fields {
		got, _ := json.Marshal(a.result[name])
		wanted, _ := json.Marshal(v)
		if string(got) != string(wanted) {
			t.Errorf("%s is %v, want %v (%v)", name, a.result[name], v, a.result)
		}
	}
}

func (a answer) fails(t *testing.T, code string) {
	t.Helper()
	if a.failed != code {
		t.Errorf("failed with %q, want %q (%v)", a.failed, code, a.result)
	}
}

func TestCommands(t *testing.T) {
	c := startRunner(t).dial()
	a := c.sh("echo out; echo err >&2; exit 3")
	a.want(t, m{"exit_code": 3, "cause": "exit"})
	if a.out != "out\n" || a.err != "err\n" {
		t.Errorf("%q %q", a.out, a.err)
	}
	c.sh("kill -SEGV $$").want(t, m{"exit_code": 139, "cause": "signal", "signal": "SIGSEGV"})
	a = c.do("exec", m{"argv": []string{"no such program"}})
	a.want(t, m{"exit_code": 127, "cause": "exit"})
	if a.err != "no such program: not found\n" {
		t.Errorf("%q", a.err)
	}
	c.do("exec", m{"argv": []string{"/etc/passwd"}}).want(t, m{"exit_code": 126})
	c.do("exec", m{"argv": []string{"pwd"}, "cwd": "/none"}).fails(t, "ENOENT")
	c.do("exec", m{"argv": []string{"pwd"}, "cwd": "/etc/passwd"}).fails(t, "ENOTDIR")
	c.do("exec", m{"argv": []string{"pwd"}, "cwd": "etc"}).fails(t, "EINVAL")
	c.do("exec", m{}).fails(t, "EINVAL")
	c.do("exec", m{"argv": []string{"true"}, "shell": "true"}).fails(t, "EINVAL")
	c.do("exec", m{"argv": 5}).fails(t, "EINVAL")
	c.do("exec", m{"argv": []string{"true"}, "env": m{"": "x"}}).fails(t, "EINVAL")
	c.do("nonsense", m{}).fails(t, "ENOSYS")
	if a := c.do("exec", m{"argv": []string{"pwd"}, "cwd": "/usr"}); a.out != "/usr\n" {
		t.Errorf("cwd: %q", a.out)
	}
	if a := c.sh(`echo "$A$HOME"`, m{"env": m{"A": "x y", "HOME": ""}}); a.out != "x y\n" {
		t.Errorf("env: %q", a.out)
	}
	a = c.do("exec", m{"argv": []string{"script"}, "env": m{"PATH": "bin"}})
	a.want(t, m{"exit_code": 127})
	c.do("write", m{"path": "/", "mode": 0o755})
}

func TestScriptsWithoutAnInterpreterLineRunInTheShell(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.open("write", m{"path": r.work + "/script", "mode": 0o755}).feed([]byte("echo $1 $0\n")).wait().want(t, m{"created": true})
	a := c.do("exec", m{"argv": []string{"script", "one"}, "env": m{"PATH": "."}})
	a.want(t, m{"exit_code": 0})
	if !strings.HasPrefix(a.out, "one ") {
		t.Errorf("%q", a.out)
	}
}

func TestBytesThatAreNotText(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	name := r.work + "/a\xff\n:\"é"
	c.open("write", m{"path": name}).feed([]byte("\xfe\n")).wait().want(t, m{"created": true})
	if _, err := os.Stat(name); err != nil {
		t.Fatal(err)
	}
	raw := []byte(`{"op":"exec","argv":["printf","%s|%s","\udcff"],"env":{"X":"\udcfe"}}`)
	k := c.open("ping", m{})
	k.wait()
	c.mu.Lock()
	c.last++
	k = &call{c: c, id: c.last, done: make(chan frame, 1)}
	c.calls[k.id] = k
	c.send(wire.Open, k.id, raw)
	c.mu.Unlock()
	if a := k.wait(); a.out != "\xff|" {
		t.Errorf("%q", a.out)
	}
	list := c.do("list", m{"path": r.work})
	if want := `[["a\udcff\n:\"é","f",2,false]]`; list.out != want {
		t.Errorf("%s, want %s", list.out, want)
	}
	grep := c.do("grep", m{"root": r.work, "pattern": "."})
	if !strings.Contains(grep.out, `:\"é",1,"\udcfe",true,1]`) {
		t.Error(grep.out)
	}
	c.do("stat", m{"path": r.work + "/x\x00y"}).fails(t, "EINVAL")
}

func TestCapturedOutputKeepsHeadAndTail(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	a := c.sh("seq 1 1000", m{"keep": 20})
	a.want(t, m{"stdout": m{"total": 3893, "head": 10}})
	if a.out != "1\n2\n3\n4\n5\n"+"\n999\n1000\n" {
		t.Errorf("%q", a.out)
	}
	spill := r.work + "/new/spill"
	a = c.sh("echo a; echo b >&2; seq 1 100; echo c >&2", m{"keep": 20, "spill": spill})
	a.want(t, m{"spill": spill})
	// The two streams are separate pipes: only the order within each is certain.
	if got, _ := os.ReadFile(spill); len(got) != 2+2+292+2 || !strings.Contains(string(got), "99\n100\n") || !strings.HasPrefix(string(got), "a\n") && !strings.HasPrefix(string(got), "b\n") {
		t.Errorf("%q", got)
	}
	a = c.sh("echo short", m{"spill": r.work + "/none"})
	if _, err := os.Stat(r.work + "/none"); err == nil || a.result["spill"] != nil {
		t.Error("a spill that was not needed")
	}
	if a := c.sh("seq 1 1000", m{"keep": 20, "spill": "/proc/none/x"}); a.result["spill"] != nil || a.result["exit_code"] != 0.0 {
		t.Errorf("%v", a.result)
	}
	if a := c.sh("head -c 1000000 /dev/zero"); len(a.out) != 1<<19 {
		t.Errorf("%d bytes kept", len(a.out))
	}
	if a := c.sh("head -c 500000 /dev/zero; head -c 500000 /dev/zero >&2"); len(a.out) != 500000 || len(a.err) != 500000 {
		t.Errorf("%d and %d bytes kept", len(a.out), len(a.err))
	}
}

func TestStandardInput(t *testing.T) {
	c := startRunner(t).dial()
	if a := c.sh("cat; echo end"); a.out != "end\n" {
		t.Errorf("without stdin: %q", a.out)
	}
	big := strings.Repeat("0123456789", 1<<19)
	if a := c.open("exec", m{"shell": "wc -c", "stdin": true}).feed([]byte(big)).wait(); strings.TrimSpace(a.out) != fmt.Sprint(len(big)) {
		t.Errorf("%q", a.out)
	}
	// A command that closes its input takes the rest without blocking anyone.
	c.open("exec", m{"shell": "exec <&-; sleep 0.2", "stdin": true}).feed([]byte(big)).wait().want(t, m{"exit_code": 0})
	// One that ends before END does not wait for it.
	k := c.open("exec", m{"argv": []string{"true"}, "stdin": true})
	k.wait().want(t, m{"exit_code": 0})
	c.send(wire.End, k.id, nil)
	c.do("ping", m{}).want(t, m{})
}

func TestLiveOutputUnderCredit(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	k := c.open("exec", m{"shell": "head -c 5000000 /dev/zero; echo done >&2", "live": true, "stop": 0})
	a := k.wait()
	a.want(t, m{"exit_code": 0, "stdout": m{"total": 5000000, "head": 5000000}})
	if len(a.out) != 5000000 || a.err != "done\n" {
		t.Errorf("%d bytes, %q", len(a.out), a.err)
	}
	before := r.rss()
	k = c.open("exec", m{"shell": "yes", "live": true, "stop": 0})
	k.stalled.Store(true)
	k.receivedJust(mux.Window)
	r.assertGrowth(before, 6<<10)
	c.send(wire.Cancel, k.id, nil)
	k.wait().want(t, m{"cause": "cancelled"})
}

func TestOutputLimit(t *testing.T) {
	c := startRunner(t).dial()
	a := c.sh("yes", m{"stop": 1000000})
	a.want(t, m{"cause": "output_limit"})
	a = c.sh("trap '' TERM PIPE; yes >&2", m{"live": true, "stop": 100000})
	a.want(t, m{"cause": "output_limit"})
}

func TestBackgroundChildrenDelayNothing(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	a := c.sh("(while :; do echo noise || exit; sleep 0.01; done) & echo hello")
	if !strings.Contains(a.out, "hello\n") {
		t.Errorf("%q", a.out)
	}
	// It goes on living: what it prints is read and dropped.
	pid := strings.TrimSpace(c.sh("(sleep 0.2; yes | head -c 200000; echo alive > f; sleep 60) & echo $!").out)
	appears(t, r.work+"/f")
	if a := c.sh("cat f; kill -0 " + pid); a.out != "alive\n" || a.result["exit_code"] != 0.0 {
		t.Errorf("%q %v", a.out, a.result)
	}
}

// shapes are the ways a command can try to outlive its end. Each writes the numbers of its processes to the file "pids".
var shapes = map[string]string{
	"plain":            `echo $$ >> pids; sleep 60`,
	"ignores TERM":     `trap '' TERM; echo $$ >> pids; while :; do sleep 60; done`,
	"background":       `sleep 60 & echo $! >> pids; echo $$ >> pids; wait`,
	"quiet background": `trap '' TERM; (trap '' TERM; while :; do sleep 1; done) >/dev/null 2>&1 </dev/null & echo $! >> pids; sleep 60`,
	"double fork":      `trap '' TERM; (env -i /bin/sh -c 'trap "" TERM; echo $$ >> pids; while :; do sleep 1; done' >/dev/null 2>&1 &) ; sleep 60`,
	"holds stdout":     `(trap '' TERM; echo $$ >> pids; while :; do echo x; sleep 0.01; done) & sleep 60`,
	"own group":        `set -m; (trap '' TERM; while :; do sleep 1; done) & echo $! >> pids; sleep 60`,
	"spawner":          `trap '' TERM; echo $$ >> pids; while :; do sleep 0.01 & done`,
	"stopped":          `echo $$ >> pids; kill -STOP $$; sleep 60`,
}

func TestNothingOfACommandOutlivesItsTimeout(t *testing.T) {
	r := startRunner(t)
	for name, script := range shapes {
		t.Run(name, func(t *testing.T) {
			dir := r.work + "/" + strings.ReplaceAll(name, " ", "-")
			os.Mkdir(dir, 0o755)
			c := r.dial()
			began := time.Now()
			a := c.sh(script, m{"timeout": 300, "cwd": dir})
			a.want(t, m{"cause": "timeout"})
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			assertGone(t, dir)
		})
	}
}

func assertGone(t *testing.T, dir string) {
	t.Helper()
	raw, err := os.ReadFile(dir + "/pids")
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(raw)) {
		assertDead(t, pid)
	}
}

// assertDead wants a process to have ended, and its parent to take note of that soon.
func assertDead(t *testing.T, pid string) {
	t.Helper()
	if state := stateOf(pid); state != "" && state != "Z" && state != "X" {
		t.Errorf("process %s is still there: %s", pid, state)
		return
	}
	for range 1000 {
		if stateOf(pid) == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %s is a zombie", pid)
}

func TestDetachedProcessesAreLeftAlone(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.sh("setsid sh -c 'echo $$ > detached; sleep 30' & sleep 60", m{"timeout": 300}).want(t, m{"cause": "timeout"})
	raw, _ := os.ReadFile(r.work + "/detached")
	pid := strings.TrimSpace(string(raw))
	if state := stateOf(pid); state == "" || state == "Z" {
		t.Errorf("process %q was killed: %q", pid, state)
	}
	c.do("kill_all", m{}).want(t, m{})
	assertDead(t, pid)
}

func TestConnectionLossKillsCommandsButNotJobs(t *testing.T) {
	r := startRunner(t)
	lost := r.dial()
	lost.open("exec", m{"shell": "echo $$ > pids; sleep 60"})
	lost.do("job_start", m{"shell": "echo job; sleep 60"}).want(t, m{})
	appears(t, r.work+"/pids")
	lost.nc.Close()
	c := r.dial()
	deadline := time.Now().Add(20 * time.Second)
	for c.do("usage", m{}).result["commands"] != 0.0 {
		if time.Now().After(deadline) {
			t.Fatal("the command still runs")
		}
		time.Sleep(20 * time.Millisecond)
	}
	assertGone(t, r.work)
	jobs := c.do("job_list", m{}).result["jobs"].([]any)
	if len(jobs) != 1 || jobs[0].(m)["running"] != true {
		t.Errorf("%v", jobs)
	}
	c.do("job_stop", m{"id": "j1"}).want(t, m{})
}

func TestCancel(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	k := c.open("exec", m{"shell": "echo before; echo > said; sleep 60"})
	appears(t, r.work+"/said")
	c.send(wire.Cancel, k.id, nil)
	a := k.wait()
	a.want(t, m{"cause": "cancelled"})
	if a.out != "before\n" {
		t.Errorf("%q", a.out)
	}
	k = c.open("exec", m{"shell": "head -c 300000 /dev/zero; echo > zeros; sleep 60"})
	appears(t, r.work+"/zeros")
	c.send(wire.Cancel, k.id, nil)
	if a := k.wait(); len(a.out) != 300000 {
		t.Errorf("%d bytes of a cancelled command", len(a.out))
	}
	k = c.open("write", m{"path": "/tmp/never-written-by-this-test"})
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
	c.send(wire.Cancel, k.id, nil)
	c.do("ping", m{}).want(t, m{})
}

func TestJobs(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	a := c.do("job_start", m{"shell": "echo ready; while read x; do echo got $x >&2; done; exit 4"})
	id := a.result["job"].(m)["id"].(string)
	read := func(cursor int, more m) answer {
		fields := m{"id": id, "cursor": cursor, "wait": 5000}
		for k, v := range more {
			fields[k] = v
		}
		return c.do("job_read", fields)
	}
	if a := read(0, nil); a.out != "ready\n" || a.result["cursor"] != 6.0 {
		t.Errorf("%q %v", a.out, a.result)
	}
	c.open("job_write", m{"id": id}).feed([]byte("one\n")).wait().want(t, m{"written": 4})
	if a := read(6, nil); a.out != "got one\n" {
		t.Errorf("%q", a.out)
	}
	if a := read(0, m{"limit": 3}); a.out != "rea" || a.result["cursor"] != 3.0 {
		t.Errorf("%q %v", a.out, a.result)
	}
	waiting := c.open("job_read", m{"id": id, "cursor": 14, "wait": 10000})
	c.open("job_write", m{"id": id, "close": true}).feed([]byte("two")).wait().want(t, m{"written": 3})
	waiting.wait()
	deadline := time.Now().Add(20 * time.Second)
	for {
		job := read(1000, m{"wait": 1000}).result["job"].(m)
		if job["running"] == false {
			if job["exit_code"] != 4.0 || job["cause"] != "exit" {
				t.Errorf("%v", job)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the job does not end")
		}
	}
	c.open("job_write", m{"id": id}).feed([]byte("x")).wait().fails(t, "EPIPE")
	c.do("job_read", m{"id": "j99", "cursor": 0}).fails(t, "no_such_job")
	c.do("job_start", m{"argv": []string{"none such"}}).want(t, m{})
	c.do("job_start", m{"argv": []string{"true"}, "cwd": "/none"}).fails(t, "ENOENT")
}

func TestJobOutputIsBounded(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.do("job_start", m{"shell": "seq 1 100000; sleep 60", "keep": 1000})
	c.do("job_read", m{"id": "j1", "cursor": 588894, "wait": 20_000}).want(t, m{})
	a := c.do("job_read", m{"id": "j1", "cursor": 0, "limit": 100000})
	if len(a.out) != 1000 || !strings.HasSuffix(a.out, "100000\n") || a.result["skipped"] != 587895.0 {
		t.Errorf("%d bytes, %v", len(a.out), a.result)
	}
	// A write to a job that does not read can be cancelled.
	k := c.open("job_write", m{"id": "j1"})
	k.push(make([]byte, 300000))
	time.Sleep(100 * time.Millisecond)
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
	job := c.do("job_stop", m{"id": "j1"}).result["job"].(m)
	if job["running"] != false || job["cause"] != "cancelled" {
		t.Errorf("%v", job)
	}
}

func TestJobTableIsBounded(t *testing.T) {
	c := startRunner(t).dial()
	for range 64 {
		c.do("job_start", m{"shell": "read x"}).want(t, m{})
	}
	c.do("job_start", m{"shell": "read x"}).fails(t, "EAGAIN")
	killed := c.do("kill_all", m{}).result["killed"].(float64)
	if killed != 64 {
		t.Errorf("killed %v", killed)
	}
	for range 20 {
		c.do("job_start", m{"argv": []string{"true"}}).want(t, m{})
	}
	for tries := 0; ; tries++ {
		jobs := c.do("job_list", m{}).result["jobs"].([]any)
		if len(jobs) == 64 {
			break
		}
		if tries > 1000 {
			t.Fatalf("%d jobs are remembered", len(jobs))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestFiles(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	path := r.work + "/dir/a.txt"
	write := func(path, content string, fields m) answer {
		all := m{"path": path}
		for k, v := range fields {
			all[k] = v
		}
		return c.open("write", all).feed([]byte(content)).wait()
	}
	a := write(path, "one\ntwo\n", nil)
	a.want(t, m{"created": true, "size": 8, "path": path})
	version := a.result["version"]
	c.do("read", m{"path": path, "version": true}).want(t, m{"size": 8, "version": version})
	if a := c.do("read", m{"path": path, "offset": 2, "length": 3}); a.out != "e\nt" {
		t.Errorf("%q", a.out)
	}
	text := c.do("read_text", m{"path": path, "offset": 2, "limit": 10, "line_cap": 100, "byte_cap": 100})
	text.want(t, m{"version": version, "lines": 2, "first": 2, "count": 1, "newline": true, "binary": false})
	if text.out != "two" {
		t.Errorf("%q", text.out)
	}
	write(path, "x", m{"expect": ""}).fails(t, "changed")
	write(path, "x", m{"expect": "nonsense"}).fails(t, "changed")
	os.Chmod(path, 0o751)
	write(path, "three", m{"expect": version}).want(t, m{"created": false, "size": 5})
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o751 {
		t.Errorf("mode %v", st.Mode())
	}
	write(path, "four", m{"expect": version}).fails(t, "changed")
	write(r.work+"/none", "x", m{"expect": version}).fails(t, "changed")
	write(r.work+"/sh", "x", m{"mode": 0o700, "expect": ""}).want(t, m{"created": true})
	if st, _ := os.Stat(r.work + "/sh"); st.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", st.Mode())
	}
	os.Symlink("dir/a.txt", r.work+"/link")
	os.Symlink("dir/new", r.work+"/dangling")
	os.Symlink("loop", r.work+"/loop")
	write(r.work+"/link", "through", nil).want(t, m{"created": false, "path": path})
	write(r.work+"/dangling", "made", nil).want(t, m{"created": true, "path": r.work + "/dir/new"})
	write(r.work+"/loop", "x", nil).fails(t, "ELOOP")
	write(r.work+"/dir", "x", nil).fails(t, "EISDIR")
	write(path+"/below", "x", nil).fails(t, "ENOTDIR")
	write("relative", "x", nil).fails(t, "EINVAL")
	syscall.Mkfifo(r.work+"/fifo", 0o600)
	for _, op := range []string{"read", "read_text", "write"} {
		c.open(op, m{"path": r.work + "/fifo", "offset": 1, "limit": 1, "line_cap": 1, "byte_cap": 1}).feed(nil).wait().fails(t, "not_regular")
		c.open(op, m{"path": "/dev/null", "offset": 1, "limit": 1, "line_cap": 1, "byte_cap": 1}).feed(nil).wait().fails(t, "not_regular")
	}
	c.do("read", m{"path": r.work}).fails(t, "EISDIR")
	c.do("read", m{"path": r.work + "/none"}).fails(t, "ENOENT")
	c.do("list", m{"path": path}).fails(t, "ENOTDIR")
	list := c.do("list", m{"path": r.work})
	want := `[["dangling","f",4,true],["dir","d",`
	if !strings.HasPrefix(list.out, want) || !strings.Contains(list.out, `["fifo","o",0,false]`) || !strings.Contains(list.out, `["loop","o",4,true]`) {
		t.Error(list.out)
	}
	c.do("mkdir", m{"path": r.work + "/p/q"}).want(t, m{})
	c.do("mkdir", m{"path": path}).fails(t, "EEXIST")
	c.do("realpath", m{"path": r.work + "/link"}).want(t, m{"path": path})
	c.do("remove", m{"path": r.work + "/link"}).want(t, m{})
	c.do("remove", m{"path": r.work + "/dir/.."}).fails(t, "refused")
	c.do("remove", m{"path": r.work + "/dir"}).want(t, m{})
	c.do("stat", m{"path": path}).fails(t, "ENOENT")
	binary := write(r.work+"/bin", "a\x00"+strings.Repeat("b", 1000), nil)
	a = c.do("read_text", m{"path": r.work + "/bin", "offset": 1, "limit": 1, "line_cap": 1, "byte_cap": 1})
	a.want(t, m{"binary": true, "version": binary.result["version"], "size": 1002})
	if len(a.out) != 256 {
		t.Errorf("%d bytes", len(a.out))
	}
}

func TestBrokenOffUploadLeavesTheOldFile(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	path := r.work + "/f"
	c.open("write", m{"path": path}).feed([]byte("old")).wait().want(t, m{})
	k := c.open("write", m{"path": path})
	k.push(make([]byte, 500000))
	time.Sleep(50 * time.Millisecond)
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
	lost := r.dial()
	lost.open("write", m{"path": path}).push(make([]byte, 500000))
	time.Sleep(50 * time.Millisecond)
	lost.nc.Close()
	time.Sleep(100 * time.Millisecond)
	if got, _ := os.ReadFile(path); string(got) != "old" {
		t.Errorf("%d bytes", len(got))
	}
	if names, _ := os.ReadDir(r.work); len(names) != 1 {
		t.Errorf("left: %v", names)
	}
}

func TestAnUploadThatBreaksOffLeavesNothingHoweverItDoes(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	call := c.open("write", m{"path": r.work + "/f"})
	call.push(make([]byte, 3*wire.MaxPayload))
	// What was pushed before it is taken when this is answered.
	c.do("stat", m{"path": r.work}).want(t, m{})
	entries, err := os.ReadDir(r.work)
	if err != nil || len(entries) != 0 {
		t.Errorf("while it is under way there is %v (%v): a container that is killed now leaves it", entries, err)
	}
	call.feed(nil).wait().want(t, m{"created": true})
	if entries, _ = os.ReadDir(r.work); len(entries) != 1 {
		t.Errorf("afterwards there is %v", entries)
	}
}

func TestWritesOfOnePathAreOrderedByArrival(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	os.Symlink("f", r.work+"/alias")
	for range 20 {
		first := c.open("write", m{"path": r.work + "/f"})
		second := c.open("write", m{"path": r.work + "/alias"})
		third := c.open("remove", m{"path": r.work + "/f"})
		fourth := c.open("write", m{"path": r.work + "/./f"})
		fourth.feed([]byte("fourth"))
		second.feed([]byte("second"))
		first.feed([]byte("first"))
		for _, k := range []*call{first, second, third, fourth} {
			k.wait().want(t, m{})
		}
		if got, _ := os.ReadFile(r.work + "/f"); string(got) != "fourth" {
			t.Fatalf("%q", got)
		}
	}
}

func TestUnwritableFiles(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("needs a user that permissions apply to")
	}
	r := startRunner(t)
	c := r.dial()
	os.WriteFile(r.work+"/f", []byte("x"), 0o444)
	c.open("write", m{"path": r.work + "/f"}).feed(nil).wait().fails(t, "EACCES")
	os.Mkdir(r.work+"/d", 0o755)
	os.WriteFile(r.work+"/d/f", []byte("x"), 0o644)
	os.Chmod(r.work+"/d", 0o555)
	c.open("write", m{"path": r.work + "/d/f"}).feed([]byte("yes")).wait().want(t, m{"created": false})
	c.open("write", m{"path": r.work + "/d/g"}).feed(nil).wait().fails(t, "EACCES")
	if got, _ := os.ReadFile(r.work + "/d/f"); string(got) != "yes" {
		t.Errorf("%q", got)
	}
	os.Chmod(r.work+"/d", 0o755)
}

func TestBigFilesPassThrough(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	path := r.work + "/big"
	line := strings.Repeat("x", 99) + "\n"
	big := strings.Repeat(line, 200000)
	a := c.open("write", m{"path": path}).feed([]byte(big)).wait()
	a.want(t, m{"size": len(big)})
	if a := c.do("read", m{"path": path, "version": true}); a.out != big {
		t.Error("not the same")
	} else if a.result["version"] != a.result["version"] {
		t.Error(a.result)
	}
	before := r.rss()
	text := c.do("read_text", m{"path": path, "offset": 150000, "limit": 3, "line_cap": 5, "byte_cap": 1000})
	text.want(t, m{"lines": 200000, "count": 3, "version": a.result["version"]})
	if text.out != "xxxxx\nxxxxx\nxxxxx" {
		t.Errorf("%q", text.out)
	}
	r.assertGrowth(before, 3<<10)
}

func TestReaderThatStallsCostsNoMemory(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	f, _ := os.Create(r.work + "/big")
	f.Truncate(200 << 20)
	f.Close()
	before := r.rss()
	k := c.open("read", m{"path": r.work + "/big"})
	k.stalled.Store(true)
	k.receivedJust(mux.Window)
	r.assertGrowth(before, 4<<10)
	c.send(wire.Cancel, k.id, nil)
	k.wait().fails(t, "cancelled")
}

func TestPeerThatNeverReadsCostsNoMemory(t *testing.T) {
	r := startRunner(t)
	f, _ := os.Create(r.work + "/big")
	f.Truncate(200 << 20)
	f.Close()
	c := r.connect()
	c.send(wire.Hello, 0, []byte(`{"protocol":1}`))
	for id := uint32(1); id <= 200; id++ {
		c.send(wire.Open, id, []byte(`{"op":"read","path":"`+r.work+`/big"}`))
	}
	time.Sleep(500 * time.Millisecond)
	if rss := r.rss(); rss > 80<<10 && !raceEnabled {
		t.Errorf("%d KiB resident", rss)
	}
	other := r.dial()
	other.do("ping", m{}).want(t, m{})
	c.nc.Close()
	deadline := time.Now().Add(20 * time.Second)
	for other.do("usage", m{}).result["runner_rss"].(float64) > 60<<20 && !raceEnabled {
		if time.Now().After(deadline) {
			t.Fatal("memory is not given back")
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func TestSearch(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	put := func(name, content string) {
		os.MkdirAll(filepath.Dir(r.work+"/"+name), 0o755)
		if err := os.WriteFile(r.work+"/"+name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("a.py", "import os\nneedle = 1\r\nend")
	put("a-b.py", "x")
	put("src/b.py", "one\ntwo\nneedle\nthree\nfour\nNeedle\n")
	put("src/deep/c.py", "nothing\n")
	put("src/c.js", "needle\n")
	put("node_modules/d.py", "needle\n")
	put("keep/gen.py", "needle\n")
	put("keep/ignored.log", "needle\n")
	put(".hidden/e.py", "needle\n")
	put(".git/f.py", "needle\n")
	put("bin.py", "needle\x00")
	put(".gitignore", "node_modules/\n*.log\n")
	put("keep/.gitignore", "!ignored.log\ngen.py\n")
	os.Symlink("src", r.work+"/srclink")
	os.Symlink("a.py", r.work+"/link.py")
	paths := func(a answer) string {
		t.Helper()
		a.want(t, m{})
		var rows [][]any
		if err := json.Unmarshal([]byte(a.out), &rows); err != nil {
			t.Fatalf("%s: %v", a.out, err)
		}
		var names []string
		for _, row := range rows {
			names = append(names, strings.TrimPrefix(row[0].(string), r.work+"/"))
		}
		return strings.Join(names, " ")
	}
	glob := func(pattern string, fields m) string {
		t.Helper()
		all := m{"root": r.work, "pattern": pattern, "sort": "path"}
		for k, v := range fields {
			all[k] = v
		}
		return paths(c.do("glob", all))
	}
	for _, check := range []struct {
		pattern, want string
		fields        m
	}{
		{"*.py", ".hidden/e.py a-b.py a.py bin.py link.py src/b.py src/deep/c.py", nil},
		{"*.py", "a-b.py a.py bin.py link.py src/b.py src/deep/c.py", m{"hidden": false}},
		{"src/*.{py,js}", "src/b.py src/c.js", nil},
		{"src/**/*.py", "src/b.py src/deep/c.py", nil},
		{"*.py", ".hidden/e.py a-b.py a.py bin.py keep/gen.py link.py node_modules/d.py src/b.py src/deep/c.py", m{"ignore": false}},
		{"*.log", "keep/ignored.log", nil},
		{"s*", "src srclink", m{"dirs": true}},
		{"*.py", ".hidden/e.py a-b.py", m{"limit": 2}},
		{"none", "", nil},
	} {
		if got := glob(check.pattern, check.fields); got != check.want {
			t.Errorf("glob %q %v: %s", check.pattern, check.fields, got)
		}
	}
	c.do("glob", m{"root": r.work, "pattern": "*.py", "limit": 2}).want(t, m{"total": 7, "truncated": true})
	c.do("glob", m{"root": r.work + "/none", "pattern": "*"}).fails(t, "ENOENT")
	c.do("glob", m{"root": r.work, "pattern": ""}).fails(t, "bad_pattern")
	os.Chtimes(r.work+"/src/b.py", time.Now(), time.Now().Add(time.Hour))
	if got := glob("*.py", m{"sort": "mtime", "limit": 1}); got != "src/b.py" {
		t.Errorf("newest: %s", got)
	}

	grep := func(pattern string, fields m) answer {
		t.Helper()
		all := m{"root": r.work, "pattern": pattern}
		for k, v := range fields {
			all[k] = v
		}
		return c.do("grep", all)
	}
	if got := paths(grep("needle", m{"mode": "files"})); got != ".hidden/e.py a.py keep/ignored.log src/b.py src/c.js" {
		t.Errorf("%s", got)
	}
	if a := grep("needle", m{"mode": "count", "ignore_case": true, "glob": "src/*.py"}); a.out != `[["`+r.work+`/src/b.py",2]]` {
		t.Errorf("%s", a.out)
	}
	a := grep("needle", m{"glob": "*.py", "hidden": false, "before": 1, "after": 1})
	a.want(t, m{"rows": 6, "files": 2, "truncated": false})
	b := r.work + "/src/b.py"
	want := `[["` + r.work + `/a.py",1,"import os",false,9],["` + r.work + `/a.py",2,"needle = 1",true,10],["` + r.work + `/a.py",3,"end",false,3],` +
		`["` + b + `",2,"two",false,3],["` + b + `",3,"needle",true,6],["` + b + `",4,"three",false,5]]`
	if a.out != want {
		t.Errorf("%s\nwant %s", a.out, want)
	}
	grep("needle", m{"limit": 2}).want(t, m{"rows": 2, "truncated": true})
	grep("needle", m{"limit": 5}).want(t, m{"rows": 5, "truncated": false})
	grep("1$", nil).want(t, m{"rows": 1})
	grep("os\nneedle", nil).want(t, m{"rows": 0})
	grep("a.c(", m{"literal": true}).want(t, m{"rows": 0})
	grep("a.c(", nil).fails(t, "bad_pattern")
	if a := c.do("grep", m{"root": r.work + "/bin.py", "pattern": "needle", "line_cap": 4}); a.out != `[["`+r.work+`/bin.py",1,"need",true,7]]` {
		t.Errorf("%s", a.out)
	}
	c.do("grep", m{"root": "/dev/null", "pattern": "x"}).fails(t, "not_regular")
}

func TestGrepOfBigFiles(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	var b strings.Builder
	for i := range 100000 {
		fmt.Fprintf(&b, "line %d of many\n", i+1)
	}
	b.WriteString(strings.Repeat("z", 9<<20) + "needle\nafter\nneedle " + strings.Repeat("y", 600<<10) + "\n")
	os.WriteFile(r.work+"/big", []byte(b.String()), 0o644)
	a := c.do("grep", m{"root": r.work, "pattern": "line (70000|100000) ", "before": 1, "after": 2})
	a.want(t, m{"rows": 8})
	for _, row := range []string{`,69999,"line 69999 of many",false,`, `,70002,"line 70002 of many",false,`, `,100001,"zzz`} {
		if !strings.Contains(a.out, row) {
			t.Errorf("no %s", row)
		}
	}
	a = c.do("grep", m{"root": r.work, "pattern": "^after|needle", "line_cap": 10})
	if want := `[["` + r.work + `/big",100002,"after",true,5],["` + r.work + `/big",100003,"needle yyy",true,614407]]`; a.out != want {
		t.Errorf("%.300s", a.out)
	}
	a = c.do("grep", m{"root": r.work, "pattern": "", "mode": "count"})
	if !strings.HasSuffix(a.out, ",100003]]") {
		t.Error(a.out)
	}
}

func TestUsage(t *testing.T) {
	c := startRunner(t).dial()
	c.do("ping", m{})
	time.Sleep(60 * time.Millisecond)
	a := c.do("usage", m{})
	a.want(t, m{"jobs": 0, "commands": 0})
	if idle := a.result["idle"].(float64); idle < 50 || idle > 60_000 {
		t.Errorf("idle for %v ms", idle)
	}
	if a.result["runner_rss"].(float64) > 12<<20 && !raceEnabled {
		t.Errorf("%v", a.result)
	}
	if a.result["disk"].(m)["total"].(float64) <= 0 {
		t.Errorf("%v", a.result)
	}
}

func TestHostileFramesDisconnect(t *testing.T) {
	r := startRunner(t)
	hello := slices.Clip(wire.AppendFrame(nil, wire.Hello, 0, []byte(`{"protocol":1}`)))
	open := wire.AppendFrame(hello, wire.Open, 5, []byte(`{"op":"exec","shell":"sleep 60","stdin":true}`))
	open = slices.Clip(open)
	big := make([]byte, wire.MaxPayload)
	flood := open
	for range 6 {
		flood = wire.AppendFrame(flood, wire.Data, 5, big)
	}
	for name, raw := range map[string][]byte{
		"no HELLO":              wire.AppendFrame(nil, wire.Open, 1, []byte(`{"op":"ping"}`)),
		"HELLO that is no JSON": wire.AppendFrame(nil, wire.Hello, 0, []byte("x")),
		"too long":              wire.AppendHeader(hello, wire.Data, 5, wire.MaxPayload+1),
		"unknown kind":          wire.AppendFrame(hello, 77, 1, nil),
		"stream 0":              wire.AppendFrame(hello, wire.Open, 0, []byte(`{}`)),
		"number again":          wire.AppendFrame(open, wire.Open, 5, []byte(`{}`)),
		"number below":          wire.AppendFrame(open, wire.Open, 4, []byte(`{}`)),
		"never opened":          wire.AppendFrame(open, wire.Data, 6, []byte(`x`)),
		"data beyond credit":    flood,
		"data after END":        wire.AppendFrame(wire.AppendFrame(open, wire.End, 5, nil), wire.Data, 5, []byte("x")),
		"credit overflow":       wire.AppendFrame(open, wire.Credit, 5, []byte{0x7f, 0xff, 0xff, 0xff}),
		"short credit":          wire.AppendFrame(open, wire.Credit, 5, []byte{1}),
		"runner's own kinds":    wire.AppendFrame(open, wire.Result, 5, []byte(`{}`)),
	} {
		t.Run(name, func(t *testing.T) {
			c := r.connect()
			c.nc.SetDeadline(time.Now().Add(20 * time.Second))
			go c.nc.Write(raw)
			for {
				f := c.next()
				if f.kind == wire.Goodbye || f.kind == 0 {
					break
				}
			}
			if rest, err := io.ReadAll(c.r); err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("not closed: %d bytes, %v", len(rest), err)
			}
		})
	}
	c := r.connect()
	c.send(wire.Hello, 0, []byte(`{"protocol":2}`))
	if f := c.next(); f.kind != wire.Goodbye || string(f.payload) != `{"reason":"protocol","protocol":1}` {
		t.Errorf("%d %s", f.kind, f.payload)
	}
	r.dial().do("ping", m{}).want(t, m{})
}

func TestManyAtOnce(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	var calls []*call
	for i := range 100 {
		calls = append(calls, c.open("exec", m{"shell": fmt.Sprintf("echo %d", i)}))
	}
	for i, k := range calls {
		if a := k.wait(); a.out != fmt.Sprintf("%d\n", i) {
			t.Errorf("%d: %q %v", i, a.out, a.result)
		}
	}
}

func TestChildrenAreClean(t *testing.T) {
	c := startRunner(t).dial()
	a := c.sh("ls /proc/self/fd | wc -l; grep SigBlk /proc/self/status; grep SigIgn /proc/self/status; cat /proc/self/oom_score_adj; umask")
	lines := strings.Fields(a.out)
	if len(lines) > 4 {
		// 32 to 34 are the C library's.
		lines[4] = strings.NewReplacer("00000002800", "00000000000", "00000003800", "00000000000").Replace(lines[4])
	}
	// 0, 1, 2 and the directory that ls reads.
	want := []string{"4", "SigBlk:", "0000000000000000", "SigIgn:", "0000000000000000", "500", "0022"}
	if strings.Join(lines, " ") != strings.Join(want, " ") {
		t.Errorf("%q", lines)
	}
}

func TestSignalsDoNotReachTheRunner(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.do("ping", m{}).want(t, m{})
	for s := syscall.Signal(1); s <= 64; s++ {
		switch s {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU:
			continue
		}
		r.Process.Signal(s)
	}
	c.sh("exit 5").want(t, m{"exit_code": 5})
}

func TestIdleAndLifetime(t *testing.T) {
	for _, flag := range []string{"--idle", "--lifetime"} {
		t.Run(flag, func(t *testing.T) {
			r := startRunner(t, flag, "1")
			c := r.connect()
			c.send(wire.Hello, 0, []byte(`{"protocol":1}`))
			c.next()
			if flag == "--lifetime" {
				c.send(wire.Open, 1, []byte(`{"op":"exec","shell":"echo $$ > pids; sleep 60"}`))
			}
			var f frame
			for f.kind != wire.Goodbye {
				if f = c.next(); f.kind == 0 {
					t.Fatal("no GOODBYE")
				}
			}
			if want := `{"reason":"` + flag[2:] + `"}`; string(f.payload) != want {
				t.Errorf("%s", f.payload)
			}
			<-r.exited
			if code := r.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if flag == "--lifetime" {
				assertGone(t, r.work)
			}
		})
	}
}

func TestARunningCommandIsUse(t *testing.T) {
	r := startRunner(t, "--idle", "1")
	c := r.dial()
	c.sh("sleep 2").want(t, m{"exit_code": 0})
	c.do("ping", m{}).want(t, m{})
}

func TestLookingIsNoUse(t *testing.T) {
	r := startRunner(t, "--idle", "1")
	c := r.dial()
	began := time.Now()
	for time.Since(began) < 10*time.Second {
		select {
		case <-r.exited:
			return
		case <-time.After(50 * time.Millisecond):
			c.open("usage", m{})
			c.open("ping", m{})
		}
	}
	t.Error("it was kept alive by being looked at")
}

func TestRetire(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	job := c.do("job_start", m{"shell": "sleep 60"})
	c.do("retire", m{}).want(t, m{"retired": false, "idle": float64(0)})
	c.do("job_stop", m{"id": job.result["job"].(map[string]any)["id"]})
	command := c.open("exec", m{"shell": "sleep 60"})
	c.do("retire", m{"idle": -1}).want(t, m{"retired": false})
	c.send(wire.Cancel, command.id, nil)
	command.wait()
	c.do("retire", m{"idle": 60_000}).want(t, m{"retired": false})
	c.do("retire", m{"idle": "soon"}).fails(t, "EINVAL")
	time.Sleep(50 * time.Millisecond)
	c.do("retire", m{"idle": 20}).want(t, m{"retired": true})
	select {
	case <-r.exited:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
	if code := r.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestWhoComesWhileItEndsIsNotGreeted holds the end up by not hanging up: a newcomer would get no GOODBYE any more.
func TestWhoComesWhileItEndsIsNotGreeted(t *testing.T) {
	r := startRunner(t)
	slow := r.greeted()
	slow.send(wire.Open, 1, []byte(`{"op":"retire"}`))
	for f := slow.next(); f.kind != wire.Goodbye; f = slow.next() {
		if f.kind == 0 {
			t.Fatal("no GOODBYE")
		}
	}
	c := r.connect()
	c.send(wire.Hello, 0, []byte(`{"protocol":1}`))
	if f := c.next(); f.kind != 0 {
		t.Errorf("%+v", f)
	}
	<-r.exited
}

// TestWhatWasAnsweredIsNotUnderWay asks on another connection for the end, as soon as there is an answer.
func TestWhatWasAnsweredIsNotUnderWay(t *testing.T) {
	for name, use := range map[string]func(*client){
		"command": func(c *client) { c.do("exec", m{"shell": "true"}) },
		"change":  func(c *client) { c.open("remove", m{"path": "/tmp/never-written-by-this-test"}).wait() },
		"job": func(c *client) {
			job := c.do("job_start", m{"shell": "sleep 60"})
			c.do("job_stop", m{"id": job.result["job"].(map[string]any)["id"]})
		},
	} {
		for round := range 20 {
			t.Run(fmt.Sprint(name, " ", round), func(t *testing.T) {
				t.Parallel()
				r := startRunner(t)
				user, reaper := r.dial(), r.dial()
				use(user)
				reaper.do("retire", m{}).want(t, m{"retired": true})
			})
		}
	}
}

// TestWhatIsCutOffByAGoodbyeWasNeverBegun races the end against operations: each has a result and did its work, or
// has none and did nothing.
func TestWhatIsCutOffByAGoodbyeWasNeverBegun(t *testing.T) {
	for round := range 40 {
		t.Run(fmt.Sprint("retired ", round), func(t *testing.T) {
			t.Parallel()
			r := startRunner(t)
			user, reaper := r.greeted(), r.dial()
			go func() {
				for {
					time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
					reaper.open("retire", m{})
					select {
					case <-r.exited:
						return
					default:
					}
				}
			}()
			raceTheEnd(t, r, user, "retired", func() {
				if rand.IntN(3) == 0 {
					time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
				}
			})
		})
	}
	for round := range 8 {
		t.Run(fmt.Sprint("idle ", round), func(t *testing.T) {
			t.Parallel()
			r := startRunner(t, "--idle", "0.2")
			raceTheEnd(t, r, r.greeted(), "idle", func() {
				time.Sleep(197*time.Millisecond + time.Duration(rand.IntN(6000))*time.Microsecond)
			})
		})
	}
}

// greeted is a connection whose frames the test reads itself.
func (r *runner) greeted() *client {
	c := r.connect()
	c.send(wire.Hello, 0, []byte(`{"protocol":1}`))
	if f := c.next(); f.kind != wire.Hello {
		r.t.Fatalf("instead of HELLO: %+v", f)
	}
	return c
}

// raceTheEnd runs commands, up to four at a time, until the runner ends, and compares what was answered with what was
// done.
func raceTheEnd(t *testing.T, r *runner, user *client, reason string, pause func()) {
	t.Helper()
	id, answered := uint32(0), 0
	for ended := false; !ended; {
		burst := 1 + rand.IntN(4)
		for range burst {
			id++
			user.send(wire.Open, id, []byte(`{"op":"exec","shell":"echo . >> marks"}`))
		}
		for range burst {
			f := user.next()
			if f.kind == wire.Result {
				answered++
				continue
			}
			if string(f.payload) != `{"reason":"`+reason+`"}` {
				t.Errorf("instead of a GOODBYE: %+v", f)
			}
			ended = true
			break
		}
		if !ended {
			pause()
		}
	}
	user.nc.Close()
	<-r.exited
	marks, _ := os.ReadFile(filepath.Join(r.work, "marks"))
	if done := strings.Count(string(marks), "."); done != answered {
		t.Errorf("%d results, %d commands did their work", answered, done)
	}
}

func TestConnect(t *testing.T) {
	r := startRunner(t)
	r.dial()
	relay := exec.Command(binaryPath, "connect", "--abstract", r.abstract)
	in, _ := relay.StdinPipe()
	out, _ := relay.StdoutPipe()
	if err := relay.Start(); err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, r: bufio.NewReader(out), calls: map[uint32]*call{}}
	in.Write(wire.AppendFrame(nil, wire.Hello, 0, []byte(`{"protocol":1}`)))
	in.Write(wire.AppendFrame(nil, wire.Open, 1, []byte(`{"op":"exec","shell":"echo through"}`)))
	if f := c.next(); f.kind != wire.Hello {
		t.Errorf("%+v", f)
	}
	if f := c.next(); string(f.payload) != "through\n" {
		t.Errorf("%s", f.payload)
	}
	in.Close()
	ended := make(chan error, 1)
	go func() { ended <- relay.Wait() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the relay outlives its input")
		relay.Process.Kill()
	}

	none := exec.Command(binaryPath, "connect", "--abstract", r.abstract+"-none")
	began := time.Now()
	if err := none.Run(); err == nil || none.ProcessState.ExitCode() != 1 {
		t.Errorf("without a runner: %v", err)
	}
	if took := time.Since(began); took < time.Second || took > 30*time.Second {
		t.Errorf("gave up after %v", took)
	}
}

func TestARelayPassesTheGoodbyeOnBeforeItDies(t *testing.T) {
	for range 8 {
		r := startRunner(t)
		reaper := r.dial()
		relay := exec.Command(binaryPath, "connect", "--abstract", r.abstract)
		in, _ := relay.StdinPipe()
		out, _ := relay.StdoutPipe()
		if err := relay.Start(); err != nil {
			t.Fatal(err)
		}
		c := &client{t: t, r: bufio.NewReader(out)}
		in.Write(wire.AppendFrame(nil, wire.Hello, 0, []byte(`{"protocol":1}`)))
		c.next()
		reaper.do("retire", m{}).want(t, m{"retired": true})
		// It is sending while it is told.
		in.Write(wire.AppendFrame(nil, wire.Open, 1, []byte(`{"op":"exec","shell":"true"}`)))
		if f := c.next(); f.kind != wire.Goodbye {
			t.Errorf("%+v", f)
		}
		in.Close()
		relay.Wait()
	}
}

func TestSocketsAreEachOptional(t *testing.T) {
	dir := t.TempDir()
	abstract := fmt.Sprintf("@runner-test-optional-%d", os.Getpid())
	cmd := exec.Command(binaryPath, "serve", "--socket", dir+"/none/socket", "--abstract", abstract, "--workdir", dir+"/none", "--idle", "1")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Run(); err != nil {
		t.Errorf("%v: %s", err, log.String())
	}
	if strings.Count(log.String(), "\n") != 2 {
		t.Errorf("%q", log.String())
	}
	cmd = exec.Command(binaryPath, "serve", "--socket", dir+"/none/socket", "--abstract", "")
	if cmd.Run(); cmd.ProcessState.ExitCode() != 1 {
		t.Error("without any socket it did not fail")
	}
}
