package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// defaultMonitor is used when a run names none.
const defaultMonitor = "ebpf"

// monitors keeps one process per monitor plugin and starts it again when it
// has died.
type monitors struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex
	clients map[string]*running // by name
}

// running is a plugin that works on this node.
type running struct {
	*monitor.Client
	can *confinev1.Capabilities
	// limits is what it can't see, a sentence each.
	limits []string
}

func newMonitors(dir string, log *slog.Logger) *monitors {
	return &monitors{dir: dir, log: log, clients: map[string]*running{}}
}

// can says what a monitor sees, which it starts when it doesn't run yet.
func (m *monitors) can(ctx context.Context, name string) (*confinev1.Capabilities, error) {
	c, err := m.get(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.can, nil
}

// get returns a running plugin.
func (m *monitors) get(ctx context.Context, name string) (*running, error) {
	if name == "" {
		name = defaultMonitor
	}
	plugins, err := monitor.Find(m.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	path := ""
	for _, p := range plugins {
		names = append(names, p.Name)
		if p.Name == name {
			path = p.Path
		}
	}
	if path == "" {
		return nil, fault.New(codes.FailedPrecondition, "monitor %q is not installed in %s (found: %s); install it or name another with --monitor", name, m.dir, strings.Join(names, ", "))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.clients[name]; c != nil {
		select {
		case <-c.Done():
			m.log.Warn("monitor ended, starting it again", "monitor", name, "error", c.Err())
			c.Close()
			delete(m.clients, name)
		default:
			return c, nil
		}
	}
	c, err := monitor.Start(ctx, monitor.HostConfig{Path: path, Logger: m.log.With("monitor", name)})
	if err != nil {
		return nil, fault.New(codes.FailedPrecondition, "monitor %s does not start: %w", name, err)
	}
	about, err := c.Describe(ctx)
	if err != nil {
		c.Close()
		return nil, fault.New(codes.FailedPrecondition, "monitor %s cannot work on this node: %w", name, err)
	}
	m.clients[name] = &running{Client: c, can: about.GetCapabilities(), limits: about.GetLimits()}
	return m.clients[name], nil
}

func (m *monitors) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, c := range m.clients {
		c.Close()
		delete(m.clients, name)
	}
}

// errMonitorDied ends a run whose monitor went away under it.
type errMonitorDied struct{ err error }

func (e *errMonitorDied) Error() string {
	return fmt.Sprintf("the monitor died during the run: %v", e.err)
}
func (e *errMonitorDied) Unwrap() error { return e.err }
