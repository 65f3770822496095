package facts

import (
	"slices"

	"github.com/confinehq/confine/pkg/analysis/object"
	"github.com/confinehq/confine/pkg/analysis/x86"
)

// maxSteps bounds the instructions interpreted for one function; beyond it the
// answer is unknown, which is safe.
const maxSteps = 1 << 20

// The interpreted instructions of a whole object are bounded, too: a fixed
// number, and so many for each byte of code. They may be spent once for numbers
// and once for arguments.
const (
	minBudget     = 8 << 20
	budgetPerByte = 8
)

// fullBudget is what may be spent before anything is.
func (o *Object) fullBudget() int { return minBudget + o.codeSize*budgetPerByte }

// copyCost is the number of stack slots whose copying costs as much as
// interpreting one instruction, and lookCost that of references looked at.
const (
	copyCost = 4
	lookCost = 16
)

// spend takes from what may be done for the object, and reports whether there
// is something left.
func (o *Object) spend(n int) bool {
	o.budget -= n
	return o.budget >= 0
}

// spend takes from what may be done for the function, too.
func (it *interp) spend(n int) bool {
	if it.steps += n; !it.o.spend(n) || it.steps > maxSteps {
		it.failed = true
	}
	return !it.failed
}

// widenAfter is the number of merges at one join point after which values that
// still change become unknown.
const widenAfter = 12

// interp runs one function on abstract values.
type interp struct {
	o      *Object
	fn     *Func
	in     map[uint64]*state // at join points
	want   map[uint64]*state // states before the wanted instructions; nil until reached
	work   []uint64
	queued map[uint64]bool
	visits map[uint64]int // merges at a join point
	steps  int
	failed bool
	tables []uint64 // targets of the function's jump tables
	watch  *watch   // what to note of one variable; nil: nothing
	uneven bool     // the stack pointer isn't where it should be at a return (32-bit code)
	seen   bitset   // instructions that were reached, by address - fn.Start; nil unless the whole function is to be covered
}

// statesAt returns the state before each of the given instructions of a
// function.
func (o *Object) statesAt(fi uint32, addrs []uint64) map[uint64]*state {
	it := o.interpreter(fi, addrs)
	it.reach(fi, addrs)
	return it.want
}

// reach runs a function, and gives every wanted instruction a state.
func (it *interp) reach(fi uint32, addrs []uint64) {
	it.start(fi)
	it.run()
	// Code that no direct branch reaches: landing pads, targets of computed
	// jumps. Nothing is known there but what the code itself sets.
	for _, a := range addrs {
		if it.want[a] == nil && !it.failed {
			it.flow(it.blockStart(a), unknownState(it.o.mach.abi()))
			it.run()
		}
	}
	for _, a := range addrs {
		if it.want[a] == nil || it.failed {
			it.want[a] = unknownState(it.o.mach.abi())
		} else if it.uneven {
			it.want[a].distrust()
		}
	}
}

// interpreter prepares the interpretation of a function.
func (o *Object) interpreter(fi uint32, addrs []uint64) *interp {
	fn := &o.Facts.Funcs[fi]
	it := &interp{o: o, fn: fn, in: map[uint64]*state{}, want: map[uint64]*state{}, queued: map[uint64]bool{}, visits: map[uint64]int{}}
	for _, a := range addrs {
		it.want[a] = nil
	}
	if !it.spend(1) {
		return it
	}
	it.tables = o.tables[fi]
	for _, a := range it.tables {
		it.in[a] = nil
	}
	first := o.firstRef(fn.Start)
	i := first
	for ; i < len(o.refs) && o.at(&o.refs[i]) < fn.End; i++ {
		if r := &o.refs[i]; r.kind == refJump && r.to >= fn.Start && r.to < fn.End {
			it.in[r.to] = nil
		}
	}
	it.spend((i - first + len(addrs) + len(it.tables)) / lookCost)
	return it
}

// start flows into a function through all of its entries.
func (it *interp) start(fi uint32) {
	if it.o.gap(it.fn.Start) {
		if it.o.entered(fi) {
			it.flow(it.fn.Start, entryState(it.o.mach.abi()))
		}
	} else if it.o.isTarget(it.fn.Start) || len(it.o.entries[fi]) == 0 {
		// Unwind ranges of signal restorers begin a byte before the code, where
		// nothing enters.
		it.flow(it.fn.Start, entryState(it.o.mach.abi()))
	}
	for _, e := range it.o.entries[fi] {
		it.flow(e, entryState(it.o.mach.abi()))
	}
}

// blockStart walks back from an instruction that nothing reached to the first
// one after the last terminator or visited instruction.
func (it *interp) blockStart(a uint64) uint64 {
	o := it.o
	start := a
	for start > it.fn.Start {
		p, f := o.previous(it.fn, start)
		if f.n == 0 || f.kind.ends() && f.kind != ctlCall || a-p > 4096 {
			break
		}
		start = p
		if _, leader := it.in[start]; leader {
			break
		}
	}
	return start
}

