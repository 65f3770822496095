package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/confinehq/confine/internal/agent/fault"
	"github.com/confinehq/confine/internal/agent/runner"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of a stress test.
const (
	maxStressRounds   = 10_000
	maxStressParallel = 32
	maxStormTime      = 10 * time.Minute
	stressQuiet       = 500 * time.Millisecond
	stressLimit       = 30 * time.Second
	// stressHopeless is how many rounds may fail before one succeeds.
	stressHopeless = 3
)

// stressTest is a run whose containers are rounds.
type stressTest struct {
	*run
	ask   *confinev1.StressSpec
	image *runner.Image
	// sees is what the monitor can.
	sees *confinev1.Capabilities
	// limits is what the monitor says that it can't see.
	limits []string

	mu           sync.Mutex
	done, failed int
}

// stressSpec is a stress test as a run's spec.
func stressSpec(s *confinev1.StressSpec) *confinev1.RunSpec {
	spec := &confinev1.RunSpec{
		Image: s.GetImage(), Namespace: s.GetNamespace(), Monitor: s.GetMonitor(), Args: s.GetArgs(), Env: s.GetEnv(),
		Quiet: durationpb.New(stressQuiet), Timeout: durationpb.New(stressLimit),
	}
	if d := s.GetQuiet().AsDuration(); d > 0 {
		spec.Quiet = durationpb.New(d)
	}
	if d := s.GetTimeout().AsDuration(); d > 0 {
		spec.Timeout = durationpb.New(d)
	}
	return spec
}

// stress carries out a stress test.
func (r *run) stress(ctx context.Context, ask *confinev1.StressSpec) {
	if err := r.stressRounds(ctx, ask); err != nil {
		r.fail(err)
	}
}

func checkStress(ask *confinev1.StressSpec) error {
	switch {
	case ask.GetCount() < 1 || ask.GetCount() > maxStressRounds:
		return fault.New(codes.InvalidArgument, "%d rounds: want 1 to %d", ask.GetCount(), maxStressRounds)
	case ask.GetParallel() > maxStressParallel:
		return fault.New(codes.InvalidArgument, "%d containers at once: want %d at most", ask.GetParallel(), maxStressParallel)
	case ask.GetStorm().GetTime().AsDuration() > maxStormTime:
		return fault.New(codes.InvalidArgument, "a storm of %v: want %v at most", ask.GetStorm().GetTime().AsDuration(), maxStormTime)
	}
	return nil
}

func (r *run) stressRounds(ctx context.Context, ask *confinev1.StressSpec) error {
	if err := checkStress(ask); err != nil {
		return fault.Stage("image", err)
	}
	client, err := r.agent.monitors.get(ctx, r.monitorName())
	if err != nil {
		return fault.Stage("image", err)
	}
	about, err := client.Describe(ctx)
	if err != nil {
		return fault.Stage("image", fault.New(codes.FailedPrecondition, "monitor %s cannot work on this node: %w", r.monitorName(), err))
	}
	r.progress("image", false, 0, 0, "resolve %s", ask.GetImage())
	image, err := r.agent.runner.Image(ctx, r.id, ask.GetNamespace(), ask.GetImage(), "")
	if err != nil {
		return fault.Stage("image", err)
	}
	r.progress("image", true, 0, 0, "%s %s", image.Name, image.Digest)
	s := &stressTest{run: r, ask: ask, image: image, sees: about.GetCapabilities(), limits: about.GetLimits()}
	if err := s.all(ctx); err != nil {
		return fault.Stage("rounds", err)
	}
	done := s.result()
	done.Image, done.Digest, done.Monitor, done.MonitorVersion = image.Name, image.Digest, r.monitorName(), about.GetVersion()
	r.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_StressDone{StressDone: done}})
	return nil
}

// result says what the monitor's abilities let the test tell.
func (s *stressTest) result() *confinev1.StressDone {
	return &confinev1.StressDone{Limits: s.cannotTell(), MissesUncounted: s.sees.GetMissesShortLived()}
}

// cannotTell says what a test with this monitor can't find out.
func (s *stressTest) cannotTell() []string {
	out := slices.Clone(s.limits)
	switch {
	case !s.sees.GetExecMapping():
		out = append(out, "this monitor sees no mappings, so that rounds are compared by what they executed alone")
	case !s.comparesMappings():
		out = append(out, "mappings that end soon may go unseen by this monitor, so that rounds are compared by what they executed alone")
	}
	return out
}

// comparesMappings is true where the monitor can't miss a mapping unnoticed.
func (s *stressTest) comparesMappings() bool {
	return s.sees.GetExecMapping() && !s.sees.GetMissesShortMappings()
}

// parallel is how many rounds are made at once.
func (s *stressTest) parallel() int { return int(max(1, s.ask.GetParallel())) }

// all makes every round, and says what each showed.
func (s *stressTest) all(ctx context.Context) error {
	s.progress("rounds", false, 0, int(s.ask.GetCount()), "")
	g, rounds := errgroup.WithContext(ctx)
	g.SetLimit(s.parallel())
	for i := uint32(1); i <= s.ask.GetCount() && rounds.Err() == nil; i++ {
		g.Go(func() error { return s.one(rounds, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.progress("rounds", true, s.done, int(s.ask.GetCount()), "%d done, %d failed", s.done, s.failed)
	return ctx.Err()
}

// one makes one round. Its error is one that ends the test.
func (s *stressTest) one(ctx context.Context, index uint32) error {
	said, err := s.round(ctx, index)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		s.agent.log.Warn("round of a stress test failed", "run", s.id, "round", index, "error", err)
		said = &confinev1.StressRound{Index: index, Error: err.Error()}
	}
	s.say(&confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_StressRound{StressRound: said}})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
	if err != nil {
		s.failed++
	}
	var cannot *errCannotWatch
	switch {
	case errors.As(err, &cannot):
		return cannot
	case s.failed == s.done && s.failed >= min(stressHopeless, int(s.ask.GetCount())):
		return fmt.Errorf("no round succeeds: %w", err)
	}
	s.progress("rounds", false, s.done, int(s.ask.GetCount()), "%s", progressText(said, s.failed))
	return nil
}

// errCannotWatch is that of a monitor which says that it can't watch on this
// node: no other round can either.
type errCannotWatch struct{ err error }

func (e *errCannotWatch) Error() string { return e.err.Error() }
func (e *errCannotWatch) Unwrap() error { return e.err }

func progressText(r *confinev1.StressRound, failed int) string {
	text := fmt.Sprintf("%d programs, %d events, %d lost", len(r.GetExecuted()), r.GetEvents(), r.GetLost())
	if failed > 0 {
		text += fmt.Sprintf("; %d rounds failed", failed)
	}
	return text
}
