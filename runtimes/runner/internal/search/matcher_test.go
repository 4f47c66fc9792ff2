package search

import (
	"regexp"
	"strings"
	"testing"
)

// naive is what matcher must agree with: every line on its own, without its carriage return.
func naive(t *testing.T, pattern string, literal, fold bool, text string) []int {
	t.Helper()
	if literal {
		pattern = regexp.QuoteMeta(pattern)
	}
	if fold {
		pattern = "(?i)" + pattern
	}
	re := regexp.MustCompile(pattern)
	var at []int
	start := 0
	for start < len(text) {
		end := len(text)
		if n := strings.IndexByte(text[start:], '\n'); n >= 0 {
			end = start + n
		}
		if re.MatchString(strings.TrimSuffix(text[start:end], "\r")) {
			at = append(at, start)
		}
		start = end + 1
	}
	return at
}

func found(t *testing.T, pattern string, literal, fold bool, text string) []int {
	t.Helper()
	m, err := newMatcher(pattern, literal, fold)
	if err != nil {
		t.Fatal(err)
	}
	m.begin()
	var at []int
	buf := []byte(text)
	for pos := 0; pos < len(buf); {
		start, end, _, ok := m.next(buf, pos)
		if !ok {
			break
		}
		at = append(at, start)
		pos = end + 1
	}
	return at
}

func TestMatcherAgreesWithOneLineAtATime(t *testing.T) {
	texts := []string{
		"", "\n", "foo\n", "foo", "foo\r\nbar\r\n", "a\n\nb\n", "xfoox\nFOO\nfo\no\n", "one two\nthree\r\n\r\nfour",
		"K kelvin \u212a\nſ long s\nstraße\n", "\xff\xfe foo\n\xff\n", "needle\nhay\nneedle needle\n", "tab\tx\n  \n", "12345\nabc123\n",
	}
	patterns := []string{
		"", "foo", "^foo$", "^$", "o$", "^f", "foo|bar", "needle|four|three", `\d+`, `\s`, `[^x]$`, ".", "..$", "foo\\s+bar", "foo\nbar",
		"k", "strasse|straße", "(a|b)+", "x*", "[a-z]{3}", `\bfoo\b`, "(?s).", `\Afoo\z`, "foo\r", "\u212a", "long s",
	}
	for _, text := range texts {
		for _, pattern := range patterns {
			for _, literal := range []bool{false, true} {
				for _, fold := range []bool{false, true} {
					want, got := naive(t, pattern, literal, fold, text), found(t, pattern, literal, fold, text)
					if len(want) != len(got) {
						t.Errorf("%q (literal %v, fold %v) in %q: %v, want %v", pattern, literal, fold, text, got, want)
						continue
					}
					for i := range want {
						if want[i] != got[i] {
							t.Errorf("%q (literal %v, fold %v) in %q: %v, want %v", pattern, literal, fold, text, got, want)
						}
					}
				}
			}
		}
	}
}

func FuzzMatcher(f *testing.F) {
	f.Add("fo+|ba[rz]", "foo\r\nbar\nxbaz", true)
	f.Add("(?i)k$", "\u212a\r\n", false)
	f.Fuzz(func(t *testing.T, pattern, text string, fold bool) {
		if _, err := newMatcher(pattern, false, fold); err != nil || len(pattern) > 100 || len(text) > 1000 {
			return
		}
		want, got := naive(t, pattern, false, fold, text), found(t, pattern, false, fold, text)
		if len(want) != len(got) {
			t.Fatalf("%q in %q: %v, want %v", pattern, text, got, want)
		}
	})
}

func TestExcerptHoldsTheMatch(t *testing.T) {
	line := []byte(strings.Repeat("é", 1000) + "needle" + strings.Repeat("é", 1000))
	for _, size := range []int{10, 11, 50, 51} {
		part := excerpt(line, 2000, size)
		if len(part) > size || !strings.Contains(string(part), "needle") || !strings.HasPrefix(strings.TrimLeft(string(part), "é"), "needle") {
			t.Errorf("size %d: %q", size, part)
		}
	}
}
