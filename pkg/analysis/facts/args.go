package facts

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/confinehq/confine/pkg/syscalls"
)

const (
	// maxArgValues bounds the constants that one argument can be; with more it
	// can be anything.
	maxArgValues = 64
	// maxArgRounds bounds how far arguments are followed through functions that
	// pass them on.
	maxArgRounds = 16
)

// Arg is what is known of one argument or parameter: its lower 32 bits are one
// of Values, or those that one of Params held at the function's entry. What
// has no Arg can be anything.
//
// The upper half of a register says nothing: for a parameter that is an int
// in C, callers may leave anything there.
type Arg struct {
	// At is the position of an argument of a system call, or the location of a
	// parameter.
	At     uint16
	Values []uint32
	Params []Loc
}

// Pass is what a function passes to another one of its object, or to an
// import, at all places that call it directly.
type Pass struct {
	To     uint32 // index of the function or of the import
	Import bool
	Args   []Arg // by location
}

// argOf turns a value into an Arg, false when it can be anything.
func argOf(v val) (Arg, bool) {
	var a Arg
	if v.top || v.bottom() {
		return a, false
	}
	for _, x := range v.atoms {
		switch {
		case x.kind == aConst:
			a.Values = append(a.Values, uint32(x.off))
		case x.kind == aParam && x.off == 0:
			a.Params = append(a.Params, Loc(x.a))
		default:
			return a, false
		}
	}
	a.Values, a.Params = uniq(a.Values), uniq(a.Params)
	return a, true
}

// join adds what another Arg can be, and reports whether the result is still
// bounded.
func (a *Arg) join(b Arg) bool {
	a.Values = uniq(append(slices.Clone(a.Values), b.Values...))
	a.Params = uniq(append(slices.Clone(a.Params), b.Params...))
	return len(a.Values) <= maxArgValues && len(a.Params) <= maxArgValues
}

// meet keeps of two lists of Args what both know of. They are sorted.
func meet(a, b []Arg) []Arg {
	var out []Arg
	for _, x := range a {
		if y, ok := argAt(b, x.At); ok && x.join(y) {
			out = append(out, x)
		}
	}
	return out
}

func argAt(list []Arg, at uint16) (Arg, bool) {
	i, ok := slices.BinarySearchFunc(list, at, func(a Arg, at uint16) int { return cmp.Compare(a.At, at) })
	if !ok {
		return Arg{}, false
	}
	return list[i], true
}

// ArgAt returns what is known of a parameter, from what is known of several.
func ArgAt(list []Arg, l Loc) (Arg, bool) { return argAt(list, uint16(l)) }

// At returns what is known of an argument of a call at the site.
func (s *Site) At(i int) (Arg, bool) { return argAt(s.Args, uint16(i)) }

// Known returns what is known of a parameter.
func (p *Pass) Known(l Loc) (Arg, bool) { return ArgAt(p.Args, l) }

// Known returns what is known of an argument at all calls of the import in its
// object.
func (m *Import) Known(l Loc) (Arg, bool) { return ArgAt(m.Args, l) }

// Passed returns the record of what a function passes to another one, or to an
// import; nil when nothing is known.
func (fn *Func) Passed(to uint32, imported bool) *Pass {
	i, ok := slices.BinarySearchFunc(fn.Passes, Pass{To: to, Import: imported}, comparePasses)
	if !ok {
		return nil
	}
	return &fn.Passes[i]
}

func comparePasses(a, b Pass) int {
	switch {
	case a.Import != b.Import && a.Import:
		return 1
	case a.Import != b.Import:
		return -1
	}
	return cmp.Compare(a.To, b.To)
}

// viaSite is a site that calls a wrapper of system calls.
type viaSite struct {
	fn, index uint32 // function and position in its list of sites
}

// passedState is the state in which a wrapper is called.
type passedState struct {
	s    *state
	call bool
}

// directArgs notes the arguments at an instruction that enters the kernel.
func (o *Object) directArgs(site *Site, s *state) {
	if site.Kind != SiteSyscall {
		return
	}
	for i, r := range o.mach.abi().kernelArgs {
		if a, ok := argOf(s.regs[r]); ok {
			a.At = uint16(i)
			site.Args = append(site.Args, a)
		}
	}
}

