package reach

import (
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/objects"
)

// str notes that node n refers to a string.
func (g *graph) str(n node, s uint32) {
	m := g.members[n.m]
	if i := m.texts[s]; i > 0 {
		g.trail.edge(n, node{m: textMember, i: i - 1}, edgeNames)
		return
	}
	text := m.facts.Strings[s]
	w := g.trail.words.word(m.facts.Text(s))
	at := g.trail.textOf(w)
	g.trail.edge(n, at, edgeNames)
	m.texts[s] = at.i + 1
	name := Name{text, m.link, at}
	for _, i := range m.asks {
		g.asked(text, i)
	}
	if m.link == g.linker.Interp {
		g.loaderLooksUp(w.Symbol, 0)
	}
	if strings.HasSuffix(text, ".so") || strings.Contains(text, ".so.") {
		g.loads = append(g.loads, name)
	}
	if !g.reach(at.i) {
		return
	}
	g.converts = g.converts || strings.Index(text, ",ccs=") > 0
	if strings.HasPrefix(text, "/") {
		g.res.Paths = append(g.res.Paths, name)
	}
	for _, i := range g.wanted.of(w.wanted) {
		g.export(i.m, i.k, at)
	}
}

// reach notes that a text was reached, and reports whether that is new.
func (g *graph) reach(text uint32) bool {
	for len(g.reached) <= int(text) {
		g.reached = append(g.reached, false)
	}
	old := g.reached[text]
	g.reached[text] = true
	return !old
}

// reachedText reports whether reachable code or data refers to a string.
func (g *graph) reachedText(s string) bool {
	i, ok := g.trail.known(facts.SymbolOf(s))
	return ok && int(i) < len(g.reached) && g.reached[i]
}

// special handles calls of the loader's own functions.
func (g *graph) special(n node, imp uint32, r role) {
	m := g.members[n.m]
	switch r {
	case roleOpens, roleOpensIn, roleOpensNow:
		l := facts.Argument(m.facts.Machine, 0)
		if r == roleOpensIn {
			l = facts.Argument(m.facts.Machine, 1)
		}
		g.opens = append(g.opens, handed{n, imp, l})
		names, ok := g.names(n, imp, l)
		if !ok || names.Computed {
			g.issue("computed-dlopen", m.link.Object.Path, computedLoad, true)
		}
		for _, s := range names.Known {
			at := g.trail.textNode(s)
			g.trail.edge(n, at, edgeOpen)
			g.loads = append(g.loads, Name{s, m.link, at})
		}
	case roleLooksUp:
		names, ok := g.names(n, imp, facts.Argument(m.facts.Machine, 1))
		if !ok || names.Computed {
			g.trail.edge(n, g.anyText(), edgeLookup)
			g.lookAll()
			g.lookups = append(g.lookups, handed{n, imp, facts.Argument(m.facts.Machine, 0)})
			g.issue("computed-dlsym", m.link.Object.Path, computedLook, true)
		}
		for _, s := range names.Known {
			g.lookedUp(n, s)
		}
	}
}

// holds handles functions of the loader's whose address somebody holds: nobody
// knows with what names they are called.
func (g *graph) holds(n node, r role) {
	m := g.members[n.m]
	if n.region && g.isGOT(n) {
		return // the table as a whole: who calls through it is seen
	}
	switch r {
	case roleOpens, roleOpensIn:
		g.whole = true
		g.issue("computed-dlopen", m.link.Object.Path, computedLoad, true)
	case roleLooksUp:
		g.anywhere = true
		g.trail.edge(n, g.anyText(), edgeLookup)
		g.lookAll()
		g.issue("computed-dlsym", m.link.Object.Path, computedLook, true)
	}
}

// isGOT reports whether a region is a global offset table.
func (g *graph) isGOT(n node) bool {
	name := g.members[n.m].facts.Regions[n.i].Name
	return name == ".got" || name == ".got.plt"
}

// Details of names that are computed.
const (
	computedLoad = "it loads libraries whose names it computes; only those that were seen or named are included (name others with --load)"
	computedLook = "it looks functions up by names that it computes; all exports of the libraries that it loads are included"
)

// anyText is the text that stands for names which are computed.
func (g *graph) anyText() node { return g.trail.textNode("names that it computes") }

// lookAll enters all exports of what was loaded by name.
func (g *graph) lookAll() {
	if !g.anyName {
		g.anyName = true
		for _, i := range g.opened {
			g.exports(i, g.anyText())
		}
		for _, i := range g.resident {
			g.namedAll(i)
		}
		g.lookable(0)
	}
}

// lookable enters what a computed name may be, of members from one on: a name
// that something refers to. A handle leads to what a library needs as well, and
// without one everything that is loaded is looked through.
func (g *graph) lookable(from int32) {
	for i := from; i < int32(len(g.members)); i++ {
		if g.anyName && !g.startup(i) || g.anywhere {
			g.namedAll(i)
		}
	}
}

func (g *graph) names(n node, imp uint32, l param) (objects.Names, bool) {
	all, err := g.members[n.m].link.Object.ImportNames(g.ctx, imp, l)
	if err != nil {
		g.fail(err)
		return objects.Names{}, false
	}
	names, ok := all[n.i]
	return names, ok
}

