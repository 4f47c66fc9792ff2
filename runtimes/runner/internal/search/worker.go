package search

import (
	"bytes"
	"strconv"
	"syscall"
	"unicode/utf8"

	"runner/internal/sys"
	"runner/internal/threads"
	"runner/internal/wire"
)

const (
	window = 256 << 10
	// maxLine is the longest line that is searched whole.
	maxLine = 4 << 20
	sniff   = 8 << 10
	// blockSize is when rows are handed on.
	blockSize = 32 << 10
)

// worker searches files, one after the other, through one buffer.
type worker struct {
	grep    *grep
	matcher *matcher
	alone   bool // the root is this file: it is searched even if it is binary
	buf     []byte

	out   chan *rowBlock
	block *rowBlock

	// Of the current file.
	folder  *folder
	entry   *entry
	path    []byte // as JSON; empty until needed
	matches int64
	begun   bool  // a row has been written
	pos     int   // where the next line begins in buf
	line    int64 // its number
	shown   int64 // number of the last line that was written
	owed    int   // lines of context still to come
	done    bool  // enough of this file
}

func newWorker(g *grep, alone bool) *worker {
	return &worker{grep: g, matcher: g.matcher.fork(), alone: alone, buf: make([]byte, window)}
}

func (w *worker) work(chunks <-chan *chunk) {
	for c := range chunks {
		w.out, w.folder = c.out, c.folder
		threads.Enter()
		for i := range c.files {
			if w.grep.stop.Load() {
				break
			}
			w.entry = &c.files[i]
			w.file()
		}
		threads.Leave()
		w.flush()
		close(c.out)
		c.folder.release()
	}
}

// flush hands the rows on. It may wait for the peer.
func (w *worker) flush() {
	if w.block != nil && len(w.block.ends) > 0 {
		w.out <- w.block
	}
	w.block = nil
}

func (w *worker) file() {
	fd, err := openFile(w.folder, w.entry)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	w.path, w.matches, w.begun, w.pos, w.line, w.shown, w.owed, w.done = w.path[:0], 0, false, 0, 1, 0, 0, false
	if !w.scan(fd) {
		return
	}
	w.grep.searched.Add(1)
	if w.grep.mode == onlyCounts && w.matches > 0 {
		row := w.row()
		row = append(row, ',')
		w.end(strconv.AppendInt(row, w.matches, 10))
	}
}

// scan reads the file through the buffer; false when it is not to be searched at all.
func (w *worker) scan(fd int) bool {
	filled := 0
	for first := true; ; first = false {
		n, err := sys.Read(fd, w.buf[filled:])
		if err != nil {
			return !first
		}
		filled += n
		if n > 0 && filled < len(w.buf) && !first {
			continue
		}
		eof := n == 0
		if first {
			if eof {
				return true
			}
			if !w.alone && bytes.IndexByte(w.buf[:min(filled, sniff)], 0) >= 0 {
				return false
			}
			if filled < len(w.buf) {
				// Nearly always the whole file; only a read of nothing proves it.
				more, err := sys.Read(fd, w.buf[filled:])
				filled += max(0, more)
				eof = more == 0 || err != nil
				if !eof && filled < len(w.buf) {
					continue
				}
			}
		}
		complete := filled
		if !eof {
			complete = bytes.LastIndexByte(w.buf[:filled], '\n') + 1
		}
		if complete <= w.pos && !eof {
			var ok bool
			if filled, ok = w.widen(fd, filled); !ok {
				return true
			}
			continue
		}
		w.matcher.begin()
		w.lines(complete)
		if eof || w.done || w.grep.stop.Load() {
			return true
		}
		filled = w.slide(complete, filled)
	}
}

// slide keeps what has not been searched, and the lines before it that may still be shown as context.
func (w *worker) slide(complete, filled int) int {
	keep := complete
	for i := 0; i < w.grep.before && keep > 0 && complete-keep < len(w.buf)/2; i++ {
		keep = bytes.LastIndexByte(w.buf[:keep-1], '\n') + 1
	}
	if complete-keep >= len(w.buf)/2 || keep == 0 && filled == len(w.buf) {
		// Room for what comes next is more important than context.
		keep = complete
	}
	copy(w.buf, w.buf[keep:filled])
	w.pos = complete - keep
	return filled - keep
}

// widen makes room for a line that is longer than the buffer, or, beyond maxLine, searches its beginning only.
func (w *worker) widen(fd, filled int) (int, bool) {
	if w.pos > 0 {
		copy(w.buf, w.buf[w.pos:filled])
		filled -= w.pos
		w.pos = 0
		return filled, true
	}
	if len(w.buf) < maxLine {
		w.buf = append(w.buf, make([]byte, len(w.buf))...)
		return filled, true
	}
	w.matcher.begin()
	w.lines(filled)
	rest, ok := w.skipLine(fd)
	w.line++
	w.pos = 0
	return rest, ok && !w.done
}

