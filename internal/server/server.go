// Package server is the part of Confine that thinks: agents dial it and hold
// a stream, operators ask it for profiles, and it carries a run from the
// image to the proven profile.
//
// A run is one goroutine (pipeline.go) that talks to its node through
// commands and answers (run.go); which node holds which stream is the
// business of the registry (agents.go), which also outlives breaks of streams.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/pki"
	"github.com/confinehq/confine/internal/store"
	"github.com/confinehq/confine/pkg/analysis"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of a server.
const (
	// defaultGrace is how long a run waits for its agent to come back.
	defaultGrace = time.Minute
	// endTime bounds the wait for a node to remove a run.
	endTime = time.Minute
	// stopTime bounds the wait for calls that are being answered at the stop.
	stopTime = 5 * time.Second
	// maxMessage bounds one message, in bytes.
	maxMessage = 64 << 20
	// connectionAge bounds a connection, so that a certificate that has ended
	// can't be used for long.
	connectionAge = 24 * time.Hour
	// parallelAnalyses is how many runs are analysed at once; each uses all
	// processors.
	parallelAnalyses = 2
	// factsMemory is how much memory decoded facts may take between analyses, in
	// bytes: those of some hundred common libraries.
	factsMemory = 128 << 20
)

// Config of a server.
type Config struct {
	// Store is where everything is kept; the caller closes it.
	Store *store.Store
	// CA signs the certificates of those who join; nil when nobody can.
	CA *pki.CA
	// Analyze is analysis.Analyze when nil.
	Analyze func(context.Context, analysis.Request) (*analysis.Result, error)
	// AgentGrace is how long a run waits for its agent to come back; a minute
	// when 0.
	AgentGrace time.Duration
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
}

// Server answers agents and operators.
type Server struct {
	confinev1.UnimplementedEnrollServiceServer
	confinev1.UnimplementedAgentServiceServer
	confinev1.UnimplementedOperatorServiceServer

	cfg       Config
	log       *slog.Logger
	store     *store.Store
	agents    *agents
	analyses  chan struct{} // a slot each
	memory    *analysis.Memory
	health    *health.Server
	stopping  context.Context // ends when Serve is asked to return
	stop      context.CancelFunc
	active    sync.WaitGroup // runs
	activeMu  sync.Mutex     // orders Add and the last Wait
	noMoreRun bool
}

// New makes a server, and marks runs that an earlier process left as
// interrupted.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Store == nil {
		return nil, errors.New("make server: it needs a store")
	}
	if cfg.Analyze == nil {
		cfg.Analyze = analysis.Analyze
	}
	if cfg.AgentGrace <= 0 {
		cfg.AgentGrace = defaultGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := cfg.Store.InterruptRuns(ctx); err != nil {
		return nil, fmt.Errorf("make server: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, store: cfg.Store,
		analyses: make(chan struct{}, parallelAnalyses), memory: analysis.NewMemory(factsMemory), health: health.NewServer(),
	}
	s.stopping, s.stop = context.WithCancel(context.Background())
	s.agents = newAgents(cfg.AgentGrace, cfg.Logger)
	return s, nil
}

// Listener is one way in.
type Listener struct {
	net.Listener
	// TLS is how callers show who they are. Without it everybody who reaches
	// the listener is the local administrator, as behind a Unix socket or in
	// the same process.
	TLS *tls.Config
}

// Serve answers on all listeners until ctx ends. It returns when every run
// has been ended and removed from its node, as far as nodes answer. It may be
// called once.
func (s *Server) Serve(ctx context.Context, listeners ...Listener) error {
	var servers []*grpc.Server
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		srv := s.grpcServer(l.TLS)
		servers = append(servers, srv)
		g.Go(func() error {
			if err := srv.Serve(l); err != nil {
				return fmt.Errorf("serve %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		s.shutDown(servers)
		return nil
	})
	return g.Wait()
}

// grpcServer is the API behind one listener.
func (s *Server) grpcServer(config *tls.Config) *grpc.Server {
	creds := insecure.NewCredentials()
	age := keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}
	if config != nil {
		creds = credentials.NewTLS(config)
		age.MaxConnectionAge, age.MaxConnectionAgeGrace = connectionAge, 10*time.Minute
	}
	srv := grpc.NewServer(append(s.interceptors(gate{local: config == nil, access: methodAccess()}),
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(age),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)...)
	if s.cfg.CA != nil {
		confinev1.RegisterEnrollServiceServer(srv, s)
	}
	confinev1.RegisterAgentServiceServer(srv, s)
	confinev1.RegisterOperatorServiceServer(srv, s)
	healthpb.RegisterHealthServer(srv, s.health)
	reflection.Register(srv)
	return srv
}

// interceptors stand before every handler: callers are checked, and a handler
// that panics, a mistake of ours, fails its own call alone.
func (s *Server) interceptors(g gate) []grpc.ServerOption {
	caught := recovery.WithRecoveryHandlerContext(func(ctx context.Context, p any) error {
		method, _ := grpc.Method(ctx)
		s.log.Error("a call failed by a mistake of the server; please report it", "method", method, "panic", p, "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "the server made a mistake; its log says where")
	})
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(caught), g.unary),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(caught), g.stream),
	}
}

// shutDown ends runs first, because their nodes have to be told.
func (s *Server) shutDown(servers []*grpc.Server) {
	s.health.Shutdown()
	s.activeMu.Lock()
	s.noMoreRun = true
	s.activeMu.Unlock()
	s.stop()
	s.active.Wait()
	s.agents.close(errStopping)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, srv := range servers {
			srv.GracefulStop()
		}
	}()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		for _, srv := range servers {
			srv.Stop()
		}
		<-done
	}
}
