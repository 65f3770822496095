package reach

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// Place is one place that decides the number of a system call: an instruction
// that enters the kernel with a constant, or a call that passes the number to
// a function that does.
type Place struct {
	// Nr is the number in the native table, or in that of i386 when Compat is
	// set; -1 when it can be any.
	Nr     int32
	Compat bool
	// Object and Address say where it is.
	Object  string
	Address uint64
	// Steps is the length of its chain up to the function that holds it.
	Steps int
	// Why says why the number isn't known, "" when it is.
	Why string

	made made
}

// Site is the instruction that a place's number comes to.
type Site struct {
	Object  string
	Address uint64 // 0 when it isn't known
	// Wrappers is the number of functions at the end of the chain that pass
	// the number on; 0 when the last function decides it.
	Wrappers int
}

// Trail answers how things were reached. It holds on to the whole graph.
type Trail struct {
	g     *graph
	paths *paths
	flows map[flowKey]flow
}

// chains finds the shortest chain of every call.
func (g *graph) chains() {
	t := &Trail{g: g, paths: g.trail.shortest(), flows: map[flowKey]flow{}}
	g.res.Trail = t
	best := map[*Call]*made{}
	length := map[*Call]int32{}
	for i := range g.trail.made {
		m := &g.trail.made[i]
		calls := g.res.Calls
		if m.compat {
			calls = g.res.Compat
		}
		c := calls[m.nr]
		if c == nil {
			continue
		}
		n := t.paths.steps(m.by)
		if m.to != noNode {
			n += int32(1 + len(t.flow(m).frames))
		}
		if best[c] == nil || n < length[c] {
			best[c], length[c] = m, n
		}
	}
	for c, m := range best {
		c.Chain, c.Site = t.chain(m)
	}
}

// Places lists what decides numbers, by number; of one number the nearest to
// an entry point come first. Each place of a number is there once.
func (t *Trail) Places() []Place {
	out := make([]Place, len(t.g.trail.made))
	for i, m := range t.g.trail.made {
		out[i] = Place{Nr: m.nr, Compat: m.compat, Object: t.g.members[m.by.m].link.Object.Path, Address: m.at, Steps: int(t.paths.steps(m.by)), Why: m.why, made: m}
	}
	slices.SortStableFunc(out, func(a, b Place) int {
		compat := func(p Place) int {
			if p.Compat {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(compat(a), compat(b)), cmp.Compare(a.Nr, b.Nr), cmp.Compare(a.Steps, b.Steps), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Address, b.Address))
	})
	return slices.CompactFunc(out, func(a, b Place) bool {
		return a.Nr == b.Nr && a.Compat == b.Compat && a.Object == b.Object && a.Address == b.Address
	})
}

// Chain is the shortest chain to a place, and the instruction at its end.
func (t *Trail) Chain(p Place) ([]Frame, Site) { return t.chain(&p.made) }

func (t *Trail) chain(m *made) ([]Frame, Site) {
	out := t.to(m.by)
	site := Site{Object: t.g.members[m.by.m].link.Object.Path, Address: m.at}
	if m.to != noNode {
		f := t.flow(m)
		out = append(append(out, t.frame(m.to, m.how)), f.frames...)
		site = Site{Object: out[len(out)-1].Object, Address: f.at, Wrappers: 1 + len(f.frames)}
	}
	return out, site
}

// to lists the frames from an entry point to a node.
func (t *Trail) to(n node) []Frame {
	var out []Frame
	p := t.paths
	at := p.place(t.g.trail.id(n))
	if p.dist[at] == 0 {
		return nil
	}
	for ; at != 0; at = p.from[at] {
		out = append(out, t.frame(p.placed(at), p.kind[at]))
	}
	slices.Reverse(out)
	return out
}

// ToText is the chain to what refers to a string that is a path or the name of
// a library; nil when nothing does.
func (t *Trail) ToText(text string) []Frame {
	i, ok := t.g.trail.known(facts.SymbolOf(text))
	if !ok {
		return nil
	}
	return t.to(node{m: textMember, i: i})
}

func (t *Trail) frame(n node, edge edgeKind) Frame {
	if n.m == textMember {
		return Frame{Kind: Text, Symbol: t.g.trail.texts[n.i], Edge: edge.String()}
	}
	m := t.g.members[n.m]
	path := m.link.Object.Path
	if n.region {
		r := &m.facts.Regions[n.i]
		return Frame{Kind: Data, Object: path, Symbol: r.Name, Address: r.Start, Size: r.End - r.Start, Edge: edge.String()}
	}
	f := &m.facts.Funcs[n.i]
	return Frame{Kind: Function, Object: path, Symbol: m.facts.Symbols[n.i], Address: f.Start, Size: f.End - f.Start, Edge: edge.String()}
}

// via says which wrapper a site calls, and how the number gets there.
func (g *graph) via(n node, s *facts.Site) (node, edgeKind) {
	f := g.members[n.m].facts
	if s.Via == 0 || int(s.Via) > len(f.Funcs) {
		return noNode, edgeNone
	}
	how := edgeVariable // the function leaves the number where the other finds it
	for _, e := range f.Funcs[n.i].Edges {
		if e.To != s.Via-1 {
			continue
		}
		if e.Kind == facts.EdgeCall || e.Kind == facts.EdgeFall {
			how = edgeCall
			break
		}
		how = edgeCallback
	}
	return node{m: n.m, i: s.Via - 1}, how
}

