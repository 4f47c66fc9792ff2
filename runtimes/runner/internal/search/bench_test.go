package search

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkMatcher measures one pass over source text for a needle, an alternation, and an expression without either.
func BenchmarkMatcher(b *testing.B) {
	var text bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&text, "    def method_%d(self, value):  # a line of ordinary source text\n", i%1000)
	}
	for _, pattern := range []string{"needle", "needle|haystack", "[0-9]{5,}", `\b[A-Z]\w+Error\b`} {
		b.Run(pattern, func(b *testing.B) {
			m, err := newMatcher(pattern, false, false)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(text.Len()))
			for b.Loop() {
				m.begin()
				if _, _, _, found := m.next(text.Bytes(), 0); found {
					b.Fatal("found")
				}
			}
		})
	}
}
