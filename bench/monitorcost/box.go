package main

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
)

// loopSource is the program that forks and executes.
//
//go:embed testdata/loop.c
var loopSource string

func compileLoop(ctx context.Context, dir string) (string, error) {
	out := filepath.Join(dir, "loop")
	cc := exec.CommandContext(ctx, "cc", "-O1", "-x", "c", "-o", out, "-")
	cc.Stdin = strings.NewReader(loopSource)
	if text, err := cc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile the loop: %w\n%s", err, text)
	}
	return out, nil
}

// box is a loop that waits in namespaces and a cgroup of its own, as a
// container's first process does.
type box struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	group string
}

func newBox(loop string, execs int) (*box, error) {
	b := &box{cmd: exec.Command(loop, "/bin/true", strconv.Itoa(execs))}
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID}
	var err error
	if b.stdin, err = b.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if b.group = newGroup(); b.group != "" {
		f, err := os.Open(b.group)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b.cmd.SysProcAttr.UseCgroupFD, b.cmd.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	return b, b.cmd.Start()
}

// newGroup makes a cgroup of version 2, "" where there are none.
func newGroup() string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			dir, _ := os.MkdirTemp(f[1], "confine-monitorcost-")
			return dir
		}
	}
	return ""
}

func (b *box) scope() *monitor.Scope {
	s := &monitor.Scope{Pid: int32(b.cmd.Process.Pid)}
	s.MountNamespace = inode(fmt.Sprintf("/proc/%d/ns/mnt", s.Pid))
	s.PidNamespace = inode(fmt.Sprintf("/proc/%d/ns/pid", s.Pid))
	if b.group != "" {
		s.CgroupId = inode(b.group)
	}
	return s
}

func inode(path string) uint64 {
	var st unix.Stat_t
	_ = unix.Stat(path, &st)
	return st.Ino
}

// run lets the loop go and returns the processor time that it and what it
// executed took, in microseconds.
func (b *box) run() (float64, error) {
	if _, err := b.stdin.Write([]byte{'\n'}); err != nil {
		return 0, err
	}
	if err := b.cmd.Wait(); err != nil {
		return 0, fmt.Errorf("loop: %w", err)
	}
	s := b.cmd.ProcessState
	return float64((s.UserTime() + s.SystemTime()).Microseconds()), nil
}

func (b *box) close() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
	for range 100 {
		if b.group == "" || os.Remove(b.group) == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// processTime is the processor time that a process has used.
func processTime(pid int) time.Duration {
	var total time.Duration
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue
		}
		ns, _ := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		total += time.Duration(ns)
	}
	return total
}

// residentKiB is the memory of a process.
func residentKiB(pid int) uint64 {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.ParseUint(strings.Fields(rest)[0], 10, 64)
			return n
		}
	}
	return 0
}
