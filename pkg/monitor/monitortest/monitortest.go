// Package monitortest checks that a monitor keeps the contract of package
// monitor. Whoever writes one calls Run from a test of their own:
//
//	func TestConformance(t *testing.T) {
//		monitortest.Run(t, monitortest.Config{Path: "bin/confine-monitor-mine"})
//	}
//
// The suite starts the executable as an agent does, makes processes in cgroups
// and namespaces of their own, as containers are, and compares what the monitor
// tells with what they did. It asks for nothing that the monitor doesn't claim
// in its capabilities, and for everything that it does. It needs root.
package monitortest

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// limit ends a test that hangs; nothing is measured with it.
const limit = time.Minute

// Config says what to test.
type Config struct {
	// Path of the monitor's executable.
	Path string
	// Env and Options are those of monitor.HostConfig.
	Env     []string
	Options map[string]string
	// Replay is true for a monitor that replays events recorded elsewhere:
	// what happens on this machine isn't seen, and every scope takes them all.
	Replay bool
	// Capture is a trace for a monitor that replays those (its capability
	// replay): what happens on this machine isn't asked for then.
	Capture string
	// ShortLived is true for a monitor that says that it can miss short-lived
	// executions uncounted, but none that the first thread of a 64-bit program
	// makes by execve: these are tested all the same.
	ShortLived bool
}

// Run checks a monitor; what it claims decides about the subtests that run. A
// monitor that can't work on this host fails.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("monitors are started as root")
	}
	cfg.Replay = cfg.Replay || cfg.Capture != ""
	s := &suite{cfg: cfg}
	d := s.describe(t)
	s.can = d.GetCapabilities()
	t.Run("describe", s.described(d))
	t.Run("unknown watch", s.unknownWatch)
	t.Run("empty scope", s.emptyScope)
	t.Run("counts", s.counts)
	t.Run("cancel", s.cancel)
	t.Run("crash", s.crash)
	t.Run("close", s.closes)
	if cfg.Replay {
		return
	}
	for _, c := range s.cases() {
		if !c.claimed {
			continue
		}
		t.Run(c.name, c.run)
	}
}

// suite is the tests of one monitor.
type suite struct {
	cfg Config
	can *confinev1.Capabilities
}

// test is one that runs when the monitor claims what it asks for.
type test struct {
	name    string
	claimed bool
	run     func(*testing.T)
}

func (s *suite) cases() []test {
	exec := s.can.GetExec()
	all := exec && (s.cfg.ShortLived || !s.can.GetMissesShortLived())
	return []test{
		{"program", exec, s.program},
		{"static program", exec, s.static},
		{"script", exec, s.script},
		{"memory file", exec, s.memoryFile},
		{"unlinked program", exec, s.unlinked},
		{"descendants", exec, s.descendants},
		{"outside", exec, s.outside},
		{"two scopes", exec, s.twoScopes},
		{"mapping", s.can.GetExecMapping(), s.mapping},
		{"exit", exec && s.can.GetExit(), s.exit},
		{"recorded calls", s.can.GetRecordedSyscalls(), s.recorded},
		{"short-lived", all, s.storm(false, false)},
		{"short-lived, each", all, s.storm(true, false)},
		{"monitor held up", all, s.storm(true, true)},
	}
}

func (s *suite) start(t *testing.T) *monitor.Client {
	t.Helper()
	return Start(t, s.cfg)
}

// Start starts a monitor as an agent does, until the end of the test.
func Start(t *testing.T, cfg Config) *monitor.Client {
	t.Helper()
	var logs bytes.Buffer
	c, err := monitor.Start(t.Context(), monitor.HostConfig{
		Path: cfg.Path, Env: cfg.Env, Options: cfg.Options,
		Logger: slog.New(slog.NewTextHandler(&logs, nil)),
	})
	if err != nil {
		t.Fatalf("start: %v\n%s", err, logs.String())
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() && logs.Len() > 0 {
			t.Logf("the monitor's log:\n%s", logs.String())
		}
	})
	return c
}

func (s *suite) describe(t *testing.T) *confinev1.DescribeResponse {
	t.Helper()
	c := s.start(t)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	d, err := c.Describe(ctx)
	if err != nil {
		t.Fatalf("it can't work on this host: %v", err)
	}
	return d
}