// skipLine reads up to the end of an endless line and keeps what follows it.
func (w *worker) skipLine(fd int) (int, bool) {
	for !w.grep.stop.Load() {
		n, err := sys.Read(fd, w.buf)
		if err != nil || n <= 0 {
			return 0, false
		}
		if end := bytes.IndexByte(w.buf[:n], '\n'); end >= 0 {
			return copy(w.buf, w.buf[end+1:n]), true
		}
	}
	return 0, false
}

// lines searches the complete lines from pos to end.
func (w *worker) lines(end int) {
	buf := w.buf[:end]
	for w.pos < end && !w.done {
		start, stop, at, found := w.matcher.next(buf, w.pos)
		if !found {
			start = end
		}
		w.showAfter(buf, start)
		w.line += countLines(buf[w.pos:start])
		w.pos = start
		if !found {
			return
		}
		w.matches++
		w.hit(buf, start, stop, at)
		w.line++
		w.pos = min(stop+1, end)
		if w.grep.stop.Load() {
			w.done = true
		}
	}
}

// hit deals with a matching line.
func (w *worker) hit(buf []byte, start, stop, at int) {
	switch w.grep.mode {
	case onlyFiles:
		w.end(w.row())
		w.done = true
	case content:
		w.showBefore(buf, start)
		w.show(buf[start:stop], at, true)
		w.owed = w.grep.after
		if w.grep.limit >= 0 && w.matches > w.grep.limit {
			w.done = true
		}
	}
}

// showAfter writes the lines of context that are owed to the match before, up to limit.
func (w *worker) showAfter(buf []byte, limit int) {
	for w.owed > 0 && w.pos < limit {
		stop := limit
		if n := bytes.IndexByte(buf[w.pos:], '\n'); n >= 0 {
			stop = w.pos + n
		}
		w.show(buf[w.pos:stop], 0, false)
		w.owed--
		w.line++
		w.pos = min(stop+1, limit)
	}
}

// showBefore writes the lines before a match that have not been shown yet.
func (w *worker) showBefore(buf []byte, start int) {
	if w.grep.before == 0 {
		return
	}
	matched := w.line
	at := start
	for at > 0 && matched-w.line < int64(w.grep.before) && w.line-1 > w.shown {
		at = bytes.LastIndexByte(buf[:at-1], '\n') + 1
		w.line--
	}
	for w.line < matched {
		stop := at + bytes.IndexByte(buf[at:], '\n')
		w.show(buf[at:stop], 0, false)
		w.line++
		at = stop + 1
	}
}

// show writes a content row.
func (w *worker) show(line []byte, at int, isMatch bool) {
	line = trimCR(line)
	text := line
	if len(line) > w.grep.lineCap {
		if isMatch {
			at = w.matcher.locate(line, at)
		}
		text = excerpt(line, at, w.grep.lineCap)
	}
	row := append(w.row(), ',')
	row = append(strconv.AppendInt(row, w.line, 10), ',')
	row = append(wire.AppendQuoted(row, string(text)), ',')
	row = append(strconv.AppendBool(row, isMatch), ',')
	w.end(strconv.AppendInt(row, int64(len(line)), 10))
	w.shown = w.line
}

// excerpt is the part of a line of at most size bytes around a place, without cutting a character in two.
func excerpt(line []byte, at, size int) []byte {
	start := max(0, min(at-size/4, len(line)-size))
	for i := 0; i < utf8.UTFMax-1 && start > 0 && start < at && !utf8.RuneStart(line[start]); i++ {
		start++
	}
	end := min(start+size, len(line))
	for i := 0; i < utf8.UTFMax-1 && end < len(line) && end > start+1 && !utf8.RuneStart(line[end]); i++ {
		end--
	}
	return line[start:end]
}

// row begins a row with the file's path.
func (w *worker) row() []byte {
	if len(w.path) == 0 {
		w.path = wire.AppendQuoted(w.path, w.grep.display(w.folder, w.entry))
	}
	if w.block == nil {
		w.block = &rowBlock{}
	}
	return append(w.block.json, w.path...)
}

func (w *worker) end(row []byte) {
	b := w.block
	b.json = row
	b.ends = append(b.ends, len(row))
	b.firsts = append(b.firsts, !w.begun)
	w.begun = true
	if len(row) >= blockSize {
		threads.Leave()
		w.flush()
		threads.Enter()
	}
}
