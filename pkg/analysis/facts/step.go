package facts

import (
	"math/bits"

	"github.com/confinehq/confine/pkg/analysis/x86"
)

func alu(op uint8) func(a, b int64) int64 {
	switch op {
	case 0:
		return func(a, b int64) int64 { return a + b }
	case 1:
		return func(a, b int64) int64 { return a | b }
	case 4:
		return func(a, b int64) int64 { return a & b }
	case 5:
		return func(a, b int64) int64 { return a - b }
	case 6:
		return func(a, b int64) int64 { return a ^ b }
	}
	return nil
}

// compute is the result of an ALU operation (0 add, 1 or, 2 adc, 3 sbb, 4 and,
// 5 sub, 6 xor).
func compute(op uint8, a, b val, same bool) val {
	if same {
		switch op {
		case 5, 6:
			return constant(0)
		case 3:
			return normal([]atom{{aConst, 0, 0}, {aConst, 0, -1}})
		case 1, 4:
			return a
		}
	}
	if c, ok := b.single(); ok {
		switch {
		case op == 0:
			return a.addConst(c)
		case op == 5:
			return a.addConst(-c)
		case op == 4 && c == 0:
			return constant(0)
		case op == 1 && c == -1:
			return constant(-1)
		case op == 4 && c > 0:
			if _, known := a.consts(); !known && bits.OnesCount64(uint64(c)) <= 4 {
				return subsets(uint64(c))
			}
		}
	}
	if c, ok := a.single(); ok && op == 0 {
		return b.addConst(c)
	}
	f := alu(op)
	if f == nil {
		return top
	}
	return pairwise(a, b, f)
}

// subsets lists the values that x & mask can have.
func subsets(mask uint64) val {
	var out []atom
	for sub := mask; ; sub = (sub - 1) & mask {
		out = append(out, atom{aConst, 0, int64(sub)})
		if sub == 0 {
			return normal(out)
		}
	}
}

