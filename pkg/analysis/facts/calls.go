package facts

import (
	"maps"
	"slices"
)

// callSite is one instruction that passes control to a wrapper.
type callSite struct {
	at   uint64
	call bool // a call pushes the return address, a jump doesn't
}

// callSites lists the direct calls and jumps from function c that enter
// function w of the same object.
func (o *Object) callSites(c, w uint32) []callSite {
	fn, t := &o.Facts.Funcs[c], &o.Facts.Funcs[w]
	var falls []callSite
	if t.Start == fn.End && slices.Contains(fn.Edges, Edge{w, EdgeFall}) {
		falls = []callSite{{fn.End, false}}
	}
	return append(falls, o.sitesWhere(fn, func(r *ref) bool {
		if r.kind == refJump {
			return r.to >= t.Start && r.to < t.End && (c != w || r.to == t.Start)
		}
		if r.kind != refSlot {
			return false
		}
		i, ok := o.relocAt[r.to]
		return ok && o.File.Relocs[i].Sym < 0 && o.File.Relocs[i].Addend >= t.Start && o.File.Relocs[i].Addend < t.End
	})...)
}

func (o *Object) sitesWhere(fn *Func, match func(*ref) bool) []callSite {
	var out []callSite
	for i := o.firstRef(fn.Start); i < len(o.refs) && o.at(&o.refs[i]) < fn.End; i++ {
		r := &o.refs[i]
		if !match(r) {
			continue
		}
		out = append(out, callSite{o.at(r), o.calls(o.at(r))})
	}
	return out
}

// calls reports whether the instruction at an address is a call rather than a
// jump.
func (o *Object) calls(at uint64) bool {
	k := o.mach.flow(at, o.File.From(at)).kind
	return k == ctlCall || k == ctlICall
}

// at evaluates a location of the callee before a call or jump.
func (s *state) at(l Loc, call bool) val {
	off, onStack := l.Stack()
	if !onStack {
		if int(l) >= s.abi.regs {
			return top
		}
		return s.regs[l]
	}
	sp, ok := s.regs[s.abi.sp].stack()
	if !ok {
		return top
	}
	if call {
		off -= s.abi.pushed
	}
	return s.slot(sp+off, 4)
}

// maxStackArgs is the number of arguments on the stack that are looked at where
// a function isn't known to take so many.
const maxStackArgs = 6

// passes returns the arguments before a call or jump.
func (s *state) passes(call bool) []val {
	var out []val
	for _, r := range s.abi.args {
		out = append(out, s.regs[r])
	}
	for i := 0; s.abi.args == nil && i < maxStackArgs; i++ {
		out = append(out, s.at(s.abi.argument(i), call))
	}
	return out
}

// passed evaluates what function c passes to wrapper k, one result per call
// site; result order follows addresses.
func (o *Object) passed(c uint32, k wrapKey, depth int) []numbers {
	var out []numbers
	for _, e := range o.passedAt(c, o.callSites(c, k.fn), k, depth) {
		out = append(out, e.numbers)
	}
	return out
}

type passedNumbers struct {
	at uint64
	numbers
	passedState
}

func (o *Object) passedAt(c uint32, sites []callSite, k wrapKey, depth int) []passedNumbers {
	if len(sites) == 0 {
		return nil
	}
	states := o.passedStates(c, sites, k)
	var out []passedNumbers
	for _, cs := range sites {
		s := states.plain[cs.at]
		v := s.at(k.loc, cs.call)
		var n numbers
		if k.deref {
			n = o.behind(c, v, s, k.off, depth)
		} else {
			n = o.interpret(c, v, depth)
		}
		out = append(out, passedNumbers{cs.at, n, passedState{states.all[cs.at], cs.call}})
	}
	return out
}

// passedStates returns the states before calls of a wrapper. What else than the
// number they pass matters only while sites are resolved.
func (o *Object) passedStates(c uint32, sites []callSite, k wrapKey) covering {
	near := map[uint64]*state{}
	var far []uint64
	for _, s := range sites {
		near[s.at] = o.near(c, s.at)
		if o.via != nil || k.deref || !near[s.at].knows([]Loc{k.loc}, s.call) {
			far = append(far, s.at)
		}
	}
	if len(far) > 0 {
		if o.via == nil {
			maps.Copy(near, o.statesAt(c, far))
		} else {
			return o.statesCovering(c, far)
		}
	}
	return covering{near, near}
}

// callbackSites finds the numbers that a function reads behind a pointer which
// it gets when it is called back: where code passes the function's address, it
// passes that pointer in the same call (musl's set*id). Where that can't be
// seen, the function is left to count as entered by anybody.
func (o *Object) callbackSites(k wrapKey) []wrapKey {
	o.callbacks[k.fn] = false
	for i := range o.Facts.Regions {
		if slices.Contains(o.Facts.Regions[i].Funcs, k.fn) {
			return nil
		}
	}
	if o.exported(k.fn) {
		return nil
	}
	var work []wrapKey
	found := false
	for c := range o.Facts.Funcs {
		fn := &o.Facts.Funcs[c]
		if !slices.ContainsFunc(fn.Edges, func(e Edge) bool {
			return e.To == k.fn && e.Kind != EdgeCall && e.Kind != EdgeFall && e.Kind != EdgeInner
		}) {
			continue
		}
		sites := o.passing(uint32(c), k)
		if len(sites) == 0 {
			return nil
		}
		for _, p := range sites {
			s := Site{Addr: p.at, Kind: SiteSyscall, Via: k.fn + 1}
			p.nrs = append(p.nrs, p.keptNumbers()...)
			work = append(work, o.settle(&s, p.numbers)...)
			fn.Sites = append(fn.Sites, s)
			found = true
		}
	}
	o.callbacks[k.fn] = found
	return work
}

