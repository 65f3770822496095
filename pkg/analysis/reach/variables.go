package reach

import (
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// keptIn is a site whose number lies in a variable that its object exports.
type keptIn struct {
	n node
	s *facts.Site
}

// exportedNumbers leaves those open that another object can change: once all
// are there.
func (g *graph) exportedNumbers() {
	known := map[exportID]bool{}
	for _, k := range g.kept {
		if slices.ContainsFunc(k.s.Vars, func(v uint32) bool {
			id := exportID{k.n.m, int(v)}
			open, asked := known[id]
			if !asked {
				open = g.changeable(id)
				known[id] = open
			}
			return open
		}) {
			g.unresolved(k.n, k.s, facts.SharedNumber)
		}
	}
}

// changeable reports whether another object than the one that exports a
// variable gets hold of it by its name, through the loader or by looking it up.
// A name that is computed can be any where everything that is loaded is looked
// through; else it can't be one of the program's, which no library needs.
func (g *graph) changeable(e exportID) bool {
	name := g.members[e.m].facts.Exports[e.k].Name
	if g.anywhere || g.anyName && e.m != 0 || g.reachedText(name) {
		return true
	}
	sym := facts.SymbolOf(name)
	if slices.ContainsFunc(g.sought, func(s sought) bool { return s.sym == sym }) {
		return true
	}
	for i, m := range g.members {
		if int32(i) != e.m && slices.ContainsFunc(m.facts.Imports, func(im facts.Import) bool { return im.Name == name }) {
			return true
		}
	}
	return false
}
