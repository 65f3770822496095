package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// describeTime bounds the answer of a node whose monitors are described. A
	// node bounds each of its monitors, which it starts side by side.
	describeTime = 90 * time.Second
	// parallelNodes is how many nodes are asked at once.
	parallelNodes = 64
	// maxMonitors is how many monitors of one node are told, and maxSentences
	// how much one of them may say.
	maxMonitors  = 64
	maxSentences = 64
)

// Commands that not every agent knows, as agents name them.
const (
	commandStress   = "start_stress"
	commandDescribe = "describe_monitors"
)

// DescribeMonitors implements confine.v1.OperatorService.
func (s *Server) DescribeMonitors(ctx context.Context, req *confinev1.DescribeMonitorsRequest) (*confinev1.DescribeMonitorsResponse, error) {
	if !s.enter() {
		return nil, errStopping
	}
	defer s.active.Done()
	nodes, err := s.store.Nodes(ctx)
	if err != nil {
		return nil, storeError(err)
	}
	if name := req.GetNode(); name != "" {
		if _, err := s.chooseNode(ctx, name); err != nil {
			return nil, err
		}
		nodes = slices.DeleteFunc(nodes, func(n *confinev1.Node) bool { return n.GetName() != name })
	}
	out := make([]*confinev1.NodeMonitors, len(nodes))
	var g errgroup.Group
	g.SetLimit(parallelNodes)
	for i, n := range nodes {
		g.Go(func() error {
			out[i] = s.monitorsOf(ctx, n)
			return nil
		})
	}
	_ = g.Wait()
	if ctx.Err() != nil {
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &confinev1.DescribeMonitorsResponse{Nodes: out}, nil
}

// monitorsOf asks one node for its monitors.
func (s *Server) monitorsOf(ctx context.Context, n *confinev1.Node) *confinev1.NodeMonitors {
	out := &confinev1.NodeMonitors{
		Node: n.GetName(), Installed: n.GetMonitors(), Connected: slices.Contains(s.agents.connected(), n.GetName()),
	}
	ctx, cancel := context.WithTimeout(ctx, describeTime)
	defer cancel()
	reply, err := s.describe(ctx, n.GetName())
	if err != nil {
		out.Problem = status.Convert(err).Message()
		return out
	}
	out.Problem = clean(reply.GetProblem(), maxText)
	for _, m := range reply.GetMonitors()[:min(len(reply.GetMonitors()), maxMonitors)] {
		if m != nil {
			out.Monitors = append(out.Monitors, cleanMonitor(m))
		}
	}
	return out
}

// describe has a node start its monitors.
func (s *Server) describe(ctx context.Context, node string) (*confinev1.MonitorsReply, error) {
	r, err := newRun(ctx, s, &confinev1.RunSpec{})
	if err != nil {
		return nil, err
	}
	defer r.fail(context.Canceled)
	stop := context.AfterFunc(s.stopping, func() { r.fail(errStopping) })
	defer stop()
	if err := s.begin(ctx, node, r, commandDescribe); err != nil {
		return nil, err
	}
	defer s.agents.end(r)
	m, err := r.ask(ctx, func(id string) *confinev1.ConnectResponse {
		return &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_DescribeMonitors{
			DescribeMonitors: &confinev1.DescribeMonitors{RequestId: id},
		}}
	})
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("node %s did not describe its monitors within %v; look at the agent's log there ('journalctl -u confine-agent')", node, describeTime)
	case err != nil:
		return nil, err
	case m.GetMonitorsReply() == nil:
		return nil, fmt.Errorf("node %s gave a wrong kind of answer", node)
	}
	return m.GetMonitorsReply(), nil
}

// cleanMonitor makes what a node says of a monitor fit to be printed.
func cleanMonitor(m *confinev1.MonitorStatus) *confinev1.MonitorStatus {
	all := func(texts []string) []string { return cleanAll(texts, maxText, maxSentences) }
	m.Name, m.Path, m.Problem = clean(m.GetName(), 64), clean(m.GetPath(), maxPath), clean(m.GetProblem(), maxText)
	m.Version, m.Sha256 = clean(m.GetVersion(), 128), clean(m.GetSha256(), 64)
	m.Mechanisms, m.Limits, m.Needs, m.Gets, m.Options = all(m.GetMechanisms()), all(m.GetLimits()), all(m.GetNeeds()), all(m.GetGets()), all(m.GetOptions())
	if math.IsNaN(m.GetSeconds()) || math.IsInf(m.GetSeconds(), 0) {
		m.Seconds = 0
	}
	return m
}

// tooOld is the error of a command that an agent doesn't know.
func tooOld(node string) error {
	return status.Errorf(codes.FailedPrecondition, "the agent on node %s is too old for this; install there the confine-agent of this server's version", node)
}
