package monitortest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// gate waits for a line and then becomes what it is told.
const gate = `read x <&3; exec 3<&-; exec "$@"`

// box is a process that waits to be let go in a cgroup and namespaces of its
// own, as the init of a created container does.
type box struct {
	t     *testing.T
	cmd   *exec.Cmd
	open  *os.File       // what it waits for
	stdin io.WriteCloser // of what it becomes
	group string         // folder of its cgroup, "" without one
}

// newBox makes a box that will execute argv. Extra files begin at 4 there.
func newBox(t *testing.T, files []*os.File, argv ...string) *box {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b := &box{t: t, open: w}
	b.cmd = exec.Command("/bin/sh", append([]string{"-c", gate, "sh"}, argv...)...)
	b.cmd.ExtraFiles = append([]*os.File{r}, files...)
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	b.cmd.SysProcAttr = attr
	if dir, err := newGroup(); err == nil {
		b.group = dir
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(f.Fd())
	} else {
		t.Logf("no cgroup of its own: %v", err)
	}
	err = b.cmd.Start()
	t.Cleanup(b.remove)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// newGroup makes a cgroup v2 folder.
func newGroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		// "source target type options ..."
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return os.MkdirTemp(f[1], "confine-monitortest-")
		}
	}
	return "", errors.New("no cgroup v2 hierarchy is mounted")
}

func (b *box) pid() int32 { return int32(b.cmd.Process.Pid) }

// scope selects the box by everything that it has of its own, as agents do.
func (b *box) scope() *confinev1.Scope {
	b.t.Helper()
	s := &confinev1.Scope{
		Pid:            b.pid(),
		MountNamespace: b.inode(fmt.Sprintf("/proc/%d/ns/mnt", b.pid())),
		PidNamespace:   b.inode(fmt.Sprintf("/proc/%d/ns/pid", b.pid())),
		ContainerId:    fmt.Sprintf("monitortest-%d", b.pid()),
	}
	if b.group != "" {
		s.CgroupId = b.inode(b.group)
	}
	return s
}

// scope is the box's, or the trace in its root.
func (s *suite) scope(b *box) *confinev1.Scope {
	b.t.Helper()
	scope := b.scope()
	if s.cfg.Capture != "" {
		scope.Capture = &confinev1.Capture{Path: s.cfg.Capture}
	}
	return scope
}

func (b *box) inode(path string) uint64 {
	b.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		b.t.Fatalf("stat %s: %v", path, err)
	}
	return st.Ino
}

// letGo lets the box begin.
func (b *box) letGo() {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.open); err != nil {
		b.t.Fatal(err)
	}
}

// end ends the input of what runs in the box and waits for it.
func (b *box) end() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
}

func (b *box) remove() {
	_ = b.open.Close()
	if b.cmd.Process != nil {
		_ = b.cmd.Process.Kill()
		b.end()
	}
	if b.group == "" {
		return
	}
	for range 200 { // processes leave a cgroup a little after they were waited for
		if err := os.Remove(b.group); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.t.Errorf("cgroup %s can't be removed", filepath.Base(b.group))
}
