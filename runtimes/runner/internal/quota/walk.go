package quota

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"runner/internal/process"
	"runner/internal/sys"
	"runner/internal/threads"
)

const (
	// sector is the unit of a file's block count, whatever the file system's is.
	sector = 512
	// maxOpen bounds the descriptors of a walk. Of deeper trees, the directories nearest to the root are closed and found
	// again by "..".
	maxOpen = 128
	// maxDeep bounds how many may be closed.
	maxDeep = 1 << 18
	// maxLinked bounds the inodes that are remembered because they have several names. Of the others each name counts for
	// its share.
	maxLinked = 1 << 16
	// maxHidden bounds the directories that are remembered because they cannot be read.
	maxHidden = 1 << 10
	// maxFiles bounds the open files that are looked at.
	maxFiles = 1 << 18
	// batch is how many entries are looked at before others may go first.
	batch = 256
	block = 8 << 10
)

// walk adds up what a tree occupies, in memory that does not grow with the tree.
type walk struct {
	root string
	dev  uint64
	used int64
	// partial is set when something was not seen: the tree was moved while it was walked, or is too deep.
	partial bool

	levels []level // open directories, the innermost last
	deep   []place // directories above those, which are closed
	spare  [][]byte
	linked map[uint64]struct{}
	// hidden are directories that their owner cannot read; before, those of the last walk.
	hidden, before map[uint64]bool
	turns          int
}

type level struct {
	fd   int
	ino  uint64
	buf  []byte
	rest []byte // of buf: entries to come
	next int64  // position of the entry after the last one taken
	mode uint32 // with the file's kind; to be restored, if not 0
}

type place struct {
	ino  uint64
	next int64
}

func newWalk(root string) *walk { return &walk{root: root} }

