package quota

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"runner/internal/sys"
)

// occupied is what a tree occupies, found by the standard library.
func occupied(t testing.TB, root string) int64 {
	t.Helper()
	total, seen := int64(0), map[uint64]bool{}
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			total += st.Blocks * sector
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
}

func put(t testing.TB, path string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, size), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open() int {
	fds, _ := os.ReadDir("/proc/self/fd")
	return len(fds)
}

func TestAWalkFindsWhatIsThere(t *testing.T) {
	for name, build := range map[string]func(root string){
		"nothing": func(string) {},
		"all kinds": func(root string) {
			put(t, root+"/a/big", 3_000_000)
			os.Link(root+"/a/big", root+"/again")
			os.Symlink(strings.Repeat("x/", 500), root+"/link")
			os.Symlink("/", root+"/out")
			syscall.Mkfifo(root+"/fifo", 0o600)
			sparse, _ := os.Create(root + "/sparse")
			sparse.Truncate(1 << 40)
			sparse.Close()
		},
		"wide": func(root string) {
			for i := range 3000 {
				put(t, fmt.Sprintf("%s/d%d/f", root, i%1000)+strings.Repeat("n", i%200), i)
			}
		},
		"deep": func(root string) {
			// Deeper than directories are kept open, and with something on both sides of the way down.
			path := root
			for i := range 3*maxOpen + 7 {
				for j := range 3 {
					put(t, fmt.Sprintf("%s/f%d", path, j), 5000)
					os.MkdirAll(fmt.Sprintf("%s/x%d/y", path, j), 0o755)
				}
				path += fmt.Sprintf("/%d", i%10)
			}
			put(t, path+"/end", 5000)
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			build(root)
			before := open()
			w := newWalk(root)
			for range 2 {
				if got, want := w.run(), occupied(t, root); got != want || w.partial {
					t.Errorf("%d, want %d (partial: %v)", got, want, w.partial)
				}
			}
			if after := open(); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestAWalkSurvivesATreeThatMoves(t *testing.T) {
	root := t.TempDir()
	path := root + "/a"
	for range 2 * maxOpen {
		path += "/d"
	}
	put(t, path+"/f", 5000)
	os.Mkdir(root+"/b", 0o755)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				put(t, fmt.Sprintf("%s/a/new%d/f", root, i%50), 100)
				os.Rename(root+"/a/d/d", root+"/b/d")
				os.RemoveAll(fmt.Sprintf("%s/a/new%d", root, (i+25)%50))
				os.Rename(root+"/b/d", root+"/a/d/d")
			}
		}
	}()
	before := open()
	w := newWalk(root)
	for range 50 {
		if w.run() <= 0 {
			t.Error("nothing was found")
		}
	}
	close(stop)
	<-stopped
	if got, want := w.run(), occupied(t, root); got != want {
		t.Errorf("%d, want %d", got, want)
	}
	if after := open(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestAMountPointIsNotEntered(t *testing.T) {
	root, err := sys.Open("/", syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(root)
	if fd, err := sys.OpenDirBelow(root, []byte("proc\x00")); err != syscall.EXDEV {
		t.Errorf("%d, %v", fd, err)
	}
	if fd, err := sys.OpenDirBelow(root, []byte("tmp\x00")); err != nil && err != syscall.EXDEV {
		t.Error(err)
	} else {
		syscall.Close(fd)
	}
}

func TestWhatIsDeletedAndStillOpenCounts(t *testing.T) {
	root, elsewhere := t.TempDir(), t.TempDir()
	holder := exec.Command("/bin/sh", "-c",
		`exec 3> f 4>&3 5> "$0/g"; head -c 2000000 /dev/zero >&3; head -c 3000000 /dev/zero >&5; rm f "$0/g"; echo; exec sleep 60`, elsewhere)
	holder.Dir = root
	out, _ := holder.StdoutPipe()
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer holder.Wait()
	defer holder.Process.Kill()
	out.Read(make([]byte, 1))
	used := newWalk(root).run() - occupied(t, root)
	if used < 2_000_000 || used > 2_100_000 {
		t.Errorf("%d", used)
	}
}

func BenchmarkWalk(b *testing.B) {
	root := b.TempDir()
	for i := range 100_000 {
		put(b, fmt.Sprintf("%s/d%d/e%d/file%d", root, i%100, i%1000, i), 10)
	}
	w := newWalk(root)
	w.run()
	b.ResetTimer()
	for range b.N {
		w.run()
	}
}
