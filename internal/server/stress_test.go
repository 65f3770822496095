package server_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// stress has the node say some rounds and returns the report.
func (f *fixture) stress(spec *confinev1.StressSpec, rounds ...*confinev1.StressRound) (*confinev1.StressReport, error) {
	f.t.Helper()
	f.agent.script = func(m *confinev1.ConnectResponse) bool {
		if m.GetStartStress() == nil {
			return false
		}
		f.agent.progress(m.GetRunId(), "image", true)
		for _, r := range rounds {
			f.agent.say(m.GetRunId(), &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_StressRound{StressRound: r}})
		}
		f.agent.say(m.GetRunId(), &confinev1.ConnectRequest{Message: &confinev1.ConnectRequest_StressDone{
			StressDone: &confinev1.StressDone{Image: "docker.io/library/app:latest", Monitor: "ebpf", MissesUncounted: true},
		}})
		return true
	}
	f.agent.mustConnect()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	s, err := f.operator.Stress(ctx, &confinev1.StressRequest{Node: "n1", Spec: spec})
	if err != nil {
		return nil, err
	}
	var report *confinev1.StressReport
	for {
		m, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return report, nil
		}
		if err != nil {
			return nil, err
		}
		if m.GetReport() != nil {
			report = m.GetReport()
		}
	}
}

func app(count uint32) *confinev1.StressSpec {
	return &confinev1.StressSpec{Image: "app", Count: count}
}

// round is one that shows these executed files, and a library.
func round(index uint32, executed ...string) *confinev1.StressRound {
	return &confinev1.StressRound{Index: index, Executed: executed, Mapped: []string{"/lib.so"}, Events: 10}
}

func TestStressReport(t *testing.T) {
	lossy, foreign, failed, missed := round(3, "/a", "/b"), round(3, "/a", "/b"), round(3), round(3, "/a", "/b")
	lossy.Lost = 2
	foreign.Foreign = []string{"/x"}
	failed.Error = "no\nsuch \x1bthing"
	missed.Storm = &confinev1.StormCheck{Made: 5, Seen: 4, Missed: 1}
	storm := round(3, "/a", "/b")
	storm.Storm = &confinev1.StormCheck{Made: 5, Seen: 5}
	for _, c := range []struct {
		name  string
		third *confinev1.StressRound
		want  func(*confinev1.StressReport) bool
	}{
		{"alike", round(3, "/a", "/b"), func(r *confinev1.StressReport) bool { return r.GetPassed() && r.GetEvents() == 30 }},
		{"storm seen", storm, func(r *confinev1.StressReport) bool { return r.GetPassed() && r.GetStorms().GetSeen() == 5 }},
		{"a file less", round(3, "/a"), func(r *confinev1.StressReport) bool {
			return r.GetDiffering() == 1 && slices.Equal(r.GetRounds()[2].GetMissing(), []string{"/b"}) && r.GetRounds()[2].GetBinaries() == 1
		}},
		{"a file more", round(3, "/c", "/a", "/b"), func(r *confinev1.StressReport) bool {
			return r.GetDiffering() == 1 && slices.Equal(r.GetRounds()[2].GetExtra(), []string{"/c"}) && len(r.GetRounds()[2].GetMissing()) == 0
		}},
		{"lost", lossy, func(r *confinev1.StressReport) bool { return r.GetLost() == 2 }},
		{"mixed", foreign, func(r *confinev1.StressReport) bool { return r.GetMixed() == 1 }},
		{"failed", failed, func(r *confinev1.StressReport) bool {
			return r.GetFailed() == 1 && r.GetRounds()[2].GetError() == "no such ?thing"
		}},
		{"missed", missed, func(r *confinev1.StressReport) bool { return r.GetStorms().GetMissed() == 1 }},
		{"not said", round(2, "/other"), func(r *confinev1.StressReport) bool {
			return r.GetFailed() == 1 && r.GetDiffering() == 0 && strings.Contains(r.GetRounds()[2].GetError(), "said nothing")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := setup(t, newAnalyser())
			r, err := f.stress(app(3), round(1, "/a", "/b"), round(2, "/b", "/a"), c.third)
			if err != nil {
				t.Fatal(err)
			}
			passed := c.name == "alike" || c.name == "storm seen"
			if !c.want(r) || r.GetPassed() != passed || !r.GetMissesUncounted() || len(r.GetRounds()) != 3 || !slices.Equal(r.GetExecuted(), []string{"/a", "/b"}) {
				t.Errorf("report %v", r)
			}
		})
	}
}

func TestStressMistakes(t *testing.T) {
	f := setup(t, newAnalyser())
	f.agent.mustConnect()
	for _, spec := range []*confinev1.StressSpec{
		nil, {Count: 1}, {Image: "app"}, app(1_000_000), {Image: "Not A Name", Count: 1}, {Image: "app", Count: 1, Parallel: 1000},
		{Image: "app", Count: 1, Storm: &confinev1.Storm{Rate: 1 << 31}},
	} {
		s, err := f.operator.Stress(t.Context(), &confinev1.StressRequest{Node: "n1", Spec: spec})
		if err == nil {
			_, err = s.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v, want InvalidArgument", spec, err)
		}
	}
}
