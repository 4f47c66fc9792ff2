package files

import (
	"bytes"
	"slices"
	"strconv"
	"syscall"

	"runner/internal/body"
	"runner/internal/mux"
	"runner/internal/sys"
	"runner/internal/threads"
	"runner/internal/wire"
)

// Stat is the stat operation.
func Stat(path string) ([]byte, error) {
	if err := check(path); err != nil {
		return nil, err
	}
	threads.Enter()
	defer threads.Leave()
	var own, st syscall.Stat_t
	if err := syscall.Lstat(path, &own); err != nil {
		return nil, at(err, path)
	}
	st = own
	link := format(&own) == syscall.S_IFLNK
	if link {
		if err := syscall.Stat(path, &st); err != nil {
			return nil, at(err, path)
		}
	}
	kind := "other"
	switch format(&st) {
	case syscall.S_IFREG:
		kind = "file"
	case syscall.S_IFDIR:
		kind = "dir"
	}
	var o wire.Object
	o.Text("type", kind).Int("size", st.Size).Int("mode", int64(st.Mode&permissions)).Int("mtime", st.Mtim.Nano()/1e6)
	return o.Bool("link", link).Bytes(), nil
}

// Kind is the letter for a file's type in list and glob.
func Kind(st *syscall.Stat_t) byte {
	switch format(st) {
	case syscall.S_IFREG:
		return 'f'
	case syscall.S_IFDIR:
		return 'd'
	}
	return 'o'
}

// List is the list operation.
func List(s *mux.Stream, path string) error {
	if err := check(path); err != nil {
		return err
	}
	fd, err := blocking(func() (int, error) {
		return sys.Open(path, syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	})
	if err != nil {
		return at(err, path)
	}
	defer syscall.Close(fd)
	names, err := blocking(func() ([][]byte, error) { return readNames(fd) })
	if err != nil {
		return at(err, path)
	}
	rows := body.NewArray(s)
	for len(names) > 0 {
		n := min(len(names), 256)
		threads.Enter()
		for _, name := range names[:n] {
			describe(rows, fd, name)
		}
		threads.Leave()
		names = names[n:]
		if err := rows.Flush(); err != nil {
			return err
		}
	}
	var o wire.Object
	rows.Finish(o.Int("count", rows.Rows).Bytes())
	return nil
}

// readNames returns the sorted names, each with a NUL behind it, all in one piece of memory.
func readNames(fd int) ([][]byte, error) {
	buf := blocks.Get().(*[]byte)
	defer blocks.Put(buf)
	var all []byte
	err := sys.ReadDir(fd, (*buf)[:32<<10], func(name []byte, _ byte) bool {
		all = append(append(all, name...), 0)
		return true
	})
	names := make([][]byte, 0, bytes.Count(all, []byte{0}))
	for len(all) > 0 {
		end := bytes.IndexByte(all, 0) + 1
		names = append(names, all[:end:end])
		all = all[end:]
	}
	slices.SortFunc(names, bytes.Compare)
	return names, err
}

func describe(rows *body.Array, dir int, name []byte) {
	var own, st syscall.Stat_t
	if sys.Fstatat(dir, name, &own, sys.AtSymlinkNoFollow) != nil {
		return
	}
	st = own
	kind := byte('o')
	link := format(&own) == syscall.S_IFLNK
	if !link || sys.Fstatat(dir, name, &st, 0) == nil {
		kind = Kind(&st)
	}
	row := rows.Row()
	row = wire.AppendQuoted(row, string(name[:len(name)-1]))
	row = append(row, ',', '"', kind, '"', ',')
	row = strconv.AppendInt(row, st.Size, 10)
	row = append(row, ',')
	rows.End(strconv.AppendBool(row, link))
}
