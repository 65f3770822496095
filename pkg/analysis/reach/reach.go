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

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/syscalls"
)

// Issue is an imprecision or an omission.
type Issue struct {
	Kind, Object, Detail string
	// Watched is set when a run that was watched covers it.
	Watched bool
	// Note is set when nothing is missing.
	Note bool
}

// FrameKind says what a frame of a chain is.
type FrameKind string

// Kinds of frames. Data and texts stand between functions that are reached
// through them.
const (
	Function FrameKind = "function"
	Data     FrameKind = "data"
	Text     FrameKind = "text"
)

// Frame is one step of a chain.
type Frame struct {
	Kind   FrameKind
	Object string // "" for a text
	// Symbol is a function's name, the name of the section that data lies in,
	// or the text.
	Symbol string
	// Address is where it begins, and Size how long it is, in bytes.
	Address, Size uint64
	// Edge says how it was reached from the frame before.
	Edge string
}

// Call is one system call that is reachable.
type Call struct {
	Nr int32
	// Chain is the shortest one, and Site the instruction at its end.
	Chain []Frame
	Site  Site
	// Sites is the number of places that make it.
	Sites int
	// Args are the arguments that can have certain values only.
	Args []Arg
	free bool // some place's arguments aren't known
}

// Arg is an argument of a call with all values that it can have: the lower 32
// bits of each, sorted.
type Arg struct {
	Index  int
	Values []uint32
}

// Name is a string that reachable code or data refers to.
type Name struct {
	Text string
	By   *link.Member
	from node // who refers to it; noNode for what was seen or named
}

// Result is what one program can do.
type Result struct {
	Members []*link.Member
	// Calls of the native table and of the i386 table; key: number.
	Calls, Compat map[int32]*Call
	// Widened is set when a number is unknown: any call may be made.
	Widened bool
	// AnyCompat is set when a number for the 32-bit gate of a 64-bit program is
	// unknown.
	AnyCompat bool
	// Trail answers how everything was reached.
	Trail *Trail
	// Paths are absolute paths that occur in what is reachable.
	Paths  []Name
	Issues []Issue
	// Configured are the members that configuration brings in.
	Configured Configured
	// Surplus ranks what brings in the most calls, when it was asked for.
	Surplus []Rank
	// Pointers is, of each native call, the number of pointers in data that the
	// chain with the fewest goes through, when Surplus was asked for; key: number.
	Pointers map[int32]int
}

// node is a function or a region of a member.
type node struct {
	m      int32
	i      uint32
	region bool
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
	base    uint32    // the number of its first function in the trail
	scope   scope     // where its imports are looked up first
	texts   []uint32  // of each string, its index in trail.texts plus 1; 0 when it wasn't reached
	asks    []int32   // members that it names although they are there already
	byName  *byName   // nil: nothing that matters
	own     bool      // all its exports are entered: it looks functions up in everything that is loaded
	imports []binding // of each import
}

// What is known of a node beyond its edges.
const (
	isReached     = 1 << iota // trail knows how
	isHeld                    // somebody holds the function's address
	isHeldOutside             // it isn't known who
	isHeldOwn                 // its own object does
	isWrapper                 // calls from other places pass it numbers
	hasSites                  // it was followed, and has sites
	isRooted                  // it is called with what no code shows: by the kernel, the loader, through tables
)

// param is a location that holds a number when a function is entered.
type param = facts.Loc

// target is a node, as it is queued and bound to: its number and its member.
type target struct {
	id uint32
	m  int32
}

// exportID is an export of a member by index.
type exportID struct {
	m int32
	k int
}

