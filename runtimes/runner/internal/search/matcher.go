package search

import (
	"bytes"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// matcher decides which lines match. It looks for text that every match must hold first, in the whole buffer at once,
// and asks the regular expression only about the lines where that occurs.
type matcher struct {
	re      *regexp.Regexp // nil: the needles are all there is to it
	needles []needle
	dfa     *dfa // when there is nothing to look for first
	never   bool
}

// newMatcher compiles a pattern; the error is the reason in words.
func newMatcher(pattern string, literal, ignoreCase bool) (*matcher, error) {
	if literal && !ignoreCase {
		if strings.Contains(pattern, "\n") {
			return &matcher{never: true}, nil
		}
		if pattern == "" {
			return &matcher{}, nil
		}
		return &matcher{needles: []needle{newNeedle(pattern, false)}}, nil
	}
	if literal {
		pattern = regexp.QuoteMeta(pattern)
	}
	if ignoreCase {
		pattern = "(?i)" + pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	m := &matcher{re: re}
	if tree, err := syntax.Parse(pattern, syntax.Perl); err == nil {
		tree = tree.Simplify()
		if need, ok := required(tree); !ok {
			m.dfa = newDFA(tree)
		} else {
			for _, text := range need.texts {
				m.needles = append(m.needles, newNeedle(text, need.fold))
			}
		}
	}
	return m, nil
}

// fork copies the matcher for another goroutine.
func (m *matcher) fork() *matcher {
	c := *m
	c.needles = append([]needle(nil), m.needles...)
	c.dfa = m.dfa.fork()
	return &c
}

// begin must be called when the buffer has changed.
func (m *matcher) begin() {
	for i := range m.needles {
		m.needles[i].reset()
	}
}

// next finds the first matching line of buf at or after from, where a line begins. at is where in the line the match
// is. The last line need not end in a newline.
func (m *matcher) next(buf []byte, from int) (start, end, at int, found bool) {
	if m.never {
		return 0, 0, 0, false
	}
	if m.dfa != nil {
		start, end, found = m.dfa.next(buf, from)
		return start, end, 0, found
	}
	for from < len(buf) {
		hint := from
		if len(m.needles) > 0 {
			if hint = m.candidate(buf, from); hint < 0 {
				return 0, 0, 0, false
			}
			from += bytes.LastIndexByte(buf[from:hint], '\n') + 1
		}
		end = len(buf)
		if n := bytes.IndexByte(buf[hint:], '\n'); n >= 0 {
			end = hint + n
		}
		line := trimCR(buf[from:end])
		if at, ok := m.matches(line, hint-from); ok {
			return from, end, at, true
		}
		from = end + 1
	}
	return 0, 0, 0, false
}

// matches decides about one line; hint is where a needle was found.
func (m *matcher) matches(line []byte, hint int) (at int, ok bool) {
	if m.re == nil {
		if len(m.needles) == 0 {
			return 0, true
		}
		// The needle may have taken in the carriage return that is not part of the line.
		return hint, hint+len(m.needles[0].text) <= len(line)
	}
	return hint, m.re.Match(line)
}

// locate finds where in a line the match begins, for lines too long to be shown whole.
func (m *matcher) locate(line []byte, at int) int {
	if m.re == nil {
		return at
	}
	if loc := m.re.FindIndex(line); loc != nil {
		return loc[0]
	}
	return at
}

// candidate is the first place at or after from where any needle occurs, or -1.
func (m *matcher) candidate(buf []byte, from int) int {
	best := -1
	for i := range m.needles {
		if at := m.needles[i].find(buf, from); at >= 0 && (best < 0 || at < best) {
			best = at
		}
	}
	return best
}

func trimCR(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}

// needle is a text to look for; it remembers what it found, because the needles of an alternation are found at
// different paces.
type needle struct {
	text string // in lower case when fold
	raw  []byte
	fold bool
	rare int // index of the byte to look for when fold
	// Where text, or the rare byte in either case, is next; -1: nowhere, -2: not looked yet.
	at    int
	cases [2]int
}

func newNeedle(text string, fold bool) needle {
	n := needle{text: text, raw: []byte(text), fold: fold}
	if fold {
		n.rare = rarest(text)
	}
	n.reset()
	return n
}

func (n *needle) reset() { n.at, n.cases = -2, [2]int{-2, -2} }

func (n *needle) find(buf []byte, from int) int {
	if n.at == -1 || n.at >= from {
		return n.at
	}
	if n.fold {
		n.at = n.findFold(buf, from)
	} else if n.at = bytes.Index(buf[from:], n.raw); n.at >= 0 {
		n.at += from
	}
	return n.at
}

// findFold looks for the rarest byte in both cases and compares around it.
func (n *needle) findFold(buf []byte, from int) int {
	at := from + n.rare
	for at < len(buf) {
		at = n.nextRare(buf, at)
		if at < 0 {
			return -1
		}
		start := at - n.rare
		if start+len(n.text) > len(buf) {
			return -1
		}
		if equalFold(buf[start:start+len(n.text)], n.text) {
			return start
		}
		at++
	}
	return -1
}

func (n *needle) nextRare(buf []byte, from int) int {
	low := n.text[n.rare]
	best := -1
	for i, c := range [2]byte{low, upper(low)} {
		if i == 1 && c == low {
			break
		}
		if n.cases[i] != -1 && n.cases[i] < from {
			if n.cases[i] = bytes.IndexByte(buf[from:], c); n.cases[i] >= 0 {
				n.cases[i] += from
			}
		}
		if at := n.cases[i]; at >= 0 && (best < 0 || at < best) {
			best = at
		}
	}
	return best
}

func upper(c byte) byte {
	if c >= 'a' && c <= 'z' {
		return c - 'a' + 'A'
	}
	return c
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c - 'A' + 'a'
	}
	return c
}

func equalFold(p []byte, low string) bool {
	for i, c := range p {
		if lower(c) != low[i] {
			return false
		}
	}
	return true
}

// common are the bytes of source text, most frequent first.
const commonBytes = " etnraoisldcupmfh_.=\"(),-gbyv:wk'0x/1j2qz{}"

func rarest(text string) int {
	best, score := 0, -1
	for i := 0; i < len(text); i++ {
		s := strings.IndexByte(commonBytes, text[i])
		if s < 0 {
			s = len(commonBytes)
		}
		if s > score {
			best, score = i, s
		}
	}
	return best
}

// need is a set of texts one of which occurs in every match.
type need struct {
	texts []string
	fold  bool
}

// maxNeedles bounds an alternation that is still looked for text by text.
const maxNeedles = 8

func (n need) shortest() int {
	shortest := 1 << 30
	for _, t := range n.texts {
		shortest = min(shortest, len(t))
	}
	return shortest
}

// required finds text that every match of re must hold.
func required(re *syntax.Regexp) (need, bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return literalNeed(re)
	case syntax.OpCapture, syntax.OpPlus:
		return required(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return required(re.Sub[0])
		}
	case syntax.OpConcat:
		var best need
		found := false
		for _, sub := range re.Sub {
			if n, ok := required(sub); ok && (!found || n.shortest() > best.shortest()) {
				best, found = n, true
			}
		}
		return best, found
	case syntax.OpAlternate:
		return requiredOfAny(re.Sub)
	}
	return need{}, false
}

