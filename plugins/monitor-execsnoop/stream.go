package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor/proc"
)

const (
	// startTime bounds how long a tool may take until it is ready: it has
	// programs to compile, or to load.
	startTime = 15 * time.Second
	// pipeSize is the size of the pipe from the tool, in bytes.
	pipeSize = 1 << 20
	// lineLimit is the longest line that is kept, in bytes.
	lineLimit = 64 << 10
	// keptErrors is how much of the tool's complaints is kept, in bytes.
	keptErrors = 4096
)

// errRestless means that a tool writes without end, so that nobody can tell
// whether all events of before a moment have come.
var errRestless = errors.New("it does not come to rest")

// stream is a tool that runs.
type stream struct {
	tool   tool
	cgroup string // folder that it is limited to
	cmd    *exec.Cmd
	out    *os.File

	// handle takes executions, malformed counts lines that can't be read, lost
	// takes what the tool says it lost. All are called from one goroutine each.
	handle    func(proc.Execution)
	malformed func()
	lost      func(uint64)

	headed chan struct{} // closed when the head of the table was read
	ended  chan struct{} // closed when the tool has ended and all is read
	busy   atomic.Bool   // lines are being handled
	pieces string        // a line that is not whole: a thread's name may hold newlines

	mu       sync.Mutex
	awaited  map[int32]chan struct{} // canaries, by process number
	early    map[int32]bool          // processes seen while a canary was started
	starting int
	errs     []byte
	status   error
}

// sinks are where a stream's events go.
type sinks struct {
	handle    func(proc.Execution)
	malformed func()
	lost      func(uint64)
}

// open starts a tool and returns when it sees executions.
func open(ctx context.Context, t tool, cgroup string, to sinks) (*stream, error) {
	argv, err := t.command(cgroup)
	if err != nil {
		return nil, err
	}
	s := &stream{
		tool: t, cgroup: cgroup, handle: to.handle, malformed: to.malformed, lost: to.lost,
		headed: make(chan struct{}), ended: make(chan struct{}),
		awaited: map[int32]chan struct{}{}, early: map[int32]bool{},
	}
	if err := s.start(argv); err != nil {
		return nil, fmt.Errorf("start %s: %w", t, err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := s.ready(ctx); err != nil {
		s.close()
		return nil, fmt.Errorf("%s: %w", t, err)
	}
	return s, nil
}

func (s *stream) start(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	cmd := &exec.Cmd{
		Path: path, Args: argv,
		Env: append([]string{"PATH=" + searchPath(), "LC_ALL=C"}, s.tool.environment()...),
		// In this process's group, which ends with it.
		SysProcAttr: &syscall.SysProcAttr{},
	}
	if !hasTracefs() {
		if err := privately(cmd); err != nil {
			return err
		}
	}
	out, in, err := os.Pipe()
	if err != nil {
		return err
	}
	if conn, err := out.SyscallConn(); err == nil {
		// A smaller one is slower, no more.
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
	errOut, errIn, err := os.Pipe()
	if err != nil {
		_, _ = out.Close(), in.Close()
		return err
	}
	cmd.Stdout, cmd.Stderr = in, errIn
	err = cmd.Start()
	_, _ = in.Close(), errIn.Close()
	if err != nil {
		_, _ = out.Close(), errOut.Close()
		return err
	}
	s.cmd, s.out = cmd, out
	go s.run(errOut)
	return nil
}

// searchPath is PATH with the folders in which tools of administrators are.
func searchPath() string {
	return strings.Join([]string{os.Getenv("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"}, ":")
}

// run reads everything that the tool writes, and waits for its end.
func (s *stream) run(errOut *os.File) {
	defer close(s.ended)
	var reading sync.WaitGroup
	reading.Go(func() { _ = proc.EachLine(errOut, lineLimit, s.complaint) })
	reading.Go(func() { s.read() })
	reading.Wait()
	_, _ = errOut.Close(), s.out.Close()
	err := s.cmd.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = errors.New("ended by itself")
	}
	s.status = err
}

func (s *stream) read() {
	_ = proc.EachLine(busyReader{s}, lineLimit, s.line)
	if s.pieces != "" {
		s.malformed()
	}
}

// busyReader marks the time between two reads as busy.
type busyReader struct{ s *stream }

func (b busyReader) Read(p []byte) (int, error) {
	b.s.busy.Store(false)
	n, err := b.s.out.Read(p)
	b.s.busy.Store(true)
	return n, err
}

func (s *stream) line(line string, whole bool) {
	select {
	case <-s.headed:
	default:
		if s.tool.kind.header(line) {
			close(s.headed)
		}
		return
	}
	if n := losses(line); n > 0 && s.tool.kind == bcc {
		s.lost(n)
		return
	}
	if !whole { // a part of one that is longer than any event
		s.pieces = ""
		s.malformed()
		return
	}
	if s.tool.kind == bpftrace {
		// A line without a head is the rest of an argument with newlines, or
		// arguments of several heads.
		all, _ := parseJoin(line)
		for _, x := range all {
			s.seen(x)
		}
		return
	}
	x, err := parseTable(s.pieces + line)
	switch {
	case err == nil:
		s.pieces = ""
		s.seen(x)
	case len(s.pieces)+len(line) < commSize:
		s.pieces += line + "\n"
	default:
		s.pieces = ""
		s.malformed()
	}
}

func (s *stream) seen(x proc.Execution) {
	s.mu.Lock()
	canary := s.awaited[x.PID]
	delete(s.awaited, x.PID)
	if s.starting > 0 {
		s.early[x.PID] = true
	}
	s.mu.Unlock()
	if canary != nil {
		close(canary)
		return
	}
	x.Scoped = s.cgroup != ""
	s.handle(x)
}

// complaint takes a line of the tool's standard error.
func (s *stream) complaint(line string, _ bool) {
	if n := losses(line); n > 0 {
		s.lost(n)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs = append(append(s.errs, line...), '\n')
	if n := len(s.errs); n > keptErrors {
		s.errs = s.errs[n-keptErrors:]
	}
}

// ready returns when everything that happens from now on is seen.
func (s *stream) ready(ctx context.Context) error {
	select {
	case <-s.headed:
	case <-s.ended:
		return s.failure()
	case <-ctx.Done():
		return fmt.Errorf("it printed no table within %v%s", startTime, s.said())
	}
	if s.cgroup != "" {
		// What is outside of the cgroup isn't reported, so that no canary is
		// seen. The tool waits for its buffers when it has set them up.
		return s.idle(ctx)
	}
	for {
		seen, err := s.canary(ctx, -1, time.Second)
		if err != nil || seen {
			return err
		}
	}
}

// failure is why the tool ended.
func (s *stream) failure() error {
	<-s.ended
	s.mu.Lock()
	status := s.status
	s.mu.Unlock()
	return fmt.Errorf("it ended (%w)%s", status, s.said())
}

// said is what the tool complained about last, as the end of a sentence.
func (s *stream) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tool.kind == bcc && lacksHeaders(string(s.errs)) {
		return fmt.Sprintf(": the kernel's headers, with which it compiles, are missing (apt-get install linux-headers-%s)", kernelRelease())
	}
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(s.errs), "\uFFFD")), "\n")
	last := strings.TrimSpace(lines[len(lines)-1])
	if last == "" {
		return ""
	}
	return ": " + last
}

