package facts

import (
	"cmp"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

// maxAtoms bounds the alternatives of one value; more make it unknown.
const maxAtoms = 32

// atomKind says what one alternative of a value is.
type atomKind uint8

const (
	aConst   atomKind = iota + 1 // off
	aParam                       // what location a held at entry, plus off
	aStack                       // stack pointer at entry, plus off
	aGlobal                      // what is stored at static address a, plus off
	aDerefP                      // what is stored off bytes behind the pointer in parameter a
	aDerefG                      // what is stored off bytes behind the pointer at address a
	aLow8                        // only the low byte is known: off
	aParam16                     // the low 16 bits of what location a held at entry
)

// atom is one alternative of a value.
type atom struct {
	kind   atomKind
	a, off int64
}

// val is a set of alternatives. The zero val is bottom: no path leads here
// yet. With top set it can be anything.
type val struct {
	top   bool
	atoms []atom
}

var top = val{top: true}

func constant(c int64) val     { return val{atoms: []atom{{aConst, 0, c}}} }
func param(l Loc) val          { return val{atoms: []atom{{aParam, int64(l), 0}}} }
func (v val) bottom() bool     { return !v.top && len(v.atoms) == 0 }
func (v val) equal(w val) bool { return v.top == w.top && slices.Equal(v.atoms, w.atoms) }
func cmpAtom(a, b atom) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.a, b.a), cmp.Compare(a.off, b.off))
}

func normal(atoms []atom) val {
	slices.SortFunc(atoms, cmpAtom)
	atoms = slices.Compact(atoms)
	if len(atoms) > maxAtoms {
		return top
	}
	return val{atoms: atoms}
}

// join is the union of two values.
func (v val) join(w val) val {
	switch {
	case v.top || w.top:
		return top
	case len(v.atoms) == 0:
		return w
	case len(w.atoms) == 0 || v.equal(w):
		return v
	}
	return normal(append(slices.Clone(v.atoms), w.atoms...))
}

// consts returns the constants, false when the value is anything else.
func (v val) consts() ([]int64, bool) {
	if v.top || len(v.atoms) == 0 {
		return nil, false
	}
	out := make([]int64, len(v.atoms))
	for i, a := range v.atoms {
		if a.kind != aConst {
			return nil, false
		}
		out[i] = a.off
	}
	return out, true
}

// single returns the only constant.
func (v val) single() (int64, bool) {
	if !v.top && len(v.atoms) == 1 && v.atoms[0].kind == aConst {
		return v.atoms[0].off, true
	}
	return 0, false
}

// stack returns the only stack offset.
func (v val) stack() (int64, bool) {
	if !v.top && len(v.atoms) == 1 && v.atoms[0].kind == aStack {
		return v.atoms[0].off, true
	}
	return 0, false
}

func (v val) hasStack() (int64, bool) {
	lowest, ok := int64(0), false
	for _, a := range v.atoms {
		if a.kind == aStack && (!ok || a.off < lowest) {
			lowest, ok = a.off, true
		}
	}
	return lowest, ok
}

// addConst adds c to every alternative that allows it.
func (v val) addConst(c int64) val {
	if v.top || c == 0 {
		return v
	}
	out := make([]atom, len(v.atoms))
	for i, a := range v.atoms {
		switch a.kind {
		case aConst, aParam, aStack:
			a.off += c
		default:
			return top
		}
		out[i] = a
	}
	return normal(out)
}

// pairwise applies f to every pair of constants.
func pairwise(v, w val, f func(a, b int64) int64) val {
	a, ok1 := v.consts()
	b, ok2 := w.consts()
	if !ok1 || !ok2 || len(a)*len(b) > 4*maxAtoms {
		return top
	}
	out := make([]atom, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			out = append(out, atom{aConst, 0, f(x, y)})
		}
	}
	return normal(out)
}

// mask32 cuts constants to 32 bits, as writing a 32-bit register does.
func (v val) mask32() val {
	change := false
	for _, a := range v.atoms {
		if a.kind == aConst && a.off != int64(uint32(a.off)) || a.kind == aLow8 {
			change = true
		}
	}
	if !change {
		return v
	}
	out := make([]atom, len(v.atoms))
	for i, a := range v.atoms {
		switch a.kind {
		case aConst:
			a.off = int64(uint32(a.off))
		case aLow8:
			return top
		}
		out[i] = a
	}
	return normal(out)
}

// state is what is known at one instruction.
type state struct {
	abi   *abi
	regs  []val    // the general registers
	xmm   *vectors // in Go programs; nil when nothing is known
	stack stack
	// escape is the lowest stack offset whose address somebody else may hold.
	escape int64
	// lost is set when an unknown store may have changed stack parameters, and
	// outer when somebody else may hold the address of one (32-bit code).
	lost, outer bool
}

// vectors are the halves of the vector registers; bottom is unknown, too.
type vectors [16][2]val

const noEscape = int64(1) << 62

func entryState(a *abi) *state {
	s := &state{abi: a, regs: make([]val, a.regs), escape: noEscape}
	for r := range s.regs {
		s.regs[r] = param(Loc(r))
	}
	s.regs[a.sp] = val{atoms: []atom{{aStack, 0, 0}}}
	return s
}

