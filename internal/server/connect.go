package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/version"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

type connectStream = grpc.BidiStreamingServer[confinev1.ConnectRequest, confinev1.ConnectResponse]

// Connect implements confine.v1.AgentService: it holds one agent's stream.
func (s *Server) Connect(stream connectStream) error {
	ctx := stream.Context()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if err := checkHello(callerOf(ctx), hello); err != nil {
		s.log.Warn("agent refused", "error", err)
		return err
	}
	n, l, err := s.agents.attach(hello)
	if err != nil {
		return err
	}
	defer s.farewell(ctx, n, l, hello.GetNode())
	if err := s.store.PutNode(ctx, nodeRecord(hello.GetNode(), time.Now())); err != nil {
		return storeError(err)
	}
	s.log.Info("agent connected", "node", n.name, "version", hello.GetNode().GetVersion(), "runs", len(hello.GetRunIds()))
	welcome := &confinev1.ConnectResponse{Ack: l.ack, Message: &confinev1.ConnectResponse_Welcome{
		Welcome: &confinev1.Welcome{ServerVersion: version.Version},
	}}
	if err := stream.Send(welcome); err != nil {
		return err
	}
	received := make(chan error, 1)
	// It ends with the stream, which ends when this method returns.
	go func() { received <- s.receive(stream, n, l) }()
	return transmit(stream, l, received)
}

// receive reads until the stream ends.
func (s *Server) receive(stream connectStream, n *node, l *link) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if _, err := contained(s.log, "the server", func() (any, error) { s.agents.handle(n, l, m); return nil, nil }); err != nil {
			return err
		}
	}
}

// transmit writes what the link holds until one side has had enough.
func transmit(stream connectStream, l *link, received <-chan error) error {
	for {
		for _, m := range l.next() {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		select {
		case <-l.wake:
		case <-l.closed:
			return l.reason()
		case err := <-received:
			return err
		}
	}
}

// farewell keeps when a node was last seen.
func (s *Server) farewell(ctx context.Context, n *node, l *link, info *confinev1.Hello_Node) {
	s.agents.detach(n, l)
	s.log.Info("agent disconnected", "node", n.name)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.store.PutNode(ctx, nodeRecord(info, time.Now())); err != nil {
		s.log.Warn("cannot keep when a node was last seen", "node", n.name, "error", err)
	}
}

// checkHello makes sure that an agent speaks for the node of its certificate.
func checkHello(who caller, hello *confinev1.Hello) error {
	name := hello.GetNode().GetName()
	switch {
	case hello == nil || hello.GetSession() == "":
		return status.Error(codes.InvalidArgument, "the first message of a stream has to be Hello, with a session")
	case pki.CheckName(name) != nil:
		return status.Error(codes.InvalidArgument, pki.CheckName(name).Error())
	case !who.local && who.Name != name:
		return status.Errorf(codes.PermissionDenied, "the certificate is one of node %s, and the agent calls itself %s", who.Name, clean(name, 64))
	case len(hello.GetSession()) > 64 || len(hello.GetRunIds()) > 1000 || len(hello.GetCommands()) > 1000:
		return status.Error(codes.InvalidArgument, "Hello is too large")
	}
	return nil
}

// nodeRecord is what is kept and listed of a node.
func nodeRecord(h *confinev1.Hello_Node, seen time.Time) *confinev1.Node {
	return &confinev1.Node{
		Name: h.GetName(), LastSeen: timestamppb.New(seen),
		Version: clean(h.GetVersion(), 128), Kernel: clean(h.GetKernel(), 128),
		Containerd: clean(h.GetContainerd(), 128), Runtime: clean(h.GetRuntime(), 128),
		Platform: clean(h.GetPlatform(), 64), Monitors: cleanAll(h.GetMonitors(), 64, 64),
	}
}