// step applies one instruction that doesn't end the block.
func (it *interp) step(s *state, in *x86.Inst, next uint64) {
	if in.Vector || in.Map == x86.Map0F38 || in.Map == x86.Map0F3A {
		it.clobber(s, in, next)
		it.clobberThird(s, in)
		s.dropVectors(in)
		return
	}
	if in.Map == x86.Map0F {
		if it.o.Facts.Go && it.moveVector(s, in, next) {
			return
		}
		it.step0F(s, in, next)
		if in.Op < 0x30 || in.Op >= 0x50 {
			s.dropVectors(in)
		}
		return
	}
	if s.abi.word == 4 && it.step32(s, in, next) {
		return
	}
	op, size := in.Op, in.OpSize
	switch {
	case op < 0x40: // ALU
		kind := op >> 3
		if kind == 7 {
			return
		}
		switch op & 7 {
		case 1: // r/m, r
			same := in.Mod == 3 && in.RM == in.Reg
			it.setRM(s, in, next, size, compute(kind, it.rm(s, in, next, size), s.regs[in.Reg], same))
		case 3: // r, r/m
			same := in.Mod == 3 && in.RM == in.Reg
			it.setReg(s, in.Reg, size, compute(kind, s.regs[in.Reg], it.rm(s, in, next, size), same))
		case 5:
			it.setReg(s, x86.RAX, size, compute(kind, s.regs[x86.RAX], constant(in.Imm), false))
		case 4:
			s.regs[x86.RAX] = top
		case 0:
			if in.Mod == 3 && in.RM == in.Reg && kind == 6 {
				it.setLow8(s, in, in.RM, constant(0))
				return
			}
			it.clobberRM8(s, in, next)
		case 2:
			it.setLow8(s, in, in.Reg, top)
		}
	case op >= 0x50 && op <= 0x57:
		it.push(s, s.regs[in.RM])
	case op >= 0x58 && op <= 0x5f:
		v := it.pop(s)
		s.regs[in.RM] = v
	case op == 0x63: // movsxd
		v := it.rm(s, in, next, 4)
		it.setReg(s, in.Reg, size, signExtend(v))
	case op == 0x68 || op == 0x6a:
		it.push(s, constant(in.Imm))
	case op == 0x69 || op == 0x6b:
		it.setReg(s, in.Reg, size, pairwise(it.rm(s, in, next, size), constant(in.Imm), func(a, b int64) int64 { return a * b }))
	case op >= 0x70 && op <= 0x7f:
	case op == 0x80:
		if in.Reg&7 != 7 {
			it.clobberRM8(s, in, next)
		}
	case op == 0x81 || op == 0x83:
		if kind := in.Reg & 7; kind != 7 {
			it.setRM(s, in, next, size, compute(kind, it.rm(s, in, next, size), constant(in.Imm), false))
		}
	case op == 0x84 || op == 0x85 || op == 0xa8 || op == 0xa9:
	case op == 0x86 || op == 0x87: // xchg
		if op == 0x87 {
			v := it.rm(s, in, next, size)
			it.setRM(s, in, next, size, s.regs[in.Reg])
			if in.Mod != 3 {
				v = top
			}
			it.setReg(s, in.Reg, size, v)
		} else {
			it.clobber(s, in, next)
		}
	case op == 0x88:
		it.clobberRM8(s, in, next)
	case op == 0x89:
		it.setRM(s, in, next, size, s.regs[in.Reg])
	case op == 0x8a:
		it.setLow8(s, in, in.Reg, top)
	case op == 0x8b:
		it.setReg(s, in.Reg, size, it.rm(s, in, next, size))
	case op == 0x8d:
		if in.IsMem() {
			it.setReg(s, in.Reg, size, it.address(s, in, next))
		}
	case op == 0x8f:
		v := it.pop(s)
		it.setRM(s, in, next, uint8(s.abi.word), v)
	case op == 0x90 && in.RM == x86.RAX:
	case op >= 0x90 && op <= 0x97:
		s.regs[x86.RAX], s.regs[in.RM] = s.regs[in.RM], s.regs[x86.RAX]
		if size == 4 {
			s.regs[x86.RAX], s.regs[in.RM] = s.regs[x86.RAX].mask32(), s.regs[in.RM].mask32()
		}
	case op == 0x98:
		if size == 8 {
			s.regs[x86.RAX] = signExtend(s.regs[x86.RAX].mask32())
		} else {
			s.regs[x86.RAX] = top
		}
	case op == 0x99:
		s.regs[x86.RDX] = top
	case op == 0x9c:
		it.push(s, top)
	case op == 0x9d:
		it.pop(s)
	case op == 0xa1:
		s.regs[x86.RAX] = top
	case op == 0xa0:
		s.regs[x86.RAX] = top
	case op == 0xa2 || op == 0xa3:
		s.unknownStore()
	case op == 0xa4 || op == 0xa5 || op == 0xaa || op == 0xab || op == 0x6c || op == 0x6d: // string stores
		it.storeRange(s, s.regs[x86.RDI])
		s.regs[x86.RDI] = top
		if op == 0xa4 || op == 0xa5 {
			s.regs[x86.RSI] = top
		}
		if in.Rep || in.Repne {
			s.regs[x86.RCX] = constant(0)
		}
	case op == 0xa6 || op == 0xa7 || op == 0xac || op == 0xad || op == 0xae || op == 0xaf || op == 0x6e || op == 0x6f:
		s.regs[x86.RDI], s.regs[x86.RSI] = top, top
		if op == 0xac || op == 0xad {
			s.regs[x86.RAX] = top
		}
		if in.Rep || in.Repne {
			s.regs[x86.RCX] = top
		}
	case op >= 0xb0 && op <= 0xb7:
		it.setLow8(s, in, in.RM, constant(in.Imm&0xff))
	case op >= 0xb8 && op <= 0xbf:
		it.setReg(s, in.RM, size, constant(in.Imm))
	case op == 0xc0 || op == 0xd0 || op == 0xd2 || op == 0xfe || op == 0xf6 && in.Reg&7 > 1 && in.Reg&7 < 4:
		it.clobberRM8(s, in, next)
	case op == 0xf6:
		if in.Reg&7 >= 4 {
			s.regs[x86.RAX] = top
		}
	case op == 0xc1 || op == 0xd1 || op == 0xd3:
		it.shift(s, in, next)
	case op == 0xc6:
		it.clobberRM8(s, in, next)
	case op == 0xc7:
		it.setRM(s, in, next, size, constant(in.Imm))
	case op == 0xc8:
		s.regs[x86.RSP], s.regs[x86.RBP] = top, top
	case op == 0xc9:
		s.regs[x86.RSP] = s.regs[x86.RBP]
		v := it.pop(s)
		s.regs[x86.RBP] = v
	case op == 0xcd:
		s.regs[x86.RAX] = top
	case op >= 0xd8 && op <= 0xdf: // x87
		if in.IsMem() {
			it.storeRange16(s, it.address(s, in, next))
		} else if op == 0xdf {
			s.regs[x86.RAX] = top // fnstsw
		}
	case op == 0xe8:
		it.noteJump(s, next+uint64(in.Imm))
		it.call(s)
		it.returned(s, next+uint64(in.Imm))
	case op == 0xec || op == 0xed || op == 0xe4 || op == 0xe5:
		s.regs[x86.RAX] = top
	case op == 0xf7:
		switch in.Reg & 7 {
		case 2:
			it.setRM(s, in, next, size, pairwise(it.rm(s, in, next, size), constant(0), func(a, _ int64) int64 { return ^a }))
		case 3:
			it.setRM(s, in, next, size, pairwise(it.rm(s, in, next, size), constant(0), func(a, _ int64) int64 { return -a }))
		case 4, 5, 6, 7:
			s.regs[x86.RAX], s.regs[x86.RDX] = top, top
		}
	case op == 0xff:
		switch in.Reg & 7 {
		case 0:
			it.setRM(s, in, next, size, it.rm(s, in, next, size).addConst(1))
		case 1:
			it.setRM(s, in, next, size, it.rm(s, in, next, size).addConst(-1))
		case 2, 3:
			it.noteIndirect(s)
			it.call(s)
			if in.RIPRel {
				it.returned(s, next+uint64(in.Disp))
			}
		case 6:
			it.push(s, it.rm(s, in, next, uint8(s.abi.word)))
		}
	case op >= 0xe0 && op <= 0xe3:
		s.regs[x86.RCX] = top
	case op == 0x9e || op == 0xf5 || op >= 0xf8 && op <= 0xfd || op == 0x9b || op == 0xe6 || op == 0xe7 || op == 0xee || op == 0xef:
	default:
		it.clobber(s, in, next)
	}
}

