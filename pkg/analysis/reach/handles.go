package reach

import (
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// handed is a call of one of the loader's functions in which somebody else may
// say that all that is loaded is meant: by RTLD_DEFAULT or RTLD_NEXT for a
// handle, or by no name for a library.
type handed struct {
	n   node
	imp uint32
	l   param
}

// origin is where a handle or the name of a library comes from.
type origin struct {
	// everything is set when it can be RTLD_DEFAULT (0) or RTLD_NEXT (-1).
	everything bool
	// none is set when somewhere it is 0 and nothing else: no name.
	none bool
	// kept is set when it can be something that can't be followed.
	kept bool
}

// lookEverywhere notes whether functions are looked up by computed names in
// all objects and not in a library that was loaded, and enters them: those whose
// names are texts, and, because names are put together of parts (a module's and
// what its function for the start is called), all that the program and who looks
// with RTLD_DEFAULT or RTLD_NEXT export themselves.
//
// A handle that can't be followed is one that dlopen returned: that of the whole
// program, where somebody asks for it. A function that only pointers lead to
// doesn't count there: nobody may call it.
func (g *graph) lookEverywhere() {
	for i := 0; i < len(g.opens) && !g.whole; i++ {
		n := g.opens[i].n
		if id := g.trail.id(n); g.flags[id]&isRooted != 0 || len(g.callers(id)) > 0 {
			g.whole = g.originOf(g.opens[i]).none
		}
	}
	for _, l := range g.lookups {
		if m := g.members[l.n.m]; !m.own {
			o := g.originOf(l)
			g.anywhere = g.anywhere || o.everything || o.kept && g.whole
			if o.everything {
				m.own = true
				g.exports(l.n.m, g.anyText())
			}
		}
	}
	if g.anywhere && !g.entered {
		g.entered = true
		g.lookable(0)
		g.exports(0, g.anyText())
	}
}

func (g *graph) originOf(c handed) origin {
	all, err := g.members[c.n.m].link.Object.ImportSites(g.ctx, c.imp, c.l)
	if err != nil {
		g.fail(err)
	}
	var o origin
	g.follow(all[c.n.i], c.n, map[argument]bool{}, &o)
	return o
}

// follow adds what an argument of some calls in a function can be, through
// those that call the function.
func (g *graph) follow(sites []facts.Site, n node, seen map[argument]bool, o *origin) {
	for i := range sites {
		s := &sites[i]
		o.everything = o.everything || slices.Contains(s.Nrs, 0) || slices.Contains(s.Nrs, -1)
		o.none = o.none || len(s.Nrs) == 1 && s.Nrs[0] == 0 && len(s.Params) == 0 && s.Unresolved == ""
		o.kept = o.kept || s.Unresolved != "" || s.Derefs
		for _, l := range s.Params {
			g.followParameter(argument{n, l}, seen, o)
		}
	}
}

func (g *graph) followParameter(a argument, seen map[argument]bool, o *origin) {
	if seen[a] {
		return
	}
	seen[a] = true
	id := g.trail.id(a.n)
	o.kept = o.kept || g.flags[id]&(isHeld|isRooted) != 0
	for _, c := range slices.Backward(g.callers(id)) {
		by := g.members[c.m].link.Object
		var all map[uint32][]facts.Site
		var err error
		if c.imp >= 0 {
			all, err = by.ImportSites(g.ctx, uint32(c.imp), a.l)
		} else {
			all, err = by.PassedTo(g.ctx, a.n.i, a.l)
		}
		if err != nil {
			g.fail(err)
			return
		}
		g.follow(all[c.fn], node{m: c.m, i: c.fn}, seen, o)
	}
}
