package files

import (
	"strings"
	"syscall"
)

// maxLinks is how many symbolic links are followed, as in the kernel.
const maxLinks = 40

// Realpath resolves a path like Python's os.path.realpath(strict=False): `..` after a link climbs from the link's
// target, components that do not exist are kept, a loop is ELOOP.
func Realpath(path string) (string, error) {
	if err := check(path); err != nil {
		return "", err
	}
	resolved := ""
	left := maxLinks
	pending := path
	for pending != "" {
		var name string
		name, pending, _ = strings.Cut(pending, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			resolved = resolved[:max(0, strings.LastIndexByte(resolved, '/'))]
			continue
		}
		target, isLink, err := readLink(resolved + "/" + name)
		if err != nil {
			return "", at(err, resolved+"/"+name)
		}
		if !isLink {
			resolved += "/" + name
			continue
		}
		if left--; left < 0 {
			return "", at(syscall.ELOOP, path)
		}
		if strings.HasPrefix(target, "/") {
			resolved = ""
		}
		pending = target + "/" + pending
	}
	if resolved == "" {
		return "/", nil
	}
	return resolved, nil
}

// readLink returns a link's target. A name that does not exist, or cannot, is no link.
func readLink(path string) (target string, isLink bool, err error) {
	var buf [4096]byte
	n, err := syscall.Readlink(path, buf[:])
	switch err {
	case nil:
		return string(buf[:n]), true, nil
	case syscall.EINVAL, syscall.ENOENT, syscall.ENOTDIR:
		return "", false, nil
	}
	return "", false, err
}

// resolveParent resolves all but the last component, which is meant itself even if it is a link.
func resolveParent(path string) (string, error) {
	if err := check(path); err != nil {
		return "", err
	}
	trimmed := strings.TrimRight(path, "/")
	slash := strings.LastIndexByte(trimmed, '/')
	if slash < 0 {
		return "/", nil
	}
	name := trimmed[slash+1:]
	if name == "." || name == ".." {
		return Realpath(trimmed)
	}
	parent, err := Realpath(trimmed[:slash+1])
	if err != nil {
		return "", err
	}
	return child(parent, name), nil
}

func child(dir, name string) string {
	if dir == "/" {
		return "/" + name
	}
	return dir + "/" + name
}

func parent(path string) string {
	if slash := strings.LastIndexByte(path, '/'); slash > 0 {
		return path[:slash]
	}
	return "/"
}

// Within tells whether path is dir or lies below it; both are resolved.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}
