package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/version"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Time between attempts to reach the server.
const (
	backoffFirst = 200 * time.Millisecond
	backoffLast  = 15 * time.Second
)

type stream = grpc.BidiStreamingClient[confinev1.ConnectRequest, confinev1.ConnectResponse]

// connect holds a stream to the server until ctx ends. Runs belong to g.
func (a *Agent) connect(ctx context.Context, client confinev1.AgentServiceClient, g *errgroup.Group) error {
	wait := backoffFirst
	lastGood := time.Now()
	for {
		welcomed, err := a.serve(ctx, client, g)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if welcomed {
			wait, lastGood = backoffFirst, time.Now()
		}
		if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
			return fmt.Errorf("connect to server: %w; join the node again with a new token (--token)", err)
		}
		a.log.Warn("no stream to the server, trying again", "error", err, "in", wait)
		if time.Since(lastGood) > orphanGrace {
			a.endAll("the server could not be reached")
		}
		// Spread the agents of a fleet after a restart of the server.
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		wait = min(2*wait, backoffLast)
	}
}

// serve speaks over one stream until it breaks. It reports whether the server
// had welcomed the agent.
func (a *Agent) serve(ctx context.Context, client confinev1.AgentServiceClient, g *errgroup.Group) (welcomed bool, err error) {
	whole := ctx // what isn't over with the stream
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := client.Connect(ctx)
	if err != nil {
		return false, err
	}
	if err := s.Send(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_Hello{Hello: a.hello(ctx)}}); err != nil {
		return false, lastError(s, err)
	}
	sent := make(chan error, 1)
	defer func() { <-sent }()
	defer cancel()
	started := false
	for {
		m, err := s.Recv()
		if err != nil {
			if !started {
				sent <- nil
			}
			return welcomed, err
		}
		if !started {
			// Only a server that answers gets what is queued.
			started = true
			go func() { sent <- a.send(ctx, s) }()
		}
		a.out.ack(m.GetAck())
		if w := m.GetWelcome(); w != nil {
			welcomed = true
			a.log.Info("connected", "server", w.GetServerVersion())
		}
		if d := m.GetDescribeMonitors(); d != nil {
			a.describeMonitors(whole, m.GetRunId(), d, g)
			continue
		}
		a.command(ctx, m, client, g)
	}
}

// send writes queued messages, those of before the stream began included.
func (a *Agent) send(ctx context.Context, s stream) error {
	var last uint64
	for {
		messages, changed := a.out.after(last)
		for _, m := range messages {
			if err := s.Send(m); err != nil {
				return err // the receiver learns why
			}
			last = m.GetSeq()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lastError returns the status behind an io.EOF of Send.
func lastError(s stream, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	if _, recv := s.Recv(); recv != nil {
		return recv
	}
	return err
}

func (a *Agent) hello(ctx context.Context) *confinev1.Hello {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	daemon, err := a.runner.Version(ctx)
	if err != nil {
		a.log.Warn("containerd does not answer", "error", err)
	}
	node := &confinev1.Hello_Node{
		Name: a.cfg.Node, Version: version.Version, Kernel: kernelRelease(),
		Containerd: daemon, Runtime: runtimeVersion(ctx, a.cfg.Runtime), Platform: platform(),
	}
	plugins, err := a.monitors.installed()
	if err != nil {
		a.log.Warn("no monitors", "error", err)
	}
	for _, p := range plugins {
		node.Monitors = append(node.Monitors, p.Name)
	}
	h := &confinev1.Hello{Node: node, Session: a.session, Commands: commands()}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.runs {
		h.RunIds = append(h.RunIds, id)
	}
	slices.Sort(h.RunIds)
	return h
}

// commands lists what this agent knows to do, as the contract names it.
func commands() []string {
	var names []string
	fields := (&confinev1.ConnectResponse{}).ProtoReflect().Descriptor().Oneofs().ByName("message").Fields()
	for i := range fields.Len() {
		names = append(names, string(fields.Get(i).Name()))
	}
	return names
}

// command carries out what the server says. It must not block: everything
// that takes time belongs to a run.
func (a *Agent) command(ctx context.Context, m *confinev1.ConnectResponse, client confinev1.AgentServiceClient, g *errgroup.Group) {
	id := m.GetRunId()
	if start := m.GetStartRun(); start != nil {
		a.start(id, start.GetSpec(), client, g, (*run).observe)
		return
	}
	if start := m.GetStartStress(); start != nil {
		a.start(id, stressSpec(start.GetSpec()), client, g, func(r *run, ctx context.Context) { r.stress(ctx, start.GetSpec()) })
		return
	}
	if id == "" {
		return
	}
	a.mu.Lock()
	r := a.runs[id]
	a.mu.Unlock()
	if end := m.GetEndRun(); end != nil {
		if r != nil {
			r.end(end.GetReason())
			return
		}
		a.say(ctx, id, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_RunEnded{RunEnded: &confinev1.RunEnded{}}})
		return
	}
	if r == nil {
		if m.Message != nil {
			a.say(ctx, id, runError(status.New(codes.NotFound, "the agent does not hold this run any more; start it again"), ""))
		}
		return
	}
	switch c := m.Message.(type) {
	case *confinev1.ConnectResponse_Lookup:
		r.do(func(ctx context.Context) { r.lookup(ctx, c.Lookup) })
	case *confinev1.ConnectResponse_Upload:
		r.do(func(ctx context.Context) { r.upload(ctx, c.Upload) })
	case *confinev1.ConnectResponse_Prove:
		r.do(func(ctx context.Context) { r.prove(ctx, c.Prove) })
	}
}

// say queues a message of a run.
func (a *Agent) say(ctx context.Context, runID string, m *confinev1.ConnectRequest) {
	m.RunId = runID
	if err := a.out.add(ctx, m); err != nil {
		a.log.Warn("message not sent", "run", runID, "error", err)
	}
}

func runError(s *status.Status, stage string) *confinev1.ConnectRequest {
	return &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_RunError{RunError: &confinev1.RunError{
		Code: uint32(s.Code()), Message: s.Message(), Stage: stage,
	}}}
}

// endAll ends every run.
func (a *Agent) endAll(reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endRuns(reason)
}

// endRuns is endAll with mu held.
func (a *Agent) endRuns(reason string) {
	for _, r := range a.runs {
		r.end(reason)
	}
}
