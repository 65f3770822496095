// Package reach finds what a program can execute: it follows facts from the
// entry points of a closure to a fixed point, over direct calls, imports bound
// as the loader binds them, addresses taken by reachable code, and pointers in
// reachable data.
//
// Sound here means: whatever code the program can execute is in the result,
// as long as control only goes where some reachable code or data holds an
// address of, and data is entered by addresses of its own section (or up to
// 128 bytes before it). Whatever can't be followed is an Issue.
package reach

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/objects"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// Issue is an imprecision or an omission.
type Issue struct {
	Kind, Object, Detail string
	// Watched is set when a run that was watched covers it.
	Watched bool
	// Note is set when nothing is missing.
	Note bool
}

// Frame is one function of a chain.
type Frame struct {
	Object  string
	Symbol  string
	Address uint64
	Edge    string
}

// Call is one system call that is reachable.
type Call struct {
	Nr    int32
	Chain []Frame
	// Sites is the number of places that make it.
	Sites int
}

// Name is a string that reachable code or data refers to.
type Name struct {
	Text string
	By   *link.Member
}

// Result is what one program can do.
type Result struct {
	Members []*link.Member
	// Calls of the native table and of the i386 table; key: number.
	Calls, Compat map[int32]*Call
	// Widened is set when a number is unknown: any call may be made.
	Widened bool
	// Paths are absolute paths that occur in what is reachable.
	Paths  []Name
	Issues []Issue
	// Surplus ranks what brings in the most calls, when it was asked for.
	Surplus []Rank
}

// node is a function or a region of a member.
type node struct {
	m      int32
	i      uint32
	region bool
}

// step says how a node was reached first.
type step struct {
	from node
	edge string
	ok   bool
}

var noNode = node{m: -1}

const (
	// outside stands for a holder of an address that isn't known.
	outside = int32(-1)
	// direct says that nobody holds an address.
	direct = int32(-2)
)

type member struct {
	link    *link.Member
	facts   *facts.Facts
	scope   []int32 // members in look-up order
	funcs   []step
	regions []step
	taken   map[uint32][]int32 // functions whose address is held; members that hold it, outside for unknown ones
	strs    map[uint32]bool    // indexes of strings that were reached
	wraps   map[uint32][]param // what calls from other places pass as numbers
	callers map[uint32][]caller
	// bound caches what an import binds to; key: import index.
	bound map[uint32][]target
}

// param is a location that holds a number when a function is entered.
type param = facts.Loc

// caller is a function that calls another by a direct call (imp is -1) or
// through an import.
type caller struct {
	m   int32
	fn  uint32
	imp int64
}

type target struct {
	n   node
	fun bool
}

// exportID is an export of a member by index.
type exportID struct {
	m int32
	k int
}

type graph struct {
	rec     *recorder // nil unless Options.Surplus
	linker  *link.Linker
	members []*member
	index   map[*link.Member]int32
	queue   []node
	late    []node // roots that are entered last, so that chains begin at the entry point
	res     *Result
	seen    map[string]bool // issues; key: kind, object and detail
	ctx     context.Context
	paths   map[string]bool // strings that were reached
	// bySuffix are exports of libraries that were loaded by name, which count
	// when their name, or what of it is looked up, is reached as a string;
	// key: that string.
	bySuffix map[string][]exportID
	opened   []int32         // libraries that were loaded by name
	anyName  bool            // a computed name is looked up: all their exports count
	loads    []Name          // libraries named by what is reachable, to be loaded
	loaded   map[string]bool // key: name
	err      error
}

// Options of Run.
type Options struct {
	// Load names objects that are loaded at run time, as paths in the root.
	Load []string
	// Services lists the libraries that configuration makes the C library
	// load when code that reads a configuration file is reachable.
	Services func(ctx context.Context, config string) []Service
	// NoConfigured leaves those out, and says so.
	NoConfigured bool
	// Surplus asks for Result.Surplus.
	Surplus bool
}

// Service is a library that is loaded by configuration. Its functions are
// looked up by names that are Prefix and a string of the C library.
type Service struct{ Library, Prefix string }

