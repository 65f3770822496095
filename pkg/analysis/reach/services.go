package reach

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/analysis/link"
	"github.com/confinehq/confine/pkg/analysis/objects"
)

// Service is a library that is loaded because a configuration of the root names
// it. Those of its functions count whose names are Prefix and a string that is
// reachable: whoever loads it looks them up by name.
type Service struct {
	// Library is a path, or a name that the loader searches for.
	Library, Prefix string
	// Config is the file that names it.
	Config string
	// Group names many libraries as one where they are left out, such as the
	// folder that holds them; "" is each for itself.
	Group string
}

// Reached tells who finds the services what is reachable so far.
type Reached struct {
	g  *graph
	by *link.Member // who refers to the path that is asked about
}

// Exports reports whether the object that refers to the path exports a symbol.
func (r Reached) Exports(symbol string) bool { return r.exports(r.by, symbol) }

func (r Reached) exports(m *link.Member, symbol string) bool {
	i, ok := r.g.index[m]
	if !ok {
		return false
	}
	first, end := r.g.members[i].facts.Named(facts.SymbolOf(symbol))
	return first < end
}

// Converts reports whether a mode of fopen(3) is reachable that names a
// character set.
func (r Reached) Converts() bool { return r.g.converts }

// Paths lists the reachable absolute paths.
func (r Reached) Paths() []string { return r.paths(func(Name) bool { return true }) }

// PathsOf lists those that objects refer to which export a symbol.
func (r Reached) PathsOf(symbol string) []string {
	return r.paths(func(n Name) bool { return r.exports(n.By, symbol) })
}

func (r Reached) paths(want func(Name) bool) []string {
	var out []string
	for _, p := range r.g.res.Paths {
		if want(p) {
			out = append(out, p.Text)
		}
	}
	return out
}

// Args returns the strings that reachable code passes to a function of another
// object as an argument, counted from 0; nothing when it isn't called. The names
// are computed when some caller can't be followed, or holds its address.
func (r Reached) Args(function string, arg int) (names objects.Names, called bool) {
	for _, u := range r.g.watched[function] {
		called = true
		if !u.called {
			names.Computed = true
			continue
		}
		m := r.g.members[u.n.m]
		n, ok := r.g.names(u.n, u.imp, facts.Argument(m.facts.Machine, arg))
		names.Computed = names.Computed || !ok || n.Computed
		names.Known = append(names.Known, n.Known...)
	}
	slices.Sort(names.Known)
	names.Known = slices.Compact(names.Known)
	return names, called
}

// use is one use of an import that services depend on.
type use struct {
	n      node
	imp    uint32
	called bool
}

// watch notes the uses of functions that services ask for.
func (g *graph) watch(n node, u facts.ImportUse, b *binding) {
	if b.watched {
		name := g.members[n.m].facts.Imports[u.Import].Name
		g.watched[name] = append(g.watched[name], use{n, u.Import, u.Called})
	}
}

// services loads what configuration names.
func (g *graph) services(o Options) {
	if o.Services == nil {
		return
	}
	for i := 0; i < len(g.res.Paths); i++ {
		p := g.res.Paths[i]
		for _, s := range o.Services(g.ctx, p.Text, Reached{g, p.By}) {
			g.service(s, p, o.NoConfigured)
		}
	}
}

// service loads a library by configuration.
func (g *graph) service(s Service, by Name, leave bool) {
	if g.loaded[s.Library] || g.err != nil {
		return
	}
	g.loaded[s.Library] = true
	if s.Prefix != "" && g.defines(s.Prefix) {
		return // the C library holds the service itself (glibc since 2.34)
	}
	if leave {
		g.leftOut(s, by)
		return
	}
	before := len(g.members)
	m, err := g.linker.Load(g.ctx, s.Library, by.By)
	if err != nil {
		g.fail(err)
		return
	}
	if m == nil {
		return
	}
	g.cause = by.from
	defer func() { g.cause = noNode }()
	g.addMembers()
	i, ok := g.index[m]
	if !ok || int(i) < before {
		return
	}
	for _, m := range g.members[before:] {
		g.res.Configured[m.link] = s.Config
	}
	for k := range g.members[i].facts.Exports {
		end, ok := strings.CutPrefix(g.members[i].facts.Exports[k].Name, s.Prefix)
		if !ok {
			continue
		}
		g.named(end, exportID{i, k})
	}
}

// group is what names many libraries as one, and the file that names them.
type group struct{ name, config string }

func (g *graph) leftOut(s Service, by Name) {
	k := group{s.Group, s.Config}
	if g.grouped[k] {
		return // it is said already
	}
	p := g.linker.Path(g.ctx, s.Library, by.By)
	switch {
	case p == "":
	case s.Group != "":
		g.grouped[k] = true
		g.issue("configured-library", s.Group, fmt.Sprintf("%s makes the program load libraries of this folder; they were left out, as programs that are executed are (name those that matter with --load)", s.Config), true)
	default:
		g.issue("configured-library", p, fmt.Sprintf("%s makes the program load it; it was left out, as programs that are executed are (name it with --load)", s.Config), true)
	}
}

// ServicesFunc lists the libraries that a program loads by configuration when
// code that refers to a path is reachable. It is asked again when more is.
type ServicesFunc func(ctx context.Context, path string, r Reached) []Service

// Configured says which file made a program load a member.
type Configured = map[*link.Member]string
