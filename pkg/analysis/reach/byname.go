package reach

import (
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// byName is what an object does that lets the program call any function by its
// name, syscall(2) among them: it looks functions up by names that it computes,
// and either calls what it finds with arguments that it computes (through
// libffi, as ctypes does), or looks in everything that is loaded while it makes
// code at run time (a compiler with foreign functions).
type byName struct {
	looksUp  node // who looks up by computed names
	anywhere bool // in whatever is loaded, not in one library
	foreign  bool // it calls through libffi, or code like that (callsAnything)
	execs    []use
}

// protExec is PROT_EXEC (mman(2)).
const protExec = 4

// noteByName takes in a call of one of the functions that matter.
func (g *graph) noteByName(n node, imp uint32, r role) {
	b := func() *byName {
		m := g.members[n.m]
		if m.byName == nil {
			m.byName = &byName{looksUp: noNode}
		}
		return m.byName
	}
	switch r {
	case roleForeign:
		b().foreign = true
	case roleProtects:
		b().execs = append(b().execs, use{n, imp, true})
	case roleLooksUp:
		names, ok := g.names(n, imp, facts.Argument(g.members[n.m].facts.Machine, 1))
		if ok && !names.Computed {
			return
		}
		if b().looksUp == noNode {
			b().looksUp = n
		}
		b().anywhere = b().anywhere || g.defaultScope(n, imp)
	}
}

// defaultScope reports whether a call of dlsym has RTLD_DEFAULT (0) or RTLD_NEXT
// (-1) for its library.
func (g *graph) defaultScope(n node, imp uint32) bool {
	all, err := g.members[n.m].link.Object.ImportSites(g.ctx, imp, facts.Argument(g.members[n.m].facts.Machine, 0))
	if err != nil {
		g.fail(err)
	}
	for _, s := range all[n.i] {
		if slices.Contains(s.Nrs, 0) || slices.Contains(s.Nrs, -1) {
			return true
		}
	}
	return false
}

// callsByName widens the answer where an object can call anything by name.
func (g *graph) callsByName() {
	for _, m := range g.members {
		b := m.byName
		if b != nil && b.looksUp != noNode {
			b.foreign = b.foreign || g.callsAnything(m)
		}
		switch {
		case b == nil:
		case b.foreign && b.looksUp != noNode:
			g.anyFunction(m, b, "it looks functions up by names that it computes, and calls them with arguments that it computes")
		case b.anywhere && b.looksUp != noNode && slices.ContainsFunc(b.execs, func(u use) bool { return g.makesCode(u, true) }):
			g.anyFunction(m, b, "it may make code at run time, and looks functions up by names that it computes in everything that is loaded")
		case slices.ContainsFunc(b.execs, func(u use) bool { return g.makesCode(u, false) }):
			g.note("jit", m.link.Object.Path, "it makes code at run time, which is taken to make only calls that the code around it can make")
		}
	}
}

// callsAnything reports whether an object holds or imports code that calls
// whatever it is told to with arguments from a table: what libffi does, a
// library like it, or an interpreter itself.
func (g *graph) callsAnything(m *member) bool {
	for _, i := range m.facts.Generic() {
		if g.flags[m.base+i]&isReached != 0 {
			return true
		}
	}
	for i := range m.imports {
		for _, t := range m.imports[i].targets {
			to := g.members[t.m]
			fi := t.id - to.base
			if fi < uint32(len(to.facts.Funcs)) && to.facts.Funcs[fi].Generic && g.flags[t.id]&isReached != 0 {
				return true
			}
		}
	}
	return false
}

func (g *graph) anyFunction(m *member, b *byName, why string) {
	g.res.Widened = true
	where := m.facts.Symbols[b.looksUp.i]
	if where != "" {
		where = "in " + where + " "
	}
	g.issue("computed-call", m.link.Object.Path, where+why+": it can make any call", false)
}

// makesCode reports whether a call asks for memory that can be executed. What
// can't be known counts as unknown says.
func (g *graph) makesCode(u use, unknown bool) bool {
	m := g.members[u.n.m]
	l := facts.Argument(m.facts.Machine, 2)
	all, err := m.link.Object.ImportSites(g.ctx, u.imp, l)
	if err != nil {
		g.fail(err)
		return false
	}
	return g.executable(u.n, all[u.n.i], 0, unknown)
}

// maxPassed bounds the functions that pass a protection on.
const maxPassed = 4

func (g *graph) executable(n node, sites []facts.Site, depth int, unknown bool) bool {
	m := g.members[n.m]
	var params []param
	for i := range sites {
		if slices.ContainsFunc(sites[i].Nrs, func(v int32) bool { return v > 0 && v&protExec != 0 && v < 1<<16 }) || unknown && sites[i].Unresolved != "" {
			return true
		}
		params = append(params, sites[i].Params...)
	}
	id := g.trail.id(n)
	if depth == maxPassed || len(params) > 0 && g.flags[id]&isHeld != 0 {
		return unknown
	}
	callers := map[uint32]bool{}
	for _, c := range g.callers(id) {
		if c.m == n.m && c.imp < 0 {
			callers[c.fn] = true
		}
	}
	for _, p := range slices.Compact(params) {
		for _, c := range slices.Sorted(maps.Keys(callers)) {
			passed, err := m.link.Object.Passed(g.ctx, c, n.i, p)
			if err != nil {
				g.fail(err)
				return false
			}
			if g.executable(node{m: n.m, i: c}, passed, depth+1, unknown) {
				return true
			}
		}
	}
	return false
}
