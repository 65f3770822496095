package main_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// newCgroup makes a cgroup v2 folder and returns it.
func newCgroup(t *testing.T, parent, name string) string {
	t.Helper()
	if parent == "" {
		for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
			if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
				parent = dir
				break
			}
		}
	}
	if parent == "" {
		t.Skip("the host has no cgroup v2 hierarchy")
	}
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// inCgroup starts a process in a cgroup.
func inCgroup(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
}

func (tr *tree) namespace(name string) uint64 {
	tr.t.Helper()
	return inode(tr.t, fmt.Sprintf("/proc/%d/ns/%s", tr.pid(), name))
}

// Scopes of every kind see the tree that they select, and nothing of another
// that runs at the same time.
func TestScopes(t *testing.T) {
	const group = "confine-test-scope"
	inside := compile(t, "nop.c", "-static")
	outside := compile(t, "nop.c", "-static")
	command := []string{"/bin/sh", "-c", "for i in 1 2 3; do $0; done; true", inside}
	for _, c := range []struct {
		name  string
		attr  func(t *testing.T) *syscall.SysProcAttr
		scope func(t *testing.T, tr *tree) *confinev1.Scope
	}{
		{"process", func(*testing.T) *syscall.SysProcAttr { return nil },
			func(_ *testing.T, tr *tree) *confinev1.Scope { return &confinev1.Scope{Pid: tr.pid()} }},
		{"cgroup", func(t *testing.T) *syscall.SysProcAttr { return inCgroup(t, newCgroup(t, "", group)) },
			func(t *testing.T, tr *tree) *confinev1.Scope { return &confinev1.Scope{CgroupId: cgroupOf(t, tr)} }},
		{"cgroup above", func(t *testing.T) *syscall.SysProcAttr {
			return inCgroup(t, newCgroup(t, newCgroup(t, newCgroup(t, "", group), "a"), "b"))
		}, func(t *testing.T, tr *tree) *confinev1.Scope {
			return &confinev1.Scope{CgroupId: inode(t, filepath.Dir(filepath.Dir(cgroupDir(t, tr))))}
		}},
		{"mount namespace", func(*testing.T) *syscall.SysProcAttr {
			return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		}, func(_ *testing.T, tr *tree) *confinev1.Scope {
			return &confinev1.Scope{MountNamespace: tr.namespace("mnt")}
		}},
		{"PID namespace", func(*testing.T) *syscall.SysProcAttr {
			return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		}, func(_ *testing.T, tr *tree) *confinev1.Scope {
			return &confinev1.Scope{PidNamespace: tr.namespace("pid")}
		}},
		{"several at once", func(*testing.T) *syscall.SysProcAttr {
			return &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		}, func(_ *testing.T, tr *tree) *confinev1.Scope {
			return &confinev1.Scope{Pid: tr.pid(), MountNamespace: tr.namespace("mnt")}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := start(t)
			tr := newTree(t, c.attr(t), command...)
			s := observe(t, client, c.scope(t, tr), func() {
				stop := strangers(t, outside)
				tr.run()
				stop()
			})
			s.lossless(t)
			want := []string{real(t, "/bin/sh"), inside, inside, inside}
			if !slices.Equal(s.names(), want) {
				t.Errorf("executed %v, want %v", s.names(), want)
			}
			pids := map[int32]bool{}
			for _, e := range s.execs {
				pids[e.GetPid()] = true
			}
			if len(s.exits) != 4 {
				t.Errorf("exits %v, want 4", s.exits)
			}
			for _, e := range s.exits {
				if !pids[e.GetPid()] {
					t.Errorf("exit of the stranger %d", e.GetPid())
				}
			}
			for _, m := range s.mappings {
				if !pids[m.GetPid()] {
					t.Errorf("mapping of the stranger %v", m)
				}
			}
			if s.calls(outside) != nil || s.calls(inside) == nil {
				t.Errorf("recorded %v", s.snapshot.GetRecorded())
			}
		})
	}
}

// strangers executes a program again and again, outside of every scope, until
// the returned function is called; at least once.
func strangers(t *testing.T, program string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	first := make(chan struct{})
	go func() {
		for i := 0; ; i++ {
			if err := exec.Command(program).Run(); err != nil {
				done <- err
				return
			}
			if i == 0 {
				close(first)
			}
			if ctx.Err() != nil {
				done <- nil
				return
			}
		}
	}()
	return func() {
		t.Helper()
		<-first
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func cgroupDir(t *testing.T, tr *tree) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", tr.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
				if _, err := os.Stat(filepath.Join(mount, path, "cgroup.procs")); err == nil {
					return filepath.Join(mount, path)
				}
			}
		}
	}
	t.Fatalf("no cgroup v2 in %s", text)
	return ""
}

func cgroupOf(t *testing.T, tr *tree) uint64 { return inode(t, cgroupDir(t, tr)) }

// A runtime's own init joins the container's cgroup before it executes the
// container's program; what it calls until then isn't any program's.
func TestRuntimeBeforeExec(t *testing.T) {
	client := start(t)
	attr := inCgroup(t, newCgroup(t, "", "confine-test-runtime"))
	attr.Unshareflags = syscall.CLONE_NEWNS
	container := newTree(t, attr, "/bin/true")
	scope := &confinev1.Scope{CgroupId: cgroupOf(t, container), MountNamespace: container.namespace("mnt")}
	nop := compile(t, "nop.c", "-static")
	s := observe(t, client, scope, func() {
		join := exec.Command(nop)
		join.SysProcAttr = inCgroup(t, cgroupDir(t, container))
		if err := join.Run(); err != nil {
			t.Error(err)
		}
		container.run()
	})
	s.lossless(t)
	before := s.calls("")
	if before == nil || !slices.Contains(before.GetNrs(), syscall.SYS_EXECVE) {
		t.Errorf("recorded %v, want an execve before the first program", s.snapshot.GetRecorded())
	}
	for _, r := range s.snapshot.GetRecorded() {
		if strings.Contains(r.GetProcess(), ".test") {
			t.Errorf("calls of the test itself are a program's: %v", r)
		}
	}
	// The container's shell ran before the watch, but in the container.
	if s.calls(real(t, "/bin/sh")) == nil || s.calls(nop) == nil {
		t.Errorf("recorded %v", s.snapshot.GetRecorded())
	}
}

// A tree that runs already is in the scope of its root with all descendants.
func TestRunningTree(t *testing.T) {
	client := start(t)
	nop := compile(t, "nop.c", "-static")
	cmd := exec.Command("/bin/sh", "-c", `(sh -c 'echo up; read x; $0' "$0"; true); true`, nop)
	in, out := piped(t, cmd)
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	s := observe(t, client, &confinev1.Scope{Pid: int32(cmd.Process.Pid)}, func() {
		fmt.Fprintln(in)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	s.lossless(t)
	if s.executed()[nop] != 1 || len(s.exits) != 4 {
		t.Errorf("executed %v, ends %v; want nop once and four ends", s.names(), s.exits)
	}
}

func TestInvalidScopes(t *testing.T) {
	client := start(t)
	for _, scope := range []*confinev1.Scope{
		{}, {ContainerId: "c1"}, {Pid: -1}, {Pid: 1 << 30},
	} {
		w, err := client.Watch(context.Background(), scope)
		if err == nil {
			w.Cancel()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v, want code InvalidArgument", scope, err)
		}
	}
}
