package server

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/confinehq/confine/internal/store"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of a stress test; nodes have the same.
const (
	maxStressRounds   = 10_000
	maxStressParallel = 32
	maxStormRate      = 1_000_000
	maxStormTime      = 10 * time.Minute
)

// Stress implements confine.v1.OperatorService.
func (s *Server) Stress(req *confinev1.StressRequest, stream grpc.ServerStreamingServer[confinev1.StressResponse]) error {
	spec := req.GetSpec()
	if err := checkStress(spec); err != nil {
		return err
	}
	if !s.enter() {
		return errStopping
	}
	defer s.active.Done()
	r, err := newRun(stream.Context(), s, &confinev1.RunSpec{Image: spec.GetImage(), Namespace: spec.GetNamespace(), Monitor: spec.GetMonitor()})
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	r.rounds = make(chan *confinev1.StressRound, spec.GetCount())
	r.stressed = make(chan *confinev1.StressDone, 1)
	if err := s.begin(stream.Context(), req.GetNode(), r, commandStress); err != nil {
		return err
	}
	report, err := follow(r, func() (*confinev1.StressReport, error) { return s.stress(stream.Context(), r, spec) }, func(p *confinev1.Progress) error {
		return stream.Send(&confinev1.StressResponse{Event: &confinev1.StressResponse_Progress{Progress: p}})
	})
	if err != nil {
		return err
	}
	return stream.Send(&confinev1.StressResponse{Event: &confinev1.StressResponse_Report{Report: report}})
}

// checkStress refuses what no node would carry out.
func checkStress(spec *confinev1.StressSpec) error {
	bad := func(format string, args ...any) error { return status.Errorf(codes.InvalidArgument, format, args...) }
	storm := spec.GetStorm()
	switch {
	case spec.GetImage() == "":
		return bad("name an image to stress the monitor with")
	case spec.GetCount() < 1 || spec.GetCount() > maxStressRounds:
		return bad("%d rounds are not between 1 and %d", spec.GetCount(), maxStressRounds)
	case spec.GetParallel() > maxStressParallel:
		return bad("%d containers at once are more than the limit of %d", spec.GetParallel(), maxStressParallel)
	case storm.GetRate() > maxStormRate:
		return bad("a storm of %d executions a second is more than the limit of %d; --storm max is as fast as it goes", storm.GetRate(), maxStormRate)
	case len(spec.GetArgs()) > maxSpec || len(spec.GetEnv()) > maxSpec:
		return bad("more than %d arguments or variables", maxSpec)
	}
	for what, d := range map[string]time.Duration{"quiet period": spec.GetQuiet().AsDuration(), "timeout": spec.GetTimeout().AsDuration()} {
		if d < 0 || d > maxTimeout {
			return bad("the %s %v is not between 0 and %v", what, d, maxTimeout)
		}
	}
	if d := storm.GetTime().AsDuration(); d < 0 || d > maxStormTime {
		return bad("a storm of %v is not between 0 and %v", d, maxStormTime)
	}
	return checkImage(spec.GetImage())
}

// stress has the node make the rounds. When it returns, the node has removed
// everything, or nobody can tell.
func (s *Server) stress(ctx context.Context, r *run, spec *confinev1.StressSpec) (*confinev1.StressReport, error) {
	stop := context.AfterFunc(s.stopping, func() { r.fail(errStopping) })
	defer stop()
	log := s.log.With("run", r.id, "node", r.nodeName())
	record := store.Run{ID: r.id, Node: r.nodeName(), Image: subject(r.spec), State: store.RunActive, Started: r.began}
	s.keepRecord(ctx, record)
	log.Info("stress test started", "image", record.Image, "rounds", spec.GetCount())
	s.agents.command(r, keyStart, &confinev1.ConnectResponse{Message: &confinev1.ConnectResponse_StartStress{
		StartStress: &confinev1.StartStress{Spec: spec},
	}})
	rounds, done, err := r.collectRounds()
	s.dismiss(r, err)
	record.State, record.Ended = store.RunDone, time.Now()
	if err != nil {
		record.State, record.Error = store.RunFailed, status.Convert(err).Message()
		s.keepRecord(ctx, record)
		log.Warn("stress test failed", "error", record.Error)
		return nil, err
	}
	s.keepRecord(ctx, record)
	report, err := contained(s.log, "the server", func() (*confinev1.StressReport, error) { return stressReport(spec, done, rounds), nil })
	if err != nil {
		return nil, err
	}
	report.Node, report.Seconds = r.nodeName(), time.Since(r.began).Seconds()
	r.mu.Lock()
	report.Leftovers = r.leftovers
	r.mu.Unlock()
	log.Info("stress test done", "passed", report.GetPassed(), "lost", report.GetLost(), "differing", report.GetDiffering())
	return report, nil
}

// collectRounds takes what the node says of each round, by index.
func (r *run) collectRounds() (map[uint32]*confinev1.StressRound, *confinev1.StressDone, error) {
	rounds := map[uint32]*confinev1.StressRound{}
	take := func(round *confinev1.StressRound) error {
		if err := checkRound(round); err != nil {
			return status.Errorf(codes.Internal, "node %s sent a round that can't be used: %v", r.nodeName(), err)
		}
		if rounds[round.GetIndex()] == nil {
			rounds[round.GetIndex()] = round
		}
		return nil
	}
	for {
		select {
		case round := <-r.rounds:
			if err := take(round); err != nil {
				return nil, nil, err
			}
		case done := <-r.stressed:
			// All rounds came before.
			for len(r.rounds) > 0 {
				if err := take(<-r.rounds); err != nil {
					return nil, nil, err
				}
			}
			return rounds, done, nil
		case <-r.ctx.Done():
			return nil, nil, r.cause()
		}
	}
}

// checkRound makes what an agent says fit to be stored in memory and printed.
func checkRound(r *confinev1.StressRound) error {
	for what, n := range map[string]int{
		"executed files": len(r.GetExecuted()), "mapped files": len(r.GetMapped()), "foreign files": len(r.GetForeign()),
		"losses": len(r.GetLosses()), "examples": len(r.GetStorm().GetExamples()),
	} {
		if n > maxItems {
			return fmt.Errorf("%d %s", n, what)
		}
	}
	r.Error, r.Container, r.SettledBy = clean(r.GetError(), maxText), clean(r.GetContainer(), 128), clean(r.GetSettledBy(), 512)
	r.Executed = cleanAll(r.GetExecuted(), maxPath, maxItems)
	r.Mapped = cleanAll(r.GetMapped(), maxPath, maxItems)
	r.Foreign = cleanAll(r.GetForeign(), maxPath, maxItems)
	slices.Sort(r.Executed)
	slices.Sort(r.Mapped)
	r.Missing, r.Extra = nil, nil
	for _, l := range r.GetLosses() {
		l.Reason = clean(l.GetReason(), 256)
	}
	if r.Storm != nil {
		r.Storm.Examples = cleanAll(r.GetStorm().GetExamples(), maxPath, 100)
		if math.IsNaN(r.Storm.GetRate()) || math.IsInf(r.Storm.GetRate(), 0) {
			r.Storm.Rate = 0
		}
	}
	r.Seconds = cleanSeconds(r.GetSeconds())
	return nil
}
