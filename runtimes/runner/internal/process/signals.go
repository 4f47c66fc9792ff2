package process

import (
	"syscall"

	"runner/internal/sys"
)

// DisarmSignals makes the process indifferent to every signal that can be ignored.
//
// THIS KEEPS THE CONTAINER ALIVE. Hostile code runs under our uid and may send PID 1 any signal. The kernel protects a
// PID 1 only from signals it has no handler for, and the Go runtime installs handlers for nearly all of them: a plain
// `kill -SEGV 1` would abort us. os/signal.Notify is not enough either: a SIGSEGV, SIGBUS or SIGFPE sent with
// sigqueue() carries SI_QUEUE, which the runtime takes for a genuine fault and turns into a panic. So the
// disposition itself is set to SIG_IGN, in the kernel, behind the runtime's back. A genuine fault in our own code still
// ends the process, only without a Go traceback.
//
// The kernel's protection has a hole, too: a signal with the default disposition kills even PID 1 when it arrives while
// one thread has signals blocked and another has not, and the Go runtime blocks them whenever it makes a thread or
// forks. That is how 32 and 34, which the runtime never handles, killed us in a test.
//
// Left alone are SIGCHLD (the reaper needs it; SIG_IGN would reap by itself), SIGURG (the runtime preempts goroutines
// with it, its handler is harmless), KILL and STOP, which cannot be set, and CONT, TSTP, TTIN and TTOU, which are not
// deadly. Children get the default for everything the runtime handles, between fork and exec; only 32 and 34, which
// belong to the C library, stay ignored in them until the library takes them.
func DisarmSignals() {
	const last = 64
	for s := syscall.Signal(1); s <= last; s++ {
		switch s {
		case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGTSTP,
			syscall.SIGTTIN, syscall.SIGTTOU:
			continue
		}
		sys.IgnoreSignal(s)
	}
}

// SignalName is the symbol of a signal.
func SignalName(s syscall.Signal) string {
	if int(s) < len(signalNames) && signalNames[s] != "" {
		return "SIG" + signalNames[s]
	}
	return "SIGRT" + itoa(int(s))
}

var signalNames = [...]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 5: "TRAP", 6: "ABRT", 7: "BUS", 8: "FPE", 9: "KILL", 10: "USR1",
	11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM", 16: "STKFLT", 17: "CHLD", 18: "CONT", 19: "STOP",
	20: "TSTP", 21: "TTIN", 22: "TTOU", 23: "URG", 24: "XCPU", 25: "XFSZ", 26: "VTALRM", 27: "PROF", 28: "WINCH",
	29: "IO", 30: "PWR", 31: "SYS",
}
