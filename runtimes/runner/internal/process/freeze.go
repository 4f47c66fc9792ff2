package process

import (
	"cmp"
	"slices"
	"syscall"
	"time"
)

const (
	// stopping bounds how long everything may take to stand still; only a dead disk takes that long.
	stopping = 10 * time.Second
	// still is how many passes in a row must find nothing running: one may just miss what is being forked.
	still = 2
	// stuck is after how many passes a process that does not stop is taken to wait for a child.
	stuck = 20
	// loose is how long such a child may run.
	loose = 5 * time.Millisecond
)

// Frozen are processes that were stopped and are to go on again.
type Frozen struct {
	scanner *scanner
	belongs func(member) bool
	born    map[int]int
	asked   map[int]int // how often those that still run were told to stop
}

// Freeze stops every process but this one and those that spare names. It gives up, and lets everything go on, when
// cancelled is closed or something does not stand still in time; the error is ETIMEDOUT then.
func Freeze(spare func(pid, parent int) bool, cancelled <-chan struct{}) (*Frozen, error) {
	s, err := newScanner()
	if err != nil {
		return nil, err
	}
	f := &Frozen{scanner: s, belongs: everyone(spare), born: make(map[int]int), asked: make(map[int]int)}
	deadline := time.After(stopping)
	for quiet := 0; quiet < still; {
		running, loosened := f.pass()
		if running == 0 {
			quiet++
			continue
		}
		quiet = 0
		// Each of them has to run once more to stop.
		pause := time.Millisecond
		if loosened {
			pause = loose
		}
		select {
		case <-time.After(pause):
			continue
		case <-cancelled:
		case <-deadline:
		}
		f.Thaw()
		return nil, syscall.ETIMEDOUT
	}
	return f, nil
}

// pass stops what runs and returns how many that were. Numbers go up from parent to child as a rule, so that no parent
// sees its child stop.
//
// Whoever has called vfork cannot stop before the child has executed its program, which it cannot when it was stopped
// first. So children of those who do not stop are loosened for a moment.
func (f *Frozen) pass() (running int, loosened bool) {
	asked := make(map[int]int)
	f.scanner.each(func(m member) {
		if !f.belongs(m) || m.dead() {
			return
		}
		if f.scanner.halted(m) {
			if f.asked[m.parent] >= stuck && f.born[m.pid] == m.born && syscall.Kill(m.pid, syscall.SIGCONT) == nil {
				running++
				loosened = true
			}
			return
		}
		// One that we may not signal (a setuid program) is not ours to wait for.
		if syscall.Kill(m.pid, syscall.SIGSTOP) != nil {
			return
		}
		running++
		f.born[m.pid] = m.born
		asked[m.pid] = f.asked[m.pid] + 1
	})
	f.asked = asked
	return running, loosened
}

// Len is how many processes were stopped.
func (f *Frozen) Len() int { return len(f.born) }

// Thaw lets the processes go on that Freeze has stopped, and no others: the youngest first, so that no parent sees a
// child that is stopped.
func (f *Frozen) Thaw() {
	defer f.scanner.close()
	pids := make([]int, 0, len(f.born))
	for pid := range f.born {
		pids = append(pids, pid)
	}
	slices.SortFunc(pids, func(a, b int) int {
		return cmp.Or(cmp.Compare(f.born[b], f.born[a]), cmp.Compare(b, a))
	})
	for _, pid := range pids {
		// The number may belong to someone else by now.
		if m, ok := f.scanner.read([]byte(itoa(pid))); ok && m.born == f.born[pid] {
			syscall.Kill(pid, syscall.SIGCONT)
		}
	}
}
