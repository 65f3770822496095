// Package agent is the part of Confine that runs beside containerd on a node:
// it dials the server, and on its command runs images, has them watched by a
// monitor plugin, answers questions about their files, runs them again under a
// profile, and removes every trace.
//
// One stream carries everything (session.go); each run is a state of its own
// (run.go) that outlives a break of the stream.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/confinehq/confine/internal/agent/floor"
	"github.com/confinehq/confine/internal/agent/runner"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of the agent.
const (
	// maxRuns is how many runs may be held at once.
	maxRuns = 32
	// orphanGrace is how long runs are kept while the server can't be reached.
	orphanGrace = 5 * time.Minute
	// cleanupTime bounds one attempt to remove a run.
	cleanupTime = 30 * time.Second
	// cleanupRetry is the time between attempts to remove what could not be
	// removed.
	cleanupRetry = 5 * time.Second
	// stopGrace is how long a container may take to end after its stop signal.
	stopGrace = 10 * time.Second
)

// Config of an agent.
type Config struct {
	// Node is the name that users type.
	Node string
	// Containerd is the path of containerd's socket;
	// /run/containerd/containerd.sock when empty.
	Containerd string
	// Namespace of containerd for runs that name none; "default" when empty.
	Namespace string
	// PluginDir holds the monitors (confine-monitor-NAME).
	PluginDir string
	// Monitors says more about some of them, and where others are, by name.
	Monitors map[string]MonitorConfig
	// StateDir belongs to this agent alone: measured floors and files of runs.
	StateDir string
	// Runtime is the OCI runtime that the floor is measured from when a run
	// doesn't tell; "runc" when empty.
	Runtime string
	// RegistryHosts is a folder of hosts.toml files for pulls;
	// /etc/containerd/certs.d when empty.
	RegistryHosts string
	// PidsLimit bounds the processes and threads of each container that is run;
	// half of what the node can have, at most 32768, when it is 0.
	PidsLimit int64
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
}

// Agent serves one server.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	session  string
	runner   *runner.Runner
	monitors *monitors
	floors   *floor.Store
	out      *outbox

	mu sync.Mutex
	// stopping is true when no run may begin any more.
	stopping bool
	runs     map[string]*run // by run id
	// stale holds what could not be removed: run id to namespace.
	stale map[string]string
}

// New checks the configuration. It doesn't need containerd to be up.
func New(cfg Config) (*Agent, error) {
	if cfg.Node == "" {
		return nil, errors.New("configure agent: the node has no name; give one with --node")
	}
	if cfg.StateDir == "" {
		return nil, errors.New("configure agent: no state folder; give one with --data")
	}
	if cfg.Containerd == "" {
		cfg.Containerd = "/run/containerd/containerd.sock"
	}
	if cfg.RegistryHosts == "" {
		cfg.RegistryHosts = "/etc/containerd/certs.d"
	}
	if cfg.Runtime == "" {
		cfg.Runtime = "runc"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("create state folder: %w", err)
	}
	r, err := runner.New(runner.Config{
		Socket: cfg.Containerd, Namespace: cfg.Namespace, Node: cfg.Node,
		StateDir: cfg.StateDir, RegistryHosts: cfg.RegistryHosts, PidsLimit: cfg.PidsLimit,
	})
	if err != nil {
		return nil, err
	}
	return &Agent{
		cfg: cfg, log: cfg.Logger, session: uuid.NewString(), runner: r,
		monitors: newMonitors(cfg.PluginDir, cfg.Monitors, cfg.Logger),
		floors:   floor.NewStore(filepath.Join(cfg.StateDir, "floors")),
		out:      newOutbox(), runs: map[string]*run{}, stale: map[string]string{},
	}, nil
}

// Run serves the server behind conn until ctx ends, over as many streams as it
// takes. When it returns, every run has been removed from the node, as far as
// containerd answers. It may be called once.
func (a *Agent) Run(ctx context.Context, conn grpc.ClientConnInterface) error {
	defer a.runner.Close()
	defer a.monitors.close()
	if err := floor.Clean(ctx, a.cfg.Runtime, a.measureDir()); err != nil {
		a.log.Warn("leftovers of an earlier agent", "error", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	client := confinev1.NewAgentServiceClient(conn)
	g.Go(func() error {
		<-ctx.Done()
		a.mu.Lock()
		defer a.mu.Unlock()
		a.stopping = true
		a.endRuns("the agent stops")
		return nil
	})
	g.Go(func() error { return a.sweep(ctx) })
	g.Go(func() error { return a.connect(ctx, client, g) })
	err := g.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

// sweep removes what earlier agents left, then what this one could not remove,
// until ctx ends.
func (a *Agent) sweep(ctx context.Context) error {
	swept := false
	ticker := time.NewTicker(cleanupRetry)
	defer ticker.Stop()
	for {
		if !swept {
			swept = a.sweepOnce(ctx)
		}
		a.removeStale(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (a *Agent) sweepOnce(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	removed, err := a.runner.Sweep(ctx, a.holds)
	for _, id := range removed {
		a.log.Info("removed leftovers of an earlier agent", "run", id)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("cannot look for leftovers yet", "error", err)
	}
	return err == nil
}

// holds reports whether a run is this agent's own.
func (a *Agent) holds(runID string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs[runID] != nil
}

func (a *Agent) removeStale(ctx context.Context) {
	a.mu.Lock()
	stale := make(map[string]string, len(a.stale))
	for id, ns := range a.stale {
		stale[id] = ns
	}
	a.mu.Unlock()
	for id, ns := range stale {
		attempt, cancel := context.WithTimeout(ctx, cleanupTime)
		err := a.runner.Remove(attempt, ns, id)
		cancel()
		if err != nil {
			continue
		}
		a.log.Info("removed what a run had left", "run", id)
		a.mu.Lock()
		delete(a.stale, id)
		a.mu.Unlock()
	}
}
