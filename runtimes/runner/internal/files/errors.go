// Package files is the sandbox's file system as a backend sees it: in the container's own view, as the container's user.
package files

import (
	"errors"
	"strings"
	"syscall"

	"runner/internal/fault"
	"runner/internal/mux"
	"runner/internal/threads"
)

// check refuses what is no absolute path.
func check(path string) error {
	if !strings.HasPrefix(path, "/") {
		return fault.At("EINVAL", "the path is not absolute", path)
	}
	if strings.IndexByte(path, 0) >= 0 {
		return fault.At("EINVAL", "the path holds a NUL byte", path)
	}
	return nil
}

func notRegular(path string) error {
	return fault.At(fault.NotRegular, "neither a file nor a directory", path)
}

// at names an error of the file system and where it happened; the end of the operation itself is neither.
func at(err error, path string) error {
	if err == nil || errors.Is(err, mux.ErrCancelled) || errors.Is(err, mux.ErrGone) {
		return err
	}
	return fault.From(err, path)
}

// blocking runs a few system calls in a place among those that may block.
func blocking[T any](f func() (T, error)) (T, error) {
	threads.Enter()
	defer threads.Leave()
	return f()
}

func format(st *syscall.Stat_t) uint32 { return st.Mode & syscall.S_IFMT }
