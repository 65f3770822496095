package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits of what a monitor's process, and what it starts, may use; 0 stands
// for the default.
type Limits struct {
	// Memory in bytes; 1 GiB.
	Memory uint64
	// Files that are open at once, by each process; 4096.
	Files uint64
	// Processes and threads; 256.
	Processes uint64
	// CPUWeight is the share of the processors when they are contended, 1 to
	// 10000; 400, where everybody else has 100: a monitor needs little, but
	// loses events when it gets that too late.
	CPUWeight uint64
}

// OrDefault returns the limits with defaults where there are none.
func (l Limits) OrDefault() Limits {
	for _, v := range []struct {
		at    *uint64
		value uint64
	}{{&l.Memory, 1 << 30}, {&l.Files, 4096}, {&l.Processes, 256}, {&l.CPUWeight, 400}} {
		if *v.at == 0 {
			*v.at = v.value
		}
	}
	return l
}

// process is a monitor's process, as go-plugin wants it.
type process struct {
	cmd    *exec.Cmd
	exe    *executable
	limits Limits
	stdout io.ReadCloser
	stderr io.ReadCloser
	group  *group
	pid    int
}

func newProcess(cmd *exec.Cmd, exe *executable, limits Limits) (*process, error) {
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd: cmd, exe: exe, limits: limits.OrDefault(), stdout: stdout, stderr: stderr}, nil
}

// Start implements runner.Runner.
func (p *process) Start(context.Context) error {
	p.cmd.Path, p.cmd.Args = p.exe.run(), []string{p.exe.path}
	p.cmd.Stdin = nil // go-plugin gives it this process's own
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("execute %s: %w", p.exe.path, err)
	}
	p.pid = p.cmd.Process.Pid
	p.group = p.enterGroup()
	p.setRlimits()
	return nil
}

// enterGroup limits the process by cgroups, from another thread: this one has
// given up the privileges that making them takes.
func (p *process) enterGroup() *group {
	made := make(chan *group)
	go func() { made <- newGroup(p.pid, p.limits) }()
	return <-made
}

// limited reports whether cgroups limit the process.
func (p *process) limited() bool { return p.group != nil && len(p.group.dirs) > 0 }

// setRlimits limits the process where cgroups can't: they are the host's.
func (p *process) setRlimits() {
	for resource, value := range map[int]uint64{
		unix.RLIMIT_NOFILE: p.limits.Files,
		unix.RLIMIT_NPROC:  p.limits.Processes,
		unix.RLIMIT_CORE:   0,
		// Private memory that was written to; reserved address space, of which
		// Go programs take much, doesn't count.
		unix.RLIMIT_DATA: p.limits.Memory,
	} {
		limit := unix.Rlimit{Cur: value, Max: value}
		// It can't fail but for a process that has ended, which shows later.
		_ = unix.Prlimit(p.pid, resource, &limit, nil)
	}
}

// Wait implements runner.AttachedRunner.
func (p *process) Wait(context.Context) error {
	err := p.cmd.Wait()
	p.group.remove()
	return err
}

// Kill implements runner.AttachedRunner.
func (p *process) Kill(context.Context) error {
	if p.cmd.Process == nil {
		return nil
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Diagnose implements runner.Runner.
func (p *process) Diagnose(context.Context) string { return "" }

// Stdout implements runner.Runner.
func (p *process) Stdout() io.ReadCloser { return p.stdout }

// Stderr implements runner.Runner.
func (p *process) Stderr() io.ReadCloser { return p.stderr }

// Name implements runner.Runner.
func (p *process) Name() string { return p.exe.path }

// ID implements runner.AttachedRunner.
func (p *process) ID() string {
	if p.pid == 0 {
		return ""
	}
	return strconv.Itoa(p.pid)
}

// PluginToHost implements runner.AddrTranslator: both see the same files.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// attributes of a monitor's process: in a group of its own, because a Ctrl-C
// on the terminal is ours to handle and what it starts ends with it; and it
// ends with the thread that started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
