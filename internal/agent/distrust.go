package agent

import (
	"fmt"
	"slices"
	"strings"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// maxLossReasons is how many reasons of losses are shown.
const maxLossReasons = 8

// lostEvents says how many events a monitor lost, why, and what to do.
func lostEvents(lost uint64, losses []*confinev1.Lost) *confinev1.Incomplete {
	detail := fmt.Sprintf("the monitor lost %d events", lost)
	slices.SortStableFunc(losses, func(a, b *confinev1.Lost) int {
		return int(min(b.GetCount(), 1<<30)) - int(min(a.GetCount(), 1<<30))
	})
	var reasons []string
	for _, l := range losses[:min(len(losses), maxLossReasons)] {
		reasons = append(reasons, fmt.Sprintf("%s (%d)", l.GetReason(), l.GetCount()))
	}
	if len(reasons) > 0 {
		detail += ": " + strings.Join(reasons, ", ")
	}
	return &confinev1.Incomplete{
		Kind:   "lost-events",
		Detail: detail + "; run it again on a less busy node, or give the monitor more room (monitors: in the agent's configuration)",
	}
}

// monitorFaults says how a monitor broke its contract: what it told isn't to be
// relied on.
func monitorFaults(name string, faults []string) []*confinev1.Incomplete {
	if len(faults) == 0 {
		return nil
	}
	return []*confinev1.Incomplete{{
		Kind: "monitor-fault", Object: name,
		Detail: "the monitor does not keep its contract, so that what it told can be wrong: " + strings.Join(faults, "; ") + "; update it, or use another (--monitor)",
	}}
}
