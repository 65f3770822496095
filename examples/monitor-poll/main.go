// Command confine-monitor-poll is a monitor to copy from: it looks through
// /proc for the programs that run in a PID namespace. It misses what ends
// between two looks, and says so.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
)

// interval is the time between two looks.
const interval = 2 * time.Millisecond

func main() { monitor.Serve(poller{}, monitor.Needs("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")) }

type poller struct{}

// Describe implements monitor.Monitor.
func (poller) Describe(context.Context) (*monitor.Description, error) {
	if _, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", os.Getppid())); err != nil {
		return nil, fmt.Errorf("it can't look into other processes: %w; run the agent as root", err)
	}
	return &monitor.Description{
		Name: "poll", Version: "1.0", Mechanisms: []string{"/proc"},
		Capabilities: &monitor.Capabilities{Exec: true, MissesShortLived: true},
		Limits:       []string{"programs that end within milliseconds are missed without being counted"},
	}, nil
}

// Watch implements monitor.Monitor.
func (p poller) Watch(ctx context.Context, _ string, scope *monitor.Scope, sink *monitor.Sink) error {
	if scope.GetPidNamespace() == 0 {
		return fmt.Errorf("%w: give a PID namespace, this monitor knows nothing else", monitor.ErrInvalidScope)
	}
	known := p.look(scope, map[string]bool{}, nil)
	sink.Ready()
	for ctx.Err() == nil {
		known = p.look(scope, known, sink.Exec)
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
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
		var ns syscall.Stat_t
		exe, err := os.Readlink(dir + "/exe")
		if err != nil || syscall.Stat(dir+"/ns/pid", &ns) != nil || ns.Ino != scope.GetPidNamespace() {
			continue
		}
		key := dir + " " + exe
		line, _ := os.ReadFile(dir + "/cmdline")
		if !known[key] && len(line) == 0 {
			continue // it is just being executed: the next look finds its arguments
		}
		running[key] = true
		if known[key] || tell == nil {
			continue
		}
		if name, ok := strings.CutPrefix(exe, "/memfd:"); ok {
			exe = "memfd:" + strings.TrimSuffix(name, " (deleted)")
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		tell(&monitor.Exec{Time: uint64(time.Now().UnixNano()), Pid: int32(pid), Path: exe, Filename: asked(dir, exe, string(line))})
	}
	return running
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