// lookedUp enters a function that dlsym may return, of the objects that are
// there and of those to come.
func (g *graph) lookedUp(n node, name string) {
	g.sought = append(g.sought, sought{n, facts.SymbolOf(name)})
	g.found(g.sought[len(g.sought)-1], 0)
}

// sought is a name that is looked up, and who does it.
type sought struct {
	by  node
	sym facts.Symbol
}

// found enters what a name leads to in members from one on.
func (g *graph) found(s sought, from int32) {
	for j := from; j < int32(len(g.members)); j++ {
		for _, k := range link.LookupAny(nil, g.members[j].facts, s.sym) {
			e := &g.members[j].facts.Exports[k]
			if e.Func > 0 {
				g.enter(node{m: j, i: e.Func - 1}, s.by, edgeLookup, outside)
			}
			if e.Region > 0 {
				g.enter(node{m: j, i: e.Region - 1, region: true}, s.by, edgeLookup, direct)
			}
		}
	}
}

// loadNamed loads the libraries that what is reachable names, and reports
// whether there is anything new.
func (g *graph) loadNamed(o Options) bool {
	before := len(g.members)
	g.lookEverywhere()
	g.services(o)
	for len(g.loads) > 0 {
		n := g.loads[0]
		g.loads = g.loads[1:]
		g.load(n, false)
	}
	return len(g.members) > before || g.next < len(g.queue)
}

// load adds a library with its constructors and exports.
func (g *graph) load(n Name, must bool) {
	key := n.Text
	if n.By != nil {
		key += "\x00" + n.By.Object.Path // whose folders are searched
	}
	if g.loaded[key] || g.err != nil {
		return
	}
	g.loaded[key] = true
	before := len(g.members)
	m, err := g.linker.Load(g.ctx, n.Text, n.By)
	if err != nil {
		g.fail(err)
		return
	}
	g.cause = n.from
	defer func() { g.cause = noNode }()
	if m == nil {
		if must {
			g.issue("missing-library", n.Text, "it is said to be loaded at run time and isn't there, or can't be read", false)
		}
		return
	}
	g.addMembers()
	i, ok := g.index[m]
	if !ok || must && int(i) < before && g.startup(i) {
		return
	}
	if !must && int(i) < before {
		g.present(n, i)
		return
	}
	if must {
		g.exports(i, n.from)
		return
	}
	g.opened = append(g.opened, i)
	if g.anyName {
		g.exports(i, g.anyText())
		return
	}
	g.namedAll(i)
}

// present handles a library that is named and is there already: whoever names it
// may look up the functions that it names, too, by means of its own (as libc does
// in libgcc_s); with computed names that may be any that something names.
func (g *graph) present(n Name, i int32) {
	by, ok := g.index[n.By]
	if !ok || by != i && n.By != g.linker.Interp { // the loader names libc's to know it
		g.resident = append(g.resident, i)
		if g.anyName {
			g.namedAll(i)
		}
	}
	if !ok {
		return
	}
	m := g.members[by]
	m.asks = append(m.asks, i)
	for s, text := range m.texts {
		if text > 0 {
			g.asked(m.facts.Strings[s], i)
		}
	}
}

// asked enters the exports of a library that have a name.
func (g *graph) asked(name string, i int32) {
	for _, k := range link.LookupAny(nil, g.members[i].facts, facts.SymbolOf(name)) {
		g.export(i, k, g.trail.textNode(name))
	}
}

// namedAll enters the exports of a library whose names are reached.
func (g *graph) namedAll(i int32) {
	for k := range g.members[i].facts.Exports {
		g.named(g.members[i].facts.Exports[k].Name, exportID{i, k})
	}
}

// exports enters all exports of a library, which from asks for.
func (g *graph) exports(i int32, from node) {
	for k := range g.members[i].facts.Exports {
		g.export(i, k, from)
	}
}

// named enters an export now, or when a string is reached that its name, or
// the end of it, is.
func (g *graph) named(name string, e exportID) {
	if g.reachedText(name) {
		g.export(e.m, e.k, g.trail.textNode(name))
	} else {
		g.wanted.add(&g.trail.words.word(facts.SymbolOf(name)).wanted, e)
	}
}

// export enters an export that somebody looks up.
func (g *graph) export(i int32, k int, from node) {
	e := &g.members[i].facts.Exports[k]
	if e.Func > 0 {
		g.enter(node{m: i, i: e.Func - 1}, from, edgeExport, outside)
	}
	if e.Region > 0 {
		g.enter(node{m: i, i: e.Region - 1, region: true}, from, edgeExport, direct)
	}
}

// loaderLooksUp enters what the loader may look up in members from one on by a name
// that its code refers to, by means of its own: __libc_early_init, with which
// glibc's begins each library of C, or the allocator that it changes over to.
func (g *graph) loaderLooksUp(name facts.Symbol, from int32) {
	g.loaderNames[name.Name] = true
	g.defs.of(name, g.members, func(m int32, first, end int) bool {
		for k := first; m >= from && k < end; k++ {
			g.export(m, k, g.trail.textNode(name.Name))
		}
		return true
	})
}

// startup reports whether a member belongs to the startup closure.
func (g *graph) startup(i int32) bool { return i < g.members[0].scope.startup }
