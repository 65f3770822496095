package facts

import (
	"math"
	"slices"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

// pop takes a word from the stack.
func (it *interp) pop(s *state) val {
	v := it.load(s, s.regs[x86.RSP], int(s.abi.word))
	s.regs[x86.RSP] = s.regs[x86.RSP].addConst(s.abi.word)
	return v
}

// address32 is address for 32-bit code, in which a sum wraps around.
func (it *interp) address32(s *state, in *x86.Inst) val {
	if in.DispOff > 0 && !in.HasDisp32 && in.ImmSize == 0 && in.Base == x86.None {
		return top // of 16 bits
	}
	base, index, scale := val{}, val{}, int64(in.Scale)
	if in.Base != x86.None {
		base = s.regs[in.Base]
	} else {
		base = constant(0)
	}
	if in.Index == x86.None {
		return base.addConst(in.Disp).mask32()
	}
	index = s.regs[in.Index]
	consts, ok := index.consts()
	if !ok && scale == 1 {
		// The register that holds the address may be the index.
		if c, isConst := base.consts(); isConst {
			base, consts, ok = index, c, true
		}
	}
	v := base.addConst(in.Disp).mask32()
	if !ok || len(consts) > maxIndexes {
		if it.watch != nil && (it.watch.near(v) || it.watch.near(index.addConst(in.Disp).mask32())) {
			it.watch.escapes = true // some place from there on
		}
		return top
	}
	out := val{}
	for _, c := range consts {
		out = out.join(v.addConst(c * scale).mask32())
	}
	return out
}

// apart is the distance in bytes of pieces of a stack between which it isn't
// known.
const apart = 1 << 16

// throughGate reports whether an instruction calls the kernel's own way in.
func throughGate(in *x86.Inst) bool {
	return !in.Vector && in.Map == x86.MapOne && in.Op == 0xff && in.Reg == 2 && in.Seg == 0x65 && in.Base == x86.None && in.Index == x86.None && in.Disp == gateSlot
}

// step32 applies the instructions that 64-bit code doesn't have, and those
// that do something else in 32-bit code; it reports whether it was one.
func (it *interp) step32(s *state, in *x86.Inst, next uint64) bool {
	op := in.Op
	pushes := op >= 0x50 && op <= 0x5f || op == 0x68 || op == 0x6a || op == 0x8f || op == 0xff && in.Reg == 6
	switch {
	case pushes && in.OpSize == 2:
		s.regs[x86.RSP] = top
		it.clobber(s, in, next)
		if op >= 0x58 && op <= 0x5f {
			s.regs[in.RM] = top
		}
	case op < 0x40 && op&7 >= 6:
		it.segment(s, op)
	case op >= 0x40 && op <= 0x47:
		it.setReg(s, in.RM, in.OpSize, s.regs[in.RM].addConst(1))
	case op >= 0x48 && op <= 0x4f:
		it.setReg(s, in.RM, in.OpSize, s.regs[in.RM].addConst(-1))
	case op == 0x60: // pusha
		sp := s.regs[x86.RSP]
		for r := range uint8(8) {
			if v := s.regs[r]; r == x86.RSP {
				it.push(s, sp)
			} else {
				it.push(s, v)
			}
		}
	case op == 0x61: // popa
		for r := range uint8(8) {
			if v := it.pop(s); 7-r != x86.RSP {
				s.regs[7-r] = v
			}
		}
	case op == 0x62 || op == 0xce:
	case op == 0x8c && in.Mod == 3:
		old, ok := s.regs[in.RM].single()
		s.regs[in.RM] = top
		if in.Reg == 5 && (in.OpSize == 4 || ok && old>>16 == 0) {
			s.regs[in.RM] = selectors()
		}
	case op == 0x63 || op == 0xc4 || op == 0xc5: // arpl, les, lds
		it.clobber(s, in, next)
	case op == 0x82:
		if in.Reg != 7 {
			it.clobberRM8(s, in, next)
		}
	case op == 0xa1:
		it.setReg(s, x86.RAX, in.OpSize, it.load(s, it.moffs(in), int(in.OpSize)))
	case op == 0xa2 || op == 0xa3:
		v, size := top, int64(1)
		if op == 0xa3 {
			v, size = s.regs[x86.RAX], int64(in.OpSize)
		}
		it.storeTo(s, it.moffs(in), size, v)
	case op == 0xd4 || op == 0xd5 || op == 0xd6:
		s.regs[x86.RAX] = top
	case op == 0x9a:
		it.noteIndirect(s)
		it.call(s)
		s.regs[x86.RSP] = top
	case op == 0xff && in.Reg == 2 && (throughGate(in) || it.o.gateCalls[next-uint64(in.Len)]):
		s.regs[x86.RAX] = top // the kernel changes no other
	case in.Mod == 3 && in.RM == x86.RSP && (op == 0x83 && in.Reg == 4 || op == 0x81 && in.Reg == 4 || op == 0x29), op == 0x2b && in.Reg == x86.RSP:
		// The stack is aligned, or cut by what isn't known: what lies there has
		// nothing to do with what lay there before.
		s.regs[x86.RSP] = s.regs[x86.RSP].addConst(-apart)
	case op == 0xe8:
		it.call32(s, uint64(uint32(next+uint64(in.Imm))), next)
	default:
		return false
	}
	return true
}

// selectors are what the register can hold that C libraries find a thread's
// data by: one of the three descriptors that set_thread_area(2) gives, of 32-bit
// and of 64-bit kernels, or the first of modify_ldt(2), or none.
func selectors() val {
	v := constant(0)
	for _, s := range []int64{0x33, 0x3b, 0x43, 0x63, 0x6b, 0x73, 0x7} {
		v = v.join(constant(s))
	}
	return v
}

// segment applies the one-byte instructions that push and pop segment registers
// or adjust decimals.
func (it *interp) segment(s *state, op uint8) {
	switch op {
	case 0x06, 0x0e, 0x16, 0x1e:
		it.push(s, top)
	case 0x07, 0x17, 0x1f:
		it.pop(s)
	case 0x27, 0x2f, 0x37, 0x3f:
		s.regs[x86.RAX] = top
	}
}

func (it *interp) moffs(in *x86.Inst) val {
	if in.Seg != 0 {
		return top
	}
	return constant(int64(uint32(in.Disp)))
}

// call32 is a direct call.
func (it *interp) call32(s *state, to, next uint64) {
	if to == next {
		it.push(s, constant(int64(next)))
		return
	}
	if r, ok := it.o.pcThunk(to); ok {
		s.regs[r] = constant(int64(next))
		return
	}
	if n := it.o.duffCopy(to); n > 0 {
		it.copyWords(s, n)
		return
	}
	it.noteJump(s, to)
	it.call(s)
	s.regs[x86.RSP] = s.regs[x86.RSP].addConst(it.o.popped(to))
	it.returned(s, to)
}

// duffStep copies a word: mov (%esi),%ecx; add $4,%esi; mov %ecx,(%edi);
// add $4,%edi.
const duffStep = "\x8b\x0e\x83\xc6\x04\x89\x0f\x83\xc7\x04"

// maxDuff bounds the words that are copied in this way.
const maxDuff = 128

// duffCopy returns the words that code copies and does nothing else: Go's
// compilers call into the middle of a function that consists of such steps, as
// many before its end as there are words.
func (o *Object) duffCopy(addr uint64) int {
	if !o.Facts.Go {
		return 0
	}
	code := o.File.From(addr)
	n := 0
	for n < maxDuff && len(code) > len(duffStep) && string(code[:len(duffStep)]) == duffStep {
		code, n = code[len(duffStep):], n+1
	}
	if len(code) == 0 || code[0] != 0xc3 {
		return 0
	}
	return n
}

func (it *interp) copyWords(s *state, n int) {
	for range n {
		it.storeTo(s, s.regs[x86.RDI], 4, it.load(s, s.regs[x86.RSI], 4))
		s.regs[x86.RSI] = s.regs[x86.RSI].addConst(4)
		s.regs[x86.RDI] = s.regs[x86.RDI].addConst(4)
	}
	s.regs[x86.RCX] = top
	it.spend(n)
}

// calledOnStack forgets what a called function may have changed of the stack:
// what lies below is free to use, and Go's functions return their results above.
func (s *state) calledOnStack(results bool) {
	sp, ok := s.regs[s.abi.sp].stack()
	if !ok {
		s.stack.forget(math.MinInt64)
		return
	}
	n, _ := s.stack.find(sp)
	for i := range n {
		s.stack.unknown(i)
	}
	if results {
		s.stack.forget(sp)
	}
}

// nowhere is the place of a stack of which nothing is known, in bytes from the
// stack pointer at entry: far below everything.
const nowhere = int64(-1) << 40

// part makes one of two states of 32-bit code whose stack pointers differ, as far
// as that is possible: what lies next to the stack pointer is known, where that is
// isn't. It returns t as it is then to be merged, and whether s changed.
func (s *state) part(t *state) (*state, bool) {
	a, known := s.regs[s.abi.sp].stack()
	b, same := t.regs[s.abi.sp].stack()
	if known && same && a == b || s.regs[s.abi.sp].bottom() || t.regs[s.abi.sp].bottom() {
		return t, false
	}
	changed := !known || a != nowhere
	if changed {
		s.adrift()
	}
	t = t.clone()
	t.adrift()
	return t, changed
}

// adrift moves a state's stack to where nothing is known of where it is. The next
// arguments are kept.
func (s *state) adrift() {
	sp, known := s.regs[s.abi.sp].stack()
	var list []slot
	for _, n := range s.stack.list {
		if _, ok := n.v.hasStack(); ok {
			n.v = top
		}
		if n.off -= sp; known && n.off >= 0 && n.off < maxStackArgs*s.abi.word {
			n.off += nowhere
			list = append(list, n)
		}
	}
	s.stack, s.lost, s.outer, s.escape = stack{list: list}, true, true, -noEscape
	for r := range s.regs {
		if _, ok := s.regs[r].hasStack(); ok {
			s.regs[r] = top
		}
	}
	s.regs[s.abi.sp] = val{atoms: []atom{{aStack, 0, nowhere}}}
}

// balance notes where the stack pointer is when a function returns. If it isn't
// where it was, a function of another object took more from the stack than the
// return address, and which word is which isn't known.
func (it *interp) balance(s *state) {
	if off, ok := s.regs[x86.RSP].stack(); s.abi.word == 4 && (!ok || off != 0) {
		it.uneven = true
	}
}

// distrust forgets what the stack of a function tells, but for the words next to
// the stack pointer: those are written right before they are used.
func (s *state) distrust() {
	doubtful := func(a atom) bool {
		_, onStack := Loc(a.a).Stack()
		return (a.kind == aParam || a.kind == aDerefP || a.kind == aParam16) && onStack
	}
	s.lost = true
	for r := range s.regs {
		if slices.ContainsFunc(s.regs[r].atoms, doubtful) {
			s.regs[r] = top
		}
	}
	sp, known := s.regs[s.abi.sp].stack()
	for i := range s.stack.list {
		n := &s.stack.list[i]
		if !known || n.off < sp || n.off > sp+maxStackArgs*s.abi.word || slices.ContainsFunc(n.v.atoms, doubtful) {
			s.stack.unknown(i)
		}
	}
}

// popped is how much a function takes from its caller's stack, besides the
// return address: functions that return a structure take the pointer to it.
// Those of other objects are taken to take nothing; what that means is seen where
// a function returns (balance).
func (o *Object) popped(to uint64) int64 {
	if n, ok := o.pops[to]; ok {
		return n
	}
	n := o.findPopped(to)
	if o.pops == nil {
		o.pops = map[uint64]int64{}
	}
	o.pops[to] = n
	return n
}

// maxPopped bounds the instructions that are looked at for a return.
const maxPopped = 1 << 12

func (o *Object) findPopped(addr uint64) int64 {
	seen := map[uint64]bool{}
	work := []uint64{addr}
	for len(work) > 0 && len(seen) < maxPopped {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		for !seen[at] && len(seen) < maxPopped && o.code(at) {
			seen[at] = true
			code := o.File.From(at)
			f := o.mach.flow(at, code)
			if f.n == 0 {
				break
			}
			if f.kind == ctlReturn {
				if code[0] == 0xc2 && f.n == 3 {
					return int64(code[1]) | int64(code[2])<<8
				}
				return 0
			}
			if f.kind == ctlBranch || f.kind == ctlJump {
				work = append(work, f.to)
			}
			if f.kind == ctlJump || f.kind == ctlIJump || f.kind == ctlTrap || f.kind == ctlBreak {
				break
			}
			at += uint64(f.n)
		}
	}
	return 0
}
