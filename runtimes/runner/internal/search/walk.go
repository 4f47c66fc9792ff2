// Package search finds files by name and lines by content.
package search

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"runner/internal/pattern"
	"runner/internal/sys"
	"runner/internal/threads"
)

const (
	// maxDepth bounds open descriptors; each level of the walk holds one.
	maxDepth = 256
	// maxEntries bounds what is held of one directory.
	maxEntries = 1 << 20
)

// folder is an open directory, shared by the walk and those who open files in it.
type folder struct {
	fd     int
	prefix string // path below the root, with a '/' at the end; "" for the root
	users  atomic.Int32
}

func (f *folder) hold() { f.users.Add(1) }

func (f *folder) release() {
	if f.users.Add(-1) == 0 {
		syscall.Close(f.fd)
	}
}

// entry is one name in a folder; raw has a NUL behind the name.
type entry struct {
	raw  []byte
	kind byte
}

func (e *entry) name() string { return string(e.raw[:len(e.raw)-1]) }

// walk visits a tree in the byte order of whole paths, without following symbolic links.
type walk struct {
	ignore bool
	hidden bool
	// file is called for everything but directories; dir for directories, and decides whether to look into it.
	file func(f *folder, e *entry)
	dir  func(f *folder, e *entry) bool
	stop *atomic.Bool
	// incomplete is set when something was too deep or too wide to be seen.
	incomplete bool
	rules      []scope
	names      []byte
}

// scope is a .gitignore file and where it lies.
type scope struct {
	ignore *pattern.Ignore
	prefix int // length of its folder's prefix
}

// tree walks the folder, which it takes over.
func (w *walk) tree(f *folder, depth int) {
	defer f.release()
	if w.names == nil {
		w.names = make([]byte, 32<<10)
	}
	threads.Enter()
	entries, rules := w.read(f)
	threads.Leave()
	if rules != nil {
		w.rules = append(w.rules, scope{rules, len(f.prefix)})
		defer func() { w.rules = w.rules[:len(w.rules)-1] }()
	}
	for i := range entries {
		e := &entries[i]
		if w.stop.Load() {
			return
		}
		isDir := e.kind == sys.KindDir
		if w.skips(f, e, isDir) {
			continue
		}
		if !isDir {
			w.file(f, e)
		} else if w.dir(f, e) {
			w.descend(f, e, depth)
		}
	}
}

func (w *walk) descend(f *folder, e *entry, depth int) {
	if depth >= maxDepth {
		w.incomplete = true
		return
	}
	threads.Enter()
	fd, err := sys.Openat(f.fd, e.raw, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	threads.Leave()
	if err != nil {
		if err == syscall.EMFILE || err == syscall.ENFILE {
			w.incomplete = true
		}
		return
	}
	below := &folder{fd: fd, prefix: f.prefix + e.name() + "/"}
	below.hold()
	w.tree(below, depth+1)
}

// read returns the folder's sorted entries and its .gitignore.
func (w *walk) read(f *folder) ([]entry, *pattern.Ignore) {
	var all []byte
	var kinds []byte
	sys.ReadDir(f.fd, w.names, func(name []byte, kind byte) bool {
		all = append(append(all, name...), 0)
		kinds = append(kinds, kind)
		if len(kinds) >= maxEntries {
			w.incomplete = true
			return false
		}
		return true
	})
	entries := make([]entry, len(kinds))
	var rules *pattern.Ignore
	for i := range entries {
		end := slices.Index(all, 0) + 1
		e := entry{raw: all[:end:end], kind: kinds[i]}
		all = all[end:]
		if e.kind == sys.KindUnknown {
			e.kind = kindOf(f.fd, e.raw)
		}
		if w.ignore && e.kind == sys.KindFile && string(e.raw) == ".gitignore\x00" {
			rules = readIgnore(f.fd, e.raw)
		}
		entries[i] = e
	}
	slices.SortFunc(entries, compareEntries)
	return entries, rules
}

func kindOf(dir int, name []byte) byte {
	var st syscall.Stat_t
	if sys.Fstatat(dir, name, &st, sys.AtSymlinkNoFollow) != nil {
		return sys.KindUnknown
	}
	return byte(st.Mode >> 12 & 15)
}

// compareEntries orders as whole paths are ordered: what is in "a" comes after "a.b", because '.' is before '/'.
func compareEntries(a, b entry) int {
	n := min(len(a.raw), len(b.raw)) - 1
	for i := 0; i < n; i++ {
		if a.raw[i] != b.raw[i] {
			return int(a.raw[i]) - int(b.raw[i])
		}
	}
	return a.at(n) - b.at(n)
}

// at is the character at i of the entry's path; the name is at least that long.
func (e *entry) at(i int) int {
	if i < len(e.raw)-1 {
		return int(e.raw[i])
	}
	if e.kind == sys.KindDir {
		return '/'
	}
	return -1
}

func readIgnore(dir int, name []byte) *pattern.Ignore {
	fd, err := sys.Openat(dir, name, syscall.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil
	}
	defer syscall.Close(fd)
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return nil
	}
	content := make([]byte, min(st.Size, pattern.MaxIgnoreFile))
	n := 0
	for n < len(content) {
		k, err := sys.Read(fd, content[n:])
		if err != nil || k <= 0 {
			break
		}
		n += k
	}
	return pattern.ParseIgnore(content[:n])
}

// skips tells whether an entry is not to be seen at all.
func (w *walk) skips(f *folder, e *entry, isDir bool) bool {
	if string(e.raw) == ".git\x00" || !w.hidden && e.raw[0] == '.' {
		return true
	}
	if len(w.rules) == 0 {
		return false
	}
	name := e.name()
	path := f.prefix + name
	for i := len(w.rules) - 1; i >= 0; i-- {
		if ignored, decided := w.rules[i].ignore.Decide(path[w.rules[i].prefix:], name, isDir); decided {
			return ignored
		}
	}
	return false
}

// openRoot opens what a search begins at: a directory, or a file on its own.
func openRoot(root string) (fd int, isDir bool, err error) {
	threads.Enter()
	defer threads.Leave()
	var st syscall.Stat_t
	if err := syscall.Stat(root, &st); err != nil {
		return -1, false, err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return -1, false, nil
	}
	fd, err = sys.Open(root, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	return fd, true, err
}

// under is what paths below root begin with.
func under(root string) string {
	if strings.HasSuffix(root, "/") {
		return root
	}
	return root + "/"
}