type graph struct {
	trail *trail
	flags []uint8 // of each node; index: its number in trail
	// holders are the members that hold a function's address, outside for
	// unknown ones; held is the list of each node.
	held    []uint32
	holders lists[int32]
	calls   callIndex
	wraps   map[uint32][]param // what calls from other places pass as numbers; key: a function's number in trail
	besides []besides
	kept    []keptIn
	defs    definitions // what members export
	cause   node        // what has the members loaded that are being added
	linker  *link.Linker
	members []*member
	index   map[*link.Member]int32
	queue   []target
	next    int      // index of the next node of queue
	matter  marks    // names of imports that have a role, or are watched
	ids     []int    // of exports, while they are looked up
	bound   []target // of an import, while they are looked up
	room    []target // for those of imports to come
	late    []node   // roots that are entered last, so that chains begin at the entry point
	res     *Result
	seen    map[string]bool // issues; key: kind, object and detail
	anyAt   map[openKey]*openCalls
	ctx     context.Context
	reached []bool // strings that were reached; index: that of trail.texts
	// wanted are exports of libraries that were loaded by name, which count
	// when their name, or what of it is looked up, is reached as a string; a
	// word of the trail has the list.
	wanted   lists[exportID]
	opened   []int32         // libraries that were loaded by name
	resident []int32         // libraries that something names although they are there already
	anyName  bool            // a computed name is looked up: all their exports count
	loads    []Name          // libraries named by what is reachable, to be loaded
	loaded   map[string]bool // key: name
	// loaderNames are the texts that the loader's code refers to.
	loaderNames map[string]bool
	anywhere    bool             // a computed name is looked up in all objects
	entered     bool             // what that leads to has been entered
	whole       bool             // dlopen returns the handle of the whole program
	opens       []handed         // calls of dlopen
	lookups     []handed         // calls of dlsym with computed names
	sought      []sought         // constant names that are looked up
	watched     map[string][]use // key: name of a function that services ask for
	grouped     map[group]bool   // groups of libraries that were left out
	converts    bool             // a file is opened with a character set
	err         error
}

// Options of Run.
type Options struct {
	// Load names objects that are loaded at run time, as paths in the root.
	Load []string
	// Services may be nil. Watch names the functions whose callers it asks for.
	Services ServicesFunc
	Watch    []string
	// NoConfigured leaves those out, and says so.
	NoConfigured bool
	// Surplus asks for Result.Surplus and Result.Pointers.
	Surplus bool
	// Arch is the table of the calls.
	Arch syscalls.Arch
}

