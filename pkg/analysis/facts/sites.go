package facts

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

// maxWrapperDepth bounds chains of wrappers that pass a number on.
const maxWrapperDepth = 64

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
	why  string // why it isn't all known
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

// global collects what is stored to a variable: every instruction that names
// its address is looked at, and the variable's address must never be taken.
func (o *Object) global(addr uint64, depth int, use func(fi uint32, v val, s *state) numbers) numbers {
	if depth > 8 || len(o.asked) > maxVariables {
		return unresolved("the number goes through too many variables")
	}
	if !o.File.HasSections && !o.File.IsPIE {
		return unresolved("the number is in a variable")
	}
	var out numbers
	var in x86.Inst
	taken := map[uint32]bool{} // functions that take the address
	stored := func(fi uint32, v val, s *state) {
		m := use(fi, v, s)
		m.keep(fi)
		// What the storing function's own parameters say is asked of its callers.
		for _, k := range m.from {
			m.add(o.callersValue(k, depth+1))
		}
		m.from = nil
		out.add(m)
	}
	for i := range o.refs {
		r := &o.refs[i]
		if r.to > addr+7 || r.to+64 <= addr || r.kind == refJump {
			continue
		}
		fi := o.FuncAt(o.at(r))
		if fi < 0 {
			continue
		}
		if r.kind == refAddr || r.kind == refImm {
			if r.to <= addr && addr-r.to < nearby && (r.to == addr || !o.scalarAt(r.to, addr-r.to)) {
				taken[uint32(fi)] = true
			}
			continue
		}
		if n := x86.Decode(o.File.From(o.at(r)), &in); n == 0 {
			continue
		}
		store, reg, exact := storeOf(&in)
		if !store || r.to < addr && r.to+storeWidth(&in) <= addr {
			continue
		}
		if r.to != addr {
			return unresolved("the number is in a variable that is written as part of another")
		}
		if !exact {
			return unresolved("the number is in a variable that is written in an unknown way")
		}
		if reg == x86.None {
			m := use(uint32(fi), constant(in.Imm), unknownState())
			m.keep(uint32(fi))
			out.add(m)
			continue
		}
		s := o.statesAt(uint32(fi), []uint64{o.at(r)})[o.at(r)]
		stored(uint32(fi), s.regs[reg], s)
	}
	for _, fi := range slices.Sorted(maps.Keys(taken)) {
		w := o.watchVariable(fi, addr)
		if w.escapes {
			return unresolved("the number is in a variable whose address is taken")
		}
		for _, st := range w.stores {
			stored(fi, st.v, st.s)
		}
	}
	return out
}

// storeWidth is an upper bound of the bytes that a store writes.
func storeWidth(in *x86.Inst) uint64 {
	switch {
	case in.Vector:
		return 64
	case in.Map == x86.MapOne && in.Op >= 0xd8 && in.Op <= 0xdf:
		return 108 // fsave
	case in.Map == x86.MapOne:
		return uint64(in.OpSize)
	case in.Map == x86.Map0F && (in.Op >= 0x90 && in.Op <= 0x9f || in.Op == 0xb0 || in.Op == 0xc0):
		return 1
	case in.Map == x86.Map0F && (in.Op == 0xb1 || in.Op == 0xc1 || in.Op == 0xab || in.Op == 0xb3 || in.Op == 0xbb || in.Op == 0xba || in.Op == 0xc3):
		return uint64(in.OpSize)
	case in.Map == x86.Map0F && in.Op == 0xae:
		return 4096 // xsave
	}
	return 16
}

