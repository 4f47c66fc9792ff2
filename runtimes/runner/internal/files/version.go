package files

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strconv"
	"syscall"
)

// digestLimit is the size up to which a file's version is a digest of its content.
const digestLimit = 8 << 20

// fingerprint makes a version while a file's bytes go by.
type fingerprint struct {
	sum  hash.Hash
	size int64
}

func newFingerprint() *fingerprint { return &fingerprint{sum: sha256.New()} }

func (f *fingerprint) add(p []byte) {
	f.size += int64(len(p))
	if f.size <= digestLimit {
		f.sum.Write(p)
	}
}

// version needs the file's description when its content was too long to be read for a digest.
func (f *fingerprint) version(st *syscall.Stat_t) string {
	if f.size <= digestLimit {
		return "sha256:" + hex.EncodeToString(f.sum.Sum(nil)[:16])
	}
	return statVersion(st)
}

func statVersion(st *syscall.Stat_t) string {
	v := []byte("stat:")
	for _, n := range [...]int64{int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano()} {
		v = append(strconv.AppendInt(v, n, 36), '.')
	}
	return string(v[:len(v)-1])
}

// versionOf reads an open file for its version.
func versionOf(fd int) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Size > digestLimit {
		return statVersion(&st), nil
	}
	f := newFingerprint()
	buf := blocks.Get().(*[]byte)
	defer blocks.Put(buf)
	for f.size <= digestLimit {
		n, err := syscall.Pread(fd, *buf, f.size)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			break
		}
		f.add((*buf)[:n])
	}
	return f.version(&st), nil
}
