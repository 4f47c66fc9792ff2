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
)

// Clock counts what is in use.
type Clock struct {
	idle, lifetime time.Duration
	born           time.Time

	mu     sync.Mutex
	active int
	last   time.Time
	rest   time.Duration // how long nothing had been under way when the present use began
}

// NewClock starts counting; a zero duration means never.
func NewClock(idle, lifetime time.Duration) *Clock {
	now := time.Now()
	return &Clock{idle: idle, lifetime: lifetime, born: now, last: now}
}

// Use changes how many operations and jobs are under way.
func (c *Clock) Use(delta int) {
	now := time.Now()
	c.mu.Lock()
	if c.active == 0 {
		c.rest = now.Sub(c.last)
	}
	c.active += delta
	c.last = now
	c.mu.Unlock()
}

// Uptime is how long the container has lived.
func (c *Clock) Uptime() time.Duration { return time.Since(c.born) }

// IdleBefore is how long nothing had been under way before the one operation that asks; 0 when there are others.
func (c *Clock) IdleBefore() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active > 1 {
		return 0
	}
	return c.rest
}

// Wait returns the reason when it is time to end. On the way it gives memory back after every burst of use.
func (c *Clock) Wait() string {
	var tidied time.Time
	for {
		now := time.Now()
		c.mu.Lock()
		last, busy := c.last, c.active > 0
		c.mu.Unlock()
		if c.lifetime > 0 && now.Sub(c.born) >= c.lifetime {
			return Lifetime
		}
		if c.idle > 0 && !busy && now.Sub(last) >= c.idle {
			return Idle
		}
		if !busy && last.After(tidied) && now.Sub(last) >= calm {
			debug.FreeOSMemory()
			tidied = now
		}
		c.sleep(c.pause(now, last, busy, tidied))
	}
}

// pause is the time until something can have to be done.
func (c *Clock) pause(now, last time.Time, busy bool, tidied time.Time) time.Duration {
	pause := calm
	if !busy && !last.After(tidied) {
		pause = 30 * time.Second
	}
	if c.idle > 0 && !busy {
		pause = min(pause, c.idle-now.Sub(last))
	}
	if c.lifetime > 0 {
		pause = min(pause, c.lifetime-now.Sub(c.born))
	}
	return max(pause, time.Millisecond)
}

// sleep notices when it took much longer than asked: the container was paused. Nobody could use it in that time, so it
// does not count as idle; otherwise the first thing a resumed container did would be to end.
func (c *Clock) sleep(d time.Duration) {
	const slack = 2 * time.Second
	asleep := time.Now()
	time.Sleep(d)
	if frozen := time.Since(asleep) - d; frozen > slack {
		c.mu.Lock()
		c.last = c.last.Add(frozen)
		c.mu.Unlock()
	}
}
