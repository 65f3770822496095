package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// initPIDNamespace is the inode number of the first PID namespace
// (PROC_PID_INIT_INO).
const initPIDNamespace = 0xEFFFFFFC

// backend is the monitor. Each watch loads programs and maps of its own, so
// that a flood in one scope can't cost another one events.
type backend struct {
	version string

	watches monitor.Watches[*watch]
}

func newBackend(version string) *backend {
	// Kernels before 5.11 want a limit raised that newer ones don't have;
	// where it fails and is needed, loading fails with a clear error.
	_ = rlimit.RemoveMemlock()
	return &backend{version: version}
}

// Describe implements monitor.Monitor: it loads the programs to find out.
func (b *backend) Describe(context.Context) (*confinev1.DescribeResponse, error) {
	if err := privileged(); err != nil {
		return nil, err
	}
	w, err := load(&confinev1.Scope{}, nil)
	if err != nil {
		return nil, err
	}
	defer w.close()
	if err := w.attach(); err != nil {
		return nil, err
	}
	return &confinev1.DescribeResponse{
		Name:    "ebpf",
		Version: b.version,
		Capabilities: &confinev1.Capabilities{
			Exec:             true,
			ExecMapping:      true,
			RecordedSyscalls: true,
			DeniedSyscalls:   true,
			Exit:             true,
			KernelTime:       true,
		},
		Mechanisms: w.mechanisms(),
	}, nil
}

// Watch implements monitor.Monitor.
func (b *backend) Watch(ctx context.Context, id string, scope *confinev1.Scope, sink *monitor.Sink) error {
	if err := checkScope(scope); err != nil {
		return err
	}
	w, err := load(scope, sink)
	if err != nil {
		return err
	}
	defer w.close()
	if err := w.attach(); err != nil {
		return err
	}
	if err := w.seed(scope.GetPid()); err != nil {
		return err
	}
	defer b.watches.Put(id, w)()
	sink.Ready()
	debug.FreeOSMemory() // loading took ten times what watching needs
	return w.run(ctx)
}

// Snapshot implements monitor.Monitor.
func (b *backend) Snapshot(ctx context.Context, id string) (*confinev1.SnapshotResponse, error) {
	w, err := b.watches.Get(id)
	if err != nil {
		return nil, err
	}
	return w.snapshot(ctx)
}

// checkScope says what is wrong with a scope that would select nothing.
func checkScope(s *confinev1.Scope) error {
	if s.GetCgroupId() == 0 && s.GetPid() == 0 && s.GetMountNamespace() == 0 && s.GetPidNamespace() == 0 {
		return fmt.Errorf("%w: give a cgroup id, a process or a namespace (this monitor doesn't know container ids)", monitor.ErrInvalidScope)
	}
	if s.GetPid() < 0 {
		return fmt.Errorf("%w: process %d", monitor.ErrInvalidScope, s.GetPid())
	}
	if s.GetPid() == 0 {
		return nil
	}
	if err := inInitPIDNamespace(); err != nil {
		return err
	}
	if err := syscall.Kill(int(s.GetPid()), 0); errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: no process %d runs", monitor.ErrInvalidScope, s.GetPid())
	}
	return nil
}

// inInitPIDNamespace fails where process numbers mean something else to this
// process than to the kernel.
func inInitPIDNamespace() error {
	ns, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Errorf("read own PID namespace: %w", err)
	}
	if ns != fmt.Sprintf("pid:[%d]", uint64(initPIDNamespace)) {
		return errors.New("the monitor runs in a PID namespace of its own; run the agent in the host's (hostPID)")
	}
	return nil
}

// privileged fails for a process that may not load programs: the kernel's own
// answers to that mislead.
func privileged() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return fmt.Errorf("read own capabilities: %w", err)
	}
	has := func(c int) bool { return sets[c/32].Effective&(1<<(c%32)) != 0 }
	if has(unix.CAP_SYS_ADMIN) || has(unix.CAP_BPF) && has(unix.CAP_PERFMON) {
		return nil
	}
	return errors.New("it may not load eBPF programs: it runs without CAP_BPF or CAP_PERFMON; run the agent as root, and let its configuration (monitors: capabilities:) withhold neither")
}

// explain adds what to do to an error of loading or attaching.
func explain(what string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		hint = "; run the agent as root or with CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE"
	case errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "BTF"):
		hint = "; a kernel of version 5.17 or newer with BTF (CONFIG_DEBUG_INFO_BTF) is needed"
	}
	return fmt.Errorf("%s: %w%s", what, err, hint)
}
