package files

import "sync"

// Order lets changes of one path happen in the order in which they were asked for. A path is known by what it is
// (the name in its resolved directory) and by where it leads (the end of its links): both spellings wait for each other.
type Order struct {
	mu    sync.Mutex
	tails map[string]chan struct{}
}

// NewOrder makes an empty order.
func NewOrder() *Order { return &Order{tails: make(map[string]chan struct{})} }

// Turn is a place in the queues of a path's names.
type Turn struct {
	order *Order
	keys  []string
	ahead []chan struct{}
	done  chan struct{}
}

// Join takes the next place for path. It never waits.
func (o *Order) Join(path string) *Turn {
	t := &Turn{order: o, done: make(chan struct{})}
	t.keys = keysOf(path)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, key := range t.keys {
		if tail := o.tails[key]; tail != nil {
			t.ahead = append(t.ahead, tail)
		}
		o.tails[key] = t.done
	}
	return t
}

func keysOf(path string) []string {
	name, err := resolveParent(path)
	if err != nil {
		return nil
	}
	if end, err := Realpath(path); err == nil && end != name {
		return []string{name, end}
	}
	return []string{name}
}

// Wait returns when it is this turn, or false when cancelled comes first; Leave must be called in both cases.
func (t *Turn) Wait(cancelled <-chan struct{}) bool {
	for len(t.ahead) > 0 {
		select {
		case <-t.ahead[0]:
			t.ahead = t.ahead[1:]
		case <-cancelled:
			return false
		}
	}
	return true
}

// Leave lets the next one go, once those before this one have gone.
func (t *Turn) Leave() {
	if len(t.ahead) > 0 {
		ahead := t.ahead
		t.ahead = nil
		go func() {
			for _, other := range ahead {
				<-other
			}
			t.leave()
		}()
		return
	}
	t.leave()
}

func (t *Turn) leave() {
	t.order.mu.Lock()
	for _, key := range t.keys {
		if t.order.tails[key] == t.done {
			delete(t.order.tails, key)
		}
	}
	t.order.mu.Unlock()
	close(t.done)
}
