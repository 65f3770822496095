package reach

import (
	"cmp"
	"slices"
)

// Rank is a function or a piece of data with the calls that only it brings in:
// without it, none of them could be made.
type Rank struct {
	Object, Name string
	Address      uint64
	// Calls are numbers of the native table, sorted.
	Calls []int32
	// From is the chain that leads to it.
	From []Frame
}

// recorder keeps the whole graph, for Surplus.
type recorder struct {
	edges map[node][]node
	calls map[int32][]node // key: number; functions that make it
}

func (r *recorder) edge(from, to node) {
	if r != nil {
		r.edges[from] = append(r.edges[from], to)
	}
}

func (r *recorder) call(nr int32, n node) {
	if r != nil {
		r.calls[nr] = append(r.calls[nr], n)
	}
}

// surplus ranks the nodes by the number of calls that they dominate: every
// way from an entry point to a site of the call leads through them. Immediate
// dominators are found by iteration (Cooper, Harvey, Kennedy: A Simple, Fast
// Dominance Algorithm, 2001).
func (g *graph) surplus() []Rank {
	order, index := g.postorder()
	preds := make([][]int, len(order))
	for i, n := range order {
		for _, to := range g.rec.edges[n] {
			if j, ok := index[to]; ok {
				preds[j] = append(preds[j], i)
			}
		}
	}
	root := len(order) - 1
	idom := make([]int, len(order))
	for i := range idom {
		idom[i] = -1
	}
	idom[root] = root
	meet := func(a, b int) int {
		for a != b {
			for a < b {
				a = idom[a]
			}
			for b < a {
				b = idom[b]
			}
		}
		return a
	}
	for changed := true; changed; {
		changed = false
		for i := root - 1; i >= 0; i-- {
			d := -1
			for _, p := range preds[i] {
				switch {
				case idom[p] < 0:
				case d < 0:
					d = p
				default:
					d = meet(d, p)
				}
			}
			if d != idom[i] {
				idom[i], changed = d, true
			}
		}
	}
	brought := map[int][]int32{}
	for nr, sites := range g.rec.calls {
		d := -1
		for _, n := range sites {
			if j, ok := index[n]; ok && idom[j] >= 0 {
				if d < 0 {
					d = j
				} else {
					d = meet(d, j)
				}
			}
		}
		for ; d >= 0 && d != root; d = idom[d] {
			brought[d] = append(brought[d], nr)
		}
	}
	var out []Rank
	for i, calls := range brought {
		if len(calls) > 1 {
			out = append(out, g.rank(order[i], calls))
		}
	}
	slices.SortFunc(out, func(a, b Rank) int {
		return cmp.Or(cmp.Compare(len(b.Calls), len(a.Calls)), cmp.Compare(len(a.From), len(b.From)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Address, b.Address))
	})
	return out
}

func (g *graph) rank(n node, calls []int32) Rank {
	m := g.members[n.m]
	slices.Sort(calls)
	r := Rank{Object: m.link.Object.Path, Calls: calls, From: g.chain(n)}
	if n.region {
		reg := &m.facts.Regions[n.i]
		r.Name, r.Address = reg.Name, reg.Start
	} else {
		r.Name, r.Address = m.facts.Symbols[n.i], m.facts.Funcs[n.i].Start
	}
	return r
}

// postorder lists the reached nodes with the virtual root last.
func (g *graph) postorder() ([]node, map[node]int) {
	type frame struct {
		n    node
		next int
	}
	index := map[node]int{}
	seen := map[node]bool{noNode: true}
	var order []node
	stack := []frame{{noNode, 0}}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		if to := g.rec.edges[f.n]; f.next < len(to) {
			n := to[f.next]
			f.next++
			if !seen[n] {
				seen[n] = true
				stack = append(stack, frame{n, 0})
			}
			continue
		}
		index[f.n] = len(order)
		order = append(order, f.n)
		stack = stack[:len(stack)-1]
	}
	return order, index
}
