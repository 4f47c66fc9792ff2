package command

import (
	"sync"

	"runner/internal/files"
	"runner/internal/gate"
	"runner/internal/mux"
	"runner/internal/quota"
	"runner/internal/wire"
)

// capture keeps the beginning and the end of one stream.
type capture struct {
	half  int
	total int64
	head  []byte
	tail  []byte
	at    int // where the oldest byte of a full tail is
}

func (c *capture) add(p []byte) {
	c.total += int64(len(p))
	if room := c.half - len(c.head); room > 0 {
		n := min(room, len(p))
		c.head = append(c.head, p[:n]...)
		p = p[n:]
	}
	if len(p) > c.half {
		p = p[len(p)-c.half:]
	}
	if room := c.half - len(c.tail); room > 0 {
		n := min(room, len(p))
		c.tail = append(c.tail, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(c.tail[c.at:], p)
		p = p[n:]
		c.at = (c.at + n) % c.half
	}
}

// fits tells whether n more bytes can be kept without losing any.
func (c *capture) fits(n int) bool { return c.total+int64(n) <= int64(2*c.half) }

func (c *capture) parts(kind wire.Kind) []mux.Part {
	return []mux.Part{{Kind: kind, Bytes: c.head}, {Kind: kind, Bytes: c.tail[c.at:]}, {Kind: kind, Bytes: c.tail[:c.at]}}
}

// span returns n bytes from offset of a stream that has lost nothing yet.
func (c *capture) span(offset, n int) [2][]byte {
	var out [2][]byte
	if offset < len(c.head) {
		k := min(n, len(c.head)-offset)
		out[0] = c.head[offset : offset+k]
		offset, n = offset+k, n-k
	}
	offset -= len(c.head)
	if n > 0 {
		out[1] = c.tail[offset : offset+n]
	}
	return out
}

// output is what a command has printed on both streams.
type output struct {
	mu      sync.Mutex
	streams [2]capture
	stop    int64 // 0: no limit
	over    chan struct{}
	spill   *spill
	live    *mux.Stream
	dropped bool // of a live command: nobody takes any more
}

const (
	stdout = 0
	stderr = 1
)

var kinds = [2]wire.Kind{wire.Data, wire.Stderr}

// sink takes what arrives on one stream.
func (o *output) sink(which int) func([]byte) {
	if o.live != nil {
		return func(p []byte) { o.forward(which, p) }
	}
	return func(p []byte) { o.keep(which, p) }
}

func (o *output) keep(which int, p []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.spill != nil && !o.exceeded() {
		o.spill.add(&o.streams, which, p)
	}
	o.streams[which].add(p)
	o.check()
}

func (o *output) forward(which int, p []byte) {
	o.mu.Lock()
	o.streams[which].total += int64(len(p))
	o.check()
	dropped := o.dropped || o.exceeded()
	o.mu.Unlock()
	if dropped {
		return
	}
	if o.live.Send(kinds[which], p) != nil {
		o.mu.Lock()
		o.dropped = true
		o.mu.Unlock()
	}
}

func (o *output) exceeded() bool {
	return o.stop > 0 && o.streams[stdout].total+o.streams[stderr].total > o.stop
}

// check raises the alarm once.
func (o *output) check() {
	if !o.exceeded() {
		return
	}
	select {
	case <-o.over:
	default:
		close(o.over)
	}
}

// spill is the file that takes everything once a stream's output does not fit in memory.
type spill struct {
	path string
	file *files.Appender
	// order holds the lengths of what arrived, in turns: stdout, stderr, stdout, …
	order  []uint32
	failed bool

	quota     *quota.Meter
	spent     int64
	gate      *gate.Gate
	cancelled <-chan struct{}
}

// add is called before p is added to the streams.
func (s *spill) add(streams *[2]capture, which int, p []byte) {
	switch {
	case s.failed:
	case s.file != nil:
		s.write(p)
	case streams[which].fits(len(p)):
		s.remember(which, len(p))
	default:
		s.begin(streams)
		s.write(p)
	}
}

func (s *spill) remember(which, n int) {
	if n == 0 {
		return
	}
	if len(s.order) > 0 && (len(s.order)-1)%2 == which {
		s.order[len(s.order)-1] += uint32(n)
		return
	}
	if len(s.order)%2 != which {
		s.order = append(s.order, 0)
	}
	s.order = append(s.order, uint32(n))
}

func (s *spill) begin(streams *[2]capture) {
	if !s.gate.Enter(gate.Change, s.cancelled) {
		s.failed = true
		return
	}
	file, err := files.CreateAppender(s.path)
	s.gate.Leave(gate.Change)
	if err != nil {
		s.failed = true
		return
	}
	s.file = file
	var at [2]int
	for i, n := range s.order {
		for _, piece := range streams[i%2].span(at[i%2], int(n)) {
			s.write(piece)
		}
		at[i%2] += int(n)
	}
	s.order = nil
}

func (s *spill) write(p []byte) {
	if s.failed || len(p) == 0 {
		return
	}
	if !s.gate.Enter(gate.Change, s.cancelled) {
		s.failed = true
		go s.remove()
		return
	}
	err := s.quota.Spend(int64(len(p)))
	if err == nil {
		s.spent += int64(len(p))
		err = s.file.Append(p)
	}
	s.gate.Leave(gate.Change)
	if err != nil {
		s.failed = true
		s.remove()
	}
}

// remove gives the file up, as soon as files may change.
func (s *spill) remove() {
	s.gate.Enter(gate.Change, nil)
	s.file.Remove()
	s.quota.Refund(s.spent)
	s.gate.Leave(gate.Change)
}

// finish closes the file and tells whether it holds everything.
func (s *spill) finish() bool {
	if s == nil || s.file == nil || s.failed {
		return false
	}
	return s.file.Close() == nil
}
