package facts

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// maxWrapperDepth bounds chains of wrappers that pass a number on.
const maxWrapperDepth = 64

// maxKeys bounds the values that the callers of one function are asked for.
const maxKeys = 64

// maxVariables bounds the variables that one number may go through.
const maxVariables = 32

// wrapKey is a value that a function gets from its callers and that is (or
// points to) a system call number.
type wrapKey struct {
	fn    uint32
	loc   Loc
	deref bool  // the number is stored behind the pointer in loc
	off   int64 // bytes behind the pointer
}

// numbers is what a value means as a system call number.
type numbers struct {
	nrs  []int32
	from []wrapKey // values of the same function's parameters
	// kept are numbers that a function leaves in a variable: they can be made
	// only where that function is reached.
	kept []keptNumber
	vars []uint32 // exports that variables with numbers lie in
	why  string   // why it isn't all known
}

// keptNumber is a number that function fn stores or passes on.
type keptNumber struct {
	fn uint32
	nr int32
}

// keep turns the numbers into ones that function fn leaves.
func (n *numbers) keep(fn uint32) {
	for _, nr := range n.nrs {
		n.kept = append(n.kept, keptNumber{fn, nr})
	}
	n.nrs = nil
}

// keptNumbers lists the numbers alone.
func (n *numbers) keptNumbers() []int32 {
	out := make([]int32, len(n.kept))
	for i, k := range n.kept {
		out[i] = k.nr
	}
	return out
}

func (n *numbers) add(m numbers) {
	n.nrs = append(n.nrs, m.nrs...)
	n.from = append(n.from, m.from...)
	n.kept = append(n.kept, m.kept...)
	n.vars = append(n.vars, m.vars...)
	if n.why == "" {
		n.why = m.why
	}
}

func unresolved(format string, args ...any) numbers {
	return numbers{why: fmt.Sprintf(format, args...)}
}

// interpret tells which numbers a value of function fi can be.
func (o *Object) interpret(fi uint32, v val, depth int) numbers {
	if v.top {
		return unresolved("the number is computed")
	}
	if depth == 0 {
		o.asked = nil
	}
	var out numbers
	for _, a := range v.atoms {
		if o.shallow && (a.kind == aGlobal || a.kind == aDerefG) {
			return unresolved("the number is in a variable")
		}
		switch a.kind {
		case aConst:
			out.nrs = append(out.nrs, int32(a.off))
		case aParam:
			if a.off != 0 {
				return unresolved("the number is computed from a parameter")
			}
			out.from = append(out.from, wrapKey{fn: fi, loc: Loc(a.a)})
		case aParam16: // a number fits; callers' values are cut by the kernel's check
			out.from = append(out.from, wrapKey{fn: fi, loc: Loc(a.a)})
		case aDerefP:
			out.from = append(out.from, wrapKey{fn: fi, loc: Loc(a.a), deref: true, off: a.off})
		case aGlobal:
			if !o.ask(a) {
				continue
			}
			out.add(o.global(uint64(a.a), depth, func(f uint32, v val, _ *state) numbers { return o.interpret(f, v, depth+1) }))
			if b := o.File.Bytes(uint64(a.a), 4); b != nil {
				out.nrs = append(out.nrs, int32(le32(b)))
			} else {
				out.nrs = append(out.nrs, 0)
			}
		case aDerefG:
			if !o.ask(a) {
				continue
			}
			out.add(o.global(uint64(a.a), depth, func(f uint32, v val, s *state) numbers {
				return o.behind(f, v, s, a.off, depth+1)
			}))
		default:
			return unresolved("the number is computed")
		}
	}
	return out
}

