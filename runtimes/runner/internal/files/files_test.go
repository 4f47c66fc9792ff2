package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"runner/internal/fault"
)

// tempDir is resolved, so that results can be compared with it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func code(err error) string {
	var f *fault.Fault
	if errors.As(err, &f) {
		return f.Code
	}
	return ""
}

func unprivileged(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("needs a user that permissions apply to")
	}
}

func never() bool { return false }

func TestRealpath(t *testing.T) {
	d := tempDir(t)
	must(t, os.MkdirAll(d+"/a/b", 0o755))
	must(t, os.MkdirAll(d+"/x/y", 0o755))
	must(t, os.WriteFile(d+"/file", nil, 0o644))
	for name, target := range map[string]string{
		"link": "a/b", "up": "../" + filepath.Base(d) + "/a", "abs": d + "/x/y", "loop": "loop", "ping": "pong", "pong": "ping",
		"dangling": "nowhere/at/all", "chain": "link", "slash": "/",
	} {
		must(t, os.Symlink(target, d+"/"+name))
	}
	for path, want := range map[string]string{
		"/": "/", "//": "/", "/..": "/", d + "/.": d, d + "/a/../a//b/": d + "/a/b", d + "/link": d + "/a/b",
		d + "/link/..": d + "/a", d + "/abs/../z": d + "/x/z", d + "/up/b": d + "/a/b", d + "/chain/c": d + "/a/b/c",
		d + "/missing/deep": d + "/missing/deep", d + "/missing/../a": d + "/a", d + "/dangling": d + "/nowhere/at/all",
		d + "/dangling/..": d + "/nowhere/at", d + "/file/below": d + "/file/below", d + "/slash/tmp/..": "/",
	} {
		if got, err := Realpath(path); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		d + "/loop": "ELOOP", d + "/ping/x": "ELOOP", "relative": "EINVAL", "": "EINVAL", "/a\x00b": "EINVAL",
		"/" + strings.Repeat("x", 300): "ENAMETOOLONG",
	} {
		if got, err := Realpath(path); code(err) != want {
			t.Errorf("%q: %s, %v; want %s", path, got, err, want)
		}
	}
}

func TestRealpathOfUnreadable(t *testing.T) {
	unprivileged(t)
	d := tempDir(t)
	must(t, os.Mkdir(d+"/locked", 0))
	if _, err := Realpath(d + "/locked/x"); code(err) != "EACCES" {
		t.Errorf("%v", err)
	}
}

