package reach

import (
	"cmp"
	"slices"
)

// Rank is a function or a piece of data with the calls that only it brings in:
// without it, none of them could be made.
type Rank struct {
	// Frame is what brings them in.
	Frame
	// Calls are numbers of the native table, sorted.
	Calls []int32
	// From is the shortest chain that leads to it.
	From []Frame
}

// surplus ranks the nodes by the number of calls that they dominate: every
// way from an entry point to a site of the call leads through them. Immediate
// dominators are found by iteration (Cooper, Harvey, Kennedy: A Simple, Fast
// Dominance Algorithm, 2001).
func (g *graph) surplus(t *Trail) []Rank {
	order := t.paths.postorder()
	index := make([]int32, len(t.paths.dist)) // place to its index in order, plus 1
	for i, at := range order {
		index[at] = int32(i) + 1
	}
	root := len(order) - 1
	idom := dominators(t.paths, order, index)
	meet := func(a, b int) int { return meet(idom, a, b) }
	makers := map[int32]int{} // number to what dominates all its places
	for _, m := range g.trail.made {
		if m.compat || m.nr < 0 {
			continue
		}
		j := int(index[t.paths.place(g.trail.id(m.by))]) - 1
		if j < 0 || idom[j] < 0 {
			continue
		}
		if d, ok := makers[m.nr]; ok {
			j = meet(d, j)
		}
		makers[m.nr] = j
	}
	brought := map[int][]int32{}
	for nr, d := range makers {
		for ; d != root; d = idom[d] {
			brought[d] = append(brought[d], nr)
		}
	}
	var out []Rank
	for i, calls := range brought {
		if len(calls) > 1 {
			slices.Sort(calls)
			from := t.to(t.paths.placed(order[i]))
			out = append(out, Rank{Frame: from[len(from)-1], Calls: calls, From: from})
		}
	}
	slices.SortFunc(out, func(a, b Rank) int {
		return cmp.Or(cmp.Compare(len(b.Calls), len(a.Calls)), cmp.Compare(len(a.From), len(b.From)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Address, b.Address), cmp.Compare(a.Symbol, b.Symbol))
	})
	return out
}

func meet(idom []int, a, b int) int {
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

// dominators returns the immediate dominator of each place of order, which has
// the root last.
func dominators(p *paths, order []uint32, index []int32) []int {
	preds := make([][]int32, len(order))
	for i, at := range order {
		for r := range p.runsOf(at) {
			for e := p.t.runs[r].start; e < p.t.end(r); e++ {
				if j := index[p.place(p.t.to[e])]; j > 0 {
					preds[j-1] = append(preds[j-1], int32(i))
				}
			}
		}
	}
	root := len(order) - 1
	idom := make([]int, len(order))
	for i := range idom {
		idom[i] = -1
	}
	idom[root] = root
	for changed := true; changed; {
		changed = false
		for i := root - 1; i >= 0; i-- {
			d := -1
			for _, q := range preds[i] {
				switch q := int(q); {
				case idom[q] < 0:
				case d < 0:
					d = q
				default:
					d = meet(idom, d, q)
				}
			}
			if d != idom[i] {
				idom[i], changed = d, true
			}
		}
	}
	return idom
}

// postorder lists the places that are reached, the root last.
func (p *paths) postorder() []uint32 {
	type frame struct {
		at, run, edge uint32 // run is its index plus 1
	}
	seen := make([]bool, len(p.dist))
	var order []uint32
	stack := []frame{{run: p.first[0]}}
	seen[0] = true
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		if f.run == 0 {
			order = append(order, f.at)
			stack = stack[:len(stack)-1]
			continue
		}
		e := p.t.runs[f.run-1].start + f.edge
		if e == p.t.end(f.run-1) {
			f.run, f.edge = p.after[f.run-1], 0
			continue
		}
		f.edge++
		if to := p.place(p.t.to[e]); !seen[to] {
			seen[to] = true
			stack = append(stack, frame{at: to, run: p.first[to]})
		}
	}
	return order
}
