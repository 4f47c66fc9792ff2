package search

import (
	"encoding/json"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

	"runner/internal/body"
	"runner/internal/fault"
	"runner/internal/mux"
	"runner/internal/pattern"
	"runner/internal/sys"
	"runner/internal/wire"
)

const (
	defaultLineCap = 8192
	maxLineCap     = 1 << 20
	maxContext     = 1000
	// chunkFiles is how many files a worker takes at a time.
	chunkFiles = 32
	// ahead is how many chunks may be searched before the first of them is sent.
	ahead      = 64
	maxWorkers = 4
)

type mode int

const (
	content mode = iota
	onlyFiles
	onlyCounts
)

var modes = map[string]mode{"": content, "content": content, "files": onlyFiles, "count": onlyCounts}

type grepRequest struct {
	common
	Literal    bool
	IgnoreCase bool `json:"ignore_case"`
	Glob       *wire.Text
	Mode       string
	Before     int64
	After      int64
	LineCap    *int64 `json:"line_cap"`
}

// grep is one search.
type grep struct {
	limits
	mode          mode
	before, after int
	lineCap       int
	limit         int64 // -1: none
	root          string
	filter        *pattern.Glob
	matcher       *matcher
	searched      atomic.Int64
	incomplete    bool
}

// Grep is the grep operation.
func Grep(s *mux.Stream) error {
	var r grepRequest
	if err := json.Unmarshal(s.Request, &r); err != nil {
		return fault.Invalid(err.Error())
	}
	g, err := newGrep(&r)
	if err != nil {
		return err
	}
	if err := checkRoot(g.root); err != nil {
		return err
	}
	if err := queue(s); err != nil {
		return err
	}
	defer func() { <-atOnce }()
	g.watch(s, r.Timeout)
	defer close(g.done)
	return g.run(s, r.walk(&g.stop))
}

func newGrep(r *grepRequest) (*grep, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	m, known := modes[r.Mode]
	if !known || r.Before < 0 || r.After < 0 || r.LineCap != nil && *r.LineCap < 1 {
		return nil, fault.Invalid("mode, before, after or line_cap")
	}
	g := &grep{mode: m, root: string(r.Root), limit: -1, lineCap: defaultLineCap}
	g.before, g.after = int(min(r.Before, maxContext)), int(min(r.After, maxContext))
	if r.LineCap != nil {
		g.lineCap = int(min(*r.LineCap, maxLineCap))
	}
	if r.Limit != nil {
		g.limit = *r.Limit
	}
	var err error
	if g.matcher, err = newMatcher(string(r.Pattern), r.Literal, r.IgnoreCase); err != nil {
		return nil, fault.New(fault.BadPattern, err.Error())
	}
	if r.Glob != nil && *r.Glob != "" {
		if g.filter, err = pattern.CompileGlob(string(*r.Glob)); err != nil {
			return nil, fault.New(fault.BadPattern, "glob: "+err.Error())
		}
	}
	return g, nil
}

// chunk is a few files of one folder, searched by one worker. Its rows go to out in small blocks, so that a file with a
// million matches is never held.
type chunk struct {
	folder *folder
	files  []entry
	out    chan *rowBlock
}

// rowBlock is some rows' JSON; ends says where each ends, firsts which of them are the first of their file.
type rowBlock struct {
	json   []byte
	ends   []int
	firsts []bool
}

// run walks, searches with all processors, and sends the rows in the order of the walk.
func (g *grep) run(s *mux.Stream, w *walk) error {
	fd, isDir, err := openRoot(g.root)
	if err != nil {
		return fault.From(err, g.root)
	}
	work, ordered := make(chan *chunk, ahead), make(chan *chunk, ahead)
	var workers sync.WaitGroup
	count := min(runtime.GOMAXPROCS(0), maxWorkers)
	if !isDir {
		count = 1
	}
	for range count {
		workers.Add(1)
		go func() {
			defer workers.Done()
			newWorker(g, !isDir).work(work)
		}()
	}
	go func() {
		defer close(ordered)
		defer close(work)
		give := func(c *chunk) {
			c.out = make(chan *rowBlock, 2)
			c.folder.hold()
			ordered <- c
			work <- c
		}
		if isDir {
			g.produce(w, fd, give)
		} else {
			give(&chunk{folder: g.lone(), files: []entry{{raw: []byte(g.root + "\x00"), kind: sys.KindFile}}})
		}
	}()
	err = g.collect(s, ordered)
	workers.Wait()
	return err
}

