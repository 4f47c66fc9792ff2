package quota

import (
	"os"
	"testing"
	"time"
)

type nobody struct{}

func (nobody) Inhabited() bool { return false }
func (nobody) KillAll()        {}

func TestUsageIsRenewedAlsoWhereLookingTakesLong(t *testing.T) {
	dir := t.TempDir()
	m := NewMeter(dir, 8<<20, nobody{})
	m.Usage()
	os.WriteFile(dir+"/outside", make([]byte, 1<<20), 0o644)
	m.mu.Lock()
	m.took, m.ended = cheap, m.ended.Add(-2*recent)
	m.mu.Unlock()
	for range 1000 {
		if used, _, _ := m.Usage(); used >= 1<<20 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is never seen")
}
