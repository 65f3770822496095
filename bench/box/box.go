// Package box runs a process for benchmarks of monitors as a container's first
// one is run.
package box

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/procfs"
)

// Box is a process in namespaces and a control group of its own that waits for
// a byte on its standard input.
type Box struct {
	// Group is the folder of its control group of version 2, "" where there are
	// none.
	Group string
	// Stdin is the process's standard input.
	Stdin io.WriteCloser

	cmd   *exec.Cmd
	ended bool
}

// Start starts a command in a box; its standard input is the box's.
func Start(cmd *exec.Cmd) (_ *Box, err error) {
	b := &Box{cmd: cmd}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	if b.Stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if b.Group, err = newGroup(); err != nil {
		return nil, err
	}
	if b.Group != "" {
		f, err := os.Open(b.Group)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s in namespaces of its own: %w", cmd.Path, err)
	}
	return b, nil
}

// newGroup makes a control group of version 2, "" where there are none.
func newGroup() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return os.MkdirTemp(f[1], "confine-bench-")
		}
	}
	return "", nil
}

// Scope is what an agent gives of a container.
func (b *Box) Scope() *monitor.Scope {
	pid := int32(b.cmd.Process.Pid)
	s := &monitor.Scope{Pid: pid, MountNamespace: procfs.Namespace(pid, "mnt"), PidNamespace: procfs.Namespace(pid, "pid")}
	var st unix.Stat_t
	if b.Group != "" && unix.Stat(b.Group, &st) == nil {
		s.CgroupId = st.Ino
	}
	return s
}

// Run lets the process begin and waits for its end.
func (b *Box) Run() (*os.ProcessState, error) {
	if _, err := b.Stdin.Write([]byte{'\n'}); err != nil {
		return nil, err
	}
	_ = b.Stdin.Close()
	b.ended = true
	if err := b.cmd.Wait(); err != nil {
		return nil, fmt.Errorf("%s: %w", b.cmd.Path, err)
	}
	return b.cmd.ProcessState, nil
}

// Close ends what still runs and removes the control group.
func (b *Box) Close() {
	if b.cmd.Process != nil && !b.ended {
		_ = b.cmd.Process.Kill() // the others end with it, the first of their namespace
		_ = b.cmd.Wait()
	}
	for range 100 { // processes leave a group a little after they were waited for
		if b.Group == "" || os.Remove(b.Group) == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ResidentKiB is the memory of a process.
func ResidentKiB(pid int) uint64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}
