package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// box is a process with namespaces and a control group of its own, as a
// container has, that waits until it is run.
type box struct {
	cmd   *exec.Cmd
	gate  io.WriteCloser
	out   bytes.Buffer
	group string
}

func newBox(argv []string) (_ *box, err error) {
	b := &box{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.group, err = newGroup(); err != nil {
		return nil, err
	}
	group, err := os.Open(b.group)
	if err != nil {
		return nil, err
	}
	defer group.Close()
	b.cmd = exec.Command(argv[0], argv[1:]...)
	b.cmd.Env = []string{}
	b.cmd.Stdout = &b.out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(group.Fd()),
	}
	if b.gate, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		b.cmd = nil
		return nil, fmt.Errorf("start the storm in namespaces of its own: %w", err)
	}
	return b, nil
}

// newGroup makes a control group of version 2.
func newGroup() (string, error) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(mount, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		return os.MkdirTemp(mount, "confine-bench-")
	}
	return "", fmt.Errorf("no control groups of version 2 are mounted")
}

// scope is what an agent gives of a container.
func (b *box) scope() *confinev1.Scope {
	pid := b.cmd.Process.Pid
	return &confinev1.Scope{
		Pid: int32(pid), CgroupId: inode(b.group), EveryEvent: true,
		MountNamespace: inode(fmt.Sprintf("/proc/%d/ns/mnt", pid)), PidNamespace: inode(fmt.Sprintf("/proc/%d/ns/pid", pid)),
	}
}

func inode(path string) uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// run lets the process begin, and returns what it wrote when it has ended.
func (b *box) run() (io.Reader, error) {
	_ = b.gate.Close()
	err := b.cmd.Wait()
	b.cmd = nil
	if err != nil {
		return nil, fmt.Errorf("storm: %w", err)
	}
	return &b.out, nil
}

func (b *box) close() {
	if b.cmd != nil && b.cmd.Process != nil {
		_ = b.cmd.Process.Kill() // the others end with it, the first of their namespace
		_ = b.cmd.Wait()
	}
	if b.group != "" {
		_ = os.Remove(filepath.Clean(b.group))
	}
}
