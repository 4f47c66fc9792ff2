package sys

import (
	"encoding/binary"
	"syscall"
)

// Kinds of a directory entry, as the file system reports them without a stat.
const (
	KindUnknown = 0
	KindDir     = 4
	KindFile    = 8
	KindLink    = 10
)

// ReadDir calls entry for every name in the directory fd except "." and "..", until entry returns false. The name is
// only valid during the call. buf is scratch space; a few KiB or more.
func ReadDir(fd int, buf []byte, entry func(name []byte, kind byte) bool) error {
	for {
		n, err := syscall.ReadDirent(fd, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		if !eachEntry(buf[:n], entry) {
			return nil
		}
	}
}

// eachEntry walks the kernel's linux_dirent64 records: u64 inode, u64 offset, u16 length, u8 kind, name, NUL.
func eachEntry(records []byte, entry func(name []byte, kind byte) bool) bool {
	const header = 19
	for len(records) >= header {
		size := int(binary.NativeEndian.Uint16(records[16:]))
		if size < header || size > len(records) {
			return true
		}
		name := records[header:size]
		for i, c := range name {
			if c == 0 {
				name = name[:i]
				break
			}
		}
		kind := records[18]
		records = records[size:]
		if dots(name) {
			continue
		}
		if !entry(name, kind) {
			return false
		}
	}
	return true
}

func dots(name []byte) bool {
	return len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.'
}
