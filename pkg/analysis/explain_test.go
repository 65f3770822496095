package analysis

import (
	"testing"

	"github.com/confinehq/confine/pkg/syscalls"
)

// TestExplanationOrder has a number that no table knows at the same step as one
// that is known: the places of a call are in the order of their chains' lengths
// all the same, however often they are put together.
func TestExplanationOrder(t *testing.T) {
	for range 64 {
		x := newExplainer()
		far := x.step(x.step(x.step(-1, Frame{Object: "a"}), Frame{Object: "b"}), Frame{Object: "c"})
		near := x.step(-1, Frame{Object: "d"})
		x.places = map[placeKey]*place{
			{nr: 0, address: 1}:    {Place{Step: far, Address: 1}, 3},
			{nr: 9999, address: 1}: {Place{Step: far, Address: 1}, 0},
			{nr: 0, address: 2}:    {Place{Step: near, Address: 2}, 1},
		}
		a := &analysis{explain: x, arch: syscalls.AMD64}
		e := a.explanation(nil)
		if len(e.Places) != 2 || e.Places[0].Address != 2 || e.Places[1].Address != 1 {
			t.Fatalf("places of read: %+v, want the near one first", e.Places)
		}
	}
}
