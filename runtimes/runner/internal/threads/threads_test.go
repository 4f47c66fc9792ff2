package threads

import (
	"bytes"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

const child = "RUNNER_TEST_RESERVE"

// Each in a process of its own, because threads once made stay; and many at once, so that none of them gets a processor
// whenever it wants one.
func TestReserveMakesEveryThread(t *testing.T) {
	if os.Getenv(child) != "" {
		Reserve()
		os.Stdout.WriteString("threads " + count(t) + "\n")
		return
	}
	const crowd = 100
	var commands [crowd]*exec.Cmd
	var outputs [crowd]bytes.Buffer
	for i := range commands {
		commands[i] = exec.Command(os.Args[0], "-test.run=^TestReserveMakesEveryThread$")
		commands[i].Env = append(os.Environ(), child+"=1")
		commands[i].Stdout = &outputs[i]
		if err := commands[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	least := min(runtime.GOMAXPROCS(0), maxProcs) + blocking + standing
	for i, command := range commands {
		if err := command.Wait(); err != nil {
			t.Error(err)
		}
		_, rest, _ := strings.Cut(outputs[i].String(), "threads ")
		word, _, _ := strings.Cut(rest, "\n")
		if n, err := strconv.Atoi(word); err != nil || n < least {
			t.Errorf("%q threads of at least %d", word, least)
		}
	}
}

func count(t *testing.T) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "\nThreads:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}
