package process

import (
	"bytes"
	"strconv"
	"syscall"

	"runner/internal/sys"
)

// member is what /proc says about a process, as far as stopping needs it.
type member struct {
	pid     int
	parent  int
	session int
	state   byte
}

func (m member) dead() bool    { return m.state == 'Z' || m.state == 'X' }
func (m member) stopped() bool { return m.state == 'T' || m.state == 't' }

// scanner reads /proc with buffers it keeps: at the pids limit every pass counts.
type scanner struct {
	dir   int
	names []byte
	stat  []byte
	path  []byte
}

func newScanner() (*scanner, error) {
	dir, err := sys.Open("/proc", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &scanner{dir: dir, names: make([]byte, 8192), stat: make([]byte, 512), path: make([]byte, 0, 32)}, nil
}

func (s *scanner) close() { syscall.Close(s.dir) }

// each calls visit for every process.
func (s *scanner) each(visit func(member)) error {
	if _, err := syscall.Seek(s.dir, 0, 0); err != nil {
		return err
	}
	return sys.ReadDir(s.dir, s.names, func(name []byte, _ byte) bool {
		if name[0] < '0' || name[0] > '9' {
			return true
		}
		if m, ok := s.read(name); ok {
			visit(m)
		}
		return true
	})
}

func (s *scanner) read(name []byte) (member, bool) {
	s.path = append(append(s.path[:0], name...), "/stat\x00"...)
	fd, err := sys.Openat(s.dir, s.path, syscall.O_RDONLY, 0)
	if err != nil {
		return member{}, false
	}
	n, err := sys.Read(fd, s.stat)
	syscall.Close(fd)
	if err != nil {
		return member{}, false
	}
	m, ok := parseStat(s.stat[:n])
	m.pid, _ = strconv.Atoi(string(name))
	return m, ok
}

// parseStat reads fields 3 to 6 of /proc/PID/stat. The name in field 2 is chosen by the process and may hold spaces
// and parentheses, so the fields are counted from the last one.
func parseStat(stat []byte) (member, bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 || end+4 > len(stat) {
		return member{}, false
	}
	rest := stat[end+2:]
	m := member{state: rest[0]}
	rest = rest[1:]
	var fields [3]int
	for i := range fields {
		rest = bytes.TrimLeft(rest, " ")
		n := 0
		for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
			fields[i] = fields[i]*10 + int(rest[n]-'0')
			n++
		}
		if n == 0 {
			return member{}, false
		}
		rest = rest[n:]
	}
	m.parent, m.session = fields[0], fields[2]
	return m, true
}

// Parent is the number of a process's parent; 0 when that is outside of our process namespace, -1 when unknown.
func Parent(pid int) int {
	s, err := newScanner()
	if err != nil {
		return -1
	}
	defer s.close()
	m, ok := s.read([]byte(itoa(pid)))
	if !ok {
		return -1
	}
	return m.parent
}
