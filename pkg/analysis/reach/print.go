package reach

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
)

// NodeRecord is one node of a graph in the form in which graphs are printed.
type NodeRecord struct {
	// Program is the path of the program whose graph it is.
	Program string    `json:"program"`
	ID      uint32    `json:"id"`
	Kind    FrameKind `json:"kind"`
	Object  string    `json:"object,omitempty"`
	Name    string    `json:"name,omitempty"`
	Address uint64    `json:"address,omitempty"`
	// Steps is the length of the shortest chain to it, From the node before it
	// on that chain (0 for a root), and Edge the last edge of it.
	Steps int    `json:"steps"`
	From  uint32 `json:"from"`
	Edge  string `json:"edge"`
	// To are the ways on from here.
	To []EdgeRecord `json:"to,omitempty"`
}

// EdgeRecord is one edge.
type EdgeRecord struct {
	To   uint32 `json:"to"`
	Edge string `json:"edge"`
}

// Nodes calls visit with everything that was reached, in a stable order:
// functions and data of each object as it was loaded, then texts. It ends with
// the first error of visit.
func (t *Trail) Nodes(program string, visit func(*NodeRecord) error) error {
	p := t.paths
	for at := uint32(1); int(at) < len(p.dist); at++ {
		if p.dist[at] == 0 {
			continue
		}
		f := t.frame(p.placed(at), p.kind[at])
		r := &NodeRecord{
			Program: program, ID: at, Kind: f.Kind, Object: f.Object, Name: f.Symbol, Address: f.Address,
			Steps: int(p.dist[at] - 1), From: p.from[at], Edge: f.Edge,
		}
		for k := range p.runsOf(at) {
			for e := t.g.trail.runs[k].start; e < t.g.trail.end(k); e++ {
				x := EdgeRecord{p.place(t.g.trail.to[e]), t.g.trail.kind[e].String()}
				if !slices.Contains(r.To, x) {
					r.To = append(r.To, x)
				}
			}
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// Format is a form in which a graph is printed.
type Format int

// Formats: lines of text, one JSON value a line, the language of Graphviz.
const (
	AsText Format = iota
	AsJSON
	AsDot
)

// Print writes what a program reaches. It needs no more memory than one node
// takes.
func (t *Trail) Print(w io.Writer, program string, format Format) error {
	b := bufio.NewWriter(w)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	switch format {
	case AsText:
		fmt.Fprintf(b, "program %s\n", facts.Clean(program))
	case AsDot:
		fmt.Fprintf(b, "digraph %s {\n\trankdir=LR; node [shape=box];\n\tn0 [shape=folder, label=%s];\n", quote(program), quote(program))
	}
	err := t.Nodes(program, func(r *NodeRecord) error {
		switch format {
		case AsJSON:
			return e.Encode(r)
		case AsDot:
			t.printDot(b, r)
		default:
			t.printText(b, r)
		}
		_, err := b.Write(nil) // the first error of the writer below
		return err
	})
	if format == AsDot {
		fmt.Fprintln(b, "}")
	}
	if err == nil {
		err = b.Flush()
	}
	if err != nil {
		return fmt.Errorf("print graph of %s: %w", program, err)
	}
	return nil
}

func (t *Trail) printText(b *bufio.Writer, r *NodeRecord) {
	fmt.Fprintf(b, "%s %d %s", r.Kind, r.ID, r.label())
	if r.From == 0 {
		fmt.Fprintf(b, " [root, %s]\n", r.Edge)
	} else {
		fmt.Fprintf(b, " [%d steps, %s from %d]\n", r.Steps, r.Edge, r.From)
	}
	for _, x := range r.To {
		fmt.Fprintf(b, "  %s %d %s\n", x.Edge, x.To, t.label(x.To))
	}
}

func (t *Trail) printDot(b *bufio.Writer, r *NodeRecord) {
	shape := map[FrameKind]string{Function: "box", Data: "cylinder", Text: "note"}[r.Kind]
	fmt.Fprintf(b, "\tn%d [shape=%s, label=%s];\n", r.ID, shape, quote(r.label()))
	if r.From == 0 {
		fmt.Fprintf(b, "\tn0 -> n%d [label=%s];\n", r.ID, quote(r.Edge))
	}
	for _, x := range r.To {
		fmt.Fprintf(b, "\tn%d -> n%d [label=%s];\n", r.ID, x.To, quote(x.Edge))
	}
}

// label names the node of a place.
func (t *Trail) label(at uint32) string {
	f := t.frame(t.paths.placed(at), edgeNone)
	r := NodeRecord{Kind: f.Kind, Object: f.Object, Name: f.Symbol, Address: f.Address}
	return r.label()
}

func (r *NodeRecord) label() string {
	if r.Kind == Text {
		return fmt.Sprintf("%q", r.Name)
	}
	out := fmt.Sprintf("%s+%#x", facts.Clean(r.Object), r.Address)
	if r.Name != "" {
		out += " " + facts.Clean(r.Name)
	}
	return out
}

// quote makes a string of Graphviz's language of anything.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(facts.Clean(s)) + `"`
}
