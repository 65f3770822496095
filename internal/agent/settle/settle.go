// Package settle decides when a container that is being watched has shown what
// it does: it became ready, its workload has run, and no new file was executed
// or mapped for a while. There is no fixed sleep.
package settle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/confinehq/confine/internal/agent/netns"
)

// Kind says what settled a container; it is what a proof compares.
type Kind string

// Kinds of settling.
const (
	// Port: an exposed TCP port answered.
	Port Kind = "port"
	// Listen: nothing is exposed, and a listening socket appeared.
	Listen Kind = "listen"
	// Health: the image's healthcheck succeeded.
	Health Kind = "healthcheck"
	// Workload: the workload has finished.
	Workload Kind = "workload"
	// Exited: the first process ended.
	Exited Kind = "exited"
	// Quiet: nothing tells readiness, and nothing new happened for long.
	Quiet Kind = "quiet"
	// Limit: the time was up.
	Limit Kind = "limit"
)

const (
	tick = 25 * time.Millisecond
	// strayPort is how long a listening socket that isn't exposed is left
	// aside while no exposed port answers.
	strayPort = 3 * time.Second
	// deafQuiet is the quiet time, as a multiple of the configured one, for
	// containers that never listen and state no healthcheck.
	deafQuiet = 3
)

// Container is what settling looks at.
type Container struct {
	// PID of the first process.
	PID int
	// Net is its network namespace, nil when readiness doesn't count (attach).
	Net *netns.Namespace
	// Ports are the exposed TCP ports.
	Ports []uint16
	// Health runs the image's healthcheck; nil when there is none.
	Health func(context.Context) error
	// HealthInterval is the time between attempts.
	HealthInterval time.Duration
	// Workload is run once after readiness; nil when there is none.
	Workload func(context.Context) error
	// Exited is closed when the first process has ended; nil blocks for ever.
	Exited <-chan struct{}
	// LastNew is the time of the last new file.
	LastNew func() time.Time
}

// Times bound the settling.
type Times struct {
	// Limit of all of it.
	Limit time.Duration
	// Quiet is how long no new file may appear after readiness.
	Quiet time.Duration
}

// Outcome is how a container settled.
type Outcome struct {
	Kind Kind
	// Text is Run.settled_by.
	Text string
	// WorkloadErr is why the workload failed.
	WorkloadErr error
}

// Wait returns when the container has settled; its error is ctx's.
func Wait(ctx context.Context, c Container, t Times) (Outcome, error) {
	limit, cancel := context.WithTimeout(ctx, t.Limit)
	defer cancel()
	out, err := wait(limit, c, t)
	switch {
	case err == nil:
		return out, nil
	case ctx.Err() != nil:
		return out, ctx.Err()
	case errors.Is(err, errExited):
		return Outcome{Kind: Exited, Text: string(Exited), WorkloadErr: out.WorkloadErr}, nil
	case limit.Err() != nil:
		return Outcome{Kind: Limit, Text: string(Limit), WorkloadErr: out.WorkloadErr}, nil
	default:
		return out, err
	}
}

var errExited = errors.New("container ended")

func wait(ctx context.Context, c Container, t Times) (Outcome, error) {
	out, err := ready(ctx, c, t)
	if err != nil {
		return out, err
	}
	since := time.Now()
	if out.Kind == Quiet && c.Net != nil {
		since = time.Time{} // its quiet has been long enough
	}
	if c.Workload != nil {
		out.WorkloadErr = c.Workload(ctx)
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		since = time.Now()
		out.Kind, out.Text = Workload, "workload"
	}
	if err := quiet(ctx, c, since, t.Quiet); err != nil {
		return out, err
	}
	out.Text += fmt.Sprintf(", quiet for %s", t.Quiet)
	return out, nil
}

// ready returns when the container is ready to serve, as far as can be told.
func ready(ctx context.Context, c Container, t Times) (Outcome, error) {
	if c.Net == nil {
		return Outcome{Kind: Quiet, Text: "attached"}, nil
	}
	if c.Health != nil {
		return Outcome{Kind: Health, Text: string(Health)}, healthy(ctx, c)
	}
	began := time.Now()
	var firstStray time.Time
	for {
		listening := Listening(c.PID)
		for _, p := range c.Ports {
			if slices.Contains(listening, p) && c.Net.Answers(ctx, p) {
				return Outcome{Kind: Port, Text: fmt.Sprintf("port %d answered", p)}, nil
			}
		}
		if len(listening) > 0 {
			if firstStray.IsZero() {
				firstStray = time.Now()
			}
			if len(c.Ports) == 0 || time.Since(firstStray) > strayPort {
				return Outcome{Kind: Listen, Text: fmt.Sprintf("port %d listens", listening[0])}, nil
			}
		}
		if len(c.Ports) == 0 && len(listening) == 0 {
			idle := later(began, c.LastNew())
			if time.Since(idle) >= deafQuiet*t.Quiet {
				return Outcome{Kind: Quiet, Text: "no port to wait for"}, nil
			}
		}
		if err := pause(ctx, c, tick); err != nil {
			return Outcome{}, err
		}
	}
}

func healthy(ctx context.Context, c Container) error {
	for {
		if err := c.Health(ctx); err == nil {
			return nil
		}
		if err := pause(ctx, c, c.HealthInterval); err != nil {
			return err
		}
	}
}

// quiet returns when no new file has appeared for d, counted from since.
func quiet(ctx context.Context, c Container, since time.Time, d time.Duration) error {
	for {
		if time.Since(later(since, c.LastNew())) >= d {
			return nil
		}
		if err := pause(ctx, c, tick); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, c Container, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-c.Exited:
		return errExited
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
