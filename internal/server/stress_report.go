package server

import (
	"math"
	"slices"
	"strings"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// stressReport compares the rounds, key: index.
func stressReport(spec *confinev1.StressSpec, done *confinev1.StressDone, rounds map[uint32]*confinev1.StressRound) *confinev1.StressReport {
	r := &confinev1.StressReport{
		Image: clean(done.GetImage(), maxText), Digest: clean(done.GetDigest(), 128),
		Monitor: clean(done.GetMonitor(), 256), MonitorVersion: clean(done.GetMonitorVersion(), 128),
		Count: spec.GetCount(), Parallel: max(1, spec.GetParallel()), Storm: spec.Storm != nil, StormRate: spec.GetStorm().GetRate(),
		Limits: cleanAll(done.GetLimits(), maxText, 100), MissesUncounted: done.GetMissesUncounted(),
	}
	for i := uint32(1); i <= spec.GetCount(); i++ {
		round := rounds[i]
		if round == nil {
			round = &confinev1.StressRound{Index: i, Error: "the node said nothing of this round"}
		}
		r.Rounds = append(r.Rounds, round)
	}
	good := slices.DeleteFunc(slices.Clone(r.GetRounds()), func(x *confinev1.StressRound) bool { return x.GetError() != "" })
	r.Failed = uint32(len(r.GetRounds()) - len(good))
	r.Executed = usual(good, (*confinev1.StressRound).GetExecuted)
	r.Mapped = usual(good, (*confinev1.StressRound).GetMapped)
	for _, round := range good {
		addRound(r, round)
	}
	r.Passed = r.GetFailed() == 0 && r.GetDiffering() == 0 && r.GetLost() == 0 && r.GetMixed() == 0 && exact(r.GetStorms())
	return r
}

// addRound adds a round to the sums, and names the files in which it differs.
func addRound(r *confinev1.StressReport, round *confinev1.StressRound) {
	r.Events = saturated(r.GetEvents(), round.GetEvents())
	r.Lost = saturated(r.GetLost(), round.GetLost())
	if len(round.GetForeign()) > 0 {
		r.Mixed++
	}
	round.Missing = slices.Concat(without(r.GetExecuted(), round.GetExecuted()), without(r.GetMapped(), round.GetMapped()))
	round.Extra = slices.Concat(without(round.GetExecuted(), r.GetExecuted()), without(round.GetMapped(), r.GetMapped()))
	if len(round.GetMissing())+len(round.GetExtra()) > 0 {
		r.Differing++
	}
	round.Binaries, round.Mappings = uint32(len(round.GetExecuted())), uint32(len(round.GetMapped()))
	round.Executed, round.Mapped = nil, nil
	if c := round.GetStorm(); c != nil {
		if r.Storms == nil {
			r.Storms = &confinev1.StormCheck{}
		}
		addStorm(r.GetStorms(), c)
	}
}

// addStorm adds one storm to the sums; the rate is the highest.
func addStorm(sum, c *confinev1.StormCheck) {
	sum.Made = saturated(sum.GetMade(), c.GetMade())
	sum.Seen = saturated(sum.GetSeen(), c.GetSeen())
	sum.Missed = saturated(sum.GetMissed(), c.GetMissed())
	sum.Duplicated = saturated(sum.GetDuplicated(), c.GetDuplicated())
	sum.Extra = saturated(sum.GetExtra(), c.GetExtra())
	sum.Failed = saturated(sum.GetFailed(), c.GetFailed())
	sum.NodeMade = saturated(sum.GetNodeMade(), c.GetNodeMade())
	sum.Rate = max(sum.GetRate(), c.GetRate())
	for _, e := range c.GetExamples() {
		if len(sum.GetExamples()) < 10 && !slices.Contains(sum.GetExamples(), e) {
			sum.Examples = append(sum.Examples, e)
		}
	}
}

// usual returns the list that most rounds have; of several that are equally
// frequent the longest, because what is lost makes a list shorter.
func usual(rounds []*confinev1.StressRound, list func(*confinev1.StressRound) []string) []string {
	var best []string
	count, most := map[string]int{}, 0
	for _, r := range rounds {
		key := strings.Join(list(r), "\x00")
		count[key]++
		if n := count[key]; n > most || n == most && len(list(r)) > len(best) {
			best, most = list(r), n
		}
	}
	return best
}

// exact is true when the storms were seen as they were, or there were none.
func exact(c *confinev1.StormCheck) bool {
	return c.GetMissed() == 0 && c.GetDuplicated() == 0 && c.GetExtra() == 0 && c.GetFailed() == 0
}

// without returns what a sorted list has and another lacks.
func without(list, other []string) []string {
	var out []string
	for _, s := range list {
		if _, found := slices.BinarySearch(other, s); !found {
			out = append(out, s)
		}
	}
	return out
}

func saturated(a, b uint32) uint32 { return uint32(min(uint64(a)+uint64(b), math.MaxUint32)) }
