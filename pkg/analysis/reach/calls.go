package reach

import "sort"

// caller is a function that calls another by a direct call (imp is -1) or
// through an import.
type caller struct {
	m   int32
	fn  uint32
	imp int32
}

// callIndex finds the calls of a function among the edges of the trail. Few
// functions are asked for, so it is made when one is, and again when looking
// through the edges that came later has cost as much as making it.
type callIndex struct {
	known   int      // edges that it knows
	looked  int      // edges that were looked through since
	first   []uint32 // of each node, where its calls begin in edges
	edges   []uint32
	started bool
}

// callers lists the calls of a function, in the order in which they were
// followed.
func (g *graph) callers(id uint32) []caller {
	x, t := &g.calls, g.trail
	if !x.started || x.looked > len(t.to)+len(g.flags) {
		x.build(t)
	}
	var out []caller
	at := callCursor{t: t, run: -1}
	if int(id)+1 < len(x.first) {
		for _, e := range x.edges[x.first[id]:x.first[id+1]] {
			out = append(out, at.caller(e))
		}
	}
	for e := x.known; e < len(t.to); e++ {
		if t.to[e] == id && t.kind[e].calls() {
			out = append(out, at.caller(uint32(e)))
		}
	}
	x.looked += len(t.to) - x.known
	return out
}

// callCursor stands at an edge: it tells who makes calls, whose edges are asked
// for in their order.
type callCursor struct {
	t    *trail
	run  int // of the trail
	edge uint32
	imp  uint32 // the import of the next edgeImport
}

// caller is who makes the call of an edge.
func (c *callCursor) caller(e uint32) caller {
	t := c.t
	if r := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].start > e }) - 1; r != c.run {
		c.run, c.edge, c.imp = r, t.runs[r].start, t.runs[r].imp
	}
	for ; c.edge < e; c.edge++ {
		if t.kind[c.edge] == edgeImport {
			c.imp++
		}
	}
	n := t.node(t.runs[c.run].from)
	if t.kind[e] != edgeImport {
		return caller{n.m, n.i, -1}
	}
	return caller{n.m, n.i, int32(t.imp[c.imp])}
}

// build indexes all edges that there are.
func (x *callIndex) build(t *trail) {
	// first[i+1] counts up from where the calls of i begin to where they end,
	// which is where those of i+1 begin.
	x.first = make([]uint32, t.next+2)
	for e, to := range t.to {
		if t.kind[e].calls() {
			x.first[to+2]++
		}
	}
	for i := 2; i < len(x.first); i++ {
		x.first[i] += x.first[i-1]
	}
	x.edges = make([]uint32, x.first[t.next+1])
	for e, to := range t.to {
		if t.kind[e].calls() {
			x.edges[x.first[to+1]] = uint32(e)
			x.first[to+1]++
		}
	}
	x.known, x.looked, x.started = len(t.to), 0, true
}
