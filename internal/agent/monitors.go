package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// defaultMonitor is used when a run names none.
const defaultMonitor = "ebpf"

// MonitorConfig says how one monitor is started.
type MonitorConfig struct {
	// Path of the executable; that in the folder of plugins when empty.
	Path string
	// SHA256 is the hex digest that the executable must have, when it is set.
	SHA256 string
	// Capabilities of Linux, by name, that it may have of those that it states
	// to need; all of these when nil.
	Capabilities []string
	Limits       monitor.Limits
	// Options of the backend, by name.
	Options map[string]string
}

// monitors keeps one process per monitor plugin and starts it again when it
// has died.
type monitors struct {
	dir    string
	config map[string]MonitorConfig // by name
	log    *slog.Logger

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

func newMonitors(dir string, config map[string]MonitorConfig, log *slog.Logger) *monitors {
	return &monitors{dir: dir, config: config, log: log, clients: map[string]*running{}}
}

// installed lists the monitors of this node, sorted by name.
func (m *monitors) installed() ([]monitor.Plugin, error) {
	plugins, err := monitor.Find(m.dir)
	if err != nil {
		return nil, err
	}
	for name, c := range m.config {
		if c.Path == "" {
			continue
		}
		plugins = slices.DeleteFunc(plugins, func(p monitor.Plugin) bool { return p.Name == name })
		plugins = append(plugins, monitor.Plugin{Name: name, Path: c.Path})
	}
	slices.SortFunc(plugins, func(a, b monitor.Plugin) int { return strings.Compare(a.Name, b.Name) })
	return plugins, nil
}

// find returns the monitor of a name, or of the path of one that is installed:
// what an operator names is started as root.
func (m *monitors) find(name string) (monitor.Plugin, error) {
	plugins, err := m.installed()
	if err != nil {
		return monitor.Plugin{}, err
	}
	var names []string
	for _, p := range plugins {
		if p.Name == name || p.Path == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if strings.Contains(name, "/") {
		return monitor.Plugin{}, fault.New(codes.FailedPrecondition, "monitor %s is not one of this node's (%s): add it to its agent's configuration (monitors: NAME: path:), or put it into %s", name, strings.Join(names, ", "), m.dir)
	}
	return monitor.Plugin{}, fault.New(codes.FailedPrecondition, "monitor %q is not installed in %s (found: %s); install it or name another with --monitor", name, m.dir, strings.Join(names, ", "))
}

// start starts a plugin as it is configured.
func (m *monitors) start(ctx context.Context, p monitor.Plugin) (*monitor.Client, error) {
	c := m.config[p.Name]
	return monitor.Start(ctx, monitor.HostConfig{
		Path: p.Path, SHA256: c.SHA256, Capabilities: c.Capabilities, Limits: c.Limits, Options: c.Options,
		Logger: m.log.With("monitor", p.Name),
	})
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
	plugin, err := m.find(name)
	if err != nil {
		return nil, err
	}
	name = plugin.Name
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
	c, err := m.start(ctx, plugin)
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