// lacksHeaders reports whether bcc complains that it finds no headers of the
// kernel.
func lacksHeaders(said string) bool {
	return strings.Contains(said, "find kernel headers") || strings.Contains(said, "chdir(/lib/modules/")
}

// kernelRelease names the running kernel, as uname -r does.
func kernelRelease() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // it can't fail
	return unix.ByteSliceToString(u.Release[:])
}

// flush returns when everything that happened before is handled.
func (s *stream) flush(ctx context.Context) error {
	if s.cgroup != "" {
		return s.idle(ctx)
	}
	cpus, err := onlineCPUs()
	if err != nil {
		return err
	}
	// Each processor has a buffer of its own, whose content is in order.
	for _, cpu := range cpus {
		for {
			seen, err := s.canary(ctx, cpu, 2*time.Second)
			if err != nil {
				return err
			}
			if seen {
				break
			}
		}
	}
	return nil
}

// close ends the tool and waits for it.
func (s *stream) close() {
	proc.End(s.cmd, unix.SIGTERM, s.ended, 2*time.Second)
}

// idle returns when the tool waits for events and everything that it wrote is
// handled.
func (s *stream) idle(ctx context.Context) error {
	const times, pause = 3, 2 * time.Millisecond
	for quiet := 0; quiet < times; {
		select {
		case <-s.ended:
			return s.failure()
		case <-ctx.Done():
			return errRestless
		case <-time.After(pause):
		}
		waits, err := waitsForEvents(s.cmd.Process.Pid)
		if err != nil {
			return err
		}
		if waits && s.drained() {
			quiet++
		} else {
			quiet = 0
		}
	}
	return nil
}

// drained reports whether nothing that the tool wrote waits to be handled.
func (s *stream) drained() bool {
	conn, err := s.out.SyscallConn()
	if err != nil {
		return true // closed: all was read
	}
	n := 0
	if err := conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil {
		return true
	}
	return n == 0 && !s.busy.Load()
}

// waitsForEvents reports whether a process sleeps in epoll_wait.
func waitsForEvents(pid int) (bool, error) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "syscall"))
	if err != nil {
		return false, fmt.Errorf("look what execsnoop waits for: %w", err)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	nr, err := strconv.Atoi(first)
	if err != nil {
		return false, nil //nolint:nilerr // "running"
	}
	return isWait(nr), nil
}
