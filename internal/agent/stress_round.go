package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/netns"
	"github.com/confinehq/confine/internal/agent/runner"
	"github.com/confinehq/confine/internal/agent/settle"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// round runs one container under the monitor from its first instruction to its
// end, and removes it.
func (s *stressTest) round(ctx context.Context, index uint32) (_ *confinev1.StressRound, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.roundLimit())
	defer cancel()
	storms, err := s.prepareStorms(index)
	if err != nil {
		return nil, err
	}
	defer storms.close()
	c, err := s.agent.runner.Create(ctx, runner.Spec{
		RunID: s.id, Suffix: fmt.Sprintf("-%d", index), Namespace: s.ask.GetNamespace(), Image: s.image,
		Args: s.ask.GetArgs(), Env: s.ask.GetEnv(), Mounts: storms.mounts(),
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.discard(ctx, c)) }()
	client, err := s.agent.monitors.get(ctx, s.monitorName())
	if err != nil {
		return nil, err
	}
	watch, err := client.Watch(context.WithoutCancel(ctx), stressScope(c))
	if status.Code(err) == codes.FailedPrecondition {
		return nil, &errCannotWatch{err}
	}
	if err != nil {
		return nil, fmt.Errorf("watch the container: %w", err)
	}
	seen := newTally(storms.token())
	events := newTap(watch, seen.handle)
	said := &confinev1.StressRound{Index: index, Container: c.ID}
	if err := s.play(ctx, c, events, storms, seen, said); err != nil {
		events.abandon()
		return nil, err
	}
	snap, err := events.stop(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the last events: %w", err)
	}
	seen.fill(said, snap, s.comparesMappings())
	said.Storm = storms.check(seen)
	said.Seconds = time.Since(began).Seconds()
	return said, nil
}

// roundLimit bounds everything about one round.
func (s *stressTest) roundLimit() time.Duration {
	return s.times().Limit + s.stormTime() + stopGrace + 2*time.Minute
}

// stressScope is that of any run, with every event.
func stressScope(c *runner.Container) *confinev1.Scope {
	scope := scopeOf(c.PID(), c.ID)
	scope.EveryEvent = true
	return scope
}

// discard removes the round's container, whatever became of it.
func (s *stressTest) discard(ctx context.Context, c *runner.Container) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	c.Kill()
	defer c.Close()
	return c.Remove(ctx)
}

// play starts the container and the storms, lets it settle and them end, and
// stops it. The storm on the node begins first.
func (s *stressTest) play(ctx context.Context, c *runner.Container, events tap, storms *storms, seen *tally, said *confinev1.StressRound) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go events.died(ctx, cancel)
	if err := storms.onNode(ctx); err != nil {
		return cause(ctx, err)
	}
	if err := c.Start(ctx, s.image); err != nil {
		return cause(ctx, err)
	}
	inside := make(chan error, 1)
	go func() { inside <- storms.inContainer(ctx, c) }()
	outcome, err := s.settleRound(ctx, c, seen)
	if err != nil {
		cancel(err)
		<-inside
		return cause(ctx, err)
	}
	said.SettledBy = outcome.Text
	if outcome.Kind == settle.Exited {
		said.SettledBy = fmt.Sprintf("%s with status %d", outcome.Text, c.Exit().Code)
	}
	if err := <-inside; err != nil {
		return cause(ctx, err)
	}
	if err := storms.nodeEnds(); err != nil {
		return cause(ctx, err)
	}
	if outcome.Kind != settle.Exited {
		if _, err := c.Stop(ctx, s.image.StopSignal(), stopGrace); err != nil {
			return cause(ctx, err)
		}
	}
	return cause(ctx, c.Exit().Err)
}

// settleRound is settle without a workload.
func (s *stressTest) settleRound(ctx context.Context, c *runner.Container, seen *tally) (settle.Outcome, error) {
	ns, err := netns.Of(c.PID())
	if err != nil {
		select { // it has ended already
		case <-c.Exited():
			return settle.Outcome{Kind: settle.Exited, Text: string(settle.Exited)}, nil
		case <-ctx.Done():
			return settle.Outcome{}, ctx.Err()
		}
	}
	defer ns.Close()
	target := settle.Container{
		PID: c.PID(), Net: ns, Ports: s.image.Config.TCPPorts(), Exited: c.Exited(), LastNew: seen.newest,
	}
	if args := s.image.Config.Healthcheck.Args(); args != nil {
		target.Health, target.HealthInterval = health(c, s.image.Config.Healthcheck, args, nil)
	}
	out, err := settle.Wait(ctx, target, s.times())
	if err == nil && out.Kind == settle.Limit {
		err = fault.New(codes.DeadlineExceeded, "the container was not ready and quiet after %v; give it more with --timeout", s.times().Limit)
	}
	return out, err
}