// previous returns the instruction that ends at an address inside of a
// function, and its place; its length is 0 when there is none.
func (o *Object) previous(fn *Func, at uint64) (uint64, flow) {
	if at <= fn.Start {
		return at, flow{}
	}
	p := o.boundary(fn, at)
	f := o.mach.flow(p, o.File.Bytes(p, fn.End-p))
	if uint64(f.n) != at-p {
		return p, flow{}
	}
	return p, f
}

// boundary is the last known start of an instruction before an address inside
// of a function, or the function's start.
func (o *Object) boundary(fn *Func, at uint64) uint64 {
	p := at - 1
	for p > fn.Start && !o.bound.has(p-o.textLo) {
		p--
	}
	return p
}

func (o *Object) firstRef(at uint64) int {
	i, _ := slices.BinarySearchFunc(o.refs, at, func(r ref, t uint64) int {
		if o.at(&r) < t {
			return -1
		}
		return 1
	})
	return i
}

func (it *interp) flow(to uint64, s *state) {
	if to < it.fn.Start || to >= it.fn.End {
		return
	}
	if !it.spend(len(s.stack.list) / copyCost) {
		return
	}
	old := it.in[to]
	if old == nil {
		it.in[to] = s.clone()
	} else {
		it.visits[to]++
		if !old.merge(s, it.visits[to] > widenAfter) {
			return
		}
	}
	if !it.queued[to] {
		it.queued[to] = true
		it.work = append(it.work, to)
	}
}

func (it *interp) run() {
	for len(it.work) > 0 && !it.failed {
		at := it.work[len(it.work)-1]
		it.work = it.work[:len(it.work)-1]
		it.queued[at] = false
		it.o.mach.block(it, at)
	}
}

// block is amd64's block.
func (it *interp) block(at uint64) {
	s := it.in[at].clone()
	if !it.spend(len(s.stack.list) / copyCost) {
		return
	}
	code := it.o.File.Bytes(at, it.fn.End-at)
	var in, prev x86.Inst
	for first := true; ; first = false {
		if len(code) == 0 { // runs on into the next function
			it.note(at, s)
			return
		}
		if !first {
			if _, join := it.in[at]; join {
				it.flow(at, s)
				return
			}
		}
		if !it.spend(1) {
			return
		}
		n := it.decode(code, &in)
		if n == 0 {
			return
		}
		it.note(at, s)
		next := at + uint64(n)
		if !in.Vector && in.Map == x86.MapOne {
			switch op := in.Op; {
			case op == 0xe9 || op == 0xeb:
				it.flow(next+uint64(in.Imm), s)
				it.noteJump(s, next+uint64(in.Imm))
				return
			case op >= 0x70 && op <= 0x7f || op >= 0xe0 && op <= 0xe3:
				it.branch(s, &prev, op, next+uint64(in.Imm))
			case op == 0xc3 || op == 0xc2 || op == 0xf4 || op == 0xcc || op == 0xcb || op == 0xcf:
				if op == 0xc3 || op == 0xc2 {
					it.balance(s)
				}
				return
			case op == 0xff && (in.Reg&7 == 4 || in.Reg&7 == 5):
				for _, t := range it.tables {
					it.flow(t, s)
				}
				it.noteIndirect(s)
				return
			}
		}
		if !in.Vector && in.Map == x86.Map0F {
			if in.Op >= 0x80 && in.Op <= 0x8f {
				it.branch(s, &prev, in.Op-0x10, next+uint64(in.Imm))
			}
			if in.Op == 0x0b {
				return
			}
		}
		if !in.Vector && in.Map == x86.MapOne && in.Op == 0xe8 && (in.Imm != 0 || s.abi.word == 8) && !it.o.mayReturn(next+uint64(in.Imm), 0) {
			return
		}
		it.step(s, &in, next)
		code, at, prev = code[n:], next, in
	}
}

// decode decodes an instruction of either x86.
func (it *interp) decode(code []byte, in *x86.Inst) int {
	if it.o.mach.abi().word == 4 {
		return x86.Decode32(code, in)
	}
	return x86.Decode(code, in)
}

// branch flows to the target of a conditional jump. Where the instruction
// before compared a register with a constant, the side on which they are equal
// knows the register.
func (it *interp) branch(s *state, prev *x86.Inst, op uint8, to uint64) {
	r, c, ok := compared(prev, s.abi.word)
	if !ok || op != 0x74 && op != 0x75 {
		it.flow(to, s)
		return
	}
	if op == 0x74 {
		was := s.regs[r]
		s.regs[r] = constant(c)
		it.flow(to, s)
		s.regs[r] = was
		return
	}
	it.flow(to, s)
	s.regs[r] = constant(c)
}

