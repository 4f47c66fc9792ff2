// Package cgroup reads the container's own counters, on cgroup v1 and v2 alike.
package cgroup

import (
	"bytes"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"runner/internal/sys"
)

// file is a counter file that stays open: a pread costs a few microseconds, an open many more.
type file struct{ fd int }

var missing = file{fd: -1}

// Counters are the files of the container's cgroup. Those that do not exist read as nothing.
type Counters struct {
	oom, pidEvents                            file
	memory, memoryLimit, pids, pidsLimit, cpu file
	oomKey, pidKey, cpuKey                    string
	cpuScale                                  int64
}

// Find opens the counters of the cgroup this process is in.
func Find() *Counters {
	groups, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	return find(string(groups), string(mounts))
}

func find(groups, mounts string) *Counters {
	dirs := directories(groups, mounts)
	c := &Counters{oomKey: "oom_kill", pidKey: "max", cpuScale: 1}
	if dir := dirs["memory"]; dir != "" {
		c.oom, c.memory, c.memoryLimit = open(dir, "memory.oom_control"), open(dir, "memory.usage_in_bytes"), open(dir, "memory.limit_in_bytes")
	} else {
		dir := dirs[""]
		c.oom, c.memory, c.memoryLimit = open(dir, "memory.events"), open(dir, "memory.current"), open(dir, "memory.max")
	}
	dir := dirs["pids"]
	if dir == "" {
		dir = dirs[""]
	}
	c.pidEvents, c.pids, c.pidsLimit = open(dir, "pids.events"), open(dir, "pids.current"), open(dir, "pids.max")
	if dir := dirs["cpuacct"]; dir != "" {
		c.cpu = open(dir, "cpuacct.usage")
	} else {
		c.cpu, c.cpuKey, c.cpuScale = open(dirs[""], "cpu.stat"), "usage_usec", 1000
	}
	return c
}

func open(dir, name string) file {
	if dir == "" {
		return missing
	}
	fd, err := sys.Open(dir+"/"+name, syscall.O_RDONLY, 0)
	if err != nil {
		return missing
	}
	return file{fd: fd}
}

// directories maps each v1 controller, and "" for v2, to the directory of our own cgroup in this mount namespace.
func directories(groups, mounts string) map[string]string {
	own := make(map[string]string)
	for _, line := range strings.Split(groups, "\n") {
		// hierarchy:controllers:path
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 {
			continue
		}
		for _, controller := range strings.Split(parts[1], ",") {
			own[controller] = parts[2]
		}
	}
	dirs := make(map[string]string)
	for _, line := range strings.Split(mounts, "\n") {
		m, ok := parseMount(line)
		if !ok {
			continue
		}
		for _, controller := range m.controllers {
			if group, ok := own[controller]; ok && dirs[controller] == "" {
				dirs[controller] = m.locate(group)
			}
		}
	}
	return dirs
}

type mount struct {
	root, point string
	controllers []string
}

// parseMount reads a line of mountinfo: id parent major:minor root point options [tags] - type source super-options.
func parseMount(line string) (mount, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	fields, super := strings.Fields(head), strings.Fields(tail)
	if !ok || len(fields) < 5 || len(super) < 3 {
		return mount{}, false
	}
	m := mount{root: fields[3], point: fields[4]}
	switch super[0] {
	case "cgroup2":
		m.controllers = []string{""}
	case "cgroup":
		m.controllers = strings.Split(super[2], ",")
	default:
		return mount{}, false
	}
	return m, true
}

// locate is where a cgroup path is visible below this mount. The mount's root is a cgroup path itself when the
// container has no cgroup namespace of its own; a path outside of it is all there is, the mount point.
func (m mount) locate(group string) string {
	rest := group
	if m.root != "/" {
		var below bool
		if rest, below = strings.CutPrefix(group, m.root); !below {
			return m.point
		}
	}
	dir := path.Join(m.point, rest)
	if _, err := os.Stat(dir); err != nil {
		return m.point
	}
	return dir
}

// Pressure is a sample of the two counters that explain why a command failed.
type Pressure struct{ OOMKills, PidsHits int64 }

// Pressure samples them; unknown counters are 0.
func (c *Counters) Pressure() Pressure {
	return Pressure{OOMKills: max(0, c.oom.value(c.oomKey)), PidsHits: max(0, c.pidEvents.value(c.pidKey))}
}

// Memory is what the container uses and may use; -1 for unknown or unlimited.
func (c *Counters) Memory() (used, limit int64) {
	return c.memory.value(""), limited(c.memoryLimit.value(""))
}

// Pids is how many processes and threads there are and may be; -1 for unknown or unlimited.
func (c *Counters) Pids() (used, limit int64) {
	return c.pids.value(""), limited(c.pidsLimit.value(""))
}

// CPU is the time used so far in nanoseconds; -1 for unknown.
func (c *Counters) CPU() int64 {
	v := c.cpu.value(c.cpuKey)
	if v < 0 {
		return -1
	}
	return v * c.cpuScale
}

// AtPidsLimit tells whether the next fork would be refused.
func (c *Counters) AtPidsLimit() bool {
	used, limit := c.Pids()
	return limit > 0 && used >= limit
}

// limited maps the number v1 shows for "no limit" (the largest page-aligned one) to unlimited.
func limited(v int64) int64 {
	if v >= 1<<62 {
		return -1
	}
	return v
}

// value reads the number that follows key at the start of a line, or with an empty key the whole file; -1 if there is
// none.
func (f file) value(key string) int64 {
	if f.fd < 0 {
		return -1
	}
	var buf [1024]byte
	n, err := syscall.Pread(f.fd, buf[:], 0)
	if err != nil {
		return -1
	}
	return number(buf[:n], key)
}

func number(text []byte, key string) int64 {
	for len(text) > 0 {
		line := text
		if end := bytes.IndexByte(text, '\n'); end >= 0 {
			line, text = text[:end], text[end+1:]
		} else {
			text = nil
		}
		if key != "" {
			if len(line) <= len(key) || string(line[:len(key)]) != key || line[len(key)] != ' ' {
				continue
			}
			line = line[len(key)+1:]
		}
		v, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
		if err != nil {
			return -1
		}
		return v
	}
	return -1
}