// call forgets what a called function may change. Go's internal calling
// convention has no registers that a callee keeps but the frame pointer (Go
// internal ABI specification, "Architecture specifics").
func (it *interp) call(s *state) {
	s.call()
	if s.abi.word == 4 {
		s.calledOnStack(it.o.Facts.Go)
	}
	if it.o.Facts.Go {
		s.xmm = nil
	}
	if it.o.Facts.Go {
		for _, r := range s.abi.goClobbered {
			s.regs[r] = top
		}
	}
}

func signExtend(v val) val {
	return mapConsts(v, func(a int64) int64 { return int64(int32(a)) })
}

// mapConsts applies f to constants and leaves symbolic alternatives as they
// are: only the low 32 bits of a number matter to the kernel.
func mapConsts(v val, f func(int64) int64) val {
	if v.top {
		return v
	}
	out := make([]atom, len(v.atoms))
	for i, a := range v.atoms {
		switch a.kind {
		case aConst:
			a.off = f(a.off)
		case aLow8:
			return top
		}
		out[i] = a
	}
	return normal(out)
}

func (it *interp) shift(s *state, in *x86.Inst, next uint64) {
	n := constant(1)
	switch in.Op {
	case 0xc1:
		n = constant(in.Imm & 63)
	case 0xd3:
		n = top
	}
	size := in.OpSize
	v := it.rm(s, in, next, size)
	switch in.Reg & 7 {
	case 4, 6:
		v = pairwise(v, n, func(a, b int64) int64 { return a << (b & 63) })
	case 5:
		v = pairwise(v, n, func(a, b int64) int64 {
			if size == 4 {
				return int64(uint32(a) >> (b & 31))
			}
			return int64(uint64(a) >> (b & 63))
		})
	case 7:
		v = pairwise(v, n, func(a, b int64) int64 {
			if size == 4 {
				return int64(int32(a) >> (b & 31))
			}
			return a >> (b & 63)
		})
	default:
		v = top
	}
	it.setRM(s, in, next, size, v)
}

