package process

import (
	"os"
	"slices"
	"syscall"
	"time"

	"runner/internal/gate"
)

const (
	// patience is how long a session may take to end after SIGTERM.
	patience = 250 * time.Millisecond
	// budget bounds a stop as a whole; after it the caller goes on and the killing continues by itself.
	budget = 2 * time.Second
	// freezing bounds the SIGSTOP passes, so that time is left for SIGKILL.
	freezing = time.Second
	// persistence bounds the killing in the background.
	persistence = time.Minute
	// consideration is how much of that time others wait before they start something.
	consideration = 20 * time.Second
)

// StopSession ends every process of the session: SIGTERM, then SIGSTOP until no new one appears, then SIGKILL until
// none is left. It answers after about two seconds at the latest. Processes that moved to another session are left
// alone: they asked to outlive the command. While g is closed nothing may run, not even to end in peace, and the session
// is killed at once. Those that ended are reaped when it answers, for until then they count against the pids limit.
func (t *Table) StopSession(session int, g *gate.Gate) {
	belongs := func(m member) bool { return m.session == session }
	s, err := newScanner()
	if err != nil {
		// Out of descriptors; the group is better than nothing.
		syscall.Kill(-session, syscall.SIGKILL)
		return
	}
	defer t.collect()
	h := &hunt{scanner: s, belongs: belongs, group: session, deadline: time.Now().Add(budget)}
	if h.terminate(g) {
		s.close()
		return
	}
	h.finish(t)
}

// KillAll ends every process but this one and those that spare names, reaps them, and returns how many it killed. As
// PID 1 that is the whole container; otherwise (in tests) the descendants of this process.
func (t *Table) KillAll(spare func(pid, parent int) bool) (int, error) {
	s, err := newScanner()
	if err != nil {
		return 0, err
	}
	defer t.collect()
	h := &hunt{scanner: s, belongs: everyone(spare), seen: make(map[int]bool), deadline: time.Now().Add(budget)}
	h.finish(t)
	return len(h.seen), nil
}

// Others calls visit for every living process but this one and those that spare names.
func Others(spare func(pid, parent int) bool, visit func(pid int)) {
	s, err := newScanner()
	if err != nil {
		return
	}
	defer s.close()
	belongs := everyone(spare)
	s.each(func(m member) {
		if belongs(m) && !m.dead() {
			visit(m.pid)
		}
	})
}

// everyone tells which processes are all but this one and those that spare names. As PID 1 that is the whole container;
// otherwise (in tests) the descendants of this process.
func everyone(spare func(pid, parent int) bool) func(member) bool {
	self := os.Getpid()
	if self == 1 {
		return func(m member) bool { return m.pid != self && !spare(m.pid, m.parent) }
	}
	family := map[int]bool{self: true}
	return func(m member) bool {
		if m.pid != self && family[m.parent] {
			family[m.pid] = true
			return true
		}
		return false
	}
}

// hunt is one pursuit of a set of processes.
type hunt struct {
	*scanner
	belongs func(member) bool
	// group is the process group most members of a session are in, 0 for none. A signal to a group reaches all of it at
	// once, which no fork bomb can outrun; the passes over /proc are for those who left the group.
	group    int
	seen     map[int]bool // killed so far, when someone wants to know
	deadline time.Time
}

// pass sends a signal to every living member that want accepts and counts the living and the signalled.
func (h *hunt) pass(signal syscall.Signal, want func(member) bool) (living, signalled int) {
	if h.group > 0 && signal != 0 {
		syscall.Kill(-h.group, signal)
	}
	h.each(func(m member) {
		if !h.belongs(m) || m.dead() {
			return
		}
		if !want(m) {
			living++
			return
		}
		// One that we may not signal (a setuid program) is not ours to wait for.
		if err := syscall.Kill(m.pid, signal); err != nil {
			return
		}
		living++
		signalled++
		if h.seen != nil {
			h.seen[m.pid] = true
		}
	})
	return living, signalled
}

func anyMember(member) bool { return true }
func noMember(member) bool  { return false }

// terminate asks politely and tells whether everyone left in time.
func (h *hunt) terminate(g *gate.Gate) bool {
	if !g.TryEnter(gate.Start) {
		return false
	}
	living, _ := h.pass(syscall.SIGTERM, anyMember)
	if living > 0 {
		// A stopped process takes no SIGTERM until it continues.
		h.pass(syscall.SIGCONT, member.stopped)
	}
	g.Leave(gate.Start)
	if living == 0 {
		return true
	}
	end := time.Now().Add(patience)
	for pause := time.Millisecond; time.Now().Before(end); pause = min(pause*2, 16*time.Millisecond) {
		time.Sleep(pause)
		if living, _ := h.pass(0, noMember); living == 0 {
			return true
		}
	}
	return false
}

// finish freezes and kills. What is left when the budget is used up is pursued in the background.
func (h *hunt) finish(t *Table) {
	if h.kill() {
		h.close()
		return
	}
	h.deadline = time.Now().Add(persistence)
	over := make(chan struct{})
	t.announce(over)
	go func() {
		defer close(over)
		h.kill()
		h.close()
		t.collect()
	}()
}

// announce notes a pursuit in the background.
func (t *Table) announce(over <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pursuits = append(slices.DeleteFunc(t.pursuits, pursuit.isOver), pursuit{over, time.Now()})
}

// Settle waits for those who are pursued in the background, since they count against the pids limit until they have
// ended. It goes on without that when cancelled is closed, or when it takes too long: a dead disk may hold them for ever.
func (t *Table) Settle(cancelled <-chan struct{}) {
	t.mu.Lock()
	pursuits := slices.Clone(t.pursuits)
	t.mu.Unlock()
	for _, p := range pursuits {
		select {
		case <-p.over:
		case <-time.After(time.Until(p.began.Add(consideration))):
		case <-cancelled:
			return
		}
	}
}

// pursuit is a killing in the background.
type pursuit struct {
	over  <-chan struct{}
	began time.Time
}

func (p pursuit) isOver() bool {
	select {
	case <-p.over:
		return true
	default:
		return false
	}
}

func (h *hunt) kill() bool {
	running := func(m member) bool { return !h.halted(m) }
	for end := time.Now().Add(freezing); time.Now().Before(end); {
		if _, signalled := h.pass(syscall.SIGSTOP, running); signalled == 0 {
			break
		}
		// Each of them has to run once more to stop.
		time.Sleep(time.Millisecond)
	}
	for pause := 200 * time.Microsecond; time.Now().Before(h.deadline); pause = min(pause*2, 20*time.Millisecond) {
		if living, _ := h.pass(syscall.SIGKILL, anyMember); living == 0 {
			return true
		}
		time.Sleep(pause)
	}
	return false
}
