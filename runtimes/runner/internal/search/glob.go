package search

import (
	"bytes"
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"runner/internal/body"
	"runner/internal/fault"
	"runner/internal/files"
	"runner/internal/mux"
	"runner/internal/pattern"
	"runner/internal/sys"
	"runner/internal/threads"
	"runner/internal/wire"
)

const (
	defaultTimeout = 20000
	// maxRows bounds what a glob without a limit holds.
	maxRows = 1 << 20
)

// atOnce is how many searches run at the same time; each uses every processor it can.
var atOnce = make(chan struct{}, 2)

// common is what both kinds of search are asked.
type common struct {
	Root    wire.Text
	Pattern wire.Text
	Limit   *int64
	Ignore  *bool
	Hidden  *bool
	Timeout *int64
}

func (c *common) check() error {
	if !strings.HasPrefix(string(c.Root), "/") {
		return fault.At("EINVAL", "the path is not absolute", string(c.Root))
	}
	if c.Limit != nil && *c.Limit < 0 || c.Timeout != nil && *c.Timeout < 0 {
		return fault.Invalid("a negative number")
	}
	c.Root = wire.Text(path.Clean(string(c.Root)))
	return nil
}

func (c *common) walk(stop *atomic.Bool) *walk {
	return &walk{stop: stop, ignore: c.Ignore == nil || *c.Ignore, hidden: c.Hidden == nil || *c.Hidden}
}

// limits stops a search when its time is up or nobody wants it any more.
type limits struct {
	stop     atomic.Bool
	timedOut atomic.Bool
	done     chan struct{}
}

func (l *limits) watch(s *mux.Stream, timeout *int64) {
	l.done = make(chan struct{})
	patience := time.Duration(defaultTimeout) * time.Millisecond
	if timeout != nil {
		patience = time.Duration(*timeout) * time.Millisecond
	}
	go func() {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		select {
		case <-timer.C:
			l.timedOut.Store(true)
		case <-s.Done():
		case <-l.done:
		}
		l.stop.Store(true)
	}()
}

// queue waits for a search's turn.
func queue(s *mux.Stream) error {
	select {
	case atOnce <- struct{}{}:
		return nil
	case <-s.Done():
		return mux.ErrCancelled
	}
}

// Glob is the glob operation.
func Glob(s *mux.Stream) error {
	var r struct {
		common
		Dirs bool
		Sort string
	}
	if err := json.Unmarshal(s.Request, &r); err != nil {
		return fault.Invalid(err.Error())
	}
	if err := r.check(); err != nil {
		return err
	}
	compiled, err := pattern.CompileGlob(string(r.Pattern))
	if err != nil {
		return fault.New(fault.BadPattern, err.Error())
	}
	if r.Sort != "" && r.Sort != "mtime" && r.Sort != "path" {
		return fault.Invalid("sort is mtime or path")
	}
	if err := queue(s); err != nil {
		return err
	}
	defer func() { <-atOnce }()
	var l limits
	l.watch(s, r.Timeout)
	defer close(l.done)
	found := &findings{limit: maxRows, byTime: r.Sort != "path"}
	if r.Limit != nil {
		found.limit = int(min(*r.Limit, maxRows))
	}
	w := r.walk(&l.stop)
	if err := globTree(w, string(r.Root), compiled, r.Dirs, found); err != nil {
		return err
	}
	if s.Cancelled() {
		return mux.ErrCancelled
	}
	return found.send(s, string(r.Root), w.incomplete, l.timedOut.Load())
}

func globTree(w *walk, root string, compiled *pattern.Glob, dirs bool, found *findings) error {
	fd, isDir, err := openRoot(root)
	if err != nil {
		return fault.From(err, root)
	}
	if !isDir {
		if name := root[strings.LastIndexByte(root, '/')+1:]; compiled.Match(name) {
			found.add(sys.AtFDCWD, []byte(root+"\x00"), "", dirs)
		}
		return nil
	}
	w.file = func(f *folder, e *entry) {
		if path := f.prefix + e.name(); compiled.Match(path) {
			found.add(f.fd, e.raw, path, dirs)
		}
	}
	w.dir = func(f *folder, e *entry) bool {
		path := f.prefix + e.name()
		if dirs && compiled.Match(path) {
			found.add(f.fd, e.raw, path, dirs)
		}
		return compiled.Below(path)
	}
	top := &folder{fd: fd}
	top.hold()
	w.tree(top, 0)
	return nil
}

// finding is one matching path, relative to the root; "" is the root itself.
type finding struct {
	path  string
	kind  byte
	size  int64
	mtime int64 // nanoseconds
}

// findings keeps the best `limit` of what is found.
type findings struct {
	limit  int
	byTime bool
	total  int64
	all    []finding
}

func (f *findings) add(dir int, name []byte, path string, dirs bool) {
	var own, st syscall.Stat_t
	threads.Enter()
	err := sys.Fstatat(dir, name, &own, sys.AtSymlinkNoFollow)
	st = own
	kind := byte('o')
	if err == nil && (own.Mode&syscall.S_IFMT != syscall.S_IFLNK || sys.Fstatat(dir, name, &st, 0) == nil) {
		kind = files.Kind(&st)
	}
	threads.Leave()
	if err != nil || kind == 'd' && !dirs {
		return
	}
	f.total++
	if !f.byTime && len(f.all) >= f.limit {
		return
	}
	f.all = append(f.all, finding{path, kind, st.Size, st.Mtim.Nano()})
	if len(f.all) >= 2*f.limit+1024 {
		f.trim()
	}
}

func (f *findings) trim() {
	if f.byTime {
		slices.SortFunc(f.all, func(a, b finding) int {
			if a.mtime != b.mtime {
				if a.mtime > b.mtime {
					return -1
				}
				return 1
			}
			return strings.Compare(a.path, b.path)
		})
	}
	f.all = f.all[:min(len(f.all), f.limit)]
}

func (f *findings) send(s *mux.Stream, root string, incomplete, timedOut bool) error {
	f.trim()
	rows := body.NewArray(s)
	base := under(root)
	for i := range f.all {
		found := &f.all[i]
		path := base + found.path
		if found.path == "" {
			path = root
		}
		row := wire.AppendQuoted(rows.Row(), path)
		row = append(row, ',', '"', found.kind, '"', ',')
		row = strconv.AppendInt(row, found.size, 10)
		row = append(row, ',')
		rows.End(strconv.AppendInt(row, found.mtime/1e6, 10))
		if err := rows.Flush(); err != nil {
			return err
		}
	}
	var o wire.Object
	o.Int("total", f.total).Bool("truncated", incomplete || int64(len(f.all)) < f.total).Bool("timed_out", timedOut)
	rows.Finish(o.Bytes())
	return nil
}

var newline = []byte{'\n'}

func countLines(p []byte) int64 { return int64(bytes.Count(p, newline)) }
