// Package pattern matches paths against globs and .gitignore rules.
//
// A pattern is compiled to a small machine whose states are advanced together, one character of the path at a time: the
// time is bounded by pattern times path, whatever hostile pattern someone writes.
package pattern

import "unicode/utf8"

type opcode uint8

const (
	opRune  opcode = iota // this character
	opAny                 // any character but '/'
	opCross               // any character
	opClass               // one of a set, never '/'
	opSplit               // go on at both x and y
	opMatch
)

type instruction struct {
	op   opcode
	r    rune
	x, y int
	set  *class
}

// program is a compiled pattern. It holds its own working memory: one goroutine at a time may use it.
type program struct {
	code []instruction

	now, next []int
	seen      []uint32
	round     uint32
}

// start sets the machine to its first state.
func (p *program) start() {
	if p.seen == nil {
		p.seen = make([]uint32, len(p.code))
	}
	p.now = p.now[:0]
	p.turn()
	p.now = p.reach(p.now, 0)
}

// turn begins a new set of states.
func (p *program) turn() {
	if p.round++; p.round == 0 {
		clear(p.seen)
		p.round = 1
	}
}

// reach adds a state and those it leads to without taking a character.
func (p *program) reach(states []int, pc int) []int {
	for {
		if p.seen[pc] == p.round {
			return states
		}
		p.seen[pc] = p.round
		in := &p.code[pc]
		if in.op != opSplit {
			return append(states, pc)
		}
		states = p.reach(states, in.x)
		pc = in.y
	}
}

// step takes one character and tells whether any state is left.
func (p *program) step(r rune) bool {
	p.turn()
	p.next = p.next[:0]
	for _, pc := range p.now {
		if p.code[pc].accepts(r) {
			p.next = p.reach(p.next, pc+1)
		}
	}
	p.now, p.next = p.next, p.now
	return len(p.now) > 0
}

func (in *instruction) accepts(r rune) bool {
	switch in.op {
	case opRune:
		return in.r == r
	case opAny:
		return r != '/'
	case opCross:
		return true
	case opClass:
		return r != '/' && in.set.holds(r)
	}
	return false
}

func (p *program) accepted() bool {
	for _, pc := range p.now {
		if p.code[pc].op == opMatch {
			return true
		}
	}
	return false
}

// feed takes a whole string and tells whether any state is left.
func (p *program) feed(s string) bool {
	for i := 0; i < len(s); {
		r, size := decode(s[i:])
		if !p.step(r) {
			return false
		}
		i += size
	}
	return true
}

func (p *program) match(s string) bool {
	p.start()
	return p.feed(s) && p.accepted()
}

// decode reads one character. A byte that is not UTF-8 is a character of its own: the surrogate Python's
// surrogateescape gives it.
func decode(s string) (rune, int) {
	if c := s[0]; c < utf8.RuneSelf {
		return rune(c), 1
	}
	r, size := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && size <= 1 {
		return 0xdc00 + rune(s[0]), 1
	}
	return r, size
}

// class is a bracket expression.
type class struct {
	negated bool
	spans   [][2]rune
}

func (c *class) holds(r rune) bool {
	for _, span := range c.spans {
		if span[0] <= r && r <= span[1] {
			return !c.negated
		}
	}
	return c.negated
}

// parseClass reads the bracket expression at the start of s, which begins with '['; size is 0 when it is not closed.
func parseClass(s string) (c *class, size int) {
	c = &class{}
	i := 1
	if i < len(s) && (s[i] == '!' || s[i] == '^') {
		c.negated = true
		i++
	}
	for first := true; i < len(s); first = false {
		if s[i] == ']' && !first {
			return c, i + 1
		}
		if n := c.named(s[i:]); n > 0 {
			i += n
			continue
		}
		low, n := classRune(s[i:])
		i += n
		high := low
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' {
			high, n = classRune(s[i+1:])
			i += 1 + n
		}
		c.spans = append(c.spans, [2]rune{low, high})
	}
	return nil, 0
}

func classRune(s string) (rune, int) {
	if s[0] == '\\' && len(s) > 1 {
		r, n := decode(s[1:])
		return r, n + 1
	}
	return decode(s)
}

var namedClasses = map[string][][2]rune{
	"alnum": {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}, "alpha": {{'A', 'Z'}, {'a', 'z'}}, "digit": {{'0', '9'}},
	"lower": {{'a', 'z'}}, "upper": {{'A', 'Z'}}, "space": {{'\t', '\r'}, {' ', ' '}}, "blank": {{'\t', '\t'}, {' ', ' '}},
	"punct": {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}, "xdigit": {{'0', '9'}, {'A', 'F'}, {'a', 'f'}},
	"cntrl": {{0, 31}, {127, 127}}, "graph": {{'!', '~'}}, "print": {{' ', '~'}},
}

// named reads "[:digit:]" and its like.
func (c *class) named(s string) int {
	if len(s) < 4 || s[0] != '[' || s[1] != ':' {
		return 0
	}
	for i := 2; i+1 < len(s) && i < 10; i++ {
		if s[i] == ':' && s[i+1] == ']' {
			spans, ok := namedClasses[s[2:i]]
			if !ok {
				return 0
			}
			c.spans = append(c.spans, spans...)
			return i + 2
		}
	}
	return 0
}
