package main

import (
	"slices"
	"testing"

	"github.com/confinehq/confine/pkg/monitor/proc"
)

// feed hands lines to a stream and returns the names of the executions, the
// number of malformed lines and of losses.
func feed(k kind, lines ...string) (names []string, malformed int, lost uint64) {
	s := &stream{
		tool: tool{kind: k}, headed: make(chan struct{}),
		awaited: map[int32]chan struct{}{}, early: map[int32]bool{},
		handle:    func(x proc.Execution) { names = append(names, x.Name) },
		malformed: func() { malformed++ },
		lost:      func(n uint64) { lost += n },
	}
	for _, l := range lines {
		s.line(l, true)
	}
	s.complaint("Lost 4 events on CPU #0!", true)
	return names, malformed, lost
}

const tableHead = "PCOMM            PID    PPID   RET ARGS"

func TestOutput(t *testing.T) {
	names, malformed, lost := feed(libbpf,
		"libbpf: something before the head", tableHead,
		`true             32673  32666    0 "/bin/true" `,
		"what is this line that nobody can read?",
		"a", `b              7      1        0 "/a\nb" `, // a thread's name with a newline
		`true             32674  32666    0 "/bin/false" " ...`)
	if want := []string{"/bin/true", `/a\nb`, "/bin/false"}; !slices.Equal(names, want) || malformed != 1 || lost != 4 {
		t.Errorf("%q, %d malformed, %d lost, want %q, 1, 4", names, malformed, lost, want)
	}
	names, malformed, _ = feed(bpftrace, "Attaching 3 probes...", "TIME(ms)   PID   ARGS",
		"2827       32766 /bin/sh -c first", "second line of an argument", "2828       32767 /bin/true")
	if want := []string{"/bin/sh", "/bin/true"}; !slices.Equal(names, want) || malformed != 0 {
		t.Errorf("%q, %d malformed, want %q, 0", names, malformed, want)
	}
}

// A line that is too long to be an event is counted, and ends what came before.
func TestOverlong(t *testing.T) {
	malformed := 0
	s := &stream{tool: tool{kind: libbpf}, headed: make(chan struct{}), malformed: func() { malformed++ }}
	close(s.headed)
	s.line("x", true)
	s.line("a part of a line", false)
	if malformed != 1 || s.pieces != "" {
		t.Errorf("%d malformed, %q left, want 1 and nothing", malformed, s.pieces)
	}
}

func TestHeads(t *testing.T) {
	for _, c := range []struct {
		kind kind
		line string
		want bool
	}{
		{libbpf, tableHead, true},
		{bcc, "PCOMM            PID     PPID    RET ARGS", true},
		{libbpf, "TIME(s)  PCOMM            PID    PPID   RET ARGS", false},
		{bpftrace, "TIME(ms)   PID   ARGS", true},
		{bpftrace, "TIME       PID     PPID    ARGS", false},
		{libbpf, "", false},
	} {
		if got := c.kind.header(c.line); got != c.want {
			t.Errorf("%s: %q: %v", c.kind, c.line, got)
		}
	}
}