// Run analyses one program, whose startup closure the linker has loaded.
func Run(ctx context.Context, l *link.Linker, o Options) (*Result, error) {
	g := &graph{
		linker: l, index: map[*link.Member]int32{}, seen: map[string]bool{}, ctx: ctx, loaded: map[string]bool{},
		loaderNames: map[string]bool{}, grouped: map[group]bool{}, ids: make([]int, 0, 16), watched: map[string][]use{}, wraps: map[uint32][]param{},
		anyAt: map[openKey]*openCalls{},
		res:   &Result{Calls: map[int32]*Call{}, Compat: map[int32]*Call{}, Configured: Configured{}},
		trail: newTrail(), cause: noNode,
	}
	for _, name := range o.Watch {
		g.watched[name] = nil
		g.matter.add(facts.SymbolOf(name).Hash())
	}
	for name := range roles {
		g.matter.add(facts.SymbolOf(name).Hash())
	}
	g.addMembers()
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
		g.load(Name{Text: p, from: noNode}, true)
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
	g.arguments(o.Arch)
	if o.Surplus {
		g.res.Surplus = g.surplus(g.res.Trail)
		g.res.Pointers = g.pointers(g.res.Trail)
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
func (g *graph) addMembers() {
	from := int32(len(g.members))
	for _, lm := range g.linker.Members()[from:] {
		m := &member{link: lm, base: g.trail.next}
		f, err := lm.Object.Facts(g.ctx)
		if err != nil {
			g.issue("unreadable-object", lm.Object.Path, err.Error(), false)
			f = &facts.Facts{}
		}
		m.facts = f
		m.texts, m.imports = make([]uint32, len(f.Strings)), make([]binding, len(f.Imports))
		g.index[lm] = int32(len(g.members))
		g.members = append(g.members, m)
		g.trail.member(f)
		for _, w := range f.Warnings {
			g.issue("unreadable-part", lm.Object.Path, w, false)
		}
	}
	g.trail.reserve()
	if g.queue == nil {
		g.queue = make([]target, 0, g.trail.next/3)
	}
	more := int(g.trail.next) - len(g.flags)
	g.flags, g.held = append(g.flags, make([]uint8, more)...), append(g.held, make([]uint32, more)...)
	s := scope{startup: int32(len(g.members)), from: from, end: int32(len(g.members))}
	if from > 0 {
		s.startup = g.members[0].scope.startup
	}
	for i := from; i < int32(len(g.members)); i++ {
		g.members[i].scope = s
	}
	g.defs.add(g.members, from)
	for i := from; i < int32(len(g.members)); i++ {
		g.roots(i)
	}
	g.resolvers(from)
	g.lookable(from)
	for _, s := range g.sought {
		g.found(s, from)
	}
	for _, name := range slices.Sorted(maps.Keys(g.loaderNames)) {
		g.loaderLooksUp(facts.SymbolOf(name), from)
	}
}

func (g *graph) entry(i int32) {
	if e := g.members[i].facts.Entry; e > 0 {
		g.flags[g.members[i].base+e-1] |= isRooted
		g.enter(node{m: i, i: e - 1}, noNode, edgeEntry, direct)
	}
}

// roots enters what the loader runs and what is always there.
func (g *graph) roots(i int32) {
	m := g.members[i]
	for _, f := range m.facts.Held {
		g.flags[m.base+f] |= isRooted
	}
	if m.facts.Go {
		for _, f := range m.facts.Roots {
			g.late = append(g.late, node{m: i, i: f})
		}
	} else {
		for _, f := range m.facts.Roots {
			g.flags[m.base+f] |= isRooted
			g.enter(node{m: i, i: f}, g.cause, edgeInit, direct)
		}
	}
	for _, imp := range m.facts.RootImports {
		g.begins(g.bind(i, imp))
	}
	for _, r := range m.facts.RootRegions {
		g.enter(node{m: i, i: r, region: true}, g.cause, edgeLive, direct)
	}
}

// begins enters what the loader runs, whatever it passes.
func (g *graph) begins(b *binding) {
	from := g.trail.id(g.cause)
	for _, t := range b.targets {
		g.flags[t.id] |= isRooted
		g.trail.link(from, t.id, edgeInit, 0)
		g.mark(t, direct)
	}
}

// enter marks a node as reached. holder is the member that holds a function's
// address, so that nothing is known of its arguments there; direct for a call.
func (g *graph) enter(n, from node, edge edgeKind, holder int32) {
	to := g.trail.id(n)
	g.trail.link(g.trail.id(from), to, edge, 0)
	if n.region {
		holder = direct
	}
	g.mark(target{to, n.m}, holder)
}

// mark is enter without the edge.
func (g *graph) mark(t target, holder int32) {
	flags := g.flags[t.id]
	switch {
	case holder == direct:
	case holder == outside && flags&isHeldOutside != 0, holder == t.m && flags&isHeldOwn != 0:
	case !has(&g.holders, g.held[t.id], holder):
		g.holders.add(&g.held[t.id], holder)
		flags |= isHeld
		if holder == outside {
			flags |= isHeldOutside
		} else if holder == t.m {
			flags |= isHeldOwn
		}
	}
	if flags&isReached == 0 {
		flags |= isReached
		g.queue = append(g.queue, t)
	}
	g.flags[t.id] = flags
}

// drain follows everything that is queued and reports whether there was
// anything.
func (g *graph) drain() bool {
	any := false
	for g.next < len(g.queue) || len(g.late) > 0 {
		if g.next == len(g.queue) {
			g.queue, g.next = g.queue[:0], 0
			for _, n := range g.late {
				g.enter(n, noNode, edgeLate, direct)
			}
			g.late = nil
			continue
		}
		t := g.queue[g.next]
		g.next++
		any = true
		n := node{m: t.m, i: t.id - g.members[t.m].base}
		if funcs := g.trail.funcs[t.m]; n.i >= funcs {
			n.i, n.region = n.i-funcs, true
			g.region(n)
		} else {
			g.function(n, t.id)
		}
	}
	g.queue, g.next = g.queue[:0], 0
	return any
}

func (g *graph) region(n node) {
	m := g.members[n.m]
	r := &m.facts.Regions[n.i]
	id := g.trail.id(n)
	for _, f := range r.Funcs {
		g.trail.link(id, m.base+f, edgeData, 0)
		g.mark(target{m.base + f, n.m}, n.m)
	}
	for _, i := range r.Imports {
		b := g.bind(n.m, i)
		g.watch(n, facts.ImportUse{Import: i}, b)
		g.holds(n, b.role)
		for _, t := range b.targets {
			g.trail.link(id, t.id, edgeData, 0)
			g.markTarget(t, n.m)
		}
	}
	for _, i := range r.Regions {
		g.enter(node{m: n.m, i: i, region: true}, n, edgeRefers, direct)
	}
	for _, s := range r.Strings {
		g.str(n, s)
	}
}

// markTarget marks what an import binds to: a function or data.
func (g *graph) markTarget(t target, holder int32) {
	if g.isRegion(t) {
		holder = direct
	}
	g.mark(t, holder)
}

func (g *graph) isRegion(t target) bool { return t.id >= g.members[t.m].base+g.trail.funcs[t.m] }

// function follows what a function refers to; id is its number.
func (g *graph) function(n node, id uint32) {
	m := g.members[n.m]
	regions := m.base + g.trail.funcs[n.m]
	for _, r := range m.facts.Ways(n.i) {
		i := r.Index()
		switch r.Kind() {
		case facts.WayCall:
			g.trail.link(id, m.base+i, edgeCall, 0)
			g.mark(target{m.base + i, n.m}, direct)
			g.called(target{m.base + i, n.m}, caller{n.m, n.i, -1})
		case facts.WayInner:
			g.trail.link(id, m.base+i, edgeTaken, 0)
			g.mark(target{m.base + i, n.m}, direct)
		case facts.WayTable:
			g.trail.link(id, m.base+i, edgeTable, 0)
			g.mark(target{m.base + i, n.m}, outside)
		case facts.WayAddress:
			if n.i+1 == m.facts.Entry { // main, which the C library calls
				g.flags[m.base+i] |= isRooted
			}
			g.trail.link(id, m.base+i, edgeTaken, 0)
			g.mark(target{m.base + i, n.m}, outside)
		case facts.WayImport, facts.WayImportCalled:
			g.importUse(n, id, facts.ImportUse{Import: i, Called: r.Kind() == facts.WayImportCalled})
		case facts.WayRegion:
			g.trail.link(id, regions+i, edgeRefers, 0)
			g.mark(target{regions + i, n.m}, direct)
		case facts.WayString:
			g.str(n, i)
		case facts.WaySites:
			g.flags[id] |= hasSites
			sites := m.facts.Funcs[n.i].Sites
			for k := range sites {
				g.site(n, &sites[k])
			}
		}
	}
}

func (g *graph) importUse(n node, id uint32, use facts.ImportUse) {
	b := g.bind(n.m, use.Import)
	g.watch(n, use, b)
	if use.Called {
		for _, t := range b.targets {
			g.trail.link(id, t.id, edgeImport, use.Import)
			g.mark(t, direct)
			g.called(t, caller{n.m, n.i, int32(use.Import)})
		}
	} else {
		for _, t := range b.targets {
			g.trail.link(id, t.id, edgeTaken, 0)
			g.markTarget(t, outside)
		}
	}
	switch {
	case b.role == roleNone:
	case use.Called:
		g.special(n, use.Import, b.role)
		g.noteByName(n, use.Import, b.role)
	default:
		g.holds(n, b.role)
	}
}

func (g *graph) fail(err error) {
	if g.err == nil {
		g.err = err
	}
}

// finish looks at what only the whole graph tells.
func (g *graph) finish() {
	for i, m := range g.members {
		for f := range m.facts.Funcs {
			if flags := g.flags[m.base+uint32(f)]; flags&isHeld != 0 && flags&(hasSites|isWrapper) != 0 {
				g.indirect(node{m: int32(i), i: uint32(f)})
			}
		}
	}
	g.exportedNumbers()
	g.callsByName()
	for _, miss := range g.linker.Missing {
		g.issue("missing-library", miss.By, fmt.Sprintf("it needs %s, which isn't in the image", miss.Name), false)
	}
	for p, err := range g.linker.Unreadable {
		g.issue("unreadable-object", p, err.Error(), false)
	}
	g.res.Members = g.linker.Members()
	g.chains()
	sort.Slice(g.res.Issues, func(i, j int) bool {
		a, b := g.res.Issues[i], g.res.Issues[j]
		return a.Kind < b.Kind || a.Kind == b.Kind && (a.Object < b.Object || a.Object == b.Object && a.Detail < b.Detail)
	})
}
