package term

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// redrawEvery is how often live progress is painted: often enough for a
// spinner to look alive, seldom enough to cost nothing.
const redrawEvery = 100 * time.Millisecond

// Step is news about one stage of a long job.
type Step struct {
	Stage string
	// Done is true when the stage is finished.
	Done bool
	// Text says what was reached.
	Text string
	// Count of Total; Total is 0 when it isn't known.
	Count, Total uint32
}

// Stages shows the progress of a job that goes through known stages. On a
// terminal the stages are lines that are redrawn; elsewhere one line is
// written for each finished stage. Methods are safe for concurrent use.
type Stages struct {
	out   *Output
	title string
	quiet bool
	live  bool // lines are redrawn
	now   func() time.Time

	mu      sync.Mutex
	stages  []*stage
	painted int // lines on the screen that belong to us
	failed  bool
	ended   bool

	stop chan struct{}
	done chan struct{}
}

type stage struct {
	Step
	started, finished time.Time
	seen              bool
}

// NewStages starts to show the named stages. Quiet shows nothing. Close must
// be called; it leaves the final state behind.
func NewStages(out *Output, title string, names []string, quiet bool) *Stages {
	s := &Stages{
		out: out, title: title, quiet: quiet, now: time.Now,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	// All lines must fit, or the cursor can't go back to the first.
	s.live = !quiet && out.Redraw && out.Height() > len(names)+3
	for _, name := range names {
		s.stages = append(s.stages, &stage{Step: Step{Stage: name}})
	}
	if !s.live {
		close(s.done)
		if !quiet {
			fmt.Fprintln(out, title)
		}
		return s
	}
	s.paint()
	go s.tick()
	return s
}

func (s *Stages) tick() {
	defer close(s.done)
	t := time.NewTicker(redrawEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.paint()
		}
	}
}

// Update takes news. A stage that nobody announced is added at the end.
func (s *Stages) Update(step Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.find(step.Stage)
	now := s.now()
	if !st.seen {
		st.seen, st.started = true, now
	}
	wasDone := st.Done
	text := st.Text
	st.Step = step
	if step.Text == "" {
		st.Text = text
	}
	if step.Done {
		st.finished = now
		if !wasDone && !s.quiet && !s.live {
			fmt.Fprintln(s.out, s.plain(st))
		}
	}
}

func (s *Stages) find(name string) *stage {
	for _, st := range s.stages {
		if st.Stage == name {
			return st
		}
	}
	st := &stage{Step: Step{Stage: name}}
	s.stages = append(s.stages, st)
	return st
}

// Close ends the display. With failed, stages that are under way are marked so.
func (s *Stages) Close(failed bool) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.failed = true, failed
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	if s.live {
		s.paint()
	}
}

// plain is the line for one finished stage where nothing can be redrawn.
func (s *Stages) plain(st *stage) string {
	text := st.Text
	if text == "" {
		text = "done"
	}
	return fmt.Sprintf("%s: %s (%s)", st.Stage, text, Seconds(st.finished.Sub(st.started)))
}

func (s *Stages) paint() {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines(s.now(), s.out.Width())
	var b strings.Builder
	if s.painted > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", s.painted)
	}
	for _, line := range lines {
		b.WriteString("\x1b[2K" + line + "\n")
	}
	s.painted = len(lines)
	// A terminal that went away must not end the job.
	_, _ = io.WriteString(s.out, b.String())
}

// lines is the picture at one moment.
func (s *Stages) lines(now time.Time, width int) []string {
	names := 0
	for _, st := range s.stages {
		names = max(names, len(st.Stage))
	}
	lines := []string{ansi.Truncate(s.out.Styles.Title.Render(s.title), width-1, s.out.Symbols.Ellipsis)}
	for _, st := range s.stages {
		lines = append(lines, s.line(st, now, names, width))
	}
	return lines
}

func (s *Stages) line(st *stage, now time.Time, names, width int) string {
	mark, elapsed := s.mark(st, now)
	left := "  " + mark + " " + Pad(st.Stage, names) + "  "
	right := ""
	if st.seen {
		right = "  " + Seconds(elapsed)
	}
	text := st.Text
	if !st.Done && st.Total > 0 {
		text = strings.TrimSpace(fmt.Sprintf("%d/%d %s", st.Count, st.Total, text))
	}
	room := width - 1 - ansi.StringWidth(left) - ansi.StringWidth(right)
	if room < 1 {
		return ansi.Truncate(strings.TrimRight(left, " "), width-1, "")
	}
	// Times stand in one column, not at the far end of a wide terminal.
	body := Pad(ansi.Truncate(text, room, s.out.Symbols.Ellipsis), min(room, 56))
	return strings.TrimRight(left+body+s.out.Styles.Dim.Render(right), " ")
}

// mark is the sign in front of a stage and the time it took so far.
func (s *Stages) mark(st *stage, now time.Time) (string, time.Duration) {
	sy, c := s.out.Symbols, s.out.Styles
	switch {
	case st.Done:
		return c.Good.Render(sy.Done), st.finished.Sub(st.started)
	case !st.seen && s.ended:
		return c.Dim.Render(sy.Skipped), 0
	case !st.seen:
		return c.Dim.Render(sy.Waiting), 0
	case s.ended && s.failed:
		return c.Bad.Render(sy.Failed), now.Sub(st.started)
	case s.ended:
		return c.Dim.Render(sy.Skipped), now.Sub(st.started)
	}
	elapsed := now.Sub(st.started)
	frame := int(elapsed/redrawEvery) % len(sy.Spin)
	return c.Name.Render(sy.Spin[frame]), elapsed
}

// Seconds prints a duration with the precision that a person cares about.
func Seconds(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