// ask reports whether the present question has come to a variable for the first
// time: what it holds is added once.
func (o *Object) ask(a atom) bool {
	if _, ok := o.asked[a]; ok {
		return false
	}
	if o.asked == nil {
		o.asked = map[atom]struct{}{}
	}
	o.asked[a] = struct{}{}
	return true
}

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// behind tells which numbers are stored off bytes behind a pointer that
// function fi holds in state s.
func (o *Object) behind(fi uint32, v val, s *state, off int64, depth int) numbers {
	if v.top || v.bottom() {
		return unresolved("the number lies behind an unknown pointer")
	}
	var out numbers
	for _, a := range v.atoms {
		switch a.kind {
		case aConst:
			if a.off == 0 {
				continue // a null pointer is never followed
			}
			it := interp{o: o}
			out.add(o.interpret(fi, it.load(s, constant(a.off+off), 4), depth+1))
		case aStack:
			out.add(o.interpret(fi, s.slot(a.off+off, 4), depth+1))
		case aParam:
			out.from = append(out.from, wrapKey{fn: fi, loc: Loc(a.a), deref: true, off: a.off + off})
		default:
			return unresolved("the number lies behind an unknown pointer")
		}
	}
	return out
}

// callersValue asks all callers of a function for a value, through any number
// of functions that pass it on.
func (o *Object) callersValue(k wrapKey, depth int) numbers {
	seen := map[wrapKey]bool{}
	var out numbers
	work := []wrapKey{k}
	for len(work) > 0 {
		k := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[k] {
			continue
		}
		seen[k] = true
		if len(seen) > maxWrapperDepth || depth > 8 {
			return unresolved("the number is passed through too many functions")
		}
		if o.addressTaken(k.fn) {
			return unresolved("the number is passed through a function pointer")
		}
		for _, c := range o.callers[k.fn] {
			for _, m := range o.passed(c, k, depth) {
				work = append(work, m.from...)
				m.from = nil
				m.keep(c)
				out.add(m)
			}
		}
	}
	return out
}

// addressTaken reports whether anything but direct calls within the object can
// enter a function.
func (o *Object) addressTaken(fi uint32) bool {
	if o.refd == nil {
		o.refd = map[uint32]bool{}
		for i := range o.Facts.Funcs {
			for _, e := range o.Facts.Funcs[i].Edges {
				if e.Kind != EdgeCall && e.Kind != EdgeInner {
					o.refd[e.To] = true
				}
			}
		}
		for i := range o.Facts.Regions {
			for _, f := range o.Facts.Regions[i].Funcs {
				o.refd[f] = true
			}
		}
		for i := range o.Facts.Exports {
			if f := o.Facts.Exports[i].Func; f > 0 {
				o.refd[f-1] = true
			}
		}
	}
	return o.refd[fi]
}

