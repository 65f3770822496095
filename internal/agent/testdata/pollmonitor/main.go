// Command pollmonitor is a monitor for tests of the agent: it polls /proc for
// the processes of a PID namespace. It misses what is short-lived, so that no
// test relies on the completeness of what it reports.
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
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func main() { monitor.Serve(poller{}, monitor.Needs("CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH")) }

type poller struct{}

func (poller) Describe(context.Context) (*confinev1.DescribeResponse, error) {
	return &confinev1.DescribeResponse{Name: "poll", Version: "test", Capabilities: &confinev1.Capabilities{Exec: true}}, nil
}

func (poller) Watch(ctx context.Context, _ string, scope *confinev1.Scope, sink *monitor.Sink) error {
	seen := map[string]bool{}
	for first := true; ; first = false {
		pids, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range pids {
			var st syscall.Stat_t
			if syscall.Stat(dir+"/ns/pid", &st) != nil || st.Ino != scope.GetPidNamespace() {
				continue
			}
			exe, err := os.Readlink(dir + "/exe")
			key := dir + " " + exe
			if err != nil || seen[key] {
				continue
			}
			seen[key] = true
			if first {
				continue // the runtime's own init
			}
			pid, _ := strconv.Atoi(filepath.Base(dir))
			filename := exe
			if cmdline, err := os.ReadFile(dir + "/cmdline"); err == nil {
				if args := strings.Split(string(cmdline), "\x00"); len(args) > 1 && strings.HasPrefix(args[1], "/") {
					filename = args[1]
				}
			}
			sink.Exec(&confinev1.Exec{Time: uint64(time.Now().UnixNano()), Pid: int32(pid), Path: exe, Filename: filename})
		}
		if first {
			sink.Ready()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (poller) Snapshot(context.Context, string) (*confinev1.SnapshotResponse, error) {
	return &confinev1.SnapshotResponse{Recorded: []*confinev1.RecordedCalls{{Process: fmt.Sprint(), Nrs: []int32{0, 1, 2}}}}, nil
}
