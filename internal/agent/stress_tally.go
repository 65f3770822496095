package agent

import (
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Bounds of what is kept of one round.
const (
	maxTallied = 70_000 // different files of a storm
	maxForeign = 100
	maxSeen    = 10_000 // different files otherwise
)

// tally counts what a monitor shows of one container, without looking at the
// files.
type tally struct {
	// own begins the names of the container's own storm files.
	own string

	mu               sync.Mutex
	executed, mapped map[string]bool
	foreign          map[string]bool
	storm            map[string]uint64 // executions by path
	losses           map[string]uint64 // by reason
	executions       uint64
	full             bool
	last             time.Time
}

func newTally(own string) *tally {
	return &tally{
		own: own, executed: map[string]bool{}, mapped: map[string]bool{}, foreign: map[string]bool{},
		storm: map[string]uint64{}, losses: map[string]uint64{}, last: time.Now(),
	}
}

// newest is when a file was seen first that belongs to the image.
func (t *tally) newest() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

func (t *tally) handle(ev *confinev1.WatchResponse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := ev.Event.(type) {
	case *confinev1.WatchResponse_Exec:
		t.exec(e.Exec)
	case *confinev1.WatchResponse_Mapping:
		if !t.ofStorm(e.Mapping.GetPath(), 0) {
			t.add(t.mapped, e.Mapping.GetPath())
		}
	case *confinev1.WatchResponse_Lost:
		t.losses[e.Lost.GetReason()] += e.Lost.GetCount()
	}
}

func (t *tally) exec(e *confinev1.Exec) {
	t.executions++
	if t.ofStorm(e.GetPath(), 1) {
		return
	}
	t.add(t.executed, e.GetPath())
	if e.GetInterpreter() != "" && e.GetFilename() != "" {
		t.add(t.executed, e.GetFilename())
		for _, script := range e.GetNested() {
			t.add(t.executed, script)
		}
	}
}

// ofStorm takes n executions of a storm's file, ours or another's; it reports
// false for anything else.
func (t *tally) ofStorm(file string, n uint64) bool {
	name := path.Base(strings.TrimSuffix(file, " (deleted)"))
	switch {
	case !stormFile(name):
		return t.own != "" && path.Dir(file) == stormDir
	case t.own == "" || !strings.HasPrefix(name, t.own+"-"):
		if len(t.foreign) < maxForeign {
			t.foreign[file] = true
		}
	case n > 0 && (t.storm[file] > 0 || len(t.storm) < maxTallied):
		t.storm[file] += n
	}
	return true
}

func (t *tally) add(set map[string]bool, file string) {
	if set[file] {
		return
	}
	if len(set) >= maxSeen {
		t.full = true
		return
	}
	set[file] = true
	t.last = time.Now()
}

// fill writes down what was seen.
func (t *tally) fill(r *confinev1.StressRound, snap *confinev1.SnapshotResponse, mappings bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r.Executed = slices.Sorted(maps.Keys(t.executed))
	if mappings {
		r.Mapped = slices.Sorted(maps.Keys(t.mapped))
	}
	r.Foreign = slices.Sorted(maps.Keys(t.foreign))
	r.Executions = saturate(t.executions)
	r.Events = saturate(snap.GetEvents())
	losses, lost := t.losses, uint64(0)
	if final := snap.GetLosses(); len(final) > 0 {
		losses = map[string]uint64{}
		for _, l := range final {
			losses[l.GetReason()] += l.GetCount()
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(losses)) {
		lost += losses[reason]
		r.Losses = append(r.Losses, &confinev1.Loss{Reason: reason, Count: saturate(losses[reason])})
	}
	if final := snap.GetLost(); final > lost {
		r.Losses = append(r.Losses, &confinev1.Loss{Reason: "told at the end", Count: saturate(final - lost)})
		lost = final
	}
	if t.full {
		lost++
		r.Losses = append(r.Losses, &confinev1.Loss{Reason: "more different files than can be kept", Count: 1})
	}
	r.Lost = saturate(lost)
}
