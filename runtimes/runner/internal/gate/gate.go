// Package gate holds back what would change the workspace while it is being copied.
package gate

import "sync"

// Kind is what passes through a gate; each kind can be waited for by itself.
type Kind int

const (
	// Start is a process being started or made to go on.
	Start Kind = iota
	// Change is the runner changing files.
	Change
	kinds
)

// Gate is open unless closed; its zero value is ready for use.
type Gate struct {
	mu     sync.Mutex
	inside [kinds]int
	opened chan struct{} // of a closed gate: closed when it opens
	left   chan struct{} // closed when someone leaves, if someone waits for that
}

// Enter waits until the gate is open and passes, or returns false when cancelled comes first. Leave must follow.
func (g *Gate) Enter(k Kind, cancelled <-chan struct{}) bool {
	for {
		g.mu.Lock()
		opened := g.opened
		if opened == nil {
			g.inside[k]++
			g.mu.Unlock()
			return true
		}
		g.mu.Unlock()
		select {
		case <-opened:
		case <-cancelled:
			return false
		}
	}
}

// TryEnter passes if the gate is open now. Leave must follow if it is.
func (g *Gate) TryEnter(k Kind) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		return false
	}
	g.inside[k]++
	return true
}

// Leave is the other half of Enter.
func (g *Gate) Leave(k Kind) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside[k]--
	if g.left != nil {
		close(g.left)
		g.left = nil
	}
}

// Close lets nobody pass any more; it returns false when the gate is closed already.
func (g *Gate) Close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		return false
	}
	g.opened = make(chan struct{})
	return true
}

// Drain waits until nobody of that kind is inside, or returns false when cancelled comes first.
func (g *Gate) Drain(k Kind, cancelled <-chan struct{}) bool {
	for {
		g.mu.Lock()
		if g.inside[k] == 0 {
			g.mu.Unlock()
			return true
		}
		if g.left == nil {
			g.left = make(chan struct{})
		}
		left := g.left
		g.mu.Unlock()
		select {
		case <-left:
		case <-cancelled:
			return false
		}
	}
}

// Open lets everyone pass again.
func (g *Gate) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.opened)
	g.opened = nil
}
