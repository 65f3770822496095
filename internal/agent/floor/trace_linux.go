package floor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// syscallInfo is struct ptrace_syscall_info of linux/ptrace.h: the same on
// every architecture.
type syscallInfo struct {
	op   uint8
	_    [3]uint8
	arch uint32
	ip   uint64
	sp   uint64
	// data is nr and args[6] at entry; rval and is_error at exit.
	data [8]uint64
}

const (
	// sysgoodStop marks a stop at a system call, with PTRACE_O_TRACESYSGOOD.
	sysgoodStop = unix.SIGTRAP | 0x80
	traceOpts   = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK |
		unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	// setModeFilter is SECCOMP_SET_MODE_FILTER, modeFilter SECCOMP_MODE_FILTER.
	setModeFilter = 1
	modeFilter    = 2
	// sigSetxid is the signal by which glibc and Go have every thread make one
	// call (setuid and the like).
	sigSetxid = 33
)

// tracer follows a process and all that it starts, and collects the calls of
// the process that loads a filter, from then to the next execve.
//
// A runtime written in Go has threads that collect garbage, wait and start
// other threads whenever they like. What they did before the filter they could
// as well do under it, so it counts too.
type tracer struct {
	// mu guards killed and the set of threads; their states belong to the
	// tracing thread, as all else does.
	mu     sync.Mutex
	killed bool
	// threads: thread id to its state.
	threads map[int]*thread
	// anytime: process id to the calls that don't depend on what its first
	// thread is about to do.
	anytime map[int]map[int32]bool
	// filtered: process id to the calls since the filter was loaded.
	filtered map[int]map[int32]bool
	// calls is the result, once a filtered process has executed a program.
	calls []int32
}

type thread struct {
	tgid int
	// nr and args are of the call that the thread is in; nr is -1 outside.
	nr   int64
	args [6]uint64
	// setxid is true while the thread handles sigSetxid.
	setxid bool
}

// trace runs cmd and returns the calls between loading a filter and execve.
// The program that is executed under the filter never runs: it is killed at
// its first instruction.
func trace(ctx context.Context, cmd *exec.Cmd) ([]int32, error) {
	var calls []int32
	var err error
	// ptrace belongs to a thread; it ends with its goroutine, and
	// PTRACE_O_EXITKILL ends what it traces.
	alone(func() { calls, err = run(ctx, cmd) })
	return calls, err
}

// alone runs f on a thread that has no children, those of other goroutines
// included, and that is never given back.
func alone(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		// The first thread gets the children of those that end.
		if unix.Gettid() != os.Getpid() && !hasChildren() {
			f()
			return
		}
		alone(f) // on another one, while this one is held
		runtime.UnlockOSThread()
	}()
	<-done
}

// hasChildren reports whether this thread has started a process that nobody
// has waited for.
func hasChildren() bool {
	err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL|unix.WNOTHREAD, nil)
	return !errors.Is(err, unix.ECHILD)
}

func run(ctx context.Context, cmd *exec.Cmd) ([]int32, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start runtime: %w", err)
	}
	root := cmd.Process.Pid
	t := &tracer{threads: map[int]*thread{}, anytime: map[int]map[int32]bool{}, filtered: map[int]map[int32]bool{}}
	// The first stop is the execve of the runtime itself.
	var status unix.WaitStatus
	if _, err := unix.Wait4(root, &status, unix.WALL, nil); err != nil {
		return nil, fmt.Errorf("wait for runtime: %w", err)
	}
	if err := unix.PtraceSetOptions(root, traceOpts); err != nil {
		_ = unix.Kill(root, unix.SIGKILL)
		_ = cmd.Wait()
		return nil, fmt.Errorf("trace runtime: %w", err)
	}
	t.thread(root)
	stop := context.AfterFunc(ctx, t.kill)
	defer stop()
	_ = unix.PtraceSyscall(root, 0)
	for {
		pid, status, err := t.wait()
		switch {
		case errors.Is(err, unix.ECHILD):
			_ = cmd.Process.Release()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if t.calls == nil {
				return nil, errors.New("the runtime loaded no filter before it executed the entrypoint")
			}
			return t.calls, nil
		case err != nil:
			return nil, fmt.Errorf("wait for runtime: %w", err)
		case status.Stopped():
			_ = unix.PtraceSyscall(pid, t.stopped(pid, status))
		}
	}
}

// wait returns the next thread that stopped or ended.
func (t *tracer) wait() (int, unix.WaitStatus, error) {
	// Only children and tracees of this thread: others of the agent's are
	// waited for by their own.
	const mine = unix.WALL | unix.WNOTHREAD
	for {
		var info childInfo
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WSTOPPED|unix.WNOWAIT|mine, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if pid, status := t.take(int(info.pid), mine); pid > 0 {
			return pid, status, nil
		}
	}
}

// take fetches the news of a thread, while its number is still its own, so
// that kill meets nobody else; 0 when an execve of another thread has ended it
// meanwhile.
func (t *tracer) take(tid, options int) (int, unix.WaitStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var status unix.WaitStatus
	pid, err := unix.Wait4(tid, &status, options|unix.WNOHANG, nil)
	if err != nil {
		return 0, 0
	}
	if status.Exited() || status.Signaled() {
		delete(t.threads, pid)
	}
	return pid, status
}

// childInfo is siginfo_t as waitid fills it in.
type childInfo struct {
	_   [4]int32
	pid int32
	_   [108]byte
}

