package facts

import (
	"cmp"
	"fmt"
)

// lastEdge is the last kind of edge that there is: EdgeInner.
const lastEdge = EdgeFall + 1

// Invariants returns what is wrong with facts that users of them rely on:
// nothing, unless the package has a mistake. Tests ask for all facts that they
// make.
func (f *Facts) Invariants() []string {
	var bad []string
	wrong := func(format string, args ...any) {
		if len(bad) < 20 {
			bad = append(bad, fmt.Sprintf(format, args...))
		}
	}
	below := func(what string, list []uint32, n int) {
		for k, i := range list {
			if int(i) >= n || k > 0 && i <= list[k-1] {
				wrong("%s %d of %d, at place %d of a list in ascending order", what, i, n, k)
			}
		}
	}
	nf, nr, ni, ns := len(f.Funcs), len(f.Regions), len(f.Imports), len(f.Strings)
	if int(f.Entry) > nf {
		wrong("entry %d of %d functions", f.Entry, nf)
	}
	below("root", f.Roots, nf)
	below("held function", f.Held, nf)
	below("root import", f.RootImports, ni)
	below("root region", f.RootRegions, nr)
	for i := range f.Funcs {
		fn := &f.Funcs[i]
		at := fmt.Sprintf("function %#x:", fn.Start)
		if fn.End <= fn.Start {
			wrong("%s ends at %#x", at, fn.End)
		}
		if i > 0 && fn.Start < f.Funcs[i-1].End {
			wrong("%s overlaps the one before, which ends at %#x", at, f.Funcs[i-1].End)
		}
		for k, e := range fn.Edges {
			if int(e.To) >= nf || e.Kind == 0 || e.Kind > lastEdge || k > 0 && compareEdges(fn.Edges[k-1], e) >= 0 {
				wrong("%s edge of kind %d to %d of %d", at, e.Kind, e.To, nf)
			}
		}
		for k, m := range fn.Imports {
			if int(m.Import) >= ni || k > 0 && compareUses(fn.Imports[k-1], m) >= 0 {
				wrong("%s import %d of %d", at, m.Import, ni)
			}
		}
		below(at+" region", fn.Regions, nr)
		below(at+" string", fn.Strings, ns)
		for k := range fn.Passes {
			p := &fn.Passes[k]
			if p.Import && int(p.To) >= ni || !p.Import && int(p.To) >= nf || len(p.Args) == 0 || k > 0 && comparePasses(fn.Passes[k-1], *p) >= 0 {
				wrong("%s passes %d of %d is of or behind %d", at, k, len(fn.Passes), p.To)
			}
			argInvariants(p.Args, func(format string, args ...any) { wrong(at+" "+format, args...) })
		}
		for k := range fn.Sites {
			below(at+" exported variable", fn.Sites[k].Vars, len(f.Exports))
			argInvariants(fn.Sites[k].Args, func(format string, args ...any) { wrong(at+" "+format, args...) })
			siteInvariants(fn, &fn.Sites[k], nf, func(format string, args ...any) { wrong(at+" "+format, args...) })
		}
	}
	for i := range f.Regions {
		r := &f.Regions[i]
		at := fmt.Sprintf("region %s %#x:", r.Name, r.Start)
		if r.End < r.Start || i > 0 && r.Start < f.Regions[i-1].End {
			wrong("%s to %#x, the one before ends at %#x", at, r.End, f.Regions[max(i, 1)-1].End)
		}
		below(at+" function", r.Funcs, nf)
		below(at+" import", r.Imports, ni)
		below(at+" region", r.Regions, nr)
		below(at+" string", r.Strings, ns)
	}
	for i := range f.Imports {
		if m := &f.Imports[i]; int(m.OwnFunc) > nf || int(m.OwnRegion) > nr || !m.Own && m.OwnFunc+m.OwnRegion > 0 {
			wrong("import %s: own function %d, region %d", m.Name, m.OwnFunc, m.OwnRegion)
		}
		argInvariants(f.Imports[i].Args, func(format string, args ...any) { wrong("import "+f.Imports[i].Name+": "+format, args...) })
	}
	for i := range f.Exports {
		e := &f.Exports[i]
		if int(e.Func) > nf || int(e.Region) > nr || e.Func > 0 && e.Region > 0 {
			wrong("export %s: function %d, region %d", e.Name, e.Func, e.Region)
		}
		if i > 0 && (e.Name < f.Exports[i-1].Name || e.Name == f.Exports[i-1].Name && e.Version < f.Exports[i-1].Version) {
			wrong("export %s@%s is out of order", e.Name, e.Version)
		}
	}
	for i := range f.Symbols {
		if int(i) >= nf {
			wrong("symbol %s of function %d", f.Symbols[i], i)
		}
	}
	return bad
}

// ascending reports whether a list is sorted and has nothing twice.
func ascending[T cmp.Ordered](list []T) bool {
	for i := 1; i < len(list); i++ {
		if list[i] <= list[i-1] {
			return false
		}
	}
	return true
}

func argInvariants(list []Arg, wrong func(string, ...any)) {
	for i := range list {
		a := &list[i]
		if len(a.Values)+len(a.Params) == 0 || len(a.Values) > maxArgValues || !ascending(a.Values) || !ascending(a.Params) || i > 0 && list[i-1].At >= a.At {
			wrong("argument at %d: %v, %v", a.At, a.Values, a.Params)
		}
	}
}

func siteInvariants(fn *Func, s *Site, funcs int, wrong func(string, ...any)) {
	// A function that runs on into a wrapper calls it at its end.
	if s.Addr < fn.Start || s.Addr > fn.End || s.Addr == fn.End && s.Via == 0 {
		wrong("site %#x is outside", s.Addr)
	}
	if int(s.Via) > funcs {
		wrong("site %#x calls wrapper %d of %d", s.Addr, s.Via, funcs)
	}
	if s.Kind < SiteSyscall || s.Kind > SiteSysenter {
		wrong("site %#x of kind %d", s.Addr, s.Kind)
	}
	if !ascending(s.Nrs) || !ascending(s.Params) {
		wrong("site %#x: numbers %v and parameters %v aren't in ascending order", s.Addr, s.Nrs, s.Params)
	}
	for _, p := range s.Params {
		if off, onStack := p.Stack(); onStack && off < 0 {
			wrong("site %#x: parameter %d", s.Addr, p)
		}
	}
}
