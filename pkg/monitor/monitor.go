// Package monitor is the contract between an agent and the programs that
// watch containers for it, with both sides of it.
//
// A backend is an executable named confine-monitor-NAME whose main calls
// Serve with its Monitor. An agent starts it with Start, which returns a
// Client. Both speak confine.v1.MonitorService over hashicorp/go-plugin: gRPC
// only, mutual TLS with certificates made for this one start, a versioned
// handshake.
//
// The rule that everything here serves: an event is delivered, or it is
// counted as lost. Nothing blocks a kernel-side reader: the plugin's side
// queues a bounded number of events for each watch and counts what doesn't
// fit (see Sink).
package monitor

import (
	"context"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Versions of the contract that this package speaks, on both sides. Version 2
// brought repeated events that are counted instead of delivered, losses by
// reason and messages in batches; see monitor.proto.
const (
	oldestVersion = 1
	newestVersion = 2
)

// service is the name under which go-plugin dispenses the one service.
const service = "monitor"

// handshake keeps a user from running a plugin by hand, and an agent from
// running something that isn't a monitor. It is no security measure.
func handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{
		ProtocolVersion:  oldestVersion,
		MagicCookieKey:   "CONFINE_MONITOR_PLUGIN",
		MagicCookieValue: "confine.v1.MonitorService",
	}
}

// versions is the set of contracts by protocol version; impl is nil on the
// host's side.
func versions(impl Monitor) map[int]goplugin.PluginSet {
	set := make(map[int]goplugin.PluginSet)
	for v := oldestVersion; v <= newestVersion; v++ {
		p := &grpcPlugin{}
		if impl != nil {
			p.impl = newServer(impl, v)
		}
		set[v] = goplugin.PluginSet{service: p}
	}
	return set
}

// grpcPlugin adapts the generated service to go-plugin.
type grpcPlugin struct {
	goplugin.NetRPCUnsupportedPlugin
	impl confinev1.MonitorServiceServer
}

func (p *grpcPlugin) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	confinev1.RegisterMonitorServiceServer(s, p.impl)
	return nil
}

func (p *grpcPlugin) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return confinev1.NewMonitorServiceClient(conn), nil
}