// setLow8 writes the low byte of a register (or, without REX, one of AH, CH,
// DH, BH).
func (it *interp) setLow8(s *state, in *x86.Inst, r uint8, v val) {
	if in.Rex == 0 && r >= 4 && r < 8 {
		s.regs[r-4] = top
		return
	}
	c, ok := v.consts()
	if !ok {
		s.regs[r] = top
		return
	}
	var out []atom
	if old, known := s.regs[r].consts(); known {
		for _, o := range old {
			for _, n := range c {
				out = append(out, atom{aConst, 0, o&^0xff | n&0xff})
			}
		}
	} else {
		for _, n := range c {
			out = append(out, atom{aLow8, 0, n & 0xff})
		}
	}
	s.regs[r] = normal(out)
}

func (it *interp) clobberRM8(s *state, in *x86.Inst, next uint64) {
	if in.Mod == 3 {
		it.setLow8(s, in, in.RM, top)
		return
	}
	it.storeTo(s, it.address(s, in, next), 1, top)
}

// storeRange is a store of unknown length from an address on.
func (it *interp) storeRange(s *state, addr val) {
	if low, ok := addr.hasStack(); ok {
		s.stack.forget(low - 7)
		// Slots without a value are parameters above: those stay, as a local
		// buffer doesn't reach over the return address.
	}
	s.unknownStore()
}

func (it *interp) storeRange16(s *state, addr val) {
	for _, a := range addr.atoms {
		if a.kind == aStack {
			s.store(a.off, 64, top)
		}
	}
	if addr.top {
		s.unknownStore()
	}
}

// clobber forgets everything that an instruction without a model may write.
func (it *interp) clobber(s *state, in *x86.Inst, next uint64) {
	if !in.HasRM {
		return
	}
	if in.Mod == 3 {
		if in.RM != x86.RSP {
			s.regs[in.RM] = top
		}
	} else {
		it.storeRange16(s, it.address(s, in, next))
	}
	if in.Reg != x86.RSP {
		s.regs[in.Reg] = top
	}
}

// clobberThird forgets every register where an instruction may write one that
// is encoded apart from the others (VEX.vvvv: BLSR and its like, MULX).
func (it *interp) clobberThird(s *state, in *x86.Inst) {
	if !in.Vector || in.Map <= x86.Map0F3A && (in.Map != x86.Map0F38 || in.Op != 0xf3 && in.Op != 0xf6) {
		return
	}
	for r := range s.regs {
		if r != x86.RSP {
			s.regs[r] = top
		}
	}
}

