package files

import (
	"bytes"
	"strconv"
	"sync"
	"syscall"

	"runner/internal/fault"
	"runner/internal/mux"
	"runner/internal/sys"
	"runner/internal/threads"
	"runner/internal/wire"
)

const (
	block = wire.MaxPayload
	// sniff is how much of a file decides whether it is binary.
	sniff = 8 << 10
	// binaryHead is how much of a binary file read_text sends.
	binaryHead = 256
	// maxAnswer bounds what read_text holds.
	maxAnswer = 16 << 20
)

var blocks = sync.Pool{New: func() any { b := make([]byte, block); return &b }}

// openRegular opens a file for reading without ever waiting for a writer or touching a device.
func openRegular(path string) (int, syscall.Stat_t, error) {
	threads.Enter()
	defer threads.Leave()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		return -1, st, at(err, path)
	}
	if err := regular(&st, path); err != nil {
		return -1, st, err
	}
	fd, err := sys.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return -1, st, at(err, path)
	}
	// It may be another file by now.
	if err := syscall.Fstat(fd, &st); err != nil {
		syscall.Close(fd)
		return -1, st, at(err, path)
	}
	if err := regular(&st, path); err != nil {
		syscall.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

func regular(st *syscall.Stat_t, path string) error {
	switch format(st) {
	case syscall.S_IFREG:
		return nil
	case syscall.S_IFDIR:
		return at(syscall.EISDIR, path)
	}
	return notRegular(path)
}

func pread(fd int, p []byte, offset int64) (int, error) {
	threads.Enter()
	defer threads.Leave()
	for {
		n, err := syscall.Pread(fd, p, offset)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// Read is the read operation.
func Read(s *mux.Stream, path string, offset int64, length *int64, version bool) error {
	if err := check(path); err != nil {
		return err
	}
	if offset < 0 || length != nil && *length < 0 {
		return fault.Invalid("a negative offset or length")
	}
	fd, st, err := openRegular(path)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var o wire.Object
	end, hash, err := send(s, fd, offset, length, version)
	if err != nil {
		return at(err, path)
	}
	o.Int("size", max(st.Size, end))
	if version {
		v := ""
		if hash != nil {
			v = hash.version(&st)
		} else if v, err = blocking(func() (string, error) { return versionOf(fd) }); err != nil {
			return at(err, path)
		}
		o.Text("version", v)
	}
	s.Finish(o.Bytes())
	return nil
}

// send streams the asked range. A whole file is hashed on the way when its version is wanted.
func send(s *mux.Stream, fd int, offset int64, length *int64, version bool) (int64, *fingerprint, error) {
	var hash *fingerprint
	if version && offset == 0 && length == nil {
		hash = newFingerprint()
	}
	buf := blocks.Get().(*[]byte)
	defer blocks.Put(buf)
	for length == nil || *length > 0 {
		want := int64(block)
		if length != nil {
			want = min(want, *length)
		}
		n, err := pread(fd, (*buf)[:want], offset)
		if err != nil {
			return offset, hash, err
		}
		if n == 0 {
			break
		}
		p := (*buf)[:n]
		if hash != nil {
			hash.add(p)
		}
		if err := s.Send(wire.Data, p); err != nil {
			return offset, hash, err
		}
		offset += int64(n)
		if length != nil {
			*length -= int64(n)
		}
	}
	return offset, hash, nil
}

// TextRange is what read_text is asked for.
type TextRange struct {
	Offset  int64 `json:"offset"`
	Limit   int64 `json:"limit"`
	LineCap int64 `json:"line_cap"`
	ByteCap int64 `json:"byte_cap"`
}

func (r *TextRange) check() error {
	if r.Offset < 1 || r.Limit < 0 || r.LineCap < 1 || r.ByteCap < 1 {
		return fault.Invalid("offset, line_cap and byte_cap start at 1, limit at 0")
	}
	r.LineCap, r.ByteCap = min(r.LineCap, maxAnswer), min(r.ByteCap, maxAnswer)
	return nil
}

// ReadText is the read_text operation. The file goes through a fixed buffer: only the answer is held.
func ReadText(s *mux.Stream, path string, r TextRange) error {
	if err := check(path); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	fd, st, err := openRegular(path)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	t := &textReader{r: r, hash: newFingerprint()}
	if err := t.stream(s, fd); err != nil {
		return at(err, path)
	}
	s.Finish(t.summary(&st), mux.Part{Kind: wire.Data, Bytes: t.out})
	return nil
}

// textReader picks lines out of a file that goes by in blocks.
type textReader struct {
	r      TextRange
	hash   *fingerprint
	binary bool
	line   int64 // number of complete lines gone by
	open   bool  // the last line so far has no newline yet

	out    []byte
	count  int64
	cut    []byte // JSON: [line, bytes], …
	full   bool   // byte_cap is reached
	begun  bool   // something of the current line is in out
	mark   int    // where the current line begins in out
	length int64  // of the current line
}

func (t *textReader) stream(s *mux.Stream, fd int) error {
	buf := blocks.Get().(*[]byte)
	defer blocks.Put(buf)
	for {
		n, err := pread(fd, *buf, t.hash.size)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		p := (*buf)[:n]
		if t.hash.size == 0 && bytes.IndexByte(p[:min(n, sniff)], 0) >= 0 {
			t.binary = true
			t.out = bytes.Clone(p[:min(n, binaryHead)])
		}
		t.hash.add(p)
		if t.binary {
			if t.hash.size > digestLimit {
				break
			}
		} else {
			t.take(p)
		}
		if s.Cancelled() {
			return mux.ErrCancelled
		}
	}
	if t.open && t.wanted() {
		t.finishLine()
	}
	return nil
}

// wanted tells whether the current line is one of those asked for.
func (t *textReader) wanted() bool {
	return !t.full && t.line+1 >= t.r.Offset && t.line+1-t.r.Offset < t.r.Limit
}

func (t *textReader) take(p []byte) {
	for len(p) > 0 {
		if !t.wanted() && t.skip(&p) {
			continue
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			t.append(p)
			t.open = true
			return
		}
		t.append(p[:end])
		t.finishLine()
		t.line++
		t.open = false
		p = p[end+1:]
	}
}

// skip passes lines that are not asked for; before the range one at a time is exact, behind it counting is enough.
func (t *textReader) skip(p *[]byte) bool {
	if t.full || t.line+1 >= t.r.Offset {
		t.line += int64(bytes.Count(*p, newline))
		t.open = (*p)[len(*p)-1] != '\n'
		*p = nil
		return true
	}
	missing := t.r.Offset - 1 - t.line
	if n := int64(bytes.Count(*p, newline)); n < missing {
		t.line += n
		t.open = (*p)[len(*p)-1] != '\n'
		*p = nil
		return true
	}
	rest := *p
	for ; missing > 0; missing-- {
		rest = rest[bytes.IndexByte(rest, '\n')+1:]
		t.line++
	}
	t.open = false
	*p = rest
	return true
}

var newline = []byte{'\n'}

func (t *textReader) append(p []byte) {
	if !t.begun {
		t.begun = true
		t.mark = len(t.out)
		if t.count > 0 {
			t.out = append(t.out, '\n')
		}
	}
	kept := min(t.length, t.r.LineCap)
	room := min(int64(len(p)), t.r.LineCap-kept)
	t.out = append(t.out, p[:room]...)
	t.length += int64(len(p))
}

// finishLine counts the current line in, or takes it back when it does not fit.
func (t *textReader) finishLine() {
	if t.count > 0 && int64(len(t.out)) > t.r.ByteCap {
		t.out = t.out[:t.mark]
		t.full = true
	} else {
		t.count++
		if t.length > t.r.LineCap {
			t.noteCut()
		}
	}
	t.begun = false
	t.length = 0
}

func (t *textReader) noteCut() {
	if len(t.cut) > 0 {
		t.cut = append(t.cut, ',')
	}
	t.cut = append(t.cut, '[')
	t.cut = strconv.AppendInt(t.cut, t.line+1, 10)
	t.cut = append(t.cut, ',')
	t.cut = strconv.AppendInt(t.cut, t.length, 10)
	t.cut = append(t.cut, ']')
}

func (t *textReader) summary(st *syscall.Stat_t) []byte {
	size := max(t.hash.size, st.Size)
	lines := t.line
	if t.open {
		lines++
	}
	var o wire.Object
	o.Int("size", size).Text("version", t.hash.version(st)).Int("lines", lines).Int("first", t.r.Offset).Int("count", t.count)
	cut := append(append([]byte{'['}, t.cut...), ']')
	return o.Raw("cut", cut).Bool("newline", lines > 0 && !t.open).Bool("binary", t.binary).Bytes()
}
