package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/confinehq/confine/internal/term"
	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

const (
	// mostRounds is how many rounds with something to say are listed.
	mostRounds = 20
	// barWidth is the longest bar of a histogram, in columns.
	barWidth = 40
)

// writeStress is what a person wants to know about a stress test.
func writeStress(o *term.Output, r *confinev1.StressReport) error {
	s := summary{o: o, width: o.Width()}
	if !o.Terminal {
		s.width = 100
	}
	version := strings.TrimSpace(r.GetMonitor() + " " + r.GetMonitorVersion())
	fmt.Fprintf(o, "\n%s  %s\n\n", o.Styles.Title.Render(r.GetImage()), o.Styles.Dim.Render(shortDigest(r.GetDigest())+" · node "+r.GetNode()+" · monitor "+version))
	rounds := fmt.Sprintf("%d", r.GetCount())
	if r.GetParallel() > 1 {
		rounds += fmt.Sprintf(", %d at once", r.GetParallel())
	}
	s.row("rounds", rounds+" in "+fmt.Sprintf("%.1fs", r.GetSeconds()))
	s.settled(r)
	if len(r.GetExecuted()) > 0 {
		s.row("binaries", fmt.Sprintf("%d: %s", len(r.GetExecuted()), listed(r.GetExecuted())))
	}
	if len(r.GetMapped()) > 0 {
		s.row("mapped", fmt.Sprintf("%d files", len(r.GetMapped())))
	}
	s.row("events", fmt.Sprintf("%d seen, %s", r.GetEvents(), s.count(r.GetLost(), "lost"))+uncounted(r))
	s.losses(r)
	s.storms(r)
	fmt.Fprintln(o)
	s.histogram(r)
	if err := s.odd(r); err != nil {
		return err
	}
	for _, l := range r.GetLimits() {
		s.row("limit", l)
	}
	for _, l := range r.GetLeftovers() {
		s.row("left", l)
	}
	s.row("verdict", s.stressVerdict(r))
	fmt.Fprintln(o)
	return nil
}

// uncounted says that the number of losses isn't the whole of them.
func uncounted(r *confinev1.StressReport) string {
	if r.GetMissesUncounted() {
		return " that it knows of"
	}
	return ""
}

// count colours a number that should be 0.
func (s summary) count(n uint32, what string) string {
	text := fmt.Sprintf("%d %s", n, what)
	if n > 0 {
		return s.o.Styles.Bad.Render(text)
	}
	return text
}

// settled says what ended the rounds, the most frequent first.
func (s summary) settled(r *confinev1.StressReport) {
	counts := map[string]int{}
	for _, round := range r.GetRounds() {
		if round.GetError() == "" {
			counts[round.GetSettledBy()]++
		}
	}
	texts := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(counts[b]-counts[a], strings.Compare(a, b))
	})
	var parts []string
	for _, text := range texts {
		if len(texts) == 1 {
			parts = append(parts, text)
		} else {
			parts = append(parts, fmt.Sprintf("%d × %s", counts[text], text))
		}
	}
	s.row("settled", listed(parts))
}

