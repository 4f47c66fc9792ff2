package sys

import (
	"bytes"
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

func eachEntry(records []byte, entry func(name []byte, kind byte) bool) bool {
	for len(records) > 0 {
		var e Entry
		if e, records = NextEntry(records); e.Name != nil && !entry(e.Name, e.Kind) {
			return false
		}
	}
	return true
}

// Entry is one name in a directory.
type Entry struct {
	Name []byte // without the NUL that follows it
	Kind byte
	// Next is the position of the following entry, to seek to.
	Next int64
}

// CName is the name with the NUL that follows it.
func (e Entry) CName() []byte { return e.Name[:len(e.Name)+1] }

// NextEntry takes the first of the kernel's linux_dirent64 records: u64 inode, u64 offset, u16 length, u8 kind, name,
// NUL. The name is nil for "." and "..".
func NextEntry(records []byte) (Entry, []byte) {
	const header = 19
	if len(records) < header {
		return Entry{}, nil
	}
	size := int(binary.NativeEndian.Uint16(records[16:]))
	if size < header || size > len(records) {
		return Entry{}, nil
	}
	e := Entry{Kind: records[18], Next: int64(binary.NativeEndian.Uint64(records[8:]))}
	if end := bytes.IndexByte(records[header:size], 0); end > 0 && !dots(records[header:header+end]) {
		e.Name = records[header : header+end]
	}
	return e, records[size:]
}

func dots(name []byte) bool {
	return len(name) == 1 && name[0] == '.' || len(name) == 2 && name[0] == '.' && name[1] == '.'
}