func requiredOfAny(subs []*syntax.Regexp) (need, bool) {
	var all need
	for _, sub := range subs {
		n, ok := required(sub)
		if !ok {
			return need{}, false
		}
		all.fold = all.fold || n.fold
		all.texts = append(all.texts, n.texts...)
	}
	if all.fold {
		for i, t := range all.texts {
			if all.texts[i] = foldable(t); all.texts[i] == "" {
				return need{}, false
			}
		}
	}
	return all, len(all.texts) <= maxNeedles
}

func literalNeed(re *syntax.Regexp) (need, bool) {
	fold := re.Flags&syntax.FoldCase != 0
	text := string(re.Rune)
	// U+FFFD also stands for bytes that are not UTF-8; a newline is in no line.
	for _, piece := range strings.FieldsFunc(text, func(r rune) bool { return r == utf8.RuneError }) {
		text = piece
	}
	if strings.ContainsRune(text, utf8.RuneError) {
		return need{}, false
	}
	if fold {
		text = foldable(text)
	}
	return need{[]string{text}, fold}, text != ""
}

// foldable is the longest piece of a text that can be compared byte by byte without regard to case, in lower case. 'k'
// and 's' are not in it: the Kelvin sign and the long s are their other cases.
func foldable(text string) string {
	best := ""
	pieces := strings.FieldsFunc(text, func(r rune) bool {
		return r >= utf8.RuneSelf || r == 'k' || r == 'K' || r == 's' || r == 'S'
	})
	for _, piece := range pieces {
		if len(piece) > len(best) {
			best = piece
		}
	}
	return strings.ToLower(best)
}
