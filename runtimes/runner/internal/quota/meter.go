// Package quota keeps a working directory within a number of bytes, as well as that can be done by looking.
package quota

import (
	"sync"
	"syscall"
	"time"
)

const (
	// shortest is the least time between two walks while something runs.
	shortest = 250 * time.Millisecond
	// share is how much longer than a walk the pause after it is: a tenth of a processor is what watching may cost.
	share = 10
	// lazier is how much longer the pause is while only processes run that nobody waits for.
	lazier = 4
	// recent is how old a measurement may be that is only shown, and cheap how long a new one may take for that.
	recent = time.Second
	cheap  = 50 * time.Millisecond
	// trifle is what a command may add beyond the quota: one that deletes files may write a log of that.
	trifle = 256 << 10
	// patience is how long what was told to stop may take before everything is killed, episode how long it takes until
	// stopping something else is a new beginning.
	patience = 5 * time.Second
	episode  = 10 * time.Second
	// notable is the least that the file system must lose for a walk to come early.
	notable = 1 << 20
)

// Meter watches what a directory holds. A nil Meter is one without a limit.
type Meter struct {
	limit int64
	dir   string
	world World
	ready chan struct{} // closed when something is known
	poke  chan struct{}

	walking sync.Mutex // one at a time
	walk    *walk

	mu       sync.Mutex
	measured int64
	account  int64 // what the runner itself has written, less what it gave back
	settled  int64 // the account at the beginning of the last walk
	ended    time.Time
	took     time.Duration
	free     int64 // bytes of the file system that were free at the last walk
	stale    bool  // something may be gone that the last walk has seen, or have come
	loads    map[*Load]bool
	since    time.Time // when it was found too full, zero if it is not
	highest  int64     // the most that was found since then
}

// World is what a meter knows of the processes in the container, and can do about them.
type World interface {
	// Inhabited tells whether any process runs.
	Inhabited() bool
	// KillAll ends all of them.
	KillAll()
}

// NewMeter begins to watch a directory; a limit of 0 is none.
func NewMeter(dir string, limit int64, world World) *Meter {
	if limit <= 0 {
		return nil
	}
	m := &Meter{limit: limit, dir: dir, world: world, walk: newWalk(dir), loads: make(map[*Load]bool),
		ready: make(chan struct{}), poke: make(chan struct{}, 1)}
	go m.watch()
	return m
}

// Load is a command or a job that runs.
type Load struct {
	meter *Meter
	// allowed is what the directory may hold while it runs: the limit, or what it held before if that was more, so that
	// whoever deletes files is let.
	allowed int64
	over    chan struct{}
}

// Enter is to be called before a command or a job starts, and Leave when it has ended.
func (m *Meter) Enter() *Load {
	if m == nil {
		return nil
	}
	<-m.ready
	used := m.used()
	if used > m.limit || used+m.lost() > m.limit {
		used = m.renewed()
	}
	l := &Load{meter: m, allowed: m.allowance(used), over: make(chan struct{})}
	m.mu.Lock()
	m.loads[l] = true
	m.mu.Unlock()
	m.rouse()
	return l
}

// rouse has the watching begin, if it does not go on already.
func (m *Meter) rouse() {
	select {
	case m.poke <- struct{}{}:
	default:
	}
}

// allowance is what the directory may hold under what starts when it holds used.
func (m *Meter) allowance(used int64) int64 {
	if used <= m.limit {
		return m.limit
	}
	return used + trifle
}

// Leave is the other half of Enter; further calls do nothing.
func (l *Load) Leave() {
	if l == nil {
		return
	}
	l.meter.mu.Lock()
	defer l.meter.mu.Unlock()
	delete(l.meter.loads, l)
	l.meter.stale = true
}

// Over is closed when the command or job has to be stopped.
func (l *Load) Over() <-chan struct{} {
	if l == nil {
		return nil
	}
	return l.over
}

// IsOver tells whether Over is closed.
func (l *Load) IsOver() bool {
	select {
	case <-l.Over():
		return true
	default:
		return false
	}
}

// Spend asks whether the runner itself may write n bytes more, and counts them; EDQUOT if it may not.
func (m *Meter) Spend(n int64) error {
	if m == nil || n <= 0 {
		return nil
	}
	<-m.ready
	if m.spend(n) {
		return nil
	}
	if m.renewed(); m.spend(n) {
		return nil
	}
	return syscall.EDQUOT
}

func (m *Meter) spend(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.estimate()+n > m.limit {
		return false
	}
	m.account += n
	return true
}

// Freed says that something was deleted.
func (m *Meter) Freed() { m.Refund(0) }

