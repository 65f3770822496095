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
		name := m.facts.Imports[imp].Name
		_, watched := g.watched[name]
		b.asked, b.role, b.watched = true, roleOf(name), watched
	}
	if len(b.targets) == 0 {
		// What isn't there yet may come with a library that is loaded later.
		b.targets = g.targets(mi, imp)
	}
	return b
}

func (g *graph) targets(mi int32, imp uint32) []target {
	im := &g.members[mi].facts.Imports[imp]
	sym := g.members[mi].facts.Symbol(imp)
	exact := func(f *facts.Facts) []int { return link.Lookup(g.ids[:0], f, sym, im.Version) }
	any := func(f *facts.Facts) []int { return link.LookupAny(g.ids[:0], f, sym) }
	var out []target
	// The loader's order first; then, for what it would refuse or find
	// through another group, anything of that name.
	for _, way := range []struct {
		scope []int32
		look  func(*facts.Facts) []int
	}{{g.members[mi].scope, exact}, {g.everyone, exact}, {g.members[mi].scope, any}, {g.everyone, any}} {
		var found bool
		if out, found = g.find(mi, im, way.scope, way.look); found {
			break
		}
	}
	if im.Own {
		if im.OwnFunc > 0 {
			out = append(out, target{node{m: mi, i: im.OwnFunc - 1}, true})
		}
		if im.OwnRegion > 0 {
			out = append(out, target{node{m: mi, i: im.OwnRegion - 1, region: true}, false})
		}
	}
	return out
}

// find looks for what an import binds to in the first member of a scope that
// has it.
func (g *graph) find(mi int32, im *facts.Import, scope []int32, look func(*facts.Facts) []int) (out []target, found bool) {
	for _, j := range scope {
		if im.Copy && j == mi {
			continue
		}
		ids := look(g.members[j].facts)
		if len(ids) == 0 {
			continue
		}
		out = g.exported(out, j, ids)
		for _, alt := range g.members[j].link.Alternates {
			if a, ok := g.index[alt]; ok {
				out = g.exported(out, a, look(g.members[a].facts))
			}
		}
		return out, true
	}
	return nil, false
}

// exported appends what some exports of a member are.
func (g *graph) exported(out []target, j int32, ids []int) []target {
	for _, k := range ids {
		e := &g.members[j].facts.Exports[k]
		if e.Func > 0 {
			out = append(out, target{node{m: j, i: e.Func - 1}, true})
		}
		if e.Region > 0 {
			out = append(out, target{node{m: j, i: e.Region - 1, region: true}, false})
		}
	}
	return out
}

// resolvers enters the resolvers of indirect functions (STT_GNU_IFUNC) that
// imports of new members bind to: the loader runs them when it binds, whether or
// not anything calls the function then.
func (g *graph) resolvers(from int32) {
	for _, m := range g.members[from:] {
		for k := range m.facts.Exports {
			if m.facts.Exports[k].IFunc {
				g.indirectNames[m.facts.Exports[k].Name] = true
			}
		}
	}
	for i := from; i < int32(len(g.members)); i++ {
		m := g.members[i]
		for k := range m.facts.Imports {
			if !g.indirectNames[m.facts.Imports[k].Name] {
				continue
			}
			for _, t := range g.bind(i, uint32(k)).targets {
				if t.fun {
					g.members[t.n.m].rooted[t.n.i] = true
				}
				g.enter(t.n, g.cause, edgeInit, direct)
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