// Run analyses one program, whose startup closure the linker has loaded.
func Run(ctx context.Context, l *link.Linker, o Options) (*Result, error) {
	g := &graph{
		linker: l, index: map[*link.Member]int32{}, seen: map[string]bool{}, ctx: ctx, paths: map[string]bool{}, loaded: map[string]bool{},
		bySuffix: map[string][]exportID{},
		res:      &Result{Calls: map[int32]*Call{}, Compat: map[int32]*Call{}},
	}
	if o.Surplus {
		g.rec = &recorder{edges: map[node][]node{}, calls: map[int32][]node{}}
	}
	g.addMembers(nil)
	if len(g.members) > 0 {
		g.entry(0)
	}
	if l.Interp != nil {
		if i, ok := g.index[l.Interp]; ok {
			g.entry(i)
			// A loader may look up its own functions by name, as musl's does to
			// begin its later stages.
			for k := range g.members[i].facts.Exports {
				g.named(g.members[i].facts.Exports[k].Name, exportID{i, k})
			}
		}
	}
	g.drain()
	for _, p := range o.Load {
		g.load(Name{Text: p}, true)
	}
	for g.drain() || g.loadNamed(o) {
		if g.err != nil {
			return nil, g.err
		}
	}
	if g.err != nil {
		return nil, g.err
	}
	g.finish()
	if o.Surplus {
		g.res.Surplus = g.surplus()
	}
	return g.res, ctx.Err()
}

func (g *graph) issue(kind, object, detail string, watched bool) {
	k := kind + "\x00" + object + "\x00" + detail
	if !g.seen[k] {
		g.seen[k] = true
		g.res.Issues = append(g.res.Issues, Issue{Kind: kind, Object: object, Detail: detail, Watched: watched})
	}
}

func (g *graph) note(kind, object, detail string) {
	k := kind + "\x00" + object + "\x00" + detail
	if !g.seen[k] {
		g.seen[k] = true
		g.res.Issues = append(g.res.Issues, Issue{Kind: kind, Object: object, Detail: detail, Note: true})
	}
}

// addMembers takes in what the linker has loaded since the last call. New
// members look symbols up in the startup closure, then in their own group.
func (g *graph) addMembers(first *link.Member) {
	from := int32(len(g.members))
	for _, lm := range g.linker.Members()[from:] {
		m := &member{link: lm, strs: map[uint32]bool{}, wraps: map[uint32][]param{}, callers: map[uint32][]caller{}, bound: map[uint32][]target{}}
		f, err := lm.Object.Facts(g.ctx)
		if err != nil {
			g.issue("unreadable-object", lm.Object.Path, err.Error(), false)
			f = &facts.Facts{}
		}
		m.facts = f
		m.funcs, m.regions, m.taken = make([]step, len(f.Funcs)), make([]step, len(f.Regions)), map[uint32][]int32{}
		g.index[lm] = int32(len(g.members))
		g.members = append(g.members, m)
		for _, w := range f.Warnings {
			g.issue("unreadable-part", lm.Object.Path, w, false)
		}
	}
	var scope []int32
	if from > 0 {
		scope = append(scope, g.members[0].scope...)
	}
	for i := from; i < int32(len(g.members)); i++ {
		scope = append(scope, i)
	}
	for i := from; i < int32(len(g.members)); i++ {
		g.members[i].scope = scope
	}
	for i := from; i < int32(len(g.members)); i++ {
		g.roots(i)
	}
}

func (g *graph) entry(i int32) {
	if e := g.members[i].facts.Entry; e > 0 {
		g.enter(node{m: i, i: e - 1}, noNode, "entry", direct)
	}
}

// roots enters what the loader runs and what is always there.
func (g *graph) roots(i int32) {
	m := g.members[i]
	if m.facts.Go {
		for _, f := range m.facts.Roots {
			g.late = append(g.late, node{m: i, i: f})
		}
	} else {
		for _, f := range m.facts.Roots {
			g.enter(node{m: i, i: f}, noNode, "init", direct)
		}
	}
	for _, imp := range m.facts.RootImports {
		for _, t := range g.bind(i, imp) {
			g.enter(t.n, noNode, "init", direct)
		}
	}
	for _, r := range m.facts.RootRegions {
		g.enter(node{m: i, i: r, region: true}, noNode, "data", direct)
	}
}

// enter marks a node as reached. holder is the member that holds a function's
// address, so that nothing is known of its arguments there; direct for a call.
func (g *graph) enter(n, from node, edge string, holder int32) {
	m := g.members[n.m]
	g.rec.edge(from, n)
	if n.region {
		if !m.regions[n.i].ok {
			m.regions[n.i] = step{from, edge, true}
			g.queue = append(g.queue, n)
		}
		return
	}
	if holder != direct && !slices.Contains(m.taken[n.i], holder) {
		m.taken[n.i] = append(m.taken[n.i], holder)
	}
	if !m.funcs[n.i].ok {
		m.funcs[n.i] = step{from, edge, true}
		g.queue = append(g.queue, n)
	}
}

