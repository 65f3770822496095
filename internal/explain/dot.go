package explain

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Dot writes a document as a directed graph for Graphviz: chains that share
// frames meet there, and objects are boxes around their functions.
func Dot(w io.Writer, d *Document) error {
	g := &dotGraph{ids: map[dotKey]int{}, edges: map[[2]int]bool{}, clusters: map[string][]int{}}
	for _, r := range d.Reasons {
		g.chain(d, r.Chain, r.Site)
		if len(r.Chain) == 0 {
			n := g.node(dotKey{kind: r.Kind, symbol: strings.TrimSpace(r.Kind + ": " + r.Detail)})
			g.edge(n, g.node(dotKey{kind: "call", symbol: d.Call}), "")
		}
	}
	for _, c := range d.Chains {
		g.chain(d, c.Frames, c.Site)
	}
	return g.write(w, d)
}

type dotKey struct {
	kind, object, symbol string
	address              uint64
}

type dotEdge struct {
	from, to int
	label    string
}

type dotGraph struct {
	ids      map[dotKey]int
	nodes    []dotKey
	edges    map[[2]int]bool
	list     []dotEdge
	clusters map[string][]int // nodes by object
	objects  []string
}

func (g *dotGraph) node(k dotKey) int {
	i, ok := g.ids[k]
	if ok {
		return i
	}
	i = len(g.nodes)
	g.ids[k] = i
	g.nodes = append(g.nodes, k)
	if k.object != "" {
		if g.clusters[k.object] == nil {
			g.objects = append(g.objects, k.object)
		}
		g.clusters[k.object] = append(g.clusters[k.object], i)
	}
	return i
}

func (g *dotGraph) edge(from, to int, label string) {
	if g.edges[[2]int{from, to}] {
		return
	}
	g.edges[[2]int{from, to}] = true
	g.list = append(g.list, dotEdge{from, to, label})
}

func (g *dotGraph) chain(d *Document, frames []Frame, s Site) {
	last := -1
	for _, f := range frames {
		n := g.node(dotKey{f.Kind, f.Object, f.Symbol, f.Address})
		if last >= 0 {
			g.edge(last, n, f.verb())
		}
		last = n
	}
	if last >= 0 {
		label := "enters the kernel"
		if s.Address != 0 {
			label += fmt.Sprintf(" at +%#x", s.Address)
		}
		g.edge(last, g.node(dotKey{kind: "call", symbol: d.Call}), label)
	}
}

func (g *dotGraph) write(w io.Writer, d *Document) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "digraph %s {\n", quote(d.Call+" of "+d.Subject))
	fmt.Fprintf(b, "\tlabel=%s; labelloc=t;\n", quote(d.Call+verdict(d)+d.Subject))
	fmt.Fprintln(b, "\trankdir=LR; fontname=\"sans-serif\"; node [shape=box, fontname=\"sans-serif\", fontsize=10]; edge [fontname=\"sans-serif\", fontsize=8];")
	for i, object := range g.objects {
		fmt.Fprintf(b, "\tsubgraph cluster_%d {\n\t\tlabel=%s; style=rounded;\n", i, quote(object))
		for _, n := range g.clusters[object] {
			fmt.Fprintf(b, "\t\t%s\n", g.statement(n))
		}
		fmt.Fprintln(b, "\t}")
	}
	for i, k := range g.nodes {
		if k.object == "" {
			fmt.Fprintf(b, "\t%s\n", g.statement(i))
		}
	}
	for _, e := range g.list {
		fmt.Fprintf(b, "\tn%d -> n%d [label=%s];\n", e.from, e.to, quote(e.label))
	}
	fmt.Fprintln(b, "}")
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write graph: %w", err)
	}
	return nil
}

// verdict stands between a call and its subject.
func verdict(d *Document) string {
	if d.Allowed {
		return " is allowed for "
	}
	return " is not allowed for "
}

func (g *dotGraph) statement(i int) string {
	k := g.nodes[i]
	f := Frame{Kind: k.kind, Object: k.object, Symbol: k.symbol, Demangled: Demangle(k.symbol), Address: k.address}
	label, shape := f.Name(), "box"
	switch k.kind {
	case "program":
		shape = "folder"
	case "data":
		shape, label = "cylinder", label+fmt.Sprintf("\n+%#x", k.address)
	case "text":
		shape = "note"
	case "function":
		if k.symbol != "" {
			label += fmt.Sprintf("\n+%#x", k.address)
		}
	case "call":
		shape = "doubleoctagon"
	}
	return fmt.Sprintf("n%d [shape=%s, label=%s];", i, shape, quote(label))
}

// quote makes a string of Graphviz's language of anything.
func quote(s string) string {
	r := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	return `"` + r.Replace(strings.ToValidUTF8(s, "?")) + `"`
}
