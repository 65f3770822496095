package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/monitortest"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// limit ends a test that hangs; nothing is measured with it.
const limit = 2 * time.Minute

// plugin is the binary under test, built once.
var plugin string

func TestMain(m *testing.M) { os.Exit(monitortest.Main(m, "ebpf", &plugin)) }

// needKernel skips where the host can't run the monitor at all: no root, or a
// kernel without BTF.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the monitor needs root")
	}
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the kernel has no BTF")
	}
}

func start(t *testing.T) *monitor.Client {
	t.Helper()
	return startWith(t, nil)
}

// startWith starts the plugin with options of the agent's configuration.
func startWith(t *testing.T, options map[string]string) *monitor.Client {
	t.Helper()
	needKernel(t)
	return monitortest.Start(t, monitortest.Config{Path: plugin, Options: options})
}

// tree is a process that waits to be told to begin, like a created container.
type tree struct {
	t    *testing.T
	cmd  *exec.Cmd
	gate *os.File
	out  bytes.Buffer
}

// newTree makes a process that will execute argv when it is let go.
func newTree(t *testing.T, attr *syscall.SysProcAttr, argv ...string) *tree {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tr := &tree{t: t, gate: w}
	tr.cmd = exec.Command("/bin/sh", append([]string{"-c", `read x <&3; exec 3<&-; exec "$@"`, "sh"}, argv...)...)
	tr.cmd.ExtraFiles = []*os.File{r}
	tr.cmd.Stdout, tr.cmd.Stderr = &tr.out, &tr.out
	tr.cmd.SysProcAttr = attr
	if err := tr.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close(); _ = tr.cmd.Process.Kill(); _ = tr.cmd.Wait() })
	return tr
}

// piped starts a process; the test writes to its input and reads its output.
func piped(t *testing.T, cmd *exec.Cmd) (in io.Writer, out io.Reader) {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return in, out
}

func (tr *tree) pid() int32 { return int32(tr.cmd.Process.Pid) }

// run lets the tree go and waits for its root to end.
func (tr *tree) run() {
	tr.t.Helper()
	tr.letGo()
	tr.wait()
}

func (tr *tree) letGo() { fmt.Fprintln(tr.gate) }

func (tr *tree) wait() {
	tr.t.Helper()
	if err := tr.cmd.Wait(); err != nil {
		tr.t.Logf("tree ended: %v", err)
	}
}

// unshared gives a tree mount and PID namespaces of its own.
func unshared() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
}

// scope selects a tree by its process and its namespaces.
func (tr *tree) scope() *confinev1.Scope {
	tr.t.Helper()
	inode := func(kind string) uint64 {
		var st syscall.Stat_t
		if err := syscall.Stat(fmt.Sprintf("/proc/%d/ns/%s", tr.pid(), kind), &st); err != nil {
			tr.t.Fatal(err)
		}
		return st.Ino
	}
	return &confinev1.Scope{Pid: tr.pid(), MountNamespace: inode("mnt"), PidNamespace: inode("pid")}
}

// stopped keeps the plugin from running while do runs.
func stopped(t *testing.T, c *monitor.Client, do func()) {
	t.Helper()
	if err := syscall.Kill(c.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	do()
	if err := syscall.Kill(c.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until a file exists.
func waitFor(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s doesn't appear", path)
		}
	}
}

// seen is everything that a watch reported.
type seen struct {
	execs    []*confinev1.Exec
	mappings []*confinev1.Mapping
	exits    []*confinev1.Exit
	denied   []*confinev1.DeniedCall
	lost     []*confinev1.Lost
	snapshot *confinev1.SnapshotResponse
}

func (s *seen) add(m *confinev1.WatchResponse) {
	switch e := m.GetEvent().(type) {
	case *confinev1.WatchResponse_Exec:
		s.execs = append(s.execs, e.Exec)
	case *confinev1.WatchResponse_Mapping:
		s.mappings = append(s.mappings, e.Mapping)
	case *confinev1.WatchResponse_Exit:
		s.exits = append(s.exits, e.Exit)
	case *confinev1.WatchResponse_Denied:
		s.denied = append(s.denied, e.Denied)
	case *confinev1.WatchResponse_Lost:
		s.lost = append(s.lost, e.Lost)
	}
}

func (s *seen) executed() map[string]int {
	n := make(map[string]int)
	for _, e := range s.execs {
		n[e.GetPath()]++
	}
	return n
}

func (s *seen) mapped() map[string]int {
	n := make(map[string]int)
	for _, m := range s.mappings {
		n[m.GetPath()]++
	}
	return n
}

func (s *seen) calls(process string) *confinev1.RecordedCalls {
	for _, r := range s.snapshot.GetRecorded() {
		if r.GetProcess() == process {
			return r
		}
	}
	return nil
}

// observe watches scope while do runs, with each event delivered.
func observe(t *testing.T, c *monitor.Client, scope *confinev1.Scope, do func()) *seen {
	t.Helper()
	scope.EveryEvent = true
	return observeFirst(t, c, scope, do)
}

// observeFirst watches scope while do runs; repeated events are counted.
func observeFirst(t *testing.T, c *monitor.Client, scope *confinev1.Scope, do func()) *seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	w, err := c.Watch(ctx, scope)
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	read := make(chan struct{})
	go func() {
		defer close(read)
		for m := range w.Events() {
			s.add(m)
		}
	}()
	do()
	s.snapshot, err = w.Stop(ctx)
	if err != nil {
		t.Fatal(err)
	}
	<-read
	return &s
}

// names lists the paths of executions in order.
func (s *seen) names() []string {
	var out []string
	for _, e := range s.execs {
		out = append(out, e.GetPath())
	}
	return out
}

// execOf returns the one execution of a path.
func (s *seen) execOf(t *testing.T, path string) *confinev1.Exec {
	t.Helper()
	var found *confinev1.Exec
	for _, e := range s.execs {
		if e.GetPath() != path {
			continue
		}
		if found != nil {
			t.Fatalf("%s was executed more than once: %v", path, s.names())
		}
		found = e
	}
	if found == nil {
		t.Fatalf("%s wasn't executed: %v", path, s.names())
	}
	return found
}

// lossless fails the test when anything was lost.
func (s *seen) lossless(t *testing.T) {
	t.Helper()
	if n := s.snapshot.GetLost(); n != 0 {
		t.Errorf("lost %d events: %v", n, s.lost)
	}
}

// watchTree watches a command and its descendants from before its first
// instruction.
func watchTree(t *testing.T, argv ...string) *seen {
	t.Helper()
	c := start(t)
	tr := newTree(t, nil, argv...)
	s := observe(t, c, &confinev1.Scope{Pid: tr.pid()}, tr.run)
	s.lossless(t)
	return s
}

// real resolves a path as the kernel reports it.
func real(t *testing.T, path string) string {
	t.Helper()
	p, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// compile builds a C program from testdata.
func compile(t *testing.T, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(real(t, t.TempDir()), strings.TrimSuffix(filepath.Base(source), ".c"))
	args := append([]string{"-O1", "-o", out, filepath.Join("testdata", source), "-pthread", "-ldl"}, flags...)
	if msg, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		t.Fatalf("compile %s: %v\n%s", source, err, msg)
	}
	return out
}