// drain follows everything that is queued and reports whether there was
// anything.
func (g *graph) drain() bool {
	any := false
	for len(g.queue) > 0 || len(g.late) > 0 {
		if len(g.queue) == 0 {
			for _, n := range g.late {
				g.enter(n, noNode, "init", direct)
			}
			g.late = nil
			continue
		}
		n := g.queue[0]
		g.queue = g.queue[1:]
		any = true
		if n.region {
			g.region(n)
		} else {
			g.function(n)
		}
	}
	return any
}

func (g *graph) region(n node) {
	m := g.members[n.m]
	r := &m.facts.Regions[n.i]
	for _, f := range r.Funcs {
		g.enter(node{m: n.m, i: f}, n, "data", n.m)
	}
	for _, i := range r.Imports {
		for _, t := range g.bind(n.m, i) {
			g.enter(t.n, n, "data", n.m)
		}
	}
	for _, i := range r.Regions {
		g.enter(node{m: n.m, i: i, region: true}, n, "data", direct)
	}
	for _, s := range r.Strings {
		g.str(n.m, s)
	}
}

func (g *graph) function(n node) {
	m := g.members[n.m]
	fn := &m.facts.Funcs[n.i]
	for _, e := range fn.Edges {
		to := node{m: n.m, i: e.To}
		switch e.Kind {
		case facts.EdgeCall, facts.EdgeFall:
			g.enter(to, n, "call", direct)
			g.called(to, caller{n.m, n.i, -1})
		case facts.EdgeTable:
			g.enter(to, n, "call", outside)
		default:
			g.enter(to, n, "address-taken", n.m)
		}
	}
	for _, use := range fn.Imports {
		g.importUse(n, use)
	}
	for _, r := range fn.Regions {
		g.enter(node{m: n.m, i: r, region: true}, n, "data", direct)
	}
	for _, s := range fn.Strings {
		g.str(n.m, s)
	}
	for i := range fn.Sites {
		g.site(n, &fn.Sites[i])
	}
}

func (g *graph) importUse(n node, use facts.ImportUse) {
	edge, holder := "address-taken", n.m
	if use.Called {
		edge, holder = "import", direct
	}
	for _, t := range g.bind(n.m, use.Import) {
		g.enter(t.n, n, edge, holder)
		if use.Called && t.fun {
			g.called(t.n, caller{n.m, n.i, int64(use.Import)})
		}
	}
	if use.Called {
		g.special(n, use.Import)
	}
}

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

func (g *graph) str(mi int32, s uint32) {
	m := g.members[mi]
	if m.strs[s] {
		return
	}
	m.strs[s] = true
	text := m.facts.Strings[s]
	name := Name{text, m.link}
	if g.paths[text] {
		return
	}
	g.paths[text] = true
	if strings.HasPrefix(text, "/") {
		g.res.Paths = append(g.res.Paths, name)
	}
	for _, i := range g.bySuffix[text] {
		g.export(i.m, i.k)
	}
	if strings.HasSuffix(text, ".so") || strings.Contains(text, ".so.") {
		g.loads = append(g.loads, name)
	}
}

