package pattern

import (
	"bytes"
	"strings"
)

const (
	// MaxIgnoreFile bounds how much of a .gitignore file is read.
	MaxIgnoreFile = 512 << 10
	// maxRules bounds the rules of one file; each is held against every name.
	maxRules = 4096
)

// Ignore holds the rules of one .gitignore file. It is for one goroutine at a time.
type Ignore struct{ rules []rule }

type rule struct {
	program
	negated bool
	dirOnly bool
	byName  bool
	literal string // nothing special in it
	suffix  string // "*" and this
	needle  string // what must occur in any match
}

// ParseIgnore reads the content of a .gitignore file. A rule that makes no sense matches nothing, as in git.
func ParseIgnore(content []byte) *Ignore {
	content = bytes.TrimPrefix(content, []byte("\xef\xbb\xbf"))
	ignore := &Ignore{}
	for line := range bytes.SplitSeq(content, []byte{'\n'}) {
		if len(ignore.rules) >= maxRules {
			break
		}
		line = bytes.TrimSuffix(line, []byte{'\r'})
		if r, ok := parseRule(string(line)); ok {
			ignore.rules = append(ignore.rules, r)
		}
	}
	return ignore
}

func parseRule(line string) (rule, bool) {
	var r rule
	line = trimSpaces(line)
	if line == "" || line[0] == '#' || len(line) > maxLength {
		return r, false
	}
	if line[0] == '!' {
		r.negated = true
		line = line[1:]
	}
	if strings.HasSuffix(line, "/") {
		r.dirOnly = true
		line = line[:len(line)-1]
	}
	r.byName = !strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if line == "" {
		return r, false
	}
	return r, r.compile(line)
}

// trimSpaces removes trailing spaces that are not escaped.
func trimSpaces(line string) string {
	for strings.HasSuffix(line, " ") {
		cut := line[:len(line)-1]
		escapes := 0
		for strings.HasSuffix(cut[:len(cut)-escapes], `\`) {
			escapes++
		}
		if escapes%2 == 1 {
			break
		}
		line = cut
	}
	return line
}

func (r *rule) compile(line string) bool {
	const special = `*?[\`
	if !strings.ContainsAny(line, special) {
		r.literal = line
		return true
	}
	if rest, ok := strings.CutPrefix(line, "*"); ok && r.byName && rest != "" && !strings.ContainsAny(rest, special) {
		r.suffix = rest
		return true
	}
	if !strings.ContainsAny(line, `[\`) {
		for piece := range strings.SplitSeq(strings.ReplaceAll(line, "**/", "*"), "*") {
			for piece := range strings.SplitSeq(piece, "?") {
				if piece = strings.Trim(piece, "/"); len(piece) > len(r.needle) {
					r.needle = piece
				}
			}
		}
	}
	c := &compiler{source: line, wholeStars: true}
	c.compile()
	r.code = c.code
	return !c.broken && !endsInEscape(line)
}

// endsInEscape: git takes a backslash at the end for a mistake.
func endsInEscape(line string) bool {
	escapes := 0
	for strings.HasSuffix(line[:len(line)-escapes], `\`) {
		escapes++
	}
	return escapes%2 == 1
}

func (r *rule) match(path, name string, isDir bool) bool {
	if r.dirOnly && !isDir {
		return false
	}
	if r.byName {
		path = name
	}
	switch {
	case r.literal != "":
		return path == r.literal
	case r.suffix != "":
		return strings.HasSuffix(path, r.suffix)
	case r.needle != "" && !strings.Contains(path, r.needle):
		return false
	}
	return r.program.match(path)
}

// Decide says what the rules say about a path, relative to the file's directory: the last rule that matches wins.
func (i *Ignore) Decide(path, name string, isDir bool) (ignored, decided bool) {
	for n := len(i.rules) - 1; n >= 0; n-- {
		if r := &i.rules[n]; r.match(path, name, isDir) {
			return !r.negated, true
		}
	}
	return false, false
}

// Ignored answers for a path on its own: what lies in an ignored directory is ignored, whatever else is said about it.
func (i *Ignore) Ignored(path string, isDir bool) bool {
	for at := 0; at < len(path); {
		end := strings.IndexByte(path[at:], '/')
		last := end < 0
		if last {
			end = len(path)
		} else {
			end += at
		}
		if ignored, _ := i.Decide(path[:end], path[at:end], !last || isDir); ignored {
			return true
		}
		at = end + 1
	}
	return false
}
