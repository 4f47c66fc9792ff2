package cgroup

import (
	"os"
	"testing"
)

func TestDirectories(t *testing.T) {
	root := t.TempDir()
	mk := func(path string) string {
		if err := os.MkdirAll(root+path, 0o755); err != nil {
			t.Fatal(err)
		}
		return root + path
	}
	v1 := mk("/memory")
	v2 := mk("/unified")
	deep := mk("/pids/a/b")
	for _, r := range []struct{ name, groups, mounts, controller, want string }{
		{"v2 with its own namespace", "0::/\n", "1 1 0:1 / " + v2 + " rw - cgroup2 cgroup2 rw\n", "", v2},
		{"v1 without one", "4:memory:/docker/abc\n", "1 1 0:1 /docker/abc " + v1 + " rw - cgroup cgroup rw,memory\n", "memory", v1},
		{"v1 on the host", "4:pids:/a/b\n", "1 1 0:1 / " + root + "/pids rw - cgroup cgroup rw,pids\n", "pids", deep},
		{"joined controllers", "4:cpu,cpuacct:/\n", "1 1 0:1 / " + v1 + " rw - cgroup cgroup rw,cpu,cpuacct\n", "cpuacct", v1},
		{"a path outside of the mount", "0::/../x\n", "1 1 0:1 /y " + v2 + " rw shared:1 - cgroup2 cgroup2 rw\n", "", v2},
		{"nothing", "", "garbage\n1 2\n - \n", "", ""},
	} {
		if got := directories(r.groups, r.mounts)[r.controller]; got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, r := range []struct {
		text, key string
		want      int64
	}{
		{"12\n", "", 12}, {"max\n", "", -1}, {"low 1\noom_kill 7\n", "oom_kill", 7}, {"oom_kill_disable 1\noom_kill 3", "oom_kill", 3},
		{"", "", -1}, {"max 5\n", "max", 5},
	} {
		if got := number([]byte(r.text), r.key); got != r.want {
			t.Errorf("%q %q: %d", r.text, r.key, got)
		}
	}
}

func TestMissingCountersReadAsNothing(t *testing.T) {
	c := find("", "")
	if p := c.Pressure(); p != (Pressure{}) {
		t.Errorf("%+v", p)
	}
	if used, limit := c.Memory(); used != -1 || limit != -1 || c.CPU() != -1 || c.AtPidsLimit() {
		t.Errorf("%d %d", used, limit)
	}
}
