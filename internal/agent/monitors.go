package agent

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
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
	// AnswerTime bounds each of its answers; 20 seconds when it is 0.
	AnswerTime time.Duration
}

// monitors keeps one process per monitor plugin and starts it again when it
// has died.
type monitors struct {
	dir    string
	config map[string]MonitorConfig // by name
	log    *slog.Logger

	mu    sync.Mutex
	slots map[string]*slot // by name

	describing singleflight.Group // of one key
}

// slot is the place of one monitor: starting it, or waiting for one that hangs,
// keeps no other from its work.
type slot struct {
	mu     sync.Mutex
	client *running // nil when it doesn't run
}

// running is a plugin that works on this node.
type running struct {
	*monitor.Client
	can *confinev1.Capabilities
	// limits is what it can't see, a sentence each.
	limits []string
}

func newMonitors(dir string, config map[string]MonitorConfig, log *slog.Logger) *monitors {
	return &monitors{dir: dir, config: config, log: log, slots: map[string]*slot{}}
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

// find returns the monitor of a name, or of the path of one that is installed
// or configured. Others are refused: an operator may run containers on this
// node, not any file of it as root.
func (m *monitors) find(name string) (monitor.Plugin, error) {
	plugins, err := m.installed()
	if err != nil {
		return monitor.Plugin{}, err
	}
	var names []string
	for _, p := range plugins {
		if p.Name == name || filepath.Clean(p.Path) == filepath.Clean(name) {
			return p, nil
		}
		names = append(names, p.Name)
	}
	if strings.Contains(name, "/") {
		return monitor.Plugin{}, fault.New(codes.FailedPrecondition, "monitor %s is not one of this node's (%s), and only those are started: allow it in its agent's configuration (monitors: NAME: path: %s), or put it into %s", name, strings.Join(names, ", "), name, m.dir)
	}
	return monitor.Plugin{}, fault.New(codes.FailedPrecondition, "monitor %q is not installed in %s (found: %s); install it or name another with --monitor", name, m.dir, strings.Join(names, ", "))
}

// start starts a plugin as it is configured.
func (m *monitors) start(ctx context.Context, p monitor.Plugin) (*monitor.Client, error) {
	c := m.config[p.Name]
	return monitor.Start(ctx, monitor.HostConfig{
		Path: p.Path, SHA256: c.SHA256, Capabilities: c.Capabilities, Limits: c.Limits, Options: c.Options, AnswerTime: c.AnswerTime,
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
	s := m.slot(plugin.Name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.client; c != nil {
		select {
		case <-c.Done():
			m.log.Warn("monitor ended, starting it again", "monitor", plugin.Name, "error", c.Err())
			c.Close()
			s.client = nil
		default:
			return c, nil
		}
	}
	s.client, err = m.begin(ctx, plugin)
	return s.client, err
}

func (m *monitors) slot(name string) *slot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.slots[name]
	if s == nil {
		s = &slot{}
		m.slots[name] = s
	}
	return s
}

// begin starts a plugin that can work on this node.
func (m *monitors) begin(ctx context.Context, p monitor.Plugin) (*running, error) {
	c, err := m.start(ctx, p)
	if err != nil {
		return nil, fault.New(codes.FailedPrecondition, "monitor %s does not start: %w", p.Name, startProblem(err))
	}
	about, err := c.Describe(ctx)
	if err != nil {
		c.Close()
		return nil, fault.New(codes.FailedPrecondition, "monitor %s cannot work on this node: %w", p.Name, describeProblem(c.Name(), err))
	}
	return &running{Client: c, can: about.GetCapabilities(), limits: about.GetLimits()}, nil
}

// close ends all of them. Nobody may begin another one any more.
func (m *monitors) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.slots {
		s.mu.Lock()
		if s.client != nil {
			s.client.Close()
			s.client = nil
		}
		s.mu.Unlock()
	}
}

// errMonitorDied ends a run whose monitor went away under it.
type errMonitorDied struct{ err error }

func (e *errMonitorDied) Error() string {
	return fmt.Sprintf("the monitor died during the run: %v", e.err)
}
func (e *errMonitorDied) Unwrap() error { return e.err }