// kill ends all that is traced, now and later.
func (t *tracer) kill() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.killed = true
	for tid := range t.threads {
		_ = unix.Kill(tid, unix.SIGKILL)
	}
}

// thread returns the state of a thread, new when it wasn't known.
func (t *tracer) thread(tid int) *thread {
	t.mu.Lock()
	defer t.mu.Unlock()
	th := t.threads[tid]
	if th == nil {
		th = &thread{tgid: tgidOf(tid), nr: -1}
		t.threads[tid] = th
		if t.killed {
			_ = unix.Kill(tid, unix.SIGKILL)
		}
	}
	return th
}

// stopped takes note of one stop and returns the signal to go on with.
func (t *tracer) stopped(tid int, status unix.WaitStatus) int {
	th := t.thread(tid)
	switch sig := status.StopSignal(); {
	case sig == sysgoodStop:
		t.call(tid, th)
		return 0
	case sig == unix.SIGTRAP && status.TrapCause() > 0:
		switch status.TrapCause() {
		case unix.PTRACE_EVENT_EXEC:
			t.renamed(tid)
			t.executed(tid, th)
		case unix.PTRACE_EVENT_CLONE:
			t.cloned(tid, th)
		}
		return 0
	case sig == unix.SIGSTOP || sig == unix.SIGTRAP:
		return 0 // the first stop of a new thread
	case sig == sigSetxid:
		th.setxid = true
		return int(sig)
	default:
		return int(sig)
	}
}

// call takes note of the entry into a call or the return from it.
func (t *tracer) call(tid int, th *thread) {
	var info syscallInfo
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return
	}
	switch info.op {
	case unix.PTRACE_SYSCALL_INFO_ENTRY:
		th.nr, th.args = int64(info.data[0]), [6]uint64(info.data[1:7])
		if calls := t.filtered[th.tgid]; calls != nil {
			calls[int32(th.nr)] = true
		}
		switch {
		case th.setxid:
			th.setxid = th.nr != unix.SYS_RT_SIGRETURN
		case tid != th.tgid, ownMemory(th):
			t.atAnyTime(th)
		}
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		// A listener descriptor is a success, too.
		failed := uint8(info.data[1]) != 0
		if !failed && loads(th) && t.filtered[th.tgid] == nil {
			t.filtered[th.tgid] = t.pending(th.tgid)
		}
		th.nr = -1
	}
}

// pending returns the calls that other threads of a process are in: they
// return under the filter, and may be restarted. A process that handles
// signals returns from the handlers at any time.
func (t *tracer) pending(tgid int) map[int32]bool {
	calls := map[int32]bool{}
	if mask := strings.Trim(statusOf(tgid, "SigCgt"), "0"); mask != "" {
		calls[unix.SYS_RT_SIGRETURN] = true
	}
	for _, th := range t.threads {
		if th.tgid == tgid && th.nr >= 0 && !loads(th) {
			calls[int32(th.nr)] = true
		}
	}
	return calls
}

// loads reports whether the call of a thread loads a filter.
func loads(th *thread) bool {
	switch th.nr {
	case unix.SYS_SECCOMP:
		return th.args[0] == setModeFilter
	case unix.SYS_PRCTL:
		return th.args[0] == unix.PR_SET_SECCOMP && th.args[1] == modeFilter
	default:
		return false
	}
}

func (t *tracer) atAnyTime(th *thread) {
	if t.anytime[th.tgid] == nil {
		t.anytime[th.tgid] = map[int32]bool{}
	}
	t.anytime[th.tgid][int32(th.nr)] = true
}

// cloned takes note of the call that made a thread of the same process.
func (t *tracer) cloned(tid int, th *thread) {
	child, err := unix.PtraceGetEventMsg(tid)
	if err == nil && th.nr >= 0 && t.thread(int(child)).tgid == th.tgid {
		t.atAnyTime(th)
	}
}

// ownMemory reports whether the call of a thread does no more than get memory
// and give it back, which an allocator does at any time.
func ownMemory(th *thread) bool {
	switch th.nr {
	case unix.SYS_MMAP:
		return th.args[3]&unix.MAP_ANONYMOUS != 0
	case unix.SYS_MUNMAP, unix.SYS_MADVISE:
		return true
	default:
		return false
	}
}

// renamed forgets the number that a thread had before its execve made it the
// first of its process.
func (t *tracer) renamed(tid int) {
	former, err := unix.PtraceGetEventMsg(tid)
	if err != nil || int(former) == tid {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.threads, int(former))
}

// executed ends the collection of a process that runs under a filter.
func (t *tracer) executed(tid int, th *thread) {
	calls := t.filtered[th.tgid]
	if calls == nil {
		return
	}
	delete(t.filtered, th.tgid)
	t.calls = slices.AppendSeq(t.calls, maps.Keys(calls))
	t.calls = slices.AppendSeq(t.calls, maps.Keys(t.anytime[th.tgid]))
	slices.Sort(t.calls)
	t.calls = slices.Compact(t.calls)
	_ = unix.Kill(tid, unix.SIGKILL)
}

// tgidOf returns the process of a thread.
func tgidOf(tid int) int {
	if n, err := strconv.Atoi(statusOf(tid, "Tgid")); err == nil {
		return n
	}
	return tid
}

// statusOf returns a field of /proc/TID/status, "" when there is none.
func statusOf(tid int, field string) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return ""
	}
	for line := range strings.SplitSeq(string(b), "\n") {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