func TestRemove(t *testing.T) {
	d := tempDir(t)
	work := d + "/work"
	must(t, os.MkdirAll(work+"/tree/deep/er", 0o755))
	must(t, os.WriteFile(d+"/precious", []byte("x"), 0o644))
	must(t, os.MkdirAll(d+"/outside/dir", 0o755))
	must(t, os.WriteFile(work+"/tree/deep/f", nil, 0o644))
	must(t, os.Symlink(d+"/outside", work+"/tree/link"))
	must(t, os.Symlink(d, work+"/up"))
	must(t, os.Mkdir(work+"/tree/closed", 0o700))
	must(t, os.WriteFile(work+"/tree/closed/f", nil, 0))
	must(t, os.Chmod(work+"/tree/closed", 0))
	must(t, syscall.Mkfifo(work+"/tree/fifo", 0o600))
	for _, path := range []string{work, d, "/", work + "/.", work + "/tree/..", work + "/up/work", filepath.Dir(d) + "/", work + "/up/work/tree/../"} {
		if err := Remove(path, work, never); code(err) != fault.Refused {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := Remove(work+"/tree", work, never); err != nil {
		t.Fatal(err)
	}
	if err := Remove(work+"/up", work, never); err != nil {
		t.Fatal(err)
	}
	for _, kept := range []string{d + "/precious", d + "/outside/dir"} {
		if _, err := os.Stat(kept); err != nil {
			t.Error(err)
		}
	}
	for path, want := range map[string]string{work + "/none": "ENOENT", d + "/precious/x": "ENOTDIR", "x": "EINVAL"} {
		if err := Remove(path, work, never); code(err) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if left, _ := os.ReadDir(work); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRemoveADeepTree(t *testing.T) {
	d := tempDir(t)
	must(t, os.Mkdir(d+"/top", 0o755))
	fd, err := syscall.Open(d+"/top", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	must(t, err)
	for range 3000 {
		must(t, syscall.Mkdirat(fd, "d", 0o755))
		next, err := syscall.Openat(fd, "d", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		must(t, err)
		syscall.Close(fd)
		fd = next
	}
	syscall.Close(fd)
	must(t, Remove(d+"/top", "/nowhere", never))
}

func TestRemoveAWideTree(t *testing.T) {
	d := tempDir(t)
	for i := range 300 {
		dir := d + "/top/" + strings.Repeat("n", i%50+1) + string(rune('a'+i%26)) + "/sub"
		must(t, os.MkdirAll(dir, 0o755))
		must(t, os.WriteFile(dir+"/f", nil, 0o644))
	}
	must(t, Remove(d+"/top", "/nowhere", never))
}

func TestMkdir(t *testing.T) {
	d := tempDir(t)
	must(t, os.WriteFile(d+"/file", nil, 0o644))
	must(t, os.Symlink("real", d+"/link"))
	must(t, os.Mkdir(d+"/real", 0o755))
	for path, want := range map[string]string{
		d + "/a/b/c": "", d + "/a/b/": "", d: "", "/": "", d + "/link": "", d + "/link/x": "", d + "/file": "EEXIST",
		d + "/file/x": "ENOTDIR", d + "/file/x/y": "ENOTDIR", "x": "EINVAL",
	} {
		if err := Mkdir(path); code(err) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestStat(t *testing.T) {
	d := tempDir(t)
	must(t, os.WriteFile(d+"/f", []byte("abc"), 0o640))
	must(t, os.Symlink("f", d+"/l"))
	must(t, os.Symlink("none", d+"/broken"))
	must(t, syscall.Mkfifo(d+"/fifo", 0o600))
	for path, want := range map[string]string{
		d + "/f": `{"type":"file","size":3,"mode":416,`, d + "/l": `{"type":"file","size":3,`, d: `{"type":"dir",`, d + "/fifo": `{"type":"other",`,
	} {
		if got, err := Stat(path); err != nil || !strings.HasPrefix(string(got), want) {
			t.Errorf("%s: %s, %v", path, got, err)
		}
	}
	if got, _ := Stat(d + "/l"); !strings.HasSuffix(string(got), `"link":true}`) {
		t.Errorf("%s", got)
	}
	if _, err := Stat(d + "/broken"); code(err) != "ENOENT" {
		t.Error(err)
	}
}

func TestOrderKnowsAPathByEveryName(t *testing.T) {
	d := tempDir(t)
	must(t, os.WriteFile(d+"/f", nil, 0o644))
	must(t, os.Symlink("f", d+"/l"))
	o := NewOrder()
	first := o.Join(d + "/f")
	second := o.Join(d + "/./l")
	other := o.Join(d + "/g")
	if !first.Wait(nil) || !other.Wait(nil) {
		t.Fatal("a free turn was not given")
	}
	cancelled := make(chan struct{})
	close(cancelled)
	if second.Wait(cancelled) {
		t.Fatal("the same file by another name did not wait")
	}
	third := o.Join(d + "/f")
	second.Leave()
	if third.Wait(cancelled) {
		t.Fatal("a turn that was given up let the next one overtake the first")
	}
	first.Leave()
	if !third.Wait(nil) {
		t.Fatal("the turn never came")
	}
	third.Leave()
	other.Leave()
	if len(o.tails) != 0 {
		t.Errorf("left: %v", o.tails)
	}
}

func TestTextReader(t *testing.T) {
	for _, r := range []struct {
		content                         string
		offset, limit, lineCap, byteCap int64
		out                             string
		lines, count                    int64
		newline                         bool
		cut                             string
	}{
		{"", 1, 10, 10, 100, "", 0, 0, false, ""},
		{"a", 1, 10, 10, 100, "a", 1, 1, false, ""},
		{"a\n", 1, 10, 10, 100, "a", 1, 1, true, ""},
		{"\n", 1, 10, 10, 100, "", 1, 1, true, ""},
		{"\n\n\n", 2, 10, 10, 100, "\n", 3, 2, true, ""},
		{"a\n\nb", 1, 10, 10, 100, "a\n\nb", 3, 3, false, ""},
		{"a\nb\nc\nd\n", 2, 2, 10, 100, "b\nc", 4, 2, true, ""},
		{"a\nb\nc", 3, 5, 10, 100, "c", 3, 1, false, ""},
		{"a\nb\n", 9, 5, 10, 100, "", 2, 0, true, ""},
		{"abcdef\ngh\nijklm", 1, 9, 3, 100, "abc\ngh\nijk", 3, 3, false, "[1,6],[3,5]"},
		{"abcd\nefgh\nijkl", 1, 9, 9, 9, "abcd\nefgh", 3, 2, false, ""},
		{"abcd\nefgh\nijkl", 1, 9, 9, 8, "abcd", 3, 1, false, ""},
		{"abcd\nefgh\n", 1, 9, 9, 1, "abcd", 2, 1, true, ""},
		{"a\r\nb\r\n", 1, 9, 9, 99, "a\r\nb\r", 2, 2, true, ""},
		{"a\nb\n", 1, 0, 9, 99, "", 2, 0, true, ""},
	} {
		for size := 1; size <= len(r.content)+1; size++ {
			reader := &textReader{r: TextRange{r.offset, r.limit, r.lineCap, r.byteCap}, hash: newFingerprint()}
			for rest := r.content; rest != ""; {
				n := min(size, len(rest))
				reader.take([]byte(rest[:n]))
				rest = rest[n:]
			}
			if reader.open && reader.wanted() {
				reader.finishLine()
			}
			lines := reader.line
			if reader.open {
				lines++
			}
			newline := lines > 0 && !reader.open
			if string(reader.out) != r.out || lines != r.lines || reader.count != r.count || newline != r.newline || string(reader.cut) != r.cut {
				t.Errorf("%q from %d, %d lines, caps %d %d, blocks of %d: %q, lines %d, count %d, newline %v, cut %s",
					r.content, r.offset, r.limit, r.lineCap, r.byteCap, size, reader.out, lines, reader.count, newline, reader.cut)
			}
		}
	}
}

// FuzzPath only looks: nothing that changes files may be called with a made-up path.
func FuzzPath(f *testing.F) {
	for _, path := range []string{"/a/../b", "//", "/\xff/./..", "/link/x", "a", "/a\x00"} {
		f.Add(path)
	}
	dir := f.TempDir()
	os.Symlink("loop", dir+"/loop")
	os.Symlink("/..", dir+"/link")
	f.Fuzz(func(t *testing.T, path string) {
		for _, p := range []string{path, dir + "/" + path} {
			resolved, err := Realpath(p)
			if err == nil && (resolved == "" || resolved[0] != '/' || strings.Contains(resolved, "//") || strings.Contains(resolved+"/", "/../")) {
				t.Fatalf("%q became %q", p, resolved)
			}
			if err == nil {
				if again, err := Realpath(resolved); err != nil || again != resolved {
					t.Fatalf("%q became %q, which became %q, %v", p, resolved, again, err)
				}
			}
			resolveParent(p)
			Stat(p)
			NewOrder().Join(p).Leave()
		}
	})
}
