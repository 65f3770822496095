package reach

import (
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
)

// binding is what is known of an import of a member.
type binding struct {
	targets []target
	// looked is the number of members that there were when it was looked up.
	looked int32
	// asked is set when role and watched are known.
	asked   bool
	role    role
	watched bool // services ask for those who use it
}

// bind returns what an import binds to.
func (g *graph) bind(mi int32, imp uint32) *binding {
	m := g.members[mi]
	b := &m.imports[imp]
	if !b.asked {
		b.asked = true
		if g.matter.has(m.facts.Hash(imp)) {
			name := m.facts.Imports[imp].Name
			b.role = roles[name]
			_, b.watched = g.watched[name]
		}
	}
	if n := int32(len(g.members)); len(b.targets) == 0 && b.looked < n {
		// What isn't there yet may come with a library that is loaded later.
		b.targets, b.looked = g.targets(mi, imp), n
	}
	return b
}

// targets looks for what an import binds to.
func (g *graph) targets(mi int32, imp uint32) []target {
	f := g.members[mi].facts
	im, sym := &f.Imports[imp], f.Symbol(imp)
	exact := func(f *facts.Facts, first, end int) []int {
		return link.LookupIn(g.ids[:0], f, first, end, im.Version)
	}
	any := func(_ *facts.Facts, first, end int) []int { return link.All(g.ids[:0], first, end) }
	s := g.members[mi].scope
	everyone := scope{end: int32(len(g.members))}
	out := g.bound[:0]
	// The loader's order first; then, for what it would refuse or find
	// through another group, anything of that name.
	for _, way := range []struct {
		scope scope
		look  func(f *facts.Facts, first, end int) []int
	}{{s, exact}, {everyone, exact}, {s, any}, {everyone, any}} {
		var found bool
		if out, found = g.find(out, mi, sym, im.Copy, way.scope, way.look); found {
			break
		}
	}
	if im.Own {
		if im.OwnFunc > 0 {
			out = append(out, g.funcOf(mi, im.OwnFunc-1))
		}
		if im.OwnRegion > 0 {
			out = append(out, g.regionOf(mi, im.OwnRegion-1))
		}
	}
	g.bound = out
	return g.keep(out)
}

// targetChunk is how many targets share a piece of memory.
const targetChunk = 1 << 10

// keep returns a copy of some targets, in memory that many share.
func (g *graph) keep(list []target) []target {
	if len(list) == 0 {
		return nil
	}
	if len(list) > len(g.room) {
		g.room = make([]target, max(len(list), targetChunk))
	}
	out := g.room[:copy(g.room, list):len(list)]
	g.room = g.room[len(list):]
	return out
}

// find appends what a symbol binds to in the first member of a scope that has
// it. For a copy, another's definition counts.
func (g *graph) find(out []target, mi int32, s facts.Symbol, isCopy bool, in scope, look func(f *facts.Facts, first, end int) []int) (_ []target, found bool) {
	g.defs.of(s, g.members, func(j int32, first, end int) bool {
		if isCopy && j == mi || !in.has(j) {
			return true
		}
		ids := look(g.members[j].facts, first, end)
		if len(ids) == 0 {
			return true
		}
		out, found = g.exported(out, j, ids), true
		for _, alt := range g.members[j].link.Alternates {
			if a, ok := g.index[alt]; ok {
				f := g.members[a].facts
				first, end := f.Named(s)
				out = g.exported(out, a, look(f, first, end))
			}
		}
		return false
	})
	return out, found
}

// exported appends what some exports of a member are.
func (g *graph) exported(out []target, j int32, ids []int) []target {
	for _, k := range ids {
		e := &g.members[j].facts.Exports[k]
		if e.Func > 0 {
			out = append(out, g.funcOf(j, e.Func-1))
		}
		if e.Region > 0 {
			out = append(out, g.regionOf(j, e.Region-1))
		}
	}
	return out
}

func (g *graph) funcOf(m int32, i uint32) target { return target{g.members[m].base + i, m} }

func (g *graph) regionOf(m int32, i uint32) target {
	return target{g.members[m].base + g.trail.funcs[m] + i, m}
}

// resolvers enters the resolvers of indirect functions (STT_GNU_IFUNC) that
// imports of new members bind to: the loader runs them when it binds, whether or
// not anything calls the function then.
func (g *graph) resolvers(from int32) {
	for i := from; i < int32(len(g.members)); i++ {
		f := g.members[i].facts
		for k := range f.Imports {
			if g.defs.indirect(f, uint32(k), g.members) {
				g.begins(g.bind(i, uint32(k)))
			}
		}
	}
}

// defines reports whether a member exports a name with a prefix.
func (g *graph) defines(prefix string) bool {
	for _, m := range g.members {
		e := m.facts.Exports
		i := sort.Search(len(e), func(i int) bool { return e[i].Name >= prefix })
		if i < len(e) && strings.HasPrefix(e[i].Name, prefix) {
			return true
		}
	}
	return false
}
