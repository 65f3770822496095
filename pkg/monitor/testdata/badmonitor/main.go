// Command badmonitor breaks the monitor contract in the way that its option
// "how" names.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

func main() {
	if os.Getenv("CONFINE_MONITOR_NEEDS") != "" {
		fmt.Println(`{"capabilities":["CAP_SYS_PTRACE"]}`)
		return
	}
	how := monitor.Option("how")
	version := 2
	switch how {
	case "garbage":
		fmt.Println("\x1b[31mHello, I am a web server")
		time.Sleep(time.Hour)
	case "endless garbage":
		for {
			fmt.Print(strings.Repeat("x", 4096))
		}
	case "silent":
		time.Sleep(time.Hour)
	case "ends":
		os.Exit(3)
	case "newer":
		version = 9
	case "older":
		version = 0
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{
			ProtocolVersion: uint(version), MagicCookieKey: "CONFINE_MONITOR_PLUGIN", MagicCookieValue: "confine.v1.MonitorService",
		},
		VersionedPlugins: map[int]goplugin.PluginSet{version: {"monitor": &plugin{how: how}}},
		GRPCServer:       goplugin.DefaultGRPCServer,
	})
}

// plugin serves the bare service.
type plugin struct {
	goplugin.NetRPCUnsupportedPlugin
	confinev1.UnimplementedMonitorServiceServer
	how   string
	calls int
}

func (p *plugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	confinev1.RegisterMonitorServiceServer(s, p)
	return nil
}

func (p *plugin) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (p *plugin) Describe(ctx context.Context, _ *confinev1.DescribeRequest) (*confinev1.DescribeResponse, error) {
	switch p.how {
	case "hangs when described":
		time.Sleep(time.Hour)
	case "eats memory":
		eat()
	}
	switch p.how {
	case "crashes when described":
		os.Exit(5)
	case "can't work":
		return nil, errors.New("this kernel is too old: install a newer one")
	case "sees nothing":
		return &confinev1.DescribeResponse{Name: "bad"}, nil
	case "says too much":
		return &confinev1.DescribeResponse{
			Name: "another", Version: strings.Repeat("\x1b", 1<<20), Limits: slices.Repeat([]string{strings.Repeat("x", 1<<16)}, 100),
			Capabilities: &confinev1.Capabilities{Exec: true},
		}, nil
	}
	return &confinev1.DescribeResponse{Name: "bad", Version: status()}, nil
}

// status is what it runs with, for tests of that.
func status() string {
	text, _ := os.ReadFile("/proc/self/status")
	limits, _ := os.ReadFile("/proc/self/limits")
	groups, _ := os.ReadFile("/proc/self/cgroup")
	return strings.Join(os.Environ(), "\n") + "\n" + string(text) + string(limits) + string(groups)
}

// eat takes memory that isn't private, so that only a cgroup limits it, up to
// half a GiB.
func eat() {
	for range 8 {
		b, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		if err != nil {
			return
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
}

func exec(pid int32, path string, group uint64) *confinev1.WatchResponse {
	return &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Exec{Exec: &confinev1.Exec{Pid: pid, Path: path, Filename: path, CgroupId: group}}}
}

func (p *plugin) Watch(_ *confinev1.WatchRequest, out grpc.ServerStreamingServer[confinev1.WatchResponse]) error {
	send := func(m *confinev1.WatchResponse) { _ = out.Send(m) }
	if p.how == "hangs when it watches" {
		time.Sleep(time.Hour)
	}
	send(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Ready{Ready: &confinev1.Ready{}}})
	for range 10 {
		send(exec(int32(os.Getppid()), "/bin/true", 0))
	}
	switch p.how {
	case "crashes":
		time.Sleep(300 * time.Millisecond)
		os.Exit(4)
	case "stops":
		return nil
	case "floods":
		for i := 0; out.Context().Err() == nil; i++ {
			send(exec(int32(i%1000+1), fmt.Sprintf("/bin/%d", i), 0))
		}
	case "huge message":
		send(exec(1, strings.Repeat("/x", 16<<20), 0))
	case "huge path":
		send(exec(1, strings.Repeat("/x", 1<<20), 0))
	case "no process":
		send(exec(-5, "/bin/true", 0))
	case "no event":
		send(&confinev1.WatchResponse{})
	case "nested batch":
		b := &confinev1.WatchResponse{Event: &confinev1.WatchResponse_Batch{Batch: &confinev1.Batch{}}}
		send(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Batch{Batch: &confinev1.Batch{Events: []*confinev1.WatchResponse{b}}}})
	case "foreign":
		// The host's own process, in the root of all cgroups.
		send(exec(int32(os.Getppid()), "/bin/true", 1))
	case "absurd losses":
		send(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Lost{Lost: &confinev1.Lost{Count: 1 << 63}}})
	case "forgets losses":
		send(&confinev1.WatchResponse{Event: &confinev1.WatchResponse_Lost{Lost: &confinev1.Lost{Count: 7, Reason: "told"}}})
	}
	<-out.Context().Done()
	return nil
}

func (p *plugin) Snapshot(context.Context, *confinev1.SnapshotRequest) (*confinev1.SnapshotResponse, error) {
	p.calls++
	s := &confinev1.SnapshotResponse{Events: 10}
	switch p.how {
	case "hangs at the end":
		time.Sleep(time.Hour)
	case "counts too few":
		s.Events = 3
	case "counts too many":
		s.Events = 13
	case "goes down":
		s.Events = uint64(20 - p.calls)
	case "losses go down":
		s.Lost = uint64(9 - p.calls)
	case "floods":
		s.Events = 0
	case "huge path", "no process", "no event", "nested batch", "foreign":
		s.Events = 11
	}
	return s, nil
}