// chain lists the functions from an entry point to a node.
func (g *graph) chain(n node) []Frame {
	var out []Frame
	for n.m >= 0 {
		m := g.members[n.m]
		var st step
		if n.region {
			st = m.regions[n.i]
		} else {
			st = m.funcs[n.i]
			out = append(out, g.frame(n, st.edge))
		}
		n = st.from
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

func (g *graph) frame(n node, edge string) Frame {
	m := g.members[n.m]
	return Frame{Object: m.link.Object.Path, Symbol: m.facts.Symbols[n.i], Address: m.facts.Funcs[n.i].Start, Edge: edge}
}

// site records what one site of a reachable function does.
func (g *graph) site(n node, s *facts.Site) {
	calls := g.res.Calls
	if s.Kind != facts.SiteSyscall {
		calls = g.res.Compat
	}
	for _, nr := range s.Nrs {
		g.call(calls, n, nr, s.Via)
	}
	if s.Unresolved != "" {
		g.unresolved(n, s, s.Unresolved)
	}
	if s.Derefs {
		return // nobody outside of the object passes such a pointer; else the site is unresolved
	}
	for _, p := range s.Params {
		g.wrapper(n, p)
	}
}

func (g *graph) call(calls map[int32]*Call, n node, nr int32, via uint32) {
	g.rec.call(nr, n)
	c := calls[nr]
	if c == nil {
		c = &Call{Nr: nr, Chain: g.chain(n)}
		if via > 0 && int(via) <= len(g.members[n.m].facts.Funcs) {
			c.Chain = append(c.Chain, g.frame(node{m: n.m, i: via - 1}, "call"))
		}
		calls[nr] = c
	}
	c.Sites++
}

func (g *graph) unresolved(n node, s *facts.Site, why string) {
	g.res.Widened = true
	m := g.members[n.m]
	where := fmt.Sprintf("%#x", s.Addr)
	if sym := m.facts.Symbols[n.i]; sym != "" {
		where += " in " + sym
	}
	g.issue("unresolved-number", m.link.Object.Path, fmt.Sprintf("the system call at %s can be any: %s", where, why), false)
}

// wrapper notes that calls of a function from other objects pass a number.
// Calls within the object are sites of their own already.
func (g *graph) wrapper(n node, p param) {
	m := g.members[n.m]
	for _, q := range m.wraps[n.i] {
		if p == q {
			return
		}
	}
	m.wraps[n.i] = append(m.wraps[n.i], p)
	for _, c := range m.callers[n.i] {
		g.passes(n, c, p)
	}
}

// called notes a call of a function.
func (g *graph) called(to node, c caller) {
	m := g.members[to.m]
	m.callers[to.i] = append(m.callers[to.i], c)
	for _, p := range m.wraps[to.i] {
		g.passes(to, c, p)
	}
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
	for i := range sites {
		s := &sites[i]
		for _, nr := range s.Nrs {
			g.number(nr, from, to, "import")
		}
		if s.Unresolved != "" {
			g.unresolved(from, s, s.Unresolved)
		}
		for _, q := range s.Params {
			if s.Derefs {
				g.unresolved(from, s, "the number is passed behind a pointer")
				continue
			}
			g.wrapper(from, q)
		}
	}
}

// indirect finds the numbers that are passed to a wrapper through pointers: the
// constants at the indirect calls of those who hold its address. A call whose
// argument isn't a constant is taken for one of another function: a system
// call number that is computed and then passed through a pointer is what an
// interpreter's foreign function interface does, and nothing else known.
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
	params = append(params, m.wraps[n.i]...)
	slices.Sort(params)
	for _, p := range slices.Compact(params) {
		site := own[p]
		if site == nil {
			site = &facts.Site{Addr: m.facts.Funcs[n.i].Start}
		}
		known := !site.Derefs
		for _, h := range m.taken[n.i] {
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
				if h.funcs[c].ok {
					g.number(nr, from, n, "indirect")
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
func (g *graph) number(nr int32, from, to node, edge string) {
	g.rec.call(nr, from)
	if g.res.Calls[nr] == nil {
		g.res.Calls[nr] = &Call{Nr: nr, Chain: append(g.chain(from), g.frame(to, edge))}
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

func (g *graph) fail(err error) {
	if g.err == nil {
		g.err = err
	}
}

// special handles calls of the loader's own functions, by the names that
// POSIX and the C libraries give them.
func (g *graph) special(n node, imp uint32) {
	m := g.members[n.m]
	switch m.facts.Imports[imp].Name {
	case "dlopen", "dlmopen", "__libc_dlopen_mode":
		l := param(x86.RDI)
		if m.facts.Imports[imp].Name == "dlmopen" {
			l = param(x86.RSI)
		}
		names, ok := g.names(n, imp, l)
		if !ok || names.Computed {
			g.issue("computed-dlopen", m.link.Object.Path, "it loads libraries whose names it computes; only those that were seen or named are included (name others with --load)", true)
		}
		for _, s := range names.Known {
			g.loads = append(g.loads, Name{s, m.link})
		}
	case "dlsym", "dlvsym":
		names, ok := g.names(n, imp, param(x86.RSI))
		if !ok || names.Computed {
			g.lookAll()
			g.issue("computed-dlsym", m.link.Object.Path, "it looks functions up by names that it computes; all exports of the libraries that it loads are included", true)
		}
		for _, s := range names.Known {
			g.lookedUp(n, s)
		}
	}
}

// lookAll enters all exports of what was loaded by name.
func (g *graph) lookAll() {
	if !g.anyName {
		g.anyName = true
		for _, i := range g.opened {
			g.exports(i)
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

// lookedUp enters a function that dlsym may return.
func (g *graph) lookedUp(n node, name string) {
	for j := range g.members {
		for _, k := range link.LookupAny(g.members[j].facts, name) {
			e := &g.members[j].facts.Exports[k]
			if e.Func > 0 {
				g.enter(node{m: int32(j), i: e.Func - 1}, n, "dlsym", n.m)
			}
			if e.Region > 0 {
				g.enter(node{m: int32(j), i: e.Region - 1, region: true}, n, "dlsym", direct)
			}
		}
	}
}

// loadNamed loads the libraries that what is reachable names, and reports
// whether there were new ones.
func (g *graph) loadNamed(o Options) bool {
	before := len(g.members)
	if o.Services != nil {
		for _, p := range g.res.Paths {
			for _, s := range o.Services(g.ctx, p.Text) {
				g.service(s, p.By, o.NoConfigured)
			}
		}
	}
	for len(g.loads) > 0 {
		n := g.loads[0]
		g.loads = g.loads[1:]
		g.load(n, false)
	}
	return len(g.members) > before
}

// load adds a library with its constructors and exports.
func (g *graph) load(n Name, must bool) {
	if g.loaded[n.Text] || g.err != nil {
		return
	}
	g.loaded[n.Text] = true
	before := len(g.members)
	m, err := g.linker.Load(g.ctx, n.Text, n.By)
	if err != nil {
		g.fail(err)
		return
	}
	if m == nil {
		if must {
			g.issue("missing-library", n.Text, "it is said to be loaded at run time and isn't there, or can't be read", false)
		}
		return
	}
	g.addMembers(m)
	i, ok := g.index[m]
	if !ok || int(i) < before && (!must || g.startup(i)) {
		return
	}
	if must {
		g.exports(i)
		return
	}
	g.opened = append(g.opened, i)
	if g.anyName {
		g.exports(i)
		return
	}
	for k := range g.members[i].facts.Exports {
		g.named(g.members[i].facts.Exports[k].Name, exportID{i, k})
	}
}

// exports enters all exports of a library.
func (g *graph) exports(i int32) {
	for k := range g.members[i].facts.Exports {
		g.export(i, k)
	}
}

// named enters an export now, or when a string is reached that its name, or
// the end of it, is.
func (g *graph) named(name string, e exportID) {
	if g.paths[name] {
		g.export(e.m, e.k)
	} else {
		g.bySuffix[name] = append(g.bySuffix[name], e)
	}
}

// export enters an export that somebody looks up.
func (g *graph) export(i int32, k int) {
	e := &g.members[i].facts.Exports[k]
	if e.Func > 0 {
		g.enter(node{m: i, i: e.Func - 1}, noNode, "export", outside)
	}
	if e.Region > 0 {
		g.enter(node{m: i, i: e.Region - 1, region: true}, noNode, "export", direct)
	}
}

// service loads a library by configuration. Those of its exports count whose
// names end in a string that is reachable.
func (g *graph) service(s Service, by *link.Member, leave bool) {
	if g.loaded[s.Library] || g.err != nil {
		return
	}
	g.loaded[s.Library] = true
	if g.defines(s.Prefix) {
		return // the C library holds the service itself (glibc since 2.34)
	}
	if leave {
		if p := g.linker.Path(g.ctx, s.Library, by); p != "" {
			g.issue("configured-library", p, "the configuration of the root makes the program load it; it was left out, as programs that are executed are (name it with --load)", true)
		}
		return
	}
	before := len(g.members)
	m, err := g.linker.Load(g.ctx, s.Library, by)
	if err != nil {
		g.fail(err)
		return
	}
	if m == nil {
		return
	}
	g.addMembers(m)
	i, ok := g.index[m]
	if !ok || int(i) < before {
		return
	}
	for k := range g.members[i].facts.Exports {
		end, ok := strings.CutPrefix(g.members[i].facts.Exports[k].Name, s.Prefix)
		if !ok {
			continue
		}
		g.named(end, exportID{i, k})
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

// startup reports whether a member belongs to the startup closure.
func (g *graph) startup(i int32) bool { return int(i) < len(g.members[0].scope) }

// finish looks at what only the whole graph tells.
func (g *graph) finish() {
	for i, m := range g.members {
		for _, f := range slices.Sorted(maps.Keys(m.taken)) {
			g.indirect(node{m: int32(i), i: f})
		}
	}
	for _, miss := range g.linker.Missing {
		g.issue("missing-library", miss.By, fmt.Sprintf("it needs %s, which isn't in the image", miss.Name), false)
	}
	for p, err := range g.linker.Unreadable {
		g.issue("unreadable-object", p, err.Error(), false)
	}
	g.res.Members = g.linker.Members()
	sort.Slice(g.res.Issues, func(i, j int) bool {
		a, b := g.res.Issues[i], g.res.Issues[j]
		return a.Kind < b.Kind || a.Kind == b.Kind && (a.Object < b.Object || a.Object == b.Object && a.Detail < b.Detail)
	})
}
