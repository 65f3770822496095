package reach

import (
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/facts"
	"github.com/confinehq/confine/pkg/syscalls"
)

const (
	// maxArgValues bounds the values that an argument is known by; with more it
	// can be anything.
	maxArgValues = 64
	// maxArgParams bounds the parameters that are asked for one argument.
	maxArgParams = 1 << 14
)

// values are the numbers that an argument or a parameter can be: the lower 32
// bits of each.
type values struct {
	any  bool
	list map[uint32]bool
}

func (v *values) add(list []uint32) {
	if v.any {
		return
	}
	if v.list == nil {
		v.list = map[uint32]bool{}
	}
	for _, x := range list {
		v.list[x] = true
	}
	if len(v.list) > maxArgValues {
		*v = values{any: true}
	}
}

// argument is a parameter of a function whose value an argument takes.
type argument struct {
	n node
	l param
}

// arguments finds what the calls can choose by their arguments, once all that
// is reachable is known. A number that can be any leaves every argument free.
func (g *graph) arguments(arch syscalls.Arch) {
	if g.res.Widened || g.unseenCode() {
		return
	}
	g.lookedUpAnywhere()
	a := &arguments{g: g, arch: arch, sites: map[int32]map[int]*values{}, known: map[argument]*values{}, hand: map[node]bool{}}
	for mi, m := range g.members {
		for fi := range m.facts.Funcs {
			if g.flags[m.base+uint32(fi)]&hasSites == 0 {
				continue
			}
			for k := range m.facts.Funcs[fi].Sites {
				a.site(node{m: int32(mi), i: uint32(fi)}, &m.facts.Funcs[fi].Sites[k])
			}
		}
	}
	for i := range g.besides {
		a.besides(&g.besides[i])
	}
	for nr, c := range g.res.Calls {
		if c.free {
			continue
		}
		for _, i := range slices.Sorted(maps.Keys(a.sites[nr])) {
			if v := a.sites[nr][i]; !v.any && len(v.list) > 0 {
				c.Args = append(c.Args, Arg{Index: i, Values: slices.Sorted(maps.Keys(v.list))})
			}
		}
	}
}

// unseenCode reports whether functions may be called with arguments that no
// code of the closure shows: an object is missing, or functions are looked up
// by names that come from outside and called with arguments that do, too
// (libraries for foreign functions).
func (g *graph) unseenCode() bool {
	if len(g.linker.Missing) > 0 || len(g.linker.Unreadable) > 0 {
		return true
	}
	if slices.ContainsFunc(g.res.Issues, func(i Issue) bool { return i.Kind == "unreadable-object" }) {
		return true
	}
	return g.anyName && slices.ContainsFunc(g.members, func(m *member) bool {
		return slices.ContainsFunc(m.facts.Generic(), func(i uint32) bool { return g.flags[m.base+i]&isReached != 0 })
	})
}

// lookedUpAnywhere notes the functions that a computed name may lead to, when
// it is looked up in all objects: those whose names are texts that are reached.
func (g *graph) lookedUpAnywhere() {
	if !g.anywhere {
		return
	}
	for _, m := range g.members {
		for k := range m.facts.Exports {
			if e := &m.facts.Exports[k]; e.Func > 0 && g.reachedText(e.Name) {
				g.flags[m.base+e.Func-1] |= isRooted
			}
		}
	}
}

type arguments struct {
	g     *graph
	arch  syscalls.Arch
	sites map[int32]map[int]*values // keys: number, position
	known map[argument]*values
	hand  map[node]bool // functions that were asked, to whether they hand numbers on
}

// site adds what one site can choose.
func (a *arguments) site(n node, s *facts.Site) {
	for _, nr := range s.Nrs {
		name, ok := syscalls.Name(a.arch, int(nr))
		if !ok {
			continue
		}
		for _, i := range syscalls.Chooses(name) {
			v := a.of(nr, i)
			arg, ok := s.At(i)
			if !ok || s.Kind != facts.SiteSyscall || s.Via > 0 && a.handsOn(node{m: n.m, i: s.Via - 1}) {
				*v = values{any: true}
			}
			if v.any {
				continue
			}
			v.add(arg.Values)
			for _, l := range arg.Params {
				v.join(a.parameter(argument{n, l}))
			}
		}
	}
}

// of returns what an argument of a call can be, as far as that is known yet.
func (a *arguments) of(nr int32, i int) *values {
	if a.sites[nr] == nil {
		a.sites[nr] = map[int]*values{}
	}
	v := a.sites[nr][i]
	if v == nil {
		v = &values{}
		a.sites[nr][i] = v
	}
	return v
}

