package files

import (
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"syscall"

	"runner/internal/fault"
	"runner/internal/gate"
	"runner/internal/mux"
	"runner/internal/quota"
	"runner/internal/sys"
	"runner/internal/threads"
	"runner/internal/wire"
)

const (
	newFileMode = 0o644
	newDirMode  = 0o755
	permissions = 0o7777
	// sector is the unit of a file's block count.
	sector = 512
)

// Write is the write operation; it is this path's turn.
//
// It passes the gate step by step, so that nobody who holds back an upload holds back a copy of the workspace.
func Write(s *mux.Stream, g *gate.Gate, q *quota.Meter, path string, mode *uint32, expect *string) error {
	if err := check(path); err != nil {
		return err
	}
	w := &writer{path: path, mode: newFileMode, expect: expect, hash: newFingerprint(), fd: -1,
		quota: q, gate: g, cancelled: s.Done()}
	if mode != nil {
		w.mode = *mode & permissions
	}
	defer w.abandon()
	if err := w.step(w.prepare); err != nil {
		return err
	}
	if err := w.take(s); err != nil {
		return at(err, w.target)
	}
	if err := w.step(w.commit); err != nil {
		return at(err, w.target)
	}
	w.quota.Refund(max(0, w.replaced-w.hash.size))
	w.spent = 0
	// Before the answer: a program that is still open for writing cannot be executed.
	w.abandon()
	var o wire.Object
	o.Bool("created", !w.exists).Int("size", w.hash.size).Text("version", w.version).Text("path", w.target)
	s.Finish(o.Bytes())
	return nil
}

// writer replaces one file: everything goes to a temporary file first, so that whoever reads sees the old content or
// the new, and an upload that breaks off leaves the old.
type writer struct {
	path   string
	target string // path with its links resolved
	exists bool
	mode   uint32
	expect *string
	hash   *fingerprint

	fd     int    // the temporary file
	temp   string // its path
	named  bool   // the path is there, and to be removed
	beside bool   // it can be renamed onto the target

	version string // of the new content

	quota    *quota.Meter
	spent    int64 // bytes that count against the quota
	replaced int64 // bytes that the old content occupies

	gate      *gate.Gate
	cancelled <-chan struct{}
}

// step does a part of the work that changes files and may take long.
func (w *writer) step(do func() error) error {
	if !w.gate.Enter(gate.Change, w.cancelled) {
		return mux.ErrCancelled
	}
	defer w.gate.Leave(gate.Change)
	threads.Enter()
	defer threads.Leave()
	return do()
}

func (w *writer) prepare() error {
	var err error
	if w.target, err = Realpath(w.path); err != nil {
		return err
	}
	if w.target == "/" || strings.HasSuffix(w.path, "/") {
		return at(syscall.EISDIR, w.target)
	}
	if err := w.inspect(); err != nil {
		return err
	}
	if err := w.expected(); err != nil {
		return err
	}
	if !w.exists {
		if err := makeDirs(parent(w.target)); err != nil {
			return err
		}
	}
	return w.createTemp()
}

// inspect looks at what is there now.
func (w *writer) inspect() error {
	var st syscall.Stat_t
	w.replaced = 0
	switch err := syscall.Stat(w.target, &st); err {
	case nil:
	case syscall.ENOENT:
		w.exists = false
		return nil
	default:
		return at(err, w.target)
	}
	w.exists = true
	if err := regular(&st, w.target); err != nil {
		return err
	}
	// rename needs only the directory's permission; a file that is write-protected shall stay so.
	if err := sys.Access(w.target, 2); err != nil && err != syscall.EROFS {
		return at(err, w.target)
	} else if err != nil {
		return at(syscall.EROFS, w.target)
	}
	w.mode = st.Mode & permissions
	if st.Nlink == 1 {
		w.replaced = st.Blocks * sector
	}
	return nil
}

