package explain

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/confinehq/confine/internal/term"
	"github.com/confinehq/confine/pkg/syscalls"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// Unused are the calls that a profile allows and that no process of the
// container was seen making, and its JSON form. No list is null.
type Unused struct {
	Subject  string `json:"subject"`
	Result   string `json:"result"`
	Platform string `json:"platform"`
	// Node and Kernel are where it ran, "" when that isn't known.
	Node   string `json:"node"`
	Kernel string `json:"kernel"`
	// Allowed and Seen count calls.
	Allowed int `json:"allowed"`
	Seen    int `json:"seen"`
	// Needed are calls that no program was seen making, and that the container
	// runtime or the kernel makes.
	Needed []string `json:"needed"`
	// Calls are the others, the riskiest first; Left counts those that are
	// left out.
	Calls []UnusedCall `json:"calls"`
	Left  int          `json:"left"`
}

// UnusedCall is one of them.
type UnusedCall struct {
	Call string `json:"call"`
	Nr   int    `json:"nr"`
	// Risk is 3 for each hole that gave privileges, 1 for each other.
	Risk       int      `json:"risk"`
	Holes      []Hole   `json:"holes"`
	Conditions []string `json:"conditions"`
	// Reason is the first of the reasons: the shortest chain when it is one.
	Reason Reason `json:"reason"`
}

// Hole is a hole of the kernel that was reached through a call.
type Hole struct {
	ID         string   `json:"id"`
	Impact     string   `json:"impact"`
	Introduced string   `json:"introduced"`
	Fixed      string   `json:"fixed"`
	Commit     string   `json:"commit"`
	Calls      []string `json:"calls"`
	Summary    string   `json:"summary"`
	Source     string   `json:"source"`
	// Open is false when the node's kernel is of a mainline version that
	// doesn't have it; null when the kernel isn't known.
	Open *bool `json:"open"`
}

func holes(list []syscalls.CVE, kernel string) []Hole {
	out := []Hole{}
	for _, c := range list {
		h := Hole{c.ID, string(c.Impact), c.Introduced, c.Fixed, c.Commit, c.Calls, c.Summary, c.Source(), nil}
		if kernel != "" {
			open := c.Affects(kernel)
			h.Open = &open
		}
		out = append(out, h)
	}
	return out
}

// UnusedOf finds the unused calls of a result. kernel is that of the node, ""
// when it isn't known; limit bounds the calls.
func UnusedOf(r *confinev1.Result, kernel string, limit int) *Unused {
	u := &Unused{
		Subject: r.GetImage(), Result: r.GetId(), Platform: r.GetPlatform(), Node: r.GetNode(), Kernel: kernel,
		Allowed: len(r.GetSyscalls()), Needed: []string{}, Calls: []UnusedCall{},
	}
	for _, s := range r.GetSyscalls() {
		switch {
		case s.GetSeen():
			u.Seen++
			continue
		case needed(s):
			u.Needed = append(u.Needed, s.GetName())
			continue
		}
		c := UnusedCall{Call: s.GetName(), Nr: int(s.GetNr()), Risk: syscalls.Risk(s.GetName()), Holes: holes(syscalls.CVEsOf(s.GetName()), kernel), Conditions: conditionsOfProto(r.GetPlatform(), s.GetName(), s.GetArgs()), Reason: Reason{Chain: []Frame{}}}
		if list := s.GetReasons(); len(list) > 0 {
			c.Reason = Reason{Kind: list[0].GetKind(), Detail: list[0].GetDetail(), Chain: OfProto(list[0].GetChain()), Site: siteOfProto(list[0].GetSite())}
		}
		u.Calls = append(u.Calls, c)
	}
	slices.SortStableFunc(u.Calls, func(a, b UnusedCall) int {
		return cmp.Or(cmp.Compare(b.Risk, a.Risk), cmp.Compare(a.Call, b.Call))
	})
	if len(u.Calls) > limit {
		u.Left, u.Calls = len(u.Calls)-limit, u.Calls[:limit]
	}
	return u
}

// needed reports whether the runtime or the kernel makes a call.
func needed(s *confinev1.Syscall) bool {
	return slices.ContainsFunc(s.GetReasons(), func(r *confinev1.Reason) bool { return r.GetKind() == "floor" || r.GetKind() == "kernel" })
}

