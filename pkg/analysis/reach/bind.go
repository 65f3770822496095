package reach

import (
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
)

// bind returns what an import binds to.
func (g *graph) bind(mi int32, imp uint32) []target {
	m := g.members[mi]
	if t, ok := m.bound[imp]; ok {
		return t
	}
	im := &m.facts.Imports[imp]
	var out []target
	add := func(j int32, ids []int) {
		for _, k := range ids {
			e := &g.members[j].facts.Exports[k]
			if e.Func > 0 {
				out = append(out, target{node{m: j, i: e.Func - 1}, true})
			}
			if e.Region > 0 {
				out = append(out, target{node{m: j, i: e.Region - 1, region: true}, false})
			}
		}
	}
	find := func(scope []int32, look func(*facts.Facts) []int) bool {
		for _, j := range scope {
			if im.Copy && j == mi {
				continue
			}
			ids := look(g.members[j].facts)
			if len(ids) == 0 {
				continue
			}
			add(j, ids)
			for _, alt := range g.members[j].link.Alternates {
				if a, ok := g.index[alt]; ok {
					add(a, look(g.members[a].facts))
				}
			}
			return true
		}
		return false
	}
	all := make([]int32, len(g.members))
	for i := range all {
		all[i] = int32(i)
	}
	exact := func(f *facts.Facts) []int { return link.Lookup(f, im.Name, im.Version) }
	any := func(f *facts.Facts) []int { return link.LookupAny(f, im.Name) }
	// The loader's order first; then, for what it would refuse or find
	// through another group, anything of that name.
	_ = find(m.scope, exact) || find(all, exact) || find(m.scope, any) || find(all, any)
	if im.Own {
		if im.OwnFunc > 0 {
			out = append(out, target{node{m: mi, i: im.OwnFunc - 1}, true})
		}
		if im.OwnRegion > 0 {
			out = append(out, target{node{m: mi, i: im.OwnRegion - 1, region: true}, false})
		}
	}
	if len(out) > 0 {
		// What isn't there yet may come with a library that is loaded later.
		m.bound[imp] = out
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
			for _, t := range g.bind(i, uint32(k)) {
				if t.fun {
					g.members[t.n.m].rooted[t.n.i] = true
				}
				g.enter(t.n, g.cause, "init", direct)
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