// besides adds what a call through a wrapper can choose, from what the wrapper
// does with its parameters.
func (a *arguments) besides(h *besides) {
	name, ok := syscalls.Name(a.arch, int(h.nr))
	if !ok {
		return
	}
	for _, i := range syscalls.Chooses(name) {
		if v := a.of(h.nr, i); !a.besidesAt(h, i, v) {
			*v = values{any: true}
		}
	}
}

// handsOn reports whether a function hands numbers from its callers on to
// wrappers of other objects, itself or through functions of its own: the
// arguments of those calls aren't those that its facts tell.
func (a *arguments) handsOn(n node) bool {
	on, asked := a.hand[n]
	if asked {
		return on
	}
	seen := map[node]bool{n: true}
	for work := []node{n}; len(work) > 0 && !on; {
		n := work[len(work)-1]
		work = work[:len(work)-1]
		on = len(a.g.trail.handed[n]) > 0
		sites := a.g.members[n.m].facts.Funcs[n.i].Sites
		for k := range sites {
			s := &sites[k]
			to := node{m: n.m, i: s.Via - 1}
			if s.Via > 0 && len(s.Params) > 0 && !seen[to] {
				seen[to] = true
				work = append(work, to)
			}
		}
	}
	a.hand[n] = on
	return on
}

// besidesAt adds the values of one argument; false when it can be anything.
func (a *arguments) besidesAt(h *besides, i int, v *values) bool {
	if a.handsOn(h.to) {
		return false
	}
	found := false
	fn := &a.g.members[h.to.m].facts.Funcs[h.to.i]
	for k := range fn.Sites {
		s := &fn.Sites[k]
		if !slices.Contains(s.Params, h.p) {
			continue
		}
		arg, ok := s.At(i)
		if !ok || s.Derefs || s.Kind != facts.SiteSyscall {
			return false
		}
		found = true
		v.add(arg.Values)
		for _, l := range arg.Params {
			passed, ok := facts.ArgAt(h.args, l)
			if !ok {
				return false
			}
			v.add(passed.Values)
		}
	}
	return found
}

func (v *values) join(w *values) {
	if w.any {
		*v = values{any: true}
		return
	}
	v.add(slices.Collect(maps.Keys(w.list)))
}

// parameter returns what a parameter can be: whatever those who can enter its
// function pass, through any number of functions.
func (a *arguments) parameter(p argument) *values {
	if v := a.known[p]; v != nil {
		return v
	}
	out := &values{}
	seen := map[argument]bool{p: true}
	for work := []argument{p}; len(work) > 0 && !out.any; {
		p := work[len(work)-1]
		work = work[:len(work)-1]
		if v := a.known[p]; v != nil {
			out.join(v)
			continue
		}
		next, ok := a.passed(p, out)
		if !ok || len(seen) > maxArgParams {
			out = &values{any: true}
			break
		}
		for _, q := range next {
			if !seen[q] {
				seen[q] = true
				work = append(work, q)
			}
		}
	}
	a.known[p] = out
	return out
}

// passed adds the constants that callers pass for a parameter, and returns the
// parameters of their own that they pass on; false when it can be anything.
func (a *arguments) passed(p argument, out *values) ([]argument, bool) {
	id := a.g.trail.id(p.n)
	if a.g.flags[id]&(isHeld|isRooted) != 0 {
		return nil, false
	}
	callers := a.g.callers(id)
	if len(callers) == 0 {
		return nil, false
	}
	var next []argument
	for _, c := range slices.Backward(callers) {
		arg, ok := a.passedBy(c, p)
		if !ok {
			return nil, false
		}
		out.add(arg.Values)
		for _, l := range arg.Params {
			next = append(next, argument{node{m: c.m, i: c.fn}, l})
		}
	}
	return next, true
}

// passedBy returns what one caller passes for a parameter, false when that can
// be anything.
func (a *arguments) passedBy(c caller, p argument) (facts.Arg, bool) {
	f := a.g.members[c.m].facts
	to, imported := p.n.i, c.imp >= 0
	if imported {
		to = uint32(c.imp)
	}
	if pass := f.Funcs[c.fn].Passed(to, imported); pass != nil {
		if arg, ok := pass.Known(p.l); ok {
			return arg, true
		}
	}
	if imported {
		return f.Imports[to].Known(p.l)
	}
	return facts.Arg{}, false
}
