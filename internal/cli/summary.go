package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// labelWidth is the column of a summary's labels.
	labelWidth = 12
	// mostListed is how many entries of a long list, or of a kind, are shown.
	mostListed = 6
)

// summary writes labelled paragraphs that fit the width of the output.
type summary struct {
	o     *term.Output
	width int
}

// row writes one paragraph; lines after the first stand under the text.
func (s summary) row(label, text string) {
	fmt.Fprintf(s.o, "  %s%s\n", term.Pad(s.o.Styles.Dim.Render(label), labelWidth), term.Wrap(text, labelWidth+2, s.width))
}

// writeSummary is what a person wants to know about a result.
func writeSummary(o *term.Output, r *confinev1.Result) {
	s := summary{o: o, width: o.Width()}
	if !o.Terminal {
		s.width = 100
	}
	fmt.Fprintf(o, "\n%s  %s\n\n", o.Styles.Title.Render(r.GetImage()), o.Styles.Dim.Render(origin(r)))
	s.calls(r)
	s.files(r)
	s.run(r)
	s.proof(r.GetProof())
	s.issues("incomplete", o.Styles.Warn.Render, resultIssues(r.GetIncomplete()))
	s.issues("notes", nil, resultIssues(r.GetNotes()))
	if r.GetId() != "" {
		s.row("result", o.Styles.Name.Render(r.GetId()))
		s.row("profile", "confinectl export "+r.GetId()+" > profile.json")
		s.row("why", "confinectl explain "+r.GetId()+" CALL")
	}
	fmt.Fprintln(o)
}

// origin says which image, for what, and where.
func origin(r *confinev1.Result) string {
	parts := []string{shortDigest(r.GetDigest()), r.GetPlatform()}
	if r.GetNode() != "" {
		parts = append(parts, "node "+r.GetNode())
	}
	return strings.Join(parts, " · ")
}

func (s summary) calls(r *confinev1.Result) {
	total := len(r.GetSyscalls())
	text := s.o.Styles.Title.Render(fmt.Sprint(total)) + " allowed"
	if k := r.GetKernelSyscalls(); k > 0 {
		text += fmt.Sprintf(" of the %d that the kernel has", k)
	}
	if d := r.GetDefaultSyscalls(); d > 0 {
		text += fmt.Sprintf("; the runtime's default allows %d", d)
	}
	s.row("calls", text)
	seen, conditions, floor := 0, 0, 0
	for _, c := range r.GetSyscalls() {
		if c.GetSeen() {
			seen++
		}
		if len(c.GetArgs()) > 0 {
			conditions++
		}
		if onlyFloor(c) {
			floor++
		}
	}
	detail := fmt.Sprintf("%d were seen during the run", seen)
	if conditions > 0 {
		detail += fmt.Sprintf(", %d are allowed with certain arguments only", conditions)
	}
	if floor > 0 {
		detail += fmt.Sprintf(", %d are for %s alone", floor, first(r.GetRuntime().GetName(), "the runtime's start-up"))
	}
	s.row("", detail)
}

// onlyFloor is true for a call that the runtime needs and the programs don't.
func onlyFloor(c *confinev1.Syscall) bool {
	for _, reason := range c.GetReasons() {
		if reason.GetKind() != "floor" {
			return false
		}
	}
	return len(c.GetReasons()) > 0
}

func (s summary) files(r *confinev1.Result) {
	var programs []string
	for _, e := range r.GetExecuted() {
		programs = append(programs, e.GetPath())
	}
	if len(programs) > 0 {
		s.row("programs", fmt.Sprintf("%d executed: %s", len(programs), listed(programs)))
	}
	counts, cached := map[string]int{}, 0
	for _, o := range r.GetObjects() {
		counts[o.GetOrigin()]++
		if o.GetCached() {
			cached++
		}
	}
	text := fmt.Sprintf("%d ELF files: %d executed, %d mapped, %d reached by analysis alone",
		len(r.GetObjects()), counts["executed"], counts["mapped"], counts["static"])
	if cached > 0 {
		text += fmt.Sprintf(" (%d known from earlier)", cached)
	}
	s.row("objects", text)
}

// listed joins the first few of a list.
func listed(items []string) string {
	if len(items) <= mostListed {
		return strings.Join(items, ", ")
	}
	return strings.Join(items[:mostListed], ", ") + fmt.Sprintf(" and %d more", len(items)-mostListed)
}

func (s summary) run(r *confinev1.Result) {
	run := r.GetRun()
	if run == nil {
		return
	}
	text := fmt.Sprintf("%s, after %.1fs; %d events", first(run.GetSettledBy(), "not settled"), run.GetSeconds(), run.GetEvents())
	if run.GetLost() > 0 {
		text += ", " + s.o.Styles.Bad.Render(fmt.Sprintf("%d lost", run.GetLost()))
	} else {
		text += ", none lost"
	}
	if r.GetMonitor() != "" {
		text += " (" + r.GetMonitor() + ")"
	}
	s.row("settled", text)
	for _, line := range run.GetOutput() {
		s.row("output", s.o.Styles.Dim.Render(line))
	}
}

func (s summary) proof(p *confinev1.Proof) {
	text := proofWord(s.o, p.GetStatus())
	if p.GetSeconds() > 0 {
		text += fmt.Sprintf(" in %.1fs", p.GetSeconds())
	}
	if p.GetDetail() != "" {
		text += ": " + p.GetDetail()
	}
	s.row("proof", text)
	for _, d := range p.GetDenied() {
		s.row("", s.o.Styles.Bad.Render("denied ")+deniedText(d))
	}
}

// deniedText is a refused call with who made it and where.
func deniedText(d *confinev1.Denied) string {
	text := first(d.GetText(), d.GetName()) + " by " + first(d.GetProcess(), "an unknown process")
	if d.GetCaller() != "" {
		text += " at " + d.GetCaller()
	}
	if d.GetCount() > 1 {
		text += fmt.Sprintf(", %d times", d.GetCount())
	}
	return text
}

// writeVerdict says in plain lines what a script's log should keep: with
// quiet, only what keeps the result from being complete and proven.
func writeVerdict(w io.Writer, r *confinev1.Result, quiet bool) {
	if !quiet {
		fmt.Fprintf(w, "result %s: %d calls allowed for %s\n", first(r.GetId(), "-"), len(r.GetSyscalls()), r.GetImage())
	}
	sayMissing(w, resultIssues(r.GetIncomplete()))
	for _, d := range r.GetProof().GetDenied() {
		fmt.Fprintf(w, "denied: %s\n", deniedText(d))
	}
	status := r.GetProof().GetStatus()
	switch {
	case status == "proven" && !quiet:
		fmt.Fprintf(w, "proof: proven in %.1fs\n", r.GetProof().GetSeconds())
	case status != "proven":
		fmt.Fprintf(w, "not proven: %s\n", strings.TrimSuffix(first(status, "no proof")+": "+r.GetProof().GetDetail(), ": "))
	}
}
