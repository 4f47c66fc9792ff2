package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"runner/internal/wire"
)

// headless is the name under which this binary is a program whose first thread ends and whose second writes on.
const headless = "RUNNER_TEST_HEADLESS"

func init() {
	path := os.Getenv(headless)
	if path == "" {
		return
	}
	runtime.LockOSThread()
	signal.Ignore(syscall.SIGTERM)
	started := make(chan struct{})
	go func() {
		f, _ := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		for first := true; ; first = false {
			f.WriteString(".")
			if first {
				close(started)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	<-started
	syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
}

// frozen waits until a freeze says that it holds.
func (k *call) frozen(t *testing.T) {
	t.Helper()
	for range 2000 {
		k.mu.Lock()
		said := len(k.out)
		k.mu.Unlock()
		if said == 1 {
			return
		}
		select {
		case f := <-k.done:
			t.Fatalf("instead of freezing: %s", f.payload)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatal("not frozen")
}

func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Size()
}

// appears waits until a file is there and holds something.
func appears(t *testing.T, path string) {
	t.Helper()
	for range 1000 {
		if st, err := os.Stat(path); err == nil && st.Size() > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s never came", path)
}

func stateOf(pid string) string {
	raw, _ := os.ReadFile("/proc/" + pid + "/stat")
	_, rest, _ := strings.Cut(string(raw), ") ")
	return rest[:min(1, len(rest))]
}

// writers are programs that write to the file they are given for ever.
var writers = map[string]func(c *client, file string){
	"a command": func(c *client, file string) {
		c.open("exec", m{"shell": "while :; do echo x; sleep 0.001; done > " + file})
	},
	"a job": func(c *client, file string) {
		c.do("job_start", m{"shell": "while :; do echo x; /bin/true; done > " + file})
	},
	"a process in a session of its own": func(c *client, file string) {
		c.sh("setsid sh -c 'while :; do echo x; sleep 0.001; done > " + file + "' >/dev/null 2>&1 &")
	},
	"a process whose first thread has ended": func(c *client, file string) {
		c.do("job_start", m{"argv": []string{os.Args[0]}, "env": m{headless: file}})
	},
}

func TestNothingMovesWhileFrozen(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	var files []string
	for name, write := range writers {
		file := r.work + "/" + strings.ReplaceAll(name, " ", "-")
		write(c, file)
		files = append(files, file)
	}
	for _, file := range files {
		appears(t, file)
	}
	for range 5 {
		k := c.open("freeze", m{})
		k.frozen(t)
		before := make([]int64, len(files))
		for i, file := range files {
			before[i] = sizeOf(t, file)
		}
		time.Sleep(100 * time.Millisecond)
		for i, file := range files {
			if sizeOf(t, file) != before[i] {
				t.Errorf("%s grows", file)
			}
		}
		a := k.feed(nil).wait()
		if a.result["frozen"].(float64) < float64(len(files)) {
			t.Errorf("%v", a.result)
		}
		for i, file := range files {
			for tries := 0; sizeOf(t, file) == before[i]; tries++ {
				if tries > 1000 {
					t.Fatalf("%s does not go on", file)
				}
				time.Sleep(5 * time.Millisecond)
			}
		}
	}
}

func TestFreezingBeatsSpawners(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	for range 3 {
		c.do("job_start", m{"shell": "while :; do /bin/true; done"})
		c.do("job_start", m{"shell": "while :; do (sleep 0.001 & ) ; done"})
	}
	// Go starts programs by vfork.
	c.do("job_start", m{"shell": fmt.Sprintf("while :; do %s connect --abstract @none-%d & sleep 0.05; done", binaryPath, os.Getpid())})
	for range 10 {
		k := c.open("freeze", m{})
		k.frozen(t)
		k.feed(nil).wait().want(t, m{})
	}
	c.do("kill_all", m{}).want(t, m{})
}

func TestWhatWasStoppedBeforeStaysStopped(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.do("job_start", m{"shell": "echo $$ > stopped; kill -STOP $$; sleep 60"})
	c.do("job_start", m{"shell": "echo $$ > running; exec sleep 60"})
	pids := map[string]string{}
	for _, name := range []string{"stopped", "running"} {
		appears(t, r.work+"/"+name)
		raw, _ := os.ReadFile(r.work + "/" + name)
		pids[name] = strings.TrimSpace(string(raw))
	}
	for stateOf(pids["stopped"]) != "T" {
		time.Sleep(time.Millisecond)
	}
	k := c.open("freeze", m{})
	k.frozen(t)
	if got := stateOf(pids["running"]); got != "T" {
		t.Errorf("frozen it is %q", got)
	}
	k.feed(nil).wait().want(t, m{"frozen": 1})
	if stateOf(pids["stopped"]) != "T" || stateOf(pids["running"]) == "T" {
		t.Errorf("afterwards they are %s and %s", stateOf(pids["stopped"]), stateOf(pids["running"]))
	}
}

func TestChangesAndStartsWaitUntilThawed(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	os.WriteFile(r.work+"/old", []byte("old"), 0o644)
	upload := c.open("write", m{"path": r.work + "/upload"})
	upload.push([]byte("half"))
	k := c.open("freeze", m{})
	k.frozen(t)
	names := func() string {
		entries, _ := os.ReadDir(r.work)
		var all []string
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".sandbox-") {
				all = append(all, e.Name())
			}
		}
		return strings.Join(all, " ")
	}
	waiting := []*call{
		upload.feed([]byte(" and half")),
		c.open("write", m{"path": r.work + "/new"}).feed([]byte("new")),
		c.open("remove", m{"path": r.work + "/old"}),
		c.open("mkdir", m{"path": r.work + "/dir"}),
		c.open("exec", m{"shell": "echo > command"}),
		c.open("job_start", m{"shell": "echo > job"}),
	}
	cancelled := c.open("exec", m{"shell": "echo > never"})
	if a := c.do("read", m{"path": r.work + "/old"}); a.out != "old" {
		t.Errorf("%q %v", a.out, a.result)
	}
	c.do("retire", m{}).want(t, m{"retired": false})
	c.do("freeze", m{}).fails(t, "EBUSY")
	c.send(wire.Cancel, cancelled.id, nil)
	cancelled.wait().fails(t, "cancelled")
	time.Sleep(100 * time.Millisecond)
	if got := names(); got != "old" {
		t.Errorf("while frozen: %s", got)
	}
	c.send(wire.Cancel, k.id, nil)
	k.wait().want(t, m{"frozen": 0})
	for _, one := range waiting {
		one.wait().want(t, m{})
	}
	appears(t, r.work+"/job")
	if got := names(); got != "command dir job new upload" {
		t.Errorf("afterwards: %s", got)
	}
	if got, _ := os.ReadFile(r.work + "/upload"); string(got) != "half and half" {
		t.Errorf("%q", got)
	}
}

func TestAFreezeEndsByItself(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	c.do("job_start", m{"shell": "while :; do echo x; sleep 0.001; done > out"})
	appears(t, r.work+"/out")
	goesOn := func() {
		t.Helper()
		before := sizeOf(t, r.work+"/out")
		for range 1000 {
			if sizeOf(t, r.work+"/out") > before {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Error("it does not go on")
	}
	c.do("freeze", m{"timeout": 300}).want(t, m{})
	goesOn()
	c.do("freeze", m{"timeout": -1}).fails(t, "EINVAL")
	lost := r.dial()
	lost.open("freeze", m{"timeout": 600_000}).frozen(t)
	lost.nc.Close()
	goesOn()
	// A peer that reads nothing, and whose connection takes nothing more, holds it no longer than that either.
	os.WriteFile(r.work+"/big", make([]byte, 1<<20), 0o644)
	deaf := r.greeted()
	for id := uint32(1); id < 20; id++ {
		deaf.send(wire.Open, id, []byte(`{"op":"read","path":"`+r.work+`/big"}`))
	}
	time.Sleep(100 * time.Millisecond)
	deaf.send(wire.Open, 20, []byte(`{"op":"freeze","timeout":500}`))
	time.Sleep(600 * time.Millisecond)
	goesOn()
	c.do("freeze", m{"timeout": 300}).want(t, m{})
}

func TestWhatIsFrozenCanBeKilled(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	late := c.open("exec", m{"shell": "while :; do echo x >> late; sleep 0.001; done", "timeout": 500})
	cancelled := c.open("exec", m{"shell": "trap 'echo term > term' TERM; while :; do echo x >> cancelled; sleep 0.001; done"})
	c.do("job_start", m{"shell": "sleep 60"})
	c.do("job_start", m{"shell": "while :; do echo x >> last; sleep 0.001; done"})
	for _, name := range []string{"late", "cancelled", "last"} {
		appears(t, filepath.Join(r.work, name))
	}
	k := c.open("freeze", m{})
	k.frozen(t)
	late.wait().want(t, m{"cause": "timeout", "signal": "SIGKILL"})
	size := sizeOf(t, r.work+"/cancelled")
	c.send(wire.Cancel, cancelled.id, nil)
	cancelled.wait().want(t, m{"cause": "cancelled", "signal": "SIGKILL"})
	if _, err := os.Stat(r.work + "/term"); err == nil || sizeOf(t, r.work+"/cancelled") != size {
		t.Error("it ran to end")
	}
	if job := c.do("job_stop", m{"id": "j1"}).result["job"].(m); job["running"] != false {
		t.Errorf("%v", job)
	}
	if killed := c.do("kill_all", m{}).result["killed"].(float64); killed < 1 {
		t.Errorf("killed %v", killed)
	}
	k.feed(nil).wait().want(t, m{})
	// Their processes are gone; that they were waited for comes a moment later.
	for give := time.Now().Add(5 * time.Second); c.do("usage", m{}).result["jobs"] != 0.0; time.Sleep(time.Millisecond) {
		if time.Now().After(give) {
			t.Fatal("jobs still run")
		}
	}
}

func TestAProcessWhoseFirstThreadHasEndedIsStoppedLikeAnyOther(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	program := m{"argv": []string{os.Args[0]}, "timeout": 500}
	for i, op := range []string{"exec", "kill_all"} {
		file := fmt.Sprintf("%s/out%d", r.work, i)
		program["env"] = m{headless: file}
		if op == "exec" {
			c.do("exec", program).want(t, m{"cause": "timeout"})
		} else {
			c.do("job_start", program)
			appears(t, file)
			c.do("kill_all", m{}).want(t, m{"killed": 1})
		}
		size := sizeOf(t, file)
		time.Sleep(50 * time.Millisecond)
		if sizeOf(t, file) != size {
			t.Errorf("it outlived %s", op)
		}
	}
}

func TestManyFreezes(t *testing.T) {
	r := startRunner(t)
	c := r.dial()
	var stop atomic.Bool
	done := make(chan int)
	go func() {
		worker := r.dial()
		n := 0
		for ; !stop.Load(); n++ {
			if a := worker.sh("echo x >> marks"); a.failed != "" || a.result["exit_code"] != 0.0 {
				t.Errorf("%v", a.result)
			}
		}
		done <- n
	}()
	for range 50 {
		k := c.open("freeze", m{})
		k.frozen(t)
		k.feed(nil).wait().want(t, m{})
	}
	stop.Store(true)
	n := <-done
	if got := sizeOf(t, r.work+"/marks"); got != int64(2*n) {
		t.Errorf("%d commands left %d bytes", n, got)
	}
}
