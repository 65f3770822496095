package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/confinehq/confine/pkg/monitor"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Bounds of what is said about the monitors of a node.
const (
	// maxDescribed is how many monitors are started to be described.
	maxDescribed = 64
	// describeTime bounds the start of one monitor and its answer.
	describeTime = 50 * time.Second
	// maxSentences and maxSentence bound what one monitor may say, the latter
	// in bytes.
	maxSentences = 16
	maxSentence  = 1024
)

// describeMonitors answers a command of the server. The monitors are started
// for it and ended again; those at work aren't disturbed.
func (a *Agent) describeMonitors(ctx context.Context, id string, c *confinev1.DescribeMonitors, g *errgroup.Group) {
	g.Go(func() error {
		all, err := a.monitors.describe(ctx)
		reply := &confinev1.MonitorsReply{RequestId: c.GetRequestId(), Monitors: all}
		if err != nil {
			reply.Problem = err.Error()
		}
		if ctx.Err() == nil {
			a.say(ctx, id, &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_MonitorsReply{MonitorsReply: reply}})
		}
		return nil
	})
}

// describe starts every monitor, side by side, and says which of them work.
// Who asks meanwhile gets the same answer. The error says why some may be
// missing.
func (m *monitors) describe(ctx context.Context) ([]*confinev1.MonitorStatus, error) {
	all, err, _ := m.describing.Do("", func() (any, error) {
		listed, err := m.listed()
		if len(listed) > maxDescribed {
			err = fmt.Errorf("%s holds %d monitors, of which the first %d are listed", m.dir, len(listed), maxDescribed)
			listed = listed[:maxDescribed]
		}
		out := make([]*confinev1.MonitorStatus, len(listed))
		var wg sync.WaitGroup
		for i, p := range listed {
			wg.Go(func() { out[i] = m.status(ctx, p) })
		}
		wg.Wait()
		return out, err
	})
	return all.([]*confinev1.MonitorStatus), err
}

// listed lists the monitors that are installed, and those of which the
// configuration alone speaks: their Path is empty.
func (m *monitors) listed() ([]monitor.Plugin, error) {
	plugins, err := m.installed()
	for name := range maps.Keys(m.config) {
		if !slices.ContainsFunc(plugins, func(p monitor.Plugin) bool { return p.Name == name }) {
			plugins = append(plugins, monitor.Plugin{Name: name})
		}
	}
	slices.SortFunc(plugins, func(a, b monitor.Plugin) int { return cmp.Compare(a.Name, b.Name) })
	return plugins, err
}

// status starts a monitor, asks it what it can see, and ends it.
func (m *monitors) status(ctx context.Context, p monitor.Plugin) *confinev1.MonitorStatus {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, describeTime)
	defer cancel()
	c := m.config[p.Name]
	limits := c.Limits.OrDefault()
	st := &confinev1.MonitorStatus{
		Name: p.Name, Path: p.Path, Default: p.Name == defaultMonitor, Pinned: c.SHA256 != "",
		Bounds: &confinev1.MonitorBounds{
			Memory: limits.Memory, Files: limits.Files, Processes: limits.Processes, CpuWeight: limits.CPUWeight,
		},
		Options: slices.Sorted(maps.Keys(c.Options)),
	}
	if p.Path == "" {
		st.Problem = fmt.Sprintf("the agent's configuration speaks of it, but %s holds no such monitor: install it there, or give its path: in the configuration", m.dir)
		return st
	}
	if err := m.ask(ctx, p, st); err != nil {
		st.Problem = shortened(err.Error())
	}
	st.Works = st.Problem == ""
	st.Seconds = time.Since(began).Seconds()
	return st
}

// ask fills in what only a start of the monitor shows. Its error is a sentence
// that says what to do.
func (m *monitors) ask(ctx context.Context, p monitor.Plugin, st *confinev1.MonitorStatus) error {
	c, err := m.start(ctx, p)
	if err != nil {
		return startProblem(err)
	}
	defer c.Close()
	st.Contract, st.Sha256 = uint32(c.Version()), c.SHA256()
	stated, given := c.Capabilities()
	st.Needs, st.Gets = shortenedAll(stated), shortenedAll(given)
	about, err := c.Describe(ctx)
	if err != nil {
		return describeProblem(c.Name(), err)
	}
	st.Version, st.Sees = shortened(about.GetVersion()), about.GetCapabilities()
	st.Mechanisms, st.Limits = shortenedAll(about.GetMechanisms()), shortenedAll(about.GetLimits())
	if !st.GetSees().GetExec() && !st.GetSees().GetReplay() {
		return errors.New("it sees no executions and replays no traces, so that nothing can be done with it: update it, or use another")
	}
	return nil
}

// startProblem is why a monitor didn't come to its service.
func startProblem(err error) error {
	why := err
	if inner := errors.Unwrap(err); inner != nil {
		why = inner // without the name
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: install it there, or correct its path: in the agent's configuration", why)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("it did not come up within %v; see the agent's log (--log-level debug)", describeTime)
	}
	return why
}

// describeProblem is why a monitor that came up can't work on this node.
func describeProblem(name string, err error) error {
	if errors.Is(err, monitor.ErrEnded) {
		text := strings.TrimPrefix(err.Error(), "monitor "+name+" ")
		return fmt.Errorf("it %s when it was asked what it can see; see the agent's log (--log-level debug), update it, or use another", text)
	}
	if inner := errors.Unwrap(err); inner != nil {
		return inner // without the name
	}
	return err
}

// shortened cuts what a monitor says.
func shortened(text string) string {
	if len(text) <= maxSentence {
		return text
	}
	return strings.ToValidUTF8(text[:maxSentence], "") + "..."
}

func shortenedAll(texts []string) []string {
	var out []string
	for _, t := range texts[:min(len(texts), maxSentences)] {
		out = append(out, shortened(t))
	}
	return out
}
