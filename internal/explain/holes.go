package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Holes says which of the kernel's known holes a profile leaves within reach,
// and its JSON form. No list is null.
type Holes struct {
	Subject  string `json:"subject"`
	Result   string `json:"result"`
	Platform string `json:"platform"`
	Node     string `json:"node"`
	Kernel   string `json:"kernel"`
	// Known counts all holes that this version knows.
	Known int `json:"known"`
	// Reachable are holes of which at least one call is allowed, Closed those of
	// which none is.
	Reachable []ReachableHole `json:"reachable"`
	Closed    []Hole          `json:"closed"`
}

// ReachableHole is a hole with those of its calls that the profile allows.
type ReachableHole struct {
	Hole
	Allowed []string `json:"allowed"`
	// Narrowed are those of them that only certain arguments are allowed of.
	Narrowed []string `json:"narrowed"`
	// Made are those of them that were made in the run or its proof.
	Made []string `json:"made"`
}

// HolesOf compares a result with what is known of the kernel's holes.
func HolesOf(r *confinev1.Result, kernel string) *Holes {
	h := &Holes{
		Subject: r.GetImage(), Result: r.GetId(), Platform: r.GetPlatform(), Node: r.GetNode(), Kernel: kernel,
		Known: len(syscalls.CVEs()), Reachable: []ReachableHole{}, Closed: []Hole{},
	}
	calls := map[string]*confinev1.Syscall{}
	for _, s := range r.GetSyscalls() {
		calls[s.GetName()] = s
	}
	for _, hole := range holes(syscalls.CVEs(), kernel) {
		x := ReachableHole{Hole: hole, Allowed: []string{}, Narrowed: []string{}, Made: []string{}}
		for _, name := range hole.Calls {
			s := calls[name]
			if s == nil {
				continue
			}
			x.Allowed = append(x.Allowed, name)
			if len(s.GetArgs()) > 0 {
				x.Narrowed = append(x.Narrowed, name)
			}
			if s.GetSeen() {
				x.Made = append(x.Made, name)
			}
		}
		if len(x.Allowed) == 0 {
			h.Closed = append(h.Closed, hole)
		} else {
			h.Reachable = append(h.Reachable, x)
		}
	}
	// What the kernel may have comes first, then what gives the most, then the
	// newest.
	rank := func(x ReachableHole) int {
		n := slices.Index([]string{"privilege", "leak", "crash"}, x.Impact)
		if x.Open != nil && !*x.Open {
			n += 10
		}
		return n
	}
	slices.SortStableFunc(h.Reachable, func(a, b ReachableHole) int { return cmp.Compare(rank(a), rank(b)) })
	return h
}

// HolesText writes holes for a person; with all, those that the profile closes
// too.
func HolesText(o *term.Output, h *Holes, all bool) error {
	w := width(o)
	open := 0
	for _, x := range h.Reachable {
		if x.Open != nil && *x.Open {
			open++
		}
	}
	fmt.Fprintln(o, term.Wrap(fmt.Sprintf("%s: of %d known holes of the kernel the profile closes %s, as it allows none of their calls; %s are left",
		h.Subject, h.Known, o.Styles.Good.Render(fmt.Sprint(len(h.Closed))), o.Styles.Title.Render(fmt.Sprint(len(h.Reachable)))), 0, w))
	if h.Kernel != "" {
		fmt.Fprintln(o, term.Wrap(fmt.Sprintf("node %s runs kernel %s: %d of those left are not repaired in mainline %s (distributions repair older versions, too)", h.Node, h.Kernel, open, mainline(h.Kernel)), 0, w))
	}
	fmt.Fprintln(o)
	rows := [][]string{{"CVE", "IMPACT", "KERNELS", "CALLS", "WHAT WAS WRONG"}}
	for _, x := range h.Reachable {
		calls := strings.Join(x.Allowed, " ")
		if len(x.Made) == 0 {
			calls += o.Styles.Dim.Render(" (not made)")
		}
		rows = append(rows, []string{x.ID, impact(o, x.Hole), kernels(x.Hole), calls, o.Styles.Dim.Render(x.Summary)})
	}
	if all {
		for _, x := range h.Closed {
			rows = append(rows, []string{x.ID, impact(o, x), kernels(x), o.Styles.Good.Render("closed"), o.Styles.Dim.Render(x.Summary)})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return term.Table(o, rows)
}

func impact(o *term.Output, h Hole) string {
	if h.Open == nil || *h.Open {
		return o.Styles.Warn.Render(h.Impact)
	}
	return h.Impact
}

// kernels is the range of mainline versions that have a hole.
func kernels(h Hole) string {
	if h.Introduced == "" {
		return "before " + h.Fixed
	}
	return h.Introduced + " to before " + h.Fixed
}
