package main_test

import (
	"strconv"
	"strings"
	"testing"

	confinev1 "github.com/confinehq/confine/proto/confine/v1"
)

// lossesOf are the losses of a snapshot by reason.
func (s *seen) lossesOf() map[string]uint64 {
	sums := map[string]uint64{}
	for _, l := range s.snapshot.GetLosses() {
		sums[l.GetReason()] += l.GetCount()
	}
	return sums
}

// Whatever limit of the kernel's side is reached, what it costs is counted with
// the reason, and nothing else is lost.
func TestLossesByCause(t *testing.T) {
	nop := compile(t, "nop.c", "-static")
	overflow := compile(t, "overflow.c")
	for _, c := range []struct {
		how    string
		count  int
		reason string
		lost   uint64 // at least
		most   uint64
	}{
		{"number", 5, "a call number outside the table", 5, 5},
		{"ranges", 100, "too many mappings were made executable at once", 1, 1},
		// 8192 have a place; the shell and the program itself take two.
		{"images", 8200, "too many different programs ran", 10, 40},
		{"places", 8200, "too many different refused calls", 8, 8},
		{"path", 20, "a path was too long to be read whole", 1, 1},
	} {
		t.Run(c.how, func(t *testing.T) {
			t.Parallel()
			client := start(t)
			tr := newTree(t, nil, overflow, c.how, strconv.Itoa(c.count), nop, real(t, t.TempDir()))
			s := observe(t, client, &confinev1.Scope{Pid: tr.pid()}, tr.run)
			got := s.lossesOf()
			if n := got[c.reason]; n < c.lost || n > c.most || len(got) != 1 {
				t.Errorf("lost %v, want %d to %d for %q alone; the program said %q", got, c.lost, c.most, c.reason, tr.out.String())
			}
			if sum := s.snapshot.GetLost(); sum != got[c.reason] {
				t.Errorf("%d lost, %d with a reason", sum, got[c.reason])
			}
			switch c.how {
			case "images":
				if n := len(s.execs); n != c.count+1 {
					t.Errorf("%d executions, want all %d: only their calls aren't known", n, c.count+1)
				}
			case "places":
				var n uint64
				for _, d := range s.snapshot.GetDenied() {
					n += d.GetCount()
				}
				if n != 8192 || len(s.denied) != c.count {
					t.Errorf("%d refused calls in the snapshot, %d told, want 8192 and %d", n, len(s.denied), c.count)
				}
			case "path":
				if len(s.execs) != 2 || !strings.HasPrefix(s.execs[1].GetPath(), "(truncated)") {
					t.Errorf("executed %v, want the last one with what is known of its path", s.names())
				}
			}
		})
	}
}