// flowKey is a wrapper and how the number gets to it.
type flowKey struct {
	n        node
	variable bool
}

// flow is the way of a number from a wrapper to the instruction.
type flow struct {
	frames []Frame // behind the wrapper
	at     uint64  // address of the instruction; 0 when it isn't known
}

// flow follows a number from the wrapper that a place passes it to, the
// shortest way.
func (t *Trail) flow(m *made) flow {
	k := flowKey{m.to, m.how == edgeVariable}
	f, ok := t.flows[k]
	if !ok {
		f = t.follow(k)
		t.flows[k] = f
	}
	return f
}

func (t *Trail) follow(k flowKey) flow {
	type place struct {
		n    node
		edge edgeKind
		from int
	}
	queue := []place{{k.n, edgeNone, -1}}
	seen := map[node]bool{k.n: true}
	for i := 0; i < len(queue); i++ {
		n := queue[i].n
		sites := t.g.members[n.m].facts.Funcs[n.i].Sites
		for j := range sites {
			if s := &sites[j]; s.Via == 0 && (len(s.Params) > 0 || k.variable && len(s.Nrs) == 0) {
				out := flow{at: s.Addr}
				for ; i > 0; i = queue[i].from {
					out.frames = append(out.frames, t.frame(queue[i].n, queue[i].edge))
				}
				slices.Reverse(out.frames)
				return out
			}
		}
		next := func(to node, edge edgeKind) {
			if to != noNode && !seen[to] {
				seen[to] = true
				queue = append(queue, place{to, edge, i})
			}
		}
		for j := range sites {
			if s := &sites[j]; len(s.Params) > 0 || k.variable {
				next(t.g.via(n, s))
			}
		}
		for _, h := range t.g.trail.handed[n] {
			next(h.to, h.edge)
		}
	}
	return flow{}
}

// Check returns what is wrong with the trail: nothing, unless it contradicts
// itself. It takes time in proportion to the whole graph.
func (t *Trail) Check() []string {
	var bad []string
	wrong := func(format string, args ...any) {
		if len(bad) < 20 {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	tr := t.g.trail
	for i, m := range t.g.members {
		for kind, count := range map[bool]int{false: len(m.facts.Funcs), true: len(m.facts.Regions)} {
			for k := range count {
				n := node{m: int32(i), i: uint32(k), region: kind}
				if got := tr.node(tr.id(n)); got != n {
					wrong("%v has the number %d, which is that of %v", n, tr.id(n), got)
				}
				if d, reached := t.paths.steps(n), t.g.flags[tr.id(n)]&isReached != 0; reached != (d > 0) {
					wrong("%s: %v is reached: %v, and has a chain of %d steps", m.link.Object.Path, n, reached, d)
				}
			}
		}
	}
	for r := range tr.runs {
		from := t.paths.place(tr.runs[r].from)
		for e := tr.runs[r].start; e < tr.end(uint32(r)); e++ {
			to := t.paths.place(tr.to[e])
			if a, b := t.paths.placed(from), t.paths.placed(to); from != 0 && !t.stated(a, b, tr.kind[e]) {
				wrong("no fact has the edge %v from %v to %v", tr.kind[e], a, b)
			}
			if t.paths.dist[from] > 0 && t.paths.dist[to] > t.paths.dist[from]+1 && tr.kind[e] != edgeLate && !t.late(from) {
				wrong("%v is %d steps away and leads to %v, which is %d", t.paths.placed(from), t.paths.dist[from], t.paths.placed(to), t.paths.dist[to])
			}
		}
	}
	for i := range tr.made {
		if m := &tr.made[i]; t.paths.steps(m.by) == 0 {
			wrong("the place %#x in %s is in a function without a chain", m.at, t.g.members[m.by.m].link.Object.Path)
		}
	}
	return bad
}

// stated reports whether the facts of an object have an edge between two of its
// functions. Edges of other kinds come from how objects are bound.
func (t *Trail) stated(from, to node, kind edgeKind) bool {
	if from.m != to.m || from.region || to.region || from.m < 0 {
		return true
	}
	fn := &t.g.members[from.m].facts.Funcs[from.i]
	own := slices.ContainsFunc(fn.Edges, func(e facts.Edge) bool { return e.To == to.i })
	imports := func(called bool) bool {
		return slices.ContainsFunc(fn.Imports, func(u facts.ImportUse) bool {
			return u.Called == called && slices.ContainsFunc(t.g.bind(from.m, u.Import).targets, func(x target) bool { return x.id == t.g.trail.id(to) })
		})
	}
	switch kind {
	case edgeCall, edgeTable:
		return own
	case edgeImport:
		return imports(true)
	case edgeTaken:
		return own || imports(false) || imports(true)
	}
	return true
}

// late reports whether a place is reached only from a root that counts last.
func (t *Trail) late(at uint32) bool {
	for at != 0 && t.paths.from[at] != 0 {
		at = t.paths.from[at]
	}
	return at != 0 && t.paths.kind[at] == edgeLate
}
