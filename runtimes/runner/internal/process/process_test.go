package process

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"runner/internal/gate"
	"runner/internal/sys"
)

func TestParseStat(t *testing.T) {
	for _, r := range []struct {
		raw  string
		want member
		ok   bool
	}{
		{"12 (sh) S 1 12 34 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 5678 90", member{parent: 1, session: 34, state: 'S', threads: 3, born: 5678}, true},
		{"12 (a) R 9 9 9) Z 2 3 4 5 -1 6 7 8 9 1 1 1 1 1 -2 -19 1 0 7", member{parent: 2, session: 4, state: 'Z', threads: 1, born: 7}, true},
		{"12 (sh) S 1 12 34 0 -1", member{}, false},
		{"12 (x", member{}, false}, {"", member{}, false}, {"1 (a) R", member{}, false}, {"1 (a) R x y z", member{}, false},
	} {
		got, ok := parseStat([]byte(r.raw))
		if ok != r.ok || ok && got != r.want {
			t.Errorf("%q: %+v, %v", r.raw, got, ok)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("12 (sh) S 1 12 34 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 5678 90"))
	f.Fuzz(func(t *testing.T, raw []byte) { parseStat(raw) })
}

func devNull(t *testing.T) int {
	f, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

const alone = "RUNNER_TEST_ALONE"

var table *Table

func TestMain(m *testing.M) {
	if os.Getenv(alone) == "" {
		table = NewTable()
	}
	os.Exit(m.Run())
}

func start(t *testing.T, script string) *Process {
	t.Helper()
	return startIn(t, table, script)
}

func startIn(t *testing.T, table *Table, script string) *Process {
	t.Helper()
	null := devNull(t)
	p, err := table.Start(Spec{Path: Shell, Argv: []string{"sh", "-c", script}, Env: os.Environ(), Dir: "/", Files: [3]int{null, null, null}})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ended(t *testing.T, p *Process) syscall.WaitStatus {
	t.Helper()
	select {
	case <-p.Exited():
		return p.Status()
	case <-time.After(10 * time.Second):
		t.Fatal("the process was never reaped")
		return 0
	}
}

func TestStatusIsNeverLost(t *testing.T) {
	for i := range 200 {
		code := i % 7
		p := start(t, "exit "+itoa(code))
		if got := ended(t, p).ExitStatus(); got != code {
			t.Fatalf("run %d: exit status %d, want %d", i, got, code)
		}
	}
}

func TestStopSessionBeatsWhatIgnoresSIGTERM(t *testing.T) {
	p := start(t, "trap '' TERM; sleep 60 & while :; do sleep 60; done")
	time.Sleep(50 * time.Millisecond)
	began := time.Now()
	table.StopSession(p.Pid, new(gate.Gate))
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if !ended(t, p).Signaled() {
		t.Error("not killed")
	}
}

func TestStopSessionIsQuickWhenSIGTERMIsHeeded(t *testing.T) {
	best := time.Hour
	for range 5 {
		p := start(t, "sleep 60")
		began := time.Now()
		table.StopSession(p.Pid, new(gate.Gate))
		best = min(best, time.Since(began))
		ended(t, p)
	}
	if best > 150*time.Millisecond {
		t.Errorf("at best it took %v", best)
	}
}

func TestStopSessionFindsTheStopped(t *testing.T) {
	p := start(t, "kill -STOP $$")
	time.Sleep(50 * time.Millisecond)
	table.StopSession(p.Pid, new(gate.Gate))
	ended(t, p)
}

// In a process of its own: a table whose reaper is not there, as one that waits for a processor, may not take what is
// another's.
func TestStopSessionReapsWhomItEnded(t *testing.T) {
	if os.Getenv(alone) == "" {
		command := exec.Command(os.Args[0], "-test.run=^TestStopSessionReapsWhomItEnded$")
		command.Env = append(os.Environ(), alone+"=1")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return
	}
	sys.BecomeSubreaper()
	reaperless := &Table{children: make(map[int]*Process)}
	p := startIn(t, reaperless, "for n in $(seq 100); do sleep 60 & done; wait")
	for len(session(t, p.Pid)) <= 100 {
		time.Sleep(time.Millisecond)
	}
	reaperless.StopSession(p.Pid, new(gate.Gate))
	if left := session(t, p.Pid); len(left) > 0 {
		t.Fatalf("%d are left, the first is %+v", len(left), left[0])
	}
}

func session(t *testing.T, id int) (members []member) {
	t.Helper()
	s, err := newScanner()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.each(func(m member) {
		if m.session == id {
			members = append(members, m)
		}
	})
	return members
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, mode os.FileMode) {
		if err := os.WriteFile(dir+"/"+name, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	write("tool", 0o755)
	write("data", 0o644)
	os.Mkdir(dir+"/folder", 0o755)
	env := []string{"PATH=/nowhere:" + dir}
	for _, r := range []struct {
		name, dir, want string
		err             error
	}{
		{"tool", "/", dir + "/tool", nil}, {"data", "/", "", syscall.EACCES}, {"folder", "/", "", syscall.EACCES},
		{"none", "/", "", syscall.ENOENT}, {"", "/", "", syscall.ENOENT}, {"./tool", dir, dir + "/./tool", nil},
		{"./none", dir, "", syscall.ENOENT}, {dir + "/tool", "/", dir + "/tool", nil},
	} {
		got, err := LookPath(r.name, env, r.dir)
		if err != r.err || err == nil && got != r.want {
			t.Errorf("%q in %q: %q, %v", r.name, r.dir, got, err)
		}
	}
	if got, err := LookPath("tool", []string{"PATH=."}, dir); err != nil || got != dir+"/./tool" {
		t.Errorf("a relative PATH: %q, %v", got, err)
	}
}

func TestSignalNames(t *testing.T) {
	for s, want := range map[syscall.Signal]string{9: "SIGKILL", 11: "SIGSEGV", 31: "SIGSYS", 40: "SIGRT40"} {
		if got := SignalName(s); got != want {
			t.Errorf("%d is %s", s, got)
		}
	}
	if !strings.HasPrefix(SignalName(64), "SIGRT") {
		t.Error("64")
	}
}
