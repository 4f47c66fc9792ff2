package search

import (
	"bytes"
	"encoding/binary"
	"regexp/syntax"
	"unicode/utf8"
)

const (
	// maxProgram is the size of expression up to which a table is worth building.
	maxProgram = 400
	// maxStates bounds the table; it is built anew when it is full.
	maxStates = 512
	// maxWide bounds the characters beyond ASCII that one state remembers.
	maxWide = 512
)

// dfa decides whether lines match, one table look-up per character, where regexp would need a hundred times as long. The
// table is filled in as it is needed.
type dfa struct {
	prog   *syntax.Prog
	words  bool // the expression asks for word boundaries
	states map[string]*state
	first  *state
	hit    *state

	// Scratch for making a state.
	seen  []uint32
	round uint32
	stack []uint32
	key   []byte
}

// state is a set of places in the program, and what the character before was, for ^ and \b.
// The columns of '\r', '\n' and of bytes that are not ASCII stay empty.
type state struct {
	places []uint32
	before rune
	next   [256]*state
	end    *state
	wide   map[rune]*state
}

// Stand-ins for the character before.
const (
	nothing = rune(-1)
	word    = 'w'
	noWord  = ' '
)

func newDFA(tree *syntax.Regexp) *dfa {
	prog, err := syntax.Compile(tree)
	if err != nil || len(prog.Inst) > maxProgram {
		return nil
	}
	d := &dfa{prog: prog, hit: &state{}, seen: make([]uint32, len(prog.Inst))}
	const boundaries = syntax.EmptyWordBoundary | syntax.EmptyNoWordBoundary
	for _, in := range prog.Inst {
		d.words = d.words || in.Op == syntax.InstEmptyWidth && syntax.EmptyOp(in.Arg)&boundaries != 0
	}
	d.reset()
	return d
}

func (d *dfa) fork() *dfa {
	if d == nil {
		return nil
	}
	c := &dfa{prog: d.prog, words: d.words, hit: &state{}, seen: make([]uint32, len(d.prog.Inst))}
	c.reset()
	return c
}

func (d *dfa) reset() {
	d.states = make(map[string]*state)
	d.first = d.state(nil, nothing)
}

// next finds the first line at or after from that matches.
func (d *dfa) next(buf []byte, from int) (start, end int, found bool) {
	start = from
	s := d.first
	for i := from; i < len(buf); i++ {
		c := buf[i]
		t := s.next[c]
		if t != nil && t != d.hit {
			s = t
			continue
		}
		if c == '\n' || c == '\r' && (i+1 == len(buf) || buf[i+1] == '\n') {
			if c == '\r' && i+1 < len(buf) {
				i++
			}
			if d.finish(s) {
				return start, i, true
			}
			start, s = i+1, d.first
			continue
		}
		if t == nil {
			size := 1
			if t, size = d.step(s, buf[i:]); size > 1 {
				i += size - 1
			}
		}
		if t == d.hit {
			return start, lineEnd(buf, i), true
		}
		s = t
	}
	return start, len(buf), start < len(buf) && d.finish(s)
}

// finish tells whether the line matches when it ends here.
func (d *dfa) finish(s *state) bool {
	if s.end == nil {
		s.end = d.make(s, nothing)
	}
	return s.end == d.hit
}

func lineEnd(buf []byte, from int) int {
	if n := bytes.IndexByte(buf[from:], '\n'); n >= 0 {
		return from + n
	}
	return len(buf)
}

// step is where the character at the start of p leads from a state.
func (d *dfa) step(s *state, p []byte) (*state, int) {
	if c := p[0]; c < utf8.RuneSelf {
		t := d.make(s, rune(c))
		if c != '\r' {
			s.next[c] = t
		}
		return t, 1
	}
	// As in regexp, a byte that is not UTF-8 is U+FFFD.
	r, size := utf8.DecodeRune(p)
	t := s.wide[r]
	if t == nil {
		t = d.make(s, r)
		if s.wide == nil {
			s.wide = make(map[rune]*state)
		}
		if len(s.wide) < maxWide {
			s.wide[r] = t
		}
	}
	return t, size
}

// make builds the state a character leads to; after is nothing at the end of the line.
func (d *dfa) make(s *state, after rune) *state {
	flags := syntax.EmptyOpContext(s.before, after)
	if d.round++; d.round == 0 {
		clear(d.seen)
		d.round = 1
	}
	// A match may begin anywhere, so the start is always among the places.
	d.stack = append(append(d.stack[:0], s.places...), uint32(d.prog.Start))
	var places []uint32
	for len(d.stack) > 0 {
		pc := d.stack[len(d.stack)-1]
		d.stack = d.stack[:len(d.stack)-1]
		if d.seen[pc] == d.round {
			continue
		}
		d.seen[pc] = d.round
		switch in := &d.prog.Inst[pc]; in.Op {
		case syntax.InstMatch:
			return d.hit
		case syntax.InstAlt, syntax.InstAltMatch:
			d.stack = append(d.stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			d.stack = append(d.stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				d.stack = append(d.stack, in.Out)
			}
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if after != nothing && in.MatchRune(after) {
				places = append(places, in.Out)
			}
		}
	}
	before := rune(noWord)
	if d.words && syntax.IsWordChar(after) {
		before = word
	}
	return d.state(places, before)
}

// state finds or makes the state of a set.
func (d *dfa) state(places []uint32, before rune) *state {
	if d.round++; d.round == 0 {
		clear(d.seen)
		d.round = 1
	}
	unique := places[:0]
	for _, pc := range places {
		if d.seen[pc] != d.round {
			d.seen[pc] = d.round
			unique = append(unique, pc)
		}
	}
	d.key = append(d.key[:0], byte(before))
	for _, pc := range unique {
		d.key = binary.NativeEndian.AppendUint16(d.key, uint16(pc))
	}
	if known := d.states[string(d.key)]; known != nil {
		return known
	}
	s := &state{places: unique, before: before}
	if len(d.states) >= maxStates {
		// The states in use stay valid; only what leads to them is forgotten.
		d.states = make(map[string]*state)
		d.first = &state{before: nothing}
	}
	d.states[string(d.key)] = s
	return s
}
