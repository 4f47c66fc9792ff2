package pattern

import (
	"errors"
	"strings"
)

// maxLength bounds a pattern.
const maxLength = 4096

// Glob is a compiled glob. It is for one goroutine at a time.
type Glob struct {
	program
	// byName: the pattern has no '/', so it is held against the last component at any depth.
	byName bool
	suffix string // the pattern is "*" and this, nothing special in it
}

// CompileGlob compiles a pattern as PROTOCOL.md describes it.
func CompileGlob(pattern string) (*Glob, error) {
	if pattern == "" {
		return nil, errors.New("the pattern is empty")
	}
	if len(pattern) > maxLength {
		return nil, errors.New("the pattern is too long")
	}
	for strings.HasPrefix(pattern, "./") {
		pattern = pattern[2:]
	}
	byName := !strings.Contains(pattern, "/")
	pattern = strings.TrimLeft(pattern, "/")
	if strings.HasSuffix(pattern, "/") {
		// A directory: what is in it.
		pattern += "**"
	}
	if pattern == "" {
		pattern = "**"
	}
	g := &Glob{byName: byName}
	if rest, ok := strings.CutPrefix(pattern, "*"); ok && byName && rest != "" && !strings.ContainsAny(rest, `*?[{\`) {
		g.suffix = rest
	}
	c := &compiler{source: pattern, braces: true}
	c.compile()
	g.code = c.code
	return g, nil
}

// Match tells whether a path matches; it is relative and has no '/' at either end.
func (g *Glob) Match(path string) bool {
	if g.byName {
		path = path[strings.LastIndexByte(path, '/')+1:]
	}
	if g.suffix != "" {
		return strings.HasSuffix(path, g.suffix)
	}
	return g.match(path)
}

// Below tells whether anything below the directory dir could match.
func (g *Glob) Below(dir string) bool {
	if g.byName {
		return true
	}
	g.start()
	return g.feed(dir) && g.step('/')
}

// compiler turns a pattern's text into code.
type compiler struct {
	source string
	at     int
	code   []instruction
	braces bool
	// wholeStars: `**` is special only as a whole component, as in .gitignore; else it crosses '/' anywhere.
	wholeStars bool
	broken     bool // a '[' is never closed
}

func (c *compiler) emit(in instruction) int {
	c.code = append(c.code, in)
	return len(c.code) - 1
}

func (c *compiler) literal(r rune) { c.emit(instruction{op: opRune, r: r}) }

func (c *compiler) compile() {
	c.sequence(0, true)
	c.emit(instruction{op: opMatch})
}

// sequence compiles up to the end of the pattern or, inside braces, up to ',' or '}'. boundary tells whether it begins
// where a path component does.
func (c *compiler) sequence(depth int, boundary bool) {
	for c.at < len(c.source) {
		ch := c.source[c.at]
		if depth > 0 && (ch == ',' || ch == '}') {
			return
		}
		switch ch {
		case '*':
			c.stars(depth, boundary)
		case '?':
			c.at++
			c.emit(instruction{op: opAny})
		case '[':
			c.bracket()
		case '{':
			c.brace(depth, boundary)
		case '\\':
			c.at++
			if c.at < len(c.source) {
				c.character()
			} else {
				c.literal('\\')
			}
		default:
			c.character()
		}
		boundary = c.at > 0 && c.source[c.at-1] == '/'
	}
}

func (c *compiler) character() {
	r, size := decode(c.source[c.at:])
	c.at += size
	c.literal(r)
}

func (c *compiler) bracket() {
	set, size := parseClass(c.source[c.at:])
	if size == 0 {
		c.broken = true
		c.character()
		return
	}
	c.at += size
	c.emit(instruction{op: opClass, set: set})
}

// stars compiles a run of '*'.
func (c *compiler) stars(depth int, boundary bool) {
	run := 0
	for c.at < len(c.source) && c.source[c.at] == '*' {
		run++
		c.at++
	}
	rest := c.source[c.at:]
	ends := rest == "" || depth > 0 && (rest[0] == ',' || rest[0] == '}')
	switch {
	case run == 1 || c.wholeStars && !(boundary && (ends || rest[0] == '/')):
		c.repeat(opAny)
	case boundary && !ends && rest[0] == '/':
		// "**/": any number of directories, also none.
		c.at++
		skip := c.emit(instruction{op: opSplit})
		c.repeat(opCross)
		c.literal('/')
		c.code[skip].x, c.code[skip].y = skip+1, len(c.code)
	case boundary && ends:
		// "dir/**": everything in it, but not the directory itself.
		c.emit(instruction{op: opCross})
		c.repeat(opCross)
	default:
		c.repeat(opCross)
	}
}

// repeat compiles any number of op.
func (c *compiler) repeat(op opcode) {
	split := c.emit(instruction{op: opSplit})
	c.emit(instruction{op: op})
	// The way back is a split with only one way.
	c.emit(instruction{op: opSplit, x: split, y: split})
	c.code[split].x, c.code[split].y = split+1, len(c.code)
}

// brace compiles {a,b}. One that is never closed is an ordinary character.
func (c *compiler) brace(depth int, boundary bool) {
	if !c.braces || !c.closes() {
		c.character()
		return
	}
	c.at++
	var jumps []int
	for {
		split := c.emit(instruction{op: opSplit})
		c.sequence(depth+1, boundary)
		jumps = append(jumps, c.emit(instruction{op: opSplit}))
		last := c.source[c.at] == '}'
		c.at++
		next := len(c.code)
		c.code[split].x, c.code[split].y = split+1, next
		if last {
			c.code[split].y = split + 1
			break
		}
	}
	for _, jump := range jumps {
		c.code[jump].x, c.code[jump].y = len(c.code), len(c.code)
	}
}

// closes tells whether the brace at the current place has a partner.
func (c *compiler) closes() bool {
	depth := 0
	for i := c.at; i < len(c.source); i++ {
		switch c.source[i] {
		case '\\':
			i++
		case '[':
			if _, size := parseClass(c.source[i:]); size > 0 {
				i += size - 1
			}
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return true
			}
		}
	}
	return false
}