// passing evaluates what lies behind the pointers that function c passes along
// with the address of function k.fn.
func (o *Object) passing(c uint32, k wrapKey) []passedNumbers {
	calls := o.sitesWhere(&o.Facts.Funcs[c], func(r *ref) bool {
		return r.kind == refJump && (r.to < o.Facts.Funcs[c].Start || r.to >= o.Facts.Funcs[c].End) || r.kind == refSlot
	})
	addrs := make([]uint64, len(calls))
	for i, s := range calls {
		addrs[i] = s.at
	}
	states := o.statesAt(c, addrs)
	start := int64(o.Facts.Funcs[k.fn].Start)
	var out []passedNumbers
	for _, at := range addrs {
		s := states[at]
		passes := false
		args := s.passes(o.calls(at))
		for _, a := range args {
			v, ok := a.single()
			passes = passes || ok && v == start
		}
		if !passes {
			continue
		}
		var n numbers
		for _, a := range args {
			if _, ok := a.stack(); ok {
				n.add(o.behind(c, a, s, k.off, 0))
			}
		}
		if len(n.nrs)+len(n.from) == 0 {
			n.why = "the number is passed to a callback"
		}
		out = append(out, passedNumbers{at: at, numbers: n})
	}
	return out
}

// ImportCalls evaluates location l at every call of an import from function
// c: the sites that calling a wrapper of another object makes. Their Args are by
// location, those of the wrapper.
func (o *Object) ImportCalls(c, imp uint32, l Loc) []Site {
	var out []Site
	for _, p := range o.passedAt(c, o.importSites(c, imp), wrapKey{loc: l}, 0) {
		s := Site{Addr: p.at, Kind: SiteSyscall}
		p.nrs = append(p.nrs, p.keptNumbers()...)
		o.settle(&s, p.numbers)
		s.close()
		o.beside(c, &s)
		out = append(out, s)
	}
	return out
}

// close takes for anything what other objects can change.
func (s *Site) close() {
	if len(s.Vars) > 0 {
		s.Unresolved, s.Vars = SharedNumber, nil
	}
}

// beside finds what a call passes besides a number: the constants in the
// straight code before it, by location.
func (o *Object) beside(c uint32, s *Site) {
	if len(s.Nrs) > 0 && s.Unresolved == "" {
		s.Args = o.passedNear(c, callSite{s.Addr, o.calls(s.Addr)}, nil)
	}
}

// importSites lists the direct calls of an import from a function.
func (o *Object) importSites(c, imp uint32) []callSite {
	return o.sitesWhere(&o.Facts.Funcs[c], func(r *ref) bool {
		slot := r.to
		switch r.kind {
		case refJump:
			s, ok := o.pltSlot(r.to)
			if !ok {
				return false
			}
			slot = s
		case refSlot:
		default:
			return false
		}
		i, ok := o.relocAt[slot]
		if !ok || o.File.Relocs[i].Sym < 0 {
			return false
		}
		j, ok := o.imports[o.File.Relocs[i].Sym]
		return ok && j == imp
	})
}

// Passed evaluates location l at every direct call from function c to function
// w, for wrappers that are only known once another object was looked at. Args
// are by location.
func (o *Object) Passed(c, w uint32, l Loc) []Site {
	var out []Site
	for _, p := range o.passedAt(c, o.callSites(c, w), wrapKey{fn: w, loc: l}, 0) {
		s := Site{Addr: p.at, Kind: SiteSyscall, Via: w + 1}
		p.nrs = append(p.nrs, p.keptNumbers()...)
		o.settle(&s, p.numbers)
		s.close()
		o.beside(c, &s)
		out = append(out, s)
	}
	return out
}

// IndirectCalls evaluates location l at every call through a pointer; key:
// index of the calling function.
func (o *Object) IndirectCalls(l Loc) map[uint32][]Site {
	calls := map[uint32][]callSite{}
	add := func(at uint64, call bool) {
		if fi := o.FuncAt(at); fi >= 0 {
			calls[uint32(fi)] = append(calls[uint32(fi)], callSite{at, call})
		}
	}
	for _, at := range o.icalls {
		add(at, true)
	}
	for _, at := range o.indir {
		add(at, false)
	}
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refSlot {
			continue
		}
		if j, ok := o.relocAt[r.to]; ok && o.File.Relocs[j].Sym >= 0 {
			continue // an import
		}
		add(o.at(r), o.calls(o.at(r)))
	}
	o.shallow = true
	defer func() { o.shallow = false }()
	out := map[uint32][]Site{}
	for fi, list := range calls {
		for _, p := range o.passedAt(fi, list, wrapKey{loc: l}, 0) {
			s := Site{Addr: p.at, Kind: SiteSyscall}
			p.nrs = append(p.nrs, p.keptNumbers()...)
			o.settle(&s, p.numbers)
			out[fi] = append(out[fi], s)
		}
	}
	return out
}
