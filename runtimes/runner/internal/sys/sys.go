// Package sys holds the few Linux calls that the standard library does not offer: everything relative to a directory
// descriptor, reading directories without allocation, and process control.
package sys

import (
	"strconv"
	"syscall"
	"unsafe"
)

const (
	AtFDCWD           = -100
	AtSymlinkNoFollow = 0x100
	AtRemoveDir       = 0x200
	AtSymlinkFollow   = 0x400
	OPath             = 0x200000
	OTmpfile          = 0x400000 | syscall.O_DIRECTORY

	prSetDumpable       = 4
	prSetChildSubreaper = 36
	pAll                = 0
	wExited             = 4
	wNoWait             = 0x01000000
	fionread            = 0x541b
	sysOpenat2          = 437
)

// Openat opens name, which must end in a NUL byte, relative to dir.
func Openat(dir int, name []byte, flags int, mode uint32) (int, error) {
	for {
		fd, _, errno := syscall.Syscall6(syscall.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
			uintptr(flags|syscall.O_CLOEXEC), uintptr(mode), 0, 0)
		if errno == syscall.EINTR {
			continue
		}
		if errno != 0 {
			return -1, errno
		}
		return int(fd), nil
	}
}

// LinkFile gives an open file, which may have no name yet, a name.
func LinkFile(fd int, path string) error {
	name, err := cstring(path)
	if err != nil {
		return err
	}
	file, err := cstring("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	dir := AtFDCWD
	_, _, errno := syscall.Syscall6(syscall.SYS_LINKAT, uintptr(dir), uintptr(unsafe.Pointer(&file[0])),
		uintptr(dir), uintptr(unsafe.Pointer(&name[0])), AtSymlinkFollow, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// OpenDirBelow opens a directory of dir that is not a mount point; name must end in a NUL byte. One that is, or was
// reached by a link, is EXDEV or ELOOP. Kernels without openat2 notice only other file systems.
func OpenDirBelow(dir int, name []byte) (int, error) {
	const noCrossing, noLinks = 0x01, 0x04
	const flags = syscall.O_RDONLY | syscall.O_DIRECTORY | syscall.O_NOFOLLOW | syscall.O_NONBLOCK | syscall.O_CLOEXEC
	how := [3]uint64{flags, 0, noCrossing | noLinks}
	for {
		fd, _, errno := syscall.Syscall6(sysOpenat2, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
			uintptr(unsafe.Pointer(&how)), unsafe.Sizeof(how), 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case syscall.EINTR, syscall.EAGAIN:
			continue
		case syscall.ENOSYS, syscall.EPERM:
			return Openat(dir, name, flags, 0)
		}
		return -1, errno
	}
}

// Open opens a path; unlike syscall.Open it retries when interrupted and always sets O_CLOEXEC.
func Open(path string, flags int, mode uint32) (int, error) {
	name, err := cstring(path)
	if err != nil {
		return -1, err
	}
	return Openat(AtFDCWD, name, flags, mode)
}

// Read reads once and retries when interrupted.
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// WriteAll writes all of p.
func WriteAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := syscall.Write(fd, p)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Fstatat describes name, which must end in a NUL byte, relative to dir.
func Fstatat(dir int, name []byte, st *syscall.Stat_t, flags int) error {
	_, _, errno := syscall.Syscall6(sysFstatat, uintptr(dir), uintptr(unsafe.Pointer(&name[0])),
		uintptr(unsafe.Pointer(st)), uintptr(flags), 0, 0)
	return asError(errno)
}

// Unlinkat removes name relative to dir; flags may be AtRemoveDir.
func Unlinkat(dir int, name string, flags int) error {
	p, err := cstring(name)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(dir), uintptr(unsafe.Pointer(&p[0])), uintptr(flags))
	return asError(errno)
}

// Access asks the kernel whether the effective user may do mode (4 read, 2 write, 1 execute) to path.
func Access(path string, mode uint32) error {
	p, err := cstring(path)
	if err != nil {
		return err
	}
	_, _, errno := syscall.Syscall(syscall.SYS_FACCESSAT, ^uintptr(99), uintptr(unsafe.Pointer(&p[0])), uintptr(mode))
	return asError(errno)
}

// WaitAny blocks until some child has ended and leaves it unreaped.
func WaitAny() error {
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pAll, 0, 0, wExited|wNoWait, 0, 0)
		if errno != syscall.EINTR {
			return asError(errno)
		}
	}
}

// SetDumpable(false) takes the process out of reach of others with the same uid: no tracing, no /proc/PID/mem or fd.
func SetDumpable(on bool) error {
	value := uintptr(0)
	if on {
		value = 1
	}
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetDumpable, value, 0)
	return asError(errno)
}

// BecomeSubreaper makes orphaned descendants children of this process, as they are of PID 1.
func BecomeSubreaper() error {
	_, _, errno := syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)
	return asError(errno)
}

// Readable returns how many bytes can be read from a pipe now.
func Readable(fd int) (int, error) {
	var n int32
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), fionread, uintptr(unsafe.Pointer(&n)))
	return int(n), asError(errno)
}

// sigaction is the kernel's own layout, not the C library's.
type sigaction struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// IgnoreSignal sets a signal's disposition to SIG_IGN behind the Go runtime's back.
func IgnoreSignal(signal syscall.Signal) error {
	action := sigaction{handler: 1}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal),
		uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
	return asError(errno)
}

func asError(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func cstring(s string) ([]byte, error) {
	for i := 0; i < len(s); i++ {
		if s[i] == 0 {
			return nil, syscall.EINVAL
		}
	}
	p := make([]byte, len(s)+1)
	copy(p, s)
	return p, nil
}
