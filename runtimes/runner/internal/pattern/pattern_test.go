package pattern

import (
	"encoding/json"
	"os"
	"runner/internal/wire"
	"strings"
	"syscall"
	"testing"
	"time"
)

func load(t *testing.T, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func TestGlobVectors(t *testing.T) {
	var rows []struct {
		Pattern, Path wire.Text
		Match         bool
	}
	load(t, "globs.json", &rows)
	for _, r := range rows {
		g, err := CompileGlob(string(r.Pattern))
		if err != nil {
			t.Errorf("%q: %v", r.Pattern, err)
			continue
		}
		if got := g.Match(string(r.Path)); got != r.Match {
			t.Errorf("%q on %q: %v", r.Pattern, r.Path, got)
		}
		for i, c := range r.Path {
			if r.Match && c == '/' && !g.Below(string(r.Path[:i])) {
				t.Errorf("%q would not look into %q for %q", r.Pattern, r.Path[:i], r.Path)
			}
		}
	}
}

func TestIgnoreVectors(t *testing.T) {
	var rows []struct {
		Rules   []wire.Text
		Path    wire.Text
		IsDir   bool `json:"is_dir"`
		Ignored bool
	}
	load(t, "gitignore.json", &rows)
	for _, r := range rows {
		lines := make([]string, len(r.Rules))
		for i, rule := range r.Rules {
			lines[i] = string(rule)
		}
		if got := ParseIgnore([]byte(strings.Join(lines, "\n"))).Ignored(string(r.Path), r.IsDir); got != r.Ignored {
			t.Errorf("%q on %q (directory: %v): %v", r.Rules, r.Path, r.IsDir, got)
		}
	}
}

func TestBelowPrunes(t *testing.T) {
	for _, r := range []struct {
		pattern, dir string
		want         bool
	}{
		{"src/*.py", "src", true}, {"src/*.py", "lib", false}, {"src/*.py", "src/x", false}, {"src/**/a", "src/x/y", true},
		{"*.py", "anything/at/all", true}, {"{a,b}/c", "b", true}, {"{a,b}/c", "c", false},
	} {
		g, err := CompileGlob(r.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Below(r.dir); got != r.want {
			t.Errorf("%q below %q: %v", r.pattern, r.dir, got)
		}
	}
}

// processorTime is what this process has used so far: it does not depend on what else the machine does.
func processorTime(t *testing.T) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func TestHostilePatternsAreQuick(t *testing.T) {
	began := processorTime(t)
	for _, pattern := range []string{
		strings.Repeat("*a", 1000), strings.Repeat("**/", 1000) + "x", strings.Repeat("{a,", 1000) + strings.Repeat("}", 1000),
		strings.Repeat("{a,b}", 800), strings.Repeat("[", 4000), strings.Repeat("{", 4000), strings.Repeat(`\`, 4000),
	} {
		g, err := CompileGlob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		g.Match(strings.Repeat("a", 4000))
		g.Match(strings.Repeat("a/", 2000) + "b")
	}
	if took := processorTime(t) - began; took > 10*time.Second {
		t.Errorf("took %v of a processor", took)
	}
	for _, pattern := range []string{"", strings.Repeat("a", 5000)} {
		if _, err := CompileGlob(pattern); err == nil {
			t.Errorf("a pattern of %d bytes was taken", len(pattern))
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("src/**/*.{py,[a-c]}", "src/x/a.py")
	f.Add("[[:alpha:]!-]{,a}\\", "\xff/é")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		g, err := CompileGlob(pattern)
		if err != nil {
			return
		}
		if g.Match(path) && !g.byName {
			for i := range path {
				if i > 0 && path[i] == '/' && !g.Below(path[:i]) {
					t.Fatalf("%q matches %q but is not looked for in %q", pattern, path, path[:i])
				}
			}
		}
		if g.Match(path) != g.Match(path) {
			t.Fatal("not repeatable")
		}
	})
}

func FuzzIgnore(f *testing.F) {
	f.Add([]byte("*.a\n!b/\n/c/**\n[x\n\\ \n"), "a/b/c", true)
	f.Fuzz(func(t *testing.T, content []byte, path string, isDir bool) {
		ParseIgnore(content).Ignored(path, isDir)
	})
}
