// Package life decides when the container has been idle, or alive, for long enough.
package life

import (
	"runtime/debug"
	"sync"
	"time"
)

// calm is how long nothing must happen before memory is given back to the kernel.
const calm = 3 * time.Second

// Reasons to end, as a GOODBYE names them.
const (
	Idle     = "idle"
	Lifetime = "lifetime"
	Retired  = "retired"
)

// Clock counts what is in use.
type Clock struct {
	idle, lifetime time.Duration
	born           time.Time

	mu     sync.Mutex
	active int
	last   time.Time
	ended  bool // decided: nothing begins any more

	depart  sync.Once
	retired chan struct{}
}

// NewClock starts counting; a zero duration means never.
func NewClock(idle, lifetime time.Duration) *Clock {
	now := time.Now()
	return &Clock{idle: idle, lifetime: lifetime, born: now, last: now, retired: make(chan struct{})}
}

// Begin counts one more operation under way, unless the end is decided: then it must not begin.
func (c *Clock) Begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return false
	}
	c.active++
	c.last = time.Now()
	return true
}

// Use changes how many operations and jobs are under way, for what begins within an operation and for what ends.
func (c *Clock) Use(delta int) {
	c.mu.Lock()
	c.active += delta
	c.last = time.Now()
	c.mu.Unlock()
}

// Retire decides to end if nothing is under way and the last use was at least idle ago; it also tells how long ago that
// was. The decision and the refusal of everything that would begin afterwards are one step. Depart carries it out.
func (c *Clock) Retire(idle time.Duration) (bool, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.rest(time.Now())
	if c.ended || c.active > 0 || rest < idle {
		return false, rest
	}
	c.ended = true
	return true, rest
}

// Depart has Wait return after Retire has decided so; further calls do nothing.
func (c *Clock) Depart() { c.depart.Do(func() { close(c.retired) }) }

// rest is how long nothing has been under way.
func (c *Clock) rest(now time.Time) time.Duration {
	if c.active > 0 {
		return 0
	}
	return max(0, now.Sub(c.last))
}

// Uptime is how long the container has lived.
func (c *Clock) Uptime() time.Duration { return time.Since(c.born) }

// Idle is how long nothing has been under way; 0 when something is.
func (c *Clock) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rest(time.Now())
}

// Wait returns the reason when it is time to end; by then nothing new begins. On the way it gives memory back after every
// burst of use.
func (c *Clock) Wait() string {
	var tidied time.Time
	for {
		now := time.Now()
		reason, last, busy := c.decide(now)
		if reason != "" {
			return reason
		}
		if !busy && last.After(tidied) && now.Sub(last) >= calm {
			debug.FreeOSMemory()
			tidied = now
		}
		if c.sleep(c.pause(now, last, busy, tidied)) {
			return Retired
		}
	}
}

// decide looks whether it is time to end and, in the same step, lets nothing begin any more if it is.
func (c *Clock) decide(now time.Time) (reason string, last time.Time, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, busy = c.last, c.active > 0
	switch {
	case c.ended:
		// Retire was faster.
	case c.lifetime > 0 && now.Sub(c.born) >= c.lifetime:
		reason = Lifetime
	case c.idle > 0 && !busy && now.Sub(last) >= c.idle:
		reason = Idle
	}
	c.ended = c.ended || reason != ""
	return reason, last, busy
}

// pause is the time until something can have to be done.
func (c *Clock) pause(now, last time.Time, busy bool, tidied time.Time) time.Duration {
	pause := calm
	if !busy && !last.After(tidied) {
		pause = 30 * time.Second
	}
	if c.idle > 0 && busy {
		pause = min(pause, c.idle)
	} else if c.idle > 0 {
		pause = min(pause, c.idle-now.Sub(last))
	}
	if c.lifetime > 0 {
		pause = min(pause, c.lifetime-now.Sub(c.born))
	}
	return max(pause, time.Millisecond)
}

// sleep notices when it took much longer than asked: the container was paused. Nobody could use it in that time, so it
// does not count as idle; otherwise the first thing a resumed container did would be to end. It returns early, and true,
// when the end was decided by Retire.
func (c *Clock) sleep(d time.Duration) bool {
	const slack = 2 * time.Second
	asleep := time.Now()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.retired:
		return true
	case <-timer.C:
	}
	if frozen := time.Since(asleep) - d; frozen > slack {
		c.mu.Lock()
		c.last = c.last.Add(frozen)
		c.mu.Unlock()
	}
	return false
}
