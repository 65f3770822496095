package reach

import (
	"fmt"
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// site records what one site of a reachable function does.
func (g *graph) site(n node, s *facts.Site) {
	calls := g.res.Calls
	if s.Kind != facts.SiteSyscall {
		calls = g.res.Compat
	}
	for _, nr := range s.Nrs {
		g.call(calls, n, nr, s)
	}
	if s.Unresolved != "" {
		g.unresolved(n, s, s.Unresolved)
	}
	if len(s.Vars) > 0 {
		g.kept = append(g.kept, keptIn{n, s})
	}
	if s.Derefs {
		return // nobody outside of the object passes such a pointer; else the site is unresolved
	}
	for _, p := range s.Params {
		g.wrapper(n, p)
	}
}

func (g *graph) call(calls map[int32]*Call, n node, nr int32, s *facts.Site) {
	to, how := g.via(n, s)
	g.trail.made = append(g.trail.made, made{nr: nr, compat: s.Kind != facts.SiteSyscall, by: n, at: s.Addr, to: to, how: how})
	if calls[nr] == nil {
		calls[nr] = &Call{Nr: nr}
	}
	calls[nr].Sites++
}

func (g *graph) unresolved(n node, s *facts.Site, why string) {
	g.res.Widened = true
	g.res.AnyCompat = g.res.AnyCompat || s.Kind != facts.SiteSyscall
	to, how := g.via(n, s)
	g.trail.made = append(g.trail.made, made{nr: -1, compat: s.Kind != facts.SiteSyscall, by: n, at: s.Addr, to: to, how: how, why: why})
	g.open(n, s.Addr, why)
}

// openKey is a function with system calls that can be any, for one reason.
type openKey struct {
	by  node
	why string
}

// openCalls are its calls.
type openCalls struct {
	issue int      // index in Result.Issues
	at    []uint64 // addresses
}

// open says that a system call can be any: once for each function, however many
// it has.
func (g *graph) open(n node, at uint64, why string) {
	k := openKey{n, why}
	o, known := g.anyAt[k]
	if !known {
		o = &openCalls{issue: len(g.res.Issues)}
		g.anyAt[k] = o
		g.res.Issues = append(g.res.Issues, Issue{Kind: "unresolved-number", Object: g.members[n.m].link.Object.Path})
	}
	if slices.Contains(o.at, at) {
		return
	}
	o.at = append(o.at, at)
	what := fmt.Sprintf("the system call at %#x", at)
	if len(o.at) > 1 {
		what = fmt.Sprintf("%d system calls, the first at %#x,", len(o.at), slices.Min(o.at))
	}
	if sym := g.members[n.m].facts.Symbols[n.i]; sym != "" {
		what += " in " + sym
	}
	g.res.Issues[o.issue].Detail = what + " can be any: " + why
}

// wrapper notes that calls of a function from other objects pass a number.
// Calls within the object are sites of their own already.
func (g *graph) wrapper(n node, p param) {
	id := g.trail.id(n)
	if slices.Contains(g.wraps[id], p) {
		return
	}
	g.wraps[id] = append(g.wraps[id], p)
	g.flags[id] |= isWrapper
	for _, c := range g.callers(id) {
		g.passes(n, c, p)
	}
}

// called finds what a call passes, which the trail has already.
func (g *graph) called(t target, c caller) {
	if g.flags[t.id]&isWrapper == 0 {
		return
	}
	to := node{m: t.m, i: t.id - g.members[t.m].base}
	for _, p := range slices.Clone(g.wraps[t.id]) {
		g.passes(to, c, p)
	}
}

// besides is a call whose number a function passes to a wrapper in a parameter,
// with what is known of the wrapper's other parameters there, by location.
type besides struct {
	nr   int32
	to   node
	p    param
	args []facts.Arg
}

// passes finds the numbers that a caller passes to a wrapper.
func (g *graph) passes(to node, c caller, p param) {
	m := g.members[c.m]
	var sites []facts.Site
	switch {
	case c.imp >= 0:
		all, err := m.link.Object.ImportSites(g.ctx, uint32(c.imp), p)
		if err != nil {
			g.fail(err)
			return
		}
		sites = all[c.fn]
	case g.ownSites(to, p):
		return // sites of the caller already
	default:
		var err error
		if sites, err = m.link.Object.Passed(g.ctx, c.fn, to.i, p); err != nil {
			g.fail(err)
			return
		}
	}
	from := node{m: c.m, i: c.fn}
	edge := edgeImport
	if c.imp < 0 {
		edge = edgeCall
	}
	for i := range sites {
		s := &sites[i]
		for _, nr := range s.Nrs {
			g.number(nr, from, to, s.Addr, edge)
			g.besides = append(g.besides, besides{nr, to, p, s.Args})
		}
		if s.Unresolved != "" {
			g.unresolved(from, s, s.Unresolved)
		}
		for _, q := range s.Params {
			if s.Derefs {
				g.unresolved(from, s, "the number is passed behind a pointer")
				continue
			}
			g.trail.handed[from] = append(g.trail.handed[from], hand{to, s.Addr, edge})
			g.wrapper(from, q)
		}
	}
}

// indirect finds the numbers that are passed to a wrapper through pointers that
// lie in data (libcap's table of system calls): the numbers at the indirect
// calls of the object whose data it is. A call whose argument isn't a constant
// is taken for one of another function, when there are some with constants. An
// address that code takes may go anywhere, and nothing is known of those calls.
func (g *graph) indirect(n node) {
	m := g.members[n.m]
	var params []param
	own := map[param]*facts.Site{}
	for k := range m.facts.Funcs[n.i].Sites {
		if s := &m.facts.Funcs[n.i].Sites[k]; !s.Called {
			for _, p := range s.Params {
				params, own[p] = append(params, p), s
			}
		}
	}
	params = append(params, g.wraps[g.trail.id(n)]...)
	slices.Sort(params)
	for _, p := range slices.Compact(params) {
		site := own[p]
		if site == nil {
			site = &facts.Site{Addr: m.facts.Funcs[n.i].Start}
		}
		known := !site.Derefs
		for _, h := range g.holders.of(g.held[g.trail.id(n)]) {
			known = known && h != outside && g.passedIndirectly(n, h, p)
		}
		if !known {
			g.unresolved(n, site, "the number is passed by whoever calls this function through a pointer")
		}
	}
}

// passedIndirectly adds the constants at one holder's indirect calls, and
// reports whether there are any.
func (g *graph) passedIndirectly(n node, holder int32, p param) bool {
	h := g.members[holder]
	all, err := h.link.Object.IndirectSites(g.ctx, p)
	if err != nil {
		g.fail(err)
		return false
	}
	found := false
	for _, c := range slices.Sorted(maps.Keys(all)) {
		from := node{m: holder, i: c}
		for _, s := range all[c] {
			for _, nr := range s.Nrs {
				if nr < 0 || nr > maxNumber {
					continue // an address, or something else that is no number
				}
				found = true
				if g.flags[h.base+c]&isReached != 0 {
					g.number(nr, from, n, s.Addr, edgeIndirect)
					g.res.Calls[nr].free = true
				}
			}
		}
	}
	if found {
		g.note("indirect-number", h.link.Object.Path, "it passes system call numbers through function pointers; the constants at its indirect calls are included")
	}
	return found
}

// maxNumber is above every system call number that there is.
const maxNumber = 1023

// number adds a call whose number one function passes to another.
func (g *graph) number(nr int32, from, to node, at uint64, edge edgeKind) {
	g.trail.made = append(g.trail.made, made{nr: nr, by: from, at: at, to: to, how: edge})
	if g.res.Calls[nr] == nil {
		g.res.Calls[nr] = &Call{Nr: nr}
	}
	g.res.Calls[nr].Sites++
}

// ownSites reports whether a parameter belongs to a site of the facts, whose
// callers in the same object were evaluated when they were made.
func (g *graph) ownSites(n node, p param) bool {
	for _, s := range g.members[n.m].facts.Funcs[n.i].Sites {
		for _, q := range s.Params {
			if p == q {
				return true
			}
		}
	}
	return false
}