// scalarAt reports whether code reads or writes a variable of at most size
// bytes at addr: what follows it is then taken for another object, which
// pointers to this one don't reach. It is the one place where the layout of
// data is guessed, and it matters only for numbers kept behind a pointer in a
// variable (set*id of glibc in static programs).
func (o *Object) scalarAt(addr, size uint64) bool {
	var in x86.Inst
	for i := range o.refs {
		r := &o.refs[i]
		if r.to != addr || r.kind != refLoad || x86.Decode(o.File.From(o.at(r)), &in) == 0 {
			continue
		}
		if in.Vector || uint64(in.OpSize) > size {
			continue
		}
		switch {
		case in.Map == x86.MapOne && (in.Op == 0x89 || in.Op == 0x8b || in.Op == 0xc7 || in.Op == 0x87),
			in.Map == x86.Map0F && (in.Op == 0xb1 || in.Op == 0xc1):
			return true
		}
	}
	return false
}

// storeOf reports whether an instruction with a memory operand writes it, and
// from which register (None: an immediate); exact is false when what is
// written is not a plain move.
func storeOf(in *x86.Inst) (store bool, reg uint8, exact bool) {
	if !in.IsMem() {
		return false, 0, false
	}
	if in.Vector || in.Map == x86.Map0F38 || in.Map == x86.Map0F3A {
		return in.Vector && (in.Op == 0x11 || in.Op == 0x29 || in.Op == 0x7f || in.Op == 0x13 || in.Op == 0x17 || in.Op == 0xd6 || in.Op == 0xe7 || in.Op == 0x2b) || in.Map != x86.Map0F, 0, false
	}
	if in.Map == x86.Map0F {
		switch op := in.Op; {
		case op == 0x11, op == 0x13, op == 0x17, op == 0x29, op == 0x2b, op == 0x7f, op == 0xd6, op == 0xe7,
			op == 0xb0, op == 0xb1, op == 0xc0, op == 0xc1, op == 0xc7, op >= 0x90 && op <= 0x9f, op == 0xab, op == 0xb3, op == 0xbb,
			op == 0xba && in.Reg&7 > 4, op == 0xc3, op == 0xae, op == 0xa4, op == 0xa5, op == 0xac, op == 0xad, op == 0x7e:
			return true, 0, false
		}
		return false, 0, false
	}
	switch op := in.Op; {
	case op == 0x89:
		return true, in.Reg, in.OpSize >= 4
	case op == 0xc7:
		return true, x86.None, in.OpSize >= 4
	case op < 0x38 && op&7 <= 1, op == 0x88, op == 0x86, op == 0x87, op == 0xc6, op == 0xc0, op == 0xc1, op >= 0xd0 && op <= 0xd3, op == 0xfe, op == 0x8f,
		(op == 0x80 || op == 0x81 || op == 0x83) && in.Reg&7 != 7,
		(op == 0xf6 || op == 0xf7) && (in.Reg&7 == 2 || in.Reg&7 == 3),
		op == 0xff && in.Reg&7 < 2, op >= 0xd8 && op <= 0xdf:
		return true, 0, false
	}
	return false, 0, false
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
				if e.Kind != EdgeCall {
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
		b := o.File.From(o.at(r))
		isCall := len(b) > 0 && b[0] == 0xe8
		if r.kind == refSlot {
			var in x86.Inst
			x86.Decode(b, &in)
			isCall = in.Reg&7 == 2
		}
		out = append(out, callSite{o.at(r), isCall})
	}
	return out
}

// at evaluates a location of the callee before a call or jump.
func (s *state) at(l Loc, call bool) val {
	off, onStack := l.Stack()
	if !onStack {
		return s.regs[l]
	}
	sp, ok := s.regs[x86.RSP].stack()
	if !ok {
		return top
	}
	if call {
		off -= 8
	}
	return s.slot(sp+off, 4)
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
}

func (o *Object) passedAt(c uint32, sites []callSite, k wrapKey, depth int) []passedNumbers {
	if len(sites) == 0 {
		return nil
	}
	addrs := make([]uint64, len(sites))
	for i, s := range sites {
		addrs[i] = s.at
	}
	states := o.statesAt(c, addrs)
	var out []passedNumbers
	for _, cs := range sites {
		s := states[cs.at]
		v := s.at(k.loc, cs.call)
		var n numbers
		if k.deref {
			n = o.behind(c, v, s, k.off, depth)
		} else {
			n = o.interpret(c, v, depth)
		}
		out = append(out, passedNumbers{cs.at, n})
	}
	return out
}