// expected compares the file's version with the one the backend has seen.
func (w *writer) expected() error {
	if w.expect == nil {
		return nil
	}
	if *w.expect == "" {
		if w.exists {
			return fault.At(fault.Changed, "the file exists", w.target)
		}
		return nil
	}
	if !w.exists {
		return fault.At(fault.Changed, "the file does not exist any more", w.target)
	}
	version, err := currentVersion(w.target)
	if err != nil {
		return at(err, w.target)
	}
	if version != *w.expect {
		return fault.At(fault.Changed, "the file has changed", w.target)
	}
	return nil
}

func currentVersion(path string) (string, error) {
	fd, err := sys.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer syscall.Close(fd)
	return versionOf(fd)
}

// createTemp makes the temporary file beside the target, or elsewhere when the directory is not writable but the file
// in it is.
func (w *writer) createTemp() error {
	err := w.openTemp(parent(w.target))
	w.beside = err == nil
	if err != nil && w.exists && (err == syscall.EACCES || err == syscall.EROFS || err == syscall.EPERM) {
		err = w.openTemp("/tmp")
	}
	return at(err, parent(w.target))
}

// openTemp makes the file without a name where the file system can do that: if the container is killed in the midst of
// an upload, the file goes with it. Where a meter watches, it has to see the file.
func (w *writer) openTemp(dir string) error {
	err := error(syscall.EOPNOTSUPP)
	if w.quota == nil {
		w.temp = tempName(dir)
		w.fd, err = sys.Open(dir, syscall.O_RDWR|sys.OTmpfile, 0o600)
	}
	if err != syscall.EOPNOTSUPP && err != syscall.EISDIR {
		return err
	}
	for {
		w.temp = tempName(dir)
		w.fd, err = sys.Open(w.temp, syscall.O_RDWR|syscall.O_CREAT|syscall.O_EXCL|syscall.O_NOFOLLOW, 0o600)
		if err != syscall.EEXIST {
			w.named = err == nil
			return err
		}
	}
}

func tempName(dir string) string {
	return child(dir, ".sandbox-"+strconv.FormatUint(rand.Uint64(), 36)+".tmp")
}

// name gives the temporary file its name: only what has one can take the target's place.
func (w *writer) name() error {
	for !w.named {
		err := sys.LinkFile(w.fd, w.temp)
		if err == syscall.EEXIST {
			w.temp = tempName(parent(w.target))
			continue
		}
		if err != nil {
			return err
		}
		w.named = true
	}
	return nil
}

// take writes what the backend sends to the temporary file.
func (w *writer) take(s *mux.Stream) error {
	for {
		p, err := s.Receive()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		w.hash.add(p)
		if err := w.pay(); err != nil {
			return err
		}
		if err := w.step(func() error { return sys.WriteAll(w.fd, p) }); err != nil {
			return err
		}
	}
}

// pay counts what the file adds to what there was against the quota: a smaller one may always take a larger one's place.
func (w *writer) pay() error {
	more := w.hash.size - w.replaced - w.spent
	if more <= 0 {
		return nil
	}
	if err := w.quota.Spend(more); err != nil {
		return err
	}
	w.spent += more
	return nil
}

// commit puts the new content in place. What was checked before the upload is checked again: it may have taken long.
func (w *writer) commit() error {
	if err := w.inspect(); err != nil {
		return err
	}
	if err := w.expected(); err != nil {
		return err
	}
	if err := syscall.Fchmod(w.fd, w.mode); err != nil {
		return err
	}
	if err := syscall.Fsync(w.fd); err != nil {
		return err
	}
	if err := w.replace(); err != nil {
		return err
	}
	var err error
	w.version, err = w.newVersion()
	return err
}

func (w *writer) replace() error {
	if w.beside {
		if err := w.name(); err != nil {
			return err
		}
		err := syscall.Rename(w.temp, w.target)
		if err == nil {
			w.named = false
			return nil
		}
		// A file that is a mount point of its own cannot be replaced, only overwritten.
		if err != syscall.EBUSY && err != syscall.EXDEV {
			return err
		}
	}
	return w.overwrite()
}

