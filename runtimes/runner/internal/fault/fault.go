// Package fault is what an operation answers when it fails: a code the backend can act on, a sentence, and a path.
package fault

import (
	"errors"
	"syscall"
)

// Codes that are not errno names.
const (
	Cancelled        = "cancelled"
	Changed          = "changed"
	NotRegular       = "not_regular"
	Refused          = "refused"
	BadPattern       = "bad_pattern"
	NoSuchJob        = "no_such_job"
	TooManyProcesses = "too_many_processes"
)

// Fault is the payload of an ERROR frame.
type Fault struct {
	Code    string
	Message string
	Path    string
}

func (f *Fault) Error() string {
	if f.Path == "" {
		return f.Code + ": " + f.Message
	}
	return f.Code + ": " + f.Message + ": " + f.Path
}

// New makes a fault without a path.
func New(code, message string) *Fault {
	return &Fault{Code: code, Message: message}
}

// At makes a fault about a path.
func At(code, message, path string) *Fault {
	return &Fault{Code: code, Message: message, Path: path}
}

// Invalid is the fault of a request of the wrong shape.
func Invalid(message string) *Fault {
	return New("EINVAL", message)
}

// From names any error; a fault stays what it is.
func From(err error, path string) *Fault {
	var known *Fault
	if errors.As(err, &known) {
		return known
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return At(Name(errno), errno.Error(), path)
	}
	return At("EIO", err.Error(), path)
}

// Name is the symbol of an errno.
func Name(errno syscall.Errno) string {
	for _, known := range names {
		if known.errno == errno {
			return known.name
		}
	}
	return "EIO"
}

var names = [...]struct {
	errno syscall.Errno
	name  string
}{
	{syscall.ENOENT, "ENOENT"}, {syscall.EACCES, "EACCES"}, {syscall.EPERM, "EPERM"}, {syscall.EEXIST, "EEXIST"},
	{syscall.ENOTDIR, "ENOTDIR"}, {syscall.EISDIR, "EISDIR"}, {syscall.ELOOP, "ELOOP"},
	{syscall.ENAMETOOLONG, "ENAMETOOLONG"}, {syscall.ENOSPC, "ENOSPC"}, {syscall.EDQUOT, "EDQUOT"},
	{syscall.EROFS, "EROFS"}, {syscall.EFBIG, "EFBIG"}, {syscall.EINVAL, "EINVAL"}, {syscall.ENOTEMPTY, "ENOTEMPTY"},
	{syscall.EBUSY, "EBUSY"}, {syscall.EIO, "EIO"}, {syscall.EAGAIN, "EAGAIN"}, {syscall.ENOMEM, "ENOMEM"},
	{syscall.EMFILE, "EMFILE"}, {syscall.ENFILE, "ENFILE"}, {syscall.EXDEV, "EXDEV"}, {syscall.ENXIO, "ENXIO"},
	{syscall.ENODEV, "ENODEV"}, {syscall.EMLINK, "EMLINK"}, {syscall.ETXTBSY, "ETXTBSY"}, {syscall.EPIPE, "EPIPE"},
	{syscall.EOVERFLOW, "EOVERFLOW"}, {syscall.ENOSYS, "ENOSYS"}, {syscall.EOPNOTSUPP, "EOPNOTSUPP"},
	{syscall.ESTALE, "ESTALE"}, {syscall.ETIMEDOUT, "ETIMEDOUT"}, {syscall.E2BIG, "E2BIG"}, {syscall.ENOEXEC, "ENOEXEC"}, {syscall.ESRCH, "ESRCH"},
	{syscall.ECONNREFUSED, "ECONNREFUSED"}, {syscall.ECONNRESET, "ECONNRESET"}, {syscall.EPROTOTYPE, "EPROTOTYPE"},
}