// UnusedText writes unused calls for a person.
func UnusedText(o *term.Output, u *Unused) {
	width := width(o)
	fmt.Fprintln(o, term.Wrap(fmt.Sprintf("%s: %s of %d allowed calls were not made in the run or its proof (%d were; the runtime or the kernel makes %d)",
		u.Subject, o.Styles.Title.Render(fmt.Sprint(len(u.Calls)+u.Left)), u.Allowed, u.Seen, len(u.Needed)), 0, width))
	if len(u.Calls) == 0 {
		return
	}
	fmt.Fprintln(o, dim(o, term.Wrap("The riskiest first: 3 points for each known hole that gave privileges through the call, 1 for each other.", 0, width)))
	for i, c := range u.Calls {
		fmt.Fprintln(o)
		title := fmt.Sprintf("%d. %s (%d)", i+1, o.Styles.Title.Render(c.Call), c.Nr)
		if c.Risk > 0 {
			title += "  " + o.Styles.Warn.Render(fmt.Sprintf("risk %d", c.Risk)) + "  " + holesText(o, c.Holes, u.Kernel)
		}
		fmt.Fprintln(o, term.Wrap(title, 3, width))
		for _, cond := range c.Conditions {
			fmt.Fprintln(o, "   only with "+cond)
		}
		if len(c.Reason.Chain) == 0 {
			fmt.Fprintln(o, "   "+term.Wrap(Word(c.Reason.Kind)+" "+c.Reason.Detail, 3, width))
			continue
		}
		fmt.Fprintln(o, "   "+term.Wrap(Short(o, c.Reason.Chain), 3, width))
	}
	if u.Left > 0 {
		fmt.Fprintf(o, "\nand %d more, see --limit\n", u.Left)
	}
	if u.Result != "" {
		fmt.Fprintf(o, "\n%s\n", dim(o, term.Wrap("confinectl explain "+u.Result+" CALL shows a call's chains in full, confinectl cves "+u.Result+" the holes", 0, width)))
	}
}

// dim renders each line by itself: together they would be filled up to the
// longest.
func dim(o *term.Output, text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = o.Styles.Dim.Render(lines[i])
	}
	return strings.Join(lines, "\n")
}

func width(o *term.Output) int {
	if o.Terminal {
		return o.Width()
	}
	return 100
}

// holesText counts holes by impact, and says how many the kernel may have.
func holesText(o *term.Output, list []Hole, kernel string) string {
	count := map[string]int{}
	open := 0
	for _, h := range list {
		count[h.Impact]++
		if h.Open != nil && *h.Open {
			open++
		}
	}
	var parts []string
	for _, impact := range []string{"privilege", "leak", "crash"} {
		if n := count[impact]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, impact))
		}
	}
	text := fmt.Sprintf("%d holes: %s", len(list), strings.Join(parts, ", "))
	if len(list) == 1 {
		text = "1 hole: " + list[0].Impact + ", " + list[0].ID
	} else {
		text += ", last " + list[len(list)-1].ID
	}
	text = o.Styles.Dim.Render(text)
	if kernel != "" && open > 0 {
		text += ", " + o.Styles.Bad.Render(fmt.Sprintf("%d not repaired in mainline %s", open, mainline(kernel)))
	}
	return text
}

// mainline is the part of a kernel's version that mainline gives it.
func mainline(kernel string) string {
	f := strings.SplitN(kernel, ".", 3)
	if len(f) < 2 {
		return kernel
	}
	return f[0] + "." + strings.TrimRight(strings.SplitN(f[1], "-", 2)[0], "+")
}

// longChain is the number of functions up to which a chain is written whole in
// a line.
const longChain = 7

// Short writes a chain as one paragraph: functions alone, objects where they
// change, the middle of a long one left out.
func Short(o *term.Output, chain []Frame) string {
	arrow := " " + o.Styles.Dim.Render(o.Symbols.Arrow) + " "
	var parts []string
	object := ""
	for _, f := range chain {
		name := f.Name()
		if f.Kind == "data" {
			name = "[" + name + "]"
		}
		if f.Kind == "program" {
			object, name = f.Object, o.Styles.Name.Render(f.Object)
		} else if f.Object != object && f.Object != "" {
			object = f.Object
			name = o.Styles.Name.Render(path.Base(object)) + ": " + name
		}
		parts = append(parts, name)
	}
	if n := len(parts); n > longChain {
		parts = slices.Concat(parts[:3], []string{o.Styles.Dim.Render(fmt.Sprintf("%d more", n-longChain+1))}, parts[n-longChain+4:])
	}
	return strings.Join(parts, arrow)
}
