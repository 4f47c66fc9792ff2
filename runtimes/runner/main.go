// Runner is PID 1 of a sandbox container. PROTOCOL.md says what it does and how to talk to it.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"runner/internal/process"
	"runner/internal/relay"
	"runner/internal/server"
	"runner/internal/sys"
	"runner/internal/threads"
)

// version is set by the build.
var version = "development"

const (
	// Memory of the runner is memory the tenant does not have.
	gcPercent   = 25
	memoryLimit = 48 << 20
	// maxLines bounds what is ever printed: it ends up in the container's log.
	maxLines = 8
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: runner serve | connect | version")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2:])
	case "connect":
		connect(os.Args[2:])
	case "version":
		fmt.Println(version)
	default:
		fail("unknown command " + os.Args[1])
	}
}

func serve(args []string) {
	// First of all: from here on nothing with our uid can trace us, read our memory or reach our descriptors.
	sys.SetDumpable(false)
	process.DisarmSignals()
	closeOnExec()
	debug.SetGCPercent(gcPercent)
	debug.SetMemoryLimit(memoryLimit)
	syscall.Umask(0o022)

	config := parse(args)
	if os.Getpid() != 1 {
		sys.BecomeSubreaper()
	}
	threads.Reserve()
	s, err := server.New(config)
	if err != nil {
		fail(err.Error())
	}
	if err := s.Run(); err != nil {
		fail(err.Error())
	}
}

// closeOnExec keeps what whoever started us has left open from our children: container runtimes have leaked descriptors
// of the host before.
func closeOnExec() {
	inherited, _ := os.ReadDir("/proc/self/fd")
	for _, entry := range inherited {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}

func parse(args []string) server.Config {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	socket := flags.String("socket", "/.sandbox/run/socket", "path of the socket")
	abstract := flags.String("abstract", server.Abstract, "name of the abstract socket; for tests")
	workdir := flags.String("workdir", "/workspace", "working directory of commands")
	idle := flags.Float64("idle", 0, "end after this many seconds without use; 0: never")
	lifetime := flags.Float64("lifetime", 0, "end after this many seconds; 0: never")
	quota := flags.Int64("quota", 0, "bytes that the working directory may hold; 0: any number")
	flags.Parse(args)
	return server.Config{
		Version:  version,
		Socket:   *socket,
		Abstract: *abstract,
		Workdir:  *workdir,
		Idle:     seconds(*idle),
		Lifetime: seconds(*lifetime),
		Quota:    *quota,
		Log:      logger(),
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

func logger() func(string) {
	left := maxLines
	return func(line string) {
		if left--; left >= 0 {
			fmt.Fprintln(os.Stderr, "runner:", line)
		}
	}
}

func connect(args []string) {
	sys.SetDumpable(false)
	process.DisarmSignals()
	debug.SetGCPercent(gcPercent)
	flags := flag.NewFlagSet("connect", flag.ExitOnError)
	abstract := flags.String("abstract", server.Abstract, "name of the abstract socket; for tests")
	flags.Parse(args)
	if err := relay.Run(*abstract); err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, "runner:", message)
	os.Exit(1)
}
