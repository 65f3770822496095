package monitor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Monitor is what a backend implements. Methods are called concurrently, and
// several watches run at once.
type Monitor interface {
	// Describe says what the backend can see on this host. An error says why
	// it can't work here and what to do about it.
	Describe(ctx context.Context) (*confinev1.DescribeResponse, error)
	// Watch reports what happens in scope to sink until ctx ends, and returns
	// nil then. It calls sink.Ready once, as soon as everything that happens
	// from then on is seen or counted as lost. watchID is unique among the
	// watches that run.
	Watch(ctx context.Context, watchID string, scope *confinev1.Scope, sink *Sink) error
	// Snapshot returns what Watch has recorded so far. Events that happened
	// before the call have gone to the sink when it returns. Events is filled
	// in by the caller; Lost needs to hold only what the backend itself lost
	// and didn't tell the sink.
	Snapshot(ctx context.Context, watchID string) (*confinev1.SnapshotResponse, error)
}

// ErrUnknownWatch is returned by a Monitor's Snapshot for a watch that doesn't
// run; it becomes codes.NotFound for the host.
var ErrUnknownWatch = errors.New("no such watch")

// ErrInvalidScope is returned (wrapped) by a Monitor's Watch for a scope that
// it can't watch; it becomes codes.InvalidArgument for the host.
var ErrInvalidScope = errors.New("invalid scope")

// Unsupported says of an error of a Monitor's Watch that this host lacks what
// every watch needs: it becomes codes.FailedPrecondition, and hosts don't try
// again.
func Unsupported(err error) error { return &unsupported{err} }

type unsupported struct{ err error }

func (e *unsupported) Error() string { return e.err.Error() }
func (e *unsupported) Unwrap() error { return e.err }

// A ServeOption changes how Serve serves.
type ServeOption func(*needs)

// Needs states the capabilities of Linux ("CAP_BPF") that a backend can't do
// without. Hosts start it with these and no others; without a statement it gets
// none.
func Needs(capabilities ...string) ServeOption {
	return func(n *needs) { n.Capabilities = append(n.Capabilities, capabilities...) }
}

// Option returns the value that the agent's configuration gives an option of
// this backend, "" when it gives none.
func Option(name string) string { return os.Getenv(optionVariable(name)) }

// optionVariable names the environment variable of an option: "ring-bytes" is
// CONFINE_OPTION_RING_BYTES.
func optionVariable(name string) string {
	return "CONFINE_OPTION_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// gcPercent is how much a backend's memory may grow before it is collected: half
// of what Go takes by itself. Backends have little, beside everything else on
// the node.
const gcPercent = 50

// Serve runs a backend until its host is done with it. It is the whole main
// of a plugin.
func Serve(impl Monitor, options ...ServeOption) {
	var n needs
	for _, o := range options {
		o(&n)
	}
	if asked, err := n.tell(os.Stdout); asked {
		if err != nil {
			os.Exit(1)
		}
		return
	}
	debug.SetGCPercent(gcPercent)
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  handshake(),
		VersionedPlugins: versions(impl),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(opts...)
		},
	})
}

// NewServer returns the gRPC service for a backend: what Serve serves in the
// newest version of the contract, for tests and for a monitor in the agent's
// own process.
func NewServer(impl Monitor) confinev1.MonitorServiceServer {
	return newServer(impl, newestVersion)
}

func newServer(impl Monitor, version int) *server {
	return &server{impl: impl, version: version, sinks: make(map[string]*Sink)}
}

// server translates between the service and a Monitor.
type server struct {
	confinev1.UnimplementedMonitorServiceServer
	impl    Monitor
	version int // of the contract that the host speaks

	mu    sync.Mutex
	sinks map[string]*Sink // by watch id
}

// answerReserve is left of the time for an answer, at most: a backend whose own
// time is over can still say why.
const answerReserve = 2 * time.Second

func (s *server) Describe(ctx context.Context, _ *confinev1.DescribeRequest) (*confinev1.DescribeResponse, error) {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-min(answerReserve, time.Until(end)/4)))
		defer cancel()
	}
	defer debug.FreeOSMemory()
	d, err := s.impl.Describe(ctx)
	if err != nil {
		return nil, toStatus(err, codes.FailedPrecondition)
	}
	return d, nil
}

func (s *server) Watch(req *confinev1.WatchRequest, stream grpc.ServerStreamingServer[confinev1.WatchResponse]) error {
	if req.GetWatchId() == "" {
		return status.Error(codes.InvalidArgument, "watch: no watch_id given")
	}
	if req.GetScope() == nil {
		return status.Error(codes.InvalidArgument, "watch: no scope given")
	}
	scope := req.GetScope()
	sink := newSink()
	if s.version < 2 {
		// An older host doesn't ask for what was left out, and knows no batches.
		scope.EveryEvent = true
		sink.batch = 1
	}
	if err := s.add(req.GetWatchId(), sink); err != nil {
		return err
	}
	defer s.remove(req.GetWatchId())

	defer debug.FreeOSMemory() // whatever the watch took, nobody needs it while idle
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	watched := make(chan error, 1)
	go func() {
		err := s.impl.Watch(ctx, req.GetWatchId(), scope, sink)
		sink.close()
		watched <- err
	}()
	sent := sink.deliver(ctx, stream.Send)
	cancel()
	err := <-watched
	switch {
	case stream.Context().Err() != nil:
		return status.FromContextError(stream.Context().Err()).Err()
	case err != nil:
		return toStatus(err, codes.Internal)
	case sent != nil:
		return sent
	}
	return status.Error(codes.Aborted, "watch: the monitor stopped before it was asked to")
}

func (s *server) Snapshot(ctx context.Context, req *confinev1.SnapshotRequest) (*confinev1.SnapshotResponse, error) {
	s.mu.Lock()
	sink := s.sinks[req.GetWatchId()]
	s.mu.Unlock()
	if sink == nil {
		return nil, status.Errorf(codes.NotFound, "snapshot: no watch %q runs", req.GetWatchId())
	}
	snap, err := s.impl.Snapshot(ctx, req.GetWatchId())
	if err != nil {
		return nil, toStatus(err, codes.Internal)
	}
	return sink.complete(snap), nil
}

func (s *server) add(id string, sink *Sink) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sinks[id] != nil {
		return status.Errorf(codes.AlreadyExists, "watch: a watch %q runs already", id)
	}
	s.sinks[id] = sink
	return nil
}

func (s *server) remove(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sinks, id)
}

// toStatus gives an error the code that its sentinel stands for, and otherwise
// code.
func toStatus(err error, code codes.Code) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	var lacks *unsupported
	switch {
	case errors.As(err, &lacks):
		code = codes.FailedPrecondition
	case errors.Is(err, ErrUnknownWatch):
		code = codes.NotFound
	case errors.Is(err, ErrInvalidScope):
		code = codes.InvalidArgument
	case errors.Is(err, context.Canceled):
		code = codes.Canceled
	}
	return status.Error(code, fmt.Sprint(err))
}