// compared returns the register and the constant that an instruction compares.
// Only a whole register counts, and 32 bits of one whose number is asked for.
func compared(in *x86.Inst, word int64) (reg uint8, c int64, ok bool) {
	if in.Len == 0 || in.Vector || in.Map != x86.MapOne || in.Mod != 3 || !in.HasRM || int64(in.OpSize) != word {
		return 0, 0, false
	}
	switch {
	case in.Op == 0x85 && in.Reg == in.RM:
		return in.RM, 0, true
	case (in.Op == 0x83 || in.Op == 0x81) && in.Reg&7 == 7:
		return in.RM, in.Imm, true
	}
	return 0, 0, false
}

// note keeps the state before a wanted instruction.
func (it *interp) note(at uint64, s *state) {
	if it.seen != nil && at < it.fn.End {
		it.seen.set(at - it.fn.Start)
	}
	if w, ok := it.want[at]; ok {
		if w == nil {
			it.want[at] = s.clone()
		} else {
			w.merge(s, false)
		}
	}
}

// maxIndexes bounds the constants that an index may be for an address to be
// known.
const maxIndexes = 8

// address is the value of the memory operand's address.
func (it *interp) address(s *state, in *x86.Inst, next uint64) val {
	if in.Seg != 0 {
		return top
	}
	if in.RIPRel {
		return constant(int64(next) + in.Disp)
	}
	if s.abi.word == 4 {
		return it.address32(s, in)
	}
	v := constant(in.Disp)
	if in.Base != x86.None {
		v = s.regs[in.Base].addConst(in.Disp)
	}
	if in.Index != x86.None {
		consts, ok := s.regs[in.Index].consts()
		if !ok || len(consts) > maxIndexes {
			if it.watch != nil && it.watch.near(v) {
				it.watch.escapes = true // some place from there on
			}
			return top
		}
		out := val{}
		for _, c := range consts {
			out = out.join(v.addConst(c * int64(in.Scale)))
		}
		v = out
	}
	return v
}

// load reads size bytes at an address.
func (it *interp) load(s *state, addr val, size int) val {
	if addr.top || addr.bottom() {
		return top
	}
	out := val{}
	for _, a := range addr.atoms {
		var v val
		switch a.kind {
		case aStack:
			v = s.slot(a.off, size)
		case aConst:
			v = it.o.static(uint64(a.off), size)
		case aParam:
			v = val{atoms: []atom{{aDerefP, a.a, a.off}}}
		case aGlobal:
			v = val{atoms: []atom{{aDerefG, a.a, a.off}}}
		default:
			return top
		}
		out = out.join(v)
	}
	return out
}

// static reads what is known of memory at a fixed address: constants, the
// pointers that the loader writes, or the name of a variable.
func (o *Object) static(addr uint64, size int) val {
	s := o.File.SectionAt(addr)
	if s < 0 || size < 4 {
		return top
	}
	if i, ok := o.relocAt[addr]; ok {
		if r := &o.File.Relocs[i]; r.Sym < 0 && r.Type == object.RRelative && !o.File.Sections[s].Write {
			return constant(int64(r.Addend))
		}
		return top
	}
	if sec := &o.File.Sections[s]; sec.Write {
		return val{atoms: []atom{{aGlobal, int64(addr), 0}}}
	}
	b := o.File.Bytes(addr, uint64(size))
	if b == nil {
		return top
	}
	v := uint64(0)
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return constant(int64(v))
}

func (it *interp) storeTo(s *state, addr val, size int64, v val) {
	if it.watch != nil {
		it.watch.store(s, addr, size, v)
	}
	if off, ok := addr.stack(); ok {
		s.store(off, size, v)
		return
	}
	s.escapes(v)
	if addr.top {
		s.unknownStore()
		return
	}
	for _, a := range addr.atoms {
		switch a.kind {
		case aStack:
			s.store(a.off, size, top)
		case aConst:
		default:
			s.unknownStore()
		}
	}
}

func (it *interp) setReg(s *state, r uint8, size uint8, v val) {
	switch size {
	case 8:
		s.regs[r] = v
	case 4:
		s.regs[r] = v.mask32()
	default:
		s.regs[r] = top
	}
}

// rm reads the r/m operand.
func (it *interp) rm(s *state, in *x86.Inst, next uint64, size uint8) val {
	if in.Mod == 3 {
		v := s.regs[in.RM]
		if size == 4 {
			v = v.mask32()
		}
		return v
	}
	v := it.load(s, it.address(s, in, next), int(size))
	if size == 4 {
		v = v.mask32()
	}
	return v
}

func (it *interp) setRM(s *state, in *x86.Inst, next uint64, size uint8, v val) {
	if in.Mod == 3 {
		it.setReg(s, in.RM, size, v)
		return
	}
	it.storeTo(s, it.address(s, in, next), int64(size), v)
}

func (it *interp) push(s *state, v val) {
	sp := s.regs[x86.RSP].addConst(-s.abi.word)
	s.regs[x86.RSP] = sp
	it.storeTo(s, sp, s.abi.word, v)
}
