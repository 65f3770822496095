package term

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
)

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// terminal is an output that believes that a person looks at it.
func terminal(b *bytes.Buffer) *Output {
	o := NewOutput(b, env("TERM", "xterm", "LANG", "C"))
	o.Terminal, o.Redraw = true, true
	return o
}

func TestOutputIntoAFile(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, env("TERM", "xterm-256color", "LANG", "de_DE.UTF-8"))
	if o.Terminal || o.Redraw || o.Width() != plainWidth || o.Height() != 0 {
		t.Errorf("a buffer is taken for a terminal: %+v", o)
	}
	if got := o.Styles.Bad.Render("x"); got != "x" {
		t.Errorf("colour in a file: %q", got)
	}
}

func TestSymbolsFollowTheLocale(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "+"}, {[]string{"LANG", "C"}, "+"}, {[]string{"LANG", "en_US.UTF-8"}, "✓"},
		{[]string{"LANG", "en_US.UTF-8", "LC_ALL", "C"}, "+"}, {[]string{"LC_CTYPE", "C.utf8"}, "✓"},
	} {
		if got := symbols(env(c.env...)).Done; got != c.want {
			t.Errorf("%q: %q, want %q", c.env, got, c.want)
		}
	}
}

func TestStagesWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, env())
	s := NewStages(o, "Title", []string{"one", "two", "three"}, false)
	s.Update(Step{Stage: "one", Text: "begins"})
	s.Update(Step{Stage: "one", Count: 1, Total: 2})
	s.Update(Step{Stage: "one", Done: true, Text: "finished"})
	s.Update(Step{Stage: "one", Done: true, Text: "again"})
	s.Update(Step{Stage: "two", Done: true})
	s.Update(Step{Stage: "unforeseen", Done: true, Text: "x"})
	s.Close(false)
	s.Close(false)
	if got, want := b.String(), "Title\none: finished (0.0s)\ntwo: done (0.0s)\nunforeseen: x (0.0s)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	s = NewStages(o, "Title", []string{"one"}, true)
	s.Update(Step{Stage: "one", Done: true})
	s.Close(true)
	if b.Len() > 0 {
		t.Errorf("quiet, and still %q", b.String())
	}
}

// TestPicture states the lines at one moment.
func TestPicture(t *testing.T) {
	var b bytes.Buffer
	now := time.Unix(1000, 0)
	s := &Stages{out: terminal(&b), title: "Profiling redis", now: func() time.Time { return now }}
	for _, name := range []string{"image", "run", "prove"} {
		s.stages = append(s.stages, &stage{Step: Step{Stage: name}})
	}
	s.Update(Step{Stage: "image", Text: "resolving"})
	now = now.Add(1200 * time.Millisecond)
	s.Update(Step{Stage: "image", Done: true})
	s.Update(Step{Stage: "run", Count: 3, Total: 10, Text: "objects"})
	now = now.Add(61 * time.Second)
	picture := func() string { return ansi.Strip(strings.Join(s.lines(now, 80), "\n")) }
	pad := func(text string) string { return text + strings.Repeat(" ", 56-len(text)) }
	want := "Profiling redis\n" +
		"  + image  " + pad("resolving") + "  1.2s\n" +
		"  - run    " + pad("3/10 objects") + "  1m1s\n" +
		"  . prove"
	if got := picture(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	s.ended, s.failed = true, true
	want = strings.Replace(strings.Replace(want, "- run", "x run", 1), ". prove", "- prove", 1)
	if got := picture(); got != want {
		t.Errorf("failed:\n%s\nwant\n%s", got, want)
	}
	for width := 1; width < 100; width++ {
		for _, line := range s.lines(now, width) {
			if w := ansi.StringWidth(line); width > 4 && w >= width {
				t.Errorf("width %d: %d columns in %q", width, w, line)
			}
		}
	}
}

// TestLiveStages updates from many sides while it paints.
func TestLiveStages(t *testing.T) {
	var b bytes.Buffer
	o := terminal(&b)
	s := &Stages{out: o, title: "T", now: time.Now, live: true, stop: make(chan struct{}), done: make(chan struct{})}
	for i := range 4 {
		s.stages = append(s.stages, &stage{Step: Step{Stage: fmt.Sprint(i)}})
	}
	go s.tick()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 100 {
				s.Update(Step{Stage: fmt.Sprint(i), Count: uint32(n), Total: 100})
			}
			s.Update(Step{Stage: fmt.Sprint(i), Done: true, Text: fmt.Sprint("done ", i)})
		})
	}
	wg.Wait()
	s.Close(false)
	last := b.String()
	if i := strings.LastIndex(last, "A\r"); i >= 0 {
		last = last[i:]
	}
	for i := range 4 {
		if !strings.Contains(last, fmt.Sprint("done ", i)) {
			t.Errorf("the last picture lacks stage %d: %q", i, last)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	o := NewOutput(&b, env())
	if err := Table(o, [][]string{{"A", "LONG", "C"}, {"1", "\x1b[31mred\x1b[0m", "ü"}, {"longer", "", "x"}}); err != nil {
		t.Fatal(err)
	}
	want := "A       LONG  C\n1       \x1b[31mred\x1b[0m   ü\nlonger        x\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestWrap(t *testing.T) {
	if got, want := Wrap("one two three four five six", 2, 22), "one two three four\n  five six"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := Wrap("give it an option --log-level", 2, 26), "give it an option\n  --log-level"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := Wrap("short", 50, 20); got != "short" {
		t.Errorf("got %q", got)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0s", 1540 * time.Millisecond: "1.5s", 59 * time.Second: "59.0s", 61 * time.Second: "1m1s", 3*time.Hour + 400*time.Millisecond: "3h0m0s",
	} {
		if got := Seconds(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
