package wire

import (
	"errors"
	"strconv"
	"unicode/utf8"
)

// Text is a string of any bytes but NUL. In JSON a byte that is not valid UTF-8 is written as the lone surrogate
// U+DC80…U+DCFF, which is what Python calls surrogateescape. encoding/json alone would turn it into U+FFFD.
type Text string

var (
	errNotString = errors.New("not a string")
	errNUL       = errors.New("a string holds a NUL byte")
	errSurrogate = errors.New("a string holds a surrogate that stands for no byte")
	errEscape    = errors.New("a string holds a broken escape")
	errUTF8      = errors.New("a string is not valid UTF-8")
	errNotObject = errors.New("not an object")
)

// UnmarshalJSON takes a JSON string; null leaves the text as it is.
func (t *Text) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	s, err := Unquote(raw)
	if err != nil {
		return err
	}
	*t = Text(s)
	return nil
}

// Unquote decodes one JSON string with its quotes.
func Unquote(raw []byte) (string, error) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", errNotString
	}
	raw = raw[1 : len(raw)-1]
	if !utf8.Valid(raw) {
		return "", errUTF8
	}
	if plain(raw) {
		return string(raw), nil
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == 0:
			return "", errNUL
		case c == '"':
			return "", errEscape
		case c != '\\':
			out = append(out, c)
			i++
		default:
			var n int
			var err error
			if out, n, err = unescape(out, raw[i:]); err != nil {
				return "", err
			}
			i += n
		}
	}
	return string(out), nil
}

func plain(raw []byte) bool {
	for _, c := range raw {
		if c == '\\' || c == 0 || c == '"' {
			return false
		}
	}
	return true
}

// unescape decodes the escape at the start of raw and returns how many bytes of raw it took.
func unescape(out, raw []byte) ([]byte, int, error) {
	if len(raw) < 2 {
		return nil, 0, errEscape
	}
	if raw[1] != 'u' {
		c, ok := shortEscape(raw[1])
		if !ok {
			return nil, 0, errEscape
		}
		return append(out, c), 2, nil
	}
	r, ok := hex4(raw[2:])
	if !ok {
		return nil, 0, errEscape
	}
	switch {
	case r == 0:
		return nil, 0, errNUL
	case r >= 0xdc80 && r <= 0xdcff:
		return append(out, byte(r-0xdc00)), 6, nil
	case r >= 0xd800 && r <= 0xdbff:
		low, ok := rune(0), false
		if len(raw) >= 12 && raw[6] == '\\' && raw[7] == 'u' {
			low, ok = hex4(raw[8:])
		}
		if !ok || low < 0xdc00 || low > 0xdfff {
			return nil, 0, errSurrogate
		}
		return utf8.AppendRune(out, 0x10000+(r-0xd800)<<10+(low-0xdc00)), 12, nil
	case r >= 0xdc00 && r <= 0xdfff:
		return nil, 0, errSurrogate
	}
	return utf8.AppendRune(out, r), 6, nil
}

func shortEscape(c byte) (byte, bool) {
	switch c {
	case '"', '\\', '/':
		return c, true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	}
	return 0, false
}

func hex4(raw []byte) (rune, bool) {
	if len(raw) < 4 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(raw[:4]), 16, 32)
	return rune(v), err == nil
}

const hexDigits = "0123456789abcdef"

// AppendQuoted appends s as a JSON string with its quotes.
func AppendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if _, size := utf8.DecodeRuneInString(s[i:]); size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, c)
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(dst, '\\', c)
	case c == '\n':
		return append(dst, '\\', 'n')
	case c == '\t':
		return append(dst, '\\', 't')
	case c >= utf8.RuneSelf:
		return append(dst, '\\', 'u', 'd', 'c', hexDigits[c>>4], hexDigits[c&15])
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// Variable is one environment variable.
type Variable struct{ Name, Value string }

// Env is a JSON object of strings. It is parsed by hand because the names can hold any bytes too.
type Env []Variable

// UnmarshalJSON takes an object of strings; raw is known to be valid JSON.
func (e *Env) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return nil
	}
	rest := skipSpace(raw)
	if len(rest) == 0 || rest[0] != '{' {
		return errNotObject
	}
	rest = skipSpace(rest[1:])
	for len(rest) > 0 && rest[0] != '}' {
		var v Variable
		var err error
		if v.Name, rest, err = nextString(rest); err != nil {
			return err
		}
		if len(rest) == 0 || rest[0] != ':' {
			return errNotObject
		}
		if v.Value, rest, err = nextString(skipSpace(rest[1:])); err != nil {
			return err
		}
		*e = append(*e, v)
		if len(rest) > 0 && rest[0] == ',' {
			rest = skipSpace(rest[1:])
		}
	}
	if len(rest) == 0 {
		return errNotObject
	}
	return nil
}

// nextString decodes the string at the start of raw and skips the space behind it.
func nextString(raw []byte) (string, []byte, error) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", nil, errNotString
	}
	for i := 1; i < len(raw); i++ {
		switch raw[i] {
		case '\\':
			i++
		case '"':
			s, err := Unquote(raw[:i+1])
			return s, skipSpace(raw[i+1:]), err
		}
	}
	return "", nil, errNotString
}

func skipSpace(raw []byte) []byte {
	for len(raw) > 0 && (raw[0] == ' ' || raw[0] == '\t' || raw[0] == '\n' || raw[0] == '\r') {
		raw = raw[1:]
	}
	return raw
}
