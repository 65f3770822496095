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
// functions are asked for, so that it learns the edges when one is.
type callIndex struct {
	known int           // edges that it knows
	edges lists[uint32] // that are calls
	heads []uint32      // of each node, the list of the calls of it
}

// callers lists the calls of a function, in the order in which they were
// followed.
func (g *graph) callers(id uint32) []caller {
	x := &g.calls
	x.learn(g.trail)
	if int(id) >= len(x.heads) {
		return nil
	}
	var out []caller
	at := callCursor{t: g.trail, run: -1}
	for _, e := range x.edges.of(x.heads[id]) {
		out = append(out, at.caller(e))
	}
	return out
}

// learn takes in the edges that are new.
func (x *callIndex) learn(t *trail) {
	x.heads = append(x.heads, make([]uint32, int(t.next)-len(x.heads))...)
	for ; x.known < len(t.to); x.known++ {
		if t.kind[x.known].calls() {
			x.edges.add(&x.heads[t.to[x.known]], uint32(x.known))
		}
	}
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
