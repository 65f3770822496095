package reach

// pointers finds for each call the number of pointers to functions in data that
// the chain with the fewest goes through; key: number. A call that needs none is
// reached by calls and by addresses that code takes alone: no finer view of data
// can remove it.
func (g *graph) pointers(t *Trail) map[int32]int {
	p := t.paths
	count := make([]int, len(p.dist)) // of pointers to each place, plus 1; 0 when it isn't reached
	count[0] = 1
	for level := []uint32{0}; len(level) > 0; {
		var next []uint32 // places that take one pointer more
		for len(level) > 0 {
			at := level[len(level)-1]
			level = level[:len(level)-1]
			for r := range p.runsOf(at) {
				for e := p.t.runs[r].start; e < p.t.end(r); e++ {
					to := p.place(p.t.to[e])
					switch {
					case p.t.kind[e] == edgeData && (count[to] == 0 || count[to] > count[at]+1):
						count[to] = count[at] + 1
						next = append(next, to)
					case p.t.kind[e] != edgeData && (count[to] == 0 || count[to] > count[at]):
						count[to] = count[at]
						level = append(level, to)
					}
				}
			}
		}
		level = next
	}
	out := map[int32]int{}
	for i := range g.trail.made {
		m := &g.trail.made[i]
		n := count[p.place(g.trail.id(m.by))] - 1
		if m.compat || m.nr < 0 || n < 0 {
			continue
		}
		if old, ok := out[m.nr]; !ok || n < old {
			out[m.nr] = n
		}
	}
	return out
}
