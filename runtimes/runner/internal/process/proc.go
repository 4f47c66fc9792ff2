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
	threads int
	born    int  // when it started, in ticks since the machine did
	state   byte // of its first thread
}

// dead tells whether nothing of the process runs any more. The first thread can end before the others; it is a zombie
// then, and the process is not.
func (m member) dead() bool    { return (m.state == 'Z' || m.state == 'X') && m.threads <= 1 }
func (m member) stopped() bool { return m.state == 'T' || m.state == 't' }

// scanner reads /proc with buffers it keeps: at the pids limit every pass counts.
type scanner struct {
	dir   int
	names []byte
	tasks []byte
	stat  []byte
	path  []byte
}

func newScanner() (*scanner, error) {
	dir, err := sys.Open("/proc", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	return &scanner{dir: dir, names: make([]byte, 8192), tasks: make([]byte, 4096), stat: make([]byte, 512), path: make([]byte, 0, 64)}, nil
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

// halted tells whether every thread of a process is stopped.
func (s *scanner) halted(m member) bool {
	if m.threads <= 1 {
		return m.stopped()
	}
	if !m.stopped() && m.state != 'Z' {
		return false
	}
	folder := itoa(m.pid) + "/task"
	fd, err := sys.Openat(s.dir, []byte(folder+"\x00"), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return true
	}
	defer syscall.Close(fd)
	all := true
	sys.ReadDir(fd, s.tasks, func(name []byte, _ byte) bool {
		thread, ok := s.read([]byte(folder + "/" + string(name)))
		all = !ok || thread.stopped() || thread.state == 'Z' || thread.state == 'X'
		return all
	})
	return all
}

// read reads the stat file of a process, or of a thread.
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

// parseStat reads what is needed of /proc/PID/stat, up to field 22. The name in field 2 is chosen by the process and may hold spaces
// and parentheses, so the fields are counted from the last one.
func parseStat(stat []byte) (member, bool) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 || end+4 > len(stat) {
		return member{}, false
	}
	rest := stat[end+2:]
	m := member{state: rest[0]}
	rest = rest[1:]
	for field := 4; field <= 22; field++ {
		var word []byte
		word, rest = cutWord(rest)
		ok := true
		switch field {
		case 4:
			m.parent, ok = number(word)
		case 6:
			m.session, ok = number(word)
		case 20:
			m.threads, ok = number(word)
		case 22:
			m.born, ok = number(word)
		}
		if !ok {
			return member{}, false
		}
	}
	return m, true
}

// number reads digits without allocation.
func number(word []byte) (n int, ok bool) {
	for _, c := range word {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(word) > 0
}

func cutWord(p []byte) (word, rest []byte) {
	p = bytes.TrimLeft(p, " ")
	end := bytes.IndexByte(p, ' ')
	if end < 0 {
		end = len(p)
	}
	return p[:end], p[end:]
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
