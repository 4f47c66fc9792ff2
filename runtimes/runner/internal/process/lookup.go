package process

import (
	"strings"
	"syscall"

	"runner/internal/sys"
)

// defaultPath is used when a command's environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Shell is what runs `shell` commands and scripts without an interpreter line.
const Shell = "/bin/sh"

// LookPath finds a program the way execvp does, along the PATH of env and relative to dir. The error is ENOENT when
// there is none, EACCES when there is one that must not be executed.
func LookPath(name string, env []string, dir string) (string, error) {
	if name == "" {
		return "", syscall.ENOENT
	}
	if strings.Contains(name, "/") {
		path := join(dir, name)
		return path, executable(path)
	}
	result := error(syscall.ENOENT)
	for _, folder := range strings.Split(pathOf(env), ":") {
		path := join(join(dir, folder), name)
		var st syscall.Stat_t
		if syscall.Stat(path, &st) != nil {
			// Also when the folder is closed to us: as far as we can see, there is no such program.
			continue
		}
		if err := executable(path); err == nil {
			return path, nil
		}
		result = syscall.EACCES
	}
	return "", result
}

func pathOf(env []string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(env[i], "PATH="); ok {
			return value
		}
	}
	return defaultPath
}

func join(dir, name string) string {
	switch {
	case strings.HasPrefix(name, "/"):
		return name
	case name == "":
		return dir
	case dir == "/":
		return "/" + name
	}
	return dir + "/" + name
}

func executable(path string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return syscall.EACCES
	}
	return sys.Access(path, 1)
}

// CheckDir tells why dir cannot be a working directory.
func CheckDir(dir string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return err
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFDIR {
		return syscall.ENOTDIR
	}
	return sys.Access(dir, 1)
}
