package reach

import (
	"iter"
	"sort"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// trail is the graph as it was followed. Each edge is noted when it is
// followed, so that chains can be looked for when the graph is whole: what was
// found first needs not be the shortest.
//
// Nodes have numbers: 0 is where every way begins, functions and regions of
// members follow, and texts are counted from textBit on.
type trail struct {
	base  []uint32 // of each member, the number of its first function
	funcs []uint32 // of each member, how many functions it has
	next  uint32   // the number of the next member's first function
	// to and kind are the edges, in the order in which they were followed; runs
	// are those that leave one node together.
	to   []uint32
	kind []edgeKind
	runs []run
	imp  []uint32 // the import of each edgeImport
	from uint32   // the node of the last run
	// links and strings are how many edges and texts there can be, about.
	links, strings int
	texts          []string
	words          words // the texts, and what may become one
	made           []made
	// handed are the numbers that wrappers hand on to functions of other
	// objects.
	handed map[node][]hand
}

// textBit marks the numbers of texts.
const textBit = 1 << 31

// textMember is the member of nodes that stand for a text: a string that names
// a library, a function or a file. Its index is that of trail.texts.
const textMember = int32(-2)

// run is a series of edges that leave one node; it ends where the next begins.
type run struct {
	from, start uint32
	imp         uint32 // where the imports of its edges begin
}

// made is one place that decides a system call's number.
type made struct {
	nr     int32 // -1 when it can be any
	compat bool
	by     node     // the function that has the place
	at     uint64   // address of the place: the instruction, or the call that passes the number
	to     node     // the wrapper that gets the number; noNode for an instruction that enters the kernel
	how    edgeKind // from by to to
	why    string   // why the number isn't known
}

// hand is a number that a wrapper hands on to another.
type hand struct {
	to   node
	at   uint64
	edge edgeKind
}

func newTrail() *trail {
	return &trail{next: 1, handed: map[node][]hand{}}
}

// member gives numbers to what a new member has.
func (t *trail) member(f *facts.Facts) {
	funcs, regions := len(f.Funcs), len(f.Regions)
	t.links += f.Links()
	t.strings += len(f.Strings)
	t.base, t.funcs = append(t.base, t.next), append(t.funcs, uint32(funcs))
	t.next += uint32(funcs + regions)
}

// reserve makes room for what the first members lead to: of functions and data a
// third, about, is reached, and of edges a third are imports.
func (t *trail) reserve() {
	if t.to == nil {
		t.texts = make([]string, 0, t.strings)
		t.to, t.kind = make([]uint32, 0, t.links), make([]edgeKind, 0, t.links)
		t.runs, t.imp = make([]run, 0, t.next/3), make([]uint32, 0, t.links/3)
		t.words.reserve(t.strings)
	}
}

// id is the number of a node.
func (t *trail) id(n node) uint32 {
	switch {
	case n.m == textMember:
		return textBit | n.i
	case n.m < 0:
		return 0
	case n.region:
		return t.base[n.m] + t.funcs[n.m] + n.i
	}
	return t.base[n.m] + n.i
}

// node is the node of a number.
func (t *trail) node(id uint32) node {
	if id == 0 {
		return noNode
	}
	if id&textBit != 0 {
		return node{m: textMember, i: id &^ textBit}
	}
	m := sort.Search(len(t.base), func(i int) bool { return t.base[i] > id }) - 1
	n := node{m: int32(m), i: id - t.base[m]}
	if n.i >= t.funcs[m] {
		n.i, n.region = n.i-t.funcs[m], true
	}
	return n
}

// textNode is the node of a text.
func (t *trail) textNode(s string) node { return t.textOf(t.words.word(facts.SymbolOf(s))) }

func (t *trail) textOf(w *word) node {
	if w.text == 0 {
		t.texts = append(t.texts, w.Name)
		w.text = uint32(len(t.texts))
	}
	return node{m: textMember, i: w.text - 1}
}

// known is the index of a text, if it is one.
func (t *trail) known(s facts.Symbol) (uint32, bool) {
	w := t.words.find(s)
	if w == nil || w.text == 0 {
		return 0, false
	}
	return w.text - 1, true
}

// edge notes that a way was followed.
func (t *trail) edge(from, to node, kind edgeKind) { t.link(t.id(from), t.id(to), kind, 0) }

// link is edge for numbers of nodes; imp is the import of an edgeImport.
func (t *trail) link(from, to uint32, kind edgeKind, imp uint32) {
	if from != t.from || len(t.runs) == 0 {
		t.runs = append(t.runs, run{from, uint32(len(t.to)), uint32(len(t.imp))})
		t.from = from
	}
	t.to = append(t.to, to)
	t.kind = append(t.kind, kind)
	if kind == edgeImport {
		t.imp = append(t.imp, imp)
	}
}

// paths are the shortest ways to everything that was reached.
type paths struct {
	t *trail
	// from and kind say, for each place of a node, by which node it is reached
	// and by which edge; dist is the number of steps, 0 when it isn't reached.
	from []uint32
	kind []edgeKind
	dist []int32
	seen []uint64 // a bit for each place: whether it is reached
	// first is the first run of each place, and after what follows a run there,
	// as indexes of trail.runs plus 1.
	first []uint32
	after []uint32
}

// place is the index of a node's number in the tables of paths.
func (p *paths) place(id uint32) uint32 {
	if id&textBit != 0 {
		return p.t.next + id&^textBit
	}
	return id
}

// shortest finds the shortest ways, breadth first: from everything that the
// loader enters, then, for what that doesn't reach, from what is always there.
// Among ways of one length the one that was followed first wins.
func (t *trail) shortest() *paths {
	n := int(t.next) + len(t.texts)
	p := &paths{t: t, from: make([]uint32, n), kind: make([]edgeKind, n), dist: make([]int32, n), seen: make([]uint64, n/64+1)}
	p.index(n)
	p.dist[0], p.seen[0] = 1, 1
	queue := make([]uint32, 0, n)
	roots := func(want bool) {
		for r := range p.runsOf(0) {
			for e := t.runs[r].start; e < t.end(r); e++ {
				if (t.kind[e] == edgeLate) == want {
					queue = p.visit(queue, 0, e)
				}
			}
		}
		for len(queue) > 0 {
			from := queue[0]
			queue = queue[1:]
			for k := p.first[from]; k > 0; k = p.after[k-1] {
				for e, end := t.runs[k-1].start, t.end(k-1); e < end; e++ {
					queue = p.visit(queue, from, e)
				}
			}
		}
	}
	roots(false)
	roots(true)
	return p
}

// visit reaches the target of edge e from a place, when it is new.
func (p *paths) visit(queue []uint32, from, e uint32) []uint32 {
	to := p.place(p.t.to[e])
	word, bit := &p.seen[to/64], uint64(1)<<(to%64)
	if *word&bit != 0 {
		return queue
	}
	*word |= bit
	p.dist[to], p.from[to], p.kind[to] = p.dist[from]+1, from, p.t.kind[e]
	return append(queue, to)
}

// end is where the edges of a run end.
func (t *trail) end(r uint32) uint32 {
	if int(r)+1 < len(t.runs) {
		return t.runs[r+1].start
	}
	return uint32(len(t.to))
}

// index lists the runs of each of n places.
func (p *paths) index(n int) {
	p.first, p.after = make([]uint32, n), make([]uint32, len(p.t.runs))
	for r := len(p.t.runs) - 1; r >= 0; r-- {
		at := p.place(p.t.runs[r].from)
		p.after[r], p.first[at] = p.first[at], uint32(r+1)
	}
}

// runsOf yields the runs of a place, as indexes of trail.runs.
func (p *paths) runsOf(place uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for k := p.first[place]; k > 0 && yield(k-1); {
			k = p.after[k-1]
		}
	}
}

// placed is the node of a place.
func (p *paths) placed(place uint32) node {
	if place >= p.t.next {
		return node{m: textMember, i: place - p.t.next}
	}
	return p.t.node(place)
}

// steps is the length of the shortest way to a node; 0 when there is none.
func (p *paths) steps(n node) int32 {
	d := p.dist[p.place(p.t.id(n))]
	return max(0, d-1)
}

// Functions calls visit with the object and the start of each function that was
// reached.
func (t *Trail) Functions(visit func(object string, start uint64)) {
	for _, m := range t.g.members {
		for i := range m.facts.Funcs {
			if t.g.flags[m.base+uint32(i)]&isReached != 0 {
				visit(m.link.Object.Path, m.facts.Funcs[i].Start)
			}
		}
	}
}
