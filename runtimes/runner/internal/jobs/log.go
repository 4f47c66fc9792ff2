package jobs

import "sync"

// log is the last `keep` bytes a job has printed, addressed by their absolute offset.
type log struct {
	mu    sync.Mutex
	keep  int
	ring  []byte
	total int64
	grown chan struct{} // closed and replaced when something is added
	done  bool
}

func newLog(keep int) *log { return &log{keep: keep, grown: make(chan struct{})} }

func (l *log) add(p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if extra := len(p) - l.keep; extra > 0 {
		l.total += int64(extra)
		p = p[extra:]
		// What is kept lies where its offset says, so the ring must be full before offsets jump.
		l.fill()
	}
	for len(p) > 0 {
		n := 0
		if len(l.ring) < l.keep {
			n = min(len(p), l.keep-len(l.ring))
			l.ring = append(l.ring, p[:n]...)
		} else {
			n = copy(l.ring[l.total%int64(l.keep):], p)
		}
		l.total += int64(n)
		p = p[n:]
	}
	l.wake()
}

func (l *log) fill() {
	if len(l.ring) < l.keep {
		l.ring = append(l.ring, make([]byte, l.keep-len(l.ring))...)
	}
}

func (l *log) wake() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// finish says that nothing more will come.
func (l *log) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	l.wake()
}

// read copies at most limit bytes from absolute offset cursor. skipped counts those that are no longer there; more is
// closed when it is worth asking again, nil when nothing will ever come.
func (l *log) read(cursor int64, limit int) (p []byte, next, skipped int64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if oldest := l.total - int64(len(l.ring)); cursor < oldest {
		skipped = oldest - cursor
		cursor = oldest
	}
	cursor = min(cursor, l.total)
	p = make([]byte, min(int64(limit), l.total-cursor))
	if len(p) > 0 {
		at := cursor % int64(l.keep)
		n := copy(p, l.ring[at:])
		copy(p[n:], l.ring)
	}
	if !l.done {
		more = l.grown
	}
	return p, cursor + int64(len(p)), skipped, more
}

func (l *log) size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}