// resolveSites finds the numbers of every site, and turns each call of a
// wrapper into a site of its own in the caller.
func (o *Object) resolveSites(ctx context.Context) error {
	var work []wrapKey
	via := map[wrapKey]bool{}
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
		addrs := make([]uint64, len(fn.Sites))
		for i := range fn.Sites {
			addrs[i] = fn.Sites[i].Addr
		}
		states := o.statesAt(uint32(fi), addrs)
		for i := range fn.Sites {
			s := &fn.Sites[i]
			n := o.interpret(uint32(fi), states[s.Addr].regs[x86.RAX], 0)
			work = append(work, o.settle(s, n)...)
			note(uint32(fi), n)
		}
	}
	o.callbacks = map[uint32]bool{}
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
		if k.deref && o.addressTaken(k.fn) {
			work = append(work, o.callbackSites(k)...)
		}
		for _, c := range uniq(slices.Clone(o.callers[k.fn])) {
			fn := &o.Facts.Funcs[c]
			for _, p := range o.passedAt(c, o.callSites(c, k.fn), k, 0) {
				s := Site{Addr: p.at, Kind: SiteSyscall, Via: k.fn + 1}
				work = append(work, o.settle(&s, p.numbers)...)
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
	return nil
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
		if !slices.ContainsFunc(fn.Edges, func(e Edge) bool { return e.To == k.fn && e.Kind != EdgeCall && e.Kind != EdgeFall }) {
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
		for _, r := range argRegs[:6] {
			v, ok := s.regs[r].single()
			passes = passes || ok && v == start
		}
		if !passes {
			continue
		}
		var n numbers
		for _, r := range argRegs[:6] {
			if _, ok := s.regs[r].stack(); ok {
				n.add(o.behind(c, s.regs[r], s, k.off, 0))
			}
		}
		if len(n.nrs)+len(n.from) == 0 {
			n.why = "the number is passed to a callback"
		}
		out = append(out, passedNumbers{at, n})
	}
	return out
}

// settle writes what is known into a site; parameters become keys to ask the
// callers for.
//
// Numbers that are kept in variables are given to the functions that keep them
// by resolveSites.
func (o *Object) settle(s *Site, n numbers) []wrapKey {
	s.Nrs = uniq(n.nrs)
	s.Unresolved = n.why
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

// ImportCalls evaluates location l at every call of an import from function
// c: the sites that calling a wrapper of another object makes.
func (o *Object) ImportCalls(c, imp uint32, l Loc) []Site {
	sites := o.sitesWhere(&o.Facts.Funcs[c], func(r *ref) bool {
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
	var out []Site
	for _, p := range o.passedAt(c, sites, wrapKey{loc: l}, 0) {
		s := Site{Addr: p.at, Kind: SiteSyscall}
		p.nrs = append(p.nrs, p.keptNumbers()...)
		o.settle(&s, p.numbers)
		out = append(out, s)
	}
	return out
}

// Passed evaluates location l at every direct call from function c to function
// w, for wrappers that are only known once another object was looked at.
func (o *Object) Passed(c, w uint32, l Loc) []Site {
	var out []Site
	for _, p := range o.passedAt(c, o.callSites(c, w), wrapKey{fn: w, loc: l}, 0) {
		s := Site{Addr: p.at, Kind: SiteSyscall, Via: w + 1}
		p.nrs = append(p.nrs, p.keptNumbers()...)
		o.settle(&s, p.numbers)
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
	var in x86.Inst
	for i := range o.refs {
		r := &o.refs[i]
		if r.kind != refSlot {
			continue
		}
		if j, ok := o.relocAt[r.to]; ok && o.File.Relocs[j].Sym >= 0 {
			continue // an import
		}
		x86.Decode(o.File.From(o.at(r)), &in)
		add(o.at(r), in.Reg&7 == 2)
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