// run returns what is occupied: every inode once, and files without a name that a process still holds.
func (w *walk) run() int64 {
	w.used, w.partial, w.turns = 0, false, 0
	w.linked = make(map[uint64]struct{})
	w.before, w.hidden = w.hidden, make(map[uint64]bool)
	threads.Enter()
	defer threads.Leave()
	var st syscall.Stat_t
	fd, err := sys.Open(w.root, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err == nil {
		err = syscall.Fstat(fd, &st)
	}
	if err != nil {
		w.partial = true
		return 0
	}
	w.dev = uint64(st.Dev)
	w.add(&st)
	w.enter(fd, st.Ino, 0)
	for len(w.levels) > 0 {
		w.yield()
		w.step()
	}
	w.nameless()
	w.linked, w.spare = nil, nil
	return w.used
}

// yield lets others go first now and then.
func (w *walk) yield() {
	if w.turns++; w.turns%batch == 0 {
		threads.Leave()
		runtime.Gosched()
		threads.Enter()
	}
}

func (w *walk) enter(fd int, ino uint64, mode uint32) {
	buf := w.buffer()
	if len(w.levels) >= maxOpen {
		outer := &w.levels[0]
		w.deep = append(w.deep, place{outer.ino, outer.next})
		w.close(outer)
		w.levels = append(w.levels[:0], w.levels[1:]...)
	}
	w.levels = append(w.levels, level{fd: fd, ino: ino, buf: buf, mode: mode})
}

func (w *walk) buffer() []byte {
	if last := len(w.spare) - 1; last >= 0 {
		buf := w.spare[last]
		w.spare = w.spare[:last]
		return buf
	}
	return make([]byte, block)
}

func (w *walk) close(l *level) {
	if l.mode != 0 {
		syscall.Fchmod(l.fd, l.mode&0o7777)
	}
	syscall.Close(l.fd)
	w.spare = append(w.spare, l.buf)
}

// step takes the next entry of the innermost directory, or leaves it.
func (w *walk) step() {
	l := &w.levels[len(w.levels)-1]
	if len(l.rest) == 0 {
		n, err := syscall.ReadDirent(l.fd, l.buf)
		if err == syscall.EINTR {
			return
		}
		if err != nil || n <= 0 {
			w.leave()
			return
		}
		l.rest = l.buf[:n]
	}
	var e sys.Entry
	if e, l.rest = sys.NextEntry(l.rest); e.Name == nil {
		return
	}
	l.next = e.Next
	var st syscall.Stat_t
	if sys.Fstatat(l.fd, e.CName(), &st, sys.AtSymlinkNoFollow) != nil || uint64(st.Dev) != w.dev {
		return
	}
	if st.Mode&syscall.S_IFMT == syscall.S_IFDIR {
		w.descend(l.fd, e.CName(), &st)
		return
	}
	w.add(&st)
}

// descend looks into a directory, unless something else is mounted there.
func (w *walk) descend(dir int, name []byte, st *syscall.Stat_t) {
	if len(w.deep) >= maxDeep {
		w.partial = true
		return
	}
	mode := w.reveal(dir, name, st)
	fd, err := sys.OpenDirBelow(dir, name)
	if err == syscall.EXDEV {
		return
	}
	w.add(st)
	if err == nil {
		w.enter(fd, st.Ino, mode)
	}
}

// reveal gives us the right to look into a directory that its owner, who is also us, has closed to himself: otherwise
// nothing that is hidden there would count. A program may close one for a moment, for a test; so only what was closed
// at the last walk already is opened, for as long as this one is in it. It returns the mode to restore.
func (w *walk) reveal(dir int, name []byte, st *syscall.Stat_t) uint32 {
	if st.Mode&0o500 == 0o500 || int(st.Uid) != os.Geteuid() {
		return 0
	}
	if len(w.hidden) < maxHidden {
		w.hidden[st.Ino] = true
		if !w.before[st.Ino] {
			return 0
		}
	}
	handle, err := sys.Openat(dir, name, sys.OPath|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return 0
	}
	defer syscall.Close(handle)
	// The descriptor cannot be swapped for a link, the name could.
	if syscall.Chmod("/proc/self/fd/"+strconv.Itoa(handle), st.Mode&0o7777|0o500) != nil {
		return 0
	}
	return st.Mode
}

// leave goes back to the directory around the innermost one.
func (w *walk) leave() {
	last := len(w.levels) - 1
	l := w.levels[last]
	w.levels = w.levels[:last]
	if last == 0 && len(w.deep) > 0 {
		w.climb(l.fd)
	}
	w.close(&l)
}

// climb opens the innermost of the closed directories again. If it is not where it was, somebody has moved us, and what
// is left above is not seen.
func (w *walk) climb(from int) {
	above := w.deep[len(w.deep)-1]
	w.deep = w.deep[:len(w.deep)-1]
	fd, err := sys.Openat(from, []byte("..\x00"), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	var st syscall.Stat_t
	if err == nil && (syscall.Fstat(fd, &st) != nil || uint64(st.Dev) != w.dev || st.Ino != above.ino) {
		syscall.Close(fd)
		err = syscall.ESTALE
	}
	if err == nil {
		_, err = syscall.Seek(fd, above.next, 0)
	}
	if err != nil {
		w.partial = true
		w.deep = w.deep[:0]
		return
	}
	w.levels = append(w.levels, level{fd: fd, ino: st.Ino, buf: w.buffer(), next: above.next})
}

// add counts an inode, unless it was counted under another name.
func (w *walk) add(st *syscall.Stat_t) {
	size := st.Blocks * sector
	if st.Nlink > 1 && st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		if _, known := w.linked[st.Ino]; known {
			return
		}
		if len(w.linked) < maxLinked {
			w.linked[st.Ino] = struct{}{}
		} else {
			size /= int64(st.Nlink)
		}
	}
	w.used += size
}

// nameless counts files that were deleted and are still open somewhere.
func (w *walk) nameless() {
	seen := make(map[uint64]bool)
	left := maxFiles
	process.Others(func(int, int) bool { return false }, func(pid int) {
		fd, err := sys.Open("/proc/"+strconv.Itoa(pid)+"/fd", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return
		}
		defer syscall.Close(fd)
		buf := w.buffer()
		defer func() { w.spare = append(w.spare, buf) }()
		sys.ReadDir(fd, buf, func(name []byte, _ byte) bool {
			w.yield()
			var st syscall.Stat_t
			if sys.Fstatat(fd, name[:len(name)+1], &st, 0) == nil && st.Nlink == 0 && uint64(st.Dev) == w.dev &&
				st.Mode&syscall.S_IFMT == syscall.S_IFREG && !seen[st.Ino] && w.here(pid, string(name)) {
				if len(seen) < maxLinked {
					seen[st.Ino] = true
				}
				w.used += st.Blocks * sector
			}
			left--
			return left > 0
		})
	})
}

// here tells whether an open file was in the tree: another one mounted beside it can be on the same file system.
func (w *walk) here(pid int, fd string) bool {
	path, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/fd/" + fd)
	return err == nil && strings.HasPrefix(path, strings.TrimRight(w.root, "/")+"/")
}
