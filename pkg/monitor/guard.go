package monitor

import (
	"fmt"
	"math"
	"sort"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Limits of what a host believes of an event, in bytes and numbers. They are
// wider than what the kernel can produce.
const (
	maxText   = 3 * 4096 // paths, as text
	maxReason = 512
	maxNested = 64
	maxFaults = 16 // kinds of faults that are told apart
)

// guard checks what a plugin says, so that one that is broken can't mislead
// its host or fill its memory. It belongs to one watch and isn't safe for
// concurrent use.
type guard struct {
	scope  *confinev1.Scope
	groups groups
	faults map[string]uint64 // how often by sentence
}

func newGuard(scope *confinev1.Scope) *guard {
	return &guard{scope: scope, groups: newGroups(scope.GetCgroupId()), faults: map[string]uint64{}}
}

// fault notes a breach of the contract.
func (g *guard) fault(sentence string) {
	if _, ok := g.faults[sentence]; !ok && len(g.faults) >= maxFaults {
		sentence = "more kinds of faults than are told apart"
	}
	g.faults[sentence]++
}

// sentences lists the faults.
func (g *guard) sentences() []string {
	var out []string
	for s, n := range g.faults {
		if n > 1 {
			s = fmt.Sprintf("%s (%d times)", s, n)
		}
		out = append(out, s)
	}
	sort.Strings(out)
	return out
}

// admit reports whether an event can be believed; one that can't is noted.
func (g *guard) admit(m *confinev1.WatchResponse) bool {
	why := ""
	switch e := m.GetEvent().(type) {
	case *confinev1.WatchResponse_Exec:
		why = g.exec(e.Exec)
	case *confinev1.WatchResponse_Mapping:
		why = subject(e.Mapping.GetPid(), e.Mapping.GetPath(), e.Mapping.GetProcess())
	case *confinev1.WatchResponse_Exit:
		why = subject(e.Exit.GetPid())
	case *confinev1.WatchResponse_Denied:
		why = subject(e.Denied.GetPid(), e.Denied.GetProcess(), e.Denied.GetObject(), e.Denied.GetComm())
	case *confinev1.WatchResponse_Lost:
		if len(e.Lost.GetReason()) > maxReason {
			e.Lost.Reason = e.Lost.GetReason()[:maxReason]
		}
		if e.Lost.GetCount() > math.MaxInt64 {
			why = "it told of more losses than there can be"
		}
	default:
		why = "it sent a message that isn't an event"
	}
	if why != "" {
		g.fault(why)
	}
	return why == ""
}

func (g *guard) exec(e *confinev1.Exec) string {
	if len(e.GetNested()) > maxNested {
		return "it sent an event of absurd size"
	}
	texts := append([]string{e.GetPath(), e.GetFilename(), e.GetComm(), e.GetInterpreter()}, e.GetNested()...)
	if why := subject(e.GetPid(), texts...); why != "" {
		return why
	}
	if g.groups.foreign(e.GetCgroupId()) && unrelated(e.GetPid(), g.scope) {
		return "it told of a process outside of what it was to watch"
	}
	return ""
}

// subject checks the process and the texts of an event.
func subject(pid int32, texts ...string) string {
	if pid <= 0 {
		return "it told of a process without a number"
	}
	for _, t := range texts {
		if len(t) > maxText {
			return "it sent an event of absurd size"
		}
	}
	return ""
}