// resolveSites finds the numbers of every site, and turns each call of a
// wrapper into a site of its own in the caller.
func (o *Object) resolveSites(ctx context.Context) error {
	var work []wrapKey
	via := map[wrapKey]bool{}
	keys := map[uint32]int{}        // values asked for; key: function
	kept := map[keptNumber]uint32{} // numbers left in variables to the function that makes the call
	note := func(fi uint32, n numbers) {
		for _, k := range n.kept {
			kept[k] = fi
		}
	}
	for fi := range o.Facts.Funcs {
		fn := &o.Facts.Funcs[fi]
		if len(fn.Sites) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		states := o.siteStates(uint32(fi))
		for i := range fn.Sites {
			s := &fn.Sites[i]
			o.directArgs(s, states.all[s.Addr])
			n := o.interpret(uint32(fi), states.plain[s.Addr].regs[o.mach.abi().number], 0)
			work = append(work, o.settle(s, n)...)
			note(uint32(fi), n)
		}
	}
	o.callbacks, o.via = map[uint32]bool{}, map[viaSite]passedState{}
	for len(work) > 0 {
		k := work[len(work)-1]
		work = work[:len(work)-1]
		if via[k] {
			continue
		}
		via[k] = true
		if err := ctx.Err(); err != nil {
			return err
		}
		if keys[k.fn]++; keys[k.fn] > maxKeys { // a recursion that moves a pointer on
			if fn := &o.Facts.Funcs[k.fn]; keys[k.fn] == maxKeys+1 {
				fn.Sites = append(fn.Sites, Site{Addr: fn.Start, Kind: SiteSyscall, Unresolved: "the number lies behind too many pointers"})
			}
			continue
		}
		if k.deref && o.addressTaken(k.fn) {
			work = append(work, o.callbackSites(k)...)
		}
		for _, c := range uniq(slices.Clone(o.callers[k.fn])) {
			fn := &o.Facts.Funcs[c]
			for _, p := range o.passedAt(c, o.callSites(c, k.fn), k, 0) {
				s := Site{Addr: p.at, Kind: SiteSyscall, Via: k.fn + 1}
				work = append(work, o.settle(&s, p.numbers)...)
				o.via[viaSite{c, uint32(len(fn.Sites))}] = p.passedState
				fn.Sites = append(fn.Sites, s)
				note(k.fn, p.numbers)
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(kept), func(a, b keptNumber) int {
		return cmp.Or(cmp.Compare(a.fn, b.fn), cmp.Compare(a.nr, b.nr))
	}) {
		fn := &o.Facts.Funcs[k.fn]
		fn.Sites = append(fn.Sites, Site{Addr: fn.Start, Kind: SiteSyscall, Nrs: []int32{k.nr}, Via: kept[k] + 1})
	}
	for f, known := range o.callbacks {
		sites := o.Facts.Funcs[f].Sites
		for i := range sites {
			sites[i].Called = known && sites[i].Derefs
		}
	}
	o.resolveArgs()
	return nil
}

// siteStates returns the states before the sites of a function.
func (o *Object) siteStates(fi uint32) covering {
	fn := &o.Facts.Funcs[fi]
	near := map[uint64]*state{}
	var far []uint64
	for i := range fn.Sites {
		s := &fn.Sites[i]
		if near[s.Addr] = o.near(fi, s.Addr); !o.chosen(s, near[s.Addr]) {
			far = append(far, s.Addr)
		}
	}
	states := covering{near, maps.Clone(near)}
	if len(far) > 0 {
		c := o.statesCovering(fi, far)
		maps.Copy(states.plain, c.plain)
		maps.Copy(states.all, c.all)
	}
	return states
}

// chosen reports whether the number at a site is known, and what it does.
func (o *Object) chosen(s *Site, st *state) bool {
	abi := o.mach.abi()
	nrs, ok := st.regs[abi.number].consts()
	if !ok {
		return false
	}
	of := Site{Nrs: make([]int32, len(nrs))}
	for i, n := range nrs {
		of.Nrs[i] = int32(n)
	}
	for i, r := range abi.kernelArgs {
		if s.Kind == SiteSyscall && choosesAt(abi.calls, &of, i) && (st.regs[r].top || st.regs[r].bottom()) {
			return false
		}
	}
	return true
}

// settle writes what is known into a site; parameters become keys to ask the
// callers for.
//
// Numbers that are kept in variables are given to the functions that keep them
// by resolveSites.
func (o *Object) settle(s *Site, n numbers) []wrapKey {
	s.Nrs = uniq(n.nrs)
	s.Unresolved, s.Vars = n.why, uniq(n.vars)
	for _, k := range n.from {
		if k.deref {
			// Callers outside of the object can't be asked for what lies
			// behind a pointer.
			if o.exported(k.fn) {
				s.Unresolved = "the number is passed behind a pointer by another object"
				continue
			}
			s.Derefs = true
		}
		s.Params = append(s.Params, k.loc)
	}
	s.Params = uniq(s.Params)
	return n.from
}

func (o *Object) exported(fi uint32) bool {
	for i := range o.Facts.Exports {
		if o.Facts.Exports[i].Func == fi+1 {
			return true
		}
	}
	return false
}