// losses sums the reasons over all rounds.
func (s summary) losses(r *confinev1.StressReport) {
	sums := map[string]uint64{}
	for _, round := range r.GetRounds() {
		for _, l := range round.GetLosses() {
			sums[l.GetReason()] += uint64(l.GetCount())
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(sums)) {
		s.row("", fmt.Sprintf("%d lost: %s", sums[reason], reason))
	}
}

func (s summary) storms(r *confinev1.StressReport) {
	c := r.GetStorms()
	if c == nil {
		return
	}
	checked := 0
	for _, round := range r.GetRounds() {
		if round.GetStorm() != nil {
			checked++
		}
	}
	if !r.GetStorm() {
		s.row("marks", fmt.Sprintf("%d containers executed a file of their own: %d seen, %s, %s",
			checked, c.GetSeen(), s.count(c.GetMissed(), "missed"), s.count(r.GetMixed(), "mixed up")))
		return
	}
	s.row("storms", fmt.Sprintf("%d executions in %d %s, up to %.0f a second, and %d on the node: %s, %s, %s",
		c.GetMade(), checked, plural(uint32(checked), "container", "containers"), c.GetRate(), c.GetNodeMade(),
		s.count(c.GetMissed(), "missed"), s.count(c.GetDuplicated(), "seen twice"), s.count(c.GetExtra(), "made up")))
	if c.GetFailed() > 0 {
		s.row("", s.count(c.GetFailed(), "steps of the storm failed by themselves; the node may lack processes or memory"))
	}
	for _, e := range c.GetExamples() {
		s.row("", e)
	}
}

// shape is what a histogram counts.
type shape struct {
	binaries, mappings uint32
	// differs is true for rounds that saw others than most did, be they as many.
	differs bool
}

// histogram shows how many rounds saw how many files.
func (s summary) histogram(r *confinev1.StressReport) {
	counts := map[shape]int{}
	for _, round := range r.GetRounds() {
		if round.GetError() == "" {
			differs := len(round.GetMissing())+len(round.GetExtra()) > 0
			counts[shape{round.GetBinaries(), round.GetMappings(), differs}]++
		}
	}
	shapes := slices.SortedFunc(maps.Keys(counts), func(a, b shape) int {
		if a.binaries != b.binaries {
			return int(a.binaries) - int(b.binaries)
		}
		if a.mappings != b.mappings {
			return int(a.mappings) - int(b.mappings)
		}
		return strings.Compare(fmt.Sprint(a.differs), fmt.Sprint(b.differs))
	})
	most := 0
	for _, n := range counts {
		most = max(most, n)
	}
	block := "#"
	if s.o.Symbols.Ellipsis == "…" {
		block = "█"
	}
	for _, k := range shapes {
		n := counts[k]
		bar := strings.Repeat(block, max(1, n*barWidth/max(most, 1)))
		style, what := s.o.Styles.Good, ""
		if k.differs {
			style, what = s.o.Styles.Warn, plural(uint32(n), " differs", " differ")
		}
		mapped := ""
		if len(r.GetMapped()) > 0 || k.mappings > 0 { // else they aren't compared, or there are none
			mapped = fmt.Sprintf(" %4d mapped", k.mappings)
		}
		fmt.Fprintf(s.o, "  %4d %-8s%s  %s %d%s\n", k.binaries, plural(k.binaries, "binary", "binaries"), mapped, style.Render(bar), n, what)
	}
	if len(shapes) > 0 {
		fmt.Fprintln(s.o)
	}
}

func plural(n uint32, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// odd lists the rounds that have something to say.
func (s summary) odd(r *confinev1.StressReport) error {
	rows := [][]string{{"ROUND", "BINARIES", "MAPPED", "EVENTS", "LOST", "WHAT"}}
	more := 0
	for _, round := range r.GetRounds() {
		what := oddity(round)
		if what == "" {
			continue
		}
		if len(rows) > mostRounds {
			more++
			continue
		}
		rows = append(rows, []string{
			fmt.Sprint(round.GetIndex()), fmt.Sprint(round.GetBinaries()), fmt.Sprint(round.GetMappings()),
			fmt.Sprint(round.GetEvents()), fmt.Sprint(round.GetLost()), what,
		})
	}
	if len(rows) == 1 {
		return nil
	}
	if err := term.Table(s.o, rows); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(s.o, "and %d more; -o json has all\n", more)
	}
	fmt.Fprintln(s.o)
	return nil
}

// oddity says what is wrong with a round, "" when nothing is.
func oddity(r *confinev1.StressRound) string {
	var parts []string
	add := func(what string, files []string) {
		if len(files) > 0 {
			parts = append(parts, what+" "+listed(files))
		}
	}
	if r.GetError() != "" {
		parts = append(parts, r.GetError())
	}
	add("missing", r.GetMissing())
	add("extra", r.GetExtra())
	add("of others:", r.GetForeign())
	c := r.GetStorm()
	for _, n := range []struct {
		count uint32
		what  string
	}{{c.GetMissed(), "missed"}, {c.GetDuplicated(), "twice"}, {c.GetExtra(), "made up"}} {
		if n.count > 0 {
			parts = append(parts, fmt.Sprintf("storm: %d %s", n.count, n.what))
		}
	}
	if r.GetLost() > 0 && len(parts) == 0 {
		parts = append(parts, "events were lost")
	}
	return strings.Join(parts, "; ")
}

func (s summary) stressVerdict(r *confinev1.StressReport) string {
	if r.GetPassed() {
		text := s.o.Styles.Good.Render("passed") + ": all rounds agree, "
		if r.GetMissesUncounted() {
			return text + "no loss is known; this monitor can miss executions without counting them (--storm compares with the truth)"
		}
		return text + "nothing was lost"
	}
	var parts []string
	add := func(n uint32, what string) {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, what))
		}
	}
	rounds := func(n uint32) string { return plural(n, "round", "rounds") }
	add(r.GetFailed(), rounds(r.GetFailed())+" failed")
	add(r.GetDiffering(), plural(r.GetDiffering(), "round differs", "rounds differ"))
	add(r.GetMixed(), rounds(r.GetMixed())+" saw files of others")
	add(r.GetLost(), plural(r.GetLost(), "event", "events")+" lost")
	c := r.GetStorms()
	add(c.GetMissed(), plural(c.GetMissed(), "execution", "executions")+" missed")
	add(c.GetDuplicated(), "seen twice")
	add(c.GetExtra(), "made up")
	add(c.GetFailed(), "storm steps failed")
	return s.o.Styles.Bad.Render("not passed") + ": " + strings.Join(parts, ", ")
}