func (w *writer) overwrite() error {
	fd, err := sys.Open(w.target, syscall.O_WRONLY|syscall.O_TRUNC|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	buf := blocks.Get().(*[]byte)
	defer blocks.Put(buf)
	for offset := int64(0); ; {
		n, err := syscall.Pread(w.fd, *buf, offset)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return syscall.Fsync(fd)
		}
		if err := sys.WriteAll(fd, (*buf)[:n]); err != nil {
			return err
		}
		offset += int64(n)
	}
}

// newVersion is taken after the rename, which changes the file's times.
func (w *writer) newVersion() (string, error) {
	var st syscall.Stat_t
	if w.hash.size > digestLimit {
		if err := syscall.Stat(w.target, &st); err != nil {
			return "", err
		}
	}
	return w.hash.version(&st), nil
}

// abandon removes what is left of the temporary file, as soon as files may change.
func (w *writer) abandon() {
	if w.fd >= 0 {
		syscall.Close(w.fd)
		w.fd = -1
	}
	if w.named {
		w.gate.Enter(gate.Change, nil)
		syscall.Unlink(w.temp)
		w.gate.Leave(gate.Change)
		w.named = false
	}
	if w.spent > 0 {
		w.quota.Refund(w.spent)
		w.spent = 0
	}
}

// Mkdir is the mkdir operation.
func Mkdir(path string) error {
	if err := check(path); err != nil {
		return err
	}
	return makeDirs(path)
}

// makeDirs makes a directory and its parents; one that exists is fine.
func makeDirs(path string) error {
	err := syscall.Mkdir(path, newDirMode)
	switch err {
	case nil:
		return nil
	case syscall.EEXIST:
		return existingDir(path)
	case syscall.ENOENT:
		above := parent(strings.TrimRight(path, "/"))
		if above == path {
			return at(err, path)
		}
		if err := makeDirs(above); err != nil {
			return err
		}
		if err := syscall.Mkdir(path, newDirMode); err != nil && err != syscall.EEXIST {
			return at(err, path)
		}
		return existingDir(path)
	case syscall.EROFS, syscall.EACCES, syscall.EPERM:
		// Some kernels and file systems say this before they notice that the directory exists.
		if existingDir(path) == nil {
			return nil
		}
	}
	return at(err, path)
}

func existingDir(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil || format(&st) != syscall.S_IFDIR {
		return at(syscall.EEXIST, path)
	}
	return nil
}

// Appender is a file that is written from its beginning and only kept when all of it succeeds.
type Appender struct {
	fd   int
	path string
}

// CreateAppender makes the file and its parents, replacing the content of a regular file that exists.
func CreateAppender(path string) (*Appender, error) {
	threads.Enter()
	defer threads.Leave()
	if err := check(path); err != nil {
		return nil, err
	}
	if err := makeDirs(parent(path)); err != nil {
		return nil, err
	}
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err == nil && format(&st) != syscall.S_IFREG {
		return nil, notRegular(path)
	}
	flags := syscall.O_WRONLY | syscall.O_CREAT | syscall.O_TRUNC | syscall.O_NONBLOCK | syscall.O_NOCTTY
	fd, err := sys.Open(path, flags, newFileMode)
	if err != nil {
		return nil, at(err, path)
	}
	if err := syscall.Fstat(fd, &st); err != nil || format(&st) != syscall.S_IFREG {
		syscall.Close(fd)
		return nil, notRegular(path)
	}
	return &Appender{fd: fd, path: path}, nil
}

// Append writes p behind what is there.
func (a *Appender) Append(p []byte) error {
	threads.Enter()
	defer threads.Leave()
	return sys.WriteAll(a.fd, p)
}

// Close ends the file.
func (a *Appender) Close() error { return syscall.Close(a.fd) }

// Remove gives the file up.
func (a *Appender) Remove() {
	syscall.Close(a.fd)
	syscall.Unlink(a.path)
}