// Refund takes back what was spent and is gone again.
func (m *Meter) Refund(n int64) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.account -= n
	m.stale = true
}

// Usage is what the directory holds, as far as that is known without much effort.
func (m *Meter) Usage() (used, limit int64, ok bool) {
	if m == nil {
		return 0, 0, false
	}
	<-m.ready
	m.mu.Lock()
	old := m.stale || time.Since(m.ended) > recent
	quick := m.took < cheap
	m.mu.Unlock()
	switch {
	case old && quick:
		m.measure()
	case old:
		// Whoever asks again later will be told.
		m.rouse()
	}
	return m.used(), m.limit, true
}

func (m *Meter) used() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.estimate()
}

func (m *Meter) estimate() int64 { return max(0, m.measured+m.account-m.settled) }

// renewed measures again, unless that was done just now, and returns what the directory holds.
func (m *Meter) renewed() int64 {
	m.mu.Lock()
	known := !m.stale && len(m.loads) == 0 && time.Since(m.ended) < m.took
	m.mu.Unlock()
	if !known {
		m.measure()
	}
	return m.used()
}

// measure walks the directory.
func (m *Meter) measure() {
	asked := time.Now()
	m.walking.Lock()
	defer m.walking.Unlock()
	began := time.Now()
	m.mu.Lock()
	// One that began while we waited for the last will do for all who waited.
	done := m.ended.Add(-m.took).After(asked)
	m.stale = m.stale && done
	account := m.account
	m.mu.Unlock()
	if done {
		return
	}
	free := m.freeBytes()
	used := m.walk.run()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.walk.partial {
		// At least that much.
		used = max(used, m.estimate())
	}
	m.measured, m.settled, m.free = used, account, free
	m.ended, m.took = time.Now(), time.Since(began)
}

// lost is how much less is free on the file system than at the last walk. Others may have taken that; but what somebody
// puts into the directory from outside shows there, and nowhere else before the next walk.
func (m *Meter) lost() int64 {
	m.mu.Lock()
	free := m.free
	m.mu.Unlock()
	return max(0, free-m.freeBytes())
}

func (m *Meter) freeBytes() int64 {
	var st syscall.Statfs_t
	if syscall.Statfs(m.dir, &st) != nil {
		return 0
	}
	return int64(st.Bfree) * st.Bsize
}

// watch measures while anything runs, once more after it has ended, and when it is roused.
func (m *Meter) watch() {
	m.measure()
	close(m.ready)
	for {
		<-m.poke
		for busy := true; busy; {
			m.pause()
			m.measure()
			m.judge(time.Now())
			busy = m.busy() || m.world.Inhabited()
		}
	}
}

// busy tells whether a command or a job runs, or did since the last walk began.
func (m *Meter) busy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.loads) > 0 || m.stale
}

// pause lasts until it is time for the next walk. It is cut short when so much has been written to the file system that
// it could be too much for us, although that may have been others.
func (m *Meter) pause() {
	m.mu.Lock()
	took, room := m.took, max(m.limit-m.measured, notable)
	m.mu.Unlock()
	long := max(shortest, share*took)
	if !m.busy() {
		long *= lazier
	}
	for began := time.Now(); ; {
		time.Sleep(shortest)
		waited := time.Since(began)
		if waited >= long || waited >= 3*took && m.lost() > room {
			return
		}
	}
}

// judge stops what has to be stopped after a walk, and kills everything if that did not help.
func (m *Meter) judge(now time.Time) {
	m.mu.Lock()
	used := m.estimate()
	stopping, told := m.tell(used)
	kill := false
	switch {
	case used <= m.limit:
		m.since = time.Time{}
	case m.since.IsZero(), told && now.Sub(m.since) > episode:
		m.since, m.highest = now, used
	case stopping && now.Sub(m.since) < patience:
		m.highest = max(m.highest, used)
	case used > m.highest:
		kill = true
		m.since, m.highest = now, used
		for l := range m.loads {
			l.stop()
		}
	}
	m.mu.Unlock()
	if kill {
		m.world.KillAll()
	}
}

// tell makes those loads stop under which the directory has become too full. It tells whether any has not stopped yet,
// and whether any is told for the first time.
func (m *Meter) tell(used int64) (stopping, told bool) {
	for l := range m.loads {
		if used > l.allowed && !l.IsOver() {
			l.stop()
			told = true
		}
		stopping = stopping || l.IsOver()
		// Who has made room must not fill it again.
		l.allowed = min(l.allowed, m.allowance(used))
	}
	return stopping, told
}

func (l *Load) stop() {
	if !l.IsOver() {
		close(l.over)
	}
}
