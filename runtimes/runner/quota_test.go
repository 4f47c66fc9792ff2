package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"runner/internal/wire"
)

const mib = 1 << 20

// filling writes 1 MiB every 20 ms for ever.
const filling = "i=0; while :; do head -c 1048576 /dev/zero > big$$-$i; i=$((i+1)); sleep 0.02; done"

func held(c *client) (used, limit float64) {
	quota := c.do("usage", m{}).result["quota"].(m)
	return quota["used"].(float64), quota["limit"].(float64)
}

// settles waits until so much is in use; what is only shown may be as old as the last look.
func settles(t *testing.T, c *client, least, most float64) {
	t.Helper()
	used := 0.0
	for range 200 {
		if used, _ = held(c); least <= used && used <= most {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%v in use", used)
}

func TestACommandThatFillsTheWorkspaceIsStopped(t *testing.T) {
	for name, script := range map[string]string{
		"plain":                    filling,
		"ignores TERM":             "trap '' TERM; " + filling,
		"deletes what it has open": `exec 3> hidden; rm hidden; while :; do head -c 1048576 /dev/zero >&3; sleep 0.02; done`,
		"one file":                 "while :; do head -c 1048576 /dev/zero >> one; sleep 0.02; done",
	} {
		t.Run(name, func(t *testing.T) {
			r := startRunner(t, "--quota", fmt.Sprint(8*mib))
			c := r.dial()
			a := c.sh(script)
			a.want(t, m{"cause": "disk_quota"})
			c.sh("du -s .; rm -f big* one").want(t, m{"exit_code": 0, "cause": "exit"})
			settles(t, c, 0, mib)
			if _, limit := held(c); limit != 8*mib {
				t.Errorf("of %v", limit)
			}
		})
	}
}

func TestAJobThatFillsTheWorkspaceIsStopped(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(8*mib))
	c := r.dial()
	c.do("job_start", m{"shell": filling}).want(t, m{})
	other := c.open("exec", m{"shell": "sleep 60"})
	other.wait().want(t, m{"cause": "disk_quota"})
	for range 100 {
		job := c.do("job_read", m{"id": "j1", "cursor": 0, "wait": 100}).result["job"].(m)
		if job["running"] == false {
			if job["cause"] != "disk_quota" {
				t.Errorf("%v", job)
			}
			return
		}
	}
	t.Error("it runs on")
}

func TestWhoeverIsOverTheQuotaMayMakeRoom(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(4*mib))
	c := r.dial()
	write := func(name string, size int) answer {
		return c.open("write", m{"path": r.work + "/" + name}).feed(make([]byte, size)).wait()
	}
	write("first", 3*mib).want(t, m{"created": true})
	write("second", 2*mib).fails(t, "EDQUOT")
	if _, err := os.Stat(r.work + "/second"); err == nil {
		t.Error("it is there in part")
	}
	// What does not make it more goes: a file that takes the place of one as large.
	for range 5 {
		write("first", 3*mib).want(t, m{"created": false})
	}
	os.WriteFile(r.work+"/outside", make([]byte, 6*mib), 0o644)
	// Nothing tells it of that but a file system with less room, which others who free some can hide.
	settles(t, c, 9*mib, 10*mib)
	// Long enough for several looks.
	c.sh("sleep 1.2; echo fine > log").want(t, m{"exit_code": 0})
	c.sh(filling).want(t, m{"cause": "disk_quota"})
	write("second", 1).fails(t, "EDQUOT")
	write("outside", 2*mib).want(t, m{"created": false})
	write("second", 1).fails(t, "EDQUOT")
	c.sh("rm big*").want(t, m{"exit_code": 0})
	c.do("remove", m{"path": r.work + "/outside"}).want(t, m{})
	write("second", mib/2).want(t, m{"created": true})
	settles(t, c, 3*mib, 4*mib)
}

func TestWhoeverHasMadeRoomMayNotFillItAgain(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(4*mib))
	c := r.dial()
	os.WriteFile(r.work+"/old", make([]byte, 30*mib), 0o644)
	a := c.sh("rm old; sleep 1; " + filling)
	a.want(t, m{"cause": "disk_quota"})
	settles(t, c, 0, 28*mib)
}

func TestWhoDetachedItselfAndFillsTheWorkspaceIsKilled(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(8*mib))
	c := r.dial()
	c.sh("setsid sh -c 'echo $$ > pids; "+filling+"' >/dev/null 2>&1 &").want(t, m{"exit_code": 0})
	appears(t, r.work+"/pids")
	raw, _ := os.ReadFile(r.work + "/pids")
	for tries := 0; ; tries++ {
		if _, err := os.Stat("/proc/" + strings.TrimSpace(string(raw))); err != nil {
			break
		}
		if tries > 1000 {
			t.Fatal("it runs on")
		}
		time.Sleep(20 * time.Millisecond)
	}
	assertGone(t, r.work)
}

func TestASpillStopsAtTheQuota(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(2*mib))
	c := r.dial()
	a := c.sh("head -c 6000000 /dev/zero", m{"keep": 1000, "spill": r.work + "/spill"})
	a.want(t, m{"exit_code": 0, "stdout": m{"total": 6000000, "head": 500}})
	if _, err := os.Stat(r.work + "/spill"); err == nil || a.result["spill"] != nil {
		t.Errorf("%v", a.result)
	}
	c.open("write", m{"path": r.work + "/f"}).feed(make([]byte, mib)).wait().want(t, m{})
}

func TestAnUploadThatBreaksOffCountsForNothing(t *testing.T) {
	r := startRunner(t, "--quota", fmt.Sprint(4*mib))
	c := r.dial()
	for range 10 {
		k := c.open("write", m{"path": r.work + "/f"})
		k.push(make([]byte, 3*mib))
		c.send(wire.Cancel, k.id, nil)
		k.wait().fails(t, "cancelled")
	}
	settles(t, c, 0, mib)
}

func TestWithoutAQuotaNothingIsWatched(t *testing.T) {
	c := startRunner(t).dial()
	c.do("usage", m{}).want(t, m{"quota": nil})
	c.sh("head -c 20000000 /dev/zero > big; sleep 0.6; rm big").want(t, m{"exit_code": 0})
}

func TestWhatIsHiddenCounts(t *testing.T) {
	uid := os.Geteuid()
	if uid == 0 {
		// One that permissions apply to.
		uid = 65534
	}
	r := startRunnerAs(t, uid, "--quota", fmt.Sprint(8*mib))
	c := r.dial()
	c.sh("mkdir -p a/b/c open; head -c 3000000 /dev/zero > a/b/c/f; chmod 0 a/b/c; chmod 0300 a/b; chmod 0 a").want(t, m{"exit_code": 0})
	settles(t, c, 3000000, 8*mib)
	a := c.sh("stat -c %a a; chmod 700 a; stat -c %a a/b; chmod 700 a/b; stat -c %a a/b/c; chmod 700 a/b/c")
	if a.out != "0\n300\n0\n" {
		t.Errorf("%q %q", a.out, a.err)
	}
}