// viaArgs finds the arguments of calls through wrappers, from what the
// wrappers do with theirs. It begins with arguments that can be anything, so
// that it may end after any round.
func (o *Object) viaArgs() {
	order := slices.SortedFunc(maps.Keys(o.via), func(a, b viaSite) int {
		return cmp.Or(cmp.Compare(a.fn, b.fn), cmp.Compare(a.index, b.index))
	})
	for range maxArgRounds {
		changed := false
		for _, v := range order {
			p := o.via[v]
			s := &o.Facts.Funcs[v.fn].Sites[v.index]
			args := o.substitute(&o.Facts.Funcs[s.Via-1], p)
			if !slices.EqualFunc(args, s.Args, equalArgs) {
				s.Args, changed = args, true
			}
		}
		if !changed {
			break
		}
	}
	o.via = nil
}

func equalArgs(a, b Arg) bool {
	return a.At == b.At && slices.Equal(a.Values, b.Values) && slices.Equal(a.Params, b.Params)
}

// substitute returns the arguments of the calls that a wrapper makes when it
// is called in a state.
func (o *Object) substitute(wrapper *Func, p passedState) []Arg {
	var out []Arg
	first := true
	for i := range wrapper.Sites {
		t := &wrapper.Sites[i]
		if len(t.Params) == 0 {
			continue // the wrapper's own
		}
		var args []Arg
		if !t.Derefs && t.Kind == SiteSyscall {
			for _, a := range t.Args {
				if b, ok := p.resolve(a); ok {
					args = append(args, b)
				}
			}
		}
		if first {
			out, first = args, false
		} else {
			out = meet(out, args)
		}
	}
	return out
}

// resolve replaces parameters by what is passed for them.
func (p passedState) resolve(a Arg) (Arg, bool) {
	out := Arg{At: a.At, Values: a.Values}
	for _, l := range a.Params {
		b, ok := argOf(p.s.at(l, p.call))
		if !ok || !out.join(b) {
			return out, false
		}
	}
	return out, true
}

// wanted are the parameters that arguments come from; keys: function, location.
type wanted map[uint32]map[Loc]bool

func (w wanted) add(fn uint32, params []Loc) {
	for _, l := range params {
		if w[fn] == nil {
			w[fn] = map[Loc]bool{}
		}
		w[fn][l] = true
	}
}

// resolveArgs finds what calls choose by their arguments, as far as the
// object's own code tells.
func (o *Object) resolveArgs() {
	if len(o.mach.abi().kernelArgs) == 0 {
		if o.mach.abi().args == nil {
			o.via = nil // what is written next to a call is enough from here on
		}
		return
	}
	left := o.budget
	o.budget = o.fullBudget()
	o.generics()
	o.heldByOffset()
	o.viaArgs()
	o.trimArgs()
	o.passes(o.wantedBySites())
	o.importArgs()
	o.argSteps = o.fullBudget() - o.budget
	o.budget = left // numbers that others pass are asked for later
}

// trimArgs drops what is known of arguments that choose nothing. Where the
// number is the callers', that is known to them alone.
func (o *Object) trimArgs() {
	table := o.mach.abi().calls
	for i := range o.Facts.Funcs {
		sites := o.Facts.Funcs[i].Sites
		for k := range sites {
			s := &sites[k]
			if s.Unresolved != "" {
				s.Args = nil
				continue
			}
			if len(s.Params) == 0 || s.Derefs {
				s.Args = slices.DeleteFunc(s.Args, func(a Arg) bool { return !choosesAt(table, s, int(a.At)) })
			}
		}
	}
}

// choosesAt reports whether an argument chooses what some call of a site does.
func choosesAt(table syscalls.Arch, s *Site, index int) bool {
	return slices.ContainsFunc(s.Nrs, func(nr int32) bool {
		name, ok := syscalls.Name(table, int(nr))
		return ok && slices.Contains(syscalls.Chooses(name), index)
	})
}

func (o *Object) wantedBySites() wanted {
	w := wanted{}
	table := o.mach.abi().calls
	for i := range o.Facts.Funcs {
		sites := o.Facts.Funcs[i].Sites
		for k := range sites {
			for _, a := range sites[k].Args {
				if choosesAt(table, &sites[k], int(a.At)) {
					w.add(uint32(i), a.Params)
				}
			}
		}
	}
	return w
}

// asking is a call of one function or import whose arguments are asked for.
type asking struct {
	pass  Pass
	sites []callSite
	locs  []Loc
}

