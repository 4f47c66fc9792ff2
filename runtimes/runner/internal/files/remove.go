package files

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"runner/internal/fault"
	"runner/internal/sys"
	"runner/internal/threads"
)

// Remove is the remove operation. It never follows a symbolic link: every step is relative to an open directory.
func Remove(path, workdir string, cancelled func() bool) error {
	threads.Enter()
	defer threads.Leave()
	resolved, err := resolveParent(path)
	if err != nil {
		return err
	}
	if within(workdir, resolved) {
		return fault.At(fault.Refused, "the working directory and what it lies in cannot be removed", resolved)
	}
	dir, err := sys.Open(parent(resolved), sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return at(err, parent(resolved))
	}
	name := resolved[len(parent(resolved)):]
	if name[0] == '/' {
		name = name[1:]
	}
	r := &remover{dir: dir, cancelled: cancelled, buf: make([]byte, 32<<10)}
	defer func() { syscall.Close(r.dir) }()
	return at(r.remove(name), resolved)
}

// remover walks a tree with one open directory, however deep it is: it climbs with "..", and checks that it arrives
// where it came from.
type remover struct {
	dir       int
	above     []step
	buf       []byte
	cancelled func() bool
}

type step struct {
	dev, ino uint64
	name     string
}

func (r *remover) remove(name string) error {
	err := r.unlink(name)
	if err != syscall.EISDIR {
		return err
	}
	if err := r.enter(name); err != nil {
		return err
	}
	for len(r.above) > 0 {
		if r.cancelled() {
			return fault.New(fault.Cancelled, "the operation was cancelled")
		}
		next, err := r.sweep()
		if err != nil {
			return err
		}
		if next != "" {
			err = r.enter(next)
		} else {
			err = r.leave()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unlink removes a name that needs no walking; a directory that is not empty is EISDIR.
func (r *remover) unlink(name string) error {
	err := sys.Unlinkat(r.dir, name, 0)
	if err != syscall.EISDIR && err != syscall.EPERM {
		return err
	}
	// Linux says EISDIR for a directory; POSIX allows EPERM, which can also be what it says.
	switch again := sys.Unlinkat(r.dir, name, sys.AtRemoveDir); again {
	case syscall.ENOTEMPTY, syscall.EEXIST:
		return syscall.EISDIR
	case syscall.ENOTDIR:
		return err
	default:
		return again
	}
}

// enter opens a directory of the current one.
func (r *remover) enter(name string) error {
	var here syscall.Stat_t
	if err := syscall.Fstat(r.dir, &here); err != nil {
		return err
	}
	fd, err := openDirAt(r.dir, name)
	if err != nil {
		return err
	}
	r.above = append(r.above, step{uint64(here.Dev), here.Ino, name})
	syscall.Close(r.dir)
	r.dir = fd
	return nil
}

// openDirAt opens a directory, if need be by giving ourselves the right to.
func openDirAt(dir int, name string) (int, error) {
	raw := append([]byte(name), 0)
	const flags = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	fd, err := sys.Openat(dir, raw, flags, 0)
	if err == syscall.EACCES {
		if handle, denied := sys.Openat(dir, raw, sys.OPath|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0); denied == nil {
			// The descriptor cannot be swapped for a link, the name could.
			syscall.Chmod("/proc/self/fd/"+strconv.Itoa(handle), 0o700)
			syscall.Close(handle)
			fd, err = sys.Openat(dir, raw, flags, 0)
		}
	}
	if err != nil {
		return -1, err
	}
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) == nil && st.Mode&0o700 != 0o700 && int(st.Uid) == os.Geteuid() {
		syscall.Fchmod(fd, 0o700)
	}
	return fd, nil
}

// sweep removes what it can of the current directory and returns the first name that has to be entered.
func (r *remover) sweep() (next string, err error) {
	if _, err := syscall.Seek(r.dir, 0, 0); err != nil {
		return "", err
	}
	readErr := sys.ReadDir(r.dir, r.buf, func(name []byte, _ byte) bool {
		n := string(name)
		switch failed := r.unlink(n); {
		case failed == nil || failed == syscall.ENOENT:
			return true
		case failed == syscall.EISDIR:
			next = n
		default:
			err = failed
		}
		return false
	})
	return next, errors.Join(err, readErr)
}

// leave climbs and removes the directory it came out of.
func (r *remover) leave() error {
	last := r.above[len(r.above)-1]
	up, err := sys.Openat(r.dir, []byte("..\x00"), sys.OPath|syscall.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(up, &st); err != nil || uint64(st.Dev) != last.dev || st.Ino != last.ino {
		syscall.Close(up)
		return syscall.EBUSY
	}
	syscall.Close(r.dir)
	r.dir = up
	r.above = r.above[:len(r.above)-1]
	if len(r.above) > 0 {
		// It was opened for its name only, but is read next.
		readable, err := sys.Openat(up, []byte(".\x00"), syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		syscall.Close(up)
		r.dir = readable
	}
	err = sys.Unlinkat(r.dir, last.name, sys.AtRemoveDir)
	if err == syscall.ENOTEMPTY || err == syscall.EEXIST {
		// Someone put something in again: it is swept once more with its parent.
		if len(r.above) > 0 {
			return nil
		}
	}
	if err == syscall.ENOENT {
		return nil
	}
	return err
}