func (it *interp) step0F(s *state, in *x86.Inst, next uint64) {
	op, size := in.Op, in.OpSize
	switch {
	case op == 0x05 || op == 0x34:
		s.regs[x86.RAX], s.regs[x86.RCX] = top, top
		if s.abi.regs > x86.R11 {
			s.regs[x86.R11] = top
		}
	case op >= 0x40 && op <= 0x4f: // cmov
		v := s.regs[in.Reg].join(it.rm(s, in, next, size))
		if size == 4 {
			v = v.mask32()
		}
		it.setReg(s, in.Reg, size, v)
	case op >= 0x80 && op <= 0x8f:
	case op >= 0x90 && op <= 0x9f: // setcc
		if in.Mod == 3 {
			it.setLow8(s, in, in.RM, normal([]atom{{aConst, 0, 0}, {aConst, 0, 1}}))
			return
		}
		it.storeTo(s, it.address(s, in, next), 1, top)
	case op == 0xa2: // cpuid
		s.regs[x86.RAX], s.regs[x86.RBX], s.regs[x86.RCX], s.regs[x86.RDX] = top, top, top, top
	case op == 0x31 || op == 0x32 || op == 0x33: // rdtsc, rdmsr, rdpmc
		s.regs[x86.RAX], s.regs[x86.RDX] = top, top
	case op == 0x01 || op == 0x00:
		it.clobber(s, in, next)
		s.regs[x86.RAX], s.regs[x86.RDX], s.regs[x86.RCX] = top, top, top
	case op == 0xaf: // imul
		it.setReg(s, in.Reg, size, pairwise(s.regs[in.Reg], it.rm(s, in, next, size), func(a, b int64) int64 { return a * b }))
	case op == 0xb6 || op == 0xb7 || op == 0xbe || op == 0xbf: // movzx, movsx
		it.extend(s, in, next)
	case op == 0xa3 || op == 0x1f || op == 0x18 || op == 0x19 || op == 0x1c || op == 0x1d || op == 0x1e || op == 0x0d || op == 0x0b || op == 0x77:
	case op == 0xba && in.Reg&7 == 4:
	case op == 0xb0 || op == 0xb1: // cmpxchg
		it.setRM(s, in, next, size, top)
		s.regs[x86.RAX] = top
	case op == 0xc7: // cmpxchg8b, cmpxchg16b, rdrand
		it.clobber(s, in, next)
		s.regs[x86.RAX], s.regs[x86.RDX] = top, top
	case op >= 0xc8 && op <= 0xcf:
		s.regs[in.RM] = top
	case op == 0xa0 || op == 0xa8:
		it.push(s, top)
	case op == 0xa1 || op == 0xa9:
		it.pop(s)
	case op == 0x11 || op == 0x13 || op == 0x17 || op == 0x29 || op == 0x2b || op == 0xe7 || op == 0x7f || op == 0xd6: // vector stores
		if in.IsMem() {
			it.storeVector(s, in, next)
		}
	case op == 0x10 || op == 0x12 || op == 0x14 || op == 0x15 || op == 0x16 || op == 0x28 || op == 0x2a || op == 0x2e || op == 0x2f ||
		op >= 0x51 && op <= 0x6f || op >= 0x74 && op <= 0x76 || op == 0xc6 || op == 0xc2:
		// vector registers only
	default:
		it.clobber(s, in, next)
	}
}

func (it *interp) storeVector(s *state, in *x86.Inst, next uint64) {
	size := int64(16)
	if in.Op == 0x13 || in.Op == 0x17 || in.Op == 0xd6 {
		size = 8
	}
	addr := it.address(s, in, next)
	if off, ok := addr.stack(); ok {
		for d := int64(0); d < size; d += 8 {
			s.store(off+d, 8, top)
		}
		return
	}
	it.storeTo(s, addr, size, top)
}

// moveVector models whole 16-byte moves between memory and vector registers,
// with which Go copies structures.
func (it *interp) moveVector(s *state, in *x86.Inst, next uint64) bool {
	if !in.IsMem() || in.Rep && in.Op != 0x6f && in.Op != 0x7f || in.Repne {
		return false
	}
	switch in.Op {
	case 0x10, 0x28, 0x6f:
		addr := it.address(s, in, next)
		s.setVector(in.Reg, [2]val{it.load(s, addr, 8), it.load(s, addr.addConst(8), 8)})
	case 0x11, 0x29, 0x7f:
		addr := it.address(s, in, next)
		v := s.vector(in.Reg)
		it.storeTo(s, addr, 8, v[0])
		it.storeTo(s, addr.addConst(8), 8, v[1])
	default:
		return false
	}
	return true
}

func (it *interp) extend(s *state, in *x86.Inst, next uint64) {
	size := in.OpSize
	wide := in.Op&1 != 0
	signed := in.Op >= 0xbe
	v := top
	if in.Mod == 3 {
		r := in.RM
		if !wide && in.Rex == 0 && r >= 4 && r < 8 {
			it.setReg(s, in.Reg, size, top)
			return
		}
		v = s.regs[r]
	}
	if v.top {
		it.setReg(s, in.Reg, size, top)
		return
	}
	out := make([]atom, 0, len(v.atoms))
	for _, a := range v.atoms {
		switch {
		case a.kind == aConst || a.kind == aLow8 && !wide:
			c := a.off
			switch {
			case wide && signed:
				c = int64(int16(c))
			case wide:
				c = int64(uint16(c))
			case signed:
				c = int64(int8(c))
			default:
				c = int64(uint8(c))
			}
			out = append(out, atom{aConst, 0, c})
		case a.kind == aParam && a.off == 0 && wide:
			out = append(out, atom{aParam16, a.a, 0})
		default:
			it.setReg(s, in.Reg, size, top)
			return
		}
	}
	it.setReg(s, in.Reg, size, normal(out))
}
