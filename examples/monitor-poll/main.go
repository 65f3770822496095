// Command confine-monitor-poll is a monitor to copy from: it looks through
// /proc for the programs that run in a mount namespace. It misses what ends
// between two looks, and says so.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
	"github.com/confinehq/confine/pkg/monitor/procfs"
)

func main() { monitor.Serve(poller{}, monitor.Needs("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")) }

type poller struct{}

// Describe implements monitor.Monitor.
func (poller) Describe(context.Context) (*monitor.Description, error) {
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid())); err != nil {
		return nil, fmt.Errorf("it can't look into other processes: %w; run the agent as root", err)
	}
	return &monitor.Description{
		Name: "poll", Version: "1.0", Capabilities: &monitor.Capabilities{Exec: true, MissesShortLived: true},
		Mechanisms: []string{"/proc"}, Limits: []string{"what ends within milliseconds, or runs in a mount namespace of its own, is missed without being counted"},
	}, nil
}

// Watch implements monitor.Monitor.
func (p poller) Watch(ctx context.Context, _ string, scope *monitor.Scope, sink *monitor.Sink) error {
	if scope.GetMountNamespace() == 0 {
		return fmt.Errorf("%w: give a mount namespace, this monitor knows nothing else", monitor.ErrInvalidScope)
	}
	known := p.look(scope, map[string]bool{}, nil)
	sink.Ready()
	for ctx.Err() == nil {
		known = p.look(scope, known, sink.Exec)
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

// Snapshot implements monitor.Monitor: this one records nothing.
func (poller) Snapshot(context.Context, string) (*monitor.Snapshot, error) {
	return &monitor.Snapshot{}, nil
}

// look tells of the programs that weren't known, and returns those that run.
func (poller) look(scope *monitor.Scope, known map[string]bool, tell func(*monitor.Exec)) map[string]bool {
	running := map[string]bool{}
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		exe, err := os.Readlink(dir + "/exe")
		if err != nil || procfs.Namespace(int32(pid), "mnt") != scope.GetMountNamespace() {
			continue
		}
		key := dir + " " + exe
		line, _ := os.ReadFile(dir + "/cmdline")
		if !known[key] && len(line) == 0 {
			continue // it is just being executed: the next look finds its arguments
		}
		running[key] = true
		if known[key] || tell == nil || entering(scope, int32(pid), exe) {
			continue
		}
		if name, ok := strings.CutPrefix(exe, "/memfd:"); ok {
			exe = "memfd:" + strings.TrimSuffix(name, " (deleted)")
		}
		tell(&monitor.Exec{Time: uint64(time.Now().UnixNano()), Pid: int32(pid), Path: exe, Filename: asked(dir, exe, string(line))})
	}
	return running
}

// entering reports whether a process has come from outside and still runs a
// file from there: a container runtime on its way to a program.
func entering(scope *monitor.Scope, pid int32, exe string) bool {
	runs, _ := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	there, _ := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, exe))
	parent, _ := procfs.Parent(pid)
	return pid != scope.GetPid() && !os.SameFile(runs, there) && procfs.Namespace(parent, "mnt") != scope.GetMountNamespace()
}

// asked returns the script that an interpreter was started for, else exe.
func asked(dir, exe, line string) string {
	for _, arg := range strings.SplitN(line, "\x00", 4) {
		if head, err := os.ReadFile(dir + "/root" + arg); err == nil && strings.HasPrefix(string(head), "#!") {
			return arg
		}
	}
	return exe
}