// passes writes down what functions pass for the wanted parameters, and asks
// their callers in turn for what they pass on. What calls of imports choose
// is asked for where their names are those of system calls: other objects'
// wrappers aren't known here.
func (o *Object) passes(todo wanted) {
	asked := wanted{}
	for round := 0; round < maxArgRounds && (len(todo) > 0 || round == 0); round++ {
		byCaller := map[uint32][]asking{}
		for _, fn := range slices.Sorted(maps.Keys(todo)) {
			locs := slices.Sorted(maps.Keys(todo[fn]))
			asked.add(fn, locs)
			for _, c := range uniq(slices.Clone(o.callers[fn])) {
				byCaller[c] = append(byCaller[c], asking{Pass{To: fn}, o.callSites(c, fn), locs})
			}
		}
		if round == 0 {
			o.askImports(byCaller)
		}
		next := wanted{}
		for _, c := range slices.Sorted(maps.Keys(byCaller)) {
			for _, a := range o.answer(c, byCaller[c]) {
				for _, l := range a.Params {
					if !asked[c][l] {
						next.add(c, []Loc{l})
					}
				}
			}
		}
		todo = next
	}
	for i := range o.Facts.Funcs {
		slices.SortFunc(o.Facts.Funcs[i].Passes, comparePasses)
	}
}

// askImports asks for what calls of imports that are named after system calls
// choose.
func (o *Object) askImports(byCaller map[uint32][]asking) {
	args := o.mach.abi().args
	for i := range o.Facts.Funcs {
		if len(o.Facts.Funcs[i].Imports) == 0 || o.stubs(i) {
			continue
		}
		for _, use := range o.Facts.Funcs[i].Imports {
			if !use.Called {
				continue
			}
			var locs []Loc
			for _, k := range chosenBy(o.Facts.Imports[use.Import].Name) {
				if k < len(args) {
					locs = append(locs, Loc(args[k]))
				}
			}
			if len(locs) > 0 {
				slices.Sort(locs)
				c := uint32(i)
				byCaller[c] = append(byCaller[c], asking{Pass{To: use.Import, Import: true}, o.importSites(c, use.Import), locs})
			}
		}
	}
}

// chosenBy returns the positions of the parameters of a C function that choose
// what it does, if its name says that it is one of the system calls, in a form
// that C libraries use: with underscores before it, for large files ("64"), or
// checked ("_2"). It is a hint where to look: other functions' parameters are
// taken for unknown.
func chosenBy(name string) []int {
	name = strings.TrimSuffix(strings.TrimLeft(name, "_"), "_2")
	for _, n := range []string{name, strings.TrimSuffix(name, "64"), name + "1", name + "2", name + "4", "rt_" + name} {
		if c := syscalls.Chooses(n); c != nil {
			return c
		}
	}
	return nil
}

// answer evaluates what one function passes, writes it into its facts, and
// returns it.
func (o *Object) answer(c uint32, list []asking) []Arg {
	var addrs []uint64
	fast := make([][]Arg, len(list))
	slow := make([]bool, len(list))
	for i := range list {
		var known bool
		if fast[i], known = o.quickly(c, &list[i]); known {
			continue
		}
		slow[i] = true
		for _, s := range list[i].sites {
			addrs = append(addrs, s.at)
		}
	}
	var states map[uint64]*state
	if len(addrs) > 0 {
		states = o.statesCovering(c, uniq(addrs)).all
	}
	fn := &o.Facts.Funcs[c]
	var all []Arg
	for i, a := range list {
		args := fast[i]
		if slow[i] {
			for _, l := range a.locs {
				if arg, ok := passedAs(states, a.sites, l); ok {
					args = append(args, arg)
				}
			}
		}
		all = append(all, args...)
		fn.pass(a.pass, args)
	}
	return all
}

// pass writes down what is known of the parameters of a call.
func (fn *Func) pass(to Pass, args []Arg) {
	if len(args) == 0 {
		return
	}
	i := slices.IndexFunc(fn.Passes, func(p Pass) bool { return p.To == to.To && p.Import == to.Import })
	if i < 0 {
		to.Args = args
		fn.Passes = append(fn.Passes, to)
		return
	}
	p := &fn.Passes[i]
	p.Args = append(p.Args, args...)
	slices.SortFunc(p.Args, func(a, b Arg) int { return cmp.Compare(a.At, b.At) })
}

// passedAs joins what some calls pass for one parameter. Without any call it
// can be anything: control comes there in a way that isn't seen.
func passedAs(states map[uint64]*state, sites []callSite, l Loc) (Arg, bool) {
	out := Arg{At: uint16(l)}
	for _, c := range sites {
		a, ok := argOf(states[c.at].at(l, c.call))
		if !ok || !out.join(a) {
			return out, false
		}
	}
	return out, len(sites) > 0
}