func unknownState(a *abi) *state {
	s := &state{abi: a, regs: make([]val, a.regs), escape: -noEscape, lost: true}
	for r := range s.regs {
		s.regs[r] = top
	}
	if a.args == nil {
		s.regs[a.sp] = val{atoms: []atom{{aStack, 0, nowhere}}}
	}
	return s
}

func (s *state) clone() *state {
	c := *s
	c.regs = slices.Clone(s.regs)
	c.stack = s.stack.share()
	if s.xmm != nil {
		v := *s.xmm
		c.xmm = &v
	}
	return &c
}

// merge joins t into s and reports whether s changed. With widen, whatever
// still changes becomes unknown, so that loops come to an end.
func (s *state) merge(t *state, widen bool) bool {
	changed := false
	if s.abi.args == nil {
		t, changed = s.part(t)
	}
	join := func(v, w val) val {
		j := v.join(w)
		if widen && !j.equal(v) && !v.bottom() {
			return top
		}
		return j
	}
	for r := range s.regs {
		j := join(s.regs[r], t.regs[r])
		if !j.equal(s.regs[r]) {
			s.regs[r], changed = j, true
		}
	}
	changed = s.mergeVectors(t, join) || changed
	changed = s.mergeStack(t, join) || changed
	if t.escape < s.escape {
		s.escape, changed = t.escape, true
	}
	if t.lost && !s.lost {
		s.lost, changed = true, true
	}
	if t.outer && !s.outer {
		s.outer, changed = true, true
	}
	return changed
}

func (s *state) mergeVectors(t *state, join func(v, w val) val) bool {
	if s.xmm == nil {
		return false
	}
	changed := false
	for r := range s.xmm {
		for h := range s.xmm[r] {
			v := s.xmm[r][h]
			if v.bottom() || v.top {
				continue
			}
			j := top
			if t.xmm != nil && !t.xmm[r][h].bottom() {
				j = join(v, t.xmm[r][h])
			}
			if !j.equal(v) {
				s.xmm[r][h], changed = j, true
			}
		}
	}
	return changed
}

// vector returns what is known of a vector register.
func (s *state) vector(r uint8) [2]val {
	if s.xmm == nil {
		return [2]val{top, top}
	}
	v := s.xmm[r&15]
	for h := range v {
		if v[h].bottom() {
			v[h] = top
		}
	}
	return v
}

func (s *state) setVector(r uint8, v [2]val) {
	if s.xmm == nil {
		s.xmm = &vectors{}
	}
	s.xmm[r&15] = v
}

// dropVectors forgets the vector registers that an instruction may write.
func (s *state) dropVectors(in *x86.Inst) {
	if s.xmm == nil {
		return
	}
	if !in.HasRM {
		s.xmm = nil
		return
	}
	s.xmm[in.Reg&15], s.xmm[0] = [2]val{}, [2]val{}
	if in.Mod == 3 {
		s.xmm[in.RM&15] = [2]val{}
	}
}

// unwritten is the value of a slot that nothing has been stored to.
func (s *state) unwritten(off int64) val {
	if !s.lost && off >= s.abi.pushed && off%s.abi.word == 0 {
		if l, ok := StackLoc(off); ok {
			return param(l)
		}
	}
	return top
}

// slot reads size bytes, 4 or 8.
func (s *state) slot(off int64, size int) val {
	if i, ok := s.stack.find(off); ok {
		if n := &s.stack.list[i]; !n.narrow || size <= 4 {
			return n.v
		}
		return top
	}
	if s.stack.covered(off) {
		return top
	}
	return s.unwritten(off)
}

// maxSlots bounds the slots of one state.
const maxSlots = 4096

// store puts v into size bytes at off.
func (s *state) store(off int64, size int64, v val) {
	for i, _ := s.stack.find(off - 7); i < len(s.stack.list) && s.stack.list[i].off < off+size; i++ {
		if n := &s.stack.list[i]; n.off > off || n.off < off && n.reaches(off) {
			s.stack.unknown(i)
		}
	}
	if len(s.stack.list) > maxSlots {
		s.stack, s.lost = stack{}, true
	}
	if size < 4 || size > 8 {
		v = top
		for d := int64(8); d < size; d += 8 {
			s.stack.set(slot{off: off + d, v: top})
		}
	}
	s.stack.set(slot{off, v, size < 8})
	s.escapes(v)
}

// escapes notes that somebody else may hold the addresses in a value.
func (s *state) escapes(v val) {
	low, ok := v.hasStack()
	if !ok {
		return
	}
	s.escape = min(s.escape, low)
	// 32-bit code has its parameters on the stack, where they stay.
	if s.abi.args == nil && slices.ContainsFunc(v.atoms, func(a atom) bool { return a.kind == aStack && a.off >= s.abi.pushed }) {
		s.outer = true
	}
}

// unknownStore is a store to an address that may be any that has escaped.
func (s *state) unknownStore() {
	s.stack.forget(s.escape)
	s.lost = s.lost || s.outer
	if s.escape < 8 && s.escape > -noEscape {
		// A local buffer has escaped; parameters lie above it, but callees
		// don't write outside of the object that they were given.
		return
	}
}

// call is a call of an unknown function.
func (s *state) call() {
	for _, r := range s.abi.clobbered {
		s.escapes(s.regs[r])
	}
	s.unknownStore()
	for _, r := range s.abi.clobbered {
		s.regs[r] = top
	}
}
