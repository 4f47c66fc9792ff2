// Package threads keeps the Go runtime from having to create an operating system thread at a bad moment.
//
// Threads count against the container's pids limit. When a fork bomb has used that limit up and the runtime needs one
// more thread, clone fails and the runtime aborts the process: PID 1 would die, and the container with it. So enough
// threads are made at the start, the runtime keeps them for ever, and Gate bounds how many goroutines can be inside
// calls that may block.
package threads

import (
	"runtime"
	"sync"
)

const (
	// maxProcs bounds how many threads run Go code at once; more would not make a sandbox's PID 1 any faster.
	maxProcs = 4
	// blocking is how many goroutines may be inside calls that can take long (a disk, fsync) at the same time.
	blocking = 6
	// standing are the threads that are always away: the reaper's wait, the signal loop, the monitor, and a reserve.
	standing = 6
)

var gate = make(chan struct{}, blocking)

// Reserve makes the threads; call it once, before anything else runs.
func Reserve() {
	procs := min(runtime.GOMAXPROCS(0), maxProcs)
	runtime.GOMAXPROCS(procs)
	var there sync.WaitGroup
	release := make(chan struct{})
	for range procs + blocking + standing {
		there.Add(1)
		go func() {
			// One that is locked shares its thread with nobody, so that all of them at once need a thread each, however
			// busy the machine is.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			<-release
		}()
	}
	there.Wait()
	close(release)
}

// Enter waits for a place among the goroutines that may block in the kernel; Leave gives it back. Nothing that waits
// for a peer may happen between the two.
func Enter() { gate <- struct{}{} }

// Leave is the other half of Enter.
func Leave() { <-gate }
