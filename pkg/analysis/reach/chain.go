package reach

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