// lone is the folder of a root that is a file.
func (g *grep) lone() *folder {
	f := &folder{fd: sys.AtFDCWD}
	// Never released to zero: there is nothing to close.
	f.hold()
	return f
}

// produce walks the tree and gives its files away in chunks.
func (g *grep) produce(w *walk, fd int, give func(*chunk)) {
	var open *chunk
	flush := func() {
		if open != nil {
			give(open)
			open.folder.release()
			open = nil
		}
	}
	w.file = func(f *folder, e *entry) {
		if e.kind != sys.KindFile || g.filter != nil && !g.filter.Match(f.prefix+e.name()) {
			return
		}
		if open != nil && (open.folder != f || len(open.files) >= chunkFiles) {
			flush()
		}
		if open == nil {
			// Held while the walk goes on; the chunk takes its own hold when it is given away.
			f.hold()
			open = &chunk{folder: f}
		}
		open.files = append(open.files, *e)
	}
	w.dir = func(f *folder, e *entry) bool { return g.filter == nil || g.filter.Below(f.prefix+e.name()) }
	top := &folder{fd: fd}
	top.hold()
	w.tree(top, 0)
	flush()
	g.incomplete = w.incomplete
}

// collect sends the chunks' rows in order until there are enough, and always empties every channel.
func (g *grep) collect(s *mux.Stream, ordered <-chan *chunk) error {
	rows := body.NewArray(s)
	files, truncated := int64(0), false
	var failed error
	for c := range ordered {
		for block := range c.out {
			if truncated || failed != nil {
				continue
			}
			for i, end := range block.ends {
				if g.limit >= 0 && rows.Rows >= g.limit {
					truncated = true
					g.stop.Store(true)
					break
				}
				if block.firsts[i] {
					files++
				}
				begin := 0
				if i > 0 {
					begin = block.ends[i-1]
				}
				rows.End(append(rows.Row(), block.json[begin:end]...))
			}
			if failed = rows.Flush(); failed != nil {
				g.stop.Store(true)
			}
		}
	}
	if failed != nil {
		return failed
	}
	if s.Cancelled() {
		return mux.ErrCancelled
	}
	var o wire.Object
	o.Int("rows", rows.Rows).Int("files", files).Int("searched", g.searched.Load())
	o.Bool("truncated", truncated || g.incomplete).Bool("timed_out", g.timedOut.Load())
	rows.Finish(o.Bytes())
	return nil
}

// display is a file's path as it is shown.
func (g *grep) display(f *folder, e *entry) string {
	if f.fd == sys.AtFDCWD {
		return g.root
	}
	return under(g.root) + f.prefix + e.name()
}

const openFlags = syscall.O_RDONLY | syscall.O_NONBLOCK | syscall.O_NOCTTY

func openFile(f *folder, e *entry) (int, error) {
	if f.fd != sys.AtFDCWD {
		return sys.Openat(f.fd, e.raw, openFlags|syscall.O_NOFOLLOW, 0)
	}
	// The root itself, which may be a link and may be anything.
	fd, err := sys.Openat(f.fd, e.raw, openFlags, 0)
	if err != nil {
		return -1, err
	}
	var st syscall.Stat_t
	if syscall.Fstat(fd, &st) != nil || st.Mode&syscall.S_IFMT != syscall.S_IFREG {
		syscall.Close(fd)
		return -1, syscall.EINVAL
	}
	return fd, nil
}

// checkRoot refuses a root that is neither a directory nor a file before it is opened.
func checkRoot(root string) error {
	var st syscall.Stat_t
	if err := syscall.Stat(root, &st); err != nil {
		return fault.From(err, root)
	}
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFDIR:
		return nil
	}
	return fault.At(fault.NotRegular, "neither a file nor a directory", root)
}
