package jobs

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestLogKeepsTheEnd(t *testing.T) {
	for keep := 1; keep < 40; keep += 3 {
		l := newLog(keep)
		var all []byte
		for range 60 {
			p := make([]byte, rand.IntN(3*keep))
			for i := range p {
				p[i] = byte(len(all) + i)
			}
			all = append(all, p...)
			l.add(p)
			cursor := rand.Int64N(int64(len(all)) + 1)
			got, next, skipped, more := l.read(cursor, 1000)
			from := max(cursor, int64(len(all)-keep))
			if !bytes.Equal(got, all[from:]) || next != int64(len(all)) || skipped != from-cursor || more == nil {
				t.Fatalf("keep %d, %d printed, cursor %d: %v, next %d, skipped %d", keep, len(all), cursor, got, next, skipped)
			}
		}
	}
}

func TestLogEnds(t *testing.T) {
	l := newLog(10)
	_, _, _, more := l.read(0, 5)
	l.add([]byte("abc"))
	<-more
	p, next, _, _ := l.read(1, 1)
	if string(p) != "b" || next != 2 {
		t.Errorf("%q %d", p, next)
	}
	l.finish()
	if p, next, skipped, more := l.read(99, 5); len(p) != 0 || next != 3 || skipped != 0 || more != nil {
		t.Errorf("%q %d %d %v", p, next, skipped, more)
	}
}
