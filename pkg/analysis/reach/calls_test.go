package reach

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// TestCallers follows edges by chance, and asks for callers between them: what
// is found is what was followed, in that order.
func TestCallers(t *testing.T) {
	const funcs = 20
	g := &graph{trail: newTrail()}
	for range 2 {
		g.trail.member(&facts.Facts{Funcs: make([]facts.Func, funcs), Regions: make([]facts.Region, 3)})
	}
	g.flags = make([]uint8, g.trail.next)
	random := rand.New(rand.NewPCG(1, 2))
	kinds := []edgeKind{edgeCall, edgeImport, edgeTaken, edgeTable, edgeRefers}
	want := map[uint32][]caller{}
	for round := range 300 {
		for range random.IntN(4) {
			from := node{m: int32(random.IntN(2)), i: uint32(random.IntN(funcs))}
			for range random.IntN(5) { // a run
				to := node{m: int32(random.IntN(2)), i: uint32(random.IntN(funcs))}
				kind, id := kinds[random.IntN(len(kinds))], g.trail.id(to)
				imp := uint32(random.IntN(99))
				g.trail.link(g.trail.id(from), id, kind, imp)
				switch kind {
				case edgeCall:
					want[id] = append(want[id], caller{from.m, from.i, -1})
				case edgeImport:
					want[id] = append(want[id], caller{from.m, from.i, int32(imp)})
				}
			}
		}
		for range round % 3 {
			id := g.trail.id(node{m: int32(random.IntN(2)), i: uint32(random.IntN(funcs))})
			if got := g.callers(id); !slices.Equal(got, want[id]) {
				t.Fatalf("round %d: callers of %d: %v, want %v", round, id, got, want[id])
			}
		}
	}
	if len(g.callers(g.trail.next)) > 0 {
		t.Error("a function that came later has callers")
	}
}
